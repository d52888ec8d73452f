"""Another sample rate for a waveform, as arrays: everything that reads audio uses this."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wesep_py.errors import InputError


def resample(waveform: ArrayLike, from_rate: int, to_rate: int) -> NDArray[np.float32]:
    """Resample along the last axis with soxr at its high quality (20 bit, linear phase, no delay).

    Args:
        waveform: `[..., samples]`.
        from_rate: its sample rate in Hz.
        to_rate: the one wanted, in Hz.

    Returns:
        float32 `[..., ⌈samples · to_rate / from_rate⌉]`; for equal rates the samples as they are (not copied
        where they are float32 already).

    Raises:
        InputError: a rate that is not positive.

    >>> resample(np.zeros((2, 44100), np.float32), 44100, 16000).shape
    (2, 16000)
    """
    if from_rate < 1 or to_rate < 1:
        raise InputError(f"a sample rate of {min(from_rate, to_rate)} Hz; it has to be positive")
    array = np.asarray(waveform, dtype=np.float32)
    if from_rate == to_rate or array.shape[-1] == 0:
        return array
    import soxr

    length = resampled_length(array.shape[-1], from_rate, to_rate)
    # soxr rounds the length to the nearest; zeros at the end, which it assumes there anyway, make it reach
    # ⌈·⌉.
    padding = np.zeros(-(-from_rate // to_rate), np.float32)
    # Each channel by itself, so that a channel has the same samples whatever others stand beside it.
    rows = [
        soxr.resample(np.concatenate([row, padding]), from_rate, to_rate, quality="HQ")[:length]
        for row in array.reshape(-1, array.shape[-1])
    ]
    return np.stack(rows).reshape(*array.shape[:-1], length) if rows else array[..., :length]


def resampled_length(num_samples: int, from_rate: int, to_rate: int) -> int:
    """How many samples `resample` returns: ⌈num_samples · to_rate / from_rate⌉.

    >>> resampled_length(44101, 44100, 16000)
    16001
    """
    return -(-num_samples * to_rate // from_rate)
