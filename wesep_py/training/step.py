"""One optimiser step: gradients of the accumulated batches, clipping, update; a step that is not finite is skipped."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from wesep_py.training.devices import compile_blocks, recompute_blocks
from wesep_py.training.losses import Adversary
from wesep_py.training.optimisation import Freezer, WeightAverage, build_optimizer, set_learning_rate
from wesep_py.training.task import Task
from wesep_py.training.training_config import RunConfig

_STEP_SEED = 0x5EED  # separates the seeds of steps from other uses of the run's seed


@dataclass(frozen=True)
class Optimisation:
    """The objects that change the weights.

    Attributes:
        stepper: takes the steps.
        module: the training step, set up by Fabric for the devices.
        optimizer: the optimiser itself, not Fabric's wrapper of it.
        freezer: freezes groups of parameters.
        average: moving average of the weights, or `None`.
    """

    stepper: Stepper
    module: nn.Module
    optimizer: torch.optim.Optimizer
    freezer: Freezer
    average: WeightAverage | None


def set_up_optimisation(config: RunConfig, task: Task, fabric: Fabric) -> Optimisation:
    """Build the optimiser, and set it and the training step up for the devices.

    Raises:
        ConfigError: nothing is left to train, or a key of `optim` or `train` does not suit the network.
    """
    if config.train.gradient_checkpointing:
        recompute_blocks(task.network)
    if config.train.compile:
        compile_blocks(task.network)
    optimizer = build_optimizer(config.optim, task.step)
    freezer = Freezer(config.optim, task.step)
    wrapped, wrapped_optimizer = fabric.setup(task.step, optimizer)
    decay = config.optim.ema_decay
    average = None if decay is None else WeightAverage(task.step, decay)
    stepper = Stepper(fabric, config, wrapped, wrapped_optimizer, task.adversaries)
    return Optimisation(stepper, wrapped, optimizer, freezer, average)


@dataclass(frozen=True)
class StepResult:
    """Result of a step.

    Attributes:
        losses: means over batches and ranks; `loss` is the minimised value. With the numbers of the adversaries.
        grad_norm: of all parameters together, before clipping.
        stepped: false if loss or gradient was not finite and the weights were left unchanged.
        shared: means over ranks of the numbers that the caller shares.
    """

    losses: dict[str, float]
    grad_norm: float
    stepped: bool
    shared: list[float]


class Stepper:
    """Takes optimiser steps.

    Args:
        fabric: devices and precision.
        config: of the run.
        module: the training step, set up by Fabric; returns a dictionary of losses for a batch.
        optimizer: set up by Fabric.
        adversaries: networks that learn after each step, by name; moved to the device here.
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

        If the loss or the gradient norm is not finite, weights and optimiser stay unchanged, and buffers are restored
        (a single such batch would spoil batch norm's running statistics for good).

        Args:
            batches: the `accumulate` batches of the step.
            step: number of steps done before, which seeds the random state.
            lr: learning rate.
            share: called when the gradients are computed; returns numbers of this rank to be averaged over ranks.
        """
        fabric, accumulate = self._fabric, self._config.train.accumulate
        set_learning_rate(self._optimizer, lr)
        buffers = [buffer for buffer in self._module.buffers() if buffer.is_floating_point()]
        buffers_before = [buffer.clone() for buffer in buffers]
        totals: dict[str, Tensor] = {}
        for number, batch in enumerate(batches, start=1):
            # Only now that the batch is here: creating a data loader's iterator draws from the same random state.
            seed_step(self._config.seed, step, number, fabric.global_rank)
            # backward() adds to the gradients, so each batch contributes loss / accumulate and the sum is that of the
            # mean loss. Ranks exchange gradients once, in the backward pass of the last batch.
            with fabric.no_backward_sync(self._module, enabled=number < accumulate):
                losses = self._module(batch)
                fabric.backward(losses["loss"] / accumulate)
            for name, value in losses.items():
                totals[name] = totals.get(name, 0) + value.detach() / accumulate
        norm = fabric.clip_gradients(
            self._module, self._optimizer, max_norm=self._config.optim.clip_norm, error_if_nonfinite=False
        )
        # One reduction and one transfer from the device: [loss, …, gradient norm | shared numbers]. All ranks see the
        # same means, so all of them skip the step or none does.
        shared = torch.tensor(share(), device=fabric.device, dtype=torch.float64)
        numbers = torch.cat([torch.stack([*totals.values(), norm]).double(), shared])
        numbers = fabric.all_reduce(numbers, reduce_op="mean").tolist()
        mean_losses = dict(zip(totals, numbers, strict=False))
        grad_norm = numbers[len(totals)]
        stepped = math.isfinite(mean_losses["loss"]) and math.isfinite(grad_norm)
        if stepped:
            self._optimizer.step()
        else:
            with torch.no_grad():
                for buffer, value in zip(buffers, buffers_before, strict=True):
                    buffer.copy_(value)
        self._optimizer.zero_grad(set_to_none=True)
        mean_losses |= self._update_adversaries(step)
        return StepResult(mean_losses, grad_norm, stepped, numbers[len(totals) + 1 :])

    def _update_adversaries(self, step: int) -> dict[str, float]:
        """Let the adversaries learn from the step; return their numbers as `NAME_KEY`."""
        fabric, numbers = self._fabric, {}
        for name, adversary in self._adversaries.items():
            learned = adversary.learn(step, lambda tensor: fabric.all_reduce(tensor, reduce_op="sum"))
            numbers |= {f"{name}_{key}": value for key, value in learned.items()}
        return numbers


def seed_step(seed: int, step: int, number: int, rank: int) -> None:
    """Set torch's random state to a function of the run's seed, the step, the batch of the step and the rank.

    Dropout, dither and SpecAugment therefore need no saved state: a resumed run draws what an uninterrupted run would
    have drawn.
    """
    words = np.random.SeedSequence([seed, step, number, rank, _STEP_SEED]).generate_state(1, np.uint64)
    torch.manual_seed(int(words[0]))
