"""Mixtures of a list, as samples to learn from: cut anew and with other enrollments in every epoch."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import numpy as np

from wesep_py.audio.level import active_level_db
from wesep_py.common.errors import AudioError, InputError
from wesep_py.data.embedding_files import Embeddings
from wesep_py.data.manifest import Utterance
from wesep_py.data.mixture_corpus import ListedMixture, ListedSource, MixtureCorpus
from wesep_py.data.reader import Reader
from wesep_py.simulation.description.recipe import NoiseRecipe, Recipe, SourceRecipe, UtteranceSegment, UnusableDraw
from wesep_py.simulation.description.simulation_config import SimulationConfig
from wesep_py.simulation.rendering import MixtureParts, read_parts, set_enrollment_levels
from wesep_py.simulation.simulator import LATER, MAX_ATTEMPTS, Simulator, UnreadableRecording
from wesep_py.simulation.speech.speaker_pool import MIN_SEGMENT_S

logger = logging.getLogger(__name__)

# Of the random numbers that say which mixture stands in the place of one that cannot be read.
ANOTHER = 3
APPLIES = ("duration_s", "enrollment", "peak")


@dataclass(frozen=True)
class _Introduction:
    """An utterance that may introduce a voice, and the name of what is said in it."""

    utterance: Utterance
    spoken: str


class ListedMixtures(Simulator):
    """The mixtures of a corpus of mixtures, each once an epoch, in an order drawn for it.

    What is drawn is which mixture, where it is cut (`simulation.duration_s`), which source is the target, and what
    introduces each voice (`simulation.enrollment`): another recording of the speaker, never what is said in the
    mixture. Where a recording cannot be read, another mixture stands in its place. Levels and noise are the list's. A
    sample is a function of (seed, epoch, index), as a drawn mixture is. An epoch may have any length; one of a multiple
    of the number of mixtures goes through all of them.

    Args:
        config: of which `duration_s` and `enrollment` apply; everything else has to be at its default.
        corpus: the mixtures, and the speech that introduces their voices.
        noises: recordings for the noise under enrollments, if there is any.
        reader: reads all of them.
        seed: 0 or more.
        embeddings: precomputed ones for samples to carry, or `None`.

    Attributes:
        mixtures: those that are used.
        left_out: the ids of those one of whose speakers says nothing elsewhere, so that nothing introduces him or her.

    Raises:
        InputError: a key of the simulation that has no meaning here, or no mixture whose speakers can be introduced.
    """

    def __init__(
        self,
        config: SimulationConfig,
        corpus: MixtureCorpus,
        noises: Sequence[Utterance],
        reader: Reader,
        seed: int = 0,
        embeddings: Embeddings | None = None,
    ) -> None:
        check_applies(config)
        self._introductions: dict[str, list[_Introduction]] = defaultdict(list)
        for utterance in sorted(corpus.speech, key=lambda item: item.utterance_id):
            spoken = corpus.recording_ids.get(utterance.utterance_id, utterance.utterance_id)
            if utterance.duration_s >= MIN_SEGMENT_S:
                self._introductions[utterance.speaker_id].append(_Introduction(utterance, spoken))
        usable = [all(any(True for _ in self._others(one)) for one in mixture.sources) for mixture in corpus.mixtures]
        self.mixtures = [mixture for mixture, is_usable in zip(corpus.mixtures, usable, strict=True) if is_usable]
        self.left_out = [m.mixture_id for m, is_usable in zip(corpus.mixtures, usable, strict=True) if not is_usable]
        super().__init__(config, corpus.speech, noises, reader, seed, embeddings=embeddings)

    def _check_corpus(self) -> None:
        if not self.mixtures:
            raise InputError(
                "no mixture of the lists has speakers who say something elsewhere, to introduce their voices; "
                "name further speech of theirs in data.train"
            )
        if self.left_out:
            logger.warning(
                "%d of %d mixtures are left out, for one of their speakers says nothing elsewhere: %s",
                len(self.left_out),
                len(self.left_out) + len(self.mixtures),
                ", ".join(self.left_out[:5]) + (" …" if len(self.left_out) > 5 else ""),
            )

    def _draw(self, epoch: int, index: int) -> tuple[Recipe, MixtureParts]:
        round_, place = divmod(index, len(self.mixtures))
        mixture = self.mixtures[_order(self.seed, epoch, round_, len(self.mixtures))[place]]
        problem, kind = "", InputError
        for attempt in range(MAX_ATTEMPTS):
            key = [self.seed, epoch, index, attempt]
            rng, more = np.random.default_rng(key), np.random.default_rng([*key, LATER])
            blank = Recipe(self.seed, epoch, index, attempt, self.sample_rate, 0, (), 0)
            try:
                plan = self._plan_listed(blank, mixture, rng)
                if self.config.enrollment.is_augmented:
                    plan = replace(plan, sources=tuple(self._augment(source, more) for source in plan.sources))
                    plan = self._add_speeds(plan, key)
                    self._check_under_enrollments(plan)
                parts = read_parts(plan, self.reader)
                self._check_introduced(mixture, parts)
                return self._with_levels(plan, parts, rng), parts
            except UnusableDraw as unusable:
                problem, kind = str(unusable), InputError
            except UnreadableRecording as error:
                problem, kind = str(error), AudioError
                self.broken.add(problem)
                mixture = self.mixtures[int(np.random.default_rng([*key, ANOTHER]).integers(len(self.mixtures)))]
        raise kind(
            f"mixture {mixture.mixture_id!r}: {MAX_ATTEMPTS} cuts in a row cannot be used; of the last, {problem}; "
            "take it out of its list"
        )

    def _plan_listed(self, recipe: Recipe, mixture: ListedMixture, rng: np.random.Generator) -> Recipe:
        whole = min(self.reader.length(source.utterance) for source in mixture.sources)
        wanted = self.config.duration_s
        length = whole if wanted is None else min(whole, round(wanted * self.sample_rate))
        start = int(rng.integers(whole - length + 1))
        sources = tuple(
            SourceRecipe(UtteranceSegment(source.utterance, start, length, source.gain), 0, self._introduce(source, rng))
            for source in mixture.sources
        )
        noise = None
        if mixture.noise is not None and mixture.noise_utterance is not None:
            first = round(mixture.noise.offset_s * self.sample_rate) + start
            noise = NoiseRecipe("recording", mixture.noise.gain, (UtteranceSegment(mixture.noise_utterance, first, length),))
        return replace(
            recipe,
            num_samples=length,
            sources=sources,
            target=int(rng.integers(len(sources))),
            noise=noise,
            sir_db=(0.0,) * len(sources),
        )

    def _others(self, source: ListedSource) -> Iterator[Utterance]:
        """What introduces the voice of a source: other words, from another file."""
        return (
            introduction.utterance
            for introduction in self._introductions[source.utterance.speaker_id]
            if introduction.spoken != source.recording_id and introduction.utterance.path != source.utterance.path
        )

    def _introduce(self, source: ListedSource, rng: np.random.Generator) -> tuple[UtteranceSegment, ...]:
        low, high = self.config.enrollment.duration_s
        others = list(self._others(source))
        long_enough = [other for other in others if other.duration_s >= low]
        candidates = long_enough or [max(others, key=lambda other: other.duration_s)]
        count = min(self.config.enrollment.count, len(candidates))
        stretches = []
        for position in rng.choice(len(candidates), size=count, replace=False):
            available = self.reader.length(candidates[position])
            length = min(round(rng.uniform(low, high) * self.sample_rate), available)
            stretches.append(UtteranceSegment(candidates[position], int(rng.integers(available - length + 1)), length))
        return tuple(stretches)

    def _check_introduced(self, mixture: ListedMixture, parts: MixtureParts) -> None:
        """Refuse a cut whose enrollment is silent."""
        for source, pieces in zip(mixture.sources, parts.enrollments, strict=True):
            if any(active_level_db(piece, self.sample_rate) == -np.inf for piece in pieces):
                raise UnusableDraw(f"what introduces the speaker of {source.recording_id!r} is silent")

    def _with_levels(self, plan: Recipe, parts: MixtureParts, rng: np.random.Generator) -> Recipe:
        """The recipe with the levels of its enrollments, and with the SIR that the list gave it.

        Raises:
            UnusableDraw: somebody is silent.
        """
        heard_db = [
            active_level_db(image * np.float32(source.excerpt.gain), self.sample_rate)
            for image, source in zip(parts.images, plan.sources, strict=True)
        ]
        if -np.inf in heard_db:
            raise UnusableDraw(f"{plan.sources[heard_db.index(-np.inf)].excerpt.utterance.utterance_id!r} is silent")
        sources = tuple(
            replace(
                source,
                **set_enrollment_levels(
                    source.enrollments, source.augmentation, pieces, self.sample_rate, self.config, rng
                ),
            )
            for source, pieces in zip(plan.sources, parts.enrollments, strict=True)
        )
        sir_db = tuple(float(heard_db[plan.reference] - level) for level in heard_db)
        return replace(plan, sources=sources, sir_db=sir_db)


def check_applies(config: SimulationConfig) -> None:
    """Refuse a configuration of the simulation that says how mixtures are made, where they are given.

    Raises:
        InputError: a key that is not at its default.
    """
    default = SimulationConfig(duration_s=config.duration_s, min_source_s=config.min_source_s)
    names = [f.name for f in fields(config) if f.name not in (*APPLIES, "min_source_s")]
    if changed := [name for name in names if getattr(config, name) != getattr(default, name)]:
        raise InputError(
            f"simulation.{changed[0]}: says how mixtures are made, and data.mixtures gives them as they are; "
            "leave it out (of simulation, duration_s, enrollment and peak apply)"
        )


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, round_: int, count: int) -> tuple[int, ...]:
    """The order in which an epoch goes through the mixtures."""
    return tuple(int(n) for n in np.random.default_rng([seed, epoch, round_, count, LATER]).permutation(count))
