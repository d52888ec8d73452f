"""Drawing mixtures: a recipe as a function of (seed, epoch, index)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from wesep_py.audio.level import active_level_db
from wesep_py.corpus.reader import Reader
from wesep_py.corpus.utterance import Utterance
from wesep_py.errors import InputError
from wesep_py.simulation.config import NoiseConfig, SimulationConfig
from wesep_py.simulation.layout import Slot, fixed_layout, whole_layout
from wesep_py.simulation.levels import level_gain, set_levels
from wesep_py.simulation.recipe import NoiseRecipe, Recipe, RoomRecipe, SourceRecipe, Stretch
from wesep_py.simulation.render import Parts, Sample, assemble, read_parts, read_stretch
from wesep_py.simulation.voices import Voices

logger = logging.getLogger(__name__)

Choice = TypeVar("Choice")

# After so many silent draws in a row the corpus, not chance, is to blame.
MAX_ATTEMPTS = 50
# A speaker whose stretches are silent this often in a row makes way for others.
MAX_ATTEMPTS_OF_A_SPEAKER = 10
# A stretch this far below its own utterance is a pause with its background noise, not speech: bringing that
# to a drawn level would make a "speaker" of the noise.
PAUSE_DB = 20.0
# Each voice in babble is brought to this level; only their equality matters, the SNR sets the sum's.
BABBLE_DB = -25.0


class _Unusable(Exception):
    """What was drawn cannot be used, and why."""


class Simulator:
    """Draws mixtures from a corpus.

    What is drawn is a function of the configuration, the corpus, the sample rate and (seed, epoch, index)
    alone: not of what was drawn before, of the process, or of the order of the utterances.

    Args:
        config: ranges and weights.
        utterances: the speech.
        noises: noise recordings; needed where the configuration has noise of kind `recording`.
        reader: reads `utterances` and `noises`, at `sample_rate`.
        seed: 0 or more.
        sample_rate: in Hz; `None` for the reader's.

    Raises:
        InputError: too few speakers with enough audio, no noise where noise is asked for, a reader at another
            rate, or a negative seed.

    >>> simulator = Simulator(SimulationConfig(), utterances, [], reader, seed=0)  # doctest: +SKIP
    >>> simulator.sample(epoch=0, index=5).mixture.shape                           # doctest: +SKIP
    (48000,)
    """

    def __init__(
        self,
        config: SimulationConfig,
        utterances: Sequence[Utterance],
        noises: Sequence[Utterance],
        reader: Reader,
        seed: int = 0,
        sample_rate: int | None = None,
    ) -> None:
        if sample_rate is not None and reader.sample_rate != sample_rate:
            raise InputError(f"the reader gives {reader.sample_rate} Hz and {sample_rate} Hz is asked; make them equal")
        if seed < 0:
            raise InputError(f"seed: is {seed}; a whole number of 0 or more is needed")
        self.config = config
        self.reader = reader
        self.seed = seed
        self.sample_rate = reader.sample_rate
        self.voices = Voices(utterances, config.enrollment)
        self._noises = sorted(noises, key=lambda noise: noise.utterance_id)
        self._levels_db: dict[str, float] = {}
        self._check_corpus()

    def draw(self, epoch: int, index: int) -> Recipe:
        """The recipe of mixture `index` of epoch `epoch`.

        Args:
            epoch, index: 0 or more.

        Raises:
            InputError: 50 draws in a row held a silent stretch; the message names the last.
            AudioError: a recording that is missing or damaged.
        """
        return self._draw(epoch, index)[0]

    def sample(self, epoch: int, index: int) -> Sample:
        """The mixture itself: `render(draw(epoch, index), reader)`, to the bit, but everything is read once."""
        return assemble(*self._draw(epoch, index))

    def _draw(self, epoch: int, index: int) -> tuple[Recipe, Parts]:
        problem = ""
        for attempt in range(MAX_ATTEMPTS):
            rng = np.random.default_rng([self.seed, epoch, index, attempt])
            try:
                plan = self._plan(Recipe(self.seed, epoch, index, attempt, self.sample_rate, 0, (), 0), rng)
                parts = read_parts(plan, self.reader)
                self._check_sound(plan, parts)
            except _Unusable as unusable:
                problem = str(unusable)
                continue
            return set_levels(plan, parts, self.config, rng), parts
        raise InputError(
            f"mixture (seed {self.seed}, epoch {epoch}, index {index}): {MAX_ATTEMPTS} draws in a row cannot be used; "
            f"of the last, {problem}; check the recordings and duration_s"
        )

    def _plan(self, recipe: Recipe, rng: np.random.Generator) -> Recipe:
        """Who speaks what, when and where, all gains still 1."""
        config = self.config
        count = _choose(config.speaker_weights, rng)
        overlap = _choose(config.overlap_weights, rng)
        ratio = rng.uniform(*config.overlap_ratio) if overlap == "partial" and count > 1 else None
        speaker_ids = self.voices.draw_speakers(count, rng)
        sources, num_samples = self._place(speaker_ids, overlap, ratio or 0.0, rng)
        return replace(
            recipe,
            num_samples=num_samples,
            sources=sources,
            target=int(rng.integers(count)),
            target_kind=config.target,
            overlap=overlap,
            overlap_ratio=ratio,
            room=self._draw_room(count, rng),
            noise=self._draw_noise(speaker_ids, num_samples, rng),
        )

    def _place(
        self, speaker_ids: Sequence[str], overlap: str, ratio: float, rng: np.random.Generator
    ) -> tuple[tuple[SourceRecipe, ...], int]:
        rate, duration_s = self.sample_rate, self.config.duration_s
        slots: list[Slot] | None = None
        num_samples = 0
        if duration_s is not None:
            num_samples = round(duration_s * rate)
            shortest = round(self.config.min_source_s * rate)
            slots = fixed_layout(overlap, len(speaker_ids), num_samples, ratio, shortest, rng)
        drawn = []
        for position, speaker_id in enumerate(speaker_ids):
            wanted = None if slots is None else slots[position].num_samples
            drawn.append(self._draw_voice(speaker_id, wanted, rng))
        if slots is None:
            slots, num_samples = whole_layout(overlap, [excerpt.num_samples for excerpt, _ in drawn], ratio)
        sources = []
        for slot, (excerpt, enrollments) in zip(slots, drawn, strict=True):
            if excerpt.num_samples > slot.num_samples:
                excerpt = replace(excerpt, num_samples=slot.num_samples)
                self._check_speech(excerpt)
            spare = slot.num_samples - excerpt.num_samples
            sources.append(SourceRecipe(excerpt, slot.offset + int(rng.integers(spare + 1)), enrollments))
        return tuple(sources), num_samples

    def _draw_voice(
        self, speaker_id: str, num_samples: int | None, rng: np.random.Generator
    ) -> tuple[Stretch, tuple[Stretch, ...]]:
        """Excerpt and enrollments of one speaker; where one of them is silent, all are drawn again."""
        problem = ""
        for _ in range(MAX_ATTEMPTS_OF_A_SPEAKER):
            drawn = self.voices.draw(speaker_id, num_samples, self.reader, rng)
            if drawn is None:
                problem = f"an utterance of {speaker_id!r} is too short to give both excerpt and enrollment"
                continue
            excerpt, enrollments = drawn
            try:
                for stretch in (excerpt, *enrollments):
                    self._check_speech(stretch)
            except _Unusable as unusable:
                problem = str(unusable)
                continue
            return drawn
        raise _Unusable(problem)

    def _draw_room(self, count: int, rng: np.random.Generator) -> RoomRecipe | None:
        config = self.config.room
        if config is None or rng.random() >= config.probability:
            return None
        from wesep_py.simulation.rooms import draw_room

        return draw_room(rng, config, count)

    def _draw_noise(self, speaker_ids: Sequence[str], num_samples: int, rng: np.random.Generator) -> NoiseRecipe | None:
        config = self.config.noise
        if config is None or rng.random() >= config.probability:
            return None
        kind = _choose(config.kinds, rng)
        if kind == "coloured":
            return NoiseRecipe(kind, slope_db=rng.uniform(*config.slope_db), seed=int(rng.integers(2**31)))
        if kind == "recording":
            noise = self._noises[rng.integers(len(self._noises))]
            stretch = Stretch(noise, int(rng.integers(self.reader.length(noise))), num_samples)
            return NoiseRecipe(kind, stretches=(stretch,))
        return NoiseRecipe(kind, stretches=self._draw_babble(config, speaker_ids, num_samples, rng))

    def _draw_babble(
        self, config: NoiseConfig, speaker_ids: Sequence[str], num_samples: int, rng: np.random.Generator
    ) -> tuple[Stretch, ...]:
        """Stretches of speakers who are not in the mixture, with gains that make their voices equally loud."""
        low, high = config.babble_speakers
        count = min(int(rng.integers(low, high + 1)), len(self.voices.speaker_ids) - len(speaker_ids))
        candidates = self.voices.draw_speakers(count + len(speaker_ids), rng)
        others = [speaker_id for speaker_id in candidates if speaker_id not in speaker_ids][:count]
        stretches = []
        for speaker_id in others:
            stretch = self.voices.draw_stretch(speaker_id, num_samples, self.reader, rng)
            level_db = self._level_db(stretch.utterance)
            gain = 0.0 if level_db == -np.inf else level_gain(BABBLE_DB - level_db)
            stretches.append(replace(stretch, gain=gain))
        return tuple(stretches)

    def _check_speech(self, stretch: Stretch) -> None:
        """Refuse a stretch that is silent, or a pause of its utterance."""
        level_db = active_level_db(read_stretch(stretch, self.reader), self.sample_rate)
        if level_db == -np.inf or level_db < self._level_db(stretch.utterance) - PAUSE_DB:
            start_s, stop_s = stretch.start / self.sample_rate, stretch.stop / self.sample_rate
            name = stretch.utterance.utterance_id
            raise _Unusable(f"utterance {name!r} is silent from {start_s:.2f} s to {stop_s:.2f} s")

    def _check_sound(self, plan: Recipe, parts: Parts) -> None:
        """Refuse noise that is silent, and a room so large that a quiet recording vanishes in it."""
        if parts.noise is not None and active_level_db(parts.noise, self.sample_rate) == -np.inf:
            raise _Unusable("the noise is silent")
        at_microphone = () if plan.room is None else parts.images
        if any(active_level_db(image, self.sample_rate) == -np.inf for image in at_microphone):
            raise _Unusable("a source is silent at the microphone")

    def _level_db(self, utterance: Utterance) -> float:
        """Active level of a whole utterance; measured once."""
        known = self._levels_db.get(utterance.utterance_id)
        if known is None:
            known = active_level_db(self.reader.read(utterance), self.sample_rate)
            self._levels_db[utterance.utterance_id] = known
        return known

    def _check_corpus(self) -> None:
        config = self.config
        needed = max(count for count, weight in config.speaker_weights.items() if weight > 0)
        noise = config.noise
        kinds = noise.kinds if noise is not None and noise.probability > 0 else {}
        if kinds.get("babble"):
            needed += 1
        available = len(self.voices.speaker_ids)
        if available < needed:
            left_out = f" ({len(self.voices.left_out)} more have too little audio)" if self.voices.left_out else ""
            raise InputError(
                f"the corpus has {available} speakers with enough audio{left_out}; {needed} are needed: "
                f"add speakers, or lower num_speakers"
            )
        if self.voices.left_out:
            logger.warning(
                "%d of %d speakers have too little audio for both excerpt and enrollment and are left out: %s",
                len(self.voices.left_out),
                available + len(self.voices.left_out),
                ", ".join(self.voices.left_out[:5]) + (" …" if len(self.voices.left_out) > 5 else ""),
            )
        if kinds.get("recording") and not self._noises:
            raise InputError(
                "noise of kind 'recording' is asked for, and there are no noise recordings: give some, or set kinds"
            )


def _choose(weights: Mapping[Choice, float], rng: np.random.Generator) -> Any:
    """One key, as likely as its weight says; the order of the keys does not matter."""
    keys = sorted(weights, key=str)
    cumulative = np.cumsum([weights[key] for key in keys])
    return keys[int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))]
