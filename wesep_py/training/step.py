"""One optimiser step: gradients of the accumulated batches, clipping, and what happens if something is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from wesep_py.losses import Adversary
from wesep_py.training.config import RunConfig
from wesep_py.training.optim import set_learning_rate

_STREAM = 0x5EED  # separates the seeds of steps from other uses of the run's seed


@dataclass(frozen=True)
class StepResult:
    """What a step gave, over all ranks.

    Args:
        losses: means over the batches; `loss` is what was minimised. With what the adversaries say of themselves.
        grad_norm: of all parameters together, before clipping.
        stepped: false if loss or gradient was not finite and the weights were left as they were.
        shared: means over ranks of the numbers that the caller shares.
    """

    losses: dict[str, float]
    grad_norm: float
    stepped: bool
    shared: list[float]


def seed_step(seed: int, step: int, number: int, rank: int) -> None:
    """Set torch's random state to a function of the run's seed, the step, the batch of the step and the rank.

    So dropout, dither and SpecAugment need no saved state: a resumed run draws what an unbroken one would have drawn.
    """
    words = np.random.SeedSequence([seed, step, number, rank, _STREAM]).generate_state(1, np.uint64)
    torch.manual_seed(int(words[0]))


class Stepper:
    """Takes optimiser steps.

    Args:
        fabric: devices and precision.
        config: the run's.
        module: the training step, set up by Fabric; gives a dictionary of losses for a batch.
        optimizer: set up by Fabric.
        adversaries: by name, what learns after each step; moved to the device.
    """

    def __init__(
        self,
        fabric: Fabric,
        config: RunConfig,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        adversaries: Mapping[str, Adversary] | None = None,
    ) -> None:
        self._fabric = fabric
        self._config = config
        self._module = module
        self._optimizer = optimizer
        self._adversaries = dict(adversaries or {})
        for adversary in self._adversaries.values():
            adversary.to(fabric.device)

    def step(
        self,
        batches: Iterable[Mapping[str, Tensor]],
        step: int,
        lr: float,
        share: Callable[[], list[float]] = list,
    ) -> StepResult:
        """Take one step.

        If the loss or the gradient norm is not finite, weights and optimiser are left as they were, and buffers
        (batch norm's running statistics, which a single such batch would spoil for good) are put back.

        Args:
            batches: the `accumulate` batches of the step.
            step: steps done before, which seeds the random state.
            lr: learning rate.
            share: called when the gradients are done; numbers of this rank whose means over ranks the caller wants.
        """
        fabric, accumulate = self._fabric, self._config.train.accumulate
        set_learning_rate(self._optimizer, lr)
        buffers = [buffer for buffer in self._module.buffers() if buffer.is_floating_point()]
        before = [buffer.clone() for buffer in buffers]
        totals: dict[str, Tensor] = {}
        for number, batch in enumerate(batches, start=1):
            # After the batch has come: making a data loader's iterator draws from the same random state.
            seed_step(self._config.seed, step, number, fabric.global_rank)
            with fabric.no_backward_sync(self._module, enabled=number < accumulate):
                losses = self._module(batch)
                fabric.backward(losses["loss"] / accumulate)
            for name, value in losses.items():
                totals[name] = totals.get(name, 0) + value.detach() / accumulate
        norm = fabric.clip_gradients(
            self._module, self._optimizer, max_norm=self._config.optim.clip_norm, error_if_nonfinite=False
        )
        own = torch.tensor(share(), device=fabric.device, dtype=torch.float64)
        numbers = torch.cat([torch.stack([*totals.values(), norm]).double(), own])
        numbers = fabric.all_reduce(numbers, reduce_op="mean").tolist()
        losses_now = dict(zip(totals, numbers, strict=False))
        grad_norm = numbers[len(totals)]
        stepped = math.isfinite(losses_now["loss"]) and math.isfinite(grad_norm)
        if stepped:
            self._optimizer.step()
        else:
            with torch.no_grad():
                for buffer, value in zip(buffers, before, strict=True):
                    buffer.copy_(value)
        self._optimizer.zero_grad(set_to_none=True)
        losses_now |= self._learn_against(step)
        return StepResult(losses_now, grad_norm, stepped, numbers[len(totals) + 1 :])

    def _learn_against(self, step: int) -> dict[str, float]:
        """Let the adversaries learn from the step; what they say, each under its name."""
        fabric, found = self._fabric, {}
        for name, adversary in self._adversaries.items():
            said = adversary.learn(step, lambda tensor: fabric.all_reduce(tensor, reduce_op="sum"))
            found |= {f"{name}_{key}": value for key, value in said.items()}
        return found
