"""From the recipe of a mixture to its waveforms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.level import active_mask
from wesep_py.corpus.embeddings import Embeddings
from wesep_py.corpus.reader import Reader
from wesep_py.errors import InputError
from wesep_py.simulation.effects import Level, apply_effects
from wesep_py.simulation.enrollment import render_enrollment
from wesep_py.simulation.noise.render import render_noise
from wesep_py.simulation.recipe import Recipe
from wesep_py.simulation.recipe_parts import SourceRecipe
from wesep_py.simulation.unusable import read_stretch

ACTIVITY_RATE_HZ = 100

Waveform = NDArray[np.float32]


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

    def voice(self, source: int | None) -> Voice:
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
            return Voice(
                recipe.sources[source].speaker_id,
                self.targets[source],
                self.enrollments[source],
                self.activity[source],
                embedding,
            )
        if recipe.absent is None or self.absent_enrollment is None:
            raise InputError(f"recipe {recipe.mixture_id}: no voice is absent; give the number of a source")
        return Voice(
            recipe.absent.speaker_id,
            np.zeros_like(self.mixture),
            self.absent_enrollment,
            np.zeros(self.activity.shape[1], dtype=bool),
            self.embeddings[-1] if self.embeddings else None,
        )


@dataclass(frozen=True)
class Voice:
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
class Parts:
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
    return assemble(recipe, read_parts(recipe, reader), reader, embeddings)


def read_parts(recipe: Recipe, reader: Reader) -> Parts:
    """Read, place and reverberate the parts of a recipe, leaving all of its gains out."""
    if reader.sample_rate != recipe.sample_rate:
        raise InputError(
            f"recipe {recipe.mixture_id}: is for {recipe.sample_rate} Hz, the reader gives {reader.sample_rate} Hz; "
            f"read at {recipe.sample_rate} Hz"
        )
    dry = np.stack([_read_source(source, recipe.num_samples, reader) for source in recipe.sources])
    images, targets = dry, dry
    if recipe.room is not None:
        from wesep_py.simulation.rooms.responses import reverberate

        images, targets = reverberate(dry, recipe.room, recipe.sample_rate, recipe.target_kind)
    noises = tuple(render_noise(noise, recipe.num_samples, reader) for noise in recipe.noises)
    enrollments = tuple(tuple(read_stretch(piece, reader) for piece in s.enrollments) for s in recipe.sources)
    introducing = () if recipe.absent is None else recipe.absent.enrollments
    return Parts(dry, images, targets, noises, enrollments, tuple(read_stretch(piece, reader) for piece in introducing))


def assemble(recipe: Recipe, parts: Parts, reader: Reader, embeddings: Embeddings | None = None) -> Sample:
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
        samples = read_stretch(excerpt, reader)
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
        if isinstance(effect, Level):
            gains = gains * effect.gains(recipe.num_samples)
    peak = float(np.abs(mixture).max())
    if recipe.peak is not None and peak > recipe.peak:
        gains, mixture = gains * np.float32(recipe.peak / peak), mixture * np.float32(recipe.peak / peak)
    images = images * gains
    targets = images if same else targets * gains
    noise = noise * gains
    if all(isinstance(effect, Level) for effect in recipe.effects):
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
