"""Timelines: segments in which the target speaks, and their files.

They come from the track of a presence head (`timeline_from_presence`), or, for a model without one, from the energy of
the estimate (`timeline_from_energies`); `write_timeline` writes them as RTTM or JSON.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wesep_py.common.errors import InputError
from wesep_py.common.files import write_text
from wesep_py.common.names import printable

TIMELINE_SUFFIXES = (".rttm", ".json")
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
        raise InputError(f"{path}: a timeline is written as {' or '.join(TIMELINE_SUFFIXES)}; name such a file")
    return path


def write_timeline(
    path: str | Path, recording: str, timelines: Sequence[tuple[Timeline, dict[str, Any]]], overwrite: bool = False
) -> None:
    """Write the timelines of the targets of one recording, as RTTM or JSON by the suffix.

    Args:
        path: `.rttm` or `.json`.
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
    else:
        content = {
            "mixture": recording,
            "duration_s": round(timelines[0][0].duration_s, 3) if timelines else None,
            "targets": [{**timeline.as_dict(), **more} for timeline, more in timelines],
        }
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=None) + "\n"
    write_text(path, text, overwrite)


def _field(text: str) -> str:
    """Return text as a field of RTTM, which has no white space."""
    return "_".join(text.split()) or "_"


def _means(track: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """Return the means over blocks of `steps` elements; the last block may be shorter."""
    starts = np.arange(0, len(track), steps)
    if not len(starts):
        return np.zeros(0)
    return np.add.reduceat(track, starts) / np.minimum(steps, len(track) - starts)
