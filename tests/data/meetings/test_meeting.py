from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wesep_py.data.meetings.meeting import Meeting, SpokenSegment, clipped, merged, total_s, without


def frames(intervals) -> np.ndarray:
    """Return which of the first 100 tenths of a second an interval covers."""
    covered = np.zeros(100, dtype=bool)
    for start_s, end_s in intervals:
        covered[round(10 * start_s) : round(10 * end_s)] = True
    return covered


@pytest.mark.parametrize("seed", range(20))
def test_intervals_agree_with_sets_of_frames(seed: int):
    rng = np.random.default_rng(seed)

    def draw(count: int) -> list[tuple[float, float]]:
        starts = rng.integers(0, 95, count)
        return [(s / 10, (s + rng.integers(1, 20)) / 10) for s in starts]

    first, second = draw(6), draw(5)
    assert np.array_equal(frames(merged(first)), frames(first))
    assert np.array_equal(frames(without(first, second)), frames(first) & ~frames(second))
    assert total_s(merged(clipped(first, 0.0, 10.0))) == pytest.approx(frames(first).sum() / 10)
    assert all(end > start for start, end in without(first, second))


def test_short_pauses_are_speech_and_alone_excludes_others():
    spoken = [
        SpokenSegment("a", 0.0, 1.0, "one"),
        SpokenSegment("a", 1.15, 2.0, "two"),
        SpokenSegment("a", 2.9, 6.0, "three"),
        SpokenSegment("b", 4.0, 5.0, "four"),
    ]
    meeting = Meeting("m", Path("m.wav"), 5.5, spoken)
    assert meeting.speech == {"a": [(0.0, 2.0), (2.9, 5.5)], "b": [(4.0, 5.0)]}
    assert meeting.alone == {"a": [(0.0, 4.0), (5.0, 5.5)], "b": []}
    assert [segment.text for segment in meeting.spoken_by["a"]] == ["one", "two", "three"]


def test_given_activity_replaces_that_of_the_words():
    spoken = [SpokenSegment("a", 0.0, 1.0, "one")]
    meeting = Meeting("m", Path("m.wav"), 9.0, spoken, {"a": [(3.0, 4.0)], "b": [(8.0, 12.0)]})
    assert meeting.speech == {"a": [(3.0, 4.0)], "b": [(8.0, 9.0)]}
