"""The best of a long enrollment: where in it most is spoken, found block by block, and cut out.

```
file ─► blocks ─► levels of frames of 20 ms ─► which are speech ─► the segments with the most of them, in their order
```

A print does not get better by an hour of speech, but memory and time grow with it. So at most 30 s enter a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from wesep_py import audio
from wesep_py.audio.level import gain_to_db
from wesep_py.audio.streams import Stretch
from wesep_py.errors import InputError
from wesep_py.inference.activity import FRAME_S, VAD, audible, close_gaps, speech_frames, speech_mask
from wesep_py.inference.sources import Recording, Source, read_enrollment, stretch_of

MAX_ENROLLMENT_S = 30.0
"""Seconds of all recordings of a voice together that enter the network."""
LEAST_ENROLLMENT_S = 1.0
"""A lower limit than this says too little of a voice."""
# Segments that are chosen are about so long: several breaths of words; of many recordings each gives at least this.
SEGMENT_S = 3.0
LEAST_SHARE_S = 2.0
BLOCK_S = 60.0
# Where a segment is cut out of speech it fades, so that no click is heard as a voice.
FADE_S = 0.005

Block = NDArray[np.float32]


@dataclass(frozen=True)
class Listed:
    """An enrollment recording of which only the header was read.

    Attributes:
        source: what was given; of an array, the checked `Recording`.
        name: for messages.
        sample_rate: its own, in Hz.
        duration_s: as its header says.
        blocks: called with a number of samples, reads it in blocks `[channels, samples]`.
    """

    source: Source
    name: str
    sample_rate: int
    duration_s: float
    blocks: Callable[[int], Iterator[Block]]


@dataclass(frozen=True)
class Scan:
    """Where somebody speaks in a recording.

    Attributes:
        listed: the recording.
        num_samples: of it, as decoded.
        channel: the loudest.
        speech: `[frames]`, true where somebody speaks in that channel.
    """

    listed: Listed
    num_samples: int
    channel: int
    speech: NDArray[np.bool_]

    @property
    def duration_s(self) -> float:
        """Seconds of the recording."""
        return self.num_samples / self.listed.sample_rate

    @property
    def speech_s(self) -> float:
        """Seconds of speech."""
        return FRAME_S * float(self.speech.sum())


def check_limit(max_s: float) -> float:
    """Return the limit, if it is allowed.

    Raises:
        InputError: it is below 1 s, or no number.
    """
    if isinstance(max_s, bool) or not isinstance(max_s, (int, float)) or not max_s >= LEAST_ENROLLMENT_S:
        raise InputError(
            f"max_enrollment_s: is {max_s!r}; {LEAST_ENROLLMENT_S:g} s or more of the enrollment is needed, "
            f"{MAX_ENROLLMENT_S:g} s is usual"
        )
    return float(max_s)


def listed(source: Source, number: int) -> Listed:
    """Read the header of an enrollment recording.

    Args:
        source: a path, also of a stretch (`meeting.wav@12.3-17.8`), or a pair `(waveform, sample_rate)`.
        number: which one of the enrollment it is, from 1 on; names what has no file.

    Raises:
        AudioError, InputError: as `read_enrollment`.
    """
    if isinstance(source, (str, PathLike)):
        stretch = stretch_of(source)
        about = audio.info(source if stretch is None else stretch.path)
        rate, path = about.sample_rate, source if stretch is None else stretch.path
        if stretch is None:
            return Listed(source, str(source), rate, about.duration_s, lambda size: audio.read_blocks(path, size))
        if stretch.stop_s <= about.duration_s:
            length_s = stretch.stop_s - stretch.start_s
            return Listed(source, str(source), rate, length_s, lambda size: _stretch_blocks(stretch, rate, size))
    # An array; or a stretch past the end, of which reading it says what is wrong.
    recording = read_enrollment(source)
    name = f"recording {number}" if recording.file_format is None else recording.name
    return Listed(recording, name, recording.sample_rate, recording.duration_s, lambda size: _slices(recording, size))


def scan(recording: Listed, vad: VAD = "energy") -> Scan:
    """Read a recording block by block: its loudest channel, and where in it somebody speaks.

    What lies below speech, which is not heard, does not count.

    Raises:
        AudioError: it is damaged.
        InputError: no such `vad`.
    """
    frame = max(1, round(FRAME_S * recording.sample_rate))
    size = frame * round(BLOCK_S / FRAME_S)
    squares, num_samples = [], 0
    for block in recording.blocks(size):
        heard = audible(block, recording.sample_rate).astype(np.float64)
        starts = np.arange(0, heard.shape[1], frame)
        squares.append(np.add.reduceat(heard**2, starts, axis=1) / np.minimum(frame, heard.shape[1] - starts))
        num_samples += block.shape[1]
    levels = np.concatenate(squares, axis=1)
    channel = int(levels.sum(axis=1).argmax())
    if vad == "energy":
        speech = close_gaps(speech_frames(gain_to_db(np.sqrt(levels[channel]))), FRAME_S)
    else:
        rate = recording.sample_rate
        masks = (speech_mask(audible(block[channel], rate), rate, vad) for block in recording.blocks(size))
        speech = np.concatenate([np.logical_or.reduceat(mask, np.arange(0, len(mask), frame)) for mask in masks])
    return Scan(recording, num_samples, channel, speech)


def allot(scans: Sequence[Scan], max_s: float = MAX_ENROLLMENT_S) -> list[float]:
    """Divide the limit among recordings.

    All get the same; what a short one has no need of, the others share. Where that would be less than 2 s each, the
    recordings with the most speech get 2 s, and the others nothing.

    Returns:
        Seconds, of a recording that enters whole its duration, of one that is left out 0.
    """
    most = max(1, int(max_s / LEAST_SHARE_S))
    order = sorted(range(len(scans)), key=lambda i: (-min(scans[i].speech_s, max_s), i))
    chosen = sorted(order[:most], key=lambda i: scans[i].duration_s)
    shares, left_s = [0.0] * len(scans), max_s
    for position, i in enumerate(chosen):
        shares[i] = min(scans[i].duration_s, left_s / (len(chosen) - position))
        left_s -= shares[i]
    return shares


def spans(scanned: Scan, share_s: float) -> list[tuple[int, int]]:
    """Choose the segments with the most speech: about 3 s long, of two alike the earlier, in their order.

    Args:
        scanned: the recording.
        share_s: seconds of all of them together, less than it lasts.

    Returns:
        First sample and the one after the last, at the recording's own rate; neighbours are joined.
    """
    frame = max(1, round(FRAME_S * scanned.listed.sample_rate))
    count = max(1, round(share_s / SEGMENT_S))
    size = max(1, int(share_s / count / FRAME_S + 1e-6))
    starts = np.arange(0, max(1, len(scanned.speech) - size + 1), size)
    before = np.concatenate([[0], np.cumsum(scanned.speech)])
    spoken = before[np.minimum(starts + size, len(scanned.speech))] - before[starts]
    best = np.sort(np.argsort(-spoken, kind="stable")[:count])
    joined: list[tuple[int, int]] = []
    for start in starts[best] * frame:
        stop = min(int(start) + size * frame, scanned.num_samples)
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((int(start), stop))
    return joined


def cut(scanned: Scan, segments: Sequence[tuple[int, int]]) -> list[Block]:
    """Cut segments `[samples]` out of the loudest channel, at the recording's rate; they fade where they are cut."""
    parts: list[list[Block]] = [[] for _ in segments]
    position = 0
    for block in scanned.listed.blocks(round(BLOCK_S * scanned.listed.sample_rate)):
        end = position + block.shape[1]
        for part, (start, stop) in zip(parts, segments, strict=True):
            if start < end and stop > position:
                part.append(block[scanned.channel, max(0, start - position) : stop - position].copy())
        position = end
        if position >= segments[-1][1]:
            break
    return [
        _faded(np.concatenate(part), scanned.listed.sample_rate, start > 0, stop < scanned.num_samples)
        for part, (start, stop) in zip(parts, segments, strict=True)
    ]


def _faded(samples: Block, sample_rate: int, beginning: bool, end: bool) -> Block:
    size = min(len(samples) // 2, round(FADE_S * sample_rate))
    # To and from the segment's own constant, if it has one, which is removed later.
    level = samples.mean(dtype=np.float64).astype(np.float32)
    ramp = (0.5 - 0.5 * np.cos(np.pi * (np.arange(size) + 0.5) / max(1, size))).astype(np.float32)
    if beginning:
        samples[:size] = level + (samples[:size] - level) * ramp
    if end and size:
        samples[-size:] = level + (samples[-size:] - level) * ramp[::-1]
    return samples


def _slices(recording: Recording, size: int) -> Iterator[Block]:
    for start in range(0, recording.num_samples, size):
        yield recording.waveform[:, start : start + size]


def _stretch_blocks(stretch: Stretch, sample_rate: int, size: int) -> Iterator[Block]:
    """Read the blocks of a stretch, cut as `read_stretch` cuts it."""
    start, stop = (int(np.floor(at_s * sample_rate + 0.5)) for at_s in (stretch.start_s, stretch.stop_s))
    position = 0
    for block in audio.read_blocks(stretch.path, size):
        part = block[:, max(0, start - position) : max(0, stop - position)]
        if part.shape[1]:
            yield part
        position += block.shape[1]
        if position >= stop:
            return
