"""What the translations of WeSpeaker's networks share: arguments with their defaults, and rules of names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from wesep_py.common.errors import CheckpointError, ConfigError, nearest

Rule = tuple[str, "str | Callable[[re.Match[str]], str]"]
"""A regular expression, and what a match becomes."""


def complete(model: str, args: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A network's arguments with the defaults of those that are not given; `feat_dim` is left out.

    Args:
        model: the network's name, for messages.
        args: as the public configuration has them.
        defaults: every argument that the network has but `feat_dim`; `None` where one must be given.

    Raises:
        ConfigError: an argument that the network does not have, or one that it needs and is not given.

    >>> complete("ERes2Net34_Base", {"feat_dim": 80, "embed_dim": 512}, {"embed_dim": 192, "scale": 2})
    {'embed_dim': 512, 'scale': 2}
    """
    for name in args:
        if name not in defaults and name != "feat_dim":
            raise ConfigError(f"encoder: {model} has no argument {name!r}; {nearest(name, [*defaults, 'feat_dim'])}")
    completed = {**defaults, **{name: value for name, value in args.items() if name != "feat_dim"}}
    missing = [name for name, value in completed.items() if value is None]
    if missing:
        raise ConfigError(f"encoder: {model} needs its argument {missing[0]!r}; give it")
    return completed


def substitute(state_dict: Mapping[str, Tensor], rules: Iterable[Rule]) -> dict[str, Tensor]:
    """Weights under other names: every rule is applied to each, in order.

    Raises:
        CheckpointError: two names become one, and their tensors differ.

    >>> list(substitute({"bn1.weight": torch.ones(4)}, [(r"^bn1\\.", "norm.")]))
    ['norm.weight']
    """
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]
    mapped: dict[str, Tensor] = {}
    for theirs, tensor in state_dict.items():
        ours = theirs
        for pattern, replacement in compiled:
            ours = pattern.sub(replacement, ours)
        if ours in mapped and not torch.equal(mapped[ours], tensor):
            raise CheckpointError(f"two tensors of the public checkpoint become {ours!r}; one of them is {theirs!r}")
        mapped[ours] = tensor
    return mapped
