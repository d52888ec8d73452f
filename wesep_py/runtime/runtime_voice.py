"""Voices whose tensors are NumPy arrays, in the files of `wesep_py.Voice`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from wesep_py.common.torchfiles import read_arrays
from wesep_py.inference.enrolling.voice_print import Voice


class RuntimeVoice(Voice):
    """Enrolled voice of one person, for the model that enrolled it; a `Voice` without torch.

    `save` and `load` write and read the same files: a print made with torch works without, and the other way round.
    """

    library: ClassVar[str] = "numpy"

    @classmethod
    def of(cls, voice: Voice) -> RuntimeVoice:
        """Return a voice with arrays, also for one with torch tensors."""
        if isinstance(voice, RuntimeVoice):
            return voice
        tensors: dict[str, Any] = {key: tensor.detach().cpu().numpy() for key, tensor in voice.tensors.items()}
        return cls(tensors, voice.model_hash, voice.enrolled_s, voice.assess, voice.source)

    @staticmethod
    def _encode(tensors: dict[str, Any], header: dict[str, str]) -> bytes:
        from safetensors.numpy import save

        return save({name: np.ascontiguousarray(array) for name, array in tensors.items()}, header)

    @staticmethod
    def _read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
        return read_arrays(path)

    @staticmethod
    def _is_finite(tensor: Any) -> bool:
        return bool(np.isfinite(tensor).all())
