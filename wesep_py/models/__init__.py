"""Models bundled with the package, chosen by name.

Each model is a checkpoint folder beside this file, named as the model and made by `recipes/default/bundle.py`. See
`docs/models.md`. `find_model` turns the `--model` of a command into the path of a checkpoint.
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
from wesep_py.models.hub import download, is_hub_name, parse_hub_name

MODELS_FOLDER = Path(__file__).resolve().parent
"""Folder that holds one folder per model."""
DEFAULT_MODEL = "base"
"""Name of the default model."""
MAX_WEIGHTS_BYTES = 16 * 2**20
"""Maximum size of the weights of a bundled model."""
BUNDLE_KEY = "bundle"
"""Key of `provenance.json` for licence and figures of a bundled model, and how it was made."""


@dataclass(frozen=True)
class BundledModel:
    """Description of a bundled model, without loading it.

    Attributes:
        name: its name for `--model`.
        folder: its checkpoint folder.
    """

    name: str
    folder: Path

    @property
    def is_default(self) -> bool:
        """True if it is the default model."""
        return self.name == DEFAULT_MODEL

    @property
    def size_bytes(self) -> int:
        """Size of the weights file."""
        return (self.folder / WEIGHTS).stat().st_size

    @cached_property
    def parameters(self) -> int:
        """Number of floating-point values in the weights, from the header of their file."""
        return sum(math.prod(entry["shape"]) for entry in self._tensors() if "F" in entry["dtype"])

    @cached_property
    def stored_as(self) -> str:
        """Type of most of the weights in their file: `F16`, `F32`."""
        values: dict[str, int] = {}
        for entry in self._tensors():
            values[entry["dtype"]] = values.get(entry["dtype"], 0) + math.prod(entry["shape"])
        return max(values, key=values.__getitem__)

    @cached_property
    def sample_rate(self) -> int:
        """Sample rate in Hz."""
        rate = read_yaml(self.folder / CONFIG).get("sample_rate")
        if not isinstance(rate, int):
            raise CheckpointError(
                f"{self.folder / CONFIG}: sample_rate is missing or no number; install the package again"
            )
        return rate

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Content of `provenance.json`."""
        return read_provenance(self.folder)

    @property
    def licence(self) -> str | None:
        """Licence of the weights; `None` if the provenance has none."""
        return self._about("licence")

    @property
    def figures(self) -> str | None:
        """Results in one line; `None` if the provenance has none."""
        return self._about("figures")

    @property
    def card(self) -> str:
        """Description in Markdown."""
        path = self.folder / CARD
        if not path.is_file():
            raise CheckpointError(f"{path}: the card is missing; install the package again")
        return path.read_text(encoding="utf-8")

    def as_dict(self) -> dict[str, Any]:
        """Return the description as JSON values."""
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
        about = self.provenance.get(BUNDLE_KEY)
        return about.get(key) if isinstance(about, dict) else None

    def _tensors(self) -> list[dict[str, Any]]:
        """Return type and shape of each tensor; a safetensors file begins with the length of a JSON header."""
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


def bundled_models() -> dict[str, BundledModel]:
    """Return the bundled models by name, the default model first."""
    folders = {path.parent.name: path.parent for path in MODELS_FOLDER.glob(f"[!._]*/{WEIGHTS}")}
    names = sorted(folders, key=lambda name: (name != DEFAULT_MODEL, name))
    return {name: BundledModel(name, folders[name]) for name in names}


def default_model() -> BundledModel:
    """Return the default model.

    Raises:
        InputError: it is not bundled.
    """
    known = bundled_models()
    if DEFAULT_MODEL not in known:
        others = f" or one of {', '.join(known)}" if known else ""
        raise InputError(
            f"no model is bundled with this version yet; name one (--model): a checkpoint or experiment folder{others}"
        )
    return known[DEFAULT_MODEL]


def find_model(model: str | os.PathLike[str] | None = None) -> tuple[str, Path]:
    """Find a model by name or path.

    Args:
        model: a path, which has priority if it exists; the name of a bundled model; `hf:ORG/NAME[@REVISION]` for a
            repository on the Hugging Face Hub, which is downloaded; or `None` for the default model.

    Returns:
        name: for messages.
        path: the folder of a checkpoint or of an experiment (see `checkpoint.resolve`).

    Raises:
        InputError: `None`, and the default model is not bundled.
        CheckpointError: an unknown name; the message suggests the nearest one. Or as `hub.download`.
    """
    if model is None:
        chosen = default_model()
        return chosen.name, chosen.folder
    if not isinstance(model, (str, os.PathLike)):
        raise InputError(f"the model is {type(model).__name__}; a name, a path, or None for the default is needed")
    path, known = Path(model), bundled_models()
    try:
        exists = path.exists()
    except (OSError, ValueError) as error:  # an impossible file name
        raise CheckpointError(f"{shorten(model)}: no such model ({error})") from error
    if not exists and str(model) in known:
        return str(model), known[str(model)].folder
    if not exists and is_hub_name(model):
        hub_model = parse_hub_name(model)
        return str(hub_model), download(hub_model)
    if not exists and known and path.name == str(model):
        raise CheckpointError(
            f"{model}: no such model; {nearest(str(model), known)}; a checkpoint or experiment folder is allowed too"
        )
    return str(path), path
