"""The weights in a file of WeSep, real-TSE or WeSpeaker."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wesep_py.errors import CheckpointError, shorten
from wesep_py.torchfiles import read_torch, with_nan

WRAPPERS = ("models", "model", "state_dict", "model_state_dict")
"""Under which key training code keeps the weights; WeSep keeps a list, its discriminator second."""
WRAPPER, COMPILED = "module.", "_orig_mod."
"""What distribution puts before names, and compilation into them, in any order, and not always into all of them."""
OUTER = "model."
"""What stands before every name where the network was part of something larger."""
CLASSIFIERS = ("projection.",)
"""Layers that tell the training speakers from each other: no part of a speaker network."""


def read(path: str | Path) -> dict[str, Tensor]:
    """The weights in a `.pt` file, under their public names; nothing but tensors is ever unpickled.

    Raises:
        CheckpointError: the file is missing or damaged, holds no weights, or something that could run code.
    """
    path = Path(path)
    content = read_torch(path, "a checkpoint of WeSep or WeSpeaker, such as avg_model.pt,")
    try:
        return unwrap(content)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def unwrap(content: Any) -> dict[str, Tensor]:
    """The weights themselves, out of what training code wraps them in.

    >>> unwrap({"models": [{"module.fc.bias": torch.ones(1)}], "optimizers": []})
    {'fc.bias': tensor([1.])}

    Raises:
        CheckpointError: there are none, or some are no numbers, or no plain tensors.
    """
    found = content
    for key in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), (Mapping, list)):
            found = found[key]
            found = found[0] if isinstance(found, list) and found else found
    weights = {str(k): v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, Mapping) else {}
    if not weights:
        keys = ", ".join(shorten(key, 40) for key in list(found)[:5]) if isinstance(found, Mapping) else ""
        raise CheckpointError(f"no weights in it (found: {keys or type(found).__name__})")
    for name, value in weights.items():
        if value.layout is not torch.strided or value.is_quantized or value.is_complex() or value.is_meta:
            raise CheckpointError(
                f"{shorten(name)} is quantised, sparse, complex or of the device meta; give plain weights"
            )
    if (name := with_nan(weights)) is not None:
        raise CheckpointError(f"{shorten(name)} holds NaN; take an earlier checkpoint of that training")
    return _under_own_names(weights)


def _under_own_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights without what wrappers of the network added to their names.

    >>> list(_under_own_names({"module._orig_mod.a": torch.ones(1), "_orig_mod.module.b._orig_mod.c": torch.ones(1)}))
    ['a', 'b.c']
    """
    named: dict[str, Tensor] = {}
    for full, value in weights.items():
        name = "".join(part for part in re.split(r"(?<=\.)", full) if part != COMPILED)
        while name.startswith(WRAPPER):
            name = name.removeprefix(WRAPPER)
        if name in named:
            raise CheckpointError(f"two tensors are called {shorten(name)!r} without {WRAPPER!r} and {COMPILED!r}")
        named[name] = value
    own = [name for name in named if not name.startswith(CLASSIFIERS)]
    if own and all(name.startswith(OUTER) for name in own):
        inner = {name.removeprefix(OUTER): value for name, value in named.items()}
        return inner if inner.keys() == named.keys() else _under_own_names(inner)
    return named


def without_classifier(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A speaker network's weights, without those of the layer that classified speakers in its training."""
    return {name: value for name, value in weights.items() if not name.startswith(CLASSIFIERS)}
