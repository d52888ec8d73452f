"""Room-acoustic measures of an impulse response: decay curve, RT60, clarity (C50), direct-to-reverberant ratio (DRR).

Decay curves are backward-integrated energy (Schroeder, "New method of measuring reverberation time", J. Acoust.
Soc. Am. 37, 1965). A recorded response ends in noise, which would flatten the curve: the integration stops where the
decay meets the noise, and the energy that the decay would have had after that is added (Lundeby et al., "Uncertainties
of measurements in room acoustics", Acustica 81, 1995). Ranges of the line fits are those of ISO 3382-1: -5 to -35 dB
(T30), or -5 to -25 dB (T20) if the noise is less than 10 dB below the end of T30's range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wesep_py.common.errors import InputError

# The direct sound is what arrives within this time of the direct path: half of the window that is usual for the DRR.
DIRECT_MS = 2.5
# ISO 3382-1: a response begins where it first comes within 20 dB of its peak. The direct path is the largest tap within
# a millisecond after that.
ONSET_DB = -20.0
ONSET_TO_PEAK_MS = 1.0

_BLOCK_MS = 10.0
_NOISE_SHARE = 0.1
_FIT_ABOVE_NOISE_DB = 10.0
_FIT_RANGES_DB = ((-5.0, -35.0), (-5.0, -25.0))
_NOISE_MARGIN_DB = 10.0


@dataclass(frozen=True)
class Acoustics:
    """Measures of one response.

    Attributes:
        rt60_s: time in which the energy decays by 60 dB; `nan` if the response has less than 35 dB of decay.
        c50_db: energy up to 50 ms after the direct path over the later energy; `inf` if there is none.
        drr_db: energy within 2.5 ms of the direct path over the later energy; `inf` if there is none.
    """

    rt60_s: float
    c50_db: float
    drr_db: float


def measure_acoustics(response: ArrayLike, sample_rate: int, direct_tap: int | None = None) -> Acoustics:
    """Measure RT60, C50 and DRR of a response.

    Args:
        response: `[taps]`.
        sample_rate: in Hz.
        direct_tap: tap of the direct path; by default that of `find_direct_tap`.

    Raises:
        InputError: the response is silent, or `direct_tap` is outside of it.
    """
    array = _checked(response)
    tap = find_direct_tap(array, sample_rate) if direct_tap is None else direct_tap
    return Acoustics(
        rt60_s=rt60_s(array[max(tap, 0) :], sample_rate),
        c50_db=clarity_db(array, tap, sample_rate),
        drr_db=direct_to_reverberant_db(array, tap, sample_rate),
    )


def energy_decay_db(response: ArrayLike, sample_rate: int) -> NDArray[np.float64]:
    """Return the energy after each tap in dB relative to all energy: backward integration, up to the noise.

    Args:
        response: `[taps]`, from the direct path on.
        sample_rate: in Hz.

    Returns:
        `[taps until the decay meets the noise]`, from 0 dB down.

    Raises:
        InputError: the response is silent.

    >>> decay = np.exp(-np.arange(16000) / 800)     # -60 dB in 800 · ln(1000) = 5526 taps
    >>> round(float(energy_decay_db(decay, 16000)[5526]))
    -60
    """
    squared = np.square(np.trim_zeros(_checked(response), "b"))
    stop, beyond = _meet_noise(squared, sample_rate)
    energy = np.cumsum(squared[:stop][::-1])[::-1] + beyond
    return 10 * np.log10(energy / energy[0])


def rt60_s(response: ArrayLike, sample_rate: int, range_db: tuple[float, float] | None = None) -> float:
    """Return the reverberation time: -60 dB over the slope of a line fitted to the decay curve.

    Args:
        response: `[taps]`, from the direct path on.
        sample_rate: in Hz.
        range_db: first and last level of the fit; by default T30 or, if the noise is too high for that, T20.

    Returns:
        Seconds; `nan` if the response does not decay far enough for the range.

    Raises:
        InputError: the response is silent.

    >>> noise = np.random.default_rng(0).standard_normal(16000)
    >>> round(rt60_s(noise * 10 ** (-3 * np.arange(16000) / (0.5 * 16000)), 16000), 1)
    0.5
    """
    decay_db = energy_decay_db(response, sample_rate)
    margin = _NOISE_MARGIN_DB if range_db is None else 0.0
    for high, low in _FIT_RANGES_DB if range_db is None else (range_db,):
        if decay_db[-1] > low - margin:
            continue
        fitted = np.flatnonzero((decay_db <= high) & (decay_db >= low))
        if fitted.size >= 2:
            slope_db = float(np.polyfit(fitted / sample_rate, decay_db[fitted], 1)[0])
            return -60.0 / slope_db if slope_db < 0 else math.nan
    return math.nan


def clarity_db(response: ArrayLike, direct_tap: int, sample_rate: int, early_ms: float = 50.0) -> float:
    """Return the clarity: energy up to `early_ms` after the direct path over the later energy, in dB; by default C50.

    Args:
        response: `[taps]`.
        direct_tap: tap of the direct path.
        sample_rate: in Hz.
        early_ms: end of the early part, in milliseconds.

    >>> round(clarity_db([0, 1, 0, 0.1], direct_tap=1, sample_rate=1000, early_ms=1), 1)
    20.0
    """
    array = _checked(response, direct_tap)
    return _ratio_db(array, direct_tap + round(early_ms * sample_rate / 1000))


def direct_to_reverberant_db(response: ArrayLike, direct_tap: int, sample_rate: int) -> float:
    """Return the energy within 2.5 ms of the direct path over the later energy, in dB.

    Args:
        response: `[taps]`.
        direct_tap: tap of the direct path.
        sample_rate: in Hz.
    """
    array = _checked(response, direct_tap)
    half = round(DIRECT_MS * sample_rate / 1000)
    first = max(direct_tap - half, 0)
    return _ratio_db(array[first:], direct_tap + half + 1 - first)


def find_direct_tap(response: ArrayLike, sample_rate: int) -> int:
    """Return the tap of the direct path: the largest one within 1 ms after the onset of the response.

    Args:
        response: `[taps]`.
        sample_rate: in Hz.

    >>> find_direct_tap([0, 0, 0.5, 0, 0, 1.0], sample_rate=1000)  # a reflection may be louder
    2
    """
    magnitudes = np.abs(_checked(response))
    onset = int(np.argmax(magnitudes >= magnitudes.max() * 10 ** (ONSET_DB / 20)))
    return onset + int(np.argmax(magnitudes[onset : onset + 1 + round(ONSET_TO_PEAK_MS * sample_rate / 1000)]))


def decay_end(response: ArrayLike, sample_rate: int) -> int:
    """Return the tap after which there is only noise: where the decay meets it, or the end of the response.

    Args:
        response: `[taps]`, from the direct path on.
        sample_rate: in Hz.

    Raises:
        InputError: the response is silent.
    """
    return _meet_noise(np.square(np.trim_zeros(_checked(response), "b")), sample_rate)[0]


def _meet_noise(squared: NDArray[np.float64], sample_rate: int) -> tuple[int, float]:
    """Return the tap at which the decay meets the noise, and the energy that the decay would have had after it.

    Level of blocks of 10 ms in dB, after the direct path:

        \\
          \\   line fit, down to 10 dB above the noise
            \\
              \\x─ ─ ─ ─ noise     x: where the line meets the noise (`stop`)

    The noise is first measured at the end of the response, and then, after each fit, where the decay is 10 dB below
    it; this is repeated five times.
    """
    block = max(round(_BLOCK_MS * sample_rate / 1000), 1)
    powers = squared[: squared.size // block * block].reshape(-1, block).mean(axis=1)
    noise = float(squared[-max(round(_NOISE_SHARE * squared.size), 1) :].mean())
    stop, beyond = squared.size, 0.0
    if powers.size < 4:
        return stop, beyond
    first = int(powers.argmax()) + 1  # the block of the direct path is not part of the decay

    for _ in range(5):
        quiet = powers[first:] < noise * 10 ** (_FIT_ABOVE_NOISE_DB / 10)
        last = first + int(quiet.argmax()) if quiet.any() else powers.size
        if last - first < 3:
            break
        middles = (np.arange(first, last) + 0.5) * block
        slope_db, start_db = np.polyfit(middles, 10 * np.log10(powers[first:last]), 1)
        if slope_db >= 0:
            break
        stop = int(np.clip((10 * np.log10(noise) - start_db) / slope_db, (first + 1) * block, squared.size))
        # The integral of 10^((start + slope · t) / 10) from `stop` to infinity.
        beyond = 10 ** ((start_db + slope_db * stop) / 10) * 10 / (np.log(10) * -slope_db)
        after = min(stop + round(-_FIT_ABOVE_NOISE_DB / slope_db), round((1 - _NOISE_SHARE) * squared.size))
        noise = float(squared[after:].mean())
    return stop, beyond


def _ratio_db(array: NDArray[np.float64], boundary: int) -> float:
    before, after = float(np.sum(array[:boundary] ** 2)), float(np.sum(array[boundary:] ** 2))
    return 10 * math.log10(before / after) if after > 0 else math.inf


def _checked(response: ArrayLike, direct_tap: int = 0) -> NDArray[np.float64]:
    array = np.asarray(response, dtype=np.float64)
    if array.ndim != 1 or not array.any():
        shape = list(array.shape)
        raise InputError(
            f"response: is {'silent' if array.ndim == 1 else f'of shape {shape}'}; give one with sound, [taps]"
        )
    if not 0 <= direct_tap < array.size:
        raise InputError(f"direct_tap: is {direct_tap}; the response has the taps 0 to {array.size - 1}")
    return array
