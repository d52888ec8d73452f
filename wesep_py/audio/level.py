"""Levels, loudness, and the gains that change them.

Levels are in dB relative to full scale: a constant 1 has 0 dB, a full-scale sine -3.01 dB. Loudness is in LUFS
(ITU-R BS.1770-4). Gains are linear. Silence has -inf dB, never NaN. No function changes its input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wesep_py.common.errors import InputError

ACTIVE_RANGE_DB, ACTIVE_FLOOR_DB, ACTIVE_FRAME_S = 40.0, -80.0, 0.02
"""Active speech: the range in dB below the loudest frame, the lowest level in dB, and the frame length in seconds."""

# Of BS.1770-4: the offset with which a 997 Hz sine at full scale in one channel reads -3.01 LUFS (annex 1), the gates,
# the length of a block and its hop in seconds.
_OFFSET_LUFS = -0.691
_ABSOLUTE_GATE_LUFS = -70.0
_RELATIVE_GATE_LU = -10.0
_BLOCK_S, _HOP_S = 0.4, 0.1


def rms(waveform: ArrayLike) -> float | NDArray[np.float64]:
    """Return the root mean square along the last axis; 0 for no samples.

    Args:
        waveform: `[..., samples]`.

    Returns:
        A float for `[samples]`, else an array `[...]`.

    >>> rms([3.0, -3.0])
    3.0
    """
    array = np.asarray(waveform, dtype=np.float64)
    value = np.sqrt(np.sum(array**2, axis=-1) / max(1, array.shape[-1]))
    return float(value) if array.ndim == 1 else value


def rms_db(waveform: ArrayLike) -> float | NDArray[np.float64]:
    """Return the root mean square along the last axis in dB; -inf for silence.

    >>> rms_db(np.ones(8))
    0.0
    """
    return gain_to_db(rms(waveform))


def active_mask(
    waveform: ArrayLike,
    sample_rate: int,
    range_db: float = ACTIVE_RANGE_DB,
    floor_db: float = ACTIVE_FLOOR_DB,
    frame_s: float = ACTIVE_FRAME_S,
) -> NDArray[np.bool_]:
    """Return the samples in which a speaker is active: those of frames at most `range_db` below the loudest frame.

    The default range of 40 dB is that of STOI (Taal et al., 2011, section II).

    Args:
        waveform: `[samples]`, one voice without others.
        sample_rate: in Hz.
        range_db: range below the loudest frame in dB.
        floor_db: frames below this level in dB are never active, so that dithered digital silence is silent.
        frame_s: length of a frame in seconds; frames do not overlap.

    Returns:
        bool `[samples]`.

    Raises:
        InputError: more than one axis, or a rate that is not positive.

    >>> speech = np.concatenate([np.zeros(8000), np.ones(8000)])
    >>> float(active_mask(speech, 16000).mean())
    0.5
    """
    array = _one_channel(waveform, sample_rate)
    if len(array) == 0:
        return np.zeros(0, dtype=bool)
    frame = max(1, round(frame_s * sample_rate))
    starts = np.arange(0, len(array), frame)
    lengths = np.minimum(frame, len(array) - starts)  # the last frame may be shorter
    levels = gain_to_db(np.sqrt(np.add.reduceat(array**2, starts) / lengths))
    active = levels >= max(float(np.max(levels)) - range_db, floor_db)
    return np.repeat(active, lengths)


def active_level_db(waveform: ArrayLike, sample_rate: int) -> float:
    """Return the RMS level in dB over the active samples only (`active_mask`); -inf if there are none.

    Pauses do not lower it, so that voices that speak for different shares of the time can be compared.

    Args:
        waveform: `[samples]`.
        sample_rate: in Hz.

    >>> active_level_db(np.concatenate([np.zeros(8000), np.ones(8000)]), 16000)
    0.0
    """
    array = np.asarray(waveform)
    return float(rms_db(array[active_mask(array, sample_rate)]))


def gain_to_level_db(waveform: ArrayLike, level_db: float, sample_rate: int | None = None) -> float:
    """Return the gain that brings a waveform to a level; 1 for silence.

    Args:
        waveform: `[samples]`.
        level_db: the target level in dB: RMS of all samples, or of the active samples if `sample_rate` is given.
        sample_rate: in Hz; `None` for the RMS of all samples.

    >>> gain_to_level_db(np.ones(100), -20.0)
    0.1
    """
    current_db = float(rms_db(waveform)) if sample_rate is None else active_level_db(waveform, sample_rate)
    return 1.0 if current_db == -np.inf else float(db_to_gain(level_db - current_db))


def joint_peak_gain(parts: Sequence[ArrayLike] | ArrayLike, peak: float = 0.9) -> float:
    """Return the common gain, at most 1, for the parts of a mixture with which their sum does not exceed `peak`.

    One gain for all parts keeps their ratios (SIR, SNR), and the parts still sum to the mixture.

    Args:
        parts: waveforms of equal shape, or an array `[parts, ..., samples]`.
        peak: largest absolute value of the sum.

    Raises:
        InputError: a peak that is not positive.

    >>> joint_peak_gain([np.ones(4), np.ones(4)], peak=0.9)
    0.45
    """
    if peak <= 0:
        raise InputError(f"peak: is {peak}; it has to be positive")
    total = np.sum([np.asarray(part, dtype=np.float64) for part in parts], axis=0)
    highest = float(np.max(np.abs(total), initial=0.0))
    return 1.0 if highest <= peak else peak / highest


@overload
def db_to_gain(db: float) -> float: ...


@overload
def db_to_gain(db: NDArray[np.floating]) -> NDArray[np.float64]: ...


def db_to_gain(db: float | NDArray[np.floating]) -> float | NDArray[np.float64]:
    """Return the linear gain of a level difference in dB; -inf gives 0.

    >>> db_to_gain(-20.0)
    0.1
    """
    gain = 10.0 ** (np.asarray(db, dtype=np.float64) / 20.0)
    return float(gain) if gain.ndim == 0 else gain


@overload
def gain_to_db(gain: float) -> float: ...


@overload
def gain_to_db(gain: NDArray[np.floating]) -> NDArray[np.float64]: ...


def gain_to_db(gain: float | NDArray[np.floating]) -> float | NDArray[np.float64]:
    """Return the level difference in dB of a linear gain of either sign; 0 gives -inf.

    >>> gain_to_db(0.1)
    -20.0
    """
    with np.errstate(divide="ignore"):
        db = 20.0 * np.log10(np.abs(np.asarray(gain, dtype=np.float64)))
    return float(db) if db.ndim == 0 else db


def _one_channel(waveform: ArrayLike, sample_rate: int) -> NDArray[np.float64]:
    """Return a waveform as float64 if it is `[samples]`."""
    array = np.asarray(waveform, dtype=np.float64)
    if array.ndim != 1:
        raise InputError(f"a waveform of shape {list(array.shape)}; one channel, [samples], is needed")
    if sample_rate < 1:
        raise InputError(f"a sample rate of {sample_rate} Hz; it has to be positive")
    return array


# Not pyloudnorm, because the levels of simulated mixtures have to stay bit-identical. Version 0.2.0 with the exact
# filters ("DeMan") refuses signals shorter than a block, and rounds the number of blocks, so that the last one may be
# incomplete. Of 400 random signals (8 to 48 kHz, 0.05 to 6 s, one and two channels) it refuses 23; 45 of the other 377
# results are bit-identical, and the largest difference is 0.36 LU. `tests/audio/test_level.py` compares whole blocks.
def loudness_lufs(waveform: ArrayLike, sample_rate: int) -> float:
    """Return the integrated loudness (ITU-R BS.1770-4): K-weighted, in blocks of 0.4 s every 0.1 s, gated twice.

    Args:
        waveform: `[samples]` or `[channels, samples]`; all channels have weight 1 (left, right, centre).
        sample_rate: in Hz, at least 4000.

    Returns:
        LUFS; -inf for silence, that is if no block reaches -70 LUFS. A waveform shorter than a block is one block.

    Raises:
        InputError: more than two axes, or too low a rate.

    >>> tone = np.sin(2 * np.pi * 997 * np.arange(48000) / 48000)
    >>> round(loudness_lufs(tone, 48000), 2)
    -3.01
    """
    from scipy.signal import lfilter

    array = np.atleast_2d(np.asarray(waveform, dtype=np.float64))
    if array.ndim != 2:
        raise InputError(f"a waveform of shape {list(array.shape)}; [channels, samples] is needed")
    if sample_rate < 4000:
        raise InputError(f"a sample rate of {sample_rate} Hz; loudness needs at least 4000 Hz")
    if array.shape[1] == 0:
        return -math.inf
    for numerator, denominator in k_weighting(sample_rate):
        array = lfilter(numerator, denominator, array, axis=1)
    power = _block_power(array, sample_rate).sum(axis=0)
    power = power[power > _power(_ABSOLUTE_GATE_LUFS)]
    if len(power) == 0:
        return -math.inf
    # The second gate is relative to the loudness of what passed the first; the loudest block always passes it.
    power = power[power > _power(_lufs(power.mean()) + _RELATIVE_GATE_LU)]
    return _lufs(power.mean())


def k_weighting(sample_rate: int) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...]:
    """Return the two filters of BS.1770-4 at any rate: a high shelf (effect of the head) and a high pass.

    The standard gives coefficients at 48 kHz; these are the analogue prototypes behind them, transformed
    bilinearly (De Man, "Evaluation of implementations of the EBU R128 loudness measurement", 2014).

    Args:
        sample_rate: in Hz.

    Returns:
        (numerator, denominator) of each, float64 `[3]`.
    """
    shelf_hz, shelf_gain_db, shelf_q = 1681.974450955533, 3.999843853973347, 0.7071752369554196
    k = math.tan(math.pi * shelf_hz / sample_rate)
    high = 10 ** (shelf_gain_db / 20)
    middle = high**0.4996667741545416
    norm = 1 + k / shelf_q + k * k
    shelf = (
        np.array([high + middle * k / shelf_q + k * k, 2 * (k * k - high), high - middle * k / shelf_q + k * k]) / norm,
        np.array([norm, 2 * (k * k - 1), 1 - k / shelf_q + k * k]) / norm,
    )
    pass_hz, pass_q = 38.13547087602444, 0.5003270373238773
    k = math.tan(math.pi * pass_hz / sample_rate)
    norm = 1 + k / pass_q + k * k
    high_pass = (
        np.array([1.0, -2.0, 1.0]),
        np.array([norm, 2 * (k * k - 1), 1 - k / pass_q + k * k]) / norm,
    )
    return shelf, high_pass


def _block_power(array: NDArray[np.float64], sample_rate: int) -> NDArray[np.float64]:
    """Return the mean square of each block of each channel, `[channels, blocks]`."""
    num_samples = array.shape[1]
    block = min(num_samples, round(_BLOCK_S * sample_rate))
    starts = np.arange(0, num_samples - block + 1, round(_HOP_S * sample_rate))
    # Blocks overlap, so their sums are differences of one cumulative sum; rounding can make one slightly negative.
    energy = np.concatenate([np.zeros((len(array), 1)), np.cumsum(array**2, axis=1)], axis=1)
    return np.maximum(energy[:, starts + block] - energy[:, starts], 0.0) / block


def _lufs(power: float) -> float:
    return _OFFSET_LUFS + 10 * math.log10(power)


def _power(lufs: float) -> float:
    return 10 ** ((lufs - _OFFSET_LUFS) / 10)
