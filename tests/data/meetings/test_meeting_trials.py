from __future__ import annotations

from pathlib import Path

import pytest

from wesep_py.audio.reading import FileSegment
from wesep_py.common.errors import InputError
from wesep_py.data.meetings.meeting import Meeting, SpokenSegment, clipped, total_s
from wesep_py.data.meetings.meeting_trials import (
    MARGIN_S,
    MeetingTrialOptions,
    speech_windows,
    utterance_trials,
    window_trials,
)
from wesep_py.data.trials import ABSENT

TURNS = [("a", 1, 6), ("b", 5, 9), ("a", 10, 12), ("b", 20, 25), ("c", 24, 30), ("a", 31, 36), ("a", 50, 54)]


def meeting_of(turns, meeting_id: str = "m", duration_s: float = 60.0) -> Meeting:
    spoken = [SpokenSegment(name, float(s), float(e), f"{name}{s}") for name, s, e in turns]
    return Meeting(meeting_id, Path(f"/x/{meeting_id}.wav"), duration_s, spoken, groups={"room": "r"})


def test_windows_are_cut_where_nobody_speaks():
    windows = speech_windows(meeting_of(TURNS), 20.0)
    assert windows == [(0.5, 12.5), (19.5, 36.5), (49.5, 54.5)]
    short = speech_windows(meeting_of(TURNS), 11.0)
    assert short == [(0.5, 9.5), (9.5, 12.5), (19.5, 30.5), (30.5, 36.5), (49.5, 54.5)]
    assert all(end - start <= 11.0 for start, end in short)
    speech = [interval for intervals in meeting_of(TURNS).speech.values() for interval in intervals]
    for windows_of in (windows, short):
        assert sum(total_s(clipped(speech, *window)) for window in windows_of) == pytest.approx(total_s(speech))
    assert speech_windows(meeting_of([("a", 0, 50), ("b", 20, 30)]), 10.0) == [(0.0, 50 + MARGIN_S)]


def test_targets_have_enrollments_outside_of_their_window():
    meeting = meeting_of(TURNS)
    mixtures, trials = window_trials([meeting], MeetingTrialOptions(20.0, min_enrollment_s=2.0))
    by_id = {mixture.mixture_id: mixture for mixture in mixtures}
    assert [mixture.groups["speakers"] for mixture in mixtures] == ["2", "3", "1"]
    assert by_id["m_0.50_12.50"].activity == {"a": [(0.5, 5.5), (9.5, 11.5)], "b": [(4.5, 8.5)]}
    present = {(trial.mixture_id, trial.target) for trial in trials if trial.target != ABSENT}
    # c speaks in one window only, so nothing of c is left for an enrollment.
    assert present == {("m_0.50_12.50", "a"), ("m_0.50_12.50", "b"), ("m_19.50_36.50", "a"), ("m_19.50_36.50", "b"),
                       ("m_49.50_54.50", "a")}  # fmt: skip
    for trial in trials:
        window, segment = FileSegment.parse(by_id[trial.mixture_id].path), FileSegment.parse(trial.enrollment)
        assert segment.stop_s <= window.start_s or segment.start_s >= window.stop_s
        name = next(name for name, alone in meeting.alone.items() if clipped(alone, segment.start_s, segment.stop_s))
        assert trial.target in (name, ABSENT)
        assert total_s(clipped(meeting.alone[name], segment.start_s, segment.stop_s)) == pytest.approx(
            segment.stop_s - segment.start_s
        )
        if trial.target == ABSENT:
            assert name not in by_id[trial.mixture_id].activity and trial.transcript is None
    texts = {(trial.mixture_id, trial.target): trial.transcript for trial in trials}
    assert texts["m_0.50_12.50", "a"] == "a1 a10" and texts["m_19.50_36.50", "b"] == "b20"


def test_absent_speakers_come_from_other_meetings_if_all_speak():
    first, second = meeting_of([("a", 0, 4), ("b", 4, 8)], "m"), meeting_of([("c", 0, 4), ("a", 4, 8)], "n")
    _, trials = window_trials([first, second], MeetingTrialOptions(20.0))
    absent = {trial.mixture_id: trial.enrollment for trial in trials if trial.target == ABSENT}
    assert absent == {"m_0.00_8.50": "/x/n.wav@0.000-4.000", "n_0.00_8.50": "/x/m.wav@4.000-8.000"}
    assert window_trials([first], MeetingTrialOptions(20.0))[1] == []
    options = MeetingTrialOptions(20.0, absent=False)
    assert all(trial.target != ABSENT for trial in window_trials([first, second], options)[1])


def test_utterances_are_mixtures_of_their_own():
    mixtures, trials = utterance_trials([meeting_of(TURNS)], MeetingTrialOptions(min_enrollment_s=2.0, absent=False))
    assert [(trial.mixture_id, trial.target, trial.transcript) for trial in trials[:2]] == [
        ("m_1.00_6.00_a", "a", "a1"),
        ("m_5.00_9.00_b", "b", "b5"),
    ]
    assert mixtures[1].activity == {"a": [(0.0, 1.0)], "b": [(0.0, 4.0)]}
    assert {trial.target for trial in trials} == {"a", "b"}


def test_a_number_of_windows_is_spread_over_the_meeting():
    turns = [("ab"[k % 2], 10 * k, 10 * k + 5) for k in range(9)]
    mixtures, _ = window_trials([meeting_of(turns, duration_s=90.0)], MeetingTrialOptions(8.0, 3))
    assert [mixture.mixture_id for mixture in mixtures] == ["m_0.00_5.50", "m_39.50_45.50", "m_79.50_85.50"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"window_s": 0.0}, "window is 0 s"),
        ({"max_windows": 0}, "windows is 0"),
        ({"min_enrollment_s": 9.0, "max_enrollment_s": 8.0}, "enrollments of 9 to 8 s"),
    ],
)
def test_options_out_of_range_are_refused(values: dict, message: str):
    with pytest.raises(InputError, match=message):
        MeetingTrialOptions(**values)
