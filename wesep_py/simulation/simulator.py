"""Drawing mixtures: a recipe as a function of (seed, epoch, index)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from wesep_py.common.errors import AudioError, InputError
from wesep_py.data.embedding_files import Embeddings
from wesep_py.data.manifest import Utterance
from wesep_py.data.reader import Reader
from wesep_py.simulation.description.ranges import choose
from wesep_py.simulation.description.recipe import (
    AbsentSpeaker,
    Augmentation,
    BankRoomRecipe,
    Recipe,
    RoomRecipe,
    SourceRecipe,
    UnusableDraw,
)
from wesep_py.simulation.description.simulation_config import RoomConfig, SimulationConfig
from wesep_py.simulation.noise import NoiseDrawer
from wesep_py.simulation.rendering import MixtureParts, Sample, apply_gains, read_parts, set_levels
from wesep_py.simulation.rooms.fra import draw_room
from wesep_py.simulation.rooms.room_bank import open_bank
from wesep_py.simulation.speech.placement import SpeechDrawer

# ----------------------------------------
# Recordings that cannot be read: each is named once in the log, with how many there are so far.

logger = logging.getLogger(__name__)


class UnreadableRecording(AudioError):
    """A recording cannot be read, and why."""


class CheckedReader:
    """A reader whose every `AudioError` is `UnreadableRecording`: of a recording, and not of a codec or of anything else.

    Args:
        reader: gives the samples.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    @property
    def sample_rate(self) -> int:
        """The rate of everything it gives, in Hz."""
        return self._reader.sample_rate

    def read(self, utterance: Utterance, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """As the reader's.

        Raises:
            UnreadableRecording: the recording is missing or damaged.
        """
        with _told():
            return self._reader.read(utterance, start, stop)

    def length(self, utterance: Utterance) -> int:
        """As the reader's.

        Raises:
            UnreadableRecording: the recording is missing or damaged, and the reader had to decode it.
        """
        with _told():
            return self._reader.length(utterance)


class UnreadableFiles:
    """What a simulator could not read, and drew others for.

    Args:
        say: whether each is named in the log; otherwise whoever `take`s them does.

    >>> broken = UnreadableFiles(say=False)
    >>> broken.add("a.wav: is an empty file")
    >>> broken.take(), broken.take()
    (['a.wav: is an empty file'], [])
    """

    def __init__(self, say: bool = True) -> None:
        self._say = say
        self._reasons: dict[str, bool] = {}  # whether it was taken

    def add(self, reason: str) -> None:
        """Name a recording and what is wrong with it, in one line; nothing happens where it was named before."""
        if reason in self._reasons:
            return
        self._reasons[reason] = False
        if self._say:
            logger.warning("others are drawn instead of what cannot be read (%d so far): %s", len(self), reason)

    def take(self) -> list[str]:
        """The reasons since the last call."""
        new = [reason for reason, was_taken in self._reasons.items() if not was_taken]
        self._reasons.update(dict.fromkeys(new, True))
        return new

    def __len__(self) -> int:
        return len(self._reasons)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except AudioError as error:
        raise UnreadableRecording(str(error)) from error


# After so many draws in a row that are silent or cannot be read, the corpus, not chance, is to blame.
MAX_ATTEMPTS = 50
# What came later than the rest is drawn from random numbers of its own, so that the rest stays as it was.
LATER = 1
SPEED = 2
Introduced = TypeVar("Introduced", SourceRecipe, AbsentSpeaker)
Made = TypeVar("Made")


class Simulator:
    """Draws mixtures from a corpus.

    What is drawn is a function of the configuration, the corpus, the sample rate and (seed, epoch, index)
    alone: not of what was drawn before, of the process, or of the order of the utterances. Which recordings can be
    read is part of the corpus: where one that was drawn cannot, everything is drawn again.

    Args:
        config: ranges and weights.
        utterances: the speech.
        noises: noise recordings; needed where the configuration has noise of kind `recording`.
        reader: reads `utterances` and `noises`, at `sample_rate`.
        seed: 0 or more.
        sample_rate: in Hz; `None` for the reader's.
        embeddings: precomputed ones for samples to carry, or `None`.

    Attributes:
        broken: the recordings that could not be read so far; each is named once in the log.

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
        embeddings: Embeddings | None = None,
    ) -> None:
        if sample_rate is not None and reader.sample_rate != sample_rate:
            raise InputError(f"the reader gives {reader.sample_rate} Hz and {sample_rate} Hz is asked; make them equal")
        if seed < 0:
            raise InputError(f"seed: is {seed}; a whole number of 0 or more is needed")
        self.config = config
        self.reader: Reader = CheckedReader(reader)
        self.seed = seed
        self.sample_rate = reader.sample_rate
        self.embeddings = embeddings
        self.broken = UnreadableFiles()
        self._speech = SpeechDrawer(config, utterances, self.reader)
        self.voices = self._speech.voices
        self._check_corpus()
        self._noise = NoiseDrawer(config.noise, noises, self._speech)
        self._enrollment_noise = NoiseDrawer(config.enrollment.noise, noises, self._speech)

    def draw(self, epoch: int, index: int) -> Recipe:
        """The recipe of mixture `index` of epoch `epoch`.

        Args:
            epoch, index: 0 or more.

        Raises:
            InputError: 50 draws in a row held a silent stretch; the message names the last.
            AudioError: likewise, where the last held a recording that is missing or damaged.
        """
        return self._draw(epoch, index)[0]

    def sample(self, epoch: int, index: int) -> Sample:
        """The mixture itself: `render(draw(epoch, index), reader)`, to the bit, but everything is read once."""
        recipe, parts = self._draw(epoch, index)
        return apply_gains(recipe, parts, self.reader, self.embeddings)

    def _draw(self, epoch: int, index: int) -> tuple[Recipe, MixtureParts]:
        return self._attempt(epoch, index, self._read_and_level)

    def _read_and_level(self, plan: Recipe, rng: np.random.Generator) -> tuple[Recipe, MixtureParts]:
        parts = read_parts(plan, self.reader)
        self._check_under_enrollments(plan)
        return set_levels(plan, parts, self.config, rng), parts

    def _attempt(self, epoch: int, index: int, make: Callable[[Recipe, np.random.Generator], Made]) -> Made:
        """What `make` makes of the first plan that can be used; it draws on from the plan's random numbers."""
        problem, kind = "", InputError
        for attempt in range(MAX_ATTEMPTS):
            key = [self.seed, epoch, index, attempt]
            rng, more = np.random.default_rng(key), np.random.default_rng([*key, LATER])
            try:
                blank = Recipe(self.seed, epoch, index, attempt, self.sample_rate, 0, (), 0)
                plan = self._add_speeds(self._add_later(self._plan(blank, rng, more), more), key)
                return make(plan, rng)
            except UnusableDraw as unusable:
                problem, kind = str(unusable), InputError
            except UnreadableRecording as error:
                problem, kind = str(error), AudioError
                self.broken.add(problem)
        raise kind(
            f"mixture (seed {self.seed}, epoch {epoch}, index {index}): {MAX_ATTEMPTS} draws in a row cannot be used; "
            f"of the last, {problem}; check the recordings, duration_s and overlap_ratio"
        )

    def _check_under_enrollments(self, plan: Recipe) -> None:
        """Read what lies under enrollments: it is rendered when everything is decided.

        Raises:
            AudioError: a recording that cannot be read.
        """
        voices = (*plan.sources, *([] if plan.absent is None else [plan.absent]))
        for voice in voices:
            for noise in () if voice.augmentation is None else voice.augmentation.noises:
                for stretch in noise.stretches:
                    self.reader.read(stretch.utterance, 0, 1)

    def _plan(self, recipe: Recipe, rng: np.random.Generator, more: np.random.Generator) -> Recipe:
        """Who speaks what, when and where, all gains still 1."""
        config = self.config
        count = choose(config.speaker_weights, rng)
        overlap = choose(config.overlap_weights, rng)
        has_ratio = overlap in ("partial", "conversation") and count > 1
        ratio = rng.uniform(*config.overlap_ratio) if has_ratio else None
        speaker_ids = self.voices.draw_speakers(count, rng)
        sources, num_samples = self._speech.place(speaker_ids, overlap, ratio or 0.0, rng, more)
        target = int(rng.integers(count))
        room = self._draw_room(config.room, count, rng)
        noises = self._noise.draw(speaker_ids, num_samples, rng)
        return replace(
            recipe,
            num_samples=num_samples,
            sources=sources,
            target=target,
            target_kind=config.target,
            overlap=overlap,
            overlap_ratio=ratio,
            room=room,
            noise=noises[0] if noises else None,
            further_noises=noises[1:],
        )

    def _add_later(self, plan: Recipe, rng: np.random.Generator) -> Recipe:
        """An absent target, effects, and what happens to enrollments."""
        config, rate = self.config, self.sample_rate
        if rng.random() < config.absent_probability:
            plan = replace(plan, target=None, absent=self._draw_absent(plan, rng))
        if config.source_effects is not None:
            changed = [replace(s, effects=config.source_effects.draw(rng, rate)) for s in plan.sources]
            plan = replace(plan, sources=tuple(changed))
        if config.mixture_effects is not None:
            plan = replace(plan, effects=config.mixture_effects.draw(rng, rate))
        if config.enrollment.is_augmented:
            sources = tuple(self._augment(source, rng) for source in plan.sources)
            plan = replace(plan, sources=sources, absent=plan.absent and self._augment(plan.absent, rng))
        return plan

    def _add_speeds(self, plan: Recipe, key: Sequence[int]) -> Recipe:
        """The speeds of enrollments, from random numbers of the attempt's `key`."""
        effects = self.config.enrollment.effects
        if effects is None or effects.speed is None:
            return plan
        rng = np.random.default_rng([*key, SPEED])

        def change(voice: Introduced) -> Introduced:
            speed = effects.draw_speed(rng, self.sample_rate)
            if not speed or not voice.enrollments:
                return voice
            augmentation = voice.augmentation or Augmentation()
            return replace(voice, augmentation=replace(augmentation, effects=(*speed, *augmentation.effects)))

        sources = tuple(map(change, plan.sources))
        return replace(plan, sources=sources, absent=plan.absent and change(plan.absent))

    def _draw_absent(self, plan: Recipe, rng: np.random.Generator) -> AbsentSpeaker:
        """Somebody who is neither in the mixture nor in its babble."""
        heard = {source.speaker_id for source in plan.sources}
        heard |= {stretch.utterance.speaker_id for noise in plan.noises for stretch in noise.stretches}
        others = [speaker_id for speaker_id in self.voices.speaker_ids if speaker_id not in heard]
        if not others:
            raise UnusableDraw("everybody is in the mixture or its babble, and somebody absent is asked for")
        return AbsentSpeaker(self._speech.draw_enrollments(others[rng.integers(len(others))], rng))

    def _augment(self, voice: Introduced, rng: np.random.Generator) -> Introduced:
        """The voice with what happens to its enrollment; its noises get their SNR here."""
        config = self.config.enrollment
        length = sum(stretch.num_samples for stretch in voice.enrollments)
        if length == 0:
            return voice
        room = self._draw_room(config.room, 1, rng)
        noises = [
            replace(noise, snr_db=self._enrollment_noise.draw_snr_db(noise, rng))
            for noise in self._enrollment_noise.draw([voice.speaker_id], length, rng)
        ]
        effects = () if config.effects is None else config.effects.draw(rng, self.sample_rate)
        if room is None and not noises and not effects:
            return voice
        return replace(voice, augmentation=Augmentation(room, tuple(noises), effects))

    def _draw_room(
        self, config: RoomConfig | None, count: int, rng: np.random.Generator
    ) -> RoomRecipe | BankRoomRecipe | None:
        if config is None or rng.random() >= config.probability:
            return None
        if config.bank is not None and rng.random() < config.bank_share:
            return open_bank(config.bank).draw_recipe(rng, count, config.rt60_s, config.early_ms)
        return draw_room(rng, config, count)

    def _check_corpus(self) -> None:
        config = self.config
        needed = max(count for count, weight in config.speaker_weights.items() if weight > 0)
        noise = config.noise
        if noise is not None and noise.probability > 0 and noise.kinds.get("babble"):
            needed += 1
        if config.absent_probability > 0:
            needed += 1
        speakers = max(count for count, weight in config.speaker_weights.items() if weight > 0)
        for room, count in ((config.room, speakers), (config.enrollment.room, 1)):
            if room is not None and room.bank is not None and room.probability * room.bank_share > 0:
                open_bank(room.bank).check(count, room.rt60_s, self.sample_rate)
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
