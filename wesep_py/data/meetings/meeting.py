"""Who says what, and when, in the recording of a conversation; intervals of time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

Interval = tuple[float, float]
"""Start and end in seconds."""
PAUSE_S = 0.2
"""Shorter pauses of a speaker count as speech."""
OWN_PAUSE_S = 1.0
"""Longest pause of a speaker in a part that is said alone."""


@dataclass(frozen=True)
class SpokenSegment:
    """A segment of speech of one speaker without a pause: a word or an utterance.

    Attributes:
        speaker_id: who speaks.
        start_s, end_s: in seconds from the start of the recording.
        text: what is said; empty where it is not known.
    """

    speaker_id: str
    start_s: float
    end_s: float
    text: str = ""

    @property
    def middle_s(self) -> float:
        """Middle of the segment in seconds; its text belongs to the window in which this lies."""
        return (self.start_s + self.end_s) / 2


@dataclass(frozen=True)
class Meeting:
    """The recording of a conversation, and what is said in it.

    Attributes:
        meeting_id: its name.
        path: the recording.
        duration_s: of the recording, in seconds.
        spoken: what is said, in any order.
        activity: when each speaker speaks, by speaker; empty: when `spoken` says so.
        groups: by which results are broken down.
    """

    meeting_id: str
    path: Path
    duration_s: float
    spoken: Sequence[SpokenSegment]
    activity: Mapping[str, Sequence[Interval]] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def speech(self) -> dict[str, list[Interval]]:
        """When each speaker speaks, sorted by speaker, without pauses shorter than `PAUSE_S`."""
        intervals: dict[str, list[Interval]] = {}
        if self.activity:
            intervals = {speaker_id: list(times) for speaker_id, times in self.activity.items()}
        else:
            for segment in self.spoken:
                intervals.setdefault(segment.speaker_id, []).append((segment.start_s, segment.end_s))
        return {name: merged(clipped(intervals[name], 0.0, self.duration_s), PAUSE_S) for name in sorted(intervals)}

    @cached_property
    def alone(self) -> dict[str, list[Interval]]:
        """When each speaker, and nobody else, speaks, with own pauses of at most `OWN_PAUSE_S`."""
        return {
            name: without(
                merged(self.speech[name], OWN_PAUSE_S),
                [interval for other, intervals in self.speech.items() if other != name for interval in intervals],
            )
            for name in self.speech
        }

    @cached_property
    def spoken_by(self) -> dict[str, list[SpokenSegment]]:
        """The segments of each speaker, in order of time."""
        segments: dict[str, list[SpokenSegment]] = {}
        for segment in sorted(self.spoken, key=lambda segment: segment.start_s):
            segments.setdefault(segment.speaker_id, []).append(segment)
        return segments


def merged(intervals: Iterable[Interval], pause_s: float = 0.0) -> list[Interval]:
    """Return the intervals in their order in time; those at most `pause_s` apart become one.

    >>> merged([(2.0, 3.0), (0.0, 1.0), (1.1, 1.5)], 0.2)
    [(0.0, 1.5), (2.0, 3.0)]
    """
    result: list[Interval] = []
    for start_s, end_s in sorted(intervals):
        if result and start_s - result[-1][1] <= pause_s:
            result[-1] = result[-1][0], max(result[-1][1], end_s)
        else:
            result.append((start_s, end_s))
    return result


def clipped(intervals: Iterable[Interval], start_s: float, end_s: float) -> list[Interval]:
    """Return the parts of the intervals between two times; empty ones are left out.

    >>> clipped([(0.0, 2.0), (3.0, 9.0)], 1.0, 4.0)
    [(1.0, 2.0), (3.0, 4.0)]
    """
    parts = [(max(start_s, first), min(end_s, last)) for first, last in intervals]
    return [(first, last) for first, last in parts if last > first]


def without(intervals: Iterable[Interval], others: Iterable[Interval]) -> list[Interval]:
    """Return the parts of the intervals that are in none of the others.

    >>> without([(0.0, 5.0)], [(1.0, 2.0), (4.0, 9.0)])
    [(0.0, 1.0), (2.0, 4.0)]
    """
    cuts, parts, first = merged(others), [], 0
    for start_s, end_s in merged(intervals):
        while first < len(cuts) and cuts[first][1] <= start_s:
            first += 1
        number = first
        while number < len(cuts) and cuts[number][0] < end_s:
            if cuts[number][0] > start_s:
                parts.append((start_s, cuts[number][0]))
            start_s = max(start_s, cuts[number][1])
            number += 1
        if end_s > start_s:
            parts.append((start_s, end_s))
    return parts


def total_s(intervals: Iterable[Interval]) -> float:
    """Return the sum of the lengths in seconds."""
    return sum(end_s - start_s for start_s, end_s in intervals)
