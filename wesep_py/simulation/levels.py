"""The gains that give a mixture its drawn levels: SIR, SNR, level of mixture and enrollments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.level import active_level_db, gain_to_db
from wesep_py.audio.loudness import loudness_lufs
from wesep_py.simulation.config import Range, SimulationConfig
from wesep_py.simulation.gains import level_gain
from wesep_py.simulation.noise.draw import draw_snr_db
from wesep_py.simulation.recipe import Recipe
from wesep_py.simulation.recipe_parts import Augmentation, NoiseRecipe, Stretch
from wesep_py.simulation.render import Parts
from wesep_py.simulation.unusable import Unusable


def set_levels(plan: Recipe, parts: Parts, config: SimulationConfig, rng: np.random.Generator) -> Recipe:
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
        Unusable: noise that is silent, or a room or effects in which a recording vanishes.
    """
    rate = plan.sample_rate
    noise_levels_db = [active_level_db(noise, rate) for noise in parts.noises]
    if -np.inf in noise_levels_db:
        raise Unusable("the noise is silent")
    levels_db = [active_level_db(image, rate) for image in parts.images]
    if -np.inf in levels_db:
        raise Unusable("a source is silent at the microphone")
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
                snr_db = draw_snr_db(config.noise, recipe, rng)
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
    stretches: Sequence[Stretch],
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
