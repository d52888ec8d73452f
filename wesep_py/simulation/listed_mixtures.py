"""Training samples from listed mixtures: cut at other positions and with other enrollments in every epoch."""

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
from wesep_py.simulation.description.recipe import NoiseRecipe, Recipe, SourceRecipe, UnusableDraw, UtteranceSegment
from wesep_py.simulation.description.simulation_config import SimulationConfig
from wesep_py.simulation.level_setting import set_enrollment_levels
from wesep_py.simulation.rendering import MixtureParts, read_parts
from wesep_py.simulation.simulator import ADDED_OPTIONS, MAX_ATTEMPTS, Simulator, UnreadableRecording
from wesep_py.simulation.speech.speaker_pool import MIN_SEGMENT_S

logger = logging.getLogger(__name__)

# Last numbers of the seeds of further random generators: the mixture that replaces an unreadable one, and the order of
# an epoch.
REPLACEMENT = 3
EPOCH_ORDER = 1
APPLICABLE_KEYS = ("duration_s", "enrollment", "peak")


@dataclass(frozen=True)
class _EnrollmentCandidate:
    """Utterance that may be an enrollment, and the name of what is said in it."""

    utterance: Utterance
    spoken: str


class ListedMixtures(Simulator):
    """Simulator that uses the mixtures of lists, each once per epoch, in an order drawn for the epoch.

    Drawn are the mixture, where it is cut (`simulation.duration_s`), which source is the target, and the enrollments
    (`simulation.enrollment`): another recording of the speaker, never what is said in the mixture. If a recording
    cannot be read, another mixture replaces it. Levels and noise are those of the list. A sample is a function of
    (seed, epoch, index), as for a drawn mixture. An epoch may have any length; if it is a multiple of the number of
    mixtures, it contains all of them equally often.

    Args:
        config: `duration_s`, `enrollment` and `peak` apply; all other keys must have their default.
        corpus: the mixtures, and the speech that enrollments are drawn from.
        noises: recordings for the noise of enrollments, if there is any.
        reader: reads all of them.
        seed: 0 or more.
        embeddings: precomputed embeddings for the samples, or `None`.

    Attributes:
        mixtures: the mixtures that are used.
        left_out: ids of the mixtures with a speaker who says nothing elsewhere, so that there is no enrollment.

    Raises:
        InputError: a key of the simulation does not apply, or no mixture has enrollments for all of its speakers.
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
        self._candidates: dict[str, list[_EnrollmentCandidate]] = defaultdict(list)
        for utterance in sorted(corpus.speech, key=lambda item: item.utterance_id):
            spoken = corpus.recording_ids.get(utterance.utterance_id, utterance.utterance_id)
            if utterance.duration_s >= MIN_SEGMENT_S:
                self._candidates[utterance.speaker_id].append(_EnrollmentCandidate(utterance, spoken))
        usable = [
            all(any(True for _ in self._others(source)) for source in mixture.sources) for mixture in corpus.mixtures
        ]
        self.mixtures = [mixture for mixture, is_usable in zip(corpus.mixtures, usable, strict=True) if is_usable]
        self.left_out = [m.mixture_id for m, is_usable in zip(corpus.mixtures, usable, strict=True) if not is_usable]
        super().__init__(config, corpus.speech, noises, reader, seed, embeddings=embeddings)

    def _check_corpus(self) -> None:
        if not self.mixtures:
            raise InputError(
                "no mixture of the lists has other speech of its speakers for enrollments; "
                "name more speech of theirs in data.train"
            )
        if self.left_out:
            logger.warning(
                "%d of %d mixtures are left out, because one of their speakers says nothing elsewhere: %s",
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
            rng, more = np.random.default_rng(key), np.random.default_rng([*key, ADDED_OPTIONS])
            blank = Recipe(self.seed, epoch, index, attempt, self.sample_rate, 0, (), 0)
            try:
                plan = self._add_negatives(self._plan_listed(blank, mixture, rng), key)
                if self.config.enrollment.is_augmented:
                    plan = replace(plan, sources=tuple(self._augment(source, more) for source in plan.sources))
                    plan = self._add_speeds(plan, key)
                    self._check_enrollment_noise(plan)
                parts = read_parts(plan, self.reader)
                self._check_enrollments(mixture, parts)
                return self._set_list_levels(plan, parts, rng), parts
            except UnusableDraw as error:
                problem, kind = str(error), InputError
            except UnreadableRecording as error:
                problem, kind = str(error), AudioError
                self.unreadable_files.add(problem)
                mixture = self.mixtures[int(np.random.default_rng([*key, REPLACEMENT]).integers(len(self.mixtures)))]
        raise kind(
            f"mixture {mixture.mixture_id!r}: {MAX_ATTEMPTS} cuts in a row cannot be used; of the last, {problem}; "
            "take it out of its list"
        )

    def _plan_listed(self, recipe: Recipe, mixture: ListedMixture, rng: np.random.Generator) -> Recipe:
        """Draw where a mixture is cut, its target and its enrollments."""
        available = min(self.reader.length(source.utterance) for source in mixture.sources)
        duration_s = self.config.duration_s
        length = available if duration_s is None else min(available, round(duration_s * self.sample_rate))
        start = int(rng.integers(available - length + 1))
        sources = tuple(
            SourceRecipe(
                UtteranceSegment(source.utterance, start, length, source.gain), 0, self._draw_enrollments(source, rng)
            )
            for source in mixture.sources
        )
        noise = None
        if mixture.noise is not None and mixture.noise_utterance is not None:
            first = round(mixture.noise.offset_s * self.sample_rate) + start
            noise = NoiseRecipe(
                "recording", mixture.noise.gain, (UtteranceSegment(mixture.noise_utterance, first, length),)
            )
        return replace(
            recipe,
            num_samples=length,
            sources=sources,
            target=int(rng.integers(len(sources))),
            noise=noise,
            sir_db=(0.0,) * len(sources),
        )

    def _others(self, source: ListedSource) -> Iterator[Utterance]:
        """Yield the utterances that can enroll the speaker of a source: other words, from another file."""
        return (
            candidate.utterance
            for candidate in self._candidates[source.utterance.speaker_id]
            if candidate.spoken != source.recording_id and candidate.utterance.path != source.utterance.path
        )

    def _draw_enrollments(self, source: ListedSource, rng: np.random.Generator) -> tuple[UtteranceSegment, ...]:
        """Draw the enrollment segments of a source, each from another utterance."""
        low, high = self.config.enrollment.duration_s
        others = list(self._others(source))
        long_enough = [other for other in others if other.duration_s >= low]
        candidates = long_enough or [max(others, key=lambda other: other.duration_s)]
        count = min(self.config.enrollment.count, len(candidates))
        segments = []
        for position in rng.choice(len(candidates), size=count, replace=False):
            available = self.reader.length(candidates[position])
            length = min(round(rng.uniform(low, high) * self.sample_rate), available)
            segments.append(UtteranceSegment(candidates[position], int(rng.integers(available - length + 1)), length))
        return tuple(segments)

    def _check_enrollments(self, mixture: ListedMixture, parts: MixtureParts) -> None:
        """Raise `UnusableDraw` if an enrollment is silent."""
        for source, pieces in zip(mixture.sources, parts.enrollments, strict=True):
            if any(active_level_db(piece, self.sample_rate) == -np.inf for piece in pieces):
                raise UnusableDraw(f"the enrollment for {source.recording_id!r} is silent")
        if any(active_level_db(piece, self.sample_rate) == -np.inf for piece in parts.bystander):
            raise UnusableDraw("the negative enrollment is silent")

    def _set_list_levels(self, plan: Recipe, parts: MixtureParts, rng: np.random.Generator) -> Recipe:
        """Return the recipe with the levels of its enrollments, and with the SIR that results from the list's gains.

        Raises:
            UnusableDraw: a source is silent.
        """
        levels_db = [
            active_level_db(image * np.float32(source.excerpt.gain), self.sample_rate)
            for image, source in zip(parts.images, plan.sources, strict=True)
        ]
        if -np.inf in levels_db:
            raise UnusableDraw(f"{plan.sources[levels_db.index(-np.inf)].excerpt.utterance.utterance_id!r} is silent")
        sources = tuple(
            replace(
                source,
                **set_enrollment_levels(
                    source.enrollments, source.augmentation, pieces, self.sample_rate, self.config, rng
                ),
            )
            for source, pieces in zip(plan.sources, parts.enrollments, strict=True)
        )
        bystander = plan.bystander
        if bystander is not None:
            levels = set_enrollment_levels(
                bystander.enrollments, bystander.augmentation, parts.bystander, self.sample_rate, self.config, rng
            )
            bystander = replace(bystander, **levels)
        sir_db = tuple(float(levels_db[plan.reference] - level) for level in levels_db)
        return replace(plan, sources=sources, sir_db=sir_db, bystander=bystander)


def check_applies(config: SimulationConfig) -> None:
    """Raise an error if a configuration has keys that do not apply to listed mixtures.

    Raises:
        InputError: a key that is not at its default.
    """
    default = SimulationConfig(duration_s=config.duration_s, min_source_s=config.min_source_s)
    names = [f.name for f in fields(config) if f.name not in (*APPLICABLE_KEYS, "min_source_s")]
    if changed := [name for name in names if getattr(config, name) != getattr(default, name)]:
        raise InputError(
            f"simulation.{changed[0]}: does not apply to the mixtures of data.mixtures; "
            "leave it out (of simulation, duration_s, enrollment and peak apply)"
        )


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, round_: int, count: int) -> tuple[int, ...]:
    """Return the order of the mixtures in one round of an epoch."""
    return tuple(int(n) for n in np.random.default_rng([seed, epoch, round_, count, EPOCH_ORDER]).permutation(count))
