"""Resample a live stream: a delay of 2 ms, where `audio.resample` waits for up to 60 ms of later samples."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wesep_py.common.errors import InputError

ZERO_CROSSINGS = 32
"""Zero crossings of the filter on either side, at the lower of the two rates: it reaches 32 samples ahead, 2 ms at
16 kHz."""
# Design of the low-pass (Kaiser window): 70 dB of attenuation from the lower Nyquist frequency on; the pass band ends at
# 86 % of it, 6.9 kHz for a model at 16 kHz.
_ATTENUATION_DB = 70.0
# Outputs that are computed at once, so that a long block does not need the memory of all windows at a time.
_CHUNK = 8192


class ResamplerState(NamedTuple):
    """State of a `LiveResampler` between two blocks.

    Attributes:
        history: `[channels, samples]`, the input samples that later outputs need.
        num_in: number of input samples until now.
        num_out: number of output samples until now.
    """

    history: NDArray[np.float32]
    num_in: int
    num_out: int


class LiveResampler:
    """Streaming resampler with a short filter, whose state is a value: it can be stored, and restored.

    Output m is the low-passed waveform at the time of input sample m · from_rate / to_rate:

    ```
    y[m] = Σ_k x[k] · h(m · M / L − k)       |m · M / L − k| < reach       M / L = from_rate / to_rate, in lowest terms
    ```

    Only L filters occur, one for each fraction of m · M / L; they are computed once.

    Args:
        from_rate, to_rate: sample rates in Hz, above 0.
        num_channels: at least 1.

    Raises:
        InputError: a rate or a number of channels that is not positive.

    >>> resampler = LiveResampler(48000, 16000, num_channels=1)
    >>> block, state = resampler.push(np.ones((1, 4800), np.float32), resampler.initial_state())
    >>> rest = resampler.finish(state)
    >>> block.shape[1], rest.shape[1]
    (1568, 32)
    """

    def __init__(self, from_rate: int, to_rate: int, num_channels: int) -> None:
        if min(from_rate, to_rate, num_channels) < 1:
            raise InputError(
                f"{num_channels} channels from {from_rate} Hz to {to_rate} Hz; all of these have to be positive"
            )
        self.from_rate, self.to_rate, self.num_channels = from_rate, to_rate, num_channels
        divisor = math.gcd(from_rate, to_rate)
        self._step, self._phases = from_rate // divisor, to_rate // divisor
        self.is_identity = from_rate == to_rate
        self.reach = 0 if self.is_identity else math.ceil(ZERO_CROSSINGS * max(1.0, from_rate / to_rate))

    @property
    def delay_s(self) -> float:
        """Longest time in seconds between a sample's arrival and that of the output at its time."""
        return 0.0 if self.is_identity else (self.reach + 1) / self.from_rate + 1 / self.to_rate

    def initial_state(self) -> ResamplerState:
        """Return the state before the first sample: silence."""
        return ResamplerState(np.zeros((self.num_channels, max(0, self.reach - 1)), np.float32), 0, 0)

    def push(self, block: NDArray[np.float32], state: ResamplerState) -> tuple[NDArray[np.float32], ResamplerState]:
        """Take the next samples `[channels, samples]`; return the samples that are complete, and the new state."""
        num_in = state.num_in + block.shape[1]
        if self.is_identity:
            return block, ResamplerState(state.history, num_in, num_in)
        # Output m needs the inputs up to ⌊m · M / L⌋ + reach.
        last_position = (num_in - 1 - self.reach) * self._phases + self._phases - 1
        num_out = max(state.num_out, last_position // self._step + 1) if last_position >= 0 else state.num_out
        samples = np.concatenate([state.history, block], axis=1)
        start = num_in - samples.shape[1]
        outputs = [
            self._outputs(samples, start, first, min(first + _CHUNK, num_out))
            for first in range(state.num_out, num_out, _CHUNK)
        ]
        # The next output begins `reach − 1` samples before its position.
        needed_from = num_out * self._step // self._phases - self.reach + 1
        kept = samples[:, max(0, needed_from - start) :]
        result = np.concatenate(outputs, axis=1) if outputs else np.zeros((len(samples), 0), np.float32)
        return result, ResamplerState(kept, num_in, num_out)

    def finish(self, state: ResamplerState) -> NDArray[np.float32]:
        """Return the remaining samples: in all ⌈samples · to_rate / from_rate⌉, as `audio.resample` returns."""
        total = -(-state.num_in * self.to_rate // self.from_rate)
        padding = np.zeros((self.num_channels, self.reach + self._step), np.float32)
        return self.push(padding, state)[0][:, : total - state.num_out]

    def _outputs(self, samples: NDArray[np.float32], start: int, first: int, stop: int) -> NDArray[np.float32]:
        """Return the outputs `first` … `stop` − 1; `samples[:, 0]` is input number `start`."""
        position = np.arange(first, stop, dtype=np.int64) * self._step
        windows = np.lib.stride_tricks.sliding_window_view(samples, 2 * self.reach, axis=1)
        windows = windows[:, position // self._phases - self.reach + 1 - start]
        filters = _filters(self.from_rate, self.to_rate)
        if self._phases == 1:
            return windows @ filters[0]
        return np.einsum("cmk,mk->cm", windows, filters[position % self._phases]).astype(np.float32)


@lru_cache(maxsize=16)
def _filters(from_rate: int, to_rate: int) -> NDArray[np.float32]:
    """Return the filters `[phases, 2 · reach]`; filter p is for outputs p / phases after an input sample."""
    divisor = math.gcd(from_rate, to_rate)
    phases, ratio = to_rate // divisor, min(1.0, to_rate / from_rate)
    reach = math.ceil(ZERO_CROSSINGS / ratio)
    # Distance of each tap from the output, in input samples: tap j is input ⌊position⌋ − reach + 1 + j.
    distance = np.arange(phases)[:, None] / phases + reach - 1 - np.arange(2 * reach)[None]
    width = (_ATTENUATION_DB - 8) / (2.285 * 2 * ZERO_CROSSINGS) / (2 * np.pi)  # transition, cycles per low-rate sample
    cutoff = (0.5 - width / 2) * ratio
    window = np.i0(0.1102 * (_ATTENUATION_DB - 8.7) * np.sqrt(np.clip(1 - (distance / reach) ** 2, 0, None)))
    filters = np.sinc(2 * cutoff * distance) * window * (np.abs(distance) < reach)
    return (filters / filters.sum(axis=1, keepdims=True)).astype(np.float32)
