"""Where a run computes: devices, ranks, precision and threads, through Lightning Fabric."""

from __future__ import annotations

import os
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision.amp import MixedPrecision
from lightning_fabric.strategies import DDPStrategy, Strategy

from wesep_py.errors import InputError
from wesep_py.training.config import TrainLoopConfig
from wesep_py.training.memory import keep_freed_memory


class WaveformMixedPrecision(MixedPrecision):
    """Mixed precision that leaves the inputs as they are.

    Fabric's own casts every floating-point input to bfloat16 first; a waveform would be left with 8 significant
    bits, its quantisation noise at about -50 dB, before any layer has seen it.
    """

    def convert_input(self, data: Any) -> Any:
        return data


def make_fabric(config: TrainLoopConfig) -> Fabric:
    """Fabric for one device, or for all those that `torchrun` started processes for.

    Under `torchrun` (its environment variables say so) every process takes one device and gradients are averaged
    over all of them by `DistributedDataParallel`; otherwise one device is used.

    Raises:
        InputError: a GPU was asked for and there is none.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError("train.device is cuda, and torch finds no CUDA device; use auto or cpu, or see `wesep doctor`")
    accelerator = "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if accelerator == "cpu":
        keep_freed_memory()
    # The presence head and the like may be without a loss: such parameters are unused in a step.
    world, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    distributed = "TORCHELASTIC_RUN_ID" in os.environ and world > 1
    strategy: str | Strategy = DDPStrategy(find_unused_parameters=True) if distributed else "auto"
    mixed = config.precision == "bf16-mixed"
    return Fabric(
        accelerator=accelerator,
        strategy=strategy,
        devices=local if distributed else 1,
        num_nodes=world // local if distributed else 1,
        precision=None if mixed else "32-true",
        plugins=[WaveformMixedPrecision("bf16-mixed", accelerator)] if mixed else None,
    )
