"""Segments in which a voice speaks, each written to a file of its own, with a list of their times.

    DIR/alice_00012.300-00017.800.wav
    DIR/alice_00021.040-00023.120.wav
    DIR/segments.csv

The voice arrives block by block; each file is written while its samples pass.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wesep_py import audio
from wesep_py.common.errors import InputError
from wesep_py.common.files import path_exists, write_text
from wesep_py.inference.inputs_outputs.timeline import Timeline, csv_text

LIST_NAME = "segments.csv"
COLUMNS = ("file", "target", "start_s", "end_s", "duration_s", "probability", "recording")
# Suffixes of outputs that segments have too; those of a video, and others, are wav files.
_KEPT_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".w64", ".rf64")


class SegmentFile(NamedTuple):
    """File of one segment: first sample, and the sample after the last one."""

    path: Path
    start: int
    stop: int


def segment_suffix(output: Path) -> str:
    """Return the suffix of segment files for the file of the whole voice.

    >>> segment_suffix(Path("alice.flac")), segment_suffix(Path("alice.mp4"))
    ('.flac', '.wav')
    """
    suffix = output.suffix.lower()
    return suffix if suffix in _KEPT_SUFFIXES else ".wav"


def segment_files(
    folder: Path, timeline: Timeline, sample_rate: int, num_samples: int, suffix: str
) -> list[SegmentFile]:
    """Return the files for the segments of a timeline, in order of time.

    Args:
        folder: for the files.
        timeline: of one target.
        sample_rate: of the recording in Hz.
        num_samples: of the recording.
        suffix: of the files.
    """
    files = []
    for segment in timeline.segments:
        start = min(round(segment.start_s * sample_rate), num_samples)
        stop = min(round(segment.end_s * sample_rate), num_samples)
        if stop > start:
            name = f"{timeline.target}_{segment.start_s:09.3f}-{segment.end_s:09.3f}{suffix}"
            files.append(SegmentFile(folder / name, start, stop))
    return files


class SegmentWriter:
    """Writer of the segments of a voice, which is given block by block.

    Args:
        files: in order of time, not overlapping.
        make_writer: returns the writer of a file.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> files = [SegmentFile(folder / "a.wav", 10, 30)]
    >>> writer = SegmentWriter(files, lambda path: audio.AudioWriter(path, 8000, 1))
    >>> for _ in range(2):
    ...     writer.write(np.zeros((1, 20), np.float32))
    >>> audio.info(folder / "a.wav").num_samples
    20
    """

    def __init__(self, files: Sequence[SegmentFile], make_writer: Callable[[Path], audio.AudioWriter]) -> None:
        self._files, self._make_writer = list(files), make_writer
        self._position = 0
        self._open: AbstractContextManager[audio.AudioWriter] | None = None

    def write(self, block: NDArray[np.floating]) -> None:
        """Take the next samples `[channels, samples]` of the whole voice."""
        end = self._position + block.shape[1]
        while self._files and self._files[0].start < end:
            file = self._files[0]
            writer = self._open or self._make_writer(file.path)
            if self._open is None:
                writer.__enter__()
                self._open = writer
            piece = block[:, max(0, file.start - self._position) : file.stop - self._position]
            writer.write(piece)
            if file.stop > end:
                break
            self._files.pop(0)
            self._open = None
            writer.__exit__(None, None, None)
        self._position = end

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        """Remove an unfinished file, after an error."""
        if self._open is not None:
            opened, self._open = self._open, None
            opened.__exit__(kind, error, traceback)


def write_segment_list(
    folder: Path,
    recording: str,
    timelines: Sequence[Timeline],
    files: Sequence[Sequence[SegmentFile]],
    overwrite: bool = False,
) -> None:
    """Write `segments.csv`: one line per segment, in order of time.

    Args:
        folder: for the file.
        recording: its path.
        timelines: of each target.
        files: of each target, from `segment_files`.
        overwrite: replace an existing file.
    """
    rows = []
    for timeline, target_files in zip(timelines, files, strict=True):
        segments = [segment for segment in timeline.segments if segment.start_s < timeline.duration_s]
        for segment, file in zip(segments, target_files, strict=False):
            probability = "" if segment.probability is None else f"{segment.probability:.4f}"
            times = f"{segment.start_s:.3f}", f"{segment.end_s:.3f}", f"{segment.end_s - segment.start_s:.3f}"
            rows.append((file.path.name, timeline.target, *times, probability, recording))
    rows.sort(key=lambda row: (float(row[2]), row[1]))
    write_text(folder / LIST_NAME, csv_text((COLUMNS, *rows)), overwrite)


def listed_files(folder: Path) -> list[Path]:
    """Return the files that the `segments.csv` of an earlier run names, and that still exist.

    Raises:
        InputError: the list is not one of segments.
    """
    path = folder / LIST_NAME
    if not path_exists(path):
        return []
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a list of segments; name another folder") from error
    if not rows or tuple(rows[0]) != COLUMNS:
        raise InputError(f"{path}: is no list of segments of this command; name another folder")
    names = [row[0] for row in rows[1:] if row and "/" not in row[0] and "\\" not in row[0]]
    return [folder / name for name in names if (folder / name).is_file()]


def remove_earlier(earlier: Sequence[Path], files: Sequence[Sequence[SegmentFile]]) -> None:
    """Remove the segment files of an earlier run that were not written again.

    Args:
        earlier: what `listed_files` returned before.
        files: of each voice, the files that were written.
    """
    written = {file.path for voice_files in files for file in voice_files}
    for path in earlier:
        if path not in written:
            path.unlink(missing_ok=True)
