"""Utterances as waveforms at one sample rate: the interface, and the reader that decodes files on demand."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.reading import Encoded, encode, info, read
from wesep_py.audio.resample import resample
from wesep_py.common.errors import AudioError, InputError
from wesep_py.common.names import is_utf8, printable
from wesep_py.data.manifest import Utterance

# ----------------------------------------
# The stretch of a recording that an utterance is, as it was recorded.

# How far a manifest's duration may reach past the end of its file: durations are rounded and codecs pad.
DURATION_TOLERANCE_S = 0.1
# A duration that ends this close to the end of the file means the end of the file: manifests round to 1 ms.
END_TOLERANCE_S = 0.001
# A stretch of these is cut from the whole: they have to be decoded from their beginning.
LOSSY_SUBTYPES = frozenset({"OPUS", "VORBIS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"})
Waveform = NDArray[np.float32]


def cut_utterance(utterance: Utterance) -> tuple[Waveform, int, bool]:
    """The stretch of an utterance as it was recorded: what a `FileReader` resamples.

    Returns:
        float32 `[channels, samples]`, its rate in Hz (speed not applied), and whether it is a whole recording in
        a lossy format.

    Raises:
        AudioError: the file is missing or damaged, or is more than 0.1 s shorter than the utterance says.
    """
    found = info(utterance.path)
    start, stop = round(utterance.start_s * found.sample_rate), round(utterance.stop_s * found.sample_rate)
    if start >= found.num_samples or stop > found.num_samples + DURATION_TOLERANCE_S * found.sample_rate:
        raise AudioError(
            f"{utterance.path}: lasts {found.duration_s:.3f} s, but utterance {utterance.utterance_id!r} is "
            f"said to end at {utterance.stop_s:.3f} s; correct its duration_s, or write the manifest anew"
        )
    to_end = stop > found.num_samples - END_TOLERANCE_S * found.sample_rate
    lossy = found.subtype in LOSSY_SUBTYPES
    if start == 0 and to_end:
        return *read(utterance.path), lossy
    if lossy:
        whole, rate = _decode_whole(utterance.path, utterance.path.stat().st_mtime_ns)
        return whole[:, start : None if to_end else stop], rate, False
    return *read(utterance.path, start, None if to_end else stop), False


@lru_cache(maxsize=1)
def _decode_whole(path: Path, mtime_ns: int) -> tuple[Waveform, int]:
    return read(path)


# ----------------------------------------
# How long recordings are, by their headers; many at once, and what to do about a bad one.

# Told of a recording that has to be left out, and why; without it the first bad recording is an error.
OnSkip = Callable[[Path, str], None]
# Told how many recordings have been looked at, and how many there are.
OnProgress = Callable[[int, int], None]


def measure_durations(
    paths: Iterable[Path], on_skip: OnSkip | None = None, on_progress: OnProgress | None = None, threads: int = 8
) -> dict[Path, float]:
    """The lengths of recordings in seconds.

    Args:
        paths: the files; one that comes twice is looked at once.
        on_skip: called with each file that is missing, damaged or no audio, or whose name is no UTF-8; it is left out.
        on_progress: called with the number of files done and of all.
        threads: how many files are looked at at a time, at least 1.

    Raises:
        AudioError: a file is missing, damaged or no audio, and there is no `on_skip`.
    """
    distinct = list(dict.fromkeys(paths))
    durations: dict[Path, float] = {}
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(_measure, path) for path in distinct]
        try:
            for number, (path, future) in enumerate(zip(distinct, futures, strict=True), start=1):
                try:
                    durations[path] = future.result()
                except AudioError as error:
                    if on_skip is None:
                        raise
                    on_skip(path, str(error))
                if on_progress is not None:
                    on_progress(number, len(distinct))
        finally:
            pool.shutdown(cancel_futures=True)
    return durations


def check_utf8_name(path: Path) -> None:
    """Refuse a file whose name no manifest can hold.

    Raises:
        AudioError: its name is not UTF-8.
    """
    if not is_utf8(str(path)):
        raise AudioError(f"{printable(str(path))}: its name is not UTF-8, and no list can hold it; rename the file")


def _measure(path: Path) -> float:
    check_utf8_name(path)
    return info(path).duration_s


# ----------------------------------------
# Waveforms in 16 bits a sample, each with a scale of its own: what stores and caches hold.

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


# ----------------------------------------
# The latest decoded utterances, up to a size: what readers that decode on demand keep.


class DecodedCache:
    """Decoded audio under its key; the least recently used goes first. In another process it begins empty.

    Args:
        size_mib: how much it keeps, in MiB, at least 0.

    Attributes:
        kept: what it keeps, the least recently used first.
        num_bytes: how much that is.

    Raises:
        InputError: a negative size.
    """

    def __init__(self, size_mib: float) -> None:
        if size_mib < 0:
            raise InputError(f"cache_mib: is {size_mib}; at least 0 is needed")
        self._size = int(size_mib * 2**20)
        self._forget()

    def get(self, key: Hashable, decode: Callable[[], Quantised]) -> Quantised:
        """What is kept under the key; decoded, and kept, where it is not there."""
        if key in self.kept:
            self.kept.move_to_end(key)
            return self.kept[key]
        self.kept[key] = decoded = decode()
        self.num_bytes += decoded.samples.nbytes
        while self.num_bytes > self._size:
            _, oldest = self.kept.popitem(last=False)
            self.num_bytes -= oldest.samples.nbytes
        return decoded

    def _forget(self) -> None:
        self.kept: OrderedDict[Hashable, Quantised] = OrderedDict()
        self.num_bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"_size": self._size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()


# ----------------------------------------
# Utterances as encoded audio in memory, without loss: what shards and LMDB stores hold.
#
# What is stored is the utterance's own stretch, at the rate of its recording. The encoding is chosen by the samples:
# the narrowest that gives every one of them back exactly. So a store and a `FileReader` give the same values at
# any rate.

StoredFormat = Literal["flac", "wav", "opus-as-is"]
STORED_FORMATS: tuple[str, ...] = get_args(StoredFormat)
_AS_IS_SUFFIXES = frozenset({".opus", ".ogg", ".mp3"})


def encode_utterance(utterance: Utterance, form: StoredFormat = "flac", all_channels: bool = False) -> Encoded:
    """The stretch of an utterance, decoded, checked and encoded anew, or copied.

    Args:
        utterance: what to encode; its speed is left to who reads it.
        form: `flac`, or `wav` where samples do not fit FLAC (floating point, more than 8 channels); `wav`; or
            `opus-as-is`: a whole recording in a lossy format (Opus, Vorbis, MP3) is copied byte by byte, all
            else is as with `flac`.
        all_channels: keep all channels, as a room response needs; otherwise the first.

    Raises:
        AudioError: the recording is missing, damaged, or shorter than the utterance says.
        InputError: another `form`.
    """
    if form not in STORED_FORMATS:
        raise InputError(f"format: is {form!r}; {', '.join(STORED_FORMATS)} are allowed")
    waveform, rate, may_copy = cut_utterance(utterance)
    suffix = utterance.path.suffix.lower()
    if form == "opus-as-is" and may_copy and suffix in _AS_IS_SUFFIXES:
        return Encoded(utterance.path.read_bytes(), suffix, rate, waveform.shape[1])
    return encode(waveform if all_channels else waveform[:1], rate, "wav" if form == "wav" else "flac")


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
