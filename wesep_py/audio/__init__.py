"""Waveforms in and out: read and write (whole or by block), resample, level.

Arrays are float32 NumPy, `[channels, samples]` for a file, `[samples]` for one channel.

| module | contents |
| --- | --- |
| `reading` | recordings from files and from memory: `info`, `read`, `read_mono`, `read_blocks`, `FileSegment` |
| `writing` | recordings to files: `write`, `AudioWriter` |
| `decoding` | decoding with libsndfile, checks of the length, strict reading |
| `containers` | layout of audio files, found without decoding |
| `media` | m4a, mp4, webm, … , decoded by PyAV |
| `media_writing` | the same written, with the pictures of a video |
| `sample_blocks` | operations on blocks of samples |
| `resample` | `resample`, `StreamResampler` |
| `live_resample` | `LiveResampler`: a short delay, for live signals |
| `torch_resample` | `SincResample`, a differentiable layer |
| `level` | RMS level, active level, loudness, gains |
| `codecs` | lossy codecs as a distortion |
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
    # The only name that needs torch, which takes seconds to import.
    if name == "SincResample":
        from wesep_py.audio.torch_resample import SincResample

        return SincResample
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
