"""Parameters that stay as they are: in the first steps of a run, or in all of them."""

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

# ----------------------------------------
# The learning rate as a function of the step and of the run's progress: what state there is, `Progress` holds.


def progress(step: int, steps: int, elapsed_s: float = 0.0, max_minutes: float | None = None) -> float:
    """How much of the run is done, 0 to 1: by steps, or by time where time is limited and further on.

    Args:
        step: optimiser steps done.
        steps: of the whole run.
        elapsed_s: seconds trained so far, over all sessions of the run.
        max_minutes: the limit of time, if there is one.

    >>> progress(10, 100, elapsed_s=30.0, max_minutes=1.0)
    0.5
    """
    by_steps = step / steps
    by_time = elapsed_s / (60.0 * max_minutes) if max_minutes else 0.0
    return min(1.0, max(by_steps, by_time))


def learning_rate_factor(config: ScheduleConfig, step: int, done: float, falls: int = 0) -> float:
    """What the learning rate is multiplied with at a step.

    Args:
        step: optimiser steps done before this one.
        done: the run's progress, 0 to 1.
        falls: how often the validation has stood still for `plateau` (`Progress.falls`).

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
        height = 1.0 - abs(2.0 * (done * config.cycles % 1.0) - 1.0)
        return warmup * (ratio + (1.0 - ratio) * height)
    return warmup * (ratio + (1.0 - ratio) * 0.5 * (1.0 + math.cos(math.pi * done)))


# ----------------------------------------
# An exponential moving average of the weights, which is what is validated and saved.


class WeightAverage:
    """The exponential moving average of a module's parameters; its buffers are those of the module.

    After step t (1, 2, …) the average is d · average + (1 - d) · weights with d = min(decay, t / (t + 9)), so that the
    random weights of the start are soon forgotten (the warm-up of TensorFlow's `ExponentialMovingAverage`; the average
    itself: Polyak & Juditsky, SIAM J. Control and Optimization 30(4), 1992).

    Args:
        module: whose parameters are averaged; the average begins with what they are.
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
        """Take in the weights after a step."""
        self._steps += 1
        keep = min(self._decay, self._steps / (self._steps + 9))
        for name, parameter in self._module.named_parameters():
            if name in self._averages:
                self._averages[name].lerp_(parameter.detach(), 1 - keep)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """While the block runs, the module's parameters are the averages."""
        parameters = {name: p for name, p in self._module.named_parameters() if name in self._averages}
        before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        try:
            _copy(self._averages, parameters)
            yield
        finally:
            _copy(before, parameters)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages, and the number of steps under `steps`."""
        return {**self._averages, "steps": torch.tensor(self._steps)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            KeyError: it is of another module.
        """
        for name, average in self._averages.items():
            average.copy_(state[name])
        self._steps = int(state["steps"])


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])


# ----------------------------------------
# The optimiser, its parameter groups and its learning rate.


def parameter_name(name: str) -> str:
    """The name by which a configuration knows a parameter of a training step: without the `network.` before it.

    >>> parameter_name("network.encoder.weight")
    'encoder.weight'
    """
    return name.removeprefix("network.")


def group_of(name: str, groups: list[GroupConfig]) -> int | None:
    """The first group whose pattern matches a parameter's name, or `None`."""
    return next((i for i, group in enumerate(groups) if fnmatchcase(parameter_name(name), group.match)), None)


def build_optimizer(config: OptimConfig, network: nn.Module) -> torch.optim.Optimizer:
    """The optimiser over the parameters that are trained; only weights of two and more dimensions are decayed.

    Sources: Kingma & Ba, ICLR 2015; Loshchilov & Hutter, ICLR 2019 (decoupled decay, `adamw`).

    Raises:
        ConfigError: the network has no parameter to train, a group matches none, or the optimiser does not take the
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
            raise ConfigError(f"optim.groups[{i}].match: no trained parameter matches {group.match!r}; {_parts(names)}")
    groups = []
    for index in [*range(len(config.groups)), None]:
        members = [parameter for name, parameter in trained.items() if group_of(name, config.groups) == index]
        own = config.groups[index] if index is not None else GroupConfig("*")
        decay = config.weight_decay if own.weight_decay is None else own.weight_decay
        ratio = {} if index is None else {"lr_ratio": own.lr_ratio}
        groups += [
            {"params": [p for p in members if p.ndim >= 2], "weight_decay": decay, **ratio},
            {"params": [p for p in members if p.ndim < 2], "weight_decay": 0.0, **ratio},
        ]
    kind = OPTIMIZERS[config.name]
    allowed = set(inspect.signature(kind).parameters)
    own_keys = {"params", "lr", "betas", "weight_decay", "fused"}
    for key in config.arguments:
        if key not in allowed - own_keys:
            raise ConfigError(
                f"optim.arguments.{key}: {config.name} has no such argument; {nearest(key, allowed - own_keys)}"
            )
    arguments = dict(config.arguments)
    if "betas" in allowed:
        arguments["betas"] = config.betas
    if "fused" in allowed:
        arguments["fused"] = True
    try:
        optimizer = kind([g for g in groups if g["params"]], lr=config.lr, **arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optim.arguments: {config.name} refuses them ({error})") from error
    set_learning_rate(optimizer, config.lr)
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all parameters; a group with a `lr_ratio` has so many times of it."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_ratio", 1.0)


def _parts(names: list[str]) -> str:
    tops = sorted({name.partition(".")[0] for name in names})
    return f"they begin with {', '.join(tops)}"


class Freezer:
    """Holds parameters still, as `optim.groups` says, and the running statistics of the modules they are in.

    What a step trains is a function of the step, so that a resumed run needs no state of it.

    Args:
        config: the optimiser's.
        module: the training step.
    """

    def __init__(self, config: OptimConfig, module: nn.Module) -> None:
        until = [math.inf if group.freeze_steps is None else group.freeze_steps for group in config.groups]
        chosen = {name: group_of(name, config.groups) for name, p in module.named_parameters() if p.requires_grad}
        steps = {name: until[i] for name, i in chosen.items() if i is not None and until[i] > 0}
        self._parameters = [(p, steps[name]) for name, p in module.named_parameters() if name in steps]
        self._modules: list[tuple[nn.Module, float]] = []
        for prefix, inner in module.named_modules():
            own = [f"{prefix}.{name}".lstrip(".") for name, _ in inner.named_parameters(recurse=False)]
            has_statistics = any(True for _ in inner.buffers(recurse=False))
            if own and has_statistics and all(name in steps for name in own):
                self._modules.append((inner, min(steps[name] for name in own)))

    def begin_step(self, step: int) -> None:
        """Freeze and thaw for a step; `step` counts those that are done."""
        for parameter, until in self._parameters:
            parameter.requires_grad_(step >= until)
        for module, until in self._modules:
            module.train(step >= until)
