"""Segments of the speakers of a corpus: excerpts for the mixture, and enrollments that share no sample with them.

`SegmentChooser` draws segments by their durations, without reading audio. `SpeakerPool` reads what was drawn and draws
again if it is silent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from wesep_py.audio.level import active_level_db
from wesep_py.common.errors import InputError
from wesep_py.data.manifest import Utterance
from wesep_py.data.reader import Reader
from wesep_py.simulation.description.recipe import UnusableDraw, UtteranceSegment, read_segment
from wesep_py.simulation.description.simulation_config import EnrollmentConfig, SimulationConfig

# Shortest excerpt and enrollment of an utterance that gives both, and shortest enrollment unless there is nothing
# longer: a shorter one does not characterise a voice.
MIN_SEGMENT_S = 1.0
# After this many silent draws in a row of one speaker, the whole mixture is drawn again.
MAX_ATTEMPTS_OF_A_SPEAKER = 10
# A segment this far below the level of its utterance is a pause with background noise, not speech. It is refused:
# setting its level would turn the noise into a source.
PAUSE_DB = 20.0
SpokenSegments = tuple[list[UtteranceSegment], tuple[UtteranceSegment, ...]]
"""Excerpts, and enrollments."""


@dataclass(frozen=True)
class _SpeakerUtterances:
    """The utterances of one speaker, with their durations; `separate_files`: no two of them are from one file."""

    utterances: tuple[Utterance, ...]
    durations_s: np.ndarray
    separate_files: bool


class SegmentChooser:
    """Draws excerpts and enrollments from the utterances of speakers.

    Args:
        utterances: the corpus, in any order: the draws do not depend on it.
        enrollment: lengths and number of enrollment segments, and their distance from the excerpt.

    Attributes:
        speaker_ids: the usable speakers, sorted.
        left_out: the speakers who have too little audio for both an excerpt and an enrollment, sorted.

    Raises:
        InputError: two different utterances have the same id.
    """

    def __init__(self, utterances: Sequence[Utterance], enrollment: EnrollmentConfig) -> None:
        self._enrollment = enrollment
        by_speaker: dict[str, list[Utterance]] = defaultdict(list)
        seen_ids: set[str] = set()
        for utterance in sorted(utterances, key=lambda item: item.utterance_id):
            if utterance.utterance_id in seen_ids:
                raise InputError(f"utterance id {utterance.utterance_id!r}: is used twice; give each its own")
            seen_ids.add(utterance.utterance_id)
            by_speaker[utterance.speaker_id].append(utterance)
        self._speakers: dict[str, _SpeakerUtterances] = {}
        left_out = []
        for speaker_id, spoken in sorted(by_speaker.items()):
            durations_s = np.array([utterance.duration_s for utterance in spoken])
            separate_files = len({utterance.path for utterance in spoken}) == len(spoken)
            if self._has_enough(spoken, durations_s):
                self._speakers[speaker_id] = _SpeakerUtterances(tuple(spoken), durations_s, separate_files)
            else:
                left_out.append(speaker_id)
        self.speaker_ids: list[str] = list(self._speakers)
        self.left_out: list[str] = left_out

    def draw_speakers(self, count: int, rng: np.random.Generator) -> list[str]:
        """Draw the ids of `count` different speakers, all equally likely."""
        chosen = rng.choice(len(self.speaker_ids), size=count, replace=False)
        return [self.speaker_ids[position] for position in chosen]

    def draw_excerpt(
        self, speaker_id: str, num_samples: int | None, reader: Reader, rng: np.random.Generator
    ) -> tuple[UtteranceSegment, tuple[UtteranceSegment, ...]] | None:
        """Draw an excerpt for the mixture, and enrollment segments, of one speaker.

        Args:
            speaker_id: one of `speaker_ids`.
            num_samples: desired length of the excerpt; it is shorter if the speaker has no utterance that long.
                `None`: a whole utterance.
            reader: knows the lengths of utterances.
            rng: random numbers.

        Returns:
            The excerpt and the enrollment segments; `None` if the utterance that was drawn is too short for both, so
            that the caller draws again.
        """
        speaker = self._speakers[speaker_id]
        rate = reader.sample_rate
        utterance = _draw_long(speaker, 0.0 if num_samples is None else num_samples / rate, rng)
        available = reader.length(utterance)
        length = available if num_samples is None else min(num_samples, available)
        others = self._others(speaker, utterance) if self._enrollment.count else []
        if self._enrollment.count and not others:
            return self._split(utterance, available, length, rate, rng)
        start = int(rng.integers(available - length + 1))
        return UtteranceSegment(utterance, start, length), self._draw_enrollments(others, reader, rng)

    def draw_turns(
        self, speaker_id: str, lengths: Sequence[int], reader: Reader, rng: np.random.Generator
    ) -> tuple[list[UtteranceSegment], tuple[UtteranceSegment, ...]] | None:
        """Draw several excerpts of one speaker, and enrollments that share no sample with any of them.

        Args:
            speaker_id: one of `speaker_ids`.
            lengths: desired length of each excerpt, in samples; shorter if the utterance is.
            reader: knows the lengths of utterances.
            rng: random numbers.

        Returns:
            The excerpts and the enrollments. Each excerpt is from another utterance until all have been used. There
            are fewer excerpts if the speaker has no utterance apart from the enrollments. `None`: as `draw_excerpt`.
        """
        drawn = self.draw_excerpt(speaker_id, lengths[0], reader, rng)
        if drawn is None:
            return None
        first, enrollments = drawn
        speaker = self._speakers[speaker_id]
        enrolled = [segment.utterance for segment in enrollments]
        apart = [u for u in speaker.utterances if all(self._is_apart(speaker, u, other) for other in enrolled)]
        apart = [utterance for utterance in apart if utterance.duration_s >= MIN_SEGMENT_S]
        excerpts = [first]
        unused: list[Utterance] = [utterance for utterance in apart if utterance is not first.utterance]
        for desired in lengths[1:]:
            unused = unused or list(apart)
            if not unused:
                break
            utterance = unused.pop(int(rng.integers(len(unused))))
            available = reader.length(utterance)
            length = min(desired, available)
            excerpts.append(UtteranceSegment(utterance, int(rng.integers(available - length + 1)), length))
        return excerpts, enrollments

    def draw_segment(
        self, speaker_id: str, num_samples: int, reader: Reader, rng: np.random.Generator
    ) -> UtteranceSegment:
        """Draw a segment of one speaker, without enrollment; it may reach beyond the end of the utterance."""
        speaker = self._speakers[speaker_id]
        utterance = speaker.utterances[rng.integers(len(speaker.utterances))]
        return UtteranceSegment(utterance, int(rng.integers(reader.length(utterance))), num_samples)

    def _draw_enrollments(
        self, others: list[Utterance], reader: Reader, rng: np.random.Generator
    ) -> tuple[UtteranceSegment, ...]:
        if not others:
            return ()
        low, high = self._enrollment.duration_s
        long_enough = [other for other in others if other.duration_s >= low]
        candidates = long_enough or [max(others, key=lambda other: other.duration_s)]
        count = min(self._enrollment.count, len(candidates))
        segments = []
        for position in rng.choice(len(candidates), size=count, replace=False):
            available = reader.length(candidates[position])
            length = min(round(rng.uniform(low, high) * reader.sample_rate), available)
            start = int(rng.integers(available - length + 1))
            segments.append(UtteranceSegment(candidates[position], start, length))
        return tuple(segments)

    def _split(
        self, utterance: Utterance, available: int, length: int, rate: int, rng: np.random.Generator
    ) -> tuple[UtteranceSegment, tuple[UtteranceSegment, ...]] | None:
        """Draw excerpt and enrollment from one utterance, at least the gap apart, in either order."""
        gap, shortest = round(self._enrollment.gap_s * rate), round(MIN_SEGMENT_S * rate)
        if available < 2 * shortest + gap:
            return None
        desired = round(rng.uniform(*self._enrollment.duration_s) * rate)
        # The excerpt has priority: the enrollment is shortened first, down to the minimum, and then the excerpt.
        enrollment = max(min(desired, available - gap - length), min(desired, shortest))
        length = min(length, available - gap - enrollment)
        # The samples that remain are divided by two sorted draws, here with the excerpt first:
        #   | before | excerpt | between - before + gap | enrollment | slack - between |
        slack = available - length - gap - enrollment
        before, between = sorted(int(value) for value in rng.integers(slack + 1, size=2))
        excerpt_first = rng.random() < 0.5
        second_start = between + (length if excerpt_first else enrollment) + gap
        excerpt_start, enrollment_start = (before, second_start) if excerpt_first else (second_start, before)
        return UtteranceSegment(utterance, excerpt_start, length), (
            UtteranceSegment(utterance, enrollment_start, enrollment),
        )

    def _others(self, speaker: _SpeakerUtterances, utterance: Utterance) -> list[Utterance]:
        """Return the utterances that can be enrollments: of other files, or of this file with the gap between them."""
        return [
            other
            for other in speaker.utterances
            if other.duration_s >= MIN_SEGMENT_S and self._is_apart(speaker, other, utterance)
        ]

    def _is_apart(self, speaker: _SpeakerUtterances, first: Utterance, second: Utterance) -> bool:
        """Return whether two utterances are from different files, or from one file with the gap between them."""
        gap_s = self._enrollment.gap_s
        return first is not second and (
            speaker.separate_files
            or first.path != second.path
            or first.start_s >= second.stop_s + gap_s
            or first.stop_s + gap_s <= second.start_s
        )

    def _has_enough(self, spoken: list[Utterance], durations_s: np.ndarray) -> bool:
        """Return whether a speaker has enough audio for an excerpt and, if needed, an enrollment."""
        if self._enrollment.count == 0:
            return bool(durations_s.max() >= MIN_SEGMENT_S)
        if durations_s.max() >= 2 * MIN_SEGMENT_S + self._enrollment.gap_s:
            return True
        recordings = {utterance.path for utterance in spoken if utterance.duration_s >= MIN_SEGMENT_S}
        return len(recordings) > 1


def _draw_long(speaker: _SpeakerUtterances, duration_s: float, rng: np.random.Generator) -> Utterance:
    """Draw one of the utterances that are at least `duration_s` long, or return the longest if there is none."""
    long_enough = np.flatnonzero(speaker.durations_s >= duration_s)
    if long_enough.size == 0:
        return speaker.utterances[int(speaker.durations_s.argmax())]
    return speaker.utterances[long_enough[rng.integers(long_enough.size)]]


class SpeakerPool:
    """Draws excerpts and enrollments of speakers, none of them silent.

    Args:
        config: ranges and weights.
        utterances: the corpus, in any order.
        reader: reads the corpus.

    Attributes:
        speakers: draws segments of the speakers.
        config, reader: the arguments.
    """

    def __init__(self, config: SimulationConfig, utterances: Sequence[Utterance], reader: Reader) -> None:
        self.config = config
        self.reader = reader
        self.speakers = SegmentChooser(utterances, config.enrollment)
        self._levels_db: dict[str, float] = {}

    def draw_enrollments(self, speaker_id: str, rng: np.random.Generator) -> tuple[UtteranceSegment, ...]:
        """Draw enrollments of a speaker who is not in the mixture.

        Raises:
            UnusableDraw: all draws are silent or too short.
        """
        return self.draw_excerpt(speaker_id, self.reader.sample_rate, rng)[1]

    def level_db(self, utterance: Utterance) -> float:
        """Return the active level of a whole utterance in dB; it is measured once."""
        level_db = self._levels_db.get(utterance.utterance_id)
        if level_db is None:
            level_db = active_level_db(self.reader.read(utterance), self.reader.sample_rate)
            self._levels_db[utterance.utterance_id] = level_db
        return level_db

    def draw_excerpt(
        self, speaker_id: str, num_samples: int | None, rng: np.random.Generator
    ) -> tuple[UtteranceSegment, tuple[UtteranceSegment, ...]]:
        """Draw excerpt and enrollments of one speaker; if one of them is silent, all are drawn again.

        Args and return value: as `SegmentChooser.draw_excerpt`.

        Raises:
            UnusableDraw: all draws are silent or too short.
        """

        def draw() -> SpokenSegments | None:
            drawn = self.speakers.draw_excerpt(speaker_id, num_samples, self.reader, rng)
            return drawn and ([drawn[0]], drawn[1])

        (excerpt,), enrollments = self._draw_until_speech(speaker_id, draw)
        return excerpt, enrollments

    def draw_turns(self, speaker_id: str, lengths: Sequence[int], rng: np.random.Generator) -> SpokenSegments:
        """Draw turns and enrollments of one speaker; silent turns after the first are left out.

        Raises:
            UnusableDraw: as `draw_excerpt`.
        """
        (first, *others), enrollments = self._draw_until_speech(
            speaker_id, lambda: self.speakers.draw_turns(speaker_id, lengths, self.reader, rng)
        )
        return [first, *filter(self.is_speech, others)], enrollments

    def _draw_until_speech(self, speaker_id: str, draw: Callable[[], SpokenSegments | None]) -> SpokenSegments:
        """Call `draw` until its first excerpt and all its enrollments are speech."""
        problem = ""
        for _ in range(MAX_ATTEMPTS_OF_A_SPEAKER):
            drawn = draw()
            if drawn is None:
                problem = f"an utterance of {speaker_id!r} is too short to give both excerpt and enrollment"
                continue
            try:
                for segment in (drawn[0][0], *drawn[1]):
                    self.check_speech(segment)
            except UnusableDraw as error:
                problem = str(error)
                continue
            return drawn
        raise UnusableDraw(problem)

    def is_speech(self, segment: UtteranceSegment) -> bool:
        """Return whether a segment is neither silent nor a pause of its utterance."""
        level_db = active_level_db(read_segment(segment, self.reader), self.reader.sample_rate)
        return level_db != -np.inf and level_db >= self.level_db(segment.utterance) - PAUSE_DB

    def check_speech(self, segment: UtteranceSegment) -> None:
        """Raise `UnusableDraw` if a segment is silent, or a pause of its utterance."""
        if not self.is_speech(segment):
            start_s, stop_s = segment.start / self.reader.sample_rate, segment.stop / self.reader.sample_rate
            name = segment.utterance.utterance_id
            raise UnusableDraw(f"utterance {name!r} is silent from {start_s:.2f} s to {stop_s:.2f} s")
