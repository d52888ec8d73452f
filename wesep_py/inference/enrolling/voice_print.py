"""Voice prints: the tensors that a model computes from an enrollment once, and uses in every extraction.

A `Voice` is stored in a `.voice` file: safetensors with a header that names the model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from wesep_py.common.errors import CheckpointError, InputError, shorten
from wesep_py.common.files import atomic_path, check_writable
from wesep_py.common.torchfiles import read_tensors
from wesep_py.inference.enrolling.enrollment_quality import VoiceQuality

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

VOICE_FORMAT_VERSION = 1


@dataclass(frozen=True)
class VerifierEmbedding:
    """Embedding of a voice by the speaker encoder of a `presence_verifier`.

    Attributes:
        encoder: name of the encoder.
        encoder_hash: of its checkpoint; another encoder's verifier does not use the embedding.
        values: `[dim]`, of unit length.
    """

    encoder: str
    encoder_hash: str
    values: NDArray[np.float32]

    def as_json(self) -> str:
        """Return the embedding for the header of a voice print."""
        values = [round(float(value), 7) for value in self.values]
        return json.dumps({"encoder": self.encoder, "encoder_hash": self.encoder_hash, "values": values})

    @classmethod
    def from_json(cls, text: str) -> VerifierEmbedding:
        """Return the embedding that `as_json` wrote.

        Raises:
            ValueError, TypeError, LookupError: it is damaged.
        """
        stored = json.loads(text)
        values = np.array(stored["values"], dtype=np.float32)
        if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
            raise ValueError("the verifier's embedding is no list of finite numbers")
        return cls(str(stored["encoder"]), str(stored["encoder_hash"]), values)


@dataclass(frozen=True)
class Voice:
    """Enrolled voice of one person, for the model that enrolled it.

    Attributes:
        tensors: the model's prepared enrollment (`prepare`), each with a leading batch axis of 1.
        model_hash: hash of the model; another model refuses the voice.
        enrolled_s: seconds of audio that it was computed from.
        assess: function that assesses the enrollment; called when `quality` is first read.
        source: the file that it was read from; its tensors are then compared with what the model needs. Else `None`.
        verifier: embedding for the presence verifier; `None` if it was enrolled without one.
        negative_s: seconds of audio of persons who are not meant, whose tensors are among `tensors`; 0 for none.

    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import wesep_py
    >>> extractor = wesep_py.load()
    >>> alice = np.sin(0.1 * np.arange(32000))  # a tone stands for speech here
    >>> voice = extractor.enroll((alice, 16000))
    >>> file = Path(tempfile.mkdtemp()) / "alice.voice"
    >>> _ = voice.save(file)
    >>> Voice.load(file).model_hash == extractor.model_hash
    True
    """

    library: ClassVar[str] = "torch"
    """Library of the tensors."""

    tensors: dict[str, torch.Tensor]
    model_hash: str
    enrolled_s: float
    assess: Callable[[], VoiceQuality] | None = field(default=None, repr=False, compare=False)
    source: str | None = field(default=None, repr=False, compare=False)
    verifier: VerifierEmbedding | None = field(default=None, repr=False, compare=False)
    negative_s: float = 0.0

    @cached_property
    def quality(self) -> VoiceQuality | None:
        """Quality of the enrollment; `None` for a voice print without a report, or a voice enrolled from no recording.

        A voice that `Extractor.enroll` returned is assessed when this is first read, or the voice is saved.
        """
        return None if self.assess is None else self.assess()

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for another process: with the report, without the recordings that it is computed from."""
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
        header = {
            "format": "wesep-voice",
            "format_version": str(VOICE_FORMAT_VERSION),
            "model_hash": self.model_hash,
            "enrolled_s": json.dumps(self.enrolled_s),
        }
        if self.negative_s:
            header["negative_s"] = json.dumps(self.negative_s)
        check_writable(path, overwrite)
        if self.quality is not None:
            header["quality"] = json.dumps(self.quality.as_dict())
        if self.verifier is not None:
            header["verifier"] = self.verifier.as_json()
        with atomic_path(path, overwrite) as temporary:
            temporary.write_bytes(self._encode(self.tensors, header))
        return Path(path)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Voice:
        """Read a voice print.

        Raises:
            InputError: the file is missing, damaged, not a voice print, or of another format version.
        """
        if not isinstance(path, (str, PathLike)):
            raise InputError(f"a voice print is {type(path).__name__}; the path of one is needed")
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: no such file; make a voice print with `wesep enroll`")
        try:
            tensors, header = cls._read(path)
        except CheckpointError as error:
            reason = str(error).removeprefix(f"{path}: ")
            raise InputError(f"{path}: is damaged or no voice print ({reason}); enroll the voice again") from error
        if header.get("format") != "wesep-voice":
            raise InputError(f"{path}: is no voice print; make one with `wesep enroll`")
        if header.get("format_version") != str(VOICE_FORMAT_VERSION):
            raise InputError(
                f"{path}: has format version {shorten(header.get('format_version'), 40)}; this program reads "
                f"version {VOICE_FORMAT_VERSION}: enroll the voice again"
            )
        try:
            quality = VoiceQuality.from_json(header["quality"]) if "quality" in header else None
            verifier = VerifierEmbedding.from_json(header["verifier"]) if "verifier" in header else None
            enrolled_s, model_hash = float(json.loads(header["enrolled_s"])), header["model_hash"]
            negative_s = float(json.loads(header.get("negative_s", "0")))
            if not 0 <= enrolled_s < math.inf or not 0 <= negative_s < math.inf:
                raise ValueError(f"enrolled_s is {enrolled_s:g} and negative_s {negative_s:g}")
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError) as error:
            raise InputError(f"{path}: is damaged (its header: {shorten(error)}); enroll the voice again") from error
        if not tensors or not all(cls._is_finite(tensor) for tensor in tensors.values()):
            raise InputError(f"{path}: is damaged (numbers are missing or not finite); enroll the voice again")
        assess = None if quality is None else lambda: quality
        return cls(tensors, model_hash, enrolled_s, assess, str(path), verifier, negative_s)

    # What depends on the library of the tensors; `wesep_py.runtime` has the same for arrays.

    @staticmethod
    def _encode(tensors: dict[str, Any], header: dict[str, str]) -> bytes:
        """Return the content of a safetensors file."""
        from safetensors.torch import save

        # Cues may share a tensor (the mask of an enrollment), which the format does not allow.
        return save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, header)

    @staticmethod
    def _read(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the tensors and the header of a safetensors file."""
        return read_tensors(path)

    @staticmethod
    def _is_finite(tensor: Any) -> bool:
        return bool(tensor.isfinite().all())


def require_model(voice: Voice, model_hash: str, name: str) -> None:
    """Refuse a voice of another model.

    Args:
        voice: to check.
        model_hash, name: of the model.

    Raises:
        InputError: it was enrolled with another model.
    """
    if voice.model_hash != model_hash:
        raise InputError(
            f"the voice was enrolled with another model (hash {shorten(voice.model_hash[:12])}, {name} is "
            f"{model_hash[:12]}); enroll it again with this one"
        )


@dataclass(frozen=True)
class VoiceLayout:
    """Shapes of a model's voice prints, derived from two enrollments of different length.

    Attributes:
        short, long: tensors of the two enrollments.
    """

    short: dict[str, torch.Tensor]
    long: dict[str, torch.Tensor]

    def problem(self, tensors: dict[str, torch.Tensor]) -> str | None:
        """Return why the model cannot use these tensors; `None` if it can.

        An axis of equal length in both enrollments has that length in every voice print. The other axes are axes of
        time; those that have the same two lengths must have one length in a voice print too.
        """
        if tensors.keys() != self.short.keys():
            names = ", ".join(sorted(self.short))
            return f"it holds {shorten(', '.join(sorted(tensors)), 80) or 'nothing'}; {names} are needed"
        lengths: dict[tuple[int, int], int] = {}
        for name, short in self.short.items():
            tensor, pairs = tensors[name], list(zip(short.shape, self.long[name].shape, strict=True))
            if tensor.dtype != short.dtype or tensor.dim() != short.dim():
                return f"{name} is {_describe(tensor)}; {_describe(short)} is needed"
            for size, pair in zip(tensor.shape, pairs, strict=True):
                expected = pair[0] if pair[0] == pair[1] else lengths.setdefault(pair, size)
                if size != expected or size < 1:
                    return f"{name} has size {list(tensor.shape)}; one like {list(short.shape)} is needed"
        return None


def _describe(tensor: torch.Tensor) -> str:
    """Return type and number of axes of a tensor in words."""
    return f"{str(tensor.dtype).removeprefix('torch.')} of {tensor.dim()} axes"
