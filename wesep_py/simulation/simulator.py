"""Drawing of mixtures: a recipe is a function of the configuration, the corpus and (seed, epoch, index).

`Simulator.draw` returns the recipe of a mixture, `Simulator.sample` the mixture itself. The order of the draws is
fixed, because any change of it changes all mixtures. Options that were added later therefore draw from random numbers
of their own (`ADDED_OPTIONS`, `ENROLLMENT_SPEED`, `NEGATIVE_ENROLLMENT`).
"""

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
    BYSTANDER,
    AbsentSpeaker,
    Augmentation,
    BankRoomRecipe,
    Recipe,
    RoomRecipe,
    SourceRecipe,
    UnusableDraw,
)
from wesep_py.simulation.description.simulation_config import RoomConfig, SimulationConfig
from wesep_py.simulation.level_setting import set_levels
from wesep_py.simulation.noise import NoiseDrawer
from wesep_py.simulation.rendering import MixtureParts, Sample, apply_gains, read_parts
from wesep_py.simulation.rooms.bank_opening import open_bank
from wesep_py.simulation.rooms.fra import draw_room
from wesep_py.simulation.speech.placement import SpeechDrawer

logger = logging.getLogger(__name__)

# After this many unusable draws in a row (silent, unreadable), the corpus is the cause and not chance.
MAX_ATTEMPTS = 50
# Last number of the seeds of further random generators: see the module's docstring.
ADDED_OPTIONS = 1
ENROLLMENT_SPEED = 2
NEGATIVE_ENROLLMENT = 3
EnrolledSpeaker = TypeVar("EnrolledSpeaker", SourceRecipe, AbsentSpeaker)
Result = TypeVar("Result")


class Simulator:
    """Draws mixtures from a corpus.

    A draw is a function of the configuration, the corpus, the sample rate and (seed, epoch, index) alone: it does not
    depend on earlier draws, on the process, or on the order of the utterances. Which recordings can be read is a
    property of the corpus: if a recording that was drawn cannot be read, the mixture is drawn again.

    Args:
        config: ranges and weights.
        utterances: the speech.
        noises: noise recordings; required if the configuration has noise of kind `recording`.
        reader: reads `utterances` and `noises`, at `sample_rate`.
        seed: 0 or more.
        sample_rate: in Hz; `None`: that of the reader.
        embeddings: precomputed embeddings for the samples, or `None`.

    Attributes:
        speakers: the usable speakers of the corpus and their utterances.
        unreadable_files: the recordings that could not be read until now; each is named once in the log.

    Raises:
        InputError: too few speakers with enough audio, no noise recordings although the configuration needs them, a
            reader with another sample rate, or a negative seed.

    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from wesep_py import audio
    >>> folder, rng = Path(tempfile.mkdtemp()), np.random.default_rng(0)
    >>> for name in ("anna/1", "anna/2", "bert/1", "bert/2"):  # noise stands for speech here
    ...     (folder / name).parent.mkdir(exist_ok=True)
    ...     audio.write(folder / f"{name}.wav", 0.1 * rng.standard_normal(32000, np.float32), 16000)
    >>> from wesep_py.data import FileReader, read_speaker_folders
    >>> from wesep_py.simulation import EnrollmentConfig, SimulationConfig
    >>> config = SimulationConfig(duration_s=1.0, enrollment=EnrollmentConfig(duration_s=(0.5, 1.0)))
    >>> simulator = Simulator(config, read_speaker_folders(folder), [], FileReader(16000), seed=0)
    >>> simulator.sample(epoch=0, index=5).mixture.shape
    (16000,)
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
            raise InputError(
                f"sample_rate: is {sample_rate} Hz, and the reader gives {reader.sample_rate} Hz; make them equal"
            )
        if seed < 0:
            raise InputError(f"seed: is {seed}; a whole number of 0 or more is needed")
        self.config = config
        self.reader: Reader = CheckedReader(reader)
        self.seed = seed
        self.sample_rate = reader.sample_rate
        self.embeddings = embeddings
        self.unreadable_files = UnreadableFiles()
        self._speech = SpeechDrawer(config, utterances, self.reader)
        self.speakers = self._speech.speakers
        self._check_corpus()
        self._noise = NoiseDrawer(config.noise, noises, self._speech)
        self._enrollment_noise = NoiseDrawer(config.enrollment.noise, noises, self._speech)

    def draw(self, epoch: int, index: int) -> Recipe:
        """Draw the recipe of mixture `index` of epoch `epoch`.

        Args:
            epoch, index: 0 or more.

        Raises:
            InputError: 50 draws in a row contained a silent segment; the message names the last.
            AudioError: likewise, and the last contained a recording that is missing or damaged.
        """
        return self._draw(epoch, index)[0]

    def sample(self, epoch: int, index: int) -> Sample:
        """Draw and render a mixture: bit-exact `render(draw(epoch, index), reader)`, but every file is read once."""
        recipe, parts = self._draw(epoch, index)
        return apply_gains(recipe, parts, self.reader, self.embeddings)

    def _draw(self, epoch: int, index: int) -> tuple[Recipe, MixtureParts]:
        return self._draw_usable(epoch, index, self._read_and_level)

    def _read_and_level(self, plan: Recipe, rng: np.random.Generator) -> tuple[Recipe, MixtureParts]:
        parts = read_parts(plan, self.reader)
        self._check_enrollment_noise(plan)
        return set_levels(plan, parts, self.config, rng), parts

    def _draw_usable(self, epoch: int, index: int, finish: Callable[[Recipe, np.random.Generator], Result]) -> Result:
        """Draw plans (recipes without gains) until one is usable, and return what `finish` makes of it.

        `finish` receives the generator of the plan and continues its random numbers (levels are drawn after it).
        """
        problem, kind = "", InputError
        for attempt in range(MAX_ATTEMPTS):
            key = [self.seed, epoch, index, attempt]
            rng, more = np.random.default_rng(key), np.random.default_rng([*key, ADDED_OPTIONS])
            try:
                blank = Recipe(self.seed, epoch, index, attempt, self.sample_rate, 0, (), 0)
                plan = self._add_options(self._plan(blank, rng, more), more)
                plan = self._add_speeds(self._add_negatives(plan, key), key)
                return finish(plan, rng)
            except UnusableDraw as error:
                problem, kind = str(error), InputError
            except UnreadableRecording as error:
                problem, kind = str(error), AudioError
                self.unreadable_files.add(problem)
        raise kind(
            f"mixture (seed {self.seed}, epoch {epoch}, index {index}): {MAX_ATTEMPTS} draws in a row cannot be used; "
            f"of the last, {problem}; check the recordings, duration_s and overlap_ratio"
        )

    def _check_enrollment_noise(self, plan: Recipe) -> None:
        """Read one sample of each noise recording of the enrollments.

        These noises are rendered only after the draw is accepted, so an unreadable one must be found here.

        Raises:
            AudioError: a recording cannot be read.
        """
        for speaker in plan.enrolled:
            for noise in () if speaker.augmentation is None else speaker.augmentation.noises:
                for segment in noise.stretches:
                    self.reader.read(segment.utterance, 0, 1)

    def _plan(self, recipe: Recipe, rng: np.random.Generator, more: np.random.Generator) -> Recipe:
        """Draw speakers, segments, offsets, room and noises; all gains are still 1."""
        config = self.config
        count = choose(config.speaker_weights, rng)
        overlap = choose(config.overlap_weights, rng)
        has_ratio = overlap in ("partial", "conversation") and count > 1
        ratio = rng.uniform(*config.overlap_ratio) if has_ratio else None
        speaker_ids = self.speakers.draw_speakers(count, rng)
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

    def _add_options(self, plan: Recipe, rng: np.random.Generator) -> Recipe:
        """Draw an absent target, effects, and the augmentation of enrollments."""
        config, rate = self.config, self.sample_rate
        if rng.random() < config.absent_probability:
            plan = replace(plan, target=None, absent=self._draw_absent(plan, rng))
        if config.source_effects is not None:
            sources = tuple(replace(s, effects=config.source_effects.draw(rng, rate)) for s in plan.sources)
            plan = replace(plan, sources=sources)
        if config.mixture_effects is not None:
            plan = replace(plan, effects=config.mixture_effects.draw(rng, rate))
        if config.enrollment.is_augmented:
            sources = tuple(self._augment(source, rng) for source in plan.sources)
            plan = replace(plan, sources=sources, absent=plan.absent and self._augment(plan.absent, rng))
        return plan

    def _add_speeds(self, plan: Recipe, key: Sequence[int]) -> Recipe:
        """Draw the speeds of enrollments, from random numbers of the attempt's `key`."""
        effects = self.config.enrollment.effects
        if effects is None or effects.speed is None:
            return plan
        rng = np.random.default_rng([*key, ENROLLMENT_SPEED])

        def add_speed(speaker: EnrolledSpeaker) -> EnrolledSpeaker:
            speed = effects.draw_speed(rng, self.sample_rate)
            if not speed or not speaker.enrollments:
                return speaker
            augmentation = speaker.augmentation or Augmentation()
            return replace(speaker, augmentation=replace(augmentation, effects=(*speed, *augmentation.effects)))

        sources = tuple(map(add_speed, plan.sources))
        return replace(
            plan,
            sources=sources,
            absent=plan.absent and add_speed(plan.absent),
            bystander=plan.bystander and add_speed(plan.bystander),
        )

    def _add_negatives(self, plan: Recipe, key: Sequence[int]) -> Recipe:
        """Draw the negative enrollments of all targets, from random numbers of the attempt's `key`."""
        config = self.config.enrollment
        if config.negative_probability == 0:
            return plan
        rng = np.random.default_rng([*key, NEGATIVE_ENROLLMENT])
        if rng.random() >= config.negative_probability:
            return plan
        of_bystander, count = rng.random() < config.negative_bystander, len(plan.sources)
        interferers = [[n for n in range(count) if n != source] for source in range(count)]
        if plan.absent is not None:
            interferers.append(list(range(count)))
        bystander = None
        if of_bystander or not all(interferers):
            bystander = self._draw_absent(plan, rng)
            bystander = self._augment(bystander, rng) if config.is_augmented else bystander
        negatives = tuple(
            BYSTANDER if of_bystander or not others else others[rng.integers(len(others))] for others in interferers
        )
        return replace(plan, negatives=negatives, bystander=bystander)

    def _draw_absent(self, plan: Recipe, rng: np.random.Generator) -> AbsentSpeaker:
        """Draw a speaker who is neither in the mixture nor in its babble, nor the absent target."""
        present = {speaker.speaker_id for speaker in plan.enrolled}
        present |= {segment.utterance.speaker_id for noise in plan.noises for segment in noise.stretches}
        others = [speaker_id for speaker_id in self.speakers.speaker_ids if speaker_id not in present]
        if not others:
            raise UnusableDraw("all speakers are in the mixture or its babble, and another one is needed")
        return AbsentSpeaker(self._speech.draw_enrollments(others[rng.integers(len(others))], rng))

    def _augment(self, speaker: EnrolledSpeaker, rng: np.random.Generator) -> EnrolledSpeaker:
        """Draw the augmentation of a speaker's enrollment; its noises get their SNR here, and their gains later."""
        config = self.config.enrollment
        length = sum(segment.num_samples for segment in speaker.enrollments)
        if length == 0:
            return speaker
        room = self._draw_room(config.room, 1, rng)
        noises = [
            replace(noise, snr_db=self._enrollment_noise.draw_snr_db(noise, rng))
            for noise in self._enrollment_noise.draw([speaker.speaker_id], length, rng)
        ]
        effects = () if config.effects is None else config.effects.draw(rng, self.sample_rate)
        if room is None and not noises and not effects:
            return speaker
        return replace(speaker, augmentation=Augmentation(room, tuple(noises), effects))

    def _draw_room(
        self, config: RoomConfig | None, count: int, rng: np.random.Generator
    ) -> RoomRecipe | BankRoomRecipe | None:
        if config is None or rng.random() >= config.probability:
            return None
        if config.bank is not None and rng.random() < config.bank_share:
            return open_bank(config.bank).draw_recipe(rng, count, config.rt60_s, config.early_ms)
        return draw_room(rng, config, count)

    def _check_corpus(self) -> None:
        """Raise an error if speakers or banks cannot give what the configuration needs; log speakers left out."""
        config = self.config
        most_sources = max(count for count, weight in config.speaker_weights.items() if weight > 0)
        needed = most_sources
        noise = config.noise
        if noise is not None and noise.probability > 0 and noise.kinds.get("babble"):
            needed += 1
        if config.absent_probability > 0:
            needed += 1
        enrollment = config.enrollment
        if enrollment.negative_probability > 0 and (enrollment.negative_bystander > 0 or config.speaker_weights.get(1)):
            needed += 1
        for room, count in ((config.room, most_sources), (config.enrollment.room, 1)):
            if room is not None and room.bank is not None and room.probability * room.bank_share > 0:
                open_bank(room.bank).check(count, room.rt60_s, self.sample_rate)
        available = len(self.speakers.speaker_ids)
        if available < needed:
            left_out = f" ({len(self.speakers.left_out)} more have too little audio)" if self.speakers.left_out else ""
            raise InputError(
                f"the corpus has {available} speakers with enough audio{left_out}; {needed} are needed: "
                f"add speakers, or lower num_speakers"
            )
        if self.speakers.left_out:
            logger.warning(
                "%d of %d speakers have too little audio for both excerpt and enrollment and are left out: %s",
                len(self.speakers.left_out),
                available + len(self.speakers.left_out),
                ", ".join(self.speakers.left_out[:5]) + (" …" if len(self.speakers.left_out) > 5 else ""),
            )


class UnreadableRecording(AudioError):
    """A recording cannot be read; the message says why."""


class CheckedReader:
    """Reader that raises `UnreadableRecording` for every `AudioError` of another reader.

    So an unreadable recording, for which another is drawn, differs from the error of a codec or anything else.

    Args:
        reader: reads the samples.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    @property
    def sample_rate(self) -> int:
        """Sample rate of the reader, in Hz."""
        return self._reader.sample_rate

    def read(self, utterance: Utterance, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Read as the reader does.

        Raises:
            UnreadableRecording: the recording is missing or damaged.
        """
        with _unreadable_errors():
            return self._reader.read(utterance, start, stop)

    def length(self, utterance: Utterance) -> int:
        """Return the length in samples, as the reader does.

        Raises:
            UnreadableRecording: the recording is missing or damaged, and the reader had to decode it.
        """
        with _unreadable_errors():
            return self._reader.length(utterance)


class UnreadableFiles:
    """Recordings that a simulator could not read, and replaced by others.

    Args:
        log: whether each is named in the log when it is added; otherwise the caller of `take` reports them.

    >>> unreadable = UnreadableFiles(log=False)
    >>> unreadable.add("a.wav: is an empty file")
    >>> unreadable.take(), unreadable.take()
    (['a.wav: is an empty file'], [])
    """

    def __init__(self, log: bool = True) -> None:
        self._log = log
        self._reasons: dict[str, bool] = {}  # reason: whether `take` has returned it

    def add(self, reason: str) -> None:
        """Add a recording by the reason why it cannot be read, in one line; known reasons are ignored."""
        if reason in self._reasons:
            return
        self._reasons[reason] = False
        if self._log:
            logger.warning("others are drawn instead of what cannot be read (%d so far): %s", len(self), reason)

    def take(self) -> list[str]:
        """Return the reasons that were added since the last call."""
        new = [reason for reason, was_taken in self._reasons.items() if not was_taken]
        self._reasons.update(dict.fromkeys(new, True))
        return new

    def __len__(self) -> int:
        return len(self._reasons)


@contextmanager
def _unreadable_errors() -> Iterator[None]:
    try:
        yield
    except AudioError as error:
        raise UnreadableRecording(str(error)) from error
