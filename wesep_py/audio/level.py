"""Loudness as broadcasters measure it: ITU-R BS.1770-4, integrated and gated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wesep_py.common.errors import InputError

# ----------------------------------------
# How loud a waveform is, and the gains that change it. Nothing is changed in place; silence is -inf dB,
# never NaN.
#
# Levels are in dB relative to full scale (a constant 1 is 0 dB, a full-scale sine -3.01 dB), gains are linear.


def rms(waveform: ArrayLike) -> float | NDArray[np.float64]:
    """Root mean square along the last axis: a float for `[samples]`, an array for more axes; 0 for no
    samples.

    >>> rms([3.0, -3.0])
    3.0
    """
    array = np.asarray(waveform, dtype=np.float64)
    value = np.sqrt(np.sum(array**2, axis=-1) / max(1, array.shape[-1]))
    return float(value) if array.ndim == 1 else value


def rms_db(waveform: ArrayLike) -> float | NDArray[np.float64]:
    """Root mean square along the last axis in dB; -inf for silence.

    >>> rms_db(np.ones(8))
    0.0
    """
    return gain_to_db(rms(waveform))


ACTIVE_RANGE_DB, ACTIVE_FLOOR_DB, ACTIVE_FRAME_S = 40.0, -80.0, 0.02
"""How far below the loudest frame a frame counts as speech, below which level none does, and the length of a frame."""


def active_mask(
    waveform: ArrayLike,
    sample_rate: int,
    range_db: float = ACTIVE_RANGE_DB,
    floor_db: float = ACTIVE_FLOOR_DB,
    frame_s: float = ACTIVE_FRAME_S,
) -> NDArray[np.bool_]:
    """Where somebody speaks: the samples of frames no more than `range_db` below the loudest frame.

    The dynamic range of 40 dB below the loudest frame is that of STOI (Taal et al., 2011, section II).

    Args:
        waveform: `[samples]`, one voice without others.
        sample_rate: in Hz.
        range_db: how far below the loudest frame a frame still counts.
        floor_db: frames quieter than this never count, so that digital silence with dither is silent.
        frame_s: length of a frame in seconds; frames do not overlap.

    Returns:
        bool `[samples]`.

    Raises:
        InputError: not one axis, or a rate that is not positive.

    >>> speech = np.concatenate([np.zeros(8000), np.ones(8000)])
    >>> float(active_mask(speech, 16000).mean())
    0.5
    """
    array = _one_axis(waveform, sample_rate)
    if len(array) == 0:
        return np.zeros(0, dtype=bool)
    frame = max(1, round(frame_s * sample_rate))
    starts = np.arange(0, len(array), frame)
    lengths = np.minimum(frame, len(array) - starts)
    levels = gain_to_db(np.sqrt(np.add.reduceat(array**2, starts) / lengths))
    active = levels >= max(float(np.max(levels)) - range_db, floor_db)
    return np.repeat(active, lengths)


def active_level_db(waveform: ArrayLike, sample_rate: int) -> float:
    """The RMS level in dB over the active samples only (`active_mask`); -inf if there are none.

    Pauses do not lower it, so it compares voices that speak for different shares of the time.

    Args:
        waveform: `[samples]`.
        sample_rate: in Hz.

    >>> active_level_db(np.concatenate([np.zeros(8000), np.ones(8000)]), 16000)
    0.0
    """
    array = np.asarray(waveform)
    return float(rms_db(array[active_mask(array, sample_rate)]))


def gain_to_level_db(waveform: ArrayLike, level_db: float, sample_rate: int | None = None) -> float:
    """The gain that brings a waveform `[samples]` to a level; 1 for a silent one.

    Args:
        waveform: `[samples]`.
        level_db: the level wanted in dB: RMS, or, where `sample_rate` is given, over the active samples.
        sample_rate: in Hz; `None` counts all samples.

    >>> gain_to_level_db(np.ones(100), -20.0)
    0.1
    """
    present = float(rms_db(waveform)) if sample_rate is None else active_level_db(waveform, sample_rate)
    return 1.0 if present == -np.inf else float(db_to_gain(level_db - present))


def joint_peak_gain(parts: Sequence[ArrayLike] | ArrayLike, peak: float = 0.9) -> float:
    """The one gain, at most 1, for all parts of a mixture that keeps the peak of their sum at or below
    `peak`.

    Args:
        parts: waveforms of one shape, or an array whose first axis counts them: `[parts, ..., samples]`.
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
    """The linear gain of a level difference in dB; -inf gives 0.

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
    """The level difference in dB of a linear gain of either sign; 0 gives -inf.

    >>> gain_to_db(0.1)
    -20.0
    """
    with np.errstate(divide="ignore"):
        db = 20.0 * np.log10(np.abs(np.asarray(gain, dtype=np.float64)))
    return float(db) if db.ndim == 0 else db


def _one_axis(waveform: ArrayLike, sample_rate: int) -> NDArray[np.float64]:
    array = np.asarray(waveform, dtype=np.float64)
    if array.ndim != 1:
        raise InputError(f"a waveform of shape {list(array.shape)}; one channel, [samples], is needed")
    if sample_rate < 1:
        raise InputError(f"a sample rate of {sample_rate} Hz; it has to be positive")
    return array


# The constant that makes a 997 Hz sine at full scale in one channel read -3.01 LUFS (BS.1770-4, annex 1).
_OFFSET_LUFS = -0.691
_ABSOLUTE_GATE_LUFS = -70.0
_RELATIVE_GATE_LU = -10.0
_BLOCK_S, _HOP_S = 0.4, 0.1


def loudness_lufs(waveform: ArrayLike, sample_rate: int) -> float:
    """Integrated loudness in LUFS (ITU-R BS.1770-4): K-weighted, blocks of 0.4 s every 0.1 s, gated twice.

    Args:
        waveform: `[samples]` or `[channels, samples]`; channels count alike (left, right, centre).
        sample_rate: in Hz, at least 4000.

    Returns:
        LUFS; -inf for silence, that is if no block reaches -70 LUFS. A waveform shorter than a block is one
        block.

    Raises:
        InputError: a shape with more axes, or too low a rate.

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
    for gate_lufs in (lambda _: _ABSOLUTE_GATE_LUFS, lambda kept: _lufs(kept.mean()) + _RELATIVE_GATE_LU):
        threshold = _power(gate_lufs(power))
        power = power[power > threshold]
        if len(power) == 0:
            return -math.inf
    return _lufs(power.mean())


def k_weighting(sample_rate: int) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...]:
    """The two filters of BS.1770-4 at any rate: a high shelf (the head) and a high pass.

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
    """Mean square of each block of each channel: `[channels, blocks]`."""
    num_samples = array.shape[1]
    block = min(num_samples, round(_BLOCK_S * sample_rate))
    starts = np.arange(0, num_samples - block + 1, round(_HOP_S * sample_rate))
    energy = np.concatenate([np.zeros((len(array), 1)), np.cumsum(array**2, axis=1)], axis=1)
    return np.maximum(energy[:, starts + block] - energy[:, starts], 0.0) / block


def _lufs(power: float) -> float:
    return _OFFSET_LUFS + 10 * math.log10(power)


def _power(lufs: float) -> float:
    return 10 ** ((lufs - _OFFSET_LUFS) / 10)
