"""Waveforms in and out: read and write (whole or by block), resample, level.

Arrays are float32 NumPy, `[channels, samples]` where a file is read, `[samples]` where one channel is meant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wesep_py.audio.level import (
    active_level_db,
    active_mask,
    db_to_gain,
    gain_to_db,
    gain_to_level_db,
    joint_peak_gain,
    loudness_lufs,
    rms,
    rms_db,
)
from wesep_py.audio.reading import AudioInfo, info, read, read_blocks, read_mono
from wesep_py.audio.resample import resample, resampled_length
from wesep_py.audio.writing import AudioWriter, write

if TYPE_CHECKING:
    from wesep_py.audio.torch_resample import SincResample

__all__ = [
    "AudioInfo",
    "AudioWriter",
    "SincResample",
    "active_level_db",
    "active_mask",
    "db_to_gain",
    "gain_to_db",
    "gain_to_level_db",
    "info",
    "joint_peak_gain",
    "loudness_lufs",
    "read",
    "read_blocks",
    "read_mono",
    "resample",
    "resampled_length",
    "rms",
    "rms_db",
    "write",
]


def __getattr__(name: str) -> Any:
    # The one thing here that needs torch; reading and writing files must not pay for importing it.
    if name == "SincResample":
        from wesep_py.audio.torch_resample import SincResample

        return SincResample
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
