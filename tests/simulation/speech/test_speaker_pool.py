"""Excerpts and enrollments: no shared sample, and at least the gap apart in one recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from wesep_py.common.errors import InputError
from wesep_py.data import Utterance
from wesep_py.simulation import EnrollmentConfig
from wesep_py.simulation.description.recipe import UtteranceSegment
from wesep_py.simulation.speech.speaker_pool import SegmentChooser

RATE = 1000


class LengthsOnly:
    """Reader of recordings that do not exist: segments are chosen by length only."""

    sample_rate = RATE

    def length(self, utterance: Utterance) -> int:
        return round(utterance.duration_s * RATE)

    def read(self, utterance: Utterance, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        raise AssertionError("nothing is read while segments are chosen")


def _span_s(segment: UtteranceSegment) -> tuple[float, float]:
    start = segment.utterance.start_s
    return start + segment.start / RATE, start + segment.stop / RATE


def _inside(segment: UtteranceSegment) -> bool:
    return segment.start >= 0 and segment.num_samples > 0 and segment.stop <= LengthsOnly().length(segment.utterance)


def test_enrollment_is_from_another_recording() -> None:
    utterances = [Utterance(f"a-{n}", "a", Path(f"{n}.wav"), 5.0) for n in range(3)]
    chooser, rng = SegmentChooser(utterances, EnrollmentConfig()), np.random.default_rng(0)
    for _ in range(50):
        drawn = chooser.draw_excerpt("a", 3 * RATE, LengthsOnly(), rng)
        assert drawn is not None
        excerpt, (enrollment,) = drawn
        assert excerpt.num_samples == 3 * RATE
        assert enrollment.utterance.path != excerpt.utterance.path
        assert _inside(excerpt) and _inside(enrollment)
        assert 3 * RATE <= enrollment.num_samples <= 5 * RATE


@pytest.mark.parametrize("duration_s", [2.5, 3.0, 4.0, 7.0, 15.0])
@pytest.mark.parametrize("desired_s", [3.0, None])
def test_one_recording_gives_excerpt_and_enrollment_apart(duration_s: float, desired_s: float | None) -> None:
    chooser = SegmentChooser([Utterance("a-1", "a", Path("1.wav"), duration_s)], EnrollmentConfig())
    rng, orders = np.random.default_rng(0), set()
    for _ in range(200):
        drawn = chooser.draw_excerpt("a", None if desired_s is None else round(desired_s * RATE), LengthsOnly(), rng)
        assert drawn is not None
        excerpt, (enrollment,) = drawn
        assert _inside(excerpt) and _inside(enrollment)
        assert min(excerpt.num_samples, enrollment.num_samples) >= RATE
        gap = max(enrollment.start - excerpt.stop, excerpt.start - enrollment.stop)
        assert gap >= 0.5 * RATE
        orders.add(excerpt.start < enrollment.start)
    assert orders == {True, False}


def test_segments_of_one_file_stay_apart() -> None:
    # The second segment begins 0.2 s after the first ends: too near to be its enrollment; the third is far enough.
    utterances = [
        Utterance("a-1", "a", Path("talk.wav"), 4.0, start_s=0.0),
        Utterance("a-2", "a", Path("talk.wav"), 4.0, start_s=4.2),
        Utterance("a-3", "a", Path("talk.wav"), 4.0, start_s=20.0),
    ]
    chooser, rng, used = SegmentChooser(utterances, EnrollmentConfig()), np.random.default_rng(0), set()
    for _ in range(200):
        drawn = chooser.draw_excerpt("a", 2 * RATE, LengthsOnly(), rng)
        assert drawn is not None
        excerpt, (enrollment,) = drawn
        (start, stop), (other_start, other_stop) = _span_s(excerpt), _span_s(enrollment)
        assert max(other_start - stop, start - other_stop) >= 0.5
        used.add((excerpt.utterance.utterance_id, enrollment.utterance.utterance_id))
    assert ("a-1", "a-2") not in used and ("a-2", "a-1") not in used
    assert ("a-1", "a-3") in used and ("a-3", "a-2") in used


def test_several_enrollments_come_from_different_utterances() -> None:
    utterances = [Utterance(f"a-{n}", "a", Path(f"{n}.wav"), 5.0) for n in range(4)]
    chooser = SegmentChooser(utterances, EnrollmentConfig(count=2))
    drawn = chooser.draw_excerpt("a", RATE, LengthsOnly(), np.random.default_rng(0))
    assert drawn is not None
    excerpt, enrollments = drawn
    assert len({segment.utterance.utterance_id for segment in (excerpt, *enrollments)}) == 3


def test_speakers_with_too_little_audio_are_left_out() -> None:
    corpus = [Utterance("a-1", "a", Path("1.wav"), 2.4), Utterance("b-1", "b", Path("2.wav"), 2.6)]
    chooser = SegmentChooser(corpus, EnrollmentConfig())
    assert chooser.speaker_ids == ["b"]
    assert chooser.left_out == ["a"]


def test_duplicate_id_is_refused() -> None:
    twice = [Utterance("a-1", "a", Path("1.wav"), 3.0), Utterance("a-1", "b", Path("2.wav"), 3.0)]
    with pytest.raises(InputError, match="a-1"):
        SegmentChooser(twice, EnrollmentConfig())
