"""Where somebody speaks in an enrollment: by energy, or by the network of silero-vad."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from wesep_py import audio
from wesep_py.audio.level import active_mask, gain_to_db
from wesep_py.errors import InputError

if TYPE_CHECKING:
    from wesep_py.features import HighPass

VAD = Literal["energy", "silero"]

FRAME_S = 0.02
# Energy: no deeper below the loud frames than speech goes, and this far above the quiet ones.
SPEECH_RANGE_DB = 40.0
ABOVE_FLOOR_DB = 4.0
# A recording whose loud frames are below this is silent: the dither of 16 bits is at -96 dB.
SILENCE_DB = -90.0
# Shorter gaps belong to the speech around them: closures of stops, breaths between words.
GAP_S = 0.1
SILERO_RATE = 16000


def speech_mask(waveform: NDArray[np.float32], sample_rate: int, vad: VAD = "energy") -> NDArray[np.bool_]:
    """The samples in which somebody speaks; gaps of up to 0.1 s between them count as speech.

    `energy`: frames of 20 ms no more than 40 dB below the loud ones (their 95th percentile) and at least 4 dB above the
    quiet ones (the 5th), which are the noise wherever there are pauses. `silero`: the network that the package
    `silero-vad` brings along; nothing is downloaded.

    Args:
        waveform: `[samples]`.
        sample_rate: in Hz.
        vad: `energy` or `silero`.

    Returns:
        bool `[samples]`.

    Raises:
        InputError: another `vad`, or `silero` without the package.

    >>> rng = np.random.default_rng(0)
    >>> recording = np.concatenate([0.001 * rng.standard_normal(16000), 0.1 * rng.standard_normal(16000)])
    >>> float(speech_mask(recording, 16000).sum() / 16000)
    1.0
    """
    if vad not in get_args(VAD):
        raise InputError(f"vad: is {vad!r}; {' or '.join(get_args(VAD))} is allowed")
    if len(waveform) == 0:
        return np.zeros(0, dtype=bool)
    found = _by_energy(waveform, sample_rate) if vad == "energy" else _by_silero(waveform, sample_rate)
    return _without_gaps(found, round(GAP_S * sample_rate))


def audible(waveform: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    """Remove from a waveform `[..., samples]` what lies below speech: a constant or rumble says nothing of a voice."""
    import torch

    high_pass = _high_pass(sample_rate)
    if high_pass is None or waveform.shape[-1] == 0:
        return waveform
    rows = torch.from_numpy(np.array(waveform, dtype=np.float32)).reshape(-1, waveform.shape[-1])
    with torch.inference_mode():
        return high_pass(rows).reshape(waveform.shape).numpy()


@lru_cache(maxsize=8)
def _high_pass(sample_rate: int) -> HighPass | None:
    from wesep_py.extractor import HIGHPASS_HZ
    from wesep_py.features import HighPass

    return HighPass(sample_rate, HIGHPASS_HZ) if sample_rate > 16 * HIGHPASS_HZ else None


def frame_levels_db(waveform: NDArray[np.float32], sample_rate: int) -> NDArray[np.float64]:
    """RMS level in dB of frames of 20 ms, without the rest at the end; of the whole, where that is shorter."""
    frame = min(len(waveform), max(1, round(FRAME_S * sample_rate)))
    frames = waveform[: len(waveform) // frame * frame].reshape(-1, frame).astype(np.float64)
    return gain_to_db(np.sqrt((frames**2).mean(axis=1)))


def speech_frames(levels_db: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which frames of these levels, `[frames]`, are speech by energy; see `speech_mask`."""
    return levels_db >= _threshold_db(levels_db)


def _threshold_db(levels_db: NDArray[np.float64]) -> float:
    """Return the level above which a frame is speech: relative to the others, whatever the recording's own level."""
    levels = np.maximum(levels_db, -200.0)
    floor, loud = np.quantile(levels, 0.05), np.quantile(levels, 0.95)
    if loud < SILENCE_DB:
        return np.inf
    return float(max(loud - SPEECH_RANGE_DB, min(floor + ABOVE_FLOOR_DB, loud - ABOVE_FLOOR_DB)))


def _by_energy(waveform: NDArray[np.float32], sample_rate: int) -> NDArray[np.bool_]:
    levels = frame_levels_db(waveform, sample_rate)
    range_db = float(max(levels.max(), -200.0) - _threshold_db(levels))
    return active_mask(waveform, sample_rate, range_db, floor_db=-np.inf, frame_s=FRAME_S)


def _by_silero(waveform: NDArray[np.float32], sample_rate: int) -> NDArray[np.bool_]:
    import torch

    threads = torch.get_num_threads()
    try:
        from silero_vad import get_speech_timestamps, load_silero_vad
    except ImportError as error:
        raise InputError(
            "vad 'silero' needs the package silero-vad, which is not installed; "
            "pip install 'wesep-py[vad]', or use 'energy'"
        ) from error
    finally:
        torch.set_num_threads(threads)  # importing the package sets it to 1 for the whole process
    heard = torch.from_numpy(np.array(audio.resample(waveform, sample_rate, SILERO_RATE), dtype=np.float32))
    mask = np.zeros(len(waveform), dtype=bool)
    for part in get_speech_timestamps(heard, load_silero_vad(), sampling_rate=SILERO_RATE):
        start, end = (round(part[key] * sample_rate / SILERO_RATE) for key in ("start", "end"))
        mask[start:end] = True
    return mask


def close_gaps(frames: NDArray[np.bool_], frame_s: float) -> NDArray[np.bool_]:
    """Close gaps of up to 0.1 s in a mask of frames that last `frame_s` seconds."""
    return _without_gaps(frames, round(GAP_S / frame_s))


def _without_gaps(mask: NDArray[np.bool_], longest: int) -> NDArray[np.bool_]:
    """The mask with every gap between true stretches closed that is at most `longest` samples."""
    edges = np.flatnonzero(np.diff(mask.astype(np.int8)))
    closed = mask.copy()
    for end, start in pairwise(edges):
        if mask[end] and start - end <= longest:
            closed[end + 1 : start + 1] = True
    return closed
