"""When the target speaks: segments from a track of probabilities or from the energy of an estimate, and their files."""

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
"""Shorter pauses are closed first, then shorter segments are left out."""
TRACK_S = 0.1
"""Step of the track in a JSON file."""
# An estimate speaks where it is at most so far below its loud frames, and below the mixture.
RANGE_DB, BELOW_MIXTURE_DB, FLOOR_DB = 35.0, 15.0, -80.0
SMOOTH_S = 0.1


@dataclass(frozen=True)
class SpeechSegment:
    """A stretch in which the target speaks.

    Attributes:
        start_s, end_s: seconds from the beginning of the recording.
        probability: mean over it; `None` where there is no presence head.
    """

    start_s: float
    end_s: float
    probability: float | None = None


@dataclass(frozen=True)
class Timeline:
    """When one target speaks in a recording.

    Attributes:
        target: its name.
        duration_s: of the recording.
        segments: in their order, none overlapping.
        source: what they come from: the presence head, or the energy of the estimate.
        track: `[steps]`, probability of each; `None` without a presence head.
        step_s: seconds from one step to the next.
    """

    target: str
    duration_s: float
    segments: tuple[SpeechSegment, ...]
    source: Literal["presence", "energy"]
    track: NDArray[np.float64] | None = None
    step_s: float = TRACK_S

    def as_dict(self) -> dict[str, Any]:
        """For JSON; the track is averaged to steps of 0.1 s."""
        segments = [
            {"start_s": round(one.start_s, 3), "end_s": round(one.end_s, 3)}
            | ({} if one.probability is None else {"probability": round(one.probability, 4)})
            for one in self.segments
        ]
        track = None
        if self.track is not None:
            steps = max(1, round(TRACK_S / self.step_s))
            track = {"step_s": steps * self.step_s, "probability": _means(self.track, steps).round(4).tolist()}
        spoken_s = sum(one.end_s - one.start_s for one in self.segments)
        return {
            "target": self.target,
            "source": self.source,
            "speech_s": round(spoken_s, 3),
            "segments": segments,
            "track": track,
        }

    def rttm(self, recording: str) -> str:
        """The segments as lines of RTTM (NIST, "The 2009 Rich Transcription evaluation plan", appendix A).

        >>> Timeline("alice", 9.0, (Segment(1.0, 2.5),), "energy").rttm("board meeting")
        'SPEAKER board_meeting 1 1.000 1.500 <NA> <NA> alice <NA> <NA>\\n'
        """
        return "".join(
            f"SPEAKER {_field(recording)} 1 {one.start_s:.3f} {one.end_s - one.start_s:.3f} <NA> <NA> "
            f"{_field(self.target)} <NA> <NA>\n"
            for one in self.segments
        )


def timeline_from_presence(target: str, track: ArrayLike, step_s: float, duration_s: float) -> Timeline:
    """The timeline of a track of probabilities.

    Args:
        target: its name.
        track: `[frames]`, 0 to 1.
        step_s: seconds from one frame to the next.
        duration_s: of the recording; no segment goes beyond.
    """
    values = np.asarray(track, dtype=np.float64)
    spans = find_segments(values, step_s)
    segments = [
        SpeechSegment(a * step_s, min(b * step_s, duration_s), float(values[a:b].mean()))
        for a, b in spans
        if a * step_s < duration_s
    ]
    return Timeline(target, duration_s, tuple(segments), "presence", values, step_s)


def timeline_from_energies(
    target: str, estimate: ArrayLike, mixture: ArrayLike, step_s: float, duration_s: float
) -> Timeline:
    """The timeline of an estimate: where it is neither far below its own loud frames nor far below the mixture.

    Args:
        target: its name.
        estimate, mixture: `[frames]`, mean squares of the samples of each frame, the estimate at the mixture's level.
        step_s: seconds from one frame to the next.
        duration_s: of the recording.
    """
    voice, heard = (10 * np.log10(np.maximum(np.asarray(one, np.float64), 1e-20)) for one in (estimate, mixture))
    loud = float(np.quantile(voice, 0.995)) if len(voice) else FLOOR_DB
    active = (voice >= max(loud - RANGE_DB, FLOOR_DB)) & (voice >= heard - BELOW_MIXTURE_DB)
    width = max(1, round(SMOOTH_S / step_s) // 2 * 2 + 1)
    padded = np.pad(active.astype(np.float64), width // 2, mode="edge" if len(active) else "constant")
    smooth = np.convolve(padded, np.full(width, 1.0 / width), mode="valid") if len(active) else padded[:0]
    spans = find_segments(smooth, step_s)
    segments = [SpeechSegment(a * step_s, min(b * step_s, duration_s)) for a, b in spans if a * step_s < duration_s]
    return Timeline(target, duration_s, tuple(segments), "energy", None, step_s)


def find_segments(track: NDArray[np.float64], step_s: float) -> list[tuple[int, int]]:
    """First and one past the last frame of each segment, by hysteresis and least durations.

    >>> segments_of(np.array([0.1, 0.6, 0.4, 0.4, 0.2, 0.4]), step_s=0.1)
    [(1, 4)]
    """
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
    """Mean squares of frames of so many samples, over the channels of `[channels, samples]` together; the last frame
    may be shorter.

    >>> frame_energies(np.array([[1.0, 1.0, 2.0]]), 2).tolist()
    [1.0, 4.0]
    """
    array = np.asarray(waveform, dtype=np.float64)
    starts = np.arange(0, array.shape[1], frame)
    lengths = np.minimum(frame, array.shape[1] - starts)
    return (np.add.reduceat((array**2).mean(axis=0), starts) / lengths).astype(np.float32)


def check_timeline_suffix(path: Path) -> Path:
    """The path, if a timeline can be written there.

    Raises:
        InputError: another suffix.
    """
    if path.suffix.lower() not in TIMELINE_SUFFIXES:
        raise InputError(f"{path}: a timeline is written as {' or '.join(SUFFIXES)}; name such a file")
    return path


def write_timeline(
    path: str | Path, recording: str, timelines: Sequence[tuple[Timeline, dict[str, Any]]], overwrite: bool = False
) -> None:
    """Write when the targets of one recording speak, as RTTM or JSON by the suffix.

    Args:
        path: `.rttm` or `.json`.
        recording: its path; RTTM holds the name without folder and suffix.
        timelines: of each target, and what JSON says of it besides (its presence).
        overwrite: replace a file that is there.

    Raises:
        InputError: another suffix, a folder that does not exist.
        OutputExistsError: the file is there.
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
    """A field of RTTM holds no white space."""
    return "_".join(text.split()) or "_"


def _means(track: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    starts = np.arange(0, len(track), steps)
    if not len(starts):
        return np.zeros(0)
    return np.add.reduceat(track, starts) / np.minimum(steps, len(track) - starts)
