"""The zero-phase high-pass of whole recordings: its design, and the filter in NumPy; `HighPass` is that in torch."""

from __future__ import annotations

import math
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

DEFAULT_HIGHPASS_HZ = 40.0
"""Default cutoff of models: below this frequency there is no speech, and next to nothing is audible."""
# Attenuation of the low-pass in its stop band, in dB; the ripple of its pass band is as small.
_ATTENUATION_DB = 80.0
# The pass band of the low-pass ends at the cutoff, and its stop band begins at this multiple of the cutoff: at 60 Hz,
# below the lowest voices, for 40 Hz.
_STOP_RATIO = 1.5
# The low-pass is computed in two steps of decimation: to about 50 times the cutoff, and to a quarter of that rate.
_FIRST_RATE_RATIO = 50
SECOND_STEP = 4
"""Factor of the second decimation."""


class HighPassDesign:
    """Filters of the zero-phase high-pass.

    Args:
        sample_rate: in Hz.
        cutoff_hz: above 0 and below a sixteenth of the sample rate.

    Raises:
        ValueError: another cutoff.

    Attributes:
        first_step: factor of the first decimation.
        step: of both.
        inner: samples from the middle of the interpolating filter to its end.
        reach: samples on either side that a result depends on.
        first, second: filters `[taps]` in front of the two decimations, float64.
        phases: interpolating filters `[step, taps]`, one for each of the `step` samples between two of the low rate.
    """

    def __init__(self, sample_rate: int, cutoff_hz: float) -> None:
        if not 0 < cutoff_hz < sample_rate / 16:
            raise ValueError(f"cutoff_hz: is {cutoff_hz}; above 0 and below {sample_rate / 16:g} Hz is allowed")
        stop_hz = _STOP_RATIO * cutoff_hz
        self.first_step = max(1, round(sample_rate / (_FIRST_RATE_RATIO * cutoff_hz)))
        self.step = self.first_step * SECOND_STEP
        first_rate, low_rate = sample_rate / self.first_step, sample_rate / self.step
        self.first = low_pass_kernel(sample_rate, stop_hz, first_rate - stop_hz)
        self.second = low_pass_kernel(first_rate, cutoff_hz, stop_hz)
        interpolate = low_pass_kernel(sample_rate, stop_hz, low_rate - stop_hz, self.step)
        self.inner = len(interpolate) // 2
        self.reach = len(self.first) // 2 + len(self.second) // 2 * self.first_step + self.inner
        padded = np.pad(interpolate, (0, -len(interpolate) % self.step))
        self.phases = np.ascontiguousarray(padded.reshape(-1, self.step)[::-1].T)


class ArrayHighPass:
    """`HighPass` for arrays, without torch.

    Args:
        sample_rate, cutoff_hz: as `HighPass`.

    >>> time_s = np.arange(16000) / 16000
    >>> rumble = (0.1 + 0.1 * np.sin(2 * np.pi * 20 * time_s))[None].astype(np.float32)
    >>> bool(np.abs(ArrayHighPass(16000, 40.0)(rumble)[:, 1600:-1600]).max() < 2e-4)
    True
    """

    def __init__(self, sample_rate: int, cutoff_hz: float) -> None:
        self.design = HighPassDesign(sample_rate, cutoff_hz)

    def __call__(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """Filter waveforms `[..., samples]`."""
        if waveform.size == 0:
            return waveform
        rows = np.asarray(waveform, np.float32).reshape(-1, waveform.shape[-1])
        return np.stack([self._filtered(row) for row in rows]).reshape(waveform.shape)

    @cached_property
    def _filters(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        design = self.design
        return design.first.astype(np.float32), design.second.astype(np.float32), design.phases.astype(np.float32)

    def _filtered(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        design, (first, second, phases) = self.design, self._filters
        # The mean is removed first: it is most of what is to be removed, and otherwise costs precision.
        samples = samples - samples.mean(dtype=np.float64).astype(np.float32)
        low = _decimated(
            np.pad(samples, (design.reach, design.reach + design.step), "reflect"), first, design.first_step
        )
        low = _decimated(low, second, SECOND_STEP)
        margin = phases.shape[1] - 1
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(low, margin), phases.shape[1])
        low = (windows @ phases.T).reshape(-1)
        return samples - low[2 * design.inner : 2 * design.inner + len(samples)]


def low_pass_kernel(sample_rate: float, pass_hz: float, stop_hz: float, step: int = 1) -> NDArray[np.float64]:
    """Return a linear-phase low-pass of odd length, by Kaiser's design; every `step`-th sample sums to 1."""
    reach = math.ceil((_ATTENUATION_DB - 8) / (2.285 * 2 * math.pi * (stop_hz - pass_hz) / sample_rate) / 2)
    time = np.arange(-reach, reach + 1)
    beta = 0.1102 * (_ATTENUATION_DB - 8.7)
    kernel = np.sinc(time * (pass_hz + stop_hz) / sample_rate) * np.i0(
        beta * np.sqrt(np.maximum(1 - (time / reach) ** 2, 0))
    )
    # Each phase is normalised by itself, so that a constant is interpolated to exactly that constant.
    for phase in range(step):
        kernel[phase::step] /= kernel[phase::step].sum()
    return kernel


def _decimated(samples: NDArray[np.float32], kernel: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    """Return every `step`-th sample of the filtered waveform, from the first that the kernel covers on."""
    # With a step of 2 and a kernel of 4: y[m] = (x₀ x₁)·(k₀ k₁) of row m + (x₀ x₁)·(k₂ k₃) of row m + 1.
    count = (len(samples) - len(kernel)) // step + 1
    parts = np.pad(kernel, (0, -len(kernel) % step)).reshape(-1, step)
    num_rows = count + len(parts) - 1
    rows = np.pad(samples, (0, max(0, num_rows * step - len(samples))))[: num_rows * step].reshape(-1, step)
    products = rows @ parts.T
    result = np.zeros(count, np.float32)
    for part in range(len(parts)):
        result += products[part : part + count, part]
    return result


@lru_cache(maxsize=8)
def speech_high_pass(sample_rate: int) -> ArrayHighPass | None:
    """Return the high-pass that figures about recordings use; `None` for a sample rate that is too low for it."""
    return ArrayHighPass(sample_rate, DEFAULT_HIGHPASS_HZ) if sample_rate > 16 * DEFAULT_HIGHPASS_HZ else None
