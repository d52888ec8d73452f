"""The models that come with the package, chosen by name.

Each is a checkpoint folder beside this file, made by `recipes/default/bundle.py`. See `docs/models.md`.
"""

from __future__ import annotations

import json
import math
import os
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from wesep_py.checkpoint import CARD, CONFIG, WEIGHTS, read_provenance
from wesep_py.common.errors import CheckpointError, InputError, nearest, shorten
from wesep_py.common.yamlfiles import read_yaml

FOLDER = Path(__file__).resolve().parent
"""A folder a model, named as the model."""
DEFAULT = "base"
"""The model that is meant where none is named."""
MAX_BYTES = 16 * 2**20
"""The weights of a bundled model are no larger."""
KEY = "bundle"
"""Under which `provenance.json` says how the bundle was made, its licence and its figures."""


@dataclass(frozen=True)
class BundledModel:
    """What can be said of a bundled model without loading it.

    Attributes:
        name: what `--model` takes.
        folder: its checkpoint.
    """

    name: str
    folder: Path

    @property
    def is_default(self) -> bool:
        """Whether it is meant where none is named."""
        return self.name == DEFAULT

    @property
    def size_bytes(self) -> int:
        """Of the weights."""
        return (self.folder / WEIGHTS).stat().st_size

    @cached_property
    def parameters(self) -> int:
        """Floating-point values in the weights, from the head of their file."""
        return sum(math.prod(entry["shape"]) for entry in self._tensors() if "F" in entry["dtype"])

    @cached_property
    def stored_as(self) -> str:
        """The type in which most of the weights are stored: `F16`, `F32`."""
        values: dict[str, int] = {}
        for entry in self._tensors():
            values[entry["dtype"]] = values.get(entry["dtype"], 0) + math.prod(entry["shape"])
        return max(values, key=values.__getitem__)

    @cached_property
    def sample_rate(self) -> int:
        """Hz."""
        rate = read_yaml(self.folder / CONFIG).get("sample_rate")
        if not isinstance(rate, int):
            raise CheckpointError(
                f"{self.folder / CONFIG}: sample_rate is missing or no number; install the package again"
            )
        return rate

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """How it was made."""
        return read_provenance(self.folder)

    @property
    def licence(self) -> str | None:
        """Of the weights; `None` where the bundle says nothing."""
        return self._about("licence")

    @property
    def figures(self) -> str | None:
        """What it reaches, in a line; `None` where the bundle says nothing."""
        return self._about("figures")

    @property
    def card(self) -> str:
        """Markdown for people."""
        path = self.folder / CARD
        if not path.is_file():
            raise CheckpointError(f"{path}: the card is missing; install the package again")
        return path.read_text(encoding="utf-8")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "default": self.is_default,
            "folder": str(self.folder),
            "size_bytes": self.size_bytes,
            "parameters": self.parameters,
            "stored_as": self.stored_as,
            "sample_rate": self.sample_rate,
            "licence": self.licence,
            "figures": self.figures,
            "hash": self.provenance.get("hash"),
        }

    def _about(self, key: str) -> str | None:
        about = self.provenance.get(KEY)
        return about.get(key) if isinstance(about, dict) else None

    def _tensors(self) -> list[dict[str, Any]]:
        """Type and shape of each tensor: a safetensors file begins with the length of a JSON, and that JSON."""
        path = self.folder / WEIGHTS
        try:
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                head = json.loads(file.read(min(length, self.size_bytes)))
            return [
                {"dtype": str(entry["dtype"]), "shape": [int(size) for size in entry["shape"]]}
                for name, entry in head.items()
                if name != "__metadata__"
            ]
        except (OSError, ValueError, struct.error, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                f"{path}: is cut short or damaged ({shorten(error)}); install the package again"
            ) from error


def bundled() -> dict[str, BundledModel]:
    """The models that come with the package, by name, the default first."""
    folders = {path.parent.name: path.parent for path in FOLDER.glob(f"[!._]*/{WEIGHTS}")}
    names = sorted(folders, key=lambda name: (name != DEFAULT, name))
    return {name: BundledModel(name, folders[name]) for name in names}


def default() -> BundledModel:
    """The model that is meant where none is named.

    Raises:
        InputError: none is bundled.
    """
    known = bundled()
    if DEFAULT not in known:
        others = f" or one of {', '.join(known)}" if known else ""
        raise InputError(
            f"no model is bundled with this version yet; name one (--model): a checkpoint or experiment folder{others}"
        )
    return known[DEFAULT]


def find(model: str | os.PathLike[str] | None = None) -> tuple[str, Path]:
    """What a model is called in messages, and where it lies.

    Args:
        model: a path, which wins where it exists; the name of a bundled model; `None` for the default.

    Returns:
        The name, and the path (of a checkpoint, or an experiment; see `checkpoint.resolve`).

    Raises:
        InputError: `None`, and no model is bundled.
        CheckpointError: a name that is none; the nearest one is suggested.
    """
    if model is None:
        chosen = default()
        return chosen.name, chosen.folder
    if not isinstance(model, (str, os.PathLike)):
        raise InputError(f"the model is {type(model).__name__}; a name, a path, or None for the default is needed")
    path, known = Path(model), bundled()
    try:
        exists = path.exists()
    except (OSError, ValueError) as error:  # a name that no file can have
        raise CheckpointError(f"{shorten(model)}: no such model ({error})") from error
    if not exists and str(model) in known:
        return str(model), known[str(model)].folder
    if not exists and known and path.name == str(model):
        raise CheckpointError(
            f"{model}: no such model; {nearest(str(model), known)}; a checkpoint or experiment folder will do too"
        )
    return str(path), path
