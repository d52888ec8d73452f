"""A voice print: what a model has to know of a voice to extract it, computed once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wesep_py.errors import InputError
from wesep_py.files import atomic_path, check_writable
from wesep_py.inference.quality import VoiceQuality

if TYPE_CHECKING:
    import torch

FORMAT_VERSION = 1
SUFFIX = ".voice"


@dataclass(frozen=True)
class Voice:
    """The enrolled voice of one person, for the model that enrolled it.

    Attributes:
        tensors: what the model's `prepare` made of the enrollment, each with a leading batch axis of 1.
        model_hash: of the model; another model refuses the voice.
        enrolled_s: seconds of audio it was made from.
        assess: what examines the enrollment, called when `quality` is first asked for.
    """

    tensors: dict[str, torch.Tensor]
    model_hash: str
    enrolled_s: float
    assess: Callable[[], VoiceQuality] | None = field(default=None, repr=False, compare=False)

    @cached_property
    def quality(self) -> VoiceQuality | None:
        """How good the enrollment is; `None` for a voice print that does not say, or of no recording.

        A voice fresh from `Extractor.enroll` is examined when this is first asked for, or the voice is saved.
        """
        return None if self.assess is None else self.assess()

    def __getstate__(self) -> dict[str, Any]:
        """For another process: with the report, and without the recordings behind it."""
        return {**self.__dict__, "assess": None, "quality": self.quality}

    def save(self, path: str | PathLike[str], overwrite: bool = False) -> Path:
        """Write the voice print (safetensors with a header that names the model).

        Args:
            path: conventionally `NAME.voice`.
            overwrite: replace an existing file.

        Raises:
            OutputExistsError: `path` exists and `overwrite` is false.
            InputError: its folder does not exist.
            WesepError: the disk is full.
        """
        from safetensors.torch import save

        header = {
            "format": "wesep-voice",
            "format_version": str(FORMAT_VERSION),
            "model_hash": self.model_hash,
            "enrolled_s": json.dumps(self.enrolled_s),
        }
        check_writable(path, overwrite)
        if self.quality is not None:
            header["quality"] = json.dumps(self.quality.as_dict())
        # Cues may keep one tensor between them (the mask of an enrollment), which the format does not allow.
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in self.tensors.items()}
        with atomic_path(path, overwrite) as temporary:
            temporary.write_bytes(save(tensors, header))
        return Path(path)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Voice:
        """Read a voice print.

        Raises:
            InputError: the file is missing, damaged, no voice print, or of another format version.
        """
        import torch
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: no such file; make a voice print with `wesep enroll`")
        try:
            with safe_open(path, framework="pt") as opened:
                header = opened.metadata() or {}
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path}: is damaged or no voice print ({error}); enroll the voice again") from error
        if header.get("format") != "wesep-voice":
            raise InputError(f"{path}: is no voice print; make one with `wesep enroll`")
        if header.get("format_version") != str(FORMAT_VERSION):
            raise InputError(
                f"{path}: has format version {header.get('format_version')}; this program reads "
                f"version {FORMAT_VERSION}: enroll the voice again"
            )
        try:
            quality = VoiceQuality.from_json(header["quality"]) if "quality" in header else None
            enrolled_s, model_hash = float(json.loads(header["enrolled_s"])), header["model_hash"]
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}: is damaged (its header: {error}); enroll the voice again") from error
        if not tensors or not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
            raise InputError(f"{path}: is damaged (numbers are missing or not finite); enroll the voice again")
        return cls(tensors, model_hash, enrolled_s, None if quality is None else lambda: quality)
