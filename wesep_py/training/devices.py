"""Where a run computes: devices, ranks, precision and threads, through Lightning Fabric."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision.amp import MixedPrecision
from lightning_fabric.strategies import DDPStrategy, Strategy
from torch import nn
from torch.utils.checkpoint import checkpoint

from wesep_py.common.errors import ConfigError, InputError
from wesep_py.common.half_precision import unsupported
from wesep_py.training.training_config import TrainLoopConfig

# ----------------------------------------
# Memory: kept between steps instead of returned to the system and asked for again; saved by computing twice.

# From malloc.h of the GNU C library.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Tell the GNU C library's malloc to keep what is freed.

    By default it maps every large tensor afresh and unmaps it when it is freed; each step on the CPU then pays for
    zeroed pages again: a quarter to a third of its processor time (`bench/training_step.py`).

    Returns:
        Whether it was done; false on systems with another C library.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    largest = 2**31 - 1
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: largest, _M_TOP_PAD: 64 * 2**20}
    return all(mallopt(option, value) == 1 for option, value in settings.items())


def recompute_blocks(network: nn.Module) -> None:
    """Let the repeated blocks of a network's backbone keep their inputs only, and be computed again for the gradients.

    Chen et al., "Training deep nets with sublinear memory cost", arXiv 1604.06174. The gradients are the same.

    Raises:
        ConfigError: the network has no such blocks (`blocks_of`).
    """
    blocks = blocks_of(network)
    if not blocks:
        raise ConfigError("train.gradient_checkpointing: is true, and the network has no blocks to compute again")
    for block in blocks:
        block.forward = _twice(block, block.forward)


def compile_blocks(network: nn.Module) -> None:
    """Send the repeated blocks of a network through `torch.compile`; all of a network that has none.

    What is around the blocks of a separator computes with complex spectra, which torch's compiler does not translate.
    """
    for part in blocks_of(network) or [network]:
        part.compile()


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The `blocks` of a network's backbone, or else all that its outermost lists of modules hold."""
    backbone = getattr(network, "backbone", network)
    own = getattr(backbone, "blocks", None)
    lists = [own] if isinstance(own, nn.ModuleList) else list(backbone.children())
    return [block for group in lists if isinstance(group, nn.ModuleList) for block in group]


def _twice(block: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*positional: Any, **named: Any) -> Any:
        if not (block.training and torch.is_grad_enabled()):
            return forward(*positional, **named)
        return checkpoint(forward, *positional, use_reentrant=False, **named)

    return run


PRECISIONS = ("auto", "32-true", "bf16-mixed")
"""What `train.precision` may be."""


class WaveformMixedPrecision(MixedPrecision):
    """Mixed precision that leaves the inputs as they are.

    Fabric's own casts every floating-point input to bfloat16 first; a waveform would be left with 8 significant
    bits, its quantisation noise at about -50 dB, before any layer has seen it.
    """

    def convert_input(self, data: Any) -> Any:
        return data


def device_type_of(device: str) -> str:
    """Return the type of device that `train.device` (`auto`, `cpu` or `cuda`) stands for: `cuda` or `cpu`."""
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def resolve_precision(precision: str, device_type: str) -> str:
    """Return the precision that a run computes in: `bf16-mixed` or `32-true`.

    Args:
        precision: `auto`, `bf16-mixed` or `32-true`.
        device_type: `cpu` or `cuda`.

    Raises:
        InputError: `bf16-mixed` was asked for, and the device has no matrix product in bfloat16.
    """
    if precision == "auto":
        return "32-true" if unsupported(device_type) else "bf16-mixed"
    if precision == "bf16-mixed" and (problem := unsupported(device_type, ("matmul",))):
        raise InputError(f"train.precision: is bf16-mixed, and {problem}; use auto or 32-true")
    return precision


def describe_precision(precision: str, device_type: str) -> str:
    """Return one phrase for the log: what the run computes in, and why where `auto` chose float32."""
    resolved = resolve_precision(precision, device_type)
    name = "bfloat16 with float32 weights" if resolved == "bf16-mixed" else "float32"
    problem = unsupported(device_type) if precision == "auto" else None
    return f"{name} ({problem})" if problem else name


def require_precision(module: nn.Module, precision: str, device_type: str) -> None:
    """Refuse a module with recurrent layers where `bf16-mixed` was asked for and the device cannot run them.

    Raises:
        InputError: naming the operation and what to set instead.
    """
    is_recurrent = any(isinstance(part, nn.RNNBase) for part in module.modules())
    if precision == "bf16-mixed" and is_recurrent and (problem := unsupported(device_type)):
        raise InputError(f"train.precision: is bf16-mixed, and {problem}; use auto or 32-true")


def make_fabric(config: TrainLoopConfig) -> Fabric:
    """Fabric for one device, or for all those that `torchrun` started processes for.

    Under `torchrun` (its environment variables say so) every process takes one device and gradients are averaged
    over all of them by `DistributedDataParallel`; otherwise one device is used.

    Raises:
        InputError: a GPU was asked for and there is none; half precision was asked for and the device has none.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError("train.device is cuda, and torch finds no CUDA device; use auto or cpu, or see `wesep doctor`")
    accelerator = device_type_of(config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if accelerator == "cpu":
        keep_freed_memory()
    # The presence head and the like may be without a loss: such parameters are unused in a step.
    world, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    distributed = "TORCHELASTIC_RUN_ID" in os.environ and world > 1
    strategy: str | Strategy = DDPStrategy(find_unused_parameters=True) if distributed else "auto"
    mixed = resolve_precision(config.precision, accelerator) == "bf16-mixed"
    return Fabric(
        accelerator=accelerator,
        strategy=strategy,
        devices=local if distributed else 1,
        num_nodes=world // local if distributed else 1,
        precision=None if mixed else "32-true",
        plugins=[WaveformMixedPrecision("bf16-mixed", accelerator)] if mixed else None,
    )
