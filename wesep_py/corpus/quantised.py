"""Waveforms in 16 bits a sample, each with a scale of its own: what stores and caches hold."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

INT16_MIN, INT16_MAX = -32768, 32767


class Quantised(NamedTuple):
    """A waveform in 16 bits a sample: `samples * 2**exponent`."""

    samples: NDArray[np.int16]
    exponent: int

    def waveform(self, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """The samples from `start` to `stop` as float32."""
        return self.samples[start:stop] * np.float32(2.0**self.exponent)


def quantise(waveform: NDArray[np.floating[Any]]) -> Quantised:
    """Round a waveform to 16 bits a sample, with one power of two as the scale of all.

    The scale is the smallest with which the loudest sample fits. So a 16-bit recording, whatever its level,
    is kept exactly, a quiet float recording keeps 15 bits below its own peak, and one that exceeds full
    scale is not clipped.

    >>> quantise(np.array([0.5, -1.0])).waveform().tolist()
    [0.5, -1.0]
    """
    waveform = np.asarray(waveform)
    low, high = float(waveform.min(initial=0.0)), float(waveform.max(initial=0.0))
    peak = max(-low, high)
    if peak == 0.0:
        return Quantised(np.zeros(waveform.shape, np.int16), -15)
    # peak < 2**exponent_of_peak; one step lower fits only if the peak is the lowest number, -2**k.
    exponent_of_peak = max(math.frexp(peak)[1], -100)
    for exponent in (exponent_of_peak - 16, exponent_of_peak - 15, exponent_of_peak - 14):
        scale = 2.0**-exponent
        if round(low * scale) >= INT16_MIN and round(high * scale) <= INT16_MAX:
            break
    scaled = np.rint(waveform * waveform.dtype.type(scale))
    return Quantised(scaled.astype(np.int16), exponent)
