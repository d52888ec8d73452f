"""Draw trials from meetings: windows, their targets, enrollments from elsewhere in the meeting, absent speakers.

    meeting    A: ▄▄▄▄▄▄    ▄▄▄  ▄▄▄▄▄▄▄▄                 ▄▄▄▄▄
               B:       ▄▄▄▄▄       ▄▄▄▄      ▄▄▄▄▄▄▄▄▄▄
               C:                                    ▄▄▄▄▄▄▄▄▄▄▄▄
    windows    |-----------------------|  |---------------------|      cut where nobody speaks
    first      targets A and B; C is absent
    enrollment the longest part in which a speaker speaks alone, outside of the window

Nothing is random: the same meetings give the same trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wesep_py.common.errors import InputError
from wesep_py.data.meetings.meeting import Interval, Meeting, clipped, merged, total_s, without
from wesep_py.data.meetings.recording_lists import RecordedMixture, RecordingTrial, file_segment
from wesep_py.data.trials import ABSENT

MARGIN_S = 0.5
"""Longest silence at either end of a window."""
LONG_PAUSE_S = 3.0
"""A longer silence of all speakers ends a window."""


@dataclass(frozen=True)
class MeetingTrialOptions:
    """Options for drawing trials from meetings.

    Attributes:
        window_s: longest window in seconds; speech without any pause may be longer.
        max_windows: number of windows of a meeting, spread evenly over it; `None`: all.
        min_target_s: least speech of a target in a window, in seconds.
        min_enrollment_s, max_enrollment_s: least and greatest length of an enrollment, in seconds.
        absent: add a trial with an absent speaker for each window.

    Raises:
        InputError: a number is out of range.
    """

    window_s: float = 30.0
    max_windows: int | None = None
    min_target_s: float = 1.0
    min_enrollment_s: float = 3.0
    max_enrollment_s: float = 10.0
    absent: bool = True

    def __post_init__(self) -> None:
        if not self.window_s > 0:
            raise InputError(f"window is {self.window_s:g} s; more than 0 is needed")
        if self.max_windows is not None and self.max_windows < 1:
            raise InputError(f"windows is {self.max_windows}; at least 1 is needed")
        if not 0 < self.min_enrollment_s <= self.max_enrollment_s:
            raise InputError(
                f"enrollments of {self.min_enrollment_s:g} to {self.max_enrollment_s:g} s cannot be; give a least "
                "length above 0 and no greater than the greatest"
            )


def window_trials(
    meetings: Sequence[Meeting], options: MeetingTrialOptions
) -> tuple[list[RecordedMixture], list[RecordingTrial]]:
    """Return windows of the meetings, and for each its trials: a target per speaker who speaks enough, one absent."""
    mixtures, trials = [], []
    for meeting in meetings:
        for window in _spread(speech_windows(meeting, options.window_s), options.max_windows):
            active = {name: clipped(intervals, *window) for name, intervals in meeting.speech.items()}
            targets = [name for name, intervals in active.items() if total_s(intervals) >= options.min_target_s]
            mixture = _mixture_of(meeting, window)
            mixtures.append(mixture)
            for name in targets:
                if (enrollment := enrollment_of(meeting, name, options, window)) is not None:
                    transcript = _transcript(meeting, name, window)
                    trials.append(RecordingTrial(mixture.mixture_id, name, enrollment, transcript))
            if options.absent:
                trials += _absent_trial(meetings, meeting, mixture, window, options, len(mixtures))
    return mixtures, trials


def utterance_trials(
    meetings: Sequence[Meeting], options: MeetingTrialOptions
) -> tuple[list[RecordedMixture], list[RecordingTrial]]:
    """Return every utterance as a mixture of its own, from its start to its end, whose target is who says it.

    `max_windows` limits the utterances of a meeting; `window_s` does not apply.
    """
    mixtures, trials = [], []
    for meeting in meetings:
        spoken = sorted(meeting.spoken, key=lambda segment: (segment.start_s, segment.speaker_id))
        for segment in _spread(spoken, options.max_windows):
            window = (segment.start_s, min(segment.end_s, meeting.duration_s))
            enrollment = enrollment_of(meeting, segment.speaker_id, options, window)
            if enrollment is None:
                continue
            mixture = _mixture_of(meeting, window, f"_{segment.speaker_id}")
            mixtures.append(mixture)
            trials.append(RecordingTrial(mixture.mixture_id, segment.speaker_id, enrollment, segment.text))
            if options.absent:
                trials += _absent_trial(meetings, meeting, mixture, window, options, len(mixtures))
    return mixtures, trials


def speech_windows(meeting: Meeting, window_s: float) -> list[Interval]:
    """Return the windows of a meeting, cut where nobody speaks, each at most `window_s` long where there are pauses."""
    regions = merged(interval for intervals in meeting.speech.values() for interval in intervals)
    spans: list[Interval] = []
    for start_s, end_s in regions:
        if spans and end_s - spans[-1][0] <= window_s - 2 * MARGIN_S and start_s - spans[-1][1] <= LONG_PAUSE_S:
            spans[-1] = spans[-1][0], end_s
        else:
            spans.append((start_s, end_s))
    windows = []
    for number, (start_s, end_s) in enumerate(spans):
        before_s = 0.0 if number == 0 else (spans[number - 1][1] + start_s) / 2
        after_s = meeting.duration_s if number == len(spans) - 1 else (end_s + spans[number + 1][0]) / 2
        windows.append((max(before_s, start_s - MARGIN_S), min(after_s, end_s + MARGIN_S)))
    return windows


def enrollment_of(
    meeting: Meeting, speaker_id: str, options: MeetingTrialOptions, window: Interval | None = None
) -> str | None:
    """Return the longest segment in which a speaker speaks alone outside of a window; `None` if none is long enough.

    Args:
        meeting: in which the speaker speaks.
        speaker_id: the speaker.
        options: least and greatest length.
        window: in seconds; `None`: the segment may be anywhere.
    """
    alone = without(meeting.alone[speaker_id], [] if window is None else [window])
    if not alone:
        return None
    start_s, end_s = max(alone, key=lambda interval: (interval[1] - interval[0], -interval[0]))
    if end_s - start_s < options.min_enrollment_s:
        return None
    return file_segment(meeting.path, start_s, min(end_s, start_s + options.max_enrollment_s))


def _mixture_of(meeting: Meeting, window: Interval, suffix: str = "") -> RecordedMixture:
    start_s, end_s = window
    activity = {
        name: [(first - start_s, last - start_s) for first, last in inside]
        for name, intervals in meeting.speech.items()
        if (inside := clipped(intervals, start_s, end_s))
    }
    return RecordedMixture(
        f"{meeting.meeting_id}_{start_s:.2f}_{end_s:.2f}{suffix}",
        file_segment(meeting.path, start_s, end_s),
        activity,
        {**meeting.groups, "speakers": str(len(activity))},
    )


def _absent_trial(
    meetings: Sequence[Meeting],
    meeting: Meeting,
    mixture: RecordedMixture,
    window: Interval,
    options: MeetingTrialOptions,
    number: int,
) -> list[RecordingTrial]:
    """Return a trial with a speaker of the meeting who is silent in the window, else of another meeting; or none."""
    silent = [name for name in meeting.speech if name not in mixture.activity]
    for offset in range(len(silent)):
        name = silent[(number + offset) % len(silent)]
        if (enrollment := enrollment_of(meeting, name, options, window)) is not None:
            return [RecordingTrial(mixture.mixture_id, ABSENT, enrollment)]
    elsewhere = [(other, name) for other in meetings for name in other.speech if name not in meeting.speech]
    for offset in range(len(elsewhere)):
        other, name = elsewhere[(number + offset) % len(elsewhere)]
        if (enrollment := enrollment_of(other, name, options)) is not None:
            return [RecordingTrial(mixture.mixture_id, ABSENT, enrollment)]
    return []


def _transcript(meeting: Meeting, speaker_id: str, window: Interval) -> str:
    """Return what a speaker says in a window: the segments whose middle lies in it."""
    spoken = meeting.spoken_by.get(speaker_id, [])
    return " ".join(segment.text for segment in spoken if segment.text and window[0] <= segment.middle_s < window[1])


def _spread(items: Sequence, count: int | None) -> list:
    """Return a number of items, spread evenly over all."""
    if count is None or count >= len(items):
        return list(items)
    return [items[index] for index in np.linspace(0, len(items) - 1, count).round().astype(int)]
