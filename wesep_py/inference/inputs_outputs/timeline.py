"""Timelines: segments in which the target speaks, and their files.

They come from the track of a presence head (`timeline_from_presence`), or, for a model without one, from the energy of
the estimate (`timeline_from_energies`); `write_timeline` writes them as RTTM, JSON, CSV, subtitles (SubRip, WebVTT) or
labels of Audacity.
"""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wesep_py.common.errors import InputError
from wesep_py.common.files import write_text
from wesep_py.common.names import printable

TIMELINE_SUFFIXES = (".rttm", ".json", ".csv", ".srt", ".vtt", ".txt")
ONSET, OFFSET = 0.5, 0.35
"""A segment begins where the track reaches the first, and ends where it falls below the second."""
MIN_SEGMENT_S, MIN_PAUSE_S = 0.2, 0.3
"""Shorter pauses are closed first, then shorter segments are removed."""
TRACK_S = 0.1
"""Step of the track in a JSON file, in seconds."""
# An estimate speaks where it is at most this far below its own loud frames, and below the mixture.
RANGE_DB, BELOW_MIXTURE_DB, FLOOR_DB = 35.0, 15.0, -80.0
# Length over which these decisions are smoothed, in seconds.
SMOOTH_S = 0.1


@dataclass(frozen=True)
class SpeechSegment:
    """Segment in which the target speaks.

    Attributes:
        start_s, end_s: seconds from the beginning of the recording.
        probability: mean over the segment; `None` without a presence head.
    """

    start_s: float
    end_s: float
    probability: float | None = None


@dataclass(frozen=True)
class Timeline:
    """Segments in which one target speaks in a recording.

    Attributes:
        target: its name.
        duration_s: of the recording.
        segments: in order of time, not overlapping.
        source: where they come from: the presence head, or the energy of the estimate.
        track: `[steps]`, probability in each; `None` without a presence head.
        step_s: seconds from one step to the next.
    """

    target: str
    duration_s: float
    segments: tuple[SpeechSegment, ...]
    source: Literal["presence", "energy"]
    track: NDArray[np.float64] | None = None
    step_s: float = TRACK_S

    def as_dict(self) -> dict[str, Any]:
        """Return the timeline for JSON, with the track averaged to steps of 0.1 s."""
        segments = [
            {"start_s": round(segment.start_s, 3), "end_s": round(segment.end_s, 3)}
            | ({} if segment.probability is None else {"probability": round(segment.probability, 4)})
            for segment in self.segments
        ]
        track = None
        if self.track is not None:
            steps = max(1, round(TRACK_S / self.step_s))
            track = {"step_s": steps * self.step_s, "probability": _means(self.track, steps).round(4).tolist()}
        speech_s = sum(segment.end_s - segment.start_s for segment in self.segments)
        return {
            "target": self.target,
            "source": self.source,
            "speech_s": round(speech_s, 3),
            "segments": segments,
            "track": track,
        }

    def rttm(self, recording: str) -> str:
        """Return the segments as lines of RTTM (NIST, "The 2009 Rich Transcription evaluation plan", appendix A).

        >>> Timeline("alice", 9.0, (SpeechSegment(1.0, 2.5),), "energy").rttm("board meeting")
        'SPEAKER board_meeting 1 1.000 1.500 <NA> <NA> alice <NA> <NA>\\n'
        """
        return "".join(
            f"SPEAKER {_field(recording)} 1 {segment.start_s:.3f} {segment.end_s - segment.start_s:.3f} <NA> <NA> "
            f"{_field(self.target)} <NA> <NA>\n"
            for segment in self.segments
        )


def timeline_from_presence(target: str, track: ArrayLike, step_s: float, duration_s: float) -> Timeline:
    """Return the timeline of a track of probabilities.

    Args:
        target: its name.
        track: `[frames]`, 0 to 1.
        step_s: seconds from one frame to the next.
        duration_s: of the recording; no segment goes beyond.
    """
    values = np.asarray(track, dtype=np.float64)
    segments = tuple(
        SpeechSegment(start * step_s, min(end * step_s, duration_s), float(values[start:end].mean()))
        for start, end in find_segments(values, step_s)
        if start * step_s < duration_s
    )
    return Timeline(target, duration_s, segments, "presence", values, step_s)


def timeline_from_energies(
    target: str, estimate: ArrayLike, mixture: ArrayLike, step_s: float, duration_s: float
) -> Timeline:
    """Return the timeline of an estimate: where it is neither far below its loud frames nor far below the mixture.

    Args:
        target: its name.
        estimate, mixture: `[frames]`, mean squares of the samples of each frame, the estimate at the mixture's level.
        step_s: seconds from one frame to the next.
        duration_s: of the recording.
    """
    energies = (np.maximum(np.asarray(energy, np.float64), 1e-20) for energy in (estimate, mixture))
    voice_db, mixture_db = (10 * np.log10(energy) for energy in energies)
    loud_db = float(np.quantile(voice_db, 0.995)) if len(voice_db) else FLOOR_DB
    active = (voice_db >= max(loud_db - RANGE_DB, FLOOR_DB)) & (voice_db >= mixture_db - BELOW_MIXTURE_DB)
    # A moving average over an odd number of frames makes a track between 0 and 1 of the decisions.
    width = max(1, round(SMOOTH_S / step_s) // 2 * 2 + 1)
    padded = np.pad(active.astype(np.float64), width // 2, mode="edge" if len(active) else "constant")
    track = np.convolve(padded, np.full(width, 1.0 / width), mode="valid") if len(active) else padded[:0]
    segments = tuple(
        SpeechSegment(start * step_s, min(end * step_s, duration_s))
        for start, end in find_segments(track, step_s)
        if start * step_s < duration_s
    )
    return Timeline(target, duration_s, segments, "energy", None, step_s)


def find_segments(track: NDArray[np.float64], step_s: float) -> list[tuple[int, int]]:
    """Return the first frame of each segment and the one after its last, by hysteresis and minimum durations.

    >>> find_segments(np.array([0.1, 0.6, 0.4, 0.4, 0.2, 0.4]), step_s=0.1)
    [(1, 4)]
    """
    # Hysteresis: each run of frames from OFFSET up counts from its first frame at ONSET on, if it has one.
    #
    #   ONSET  - - - - - -╱‾╲- - - - - - - - -
    #   OFFSET - - -╱‾‾‾‾╱ - ╲__ - - ╱‾╲- - - -
    #                    |=======|              the second run never reaches ONSET
    spans: list[tuple[int, int]] = []
    above = track >= OFFSET
    edges = np.flatnonzero(np.diff(np.concatenate([[False], above, [False]]).astype(np.int8)))
    for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        reached = np.flatnonzero(track[begin:end] >= ONSET)
        if len(reached):
            spans.append((begin + int(reached[0]), end))
    joined: list[tuple[int, int]] = []
    for begin, end in spans:
        if joined and (begin - joined[-1][1]) * step_s < MIN_PAUSE_S - 1e-9:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((begin, end))
    return [(begin, end) for begin, end in joined if (end - begin) * step_s >= MIN_SEGMENT_S - 1e-9]


def frame_energies(waveform: ArrayLike, frame: int) -> NDArray[np.float32]:
    """Return the mean squares of frames of `frame` samples, over all channels of `[channels, samples]` together.

    The last frame may be shorter.

    >>> frame_energies(np.array([[1.0, 1.0, 2.0]]), 2).tolist()
    [1.0, 4.0]
    """
    array = np.asarray(waveform, dtype=np.float64)
    starts = np.arange(0, array.shape[1], frame)
    lengths = np.minimum(frame, array.shape[1] - starts)
    return (np.add.reduceat((array**2).mean(axis=0), starts) / lengths).astype(np.float32)


def check_timeline_suffix(path: Path) -> Path:
    """Return the path, if a timeline can be written there.

    Raises:
        InputError: another suffix.
    """
    if path.suffix.lower() not in TIMELINE_SUFFIXES:
        raise InputError(f"{path}: a timeline is written as {', '.join(TIMELINE_SUFFIXES)}; name such a file")
    return path


def write_timeline(
    path: str | Path, recording: str, timelines: Sequence[tuple[Timeline, dict[str, Any]]], overwrite: bool = False
) -> None:
    """Write the timelines of the targets of one recording, in the format of the suffix.

    Args:
        path: `.rttm`, `.json`, `.csv`, `.srt` (SubRip), `.vtt` (WebVTT) or `.txt` (labels of Audacity).
        recording: its path; RTTM has its name without folder and suffix.
        timelines: of each target, with further values for JSON (its presence).
        overwrite: replace an existing file.

    Raises:
        InputError: another suffix, a folder that does not exist.
        OutputExistsError: the file exists.
    """
    path = check_timeline_suffix(Path(path))
    if path.suffix.lower() == ".rttm":
        text = "".join(timeline.rttm(printable(Path(recording).stem)) for timeline, _ in timelines)
    elif path.suffix.lower() in _TEXTS:
        text = _TEXTS[path.suffix.lower()](_by_time([timeline for timeline, _ in timelines]))
    else:
        content = {
            "mixture": recording,
            "duration_s": round(timelines[0][0].duration_s, 3) if timelines else None,
            "targets": [{**timeline.as_dict(), **more} for timeline, more in timelines],
        }
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=None) + "\n"
    write_text(path, text, overwrite)


def _by_time(timelines: Sequence[Timeline]) -> list[tuple[str, SpeechSegment]]:
    """Return target and segment of all timelines, in order of time."""
    entries = [(printable(timeline.target), segment) for timeline in timelines for segment in timeline.segments]
    return sorted(entries, key=lambda entry: (entry[1].start_s, entry[1].end_s, entry[0]))


def as_srt(entries: Sequence[tuple[str, SpeechSegment]]) -> str:
    """Return segments as SubRip subtitles, each with the name of its target.

    >>> as_srt([("alice", SpeechSegment(1.0, 62.5))])
    '1\\n00:00:01,000 --> 00:01:02,500\\nalice\\n\\n'
    """
    return "".join(
        f"{number}\n{_clock(segment.start_s, ',')} --> {_clock(segment.end_s, ',')}\n{target}\n\n"
        for number, (target, segment) in enumerate(entries, start=1)
    )


def as_vtt(entries: Sequence[tuple[str, SpeechSegment]]) -> str:
    """Return segments as WebVTT (W3C, "WebVTT: The Web Video Text Tracks Format"), with voice tags."""
    cues = "".join(
        f"{_clock(segment.start_s, '.')} --> {_clock(segment.end_s, '.')}\n<v {name}>{name}\n\n"
        for name, segment in ((html.escape(target, quote=False), segment) for target, segment in entries)
    )
    return f"WEBVTT\n\n{cues}"


def as_labels(entries: Sequence[tuple[str, SpeechSegment]]) -> str:
    """Return segments as a label track of Audacity: start, end and text, separated by tabs.

    >>> as_labels([("alice", SpeechSegment(1.0, 2.5))])
    '1.000000\\t2.500000\\talice\\n'
    """
    return "".join(f"{segment.start_s:.6f}\t{segment.end_s:.6f}\t{target}\n" for target, segment in entries)


def as_csv(entries: Sequence[tuple[str, SpeechSegment]]) -> str:
    """Return segments as CSV: target, start, end and duration in seconds, and the probability if there is one."""
    rows = [("target", "start_s", "end_s", "duration_s", "probability")]
    for target, segment in entries:
        probability = "" if segment.probability is None else f"{segment.probability:.4f}"
        start_s, end_s = segment.start_s, segment.end_s
        rows.append((target, f"{start_s:.3f}", f"{end_s:.3f}", f"{end_s - start_s:.3f}", probability))
    return csv_text(rows)


def csv_text(rows: Iterable[Sequence[str]]) -> str:
    """Return rows as CSV.

    >>> csv_text([("a", "b,c")])
    'a,"b,c"\\n'
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


_TEXTS = {".srt": as_srt, ".vtt": as_vtt, ".txt": as_labels, ".csv": as_csv}


def _clock(time_s: float, point: str) -> str:
    """Return a time as `01:02:03.500`."""
    thousandths = round(time_s * 1000)
    seconds, thousandths = divmod(thousandths, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{point}{thousandths:03d}"


def _field(text: str) -> str:
    """Return text as a field of RTTM, which has no white space."""
    return "_".join(text.split()) or "_"


def _means(track: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """Return the means over blocks of `steps` elements; the last block may be shorter."""
    starts = np.arange(0, len(track), steps)
    if not len(starts):
        return np.zeros(0)
    return np.add.reduceat(track, starts) / np.minimum(steps, len(track) - starts)
