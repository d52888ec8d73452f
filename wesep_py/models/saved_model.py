"""The description of a checkpoint folder that has a name: size, sample rate, licence and card, without loading it."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from wesep_py.checkpoint import CARD, CONFIG, WEIGHTS, read_provenance
from wesep_py.common.errors import CheckpointError, WesepError, shorten
from wesep_py.common.yamlfiles import read_yaml


@dataclass(frozen=True)
class SavedModel:
    """Description of a model that is on this machine, without loading it.

    Attributes:
        name: its name for `--model` and `--speaker-model`.
        folder: its checkpoint folder.
    """

    name: str
    folder: Path

    state: ClassVar[str] = ""
    """`bundled` or `installed`."""
    repair: ClassVar[str] = ""
    """Advice for a damaged file, for messages."""
    about_key: ClassVar[str] = ""
    """Key of `provenance.json` that holds licence, figures and source."""

    @property
    def is_default(self) -> bool:
        """True if commands use it when no model is named."""
        return False

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
    def config(self) -> dict[str, Any]:
        """Content of `config.yaml`."""
        return read_yaml(self.folder / CONFIG)

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz."""
        rate = self.config.get("sample_rate")
        if not isinstance(rate, int):
            raise CheckpointError(f"{self.folder / CONFIG}: sample_rate is missing or no number; {self.repair}")
        return rate

    @property
    def kind(self) -> str:
        """`extractor`, `speaker encoder` or `personal VAD`."""
        if self.config.get("task") == "presence":
            return "personal VAD"
        is_encoder = "network" in self.config and "backbone" not in self.config
        return "speaker encoder" if is_encoder else "extractor"

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Content of `provenance.json`."""
        return read_provenance(self.folder)

    @property
    def about(self) -> dict[str, Any]:
        """Licence, figures and source, from the provenance; empty if it has none."""
        about = self.provenance.get(self.about_key)
        return about if isinstance(about, dict) else {}

    @property
    def licence(self) -> str | None:
        """Licence of the weights; `None` if the provenance has none."""
        return self.about.get("licence")

    @property
    def figures(self) -> str | None:
        """Results in one line; `None` if the provenance has none."""
        return self.about.get("figures")

    @property
    def card(self) -> str:
        """Description in Markdown."""
        path = self.folder / CARD
        if not path.is_file():
            raise CheckpointError(f"{path}: the card is missing; {self.repair}")
        return path.read_text(encoding="utf-8")

    def as_dict(self) -> dict[str, Any]:
        """Return the description as JSON values."""
        return {
            "name": self.name,
            "state": self.state,
            "kind": self.kind,
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

    def as_dict_or_damaged(self) -> dict[str, Any]:
        """Return the description as JSON values; of a damaged model the name and the folder, with `state` damaged."""
        try:
            return self.as_dict()
        except (WesepError, OSError):
            about = dict.fromkeys(("kind", "size_bytes", "parameters", "stored_as", "sample_rate"))
            about |= dict.fromkeys(("licence", "figures", "hash"))
            return {**about, "name": self.name, "state": "damaged", "default": False, "folder": str(self.folder)}

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
            raise CheckpointError(f"{path}: is cut short or damaged ({shorten(error)}); {self.repair}") from error
