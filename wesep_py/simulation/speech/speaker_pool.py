"""The voices of a corpus, and what of their recordings is speech."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from wesep_py.audio.level import active_level_db
from wesep_py.common.errors import InputError
from wesep_py.data.manifest import Utterance
from wesep_py.data.reader import Reader
from wesep_py.simulation.description.recipe import UtteranceSegment, UnusableDraw, read_segment, too_short_message
from wesep_py.simulation.description.simulation_config import EnrollmentConfig, SimulationConfig

# ----------------------------------------
# Which stretches of a speaker's recordings go into a mixture, and which introduce the voice.

# Nothing shorter is taken from an utterance that has to give both excerpt and enrollment, nor as an
# enrollment while there is something longer: less does not say much about a voice.
MIN_STRETCH_S = 1.0
# A speaker whose stretches are silent this often in a row makes way for others.
MAX_ATTEMPTS_OF_A_SPEAKER = 10


@dataclass(frozen=True)
class _Speaker:
    """The utterances of one speaker; `separate` where no two of them come from one file."""

    utterances: tuple[Utterance, ...]
    durations_s: np.ndarray
    separate: bool


class SegmentChooser:
    """A corpus by speaker, from which excerpts and enrollments that share no sample are drawn.

    Args:
        utterances: the corpus, in any order: what is drawn does not depend on it.
        enrollment: lengths and number of enrollment stretches, and their distance from the excerpt.

    Attributes:
        speaker_ids: the speakers who can be used, sorted.
        left_out: the speakers who have too little audio to give both an excerpt and an enrollment, sorted.

    Raises:
        InputError: two different utterances have one id.
    """

    def __init__(self, utterances: Sequence[Utterance], enrollment: EnrollmentConfig) -> None:
        self._enrollment = enrollment
        by_speaker: dict[str, list[Utterance]] = defaultdict(list)
        known: set[str] = set()
        for utterance in sorted(utterances, key=lambda item: item.utterance_id):
            if utterance.utterance_id in known:
                raise InputError(f"utterance id {utterance.utterance_id!r}: is used twice; give each its own")
            known.add(utterance.utterance_id)
            by_speaker[utterance.speaker_id].append(utterance)
        self._speakers: dict[str, _Speaker] = {}
        left_out = []
        for speaker_id, own in sorted(by_speaker.items()):
            durations_s = np.array([utterance.duration_s for utterance in own])
            separate = len({utterance.path for utterance in own}) == len(own)
            if self._gives_both(own, durations_s):
                self._speakers[speaker_id] = _Speaker(tuple(own), durations_s, separate)
            else:
                left_out.append(speaker_id)
        self.speaker_ids: list[str] = list(self._speakers)
        self.left_out: list[str] = left_out

    def draw_speakers(self, count: int, rng: np.random.Generator) -> list[str]:
        """The ids of `count` different speakers, all equally likely."""
        chosen = rng.choice(len(self.speaker_ids), size=count, replace=False)
        return [self.speaker_ids[position] for position in chosen]

    def draw(
        self, speaker_id: str, num_samples: int | None, reader: Reader, rng: np.random.Generator
    ) -> tuple[UtteranceSegment, tuple[UtteranceSegment, ...]] | None:
        """An excerpt for the mixture, and enrollment stretches, of one speaker.

        Args:
            speaker_id: one of `speaker_ids`.
            num_samples: length wanted for the excerpt; it is shorter where the speaker has nothing that long.
                `None` for a whole utterance.
            reader: tells the lengths of utterances.
            rng: what is drawn comes from here.

        Returns:
            The excerpt and the enrollment stretches, or `None` if the utterance drawn cannot give both; draw
            again.
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
        """Several excerpts of one speaker, and enrollments that share no sample with any of them.

        Args:
            speaker_id: one of `speaker_ids`.
            lengths: wanted of each excerpt, in samples; shorter where an utterance ends.
            reader: tells the lengths of utterances.
            rng: what is drawn comes from here.

        Returns:
            The excerpts, each of another utterance while there is one that has not been used, and the enrollments.
            Fewer excerpts where a speaker has nothing that is apart from the enrollments. `None` as `draw`.
        """
        drawn = self.draw(speaker_id, lengths[0], reader, rng)
        if drawn is None:
            return None
        first, enrollments = drawn
        speaker = self._speakers[speaker_id]
        introducing = [stretch.utterance for stretch in enrollments]
        apart = [u for u in speaker.utterances if all(self._is_apart(speaker, u, other) for other in introducing)]
        apart = [utterance for utterance in apart if utterance.duration_s >= MIN_STRETCH_S]
        excerpts = [first]
        unused: list[Utterance] = [utterance for utterance in apart if utterance is not first.utterance]
        for wanted in lengths[1:]:
            unused = unused or list(apart)
            if not unused:
                break
            utterance = unused.pop(int(rng.integers(len(unused))))
            available = reader.length(utterance)
            length = min(wanted, available)
            excerpts.append(UtteranceSegment(utterance, int(rng.integers(available - length + 1)), length))
        return excerpts, enrollments

    def draw_stretch(self, speaker_id: str, num_samples: int, reader: Reader, rng: np.random.Generator) -> UtteranceSegment:
        """A stretch of one speaker from a drawn start on, without enrollment; it may reach past the utterance's end."""
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
        stretches = []
        for position in rng.choice(len(candidates), size=count, replace=False):
            available = reader.length(candidates[position])
            length = min(round(rng.uniform(low, high) * reader.sample_rate), available)
            start = int(rng.integers(available - length + 1))
            stretches.append(UtteranceSegment(candidates[position], start, length))
        return tuple(stretches)

    def _split(
        self, utterance: Utterance, available: int, length: int, rate: int, rng: np.random.Generator
    ) -> tuple[UtteranceSegment, tuple[UtteranceSegment, ...]] | None:
        """Excerpt and enrollment from one utterance, at least the gap apart, in either order."""
        gap, least = round(self._enrollment.gap_s * rate), round(MIN_STRETCH_S * rate)
        if available < 2 * least + gap:
            return None
        wanted = round(rng.uniform(*self._enrollment.duration_s) * rate)
        # The excerpt comes first: the enrollment is shortened, down to the least, before the excerpt is.
        enrollment = max(min(wanted, available - gap - length), min(wanted, least))
        length = min(length, available - gap - enrollment)
        slack = available - length - gap - enrollment
        before, between = sorted(int(value) for value in rng.integers(slack + 1, size=2))
        excerpt_first = rng.random() < 0.5
        second_start = between + (length if excerpt_first else enrollment) + gap
        excerpt_start, enrollment_start = (before, second_start) if excerpt_first else (second_start, before)
        return UtteranceSegment(utterance, excerpt_start, length), (UtteranceSegment(utterance, enrollment_start, enrollment),)

    def _others(self, speaker: _Speaker, utterance: Utterance) -> list[Utterance]:
        """What may introduce the voice: other recordings, and stretches of this file well apart from `utterance`."""
        return [
            other
            for other in speaker.utterances
            if other.duration_s >= MIN_STRETCH_S and self._is_apart(speaker, other, utterance)
        ]

    def _is_apart(self, speaker: _Speaker, one: Utterance, other: Utterance) -> bool:
        """Whether two utterances come from different files, or from one with the gap between them."""
        gap_s = self._enrollment.gap_s
        return one is not other and (
            speaker.separate
            or one.path != other.path
            or one.start_s >= other.stop_s + gap_s
            or one.stop_s + gap_s <= other.start_s
        )

    def _gives_both(self, own: list[Utterance], durations_s: np.ndarray) -> bool:
        if self._enrollment.count == 0:
            return bool(durations_s.max() >= MIN_STRETCH_S)
        if durations_s.max() >= 2 * MIN_STRETCH_S + self._enrollment.gap_s:
            return True
        recordings = {utterance.path for utterance in own if utterance.duration_s >= MIN_STRETCH_S}
        return len(recordings) > 1


def _draw_long(speaker: _Speaker, duration_s: float, rng: np.random.Generator) -> Utterance:
    """One of the utterances that are at least `duration_s` long, or the longest if there is none."""
    long_enough = np.flatnonzero(speaker.durations_s >= duration_s)
    if long_enough.size == 0:
        return speaker.utterances[int(speaker.durations_s.argmax())]
    return speaker.utterances[long_enough[rng.integers(long_enough.size)]]


# A stretch this far below its own utterance is a pause with its background noise, not speech: bringing that
# to a drawn level would make a "speaker" of the noise.
PAUSE_DB = 20.0
Drawn = tuple[list[UtteranceSegment], tuple[UtteranceSegment, ...]]
"""What somebody says, and the enrollments."""


class SpeakerPool:
    """Draws excerpts and enrollments of speakers, none of them silent.

    Args:
        config: ranges and weights.
        utterances: the corpus, in any order.
        reader: reads it.

    Attributes:
        voices: the corpus by speaker.
        config, reader: as given.
    """

    def __init__(self, config: SimulationConfig, utterances: Sequence[Utterance], reader: Reader) -> None:
        self.config = config
        self.reader = reader
        self.voices = SegmentChooser(utterances, config.enrollment)
        self._levels_db: dict[str, float] = {}

    def draw_enrollments(self, speaker_id: str, rng: np.random.Generator) -> tuple[UtteranceSegment, ...]:
        """Enrollments of somebody who says nothing.

        Raises:
            UnusableDraw: all that was drawn is silent, or too short.
        """
        return self.draw_voice(speaker_id, self.reader.sample_rate, rng)[1]

    def level_db(self, utterance: Utterance) -> float:
        """Active level of a whole utterance; measured once."""
        known = self._levels_db.get(utterance.utterance_id)
        if known is None:
            known = active_level_db(self.reader.read(utterance), self.reader.sample_rate)
            self._levels_db[utterance.utterance_id] = known
        return known

    def draw_voice(
        self, speaker_id: str, num_samples: int | None, rng: np.random.Generator
    ) -> tuple[UtteranceSegment, tuple[UtteranceSegment, ...]]:
        """Excerpt and enrollments of one speaker; where one of them is silent, all are drawn again.

        Raises:
            UnusableDraw: all that was drawn is silent, or too short.
        """

        def draw() -> Drawn | None:
            drawn = self.voices.draw(speaker_id, num_samples, self.reader, rng)
            return drawn and ([drawn[0]], drawn[1])

        (excerpt,), enrollments = self._first_heard(speaker_id, draw)
        return excerpt, enrollments

    def draw_turns(self, speaker_id: str, lengths: Sequence[int], rng: np.random.Generator) -> Drawn:
        """Turns of one speaker, those after the first that are silent left out, and enrollments.

        Raises:
            UnusableDraw: as `draw_voice`.
        """
        (first, *others), enrollments = self._first_heard(
            speaker_id, lambda: self.voices.draw_turns(speaker_id, lengths, self.reader, rng)
        )
        return [first, *filter(self.is_speech, others)], enrollments

    def _first_heard(self, speaker_id: str, draw: Callable[[], Drawn | None]) -> Drawn:
        """The first that `draw` gives whose first stretch and enrollments are speech."""
        problem = ""
        for _ in range(MAX_ATTEMPTS_OF_A_SPEAKER):
            drawn = draw()
            if drawn is None:
                problem = too_short_message(speaker_id)
                continue
            try:
                for stretch in (drawn[0][0], *drawn[1]):
                    self.check_speech(stretch)
            except UnusableDraw as unusable:
                problem = str(unusable)
                continue
            return drawn
        raise UnusableDraw(problem)

    def is_speech(self, stretch: UtteranceSegment) -> bool:
        """Whether a stretch is neither silent nor a pause of its utterance."""
        level_db = active_level_db(read_segment(stretch, self.reader), self.reader.sample_rate)
        return level_db != -np.inf and level_db >= self.level_db(stretch.utterance) - PAUSE_DB

    def check_speech(self, stretch: UtteranceSegment) -> None:
        """Refuse a stretch that is silent, or a pause of its utterance."""
        if not self.is_speech(stretch):
            start_s, stop_s = stretch.start / self.reader.sample_rate, stretch.stop / self.reader.sample_rate
            name = stretch.utterance.utterance_id
            raise UnusableDraw(f"utterance {name!r} is silent from {start_s:.2f} s to {stop_s:.2f} s")
