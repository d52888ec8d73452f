"""Writing extracted voices and residuals: sample format, full scale, and all files of a recording or none.

- `ExtractionTarget`: a voice and the files for it.
- `split_mixture`: voice and residual such that, as written, the two sum to the mixture.
- `write_voices`: all voices of a long recording, block by block; a recording in memory is saved by `Result.save`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wesep_py import audio
from wesep_py.audio.writing import can_write
from wesep_py.inference.inputs_outputs.segment_files import SegmentFile, SegmentWriter

if TYPE_CHECKING:
    from wesep_py.inference.enrolling.voice_print import Voice

log = logging.getLogger(__name__)
READ_S = 4.0
"""Seconds of a long recording that are read at a time."""
FLOAT_SUBTYPES = ("FLOAT", "DOUBLE")
"""Sample formats that hold values beyond full scale."""
_BITS = {"PCM_U8": 8, "PCM_S8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
# Containers whose sample format can be chosen, by suffix; others have one format each.
_RIFF = ("WAV", "WAVEX", "RF64", "W64")
_CONTAINERS = {".wav": _RIFF, ".rf64": _RIFF, ".w64": _RIFF, ".flac": ("FLAC",)}
VoiceBlocks = Callable[[int, float], Iterator[NDArray[np.float32]]]
"""Called with the index of a voice and its gain; yields its blocks `[channels, samples]` at the recording's rate."""


@dataclass(frozen=True)
class ExtractionTarget:
    """A voice to extract and the files to write.

    Attributes:
        name: of the target, for messages and timelines.
        voice: from `Extractor.enroll`.
        output: file for the voice.
        residual: file for the mixture without the voice; `None` for none.
    """

    name: str
    voice: Voice
    output: Path
    residual: Path | None = None


def subtype_for(path: str | PathLike[str], file_format: str | None, subtype: str | None) -> str | None:
    """Return the sample format of an output file: the recording's, if the suffix is that of its container.

    Args:
        path: of the output.
        file_format, subtype: container and sample format of the recording; `None` for an array.

    Returns:
        The recording's sample format, or `None` for the default of the container.
    """
    containers = _CONTAINERS.get(Path(path).suffix.lower(), ())
    return subtype if subtype is not None and file_format in containers and can_write(path, subtype) else None


def audio_writer(path: Path, about: audio.AudioInfo, overwrite: bool, mixture: str | Path) -> audio.AudioWriter:
    """Return a writer for a voice extracted from a recording; nothing is written before its `with`.

    Args:
        path: of the output.
        about: header of the recording.
        mixture: the recording; a video output gets its pictures.
        overwrite: replace an existing file.

    Raises:
        AudioError: a format that does not take the recording's rate, channels or length.
    """
    subtype = subtype_for(path, about.format, about.subtype)
    pictures_of = mixture if about.has_pictures else None
    return audio.AudioWriter(
        path, about.sample_rate, about.num_channels, subtype, overwrite, about.num_samples, pictures_of
    )


def segment_writer(files: Sequence[SegmentFile], about: audio.AudioInfo, overwrite: bool) -> SegmentWriter:
    """Return a writer for the segments of a voice, in the sample format of the recording if the container is the same.

    Args:
        files: of the segments.
        about: header of the recording.
        overwrite: replace existing files.
    """

    def make_writer(path: Path) -> audio.AudioWriter:
        subtype = subtype_for(path, about.format, about.subtype)
        return audio.AudioWriter(path, about.sample_rate, about.num_channels, subtype, overwrite)

    return SegmentWriter(files, make_writer)


def split_mixture(
    mixture: NDArray[np.float32], voice: NDArray[np.float32], subtype: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Return a voice as its file will hold it, and the residual: as written, the two sum to the mixture.

    In integer formats the voice is rounded to their steps first, so that the residual of a mixture of the same format
    is exact. If the residual would exceed full scale (possible for a mixture at full scale), these samples of the voice
    are changed instead; float formats hold any value.

    Args:
        mixture: `[channels, samples]`.
        voice: of the same shape, within full scale unless the format is a float format.
        subtype: sample format of both files, as libsndfile names it.

    Returns:
        voice, residual: `[channels, samples]`.
        changed: number of samples of the voice that were changed.

    >>> voice, residual, changed = split_mixture(np.array([[0.5, -1.0]]), np.array([[0.25, 0.5]]), "PCM_16")
    >>> (voice + residual).tolist(), changed
    ([[0.5, -1.0]], 1)
    """
    whole, part = mixture.astype(np.float64), voice.astype(np.float64)
    if subtype in FLOAT_SUBTYPES:
        part = part if subtype == "DOUBLE" else voice.astype(np.float32).astype(np.float64)
        return part, whole - part, 0
    lowest, highest = -1.0, 1.0
    if (bits := _BITS.get(subtype)) is not None:
        # Two's complement: from −1 to one step below 1.
        steps = 2.0 ** (bits - 1)
        highest = 1.0 - 1.0 / steps
        part = np.clip(np.rint(part * steps) / steps, lowest, highest)
    residual = whole - part
    beyond = (residual < lowest) | (residual > highest)
    changed = int(beyond.sum())
    if changed:
        residual = np.clip(residual, lowest, highest)
        part = np.clip(np.where(beyond, whole - residual, part), lowest, highest)
    return part, residual, changed


def write_voices(
    mixture: Path,
    about: audio.AudioInfo,
    targets: Sequence[ExtractionTarget],
    voice_blocks: VoiceBlocks,
    gains: Sequence[float],
    overwrite: bool = False,
    segments: Sequence[Sequence[SegmentFile]] = (),
) -> None:
    """Write every voice times its gain (0 for silence), and its residual, reading the recording once.

    The files are closed, and so appear under their names, when all of them are complete.

    Args:
        mixture: the recording.
        about: its header.
        targets: the voices and their files.
        voice_blocks: blocks of each voice; called once more for a voice that may have to be scaled down.
        gains: one per voice; reduced if the format of its file would clip.
        overwrite: replace existing files.
        segments: files of the segments of each voice; none for no such files.

    Raises:
        OutputExistsError, InputError, WesepError: as `audio.AudioWriter`.
    """
    gains = list(gains)
    segment_writers = [segment_writer(files, about, overwrite) for files in segments or [()] * len(gains)]
    with ExitStack() as stack:
        writers, residual_writers, changed = [], [], [0] * len(gains)
        for i, target in enumerate(targets):
            writers.append(audio_writer(target.output, about, overwrite, mixture))
            residual_writers.append(
                None if target.residual is None else audio_writer(target.residual, about, overwrite, mixture)
            )
            gains[i] = _gain_within_full_scale(voice_blocks, i, gains[i], writers[i])
        for segment in segment_writers:
            stack.enter_context(segment)
        for writer in (*writers, *residual_writers):
            if writer is not None:
                stack.enter_context(writer)
        readers = [_BlockReader(voice_blocks(i, gain), about.num_channels) for i, gain in enumerate(gains)]
        for block in audio.read_blocks(mixture, round(READ_S * about.sample_rate)):
            for i, (reader, writer, residual_writer) in enumerate(zip(readers, writers, residual_writers, strict=True)):
                voice = reader.read(block.shape[1])
                if residual_writer is not None:
                    voice, residual, count = split_mixture(block, voice, writer.subtype)
                    residual_writer.write(residual)
                    changed[i] += count
                writer.write(voice)
                segment_writers[i].write(voice)
    for target, count in zip(targets, changed, strict=True):
        if count:
            log.warning("%s: %d samples were changed to keep the residual within full scale", target.output, count)


def _gain_within_full_scale(voice_blocks: VoiceBlocks, voice: int, gain: float, writer: audio.AudioWriter) -> float:
    """Return the gain; if the format would clip, one that brings the peak to full scale."""
    if writer.subtype in FLOAT_SUBTYPES or gain == 0.0:
        return gain
    peak = max(float(np.abs(block).max()) for block in voice_blocks(voice, gain))
    if peak <= 1.0:
        return gain
    log.warning("%s: the voice peaks at %.2f; scaled down to full scale", writer.path, peak)
    return gain / (peak * (1 + 1e-6))


class _BlockReader:
    """Cut a sequence of blocks `[channels, samples]` into blocks of other lengths, with zeros after its end."""

    def __init__(self, blocks: Iterator[NDArray[np.float32]], num_channels: int) -> None:
        self._blocks, self._remainder = blocks, np.zeros((num_channels, 0), np.float32)

    def read(self, count: int) -> NDArray[np.float32]:
        parts, size = [self._remainder], self._remainder.shape[1]
        while size < count and (block := next(self._blocks, None)) is not None:
            parts.append(block)
            size += block.shape[1]
        joined = np.concatenate(parts, axis=1)
        if size < count:
            joined = np.pad(joined, ((0, 0), (0, count - size)))
        self._remainder = joined[:, count:]
        return joined[:, :count]
