"""Loudness as broadcasters measure it: ITU-R BS.1770-4, integrated and gated."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wesep_py.errors import InputError

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
