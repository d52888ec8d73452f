"""Readers: utterances as waveforms at one sample rate.

- `Reader`: the interface; `FileReader`: the reader that decodes audio files when they are requested.
- `load_utterance`, `cut_utterance`: decode one utterance, with and without resampling.
- `quantise`, `Quantised`, `DecodedCache`: decoded audio in 16 bits per sample, and a cache of it.
- `encode_utterance`: an utterance as lossless encoded audio, for shards and LMDB files.
- `measure_durations`: the lengths of many recordings, from their headers.

Readers of stores (shards, LMDB) are in `store`, the reader of packed corpora in `packed`.
"""

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

from wesep_py.audio.reading import EncodedAudio, encode_audio, info, read
from wesep_py.audio.resample import resample
from wesep_py.common.errors import AudioError, InputError
from wesep_py.common.names import is_utf8, printable
from wesep_py.data.manifest import Utterance

Waveform = NDArray[np.float32]


@runtime_checkable
class Reader(Protocol):
    """Reads the samples of utterances. All readers of one corpus and sample rate return the same samples."""

    @property
    def sample_rate(self) -> int:
        """Sample rate of all returned audio, in Hz."""
        ...

    def read(self, utterance: Utterance, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Return the samples from `start` to `stop` of an utterance, float32 `[samples]`."""
        ...

    def length(self, utterance: Utterance) -> int:
        """Return the number of samples of an utterance at the reader's rate."""
        ...


class FileReader:
    """Decodes and resamples files when they are requested, and caches the most recent ones in memory.

    Samples have 16 bits (`quantise`), as in a packed corpus, so that a `PackedReader` returns the same values. A reader
    can be sent to other processes, which start with an empty cache.

    Args:
        sample_rate: sample rate of the returned audio in Hz, at least 1.
        cache_mib: size of the cache of decoded audio in MiB, at least 0; the least recently used is dropped first.

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
        """Sample rate of all returned audio, in Hz."""
        return self._sample_rate

    def read(self, utterance: Utterance, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Return the samples from `start` to `stop` of an utterance, float32 `[samples]`; a new array each time.

        Args:
            utterance: the utterance to read.
            start: first sample, at the reader's rate, counted from the beginning of the utterance.
            stop: the sample to stop before; `None` for the end.

        Raises:
            AudioError: as `load_utterance`.
            InputError: the positions are not inside the utterance.
        """
        quantised = self._load(utterance)
        start, stop = check_span(utterance, quantised.samples.size, start, stop)
        return quantised.waveform(start, stop)

    def length(self, utterance: Utterance) -> int:
        """Return the number of samples of an utterance at the reader's rate. Decodes it if that is not known yet."""
        key = _cache_key(utterance)
        if key not in self._lengths:
            self._load(utterance)
        return self._lengths[key]

    def _load(self, utterance: Utterance) -> Quantised:
        quantised = self._cache.get(_cache_key(utterance), lambda: load_utterance(utterance, self._sample_rate))
        self._lengths[_cache_key(utterance)] = quantised.samples.size
        return quantised


def _cache_key(utterance: Utterance) -> tuple[Path, float, float, float]:
    return utterance.path, utterance.start_s, utterance.duration_s, utterance.speed


def check_span(utterance: Utterance, length: int, start: int, stop: int | None) -> tuple[int, int]:
    """Return `start` and `stop` as sample positions inside an utterance of `length` samples.

    Raises:
        InputError: `0 <= start <= stop <= length` does not hold.
    """
    end = length if stop is None else stop
    if not 0 <= start <= end <= length:
        raise InputError(
            f"utterance {utterance.utterance_id!r}: samples {start} to {end} were requested; it has {length}"
        )
    return start, end


# Decoding: the segment of a recording that an utterance is.

# A manifest's duration may reach this far past the end of its file: durations are rounded and codecs pad.
DURATION_TOLERANCE_S = 0.1
# A duration that ends this close to the end of the file means the end of the file: manifests round to 1 ms.
END_TOLERANCE_S = 0.001
# Segments of these formats are cut from the whole decoded file: decoding has to start at its beginning.
LOSSY_SUBTYPES = frozenset({"OPUS", "VORBIS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"})


def load_utterance(utterance: Utterance, sample_rate: int) -> Quantised:
    """Decode an utterance: its segment of the first channel, at its speed, resampled, in 16 bits per sample.

    A segment whose stated end is within 1 ms of the end of the file ends with the file.

    Args:
        utterance: the utterance to decode.
        sample_rate: sample rate of the result in Hz.

    Raises:
        AudioError: the file is missing or damaged, or is more than 0.1 s shorter than the utterance states.
    """
    waveform, rate, _ = cut_utterance(utterance)
    # Faster playback is the same as a higher recording rate.
    return quantise(resample(waveform[0], round(rate * utterance.speed), sample_rate))


def cut_utterance(utterance: Utterance) -> tuple[Waveform, int, bool]:
    """Decode the segment of an utterance as it was recorded, before a `FileReader` resamples it.

    Returns:
        float32 `[channels, samples]`; its sample rate in Hz (speed not applied); and true if the utterance is a whole
        recording in a lossy format.

    Raises:
        AudioError: the file is missing or damaged, or is more than 0.1 s shorter than the utterance states.
    """
    audio = info(utterance.path)
    start, stop = round(utterance.start_s * audio.sample_rate), round(utterance.stop_s * audio.sample_rate)
    if start >= audio.num_samples or stop > audio.num_samples + DURATION_TOLERANCE_S * audio.sample_rate:
        raise AudioError(
            f"{utterance.path}: lasts {audio.duration_s:.3f} s, but utterance {utterance.utterance_id!r} is "
            f"said to end at {utterance.stop_s:.3f} s; correct its duration_s, or write the manifest again"
        )
    reaches_end = stop > audio.num_samples - END_TOLERANCE_S * audio.sample_rate
    is_lossy = audio.subtype in LOSSY_SUBTYPES
    if start == 0 and reaches_end:
        return *read(utterance.path), is_lossy
    if is_lossy:
        waveform, rate = _decode_whole(utterance.path, utterance.path.stat().st_mtime_ns)
        return waveform[:, start : None if reaches_end else stop], rate, False
    return *read(utterance.path, start, None if reaches_end else stop), False


@lru_cache(maxsize=1)  # the segments of a long recording usually follow one another
def _decode_whole(path: Path, mtime_ns: int) -> tuple[Waveform, int]:
    return read(path)


# Decoded audio in 16 bits per sample, each waveform with a scale of its own; used by caches and packed corpora.

INT16_MIN, INT16_MAX = -32768, 32767


class Quantised(NamedTuple):
    """A waveform in 16 bits per sample: `samples * 2**exponent`."""

    samples: NDArray[np.int16]
    exponent: int

    def waveform(self, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Return the samples from `start` to `stop` as float32."""
        return self.samples[start:stop] * np.float32(2.0**self.exponent)


def quantise(waveform: NDArray[np.floating[Any]]) -> Quantised:
    """Round a waveform to 16 bits per sample, with one power of two as its scale.

    The scale is the smallest with which the loudest sample fits. So a 16-bit recording at any level is kept exactly, a
    quiet floating-point recording keeps 15 bits below its own peak, and one that exceeds full scale is not clipped.

    >>> quantise(np.array([0.5, -1.0])).waveform().tolist()
    [0.5, -1.0]
    """
    waveform = np.asarray(waveform)
    low, high = float(waveform.min(initial=0.0)), float(waveform.max(initial=0.0))
    peak = max(-low, high)
    if peak == 0.0:
        return Quantised(np.zeros(waveform.shape, np.int16), -15)
    # frexp gives the e with 2**(e-1) <= peak < 2**e. Scaled by 2**(15-e), the peak is in [2**14, 2**15), which fits
    # unless rounding lifts it to +2**15 (then the scale is one step coarser). One step finer, 2**(16-e), fits only if
    # it rounds to -2**15: int16 holds -2**15, but not +2**15.
    exponent_of_peak = max(math.frexp(peak)[1], -100)
    for exponent in (exponent_of_peak - 16, exponent_of_peak - 15, exponent_of_peak - 14):
        scale = 2.0**-exponent
        if round(low * scale) >= INT16_MIN and round(high * scale) <= INT16_MAX:
            break
    scaled = np.rint(waveform * waveform.dtype.type(scale))
    return Quantised(scaled.astype(np.int16), exponent)


class DecodedCache:
    """Cache of decoded audio; the least recently used is dropped first. A copy in another process starts empty.

    Args:
        size_mib: maximum size in MiB, at least 0.

    Attributes:
        entries: the cached audio by key, the least recently used first.
        num_bytes: the size of the cached audio in bytes.

    Raises:
        InputError: the size is negative.
    """

    def __init__(self, size_mib: float) -> None:
        if size_mib < 0:
            raise InputError(f"cache_mib: is {size_mib}; at least 0 is needed")
        self._max_bytes = int(size_mib * 2**20)
        self._clear()

    def get(self, key: Hashable, decode: Callable[[], Quantised]) -> Quantised:
        """Return the audio that is cached under a key; if there is none, decode and cache it."""
        if key in self.entries:
            self.entries.move_to_end(key)
            return self.entries[key]
        self.entries[key] = decoded = decode()
        self.num_bytes += decoded.samples.nbytes
        while self.num_bytes > self._max_bytes:
            _, oldest = self.entries.popitem(last=False)
            self.num_bytes -= oldest.samples.nbytes
        return decoded

    def _clear(self) -> None:
        self.entries: OrderedDict[Hashable, Quantised] = OrderedDict()
        self.num_bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"_max_bytes": self._max_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._clear()


# Utterances as encoded audio, as shards and LMDB files store them: the utterance's own segment, at the rate of its
# recording, in the narrowest lossless encoding that returns every sample exactly. So a store and a `FileReader` give
# the same values at any rate.

StoredFormat = Literal["flac", "wav", "opus-as-is"]
STORED_FORMATS: tuple[str, ...] = get_args(StoredFormat)
_COPIED_SUFFIXES = frozenset({".opus", ".ogg", ".mp3"})


def encode_utterance(utterance: Utterance, form: StoredFormat = "flac", all_channels: bool = False) -> EncodedAudio:
    """Decode the segment of an utterance, check it, and encode it without loss (or copy the file).

    Args:
        utterance: the utterance to encode. Its speed is not applied; readers apply it.
        form: `flac`: FLAC, or wav where the samples do not fit FLAC (floating point, more than 8 channels). `wav`: wav.
            `opus-as-is`: a whole recording in a lossy format (Opus, Vorbis, MP3) is copied byte by byte; all other
            audio is stored as with `flac`.
        all_channels: store all channels, as a room response needs; otherwise the first.

    Raises:
        AudioError: the recording is missing, damaged, or shorter than the utterance states.
        InputError: `form` is unknown.
    """
    if form not in STORED_FORMATS:
        raise InputError(f"format: is {form!r}; {', '.join(STORED_FORMATS)} are allowed")
    waveform, rate, is_whole_lossy = cut_utterance(utterance)
    suffix = utterance.path.suffix.lower()
    if form == "opus-as-is" and is_whole_lossy and suffix in _COPIED_SUFFIXES:
        return EncodedAudio(utterance.path.read_bytes(), suffix, rate, waveform.shape[1])
    return encode_audio(waveform if all_channels else waveform[:1], rate, "wav" if form == "wav" else "flac")


# Lengths of recordings, from their headers.

# Called with a recording that is skipped, and the reason. Without it, the first such recording is an error.
OnSkip = Callable[[Path, str], None]
# Called with the number of items done, and the total number.
OnProgress = Callable[[int, int], None]


def measure_durations(
    paths: Iterable[Path], on_skip: OnSkip | None = None, on_progress: OnProgress | None = None, threads: int = 8
) -> dict[Path, float]:
    """Return the lengths of recordings in seconds.

    Args:
        paths: the files; one that is listed twice is measured once.
        on_skip: called with each file that is missing, damaged or no audio, or whose name is not UTF-8; it is skipped.
        on_progress: called with the number of files done and the total number.
        threads: number of files that are measured at a time, at least 1.

    Raises:
        AudioError: a file is missing, damaged or no audio, and `on_skip` is `None`.
    """
    distinct = list(dict.fromkeys(paths))
    durations: dict[Path, float] = {}
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(_measure_duration, path) for path in distinct]
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


def _measure_duration(path: Path) -> float:
    check_utf8_name(path)
    return info(path).duration_s


def check_utf8_name(path: Path) -> None:
    """Check that a manifest can hold the name of a file.

    Raises:
        AudioError: the name is not UTF-8.
    """
    if not is_utf8(str(path)):
        raise AudioError(f"{printable(str(path))}: its name is not UTF-8, and no list can hold it; rename the file")
