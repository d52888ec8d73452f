"""The gains that give a mixture its drawn levels: SIR, SNR, level of mixture and enrollments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.level import active_level_db, active_mask, gain_to_db, loudness_lufs
from wesep_py.common.errors import InputError
from wesep_py.data.embedding_files import Embeddings
from wesep_py.data.reader import Reader
from wesep_py.simulation.description.effects import LevelDrift, apply_effects
from wesep_py.simulation.description.ranges import gain_between, level_gain
from wesep_py.simulation.description.recipe import (
    Augmentation,
    NoiseRecipe,
    Recipe,
    SourceRecipe,
    UtteranceSegment,
    UnusableDraw,
    read_segment,
)
from wesep_py.simulation.description.simulation_config import Range, SimulationConfig
from wesep_py.simulation.noise import draw_noise_snr_db, render_noise

# ----------------------------------------
# What an enrollment goes through: its stretches joined, put into a room, under noise, through effects, to a level.

Waveform = NDArray[np.float32]


def render_enrollment(
    stretches: Sequence[UtteranceSegment], pieces: Sequence[Waveform], augmentation: Augmentation | None, reader: Reader
) -> Waveform:
    """An enrollment `[samples]`.

    Args:
        stretches: with their gains.
        pieces: their samples, without gains.
        augmentation: what happens to them once they are joined, or `None`.
        reader: knows the recordings of its noise.
    """
    scaled = [piece * np.float32(stretch.gain) for piece, stretch in zip(pieces, stretches, strict=True)]
    joined = np.concatenate([np.zeros(0, dtype=np.float32), *scaled])
    return joined if augmentation is None or joined.size == 0 else augment_enrollment(joined, augmentation, reader)


def augment_enrollment(waveform: Waveform, augmentation: Augmentation, reader: Reader) -> Waveform:
    """A waveform `[samples]` in its room, under its noise and through its effects, at its level; a new array.

    Args:
        waveform: a voice by itself.
        augmentation: what happens to it.
        reader: gives the sample rate, and knows the recordings of the noise.
    """
    rate = reader.sample_rate
    if augmentation.room is not None:
        from wesep_py.simulation.rooms.reverberation import reverberate

        waveform = reverberate(waveform[None], augmentation.room, rate)[0][0]
    speech_db = active_level_db(waveform, rate)
    noisy = waveform
    for recipe in augmentation.noises:
        noise = render_noise(recipe, waveform.size, reader)
        noisy = noisy + noise * np.float32(
            gain_between(active_level_db(noise, rate), speech_db - (recipe.snr_db or 0.0))
        )
    noisy = apply_effects(noisy, augmentation.effects, rate)
    gain = gain_between(active_level_db(noisy, rate), augmentation.level_db)
    peak = float(np.abs(noisy).max())
    return noisy * np.float32(min(gain, augmentation.peak / peak) if peak > 0 else gain)


# ----------------------------------------
# From the recipe of a mixture to its waveforms.

ACTIVITY_RATE_HZ = 100


@dataclass(frozen=True)
class Sample:
    """A rendered mixture and its parts; `mixture == images.sum(0) + noise + distortion`.

    Attributes:
        recipe: what it was rendered from.
        mixture: `[samples]`.
        images: each source as it arrives at the microphone, `[sources, samples]`.
        noise: `[samples]`; zero where the recipe has none.
        distortion: what the effects on the mixture alone added, `[samples]`; zero where there are none.
        targets: what is to be extracted for each source, `[sources, samples]`: dry, direct, early or the image
            itself.
        enrollments: for each source a waveform `[samples of its own]` of the same voice.
        activity: whether each source speaks, at 100 frames a second, `[sources, frames]`; the value of a
            frame is that of its middle sample.
        absent_enrollment: of the voice that is asked for, where it is not in the mixture: `[samples of its own]`.
        embeddings: precomputed, of each source and then of the absent voice, `[dim]` each; none where none are read.
    """

    recipe: Recipe
    mixture: Waveform
    images: Waveform
    noise: Waveform
    distortion: Waveform
    targets: Waveform
    enrollments: tuple[Waveform, ...]
    activity: NDArray[np.bool_]
    absent_enrollment: Waveform | None = None
    embeddings: tuple[Waveform, ...] = ()

    def voice(self, source: int | None) -> MixtureSpeaker:
        """Everything that belongs to one voice.

        Args:
            source: which of the sources; `None`: the voice that is asked for and absent. So
                `sample.voice(sample.recipe.target)` is always the one that is asked for.

        Raises:
            InputError: `None`, and no voice is absent.
        """
        recipe = self.recipe
        if source is not None:
            embedding = self.embeddings[source] if self.embeddings else None
            return MixtureSpeaker(
                recipe.sources[source].speaker_id,
                self.targets[source],
                self.enrollments[source],
                self.activity[source],
                embedding,
            )
        if recipe.absent is None or self.absent_enrollment is None:
            raise InputError(f"recipe {recipe.mixture_id}: no voice is absent; give the number of a source")
        return MixtureSpeaker(
            recipe.absent.speaker_id,
            np.zeros_like(self.mixture),
            self.absent_enrollment,
            np.zeros(self.activity.shape[1], dtype=bool),
            self.embeddings[-1] if self.embeddings else None,
        )


@dataclass(frozen=True)
class MixtureSpeaker:
    """One voice of a sample.

    Attributes:
        speaker_id: whose it is.
        target: what is to be extracted, `[samples]`; zero if it is absent.
        enrollment: `[samples of its own]`.
        activity: `[frames]`, at 100 a second.
        embedding: the precomputed one of the utterances that the enrollment is of, `[dim]`, or `None`.
    """

    speaker_id: str
    target: Waveform
    enrollment: Waveform
    activity: NDArray[np.bool_]
    embedding: Waveform | None = None


@dataclass(frozen=True)
class MixtureParts:
    """The waveforms of a recipe before its gains.

    Attributes:
        dry: the sources after their effects, in their places, `[sources, samples]`.
        images: as they arrive at the microphone, `[sources, samples]`; without a room, `dry` itself.
        targets: `[sources, samples]`; `images` or `dry` itself where the target is that.
        noises: each `[samples]`.
        enrollments: for each source its stretches.
        absent: the stretches of a voice that is asked for and absent.
    """

    dry: Waveform
    images: Waveform
    targets: Waveform
    noises: tuple[Waveform, ...]
    enrollments: tuple[tuple[Waveform, ...], ...]
    absent: tuple[Waveform, ...] = ()


def render(recipe: Recipe, reader: Reader, embeddings: Embeddings | None = None) -> Sample:
    """Render a recipe: a pure function of the recipe and of what the reader reads.

    Args:
        recipe: from `Simulator.draw`, or read from a file.
        reader: knows the recipe's utterances and works at its sample rate.
        embeddings: precomputed ones, by utterance or by speaker, for the sample to carry; `None`: it carries none.

    Returns:
        The mixture and all of its parts, float32.

    Raises:
        InputError: the reader works at another sample rate.
        AudioError: a recording that is missing or damaged.

    >>> sample = render(recipe, FileReader(16000))                  # doctest: +SKIP
    >>> sample.mixture.shape, sample.images.shape                   # doctest: +SKIP
    ((48000,), (2, 48000))
    """
    return apply_gains(recipe, read_parts(recipe, reader), reader, embeddings)


def read_parts(recipe: Recipe, reader: Reader) -> MixtureParts:
    """Read, place and reverberate the parts of a recipe, leaving all of its gains out."""
    if reader.sample_rate != recipe.sample_rate:
        raise InputError(
            f"recipe {recipe.mixture_id}: is for {recipe.sample_rate} Hz, the reader gives {reader.sample_rate} Hz; "
            f"read at {recipe.sample_rate} Hz"
        )
    dry = np.stack([_read_source(source, recipe.num_samples, reader) for source in recipe.sources])
    images, targets = dry, dry
    if recipe.room is not None:
        from wesep_py.simulation.rooms.reverberation import reverberate

        images, targets = reverberate(dry, recipe.room, recipe.sample_rate, recipe.target_kind)
    noises = tuple(render_noise(noise, recipe.num_samples, reader) for noise in recipe.noises)
    enrollments = tuple(tuple(read_segment(piece, reader) for piece in s.enrollments) for s in recipe.sources)
    introducing = () if recipe.absent is None else recipe.absent.enrollments
    return MixtureParts(dry, images, targets, noises, enrollments, tuple(read_segment(piece, reader) for piece in introducing))


def apply_gains(recipe: Recipe, parts: MixtureParts, reader: Reader, embeddings: Embeddings | None = None) -> Sample:
    """Apply the gains of a recipe to its parts, and add them up. `parts` stays as it is.

    Args:
        recipe: with its gains.
        parts: as `read_parts` gave them.
        reader: knows the recordings of noise under enrollments.
        embeddings: as for `render`.
    """
    gains = np.array([[source.excerpt.gain] for source in recipe.sources], dtype=np.float32)
    images = parts.images * gains
    targets = images if parts.targets is parts.images else parts.targets * gains
    mixture = images.sum(axis=0)
    noise = np.zeros(recipe.num_samples, dtype=np.float32)
    for number, (each, part) in enumerate(zip(recipe.noises, parts.noises, strict=True)):
        scaled = part * np.float32(each.gain)
        noise = scaled if number == 0 else noise + scaled
    if recipe.noises:
        mixture += noise
    distortion = np.zeros(recipe.num_samples, dtype=np.float32)
    if recipe.effects:
        images, targets, noise, mixture = _through_effects(recipe, images, targets, noise, mixture)
        clean = images.sum(axis=0) + noise
        distortion = mixture - clean
        mixture = clean + distortion
    enrollments = tuple(
        render_enrollment(source.enrollments, pieces, source.augmentation, reader)
        for pieces, source in zip(parts.enrollments, recipe.sources, strict=True)
    )
    absent = None
    if recipe.absent is not None:
        absent = render_enrollment(recipe.absent.enrollments, parts.absent, recipe.absent.augmentation, reader)
    activity = np.stack([frame_activity(target, recipe.sample_rate) for target in parts.targets])
    known: tuple[Waveform, ...] = ()
    if embeddings is not None:
        voices = [voice.enrollments for voice in (*recipe.sources, recipe.absent) if voice is not None]
        known = tuple(embeddings.of([stretch.utterance for stretch in stretches]) for stretches in voices)
    return Sample(recipe, mixture, images, noise, distortion, targets, enrollments, activity, absent, known)


def _read_source(source: SourceRecipe, num_samples: int, reader: Reader) -> Waveform:
    """All that a speaker says, in its places and through its effects, `[num_samples]`."""
    row = np.zeros(num_samples, dtype=np.float32)
    for turn in source.placed:
        excerpt = turn.excerpt
        samples = read_segment(excerpt, reader)
        row[turn.offset : turn.offset + excerpt.num_samples] += (
            samples if excerpt.gain == 1.0 else samples * np.float32(excerpt.gain)
        )
    return apply_effects(row, source.effects, reader.sample_rate)


def _through_effects(
    recipe: Recipe, images: Waveform, targets: Waveform, noise: Waveform, mixture: Waveform
) -> tuple[Waveform, Waveform, Waveform, Waveform]:
    """Images, targets and noise at the level that the mixture has in the end, and the mixture itself."""
    same = targets is images
    gains = np.ones(recipe.num_samples, dtype=np.float32)
    for effect in recipe.effects:
        mixture = effect.apply(mixture, recipe.sample_rate)
        if isinstance(effect, LevelDrift):
            gains = gains * effect.gains(recipe.num_samples)
    peak = float(np.abs(mixture).max())
    if recipe.peak is not None and peak > recipe.peak:
        gains, mixture = gains * np.float32(recipe.peak / peak), mixture * np.float32(recipe.peak / peak)
    images = images * gains
    targets = images if same else targets * gains
    noise = noise * gains
    if all(isinstance(effect, LevelDrift) for effect in recipe.effects):
        mixture = images.sum(axis=0) + noise  # nothing but levels: what rounding leaves is no distortion
    return images, targets, noise, mixture


def frame_activity(waveform: Waveform, sample_rate: int) -> NDArray[np.bool_]:
    """Whether somebody speaks, at 100 frames a second: `[samples]` → `[ceil(100 · samples / sample_rate)]`.

    >>> bool(frame_activity(np.zeros(1600, dtype=np.float32), 16000).any())
    False
    """
    num_frames = -(-waveform.size * ACTIVITY_RATE_HZ // sample_rate)
    middles = ((np.arange(num_frames) + 0.5) * sample_rate / ACTIVITY_RATE_HZ).astype(np.int64)
    return active_mask(waveform, sample_rate)[np.minimum(middles, waveform.size - 1)]


def set_levels(plan: Recipe, parts: MixtureParts, config: SimulationConfig, rng: np.random.Generator) -> Recipe:
    """The recipe with gains that give levels drawn from the configuration's ranges.

    Levels are over active samples (`audio.active_level_db`) of the images, as they arrive at the microphone. SIR is the
    target's level (the first source's where the target is absent) to that of each other, SNR the level of all speech to
    that of a noise. One gain for all
    parts then gives the mixture its level, or less where a part or the mixture would exceed the peak. With
    `config.loudness` the loudness of each voice and noise is drawn instead; SIR and SNR are then what comes of it.

    Args:
        plan: a recipe whose gains count for nothing yet.
        parts: its waveforms; no enrollment is silent.
        config: the ranges.
        rng: what is drawn comes from here.

    Raises:
        UnusableDraw: noise that is silent, or a room or effects in which a recording vanishes.
    """
    rate = plan.sample_rate
    noise_levels_db = [active_level_db(noise, rate) for noise in parts.noises]
    if -np.inf in noise_levels_db:
        raise UnusableDraw("the noise is silent")
    levels_db = [active_level_db(image, rate) for image in parts.images]
    if -np.inf in levels_db:
        raise UnusableDraw("a source is silent at the microphone")
    reference = plan.reference
    loudness = config.loudness
    if loudness is None:
        sir_db = [0.0 if s == reference else rng.uniform(*config.sir_db) for s in range(len(plan.sources))]
        gains = [level_gain(levels_db[reference] - level - sir) for level, sir in zip(levels_db, sir_db, strict=True)]
    else:
        gains = [_loudness_gain(image, rate, loudness.speech_lufs, rng) for image in parts.images]
        heard_db = [level + gain_to_db(gain) for level, gain in zip(levels_db, gains, strict=True)]
        sir_db = [heard_db[reference] - level for level in heard_db]
    images = parts.images * np.array(gains, dtype=np.float32)[:, None]
    mixture = images.sum(axis=0)
    peak = _peak(images)
    noises: list[NoiseRecipe] = []
    if config.noise is not None:
        speech_db = active_level_db(mixture, rate)
        for recipe, noise, noise_db in zip(plan.noises, parts.noises, noise_levels_db, strict=True):
            if loudness is None:
                snr_db = draw_noise_snr_db(config.noise, recipe, rng)
                gain = level_gain(speech_db - noise_db - snr_db)
            else:
                gain = _loudness_gain(noise, rate, loudness.noise_lufs, rng)
                snr_db = speech_db - noise_db - gain_to_db(gain)
            scaled = noise * np.float32(gain)
            mixture += scaled
            peak = max(peak, _peak(scaled))
            noises.append(replace(recipe, gain=gain, snr_db=snr_db))
    change_db = 0.0 if loudness else rng.uniform(*config.level_db) - active_level_db(mixture, rate)
    level = level_gain(change_db)
    level = min(level, config.peak / max(peak, _peak(mixture)))
    sources = tuple(
        replace(
            source,
            excerpt=replace(source.excerpt, gain=gain * level),
            **set_enrollment_levels(source.enrollments, source.augmentation, pieces, rate, config, rng),
        )
        for source, gain, pieces in zip(plan.sources, gains, parts.enrollments, strict=True)
    )
    absent = plan.absent
    if absent is not None:
        levels = set_enrollment_levels(absent.enrollments, absent.augmentation, parts.absent, rate, config, rng)
        absent = replace(absent, **levels)
    noises = [replace(noise, gain=noise.gain * level) for noise in noises]
    return replace(
        plan,
        sources=sources,
        noise=replace(noises[0], snr_db=None) if noises else None,
        further_noises=tuple(noises[1:]),
        sir_db=tuple(sir_db),
        snr_db=noises[0].snr_db if noises else None,
        absent=absent,
        peak=config.peak if plan.effects else None,
    )


def set_enrollment_levels(
    stretches: Sequence[UtteranceSegment],
    augmentation: Augmentation | None,
    pieces: Sequence[NDArray[np.float32]],
    sample_rate: int,
    config: SimulationConfig,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """The fields `enrollments` and `augmentation` with their levels."""
    wanted_db = rng.uniform(*config.enrollment.level_db)
    gains = [
        min(level_gain(wanted_db - active_level_db(piece, sample_rate)), config.peak / _peak(piece)) for piece in pieces
    ]
    return {
        "enrollments": tuple(replace(stretch, gain=gain) for stretch, gain in zip(stretches, gains, strict=True)),
        "augmentation": augmentation and replace(augmentation, level_db=wanted_db, peak=config.peak),
    }


def _loudness_gain(waveform: NDArray[np.float32], rate: int, lufs: Range, rng: np.random.Generator) -> float:
    """The gain that brings a waveform to a loudness from a range; by its active level where it is below -70 LUFS."""
    found = loudness_lufs(waveform, rate)
    return level_gain(rng.uniform(*lufs) - (active_level_db(waveform, rate) if found == -np.inf else found))


def _peak(waveform: NDArray[np.float32]) -> float:
    return float(np.abs(waveform).max())
