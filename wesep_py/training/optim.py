"""The optimiser, its parameter groups and its learning rate."""

from __future__ import annotations

import inspect
from fnmatch import fnmatchcase

import torch
from torch import nn

from wesep_py.errors import ConfigError, nearest
from wesep_py.training.config import GroupConfig, OptimConfig
from wesep_py.training.config.optim import OPTIMIZERS


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
