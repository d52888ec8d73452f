"""Reading the fixtures: what a public network was given, and what it returned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import safe_open
from torch import Tensor


class Fixture(NamedTuple):
    """A public network's configuration, its weights, and what it was given and returned."""

    config: dict[str, Any]
    weights: dict[str, Tensor]
    inputs: list[Tensor]
    outputs: list[Tensor]


def read(folder: Path, name: str) -> Fixture:
    """The fixture of that name, without its ending."""
    with safe_open(folder / f"{name}.safetensors", framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        config = json.loads(file.metadata()["config"])
    of_kind = {kind: [tensors[key] for key in sorted(tensors) if key.startswith(kind)] for kind in ("input", "output")}
    weights = {key.removeprefix("weight/"): tensor for key, tensor in tensors.items() if key.startswith("weight/")}
    return Fixture(config, weights, of_kind["input"], of_kind["output"])


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """‖ours − theirs‖ / ‖theirs‖ over the samples that both have."""
    assert ours.shape[:-1] == theirs.shape[:-1]
    return float((ours[..., : theirs.shape[-1]] - theirs).norm() / theirs.norm())
