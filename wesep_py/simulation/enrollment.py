"""What an enrollment goes through: its stretches joined, put into a room, under noise, through effects, to a level."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.level import active_level_db
from wesep_py.corpus.reader import Reader
from wesep_py.simulation.effects import apply_effects
from wesep_py.simulation.gains import gain_between
from wesep_py.simulation.noise.render import render_noise
from wesep_py.simulation.recipe_parts import Augmentation, Stretch

Waveform = NDArray[np.float32]


def render_enrollment(
    stretches: Sequence[Stretch], pieces: Sequence[Waveform], augmentation: Augmentation | None, reader: Reader
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
    return joined if augmentation is None or joined.size == 0 else augment(joined, augmentation, reader)


def augment(waveform: Waveform, augmentation: Augmentation, reader: Reader) -> Waveform:
    """A waveform `[samples]` in its room, under its noise and through its effects, at its level; a new array.

    Args:
        waveform: a voice by itself.
        augmentation: what happens to it.
        reader: gives the sample rate, and knows the recordings of the noise.
    """
    rate = reader.sample_rate
    if augmentation.room is not None:
        from wesep_py.simulation.rooms.responses import reverberate

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
