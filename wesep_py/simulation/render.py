"""From the recipe of a mixture to its waveforms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.level import active_mask
from wesep_py.corpus.reader import Reader
from wesep_py.errors import InputError
from wesep_py.simulation.noise import render_noise
from wesep_py.simulation.recipe import Recipe, Stretch

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
        distortion: what clipping or coding of the mixture added, `[samples]`; zero where neither took place.
        targets: what is to be extracted for each source, `[sources, samples]`: dry, early or the image
            itself.
        enrollments: for each source a waveform `[samples of its own]` of the same voice.
        activity: whether each source speaks, at 100 frames a second, `[sources, frames]`; the value of a
            frame is that of its middle sample.
    """

    recipe: Recipe
    mixture: Waveform
    images: Waveform
    noise: Waveform
    distortion: Waveform
    targets: Waveform
    enrollments: tuple[Waveform, ...]
    activity: NDArray[np.bool_]


@dataclass(frozen=True)
class Parts:
    """The waveforms of a recipe before its gains.

    Attributes:
        dry: the sources as recorded, in their places, `[sources, samples]`.
        images: as they arrive at the microphone, `[sources, samples]`; without a room, `dry` itself.
        targets: `[sources, samples]`; `images` or `dry` itself where the target is that.
        noise: `[samples]`, or `None`.
        enrollments: for each source its stretches.
    """

    dry: Waveform
    images: Waveform
    targets: Waveform
    noise: Waveform | None
    enrollments: tuple[tuple[Waveform, ...], ...]


def render(recipe: Recipe, reader: Reader) -> Sample:
    """Render a recipe: a pure function of the recipe and of what the reader reads.

    Args:
        recipe: from `Simulator.draw`, or read from a file.
        reader: knows the recipe's utterances and works at its sample rate.

    Returns:
        The mixture and all of its parts, float32.

    Raises:
        InputError: the reader works at another sample rate.
        AudioError: a recording that is missing or damaged.

    >>> sample = render(recipe, FileReader(16000))                  # doctest: +SKIP
    >>> sample.mixture.shape, sample.images.shape                   # doctest: +SKIP
    ((48000,), (2, 48000))
    """
    return assemble(recipe, read_parts(recipe, reader))


def read_parts(recipe: Recipe, reader: Reader) -> Parts:
    """Read, place and reverberate the parts of a recipe, leaving all of its gains out."""
    if reader.sample_rate != recipe.sample_rate:
        raise InputError(
            f"recipe {recipe.mixture_id}: is for {recipe.sample_rate} Hz, the reader gives {reader.sample_rate} Hz; "
            f"read at {recipe.sample_rate} Hz"
        )
    dry = np.zeros((len(recipe.sources), recipe.num_samples), dtype=np.float32)
    for row, source in zip(dry, recipe.sources, strict=True):
        excerpt = source.excerpt
        row[source.offset : source.offset + excerpt.num_samples] = read_stretch(excerpt, reader)
    images, targets = dry, dry
    if recipe.room is not None:
        from wesep_py.simulation.rooms import reverberate

        images, targets = reverberate(dry, recipe.room, recipe.sample_rate, recipe.target_kind)
    noise = None if recipe.noise is None else render_noise(recipe.noise, recipe.num_samples, reader)
    enrollments = tuple(tuple(read_stretch(piece, reader) for piece in s.enrollments) for s in recipe.sources)
    return Parts(dry, images, targets, noise, enrollments)


def read_stretch(stretch: Stretch, reader: Reader) -> Waveform:
    """The samples of a stretch, without its gain."""
    return reader.read(stretch.utterance, stretch.start, stretch.stop)


def assemble(recipe: Recipe, parts: Parts) -> Sample:
    """Apply the gains of a recipe to its parts, and add them up. `parts` stays as it is."""
    gains = np.array([[source.excerpt.gain] for source in recipe.sources], dtype=np.float32)
    images = parts.images * gains
    targets = images if parts.targets is parts.images else parts.targets * gains
    silence = np.zeros(recipe.num_samples, dtype=np.float32)
    mixture = images.sum(axis=0)
    noise = silence
    if recipe.noise is not None and parts.noise is not None:
        noise = parts.noise * np.float32(recipe.noise.gain)
        mixture += noise
    enrollments = tuple(
        np.concatenate(
            [silence[:0], *(piece * np.float32(e.gain) for piece, e in zip(pieces, s.enrollments, strict=True))]
        )
        for pieces, s in zip(parts.enrollments, recipe.sources, strict=True)
    )
    activity = np.stack([frame_activity(target, recipe.sample_rate) for target in parts.targets])
    return Sample(recipe, mixture, images, noise, silence, targets, enrollments, activity)


def frame_activity(waveform: Waveform, sample_rate: int) -> NDArray[np.bool_]:
    """Whether somebody speaks, at 100 frames a second: `[samples]` → `[ceil(100 · samples / sample_rate)]`.

    >>> frame_activity(np.zeros(1600, dtype=np.float32), 16000).any()
    np.False_
    """
    num_frames = -(-waveform.size * ACTIVITY_RATE_HZ // sample_rate)
    middles = ((np.arange(num_frames) + 0.5) * sample_rate / ACTIVITY_RATE_HZ).astype(np.int64)
    return active_mask(waveform, sample_rate)[np.minimum(middles, waveform.size - 1)]
