"""Utterances as waveforms at one sample rate: the interface, and the reader that decodes files on demand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.resample import resample
from wesep_py.corpus.cache import DecodedCache
from wesep_py.corpus.stretch import cut_utterance
from wesep_py.corpus.utterance import Utterance
from wesep_py.errors import InputError

INT16_MIN, INT16_MAX = -32768, 32767


@runtime_checkable
class Reader(Protocol):
    """Gives the samples of utterances; readers of the same corpus and rate give the same samples."""

    @property
    def sample_rate(self) -> int:
        """The rate of everything it gives, in Hz."""
        ...

    def read(self, utterance: Utterance, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """The samples from `start` to `stop` of an utterance, float32 `[samples]`."""
        ...

    def length(self, utterance: Utterance) -> int:
        """How many samples the utterance has at the reader's rate."""
        ...


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


def load_utterance(utterance: Utterance, sample_rate: int) -> Quantised:
    """Decode an utterance: its stretch of the first channel, at its speed, resampled, in 16 bits a sample.

    A stretch whose stated end lies within 1 ms of the end of the file ends with the file.

    Args:
        utterance: what to decode.
        sample_rate: rate of the result in Hz.

    Raises:
        AudioError: the file is missing or damaged, or is more than 0.1 s shorter than the utterance says.
    """
    waveform, rate, _ = cut_utterance(utterance)
    # Played faster is: recorded at a higher rate.
    return quantise(resample(waveform[0], round(rate * utterance.speed), sample_rate))


def check_span(utterance: Utterance, length: int, start: int, stop: int | None) -> tuple[int, int]:
    """`start` and `stop` as sample positions inside an utterance of `length` samples.

    Raises:
        InputError: they do not lie in order between 0 and `length`.
    """
    end = length if stop is None else stop
    if not 0 <= start <= end <= length:
        raise InputError(
            f"utterance {utterance.utterance_id!r}: samples {start} to {end} were asked for; it has {length}"
        )
    return start, end


class FileReader:
    """Decodes and resamples files as they are asked for, and keeps the latest in memory.

    What it gives has 16 bits a sample (`quantise`), as `PackedReader` keeps it, so that both give the same
    values. It can be sent to other processes, which begin with an empty memory.

    Args:
        sample_rate: rate of what it gives in Hz, at least 1.
        cache_mib: how much decoded audio it keeps, in MiB, at least 0; the least recently used goes first.

    >>> FileReader(16000).sample_rate
    16000
    """

    def __init__(self, sample_rate: int, cache_mib: float = 512) -> None:
        if sample_rate < 1:
            raise InputError(f"sample_rate: is {sample_rate}; at least 1 Hz is needed")
        self._sample_rate = sample_rate
        self._cache = DecodedCache(cache_mib)
        self._lengths: dict[tuple[Path, float, float, float], int] = {}

    @property
    def sample_rate(self) -> int:
        """The rate of everything it gives, in Hz."""
        return self._sample_rate

    def read(self, utterance: Utterance, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """The samples from `start` to `stop` of an utterance, float32 `[samples]`; a new array each time.

        Args:
            utterance: what to read.
            start: first sample, at the reader's rate, counted from the utterance's beginning.
            stop: the sample to stop before; `None` for the end.

        Raises:
            AudioError: as `load_utterance`.
            InputError: the positions do not lie inside the utterance.
        """
        quantised = self._load(utterance)
        start, stop = check_span(utterance, quantised.samples.size, start, stop)
        return quantised.waveform(start, stop)

    def length(self, utterance: Utterance) -> int:
        """How many samples the utterance has at the reader's rate. Decodes it, if it has not been."""
        key = _key(utterance)
        if key not in self._lengths:
            self._load(utterance)
        return self._lengths[key]

    def _load(self, utterance: Utterance) -> Quantised:
        quantised = self._cache.get(_key(utterance), lambda: load_utterance(utterance, self._sample_rate))
        self._lengths[_key(utterance)] = quantised.samples.size
        return quantised


def _key(utterance: Utterance) -> tuple[Path, float, float, float]:
    return utterance.path, utterance.start_s, utterance.duration_s, utterance.speed
