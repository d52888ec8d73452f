"""The weights in a file of WeSep, real-TSE or WeSpeaker."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wesep_py.errors import CheckpointError

WRAPPERS = ("models", "model", "state_dict", "model_state_dict")
"""Under which key training code keeps the weights; WeSep keeps a list, its discriminator second."""
PREFIXES = ("module.", "model.")
"""What stands before every name where a wrapper of the network was saved."""
CLASSIFIERS = ("projection.",)
"""Layers that tell the training speakers from each other: no part of a speaker network."""


def read(path: str | Path) -> dict[str, Tensor]:
    """The weights in a `.pt` file, under their public names; nothing but tensors is ever unpickled.

    Raises:
        CheckpointError: the file is missing or damaged, holds no weights, or something that could run code.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give a checkpoint of WeSep or WeSpeaker, such as avg_model.pt")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what torch raises for a damaged file depends on where the damage is
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "Unpickling" in type(error).__name__:
            raise CheckpointError(f"{path}: holds more than weights, and is not read for safety ({reason})") from error
        raise CheckpointError(f"{path}: is no PyTorch file, or damaged ({reason})") from error
    return unwrap(content)


def unwrap(content: Any) -> dict[str, Tensor]:
    """The weights themselves, out of what training code wraps them in.

    >>> unwrap({"models": [{"module.fc.bias": torch.ones(1)}], "optimizers": []})
    {'fc.bias': tensor([1.])}

    Raises:
        CheckpointError: there are none.
    """
    found = content
    for key in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), (Mapping, list)):
            found = found[key]
            found = found[0] if isinstance(found, list) and found else found
    weights = {str(k): v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, Mapping) else {}
    if not weights:
        keys = ", ".join(map(str, found))[:80] if isinstance(found, Mapping) else type(found).__name__
        raise CheckpointError(f"no weights in it (found: {keys or 'nothing'})")
    for prefix in PREFIXES:
        own = [name for name in weights if not name.startswith(CLASSIFIERS)]
        if own and all(name.startswith(prefix) for name in own):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def without_classifier(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A speaker network's weights, without those of the layer that classified speakers in its training."""
    return {name: value for name, value in weights.items() if not name.startswith(CLASSIFIERS)}
