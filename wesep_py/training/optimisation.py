"""Optimiser with parameter groups, learning rate schedule, frozen parameters, and moving average of the weights."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from wesep_py.common.errors import ConfigError, nearest
from wesep_py.training.training_config import OPTIMIZERS, GroupConfig, OptimConfig, ScheduleConfig


def build_optimizer(config: OptimConfig, network: nn.Module) -> torch.optim.Optimizer:
    """Build the optimiser over the trained parameters. Only weights with two or more dimensions are decayed.

    Sources: Kingma & Ba, ICLR 2015; Loshchilov & Hutter, ICLR 2019 (decoupled decay, `adamw`).

    Raises:
        ConfigError: the network has no parameter to train, a group matches none, or the optimiser does not accept the
            arguments.

    >>> build_optimizer(OptimConfig(lr=0.01), nn.Linear(2, 2)).param_groups[0]["lr"]
    0.01
    """
    trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    if not trained:
        raise ConfigError("model: every parameter is frozen; leave something to train")
    names = [parameter_name(name) for name in trained]
    for i, group in enumerate(config.groups):
        if not any(fnmatchcase(name, group.match) for name in names):
            tops = sorted({name.partition(".")[0] for name in names})
            raise ConfigError(
                f"optim.groups[{i}].match: no trained parameter matches {group.match!r}; "
                f"they begin with {', '.join(tops)}"
            )
    groups = []
    for index in [*range(len(config.groups)), None]:
        members = [parameter for name, parameter in trained.items() if group_index(name, config.groups) == index]
        group = config.groups[index] if index is not None else GroupConfig("*")
        decay = config.weight_decay if group.weight_decay is None else group.weight_decay
        ratio = {} if index is None else {"lr_ratio": group.lr_ratio}
        groups += [
            {"params": [p for p in members if p.ndim >= 2], "weight_decay": decay, **ratio},
            {"params": [p for p in members if p.ndim < 2], "weight_decay": 0.0, **ratio},
        ]
    optimizer_class = OPTIMIZERS[config.name]
    allowed = set(inspect.signature(optimizer_class).parameters)
    reserved = {"params", "lr", "betas", "weight_decay", "fused"}
    for key in config.arguments:
        if key not in allowed - reserved:
            raise ConfigError(
                f"optim.arguments.{key}: {config.name} has no such argument; {nearest(key, allowed - reserved)}"
            )
    arguments = dict(config.arguments)
    if "betas" in allowed:
        arguments["betas"] = config.betas
    if "fused" in allowed:
        arguments["fused"] = True
    try:
        optimizer = optimizer_class([g for g in groups if g["params"]], lr=config.lr, **arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optim.arguments: {config.name} refuses them ({error})") from error
    set_learning_rate(optimizer, config.lr)
    return optimizer


def parameter_name(name: str) -> str:
    """Return a parameter's name as a configuration writes it: without the leading `network.`.

    >>> parameter_name("network.encoder.weight")
    'encoder.weight'
    """
    return name.removeprefix("network.")


def group_index(name: str, groups: list[GroupConfig]) -> int | None:
    """Return the index of the first group whose pattern matches a parameter's name, or `None`."""
    return next((i for i, group in enumerate(groups) if fnmatchcase(parameter_name(name), group.match)), None)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all parameters; a group with `lr_ratio` gets `lr` times this ratio."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_ratio", 1.0)


def schedule_progress(step: int, steps: int, elapsed_s: float = 0.0, max_minutes: float | None = None) -> float:
    """Return the share of a run that is done, 0 to 1: the larger of the shares of steps and of time.

    With a time limit, the schedule reaches its end when the time is over, even if the machine manages fewer steps.

    Args:
        step: number of optimiser steps done.
        steps: of the whole run.
        elapsed_s: training time in seconds, over all sessions of the run.
        max_minutes: time limit, or `None`.

    >>> schedule_progress(10, 100, elapsed_s=30.0, max_minutes=1.0)
    0.5
    """
    by_steps = step / steps
    by_time = elapsed_s / (60.0 * max_minutes) if max_minutes else 0.0
    return min(1.0, max(by_steps, by_time))


def learning_rate_factor(config: ScheduleConfig, step: int, done: float, falls: int = 0) -> float:
    """Return the factor of the learning rate at a step.

    It is a function of step and progress alone, so a resumed run needs no state of the schedule.

    Args:
        config: the schedule.
        step: number of optimiser steps done before this one.
        done: share of the run that is done, 0 to 1.
        falls: number of times that the validation stopped improving, for `plateau` (`Progress.falls`).

    Returns:
        A factor in (0, 1]: the warm-up's `(step + 1) / warmup_steps` up to 1, times a factor between 1 and
        `final_lr_ratio`: `ratio ** done` (exponential); half a period (cosine: Loshchilov & Hutter, ICLR 2017); a
        triangle (triangular: Smith, "Cyclical learning rates for training neural networks", WACV 2017);
        `plateau_factor ** falls` (plateau).

    >>> learning_rate_factor(ScheduleConfig("exponential", warmup_steps=0, final_lr_ratio=0.01), 50, 0.5)
    0.1
    """
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    ratio = config.final_lr_ratio
    if config.name == "constant":
        return warmup
    if config.name == "exponential":
        return warmup * ratio**done
    if config.name == "plateau":
        return warmup * max(ratio, config.plateau_factor**falls)
    if config.name == "triangular":
        height = 1.0 - abs(2.0 * (done * config.cycles % 1.0) - 1.0)  # 0 → 1 → 0 in each cycle
        return warmup * (ratio + (1.0 - ratio) * height)
    return warmup * (ratio + (1.0 - ratio) * 0.5 * (1.0 + math.cos(math.pi * done)))


class Freezer:
    """Freezes parameters as `optim.groups` says, and the running statistics of the modules that contain only such.

    What is frozen at a step is a function of the step, so a resumed run needs no state of it.

    Args:
        config: of the optimiser.
        module: the training step.
    """

    def __init__(self, config: OptimConfig, module: nn.Module) -> None:
        until = [math.inf if group.freeze_steps is None else group.freeze_steps for group in config.groups]
        groups = {name: group_index(name, config.groups) for name, p in module.named_parameters() if p.requires_grad}
        steps = {name: until[i] for name, i in groups.items() if i is not None and until[i] > 0}
        self._parameters = [(p, steps[name]) for name, p in module.named_parameters() if name in steps]
        # Batch norm moves its statistics in every forward pass in train mode, whether or not its weights are trained.
        self._modules: list[tuple[nn.Module, float]] = []
        for prefix, inner in module.named_modules():
            names = [f"{prefix}.{name}".lstrip(".") for name, _ in inner.named_parameters(recurse=False)]
            has_statistics = any(True for _ in inner.buffers(recurse=False))
            if names and has_statistics and all(name in steps for name in names):
                self._modules.append((inner, min(steps[name] for name in names)))

    def begin_step(self, step: int) -> None:
        """Freeze and unfreeze for a step.

        Args:
            step: number of steps done.
        """
        for parameter, until in self._parameters:
            parameter.requires_grad_(step >= until)
        for module, until in self._modules:
            module.train(step >= until)


class WeightAverage:
    """Exponential moving average of a module's parameters. Buffers are those of the module.

    After step t (1, 2, …) the average is d · average + (1 - d) · weights with d = min(decay, t / (t + 9)). While t is
    small, d is small too, so that the random initial weights are soon forgotten (the warm-up of TensorFlow's
    `ExponentialMovingAverage`; the average itself: Polyak & Juditsky, SIAM J. Control and Optimization 30(4), 1992).

    Args:
        module: its current parameters are the first average.
        decay: above 0 and below 1.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> average = WeightAverage(layer, 0.9)
    >>> with torch.no_grad():
    ...     _ = layer.weight.fill_(5.0)
    >>> with average.applied():
    ...     layer.weight.item() == 5.0
    False
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module = module
        self._decay = decay
        self._averages = {name: p.detach().clone() for name, p in module.named_parameters() if p.is_floating_point()}
        self._steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """Include the weights after a step."""
        self._steps += 1
        decay = min(self._decay, self._steps / (self._steps + 9))
        for name, parameter in self._module.named_parameters():
            if name in self._averages:
                self._averages[name].lerp_(parameter.detach(), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Replace the module's parameters by the averages while the block runs."""
        parameters = {name: p for name, p in self._module.named_parameters() if name in self._averages}
        originals = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        try:
            _copy_tensors(self._averages, parameters)
            yield
        finally:
            _copy_tensors(originals, parameters)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages by parameter name, and the number of steps under `steps`."""
        return {**self._averages, "steps": torch.tensor(self._steps)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            KeyError: the state belongs to another module.
        """
        for name, average in self._averages.items():
            average.copy_(state[name])
        self._steps = int(state["steps"])


@torch.no_grad()
def _copy_tensors(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])
