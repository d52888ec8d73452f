"""Extracted voices into files, within full scale, with the rests of the mixture beside them; all of them or none."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wesep_py import audio
from wesep_py.inference.rest import UNBOUNDED, split
from wesep_py.inference.result import subtype_for

if TYPE_CHECKING:
    from wesep_py.inference.voice import Voice

log = logging.getLogger(__name__)

READ_S = 4.0
"""Seconds of a long recording that are read at a time."""

Scaled = Callable[[int, float], Iterator[NDArray[np.float32]]]
"""Called with the number of a voice and its gain: its blocks `[channels, samples]` at the recording's rate."""


@dataclass(frozen=True)
class Wanted:
    """A voice, and where to.

    Attributes:
        name: of the target, for messages and timelines.
        voice: from `Extractor.enroll`.
        output: the file to write.
        rest: the file for the rest of the mixture; `None` for none.
    """

    name: str
    voice: Voice
    output: Path
    rest: Path | None = None


def write_voices(
    mixture: Path,
    about: audio.AudioInfo,
    wanted: Sequence[Wanted],
    scaled: Scaled,
    gains: Sequence[float],
    overwrite: bool = False,
) -> None:
    """Write every voice times its gain (0 for silence), and its rest; the files appear, whole, when all are written.

    Args:
        mixture: the recording.
        about: what its header says.
        wanted: the voices, and where to.
        scaled: what is written of each; called again where a voice may have to be scaled down.
        gains: one a voice; lowered where the format of its file would clip.
        overwrite: replace existing files.

    Raises:
        OutputExistsError, InputError, WesepError: as `audio.AudioWriter`.
    """
    gains = list(gains)
    with ExitStack() as stack:
        writers, rests, altered = [], [], [0] * len(gains)
        for i, one in enumerate(wanted):
            writers.append(writer_for(one.output, about, overwrite))
            rests.append(None if one.rest is None else writer_for(one.rest, about, overwrite))
            gains[i] = _within_full_scale(scaled, i, gains[i], writers[i])
        for writer in (*writers, *rests):
            if writer is not None:
                stack.enter_context(writer)
        voices = [_Taker(scaled(i, gain), about.num_channels) for i, gain in enumerate(gains)]
        for block in audio.read_blocks(mixture, round(READ_S * about.sample_rate)):
            for i, (voice, writer, rest) in enumerate(zip(voices, writers, rests, strict=True)):
                part = voice.take(block.shape[1])
                if rest is not None:
                    part, other, count = split(block, part, writer.subtype)
                    rest.write(other)
                    altered[i] += count
                writer.write(part)
    for one, count in zip(wanted, altered, strict=True):
        if count:
            log.warning("%s: %d samples gave way to keep the rest within full scale", one.output, count)


def writer_for(path: Path, about: audio.AudioInfo, overwrite: bool) -> audio.AudioWriter:
    """What writes a voice of a recording that was `about`; nothing is opened before its `with`.

    Raises:
        AudioError: a format that does not take the recording's rate, channels or length.
    """
    subtype = subtype_for(path, about.format, about.subtype)
    return audio.AudioWriter(path, about.sample_rate, about.num_channels, subtype, overwrite, about.num_samples)


def _within_full_scale(scaled: Scaled, voice: int, gain: float, writer: audio.AudioWriter) -> float:
    """The gain; where the format would clip, so much lower that it does not."""
    if writer.subtype in UNBOUNDED or gain == 0.0:
        return gain
    peak = max(float(np.abs(block).max()) for block in scaled(voice, gain))
    if peak <= 1.0:
        return gain
    log.warning("%s: the voice peaks at %.2f; scaled down to full scale", writer.path, peak)
    return gain / (peak * (1 + 1e-6))


class _Taker:
    """Blocks of one length out of blocks of another; zeros where they end early."""

    def __init__(self, blocks: Iterator[NDArray[np.float32]], num_channels: int) -> None:
        self._blocks, self._rest = blocks, np.zeros((num_channels, 0), np.float32)

    def take(self, count: int) -> NDArray[np.float32]:
        parts, size = [self._rest], self._rest.shape[1]
        while size < count and (block := next(self._blocks, None)) is not None:
            parts.append(block)
            size += block.shape[1]
        joined = np.concatenate(parts, axis=1)
        if size < count:
            joined = np.pad(joined, ((0, 0), (0, count - size)))
        taken, self._rest = joined[:, :count], joined[:, count:]
        return taken
