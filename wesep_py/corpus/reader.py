"""Utterances as waveforms at one sample rate: the interface, and the reader that decodes files on demand."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.resample import resample
from wesep_py.corpus.cache import DecodedCache
from wesep_py.corpus.quantised import Quantised, quantise
from wesep_py.corpus.stretch import cut_utterance
from wesep_py.corpus.utterance import Utterance
from wesep_py.errors import InputError


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
