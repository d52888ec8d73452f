"""From the recipe of a mixture to its waveforms.

    recipe ─► read_parts ─► MixtureParts (without gains) ─► apply_gains ─► Sample
                                                               └─ mix: the one place where a mixture is summed

`render` does both steps. The gains of a recipe are chosen in `level_setting`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.level import active_level_db, active_mask
from wesep_py.common.errors import InputError
from wesep_py.data.embedding_files import Embeddings
from wesep_py.data.reader import Reader
from wesep_py.simulation.description.effects import LevelDrift, apply_effects
from wesep_py.simulation.description.recipe import (
    BYSTANDER,
    Augmentation,
    Recipe,
    SourceRecipe,
    UtteranceSegment,
    gain_between,
    read_segment,
)
from wesep_py.simulation.noise import render_noise

if TYPE_CHECKING:
    import torch

ACTIVITY_RATE_HZ = 100
Waveform = NDArray[np.float32]
Signal = TypeVar("Signal", NDArray[Any], "torch.Tensor")


def mix(images: Signal, *added: Signal) -> Signal:
    """Return a mixture: the sum of the images, and then each added signal (noise, distortion) in the given order.

    This is the definition of a mixture; every path that makes one calls it: rendering on the CPU and in batches on a
    device, the choice of gains, LibriMix's layout, and the trials of evaluation. NumPy arrays and torch tensors are
    accepted. The order of the additions is part of the definition: it determines how the sum is rounded.

    Args:
        images: `[..., sources, samples]`, each source as it arrives at the microphone.
        added: each `[..., samples]`.

    Returns:
        `[..., samples]`.

    >>> mix(np.array([[1.0, 2.0], [10.0, 20.0]]), np.array([0.5, 0.5]))
    array([11.5, 22.5])
    """
    mixture = images.sum(axis=-2)
    for signal in added:
        mixture = mixture + signal
    return mixture


@dataclass(frozen=True)
class Sample:
    """Rendered mixture and its parts; `mixture == mix(images, noise, distortion)`.

    Attributes:
        recipe: the recipe that was rendered.
        mixture: `[samples]`.
        images: each source as it arrives at the microphone, `[sources, samples]`.
        noise: `[samples]`; zero without noise.
        distortion: what the effects on the mixture changed, `[samples]`; zero without effects.
        targets: what is extracted for each source, `[sources, samples]`: dry, direct, early or the image itself.
        enrollments: an enrollment `[its own samples]` of each source.
        activity: whether each source speaks, at 100 frames per second, `[sources, frames]`; the value of a frame is
            that of its middle sample.
        absent_enrollment: enrollment of the target speaker, if it is not in the mixture: `[its own samples]`.
        bystander_enrollment: enrollment of the bystander of the negative enrollments, if there is one.
        embeddings: precomputed embeddings of each source and then of the absent speaker, `[dim]` each; empty if none
            are read.
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
    bystander_enrollment: Waveform | None = None

    def negative(self, source: int | None) -> Waveform | None:
        """Return the negative enrollment of a speaker, of a person who is not meant; `None` if there is none.

        Args:
            source: number of the source; `None`: the absent target speaker.
        """
        if not self.recipe.negatives:
            return None
        number = self.recipe.negatives[-1 if source is None else source]
        return self.bystander_enrollment if number == BYSTANDER else self.enrollments[number]

    def speaker(self, source: int | None) -> MixtureSpeaker:
        """Return everything that belongs to one speaker.

        Args:
            source: number of the source; `None`: the absent target speaker. So
                `sample.speaker(sample.recipe.target)` is always the target.

        Raises:
            InputError: `None`, and no speaker is absent.
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
            raise InputError(f"recipe {recipe.mixture_id}: no speaker is absent; give the number of a source")
        return MixtureSpeaker(
            recipe.absent.speaker_id,
            np.zeros_like(self.mixture),
            self.absent_enrollment,
            np.zeros(self.activity.shape[1], dtype=bool),
            self.embeddings[-1] if self.embeddings else None,
        )


@dataclass(frozen=True)
class MixtureSpeaker:
    """One speaker of a sample.

    Attributes:
        speaker_id: id of the speaker.
        target: what is extracted, `[samples]`; zero if the speaker is absent.
        enrollment: `[its own samples]`.
        activity: `[frames]`, at 100 per second.
        embedding: precomputed embedding of the utterances of the enrollment, `[dim]`, or `None`.
    """

    speaker_id: str
    target: Waveform
    enrollment: Waveform
    activity: NDArray[np.bool_]
    embedding: Waveform | None = None


@dataclass(frozen=True)
class MixtureParts:
    """Waveforms of a recipe before its gains.

    Attributes:
        dry: the sources after their effects, at their offsets, `[sources, samples]`.
        images: as they arrive at the microphone, `[sources, samples]`; without a room, `dry` itself.
        targets: `[sources, samples]`; `images` or `dry` itself if the target is that.
        noises: each `[samples]`.
        enrollments: the segments of each source's enrollment.
        absent: the segments of the absent speaker's enrollment.
        bystander: the same of the bystander.
    """

    dry: Waveform
    images: Waveform
    targets: Waveform
    noises: tuple[Waveform, ...]
    enrollments: tuple[tuple[Waveform, ...], ...]
    absent: tuple[Waveform, ...] = ()
    bystander: tuple[Waveform, ...] = ()


def render(recipe: Recipe, reader: Reader, embeddings: Embeddings | None = None) -> Sample:
    """Render a recipe: a pure function of the recipe and of what the reader reads.

    Args:
        recipe: from `Simulator.draw`, or read from a file.
        reader: reads the recipe's utterances at its sample rate.
        embeddings: precomputed embeddings, by utterance or by speaker, for the sample; `None`: it has none.

    Returns:
        The mixture and all of its parts, float32.

    Raises:
        InputError: the reader has another sample rate.
        AudioError: a recording is missing or damaged.

    >>> sample = render(recipe, FileReader(16000))                  # doctest: +SKIP
    >>> sample.mixture.shape, sample.images.shape                   # doctest: +SKIP
    ((48000,), (2, 48000))
    """
    return apply_gains(recipe, read_parts(recipe, reader), reader, embeddings)


def read_parts(recipe: Recipe, reader: Reader) -> MixtureParts:
    """Read, place and reverberate the parts of a recipe, without its gains."""
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
    enrollments = tuple(_read_segments(source.enrollments, reader) for source in recipe.sources)
    absent = () if recipe.absent is None else _read_segments(recipe.absent.enrollments, reader)
    bystander = () if recipe.bystander is None else _read_segments(recipe.bystander.enrollments, reader)
    return MixtureParts(dry, images, targets, noises, enrollments, absent, bystander)


def apply_gains(recipe: Recipe, parts: MixtureParts, reader: Reader, embeddings: Embeddings | None = None) -> Sample:
    """Apply the gains of a recipe to its parts, and mix them. `parts` is not modified.

    Args:
        recipe: with its gains.
        parts: from `read_parts`.
        reader: reads the recordings of the noise of enrollments.
        embeddings: as for `render`.
    """
    gains = np.array([[source.excerpt.gain] for source in recipe.sources], dtype=np.float32)
    images = parts.images * gains
    targets = images if parts.targets is parts.images else parts.targets * gains
    noise = np.zeros(recipe.num_samples, dtype=np.float32)
    for number, (noise_recipe, waveform) in enumerate(zip(recipe.noises, parts.noises, strict=True)):
        scaled = waveform * np.float32(noise_recipe.gain)
        noise = scaled if number == 0 else noise + scaled
    mixture = mix(images, noise) if recipe.noises else mix(images)
    distortion = np.zeros(recipe.num_samples, dtype=np.float32)
    if recipe.effects:
        images, targets, noise, processed = _apply_mixture_effects(recipe, images, targets, noise, mixture)
        # The mixture is summed from its parts again, so that the sum is exact in float32.
        distortion = processed - mix(images, noise)
        mixture = mix(images, noise, distortion)
    enrollments = tuple(
        render_enrollment(source.enrollments, segments, source.augmentation, reader)
        for segments, source in zip(parts.enrollments, recipe.sources, strict=True)
    )
    absent, bystander = (
        None if speaker is None else render_enrollment(speaker.enrollments, segments, speaker.augmentation, reader)
        for speaker, segments in ((recipe.absent, parts.absent), (recipe.bystander, parts.bystander))
    )
    activity = np.stack([frame_activity(target, recipe.sample_rate) for target in parts.targets])
    vectors: tuple[Waveform, ...] = ()
    if embeddings is not None:
        enrolled = [speaker.enrollments for speaker in (*recipe.sources, recipe.absent) if speaker is not None]
        vectors = tuple(embeddings.of([segment.utterance for segment in segments]) for segments in enrolled)
    return Sample(
        recipe, mixture, images, noise, distortion, targets, enrollments, activity, absent, vectors, bystander
    )


def _read_segments(segments: Sequence[UtteranceSegment], reader: Reader) -> tuple[Waveform, ...]:
    return tuple(read_segment(segment, reader) for segment in segments)


def _read_source(source: SourceRecipe, num_samples: int, reader: Reader) -> Waveform:
    """Read all turns of a speaker at their offsets, and apply the speaker's effects: `[num_samples]`."""
    row = np.zeros(num_samples, dtype=np.float32)
    for turn in source.placed:
        excerpt = turn.excerpt
        samples = read_segment(excerpt, reader)
        row[turn.offset : turn.offset + excerpt.num_samples] += (
            samples if excerpt.gain == 1.0 else samples * np.float32(excerpt.gain)
        )
    return apply_effects(row, source.effects, reader.sample_rate)


def _apply_mixture_effects(
    recipe: Recipe, images: Waveform, targets: Waveform, noise: Waveform, mixture: Waveform
) -> tuple[Waveform, Waveform, Waveform, Waveform]:
    """Apply the effects on the mixture, and their changes of level to images, targets and noise.

    A level drift and the final scaling to the peak are gains: they apply to every part, so that the parts still sum to
    the mixture. All other effects change the mixture alone; the difference is its distortion.
    """
    targets_are_images = targets is images
    gains = np.ones(recipe.num_samples, dtype=np.float32)
    for effect in recipe.effects:
        mixture = effect.apply(mixture, recipe.sample_rate)
        if isinstance(effect, LevelDrift):
            gains = gains * effect.gains(recipe.num_samples)
    peak = float(np.abs(mixture).max())
    if recipe.peak is not None and peak > recipe.peak:
        gains, mixture = gains * np.float32(recipe.peak / peak), mixture * np.float32(recipe.peak / peak)
    images = images * gains
    targets = images if targets_are_images else targets * gains
    noise = noise * gains
    if all(isinstance(effect, LevelDrift) for effect in recipe.effects):
        mixture = mix(images, noise)  # only gains: rounding errors must not appear as distortion
    return images, targets, noise, mixture


def frame_activity(waveform: Waveform, sample_rate: int) -> NDArray[np.bool_]:
    """Return whether a speaker is active, at 100 frames per second: `[samples]` → `[ceil(100 · samples / rate)]`.

    >>> bool(frame_activity(np.zeros(1600, dtype=np.float32), 16000).any())
    False
    """
    num_frames = -(-waveform.size * ACTIVITY_RATE_HZ // sample_rate)
    # The last frame may reach beyond the waveform, and so may its middle: then the last sample decides.
    middles = ((np.arange(num_frames) + 0.5) * sample_rate / ACTIVITY_RATE_HZ).astype(np.int64)
    return active_mask(waveform, sample_rate)[np.minimum(middles, waveform.size - 1)]


def render_enrollment(
    segments: Sequence[UtteranceSegment],
    waveforms: Sequence[Waveform],
    augmentation: Augmentation | None,
    reader: Reader,
) -> Waveform:
    """Render an enrollment: its segments with their gains, joined in time and augmented; `[samples]`.

    Args:
        segments: with their gains.
        waveforms: the samples of each segment, without gains.
        augmentation: processing of the joined waveform, or `None`.
        reader: reads the recordings of its noise.
    """
    scaled = [waveform * np.float32(segment.gain) for waveform, segment in zip(waveforms, segments, strict=True)]
    joined = np.concatenate([np.zeros(0, dtype=np.float32), *scaled])
    return joined if augmentation is None or joined.size == 0 else augment_enrollment(joined, augmentation, reader)


def augment_enrollment(waveform: Waveform, augmentation: Augmentation, reader: Reader) -> Waveform:
    """Apply room, noise, effects and level to a waveform `[samples]`; return a new array.

    Args:
        waveform: speech of one speaker.
        augmentation: the processing.
        reader: determines the sample rate, and reads the recordings of the noise.
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
