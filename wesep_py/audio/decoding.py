"""Decode recordings with libsndfile, and check their length; what it does not read is decoded by `media`.

A file can hold several recordings one after the other ("links", as in a chained Ogg file); they are decoded in turn,
and joined at the sample rate and with the channels of the first:

    file ─► containers.layout_of ─► links ─► libsndfile, link by link ─► join ─► blocks [samples, channels]

The length that a header states is compared with the bytes that `containers` finds in the file, and with the number of
decoded samples. A fault is a warning, or in strict reading an error. Every exception of a decoder becomes one line
that names the file.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from wesep_py.audio.containers import ByteSource, Layout, Link, SplicedFile, layout_of
from wesep_py.audio.media import (
    INSTALL,
    MediaFormat,
    chosen_track,
    examine_media,
    is_installed,
    is_media,
    media_blocks,
)
from wesep_py.audio.resample import resampled_length
from wesep_py.audio.sample_blocks import Samples, cut_out, regrouped, resampled, with_channels
from wesep_py.common.errors import AudioError

if TYPE_CHECKING:
    import soundfile

logger = logging.getLogger("wesep_py.audio")
LOWEST_RATE, HIGHEST_RATE = 1000, 1_536_000
"""Allowed sample rates in Hz; others are due to a damaged header, and cost memory when resampled."""
# Subtypes in which decoding can start exactly at any sample.
_SEEKABLE = {"PCM_U8", "PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"}
# The length of MPEG audio is known only to within the frames of 1152 samples that a decoder needs to start.
_MP3_SLACK_SAMPLES = 4 * 1152
_BLOCK_VALUES = 1 << 21
# An upper bound for all codecs; more is due to a damaged header.
_MAX_SAMPLES_PER_BYTE = 1 << 17
_CACHE_SIZE = 512
# A file that was modified this recently is not cached: it may be written again with the same time stamp.
_SETTLED_NS = 2_000_000_000

# Strict reading. The environment variable holds for this process and those that it starts.

STRICT_VARIABLE = "WESEP_STRICT"
_MAX_REPORTED = 1 << 16
_reported: set[tuple[object, ...]] = set()
_reported_lock = threading.Lock()


def is_strict() -> bool:
    """True if recordings that are shorter or longer than their header says are refused."""
    return os.environ.get(STRICT_VARIABLE, "").lower() not in ("", "0", "false", "no")


@contextmanager
def strict_reading(enabled: bool = True) -> Iterator[None]:
    """Refuse recordings that are not as their header says inside the block; `False` keeps the current setting.

    >>> with strict_reading():
    ...     is_strict()
    True
    """
    if not enabled:
        yield
        return
    before = os.environ.get(STRICT_VARIABLE)
    os.environ[STRICT_VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[STRICT_VARIABLE]
        else:
            os.environ[STRICT_VARIABLE] = before


def report_fault(name: str, fault: str, identity: tuple[object, ...] = ()) -> None:
    """Warn of a fault of a recording, once per file and fault; in strict reading, raise an error.

    Args:
        name: name of the recording.
        fault: the fault as a predicate: "is cut short".
        identity: size and time of the file, which distinguish it from an earlier file of the same name.

    Raises:
        AudioError: in strict reading.
    """
    if is_strict():
        raise AudioError(f"{name}: {fault}; get a whole copy of the file, or leave out --strict")
    with _reported_lock:
        key = (name, fault, *identity)
        if key in _reported:
            return
        if len(_reported) >= _MAX_REPORTED:
            _reported.clear()
        _reported.add(key)
    logger.warning("%s: %s", name, fault)


# Recordings.


@dataclass(frozen=True)
class AudioInfo:
    """Format and length of a recording.

    Attributes:
        sample_rate: in Hz.
        num_channels: at least 1.
        num_samples: of each channel.
        duration_s: in seconds.
        format: libsndfile's name of the container: `WAV`, `FLAC`, `OGG`, `MP3`, …; FFmpeg's of others: `MP4`, …
        subtype: libsndfile's name of the sample format: `PCM_16`, `FLOAT`, `OPUS`, …; FFmpeg's of others: `AAC`, …
        has_pictures: whether it is a video.
    """

    sample_rate: int
    num_channels: int
    num_samples: int
    duration_s: float
    format: str
    subtype: str
    has_pictures: bool = False


@dataclass(frozen=True)
class _DecodableLink:
    """Link with its own sample rate, channels and number of samples."""

    location: Link
    sample_rate: int
    num_channels: int
    num_samples: int


@dataclass(frozen=True)
class _Examination:
    """Knowledge about a file before it is decoded."""

    about: AudioInfo
    links: tuple[_DecodableLink, ...]
    layout: Layout
    faults: tuple[str, ...]
    media: MediaFormat | None = None


_cache: OrderedDict[tuple[object, ...], _Examination] = OrderedDict()
_cache_lock = threading.Lock()


class AudioDecoder:
    """Decoder of one recording.

    Args:
        source: the bytes of the recording.

    Raises:
        AudioError: it is not audio, has no samples, or has an impossible sample rate; in strict reading, it is not as
            its header says.
    """

    def __init__(self, source: ByteSource) -> None:
        self.source, self.name = source, source.name
        self._identity = source.identity
        self._examination = _examine(source)
        for fault in self._examination.faults:
            report_fault(self.name, fault, self._identity)

    @property
    def about(self) -> AudioInfo:
        """Format and length."""
        return self._examination.about

    @property
    def media(self) -> MediaFormat | None:
        """Format of a recording that `media` decodes; `None` if libsndfile does."""
        return self._examination.media

    @property
    def is_seekable(self) -> bool:
        """True if decoding can start at any sample, with the same result as decoding from the beginning."""
        about = self.about
        exact = about.subtype in _SEEKABLE and about.format not in ("OGG", "MP3")
        return exact and len(self._examination.links) == 1 and not self._examination.layout.faults

    def blocks(self, block_samples: int, start: int = 0, stop: int | None = None) -> Iterator[Samples]:
        """Decode from sample `start` to sample `stop`, or to the end.

        Args:
            block_samples: length of each block but the last, at least 1.
            start: first sample.
            stop: sample after the last one.

        Yields:
            float32 `[samples, channels]`.

        Raises:
            AudioError: the recording is damaged; in strict reading, it ends early.
        """
        end = self.about.num_samples if stop is None else min(stop, self.about.num_samples)
        if self._examination.media is not None:
            decoded = cut_out(media_blocks(self.source), start, end)
        elif self.is_seekable:
            link = self._examination.links[0]
            decoded = self._decoded(link, block_samples, start, end)
        else:
            decoded = cut_out(self._joined(block_samples), start, end)
        position = start
        for block in regrouped(decoded, block_samples):
            position += len(block)
            yield block
        self._check_end(position, end)

    def _check_end(self, position: int, end: int) -> None:
        """Report a recording that ended at `position` instead of `end`."""
        about = self.about
        slack = _MP3_SLACK_SAMPLES if about.format == "MP3" else 0
        if position < end - slack and not self._examination.layout.is_cut:  # `is_cut` was reported already
            missing_s = (end - position) / about.sample_rate
            report_fault(
                self.name,
                f"is damaged or cut short: {about.num_samples} samples are in it and only {position} could be decoded "
                f"({missing_s:.3f} s of {about.duration_s:.3f} s is missing)",
                self._identity,
            )

    def _joined(self, block_samples: int) -> Iterator[Samples]:
        """Decode all links, at the sample rate and with the channels of the first."""
        about = self.about
        for link in self._examination.links:
            blocks = self._decoded(link, block_samples, 0, link.num_samples)
            if link.num_channels != about.num_channels:
                blocks = (with_channels(block, about.num_channels) for block in blocks)
            if link.sample_rate != about.sample_rate:
                blocks = resampled(blocks, link.sample_rate, about.sample_rate, about.num_channels)
            yield from blocks

    def _decoded(self, link: _DecodableLink, block_samples: int, start: int, stop: int) -> Iterator[Samples]:
        """Decode one link, in blocks of at most `block_samples` and at most `_BLOCK_VALUES` values."""
        max_samples = max(1, min(block_samples, _BLOCK_VALUES // link.num_channels))
        with _open_link(self.source, link.location) as file:
            if start:
                with _naming_file(self.name, "is damaged or cut short"):
                    file.seek(start)
            while start < stop:
                with _naming_file(self.name, "is damaged or cut short"):
                    block = file.read(min(max_samples, stop - start), dtype="float32", always_2d=True)
                if not len(block):
                    break
                start += len(block)
                yield block


@contextmanager
def open_audio_file(path: str | os.PathLike[str]) -> Iterator[AudioDecoder]:
    """Open a recording in a file.

    Raises:
        AudioError: no such file, an empty file, a folder or a device; otherwise as `AudioDecoder`.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise AudioError(f"{path}: is a folder; give an audio file")
        if not path.exists():
            raise AudioError(f"{path}: no such file")
        if not path.is_file():
            raise AudioError(f"{path}: is a pipe or a device, which cannot be read twice; write it to a file first")
        source = ByteSource(str(path), path)
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror or error})") from error
    with source:
        if source.size == 0:
            raise AudioError(f"{path}: is an empty file; get a whole copy of it, or leave it out")
        yield AudioDecoder(source)


@contextmanager
def open_audio_bytes(data: bytes, name: str) -> Iterator[AudioDecoder]:
    """Open a recording in memory.

    Args:
        data: the bytes of an audio file.
        name: its name, for messages.

    Raises:
        AudioError: as `AudioDecoder`.
    """
    yield AudioDecoder(ByteSource(name, data=data))


def _examine(source: ByteSource) -> _Examination:
    """Examine a file, or return the cached examination of a file that has not changed since."""
    identity = (*source.identity, chosen_track())
    if source.path is None:
        return _find_links(source)
    with _cache_lock:
        if identity in _cache:
            _cache.move_to_end(identity)
            return _cache[identity]
    examination = _find_links(source)
    if abs(time.time_ns() - source.modified_ns) < _SETTLED_NS:
        return examination
    with _cache_lock:
        _cache[identity] = examination
        while len(_cache) > _CACHE_SIZE:
            _cache.popitem(last=False)
    return examination


def _find_links(source: ByteSource) -> _Examination:
    """Find the links of a file and their lengths.

    Raises:
        AudioError: no link can be decoded, or none has samples.
    """
    if is_media(source):
        return _examine_media(source)
    with _naming_file(source.name, "cannot be read"):
        layout = layout_of(source)
    faults = list(layout.faults)
    links: list[_DecodableLink] = []
    first: AudioInfo | None = None
    unreadable: AudioError | None = None
    undecodable: list[int] = []
    for number, link in enumerate(layout.links, start=1):
        try:
            decodable, about = _measure_link(source, link)
        except AudioError as error:
            unreadable = error
            undecodable.append(number)
            continue
        if decodable.num_samples == 0:
            continue
        first = first or about
        links.append(decodable)
    if first is None:
        if unreadable is not None:
            if not faults and is_installed() and _is_intact(source):
                try:
                    return _examine_media(source)
                except AudioError:
                    raise unreadable from None
            if faults and len(layout.links) == 1:
                raise AudioError(f"{source.name}: {faults[0]}; no sample of it can be decoded") from unreadable
            raise unreadable
        why = f"{faults[0]}, and " if faults else ""
        raise AudioError(f"{source.name}: {why}holds no samples; get a whole copy of it, or leave it out")
    if undecodable:
        faults.append(
            f"holds {len(layout.links)} recordings, of which {len(undecodable)} cannot be decoded, "
            f"number {undecodable[0]} the first"
        )
    total = sum(resampled_length(link.num_samples, link.sample_rate, first.sample_rate) for link in links)
    if len({(link.sample_rate, link.num_channels) for link in links}) > 1:
        kinds = ", ".join(sorted({f"{link.sample_rate} Hz with {link.num_channels} channels" for link in links}))
        faults.append(f"holds recordings of {kinds}; all become as the first")
    about = replace(first, num_samples=total, duration_s=total / first.sample_rate)
    return _Examination(about, tuple(links), layout, tuple(faults))


def _is_intact(source: ByteSource) -> bool:
    """Return whether a file that libsndfile does not read may be one of FFmpeg's: not if it is a damaged wav."""
    head = source.at(0, 16)
    return head[:4] not in (b"RIFF", b"RF64", b"RIFX", b"fLaC", b"FORM") or head[12:16] in (b"fmt ", b"JUNK", b"COMM")


def _examine_media(source: ByteSource) -> _Examination:
    """Examine a file that libsndfile does not read."""
    with _naming_file(source.name, "cannot be read"):
        media = examine_media(source)
    rate = _checked_rate(source.name, media.sample_rate)
    about = AudioInfo(
        rate,
        media.num_channels,
        media.num_samples,
        media.num_samples / rate,
        media.container,
        media.codec,
        media.has_pictures,
    )
    return _Examination(about, (), Layout(), media.faults, media)


def _checked_rate(name: str, rate: int) -> int:
    """Return a sample rate, if it is possible."""
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError(
            f"{name}: has a sample rate of {rate} Hz; {LOWEST_RATE} to {HIGHEST_RATE} Hz are allowed, so "
            "its header is damaged"
        )
    return rate


def _measure_link(source: ByteSource, link: Link) -> tuple[_DecodableLink, AudioInfo]:
    """Return a link with its length; it is decoded only if that is the only way to know it."""
    with _open_link(source, link) as file:
        rate, channels, frames = _checked_rate(source.name, file.samplerate), file.channels, file.frames
        most = source.size * _MAX_SAMPLES_PER_BYTE if link.most_samples is None else link.most_samples
        if link.num_samples is not None:
            frames = link.num_samples
        elif link.is_counted or not 0 <= frames <= most:
            frames = _count_samples(source.name, file, channels)
        about = AudioInfo(rate, channels, frames, frames / rate, file.format, file.subtype)
    return _DecodableLink(link, rate, channels, frames), about


def _count_samples(name: str, file: soundfile.SoundFile, channels: int) -> int:
    """Count the samples by decoding them."""
    count, size = 0, max(1, _BLOCK_VALUES // 8 // channels)
    while True:
        with _naming_file(name, "is damaged or cut short"):
            block = file.read(size, dtype="float32", always_2d=True)
        if not len(block):
            return count
        count += len(block)


@contextmanager
def _open_link(source: ByteSource, link: Link) -> Iterator[soundfile.SoundFile]:
    """Open a link with libsndfile."""
    import soundfile

    target: object
    if link.parts is not None or source.path is None:
        parts = ((0, source.size),) if link.parts is None else link.parts
        target = SplicedFile(source, parts, link.stated_size)
    else:
        target = os.fspath(source.path) if sys.platform == "win32" else os.fsencode(source.path)
    advice = "wav, flac, ogg, opus and mp3 are" + (
        ", and what FFmpeg decodes (m4a, mp4, …)" if is_installed() else f"; for m4a, mp4, webm and others, {INSTALL}"
    )
    with _naming_file(source.name, "is not audio that can be read", advice):
        file = soundfile.SoundFile(target)
    # After each read of a seekable file, soundfile seeks to the expected position. Lossy formats seek inexactly, so the
    # next block would start with wrong samples.
    file.seekable = lambda: False  # type: ignore[method-assign]
    try:
        yield file
    finally:
        with _naming_file(source.name, "is damaged"):
            file.close()


@contextmanager
def _naming_file(name: str, what: str, advice: str = "get a whole copy of it") -> Iterator[None]:
    """Turn any exception of a decoder into one line that names the file."""
    try:
        yield
    except AudioError:
        raise
    except Exception as error:
        why = str(getattr(error, "error_string", error)).strip().rstrip(".") or type(error).__name__
        raise AudioError(f"{name}: {what} ({' '.join(why.split())}); {advice}") from error
