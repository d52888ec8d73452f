"""Devices of a run, through Lightning Fabric: CPU, GPUs and ranks, precision, memory, compilation."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision.amp import MixedPrecision
from lightning_fabric.strategies import DDPStrategy, Strategy
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wesep_py.common.errors import ConfigError, InputError
from wesep_py.common.half_precision import has_amx, unsupported
from wesep_py.common.processes import max_workers
from wesep_py.network.backbones.filterbanks import FilterbankDecoder, FilterbankEncoder
from wesep_py.training.training_config import RunConfig, TrainLoopConfig

PRECISIONS = ("auto", "32-true", "bf16-mixed")
"""Values of `train.precision`."""
CONVOLUTIONS = (
    nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d, FilterbankEncoder, FilterbankDecoder
)  # fmt: skip
"""Layers that convolve."""
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
"""Options of `mallopt`, from malloc.h of the GNU C library."""


def check_machine(config: RunConfig) -> None:
    """Refuse more threads or processes than this machine can start.

    Raises:
        ConfigError: names the key.
    """
    for key, count in (("train.threads", config.train.threads), ("data.workers", config.data.workers)):
        if count is not None and count > max_workers():
            raise ConfigError(f"{key}: is {count}; at most {max_workers()} are allowed on this machine")


def make_fabric(config: TrainLoopConfig) -> Fabric:
    """Return Fabric for one device, or for all devices that `torchrun` started processes for.

    Under `torchrun` (recognised by its environment variables) each process takes one device, and gradients are averaged
    over all of them by `DistributedDataParallel`; otherwise one device is used.

    Raises:
        InputError: a GPU is configured and there is none; bfloat16 is configured and the device does not support it.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError("train.device is cuda, and torch finds no CUDA device; use auto or cpu, or see `wesep doctor`")
    accelerator = device_type_of(config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if accelerator == "cpu":
        keep_freed_memory()
    world, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    is_distributed = "TORCHELASTIC_RUN_ID" in os.environ and world > 1
    # Parts of the network without a loss, such as a presence head, have parameters that a step does not use.
    strategy: str | Strategy = DDPStrategy(find_unused_parameters=True) if is_distributed else "auto"
    is_mixed = resolve_precision(config.precision, accelerator) == "bf16-mixed"
    return Fabric(
        accelerator=accelerator,
        strategy=strategy,
        devices=local if is_distributed else 1,
        num_nodes=world // local if is_distributed else 1,
        precision=None if is_mixed else "32-true",
        plugins=[WaveformMixedPrecision("bf16-mixed", accelerator)] if is_mixed else None,
    )


def device_type_of(device: str) -> str:
    """Return the type of device, `cuda` or `cpu`, that `train.device` (`auto`, `cpu` or `cuda`) stands for."""
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


class WaveformMixedPrecision(MixedPrecision):
    """Mixed precision that does not cast the inputs.

    Fabric's own class casts every floating-point input to bfloat16 first. A waveform would be left with 8 significant
    bits, a quantisation noise of about -50 dB, before any layer processes it.
    """

    def convert_input(self, data: Any) -> Any:
        return data


def resolve_precision(precision: str, device_type: str) -> str:
    """Return the precision that a run computes in: `bf16-mixed` or `32-true`.

    Args:
        precision: `auto`, `bf16-mixed` or `32-true`.
        device_type: `cpu` or `cuda`.

    Raises:
        InputError: `bf16-mixed` is configured, and the device has no matrix product in bfloat16.
    """
    if precision == "auto":
        return "32-true" if unsupported(device_type) else "bf16-mixed"
    if precision == "bf16-mixed" and (problem := unsupported(device_type, ("matmul",))):
        raise InputError(f"train.precision: is bf16-mixed, and {problem}; use auto or 32-true")
    return precision


def describe_precision(precision: str, device_type: str) -> str:
    """Return a phrase for the log: what the run computes in, and why if `auto` selected float32."""
    resolved = resolve_precision(precision, device_type)
    name = "bfloat16 with float32 weights" if resolved == "bf16-mixed" else "float32"
    problem = unsupported(device_type) if precision == "auto" else None
    return f"{name} ({problem})" if problem else name


def require_precision(module: nn.Module, precision: str, device_type: str) -> None:
    """Refuse a module with recurrent layers if `bf16-mixed` is configured and the device cannot run them in it.

    Raises:
        InputError: names the operation and what to set instead.
    """
    is_recurrent = any(isinstance(part, nn.RNNBase) for part in module.modules())
    if precision == "bf16-mixed" and is_recurrent and (problem := unsupported(device_type)):
        raise InputError(f"train.precision: is bf16-mixed, and {problem}; use auto or 32-true")


def convolve_in_float32(module: nn.Module, precision: str, device_type: str) -> int:
    """Let the convolutions of a module compute in float32 if a run in bfloat16 uses a processor with AMX.

    oneDNN's bfloat16 kernels for AMX return garbage for some shapes, forward or backward, and no error (torch 2.11.0;
    `tests/training/test_devices.py` has three of these shapes, github.com/pytorch/pytorch/issues/169688 the second).
    The parameters keep their names.

    Args:
        module: what a step computes.
        precision: `train.precision`.
        device_type: `cpu` or `cuda`.

    Returns:
        The number of such convolutions; 0 on other processors and in other precisions.
    """
    if device_type != "cpu" or resolve_precision(precision, device_type) != "bf16-mixed" or not has_amx():
        return 0
    layers = [layer for layer in module.modules() if isinstance(layer, CONVOLUTIONS)]
    for layer in layers:
        layer.forward = partial(_without_autocast, type(layer).forward, layer)
    return len(layers)


def _without_autocast(forward: Callable[..., Tensor], layer: nn.Module, x: Tensor, *arguments: Any) -> Tensor:
    """Call the `forward` of a layer in float32."""
    with torch.autocast("cpu", enabled=False):
        return forward(layer, x.float(), *arguments)


def keep_freed_memory() -> bool:
    """Let the GNU C library's malloc keep freed memory instead of returning it to the system.

    By default it maps each large tensor anew and unmaps it when it is freed. Each step on the CPU then waits for zeroed
    pages again: a quarter to a third of its processor time (`bench/training_step.py`).

    Returns:
        Whether it was done; false on systems with another C library.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    largest = 2**31 - 1
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: largest, _M_TOP_PAD: 64 * 2**20}
    return all(mallopt(option, value) == 1 for option, value in settings.items())


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """Return the repeated blocks of a network: `backbone.blocks`, or the contents of its outermost module lists."""
    backbone = getattr(network, "backbone", network)
    blocks = getattr(backbone, "blocks", None)
    lists = [blocks] if isinstance(blocks, nn.ModuleList) else list(backbone.children())
    return [block for group in lists if isinstance(group, nn.ModuleList) for block in group]


def compile_blocks(network: nn.Module) -> None:
    """Compile the repeated blocks of a network by `torch.compile`; the whole network if it has no blocks.

    The layers around a separator's blocks compute with complex spectra, which torch's compiler does not translate.
    """
    for part in blocks_of(network) or [network]:
        part.compile()


def recompute_blocks(network: nn.Module) -> None:
    """Let the repeated blocks of a network keep only their inputs, and recompute them for the gradients.

    Chen et al., "Training deep nets with sublinear memory cost", arXiv 1604.06174. The gradients are the same.

    Raises:
        ConfigError: the network has no such blocks (`blocks_of`).
    """
    blocks = blocks_of(network)
    if not blocks:
        raise ConfigError("train.gradient_checkpointing: is true, and the network has no blocks to compute again")
    for block in blocks:
        block.forward = _recomputed(block, block.forward)


def _recomputed(block: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*positional: Any, **named: Any) -> Any:
        if not (block.training and torch.is_grad_enabled()):
            return forward(*positional, **named)
        return checkpoint(forward, *positional, use_reentrant=False, **named)

    return run
