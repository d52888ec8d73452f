"""The voices of a corpus, and what of their recordings is speech."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from wesep_py.audio.level import active_level_db
from wesep_py.corpus.reader import Reader
from wesep_py.corpus.utterance import Utterance
from wesep_py.simulation.config import SimulationConfig
from wesep_py.simulation.recipe_parts import Stretch
from wesep_py.simulation.speech.voices import MAX_ATTEMPTS_OF_A_SPEAKER, Voices
from wesep_py.simulation.unusable import Unusable, read_stretch, too_short

# A stretch this far below its own utterance is a pause with its background noise, not speech: bringing that
# to a drawn level would make a "speaker" of the noise.
PAUSE_DB = 20.0


Drawn = tuple[list[Stretch], tuple[Stretch, ...]]
"""What somebody says, and the enrollments."""


class Talkers:
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
        self.voices = Voices(utterances, config.enrollment)
        self._levels_db: dict[str, float] = {}

    def draw_enrollments(self, speaker_id: str, rng: np.random.Generator) -> tuple[Stretch, ...]:
        """Enrollments of somebody who says nothing.

        Raises:
            Unusable: all that was drawn is silent, or too short.
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
    ) -> tuple[Stretch, tuple[Stretch, ...]]:
        """Excerpt and enrollments of one speaker; where one of them is silent, all are drawn again.

        Raises:
            Unusable: all that was drawn is silent, or too short.
        """

        def draw() -> Drawn | None:
            drawn = self.voices.draw(speaker_id, num_samples, self.reader, rng)
            return drawn and ([drawn[0]], drawn[1])

        (excerpt,), enrollments = self._first_heard(speaker_id, draw)
        return excerpt, enrollments

    def draw_turns(self, speaker_id: str, lengths: Sequence[int], rng: np.random.Generator) -> Drawn:
        """Turns of one speaker, those after the first that are silent left out, and enrollments.

        Raises:
            Unusable: as `draw_voice`.
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
                problem = too_short(speaker_id)
                continue
            try:
                for stretch in (drawn[0][0], *drawn[1]):
                    self.check_speech(stretch)
            except Unusable as unusable:
                problem = str(unusable)
                continue
            return drawn
        raise Unusable(problem)

    def is_speech(self, stretch: Stretch) -> bool:
        """Whether a stretch is neither silent nor a pause of its utterance."""
        level_db = active_level_db(read_stretch(stretch, self.reader), self.reader.sample_rate)
        return level_db != -np.inf and level_db >= self.level_db(stretch.utterance) - PAUSE_DB

    def check_speech(self, stretch: Stretch) -> None:
        """Refuse a stretch that is silent, or a pause of its utterance."""
        if not self.is_speech(stretch):
            start_s, stop_s = stretch.start / self.reader.sample_rate, stretch.stop / self.reader.sample_rate
            name = stretch.utterance.utterance_id
            raise Unusable(f"utterance {name!r} is silent from {start_s:.2f} s to {stop_s:.2f} s")
