"""The gains that give a mixture its drawn levels: SIR, SNR, level of mixture and enrollments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.level import active_level_db
from wesep_py.simulation.config import SimulationConfig
from wesep_py.simulation.gains import level_gain
from wesep_py.simulation.noise_draw import draw_snr_db
from wesep_py.simulation.recipe import Recipe
from wesep_py.simulation.recipe_parts import Augmentation, NoiseRecipe, Stretch
from wesep_py.simulation.render import Parts


def set_levels(plan: Recipe, parts: Parts, config: SimulationConfig, rng: np.random.Generator) -> Recipe:
    """The recipe with gains that give levels drawn from the configuration's ranges.

    Levels are over active samples (`audio.active_level_db`) of the images, as they arrive at the microphone. SIR is the
    target's level (the first source's where the target is absent) to that of each other, SNR the level of all speech to
    that of a noise. One gain for all
    parts then gives the mixture its level, or less where a part or the mixture would exceed the peak.

    Args:
        plan: a recipe whose gains count for nothing yet.
        parts: its waveforms; no image, noise or enrollment is silent.
        config: the ranges.
        rng: what is drawn comes from here.
    """
    rate = plan.sample_rate
    levels_db = [active_level_db(image, rate) for image in parts.images]
    reference = plan.reference
    sir_db = [0.0 if s == reference else rng.uniform(*config.sir_db) for s in range(len(plan.sources))]
    gains = [level_gain(levels_db[reference] - level - sir) for level, sir in zip(levels_db, sir_db, strict=True)]
    images = parts.images * np.array(gains, dtype=np.float32)[:, None]
    mixture = images.sum(axis=0)
    peak = _peak(images)
    noises: list[NoiseRecipe] = []
    if config.noise is not None:
        speech_db = active_level_db(mixture, rate)
        for recipe, noise in zip(plan.noises, parts.noises, strict=True):
            snr_db = draw_snr_db(config.noise, recipe, rng)
            gain = level_gain(speech_db - active_level_db(noise, rate) - snr_db)
            scaled = noise * np.float32(gain)
            mixture += scaled
            peak = max(peak, _peak(scaled))
            noises.append(replace(recipe, gain=gain, snr_db=snr_db))
    level = level_gain(rng.uniform(*config.level_db) - active_level_db(mixture, rate))
    level = min(level, config.peak / max(peak, _peak(mixture)))
    sources = tuple(
        replace(
            source,
            excerpt=replace(source.excerpt, gain=gain * level),
            **_set_enrollment_levels(source.enrollments, source.augmentation, pieces, rate, config, rng),
        )
        for source, gain, pieces in zip(plan.sources, gains, parts.enrollments, strict=True)
    )
    absent = plan.absent
    if absent is not None:
        levels = _set_enrollment_levels(absent.enrollments, absent.augmentation, parts.absent, rate, config, rng)
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


def _set_enrollment_levels(
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


def _peak(waveform: NDArray[np.float32]) -> float:
    return float(np.abs(waveform).max())
