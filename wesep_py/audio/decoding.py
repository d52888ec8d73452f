"""Recordings to samples: the links of a file, decoded one after the other, by libsndfile.

What a header or libsndfile says of the length is compared with what `containers` finds in the file, and with what is
decoded; where only decoding tells, it is decoded. Whatever a decoder raises becomes one line that names the file.
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

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.containers import Layout, Link, Source, Spliced, layout_of
from wesep_py.audio.resample import StreamResampler, resampled_length
from wesep_py.common.errors import AudioError

if TYPE_CHECKING:
    import soundfile


# ----------------------------------------
# What happens with a recording that is not as its header says: a warning, or, strictly, an error.
#
# One setting for a process and those that it starts: the environment variable `WESEP_STRICT`.

logger = logging.getLogger("wesep_py.audio")
VARIABLE = "WESEP_STRICT"
_MOST_TOLD = 1 << 16
_told: set[tuple[object, ...]] = set()
_told_lock = threading.Lock()


def is_strict() -> bool:
    """True if a recording that ends early, or holds more than its header says, is refused."""
    return os.environ.get(VARIABLE, "").lower() not in ("", "0", "false", "no")


@contextmanager
def strict_reading(enabled: bool = True) -> Iterator[None]:
    """Refuse, inside the block, recordings that are not as their headers say; `False` leaves the setting as it is.

    >>> with strict_reading():
    ...     is_strict()
    True
    """
    if not enabled:
        yield
        return
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def tell(name: str, fault: str, identity: tuple[object, ...] = ()) -> None:
    """Warn of what is wrong with a recording, once for each file and fault.

    Args:
        name: of the recording.
        fault: the end of a sentence that begins with the name.
        identity: what tells a file from an earlier one of the same name: its size and time.

    Raises:
        AudioError: `is_strict`.
    """
    if is_strict():
        raise AudioError(f"{name}: {fault}; get a whole copy of the file, or leave out --strict")
    with _told_lock:
        key = (name, fault, *identity)
        if key in _told:
            return
        if len(_told) >= _MOST_TOLD:
            _told.clear()
        _told.add(key)
    logger.warning("%s: %s", name, fault)


Samples = NDArray[np.float32]
LOWEST_RATE, HIGHEST_RATE = 1000, 1_536_000
"""Sample rates in Hz that a recording may have: others are a damaged header, and cost memory when resampled."""
# The length of MPEG audio is told to within the frames of 1152 samples that a decoder needs to begin with.
_MP3_SLACK_SAMPLES = 4 * 1152
_BLOCK_VALUES = 1 << 21
_MOST_REMEMBERED = 512
# A file that was written just now may be written again without its time being another: clocks of files are coarse.
_SETTLED_NS = 2_000_000_000
# No codec makes so many samples of a byte.
_MOST_SAMPLES_A_BYTE = 1 << 17


@dataclass(frozen=True)
class AudioInfo:
    """What a recording is.

    Attributes:
        sample_rate: in Hz.
        num_channels: at least 1.
        num_samples: of each channel.
        duration_s: in seconds.
        format: libsndfile's name of the container: `WAV`, `FLAC`, `OGG`, `MP3`, …
        subtype: libsndfile's name of the sample format: `PCM_16`, `FLOAT`, `OPUS`, …
    """

    sample_rate: int
    num_channels: int
    num_samples: int
    duration_s: float
    format: str
    subtype: str


@dataclass(frozen=True)
class _Stretch:
    """A link, with its own rate, channels and number of samples."""

    link: Link
    sample_rate: int
    num_channels: int
    num_samples: int


@dataclass(frozen=True)
class _Facts:
    """What is known of a file before it is decoded."""

    about: AudioInfo
    stretches: tuple[_Stretch, ...]
    layout: Layout
    faults: tuple[str, ...]


_known: OrderedDict[tuple[object, ...], _Facts] = OrderedDict()
_lock = threading.Lock()


class Recording:
    """One recording that can be decoded.

    Args:
        source: its bytes.

    Raises:
        AudioError: it is no audio, holds no samples, or has an impossible rate; strictly, it is not as its header says.
    """

    def __init__(self, source: Source) -> None:
        self.source, self.name = source, source.name
        self._identity = source.identity
        self._facts = _facts_of(source)
        for fault in self._facts.faults:
            tell(self.name, fault, self._identity)

    @property
    def about(self) -> AudioInfo:
        """What it is."""
        return self._facts.about

    @property
    def is_seekable(self) -> bool:
        """True if decoding can begin at any sample, and gives the samples that it would give from the beginning."""
        about = self.about
        exact = about.subtype in _SEEKABLE and about.format not in ("OGG", "MP3")
        return exact and len(self._facts.stretches) == 1 and not self._facts.layout.faults

    def blocks(self, block_samples: int, start: int = 0, stop: int | None = None) -> Iterator[Samples]:
        """Decode from sample `start` to sample `stop`, or to the end.

        Args:
            block_samples: of each block but the last, at least 1.
            start: first sample.
            stop: the sample after the last.

        Yields:
            float32 `[samples, channels]`.

        Raises:
            AudioError: the recording is damaged; or strictly, it ends early.
        """
        end = self.about.num_samples if stop is None else min(stop, self.about.num_samples)
        if self.is_seekable:
            stretch = self._facts.stretches[0]
            decoded = self._decoded(stretch, block_samples, start, end)
        else:
            decoded = _between(self._joined(block_samples), start, end)
        position = start
        for block in _of_length(decoded, block_samples):
            position += len(block)
            yield block
        self._check_all(position, end)

    def _check_all(self, position: int, end: int) -> None:
        about = self.about
        slack = _MP3_SLACK_SAMPLES if about.format == "MP3" else 0
        if position < end - slack and not self._facts.layout.is_cut:  # which was told already
            missing_s = (end - position) / about.sample_rate
            tell(
                self.name,
                f"is damaged or cut short: {about.num_samples} samples are in it and only {position} could be decoded "
                f"({missing_s:.3f} s of {about.duration_s:.3f} s is missing)",
                self._identity,
            )

    def _joined(self, block_samples: int) -> Iterator[Samples]:
        """All links at the rate and with the channels of the first."""
        about = self.about
        for stretch in self._facts.stretches:
            blocks = self._decoded(stretch, block_samples, 0, stretch.num_samples)
            if stretch.num_channels != about.num_channels:
                blocks = (_with_channels(block, about.num_channels) for block in blocks)
            if stretch.sample_rate != about.sample_rate:
                blocks = _resampled(blocks, stretch.sample_rate, about.sample_rate, about.num_channels)
            yield from blocks

    def _decoded(self, stretch: _Stretch, block_samples: int, start: int, stop: int) -> Iterator[Samples]:
        most = max(1, min(block_samples, _BLOCK_VALUES // stretch.num_channels))
        with _opened(self.source, stretch.link) as file:
            if start:
                with _named(self.name, "is damaged or cut short"):
                    file.seek(start)
            while start < stop:
                with _named(self.name, "is damaged or cut short"):
                    block = file.read(min(most, stop - start), dtype="float32", always_2d=True)
                if not len(block):
                    break
                start += len(block)
                yield block


# Subtypes in which any sample can be reached exactly without decoding what comes before it.
_SEEKABLE = {"PCM_U8", "PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"}


@contextmanager
def opened_file(path: str | os.PathLike[str]) -> Iterator[Recording]:
    """Open a recording in a file.

    Raises:
        AudioError: no such file, an empty file, a folder or a device; as `Recording`.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise AudioError(f"{path}: is a folder; give an audio file")
        if not path.exists():
            raise AudioError(f"{path}: no such file")
        if not path.is_file():
            raise AudioError(f"{path}: is a pipe or a device, which cannot be read twice; write it to a file first")
        source = Source(str(path), path)
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror or error})") from error
    with source:
        if source.size == 0:
            raise AudioError(f"{path}: is an empty file; get a whole copy of it, or leave it out")
        yield Recording(source)


@contextmanager
def opened_bytes(data: bytes, name: str) -> Iterator[Recording]:
    """Open a recording in memory.

    Args:
        data: the bytes of an audio file.
        name: what it is, for messages.

    Raises:
        AudioError: as `Recording`.
    """
    yield Recording(Source(name, data=data))


def _facts_of(source: Source) -> _Facts:
    identity = source.identity
    if source.path is None:
        return _examined(source)
    with _lock:
        if identity in _known:
            _known.move_to_end(identity)
            return _known[identity]
    facts = _examined(source)
    if abs(time.time_ns() - source.modified_ns) < _SETTLED_NS:
        return facts
    with _lock:
        _known[identity] = facts
        while len(_known) > _MOST_REMEMBERED:
            _known.popitem(last=False)
    return facts


def _examined(source: Source) -> _Facts:
    """What a file is: its links, and how long they are.

    Raises:
        AudioError: none of them can be decoded, or none holds samples.
    """
    with _named(source.name, "cannot be read"):
        layout = layout_of(source)
    faults = list(layout.faults)
    stretches: list[_Stretch] = []
    first: AudioInfo | None = None
    unreadable: AudioError | None = None
    lost: list[int] = []
    for number, link in enumerate(layout.links, start=1):
        try:
            stretch, about = _measured(source, link)
        except AudioError as error:
            unreadable = error
            lost.append(number)
            continue
        if stretch.num_samples == 0:
            continue
        first = first or about
        stretches.append(stretch)
    if first is None:
        if unreadable is not None:
            if faults and len(layout.links) == 1:
                raise AudioError(f"{source.name}: {faults[0]}; nothing of it can be decoded") from unreadable
            raise unreadable
        why = f"{faults[0]}, and " if faults else ""
        raise AudioError(f"{source.name}: {why}holds no samples; get a whole copy of it, or leave it out")
    if lost:
        faults.append(
            f"holds {len(layout.links)} recordings, of which {len(lost)} cannot be decoded, number {lost[0]} the first"
        )
    total = sum(resampled_length(one.num_samples, one.sample_rate, first.sample_rate) for one in stretches)
    if len({(one.sample_rate, one.num_channels) for one in stretches}) > 1:
        kinds = ", ".join(sorted({f"{one.sample_rate} Hz with {one.num_channels} channels" for one in stretches}))
        faults.append(f"holds recordings of {kinds}; all become as the first")
    about = replace(first, num_samples=total, duration_s=total / first.sample_rate)
    return _Facts(about, tuple(stretches), layout, tuple(faults))


def _measured(source: Source, link: Link) -> tuple[_Stretch, AudioInfo]:
    """A link with its length; decoded where only that tells."""
    with _opened(source, link) as file:
        rate, channels, frames = file.samplerate, file.channels, file.frames
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise AudioError(
                f"{source.name}: has a sample rate of {rate} Hz; {LOWEST_RATE} to {HIGHEST_RATE} Hz are allowed, so "
                "its header is damaged"
            )
        most = source.size * _MOST_SAMPLES_A_BYTE if link.most_samples is None else link.most_samples
        if link.num_samples is not None:
            frames = link.num_samples
        elif link.is_counted or not 0 <= frames <= most:
            frames = _counted(source.name, file, channels)
        about = AudioInfo(rate, channels, frames, frames / rate, file.format, file.subtype)
    return _Stretch(link, rate, channels, frames), about


def _counted(name: str, file: soundfile.SoundFile, channels: int) -> int:
    """The number of samples by decoding them."""
    count, size = 0, max(1, _BLOCK_VALUES // 8 // channels)
    while True:
        with _named(name, "is damaged or cut short"):
            block = file.read(size, dtype="float32", always_2d=True)
        if not len(block):
            return count
        count += len(block)


@contextmanager
def _opened(source: Source, link: Link) -> Iterator[soundfile.SoundFile]:
    """A link as libsndfile sees it."""
    import soundfile

    target: object
    if link.parts is not None or source.path is None:
        parts = ((0, source.size),) if link.parts is None else link.parts
        target = Spliced(source, parts, link.stated_size)
    else:
        target = os.fspath(source.path) if sys.platform == "win32" else os.fsencode(source.path)
    with _named(source.name, "is not audio that can be read", "wav, flac, ogg, opus and mp3 are; convert others, for "
                "example with ffmpeg"):  # fmt: skip
        file = soundfile.SoundFile(target)
    # soundfile seeks after each read of a file that says it can, and lossy formats seek inexactly: the block after
    # would start with wrong samples.
    file.seekable = lambda: False  # type: ignore[method-assign]
    try:
        yield file
    finally:
        with _named(source.name, "is damaged"):
            file.close()


@contextmanager
def _named(name: str, what: str, advice: str = "get a whole copy of it") -> Iterator[None]:
    """Whatever a decoder raises, as one line that names the file."""
    try:
        yield
    except AudioError:
        raise
    except Exception as error:
        why = str(getattr(error, "error_string", error)).strip().rstrip(".") or type(error).__name__
        raise AudioError(f"{name}: {what} ({' '.join(why.split())}); {advice}") from error


def _between(blocks: Iterator[Samples], start: int, stop: int) -> Iterator[Samples]:
    position = 0
    for block in blocks:
        piece = block[max(0, start - position) : max(0, stop - position)]
        position += len(block)
        if len(piece):
            yield piece
        if position >= stop:
            return


def _of_length(blocks: Iterator[Samples], length: int) -> Iterator[Samples]:
    """The same samples in blocks of one length, but for the last."""
    kept: list[Samples] = []
    size = 0
    for block in blocks:
        while len(block):
            piece, block = block[: length - size], block[length - size :]
            kept.append(piece)
            size += len(piece)
            if size == length:
                yield kept[0] if len(kept) == 1 else np.concatenate(kept)
                kept, size = [], 0
    if kept:
        yield kept[0] if len(kept) == 1 else np.concatenate(kept)


def _with_channels(block: Samples, count: int) -> Samples:
    mono = block if block.shape[1] == 1 else block.mean(axis=1, keepdims=True)
    return np.repeat(mono, count, axis=1)


def _resampled(blocks: Iterator[Samples], from_rate: int, to_rate: int, channels: int) -> Iterator[Samples]:
    stream = StreamResampler(from_rate, to_rate, channels)
    for block in blocks:
        if len(out := stream.push(np.ascontiguousarray(block.T)).T):
            yield out
    if len(out := stream.finish().T):
        yield out
