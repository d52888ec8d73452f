"""Choice of the gains of a recipe, so that SIR, SNR and the levels of mixture and enrollments are those drawn.

A recipe holds gains instead of levels: rendering then needs no measurement, and rendering again gives the same samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.level import active_level_db, gain_to_db, loudness_lufs
from wesep_py.simulation.description.ranges import Range
from wesep_py.simulation.description.recipe import (
    Augmentation,
    NoiseRecipe,
    Recipe,
    UnusableDraw,
    UtteranceSegment,
    recipe_gain,
)
from wesep_py.simulation.description.simulation_config import SimulationConfig
from wesep_py.simulation.noise import draw_noise_snr_db
from wesep_py.simulation.rendering import MixtureParts, mix


def set_levels(plan: Recipe, parts: MixtureParts, config: SimulationConfig, rng: np.random.Generator) -> Recipe:
    """Return the recipe with gains for levels drawn from the ranges of the configuration.

    Levels are over active samples (`audio.level.active_level_db`) of the images, as they arrive at the microphone. The
    SIR is the level of the target (or of the first source, if the target is absent) relative to each other source, the
    SNR the level of all speech relative to each noise. One gain for all parts then sets the level of the mixture; it is
    lower if a part or the mixture would exceed the peak. With `config.loudness` the loudness of each speaker and noise
    is drawn instead, and SIR and SNR are the result.

    Args:
        plan: a recipe whose gains are ignored.
        parts: its waveforms; no enrollment is silent.
        config: the ranges.
        rng: random numbers.

    Raises:
        UnusableDraw: a noise is silent, or a source after its room and effects.
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
    # First step: gains of the sources. The reference keeps its level (gain 1); the others get theirs from the SIR:
    #   level_db + gain_db = reference_db - sir_db
    if loudness is None:
        sir_db = [0.0 if s == reference else rng.uniform(*config.sir_db) for s in range(len(plan.sources))]
        gains = [recipe_gain(levels_db[reference] - level - sir) for level, sir in zip(levels_db, sir_db, strict=True)]
    else:
        gains = [_loudness_gain(image, rate, loudness.speech_lufs, rng) for image in parts.images]
        scaled_db = [level + gain_to_db(gain) for level, gain in zip(levels_db, gains, strict=True)]
        sir_db = [scaled_db[reference] - level for level in scaled_db]
    images = parts.images * np.array(gains, dtype=np.float32)[:, None]
    mixture = mix(images)
    peak = _peak(images)
    # Second step: gains of the noises, relative to the sum of the speech.
    noises: list[NoiseRecipe] = []
    if config.noise is not None:
        speech_db = active_level_db(mixture, rate)
        scaled_noises = []
        for recipe, noise, noise_db in zip(plan.noises, parts.noises, noise_levels_db, strict=True):
            if loudness is None:
                snr_db = draw_noise_snr_db(config.noise, recipe, rng)
                gain = recipe_gain(speech_db - noise_db - snr_db)
            else:
                gain = _loudness_gain(noise, rate, loudness.noise_lufs, rng)
                snr_db = speech_db - noise_db - gain_to_db(gain)
            scaled = noise * np.float32(gain)
            scaled_noises.append(scaled)
            peak = max(peak, _peak(scaled))
            noises.append(replace(recipe, gain=gain, snr_db=snr_db))
        mixture = mix(images, *scaled_noises)
    # Third step: one gain for all parts, from the level of the mixture and limited by the peak of any part.
    change_db = 0.0 if loudness else rng.uniform(*config.level_db) - active_level_db(mixture, rate)
    common_gain = min(recipe_gain(change_db), config.peak / max(peak, _peak(mixture)))
    sources = tuple(
        replace(
            source,
            excerpt=replace(source.excerpt, gain=gain * common_gain),
            **set_enrollment_levels(source.enrollments, source.augmentation, segments, rate, config, rng),
        )
        for source, gain, segments in zip(plan.sources, gains, parts.enrollments, strict=True)
    )
    absent, bystander = (
        speaker
        and replace(
            speaker, **set_enrollment_levels(speaker.enrollments, speaker.augmentation, segments, rate, config, rng)
        )
        for speaker, segments in ((plan.absent, parts.absent), (plan.bystander, parts.bystander))
    )
    noises = [replace(noise, gain=noise.gain * common_gain) for noise in noises]
    return replace(
        plan,
        sources=sources,
        noise=replace(noises[0], snr_db=None) if noises else None,
        further_noises=tuple(noises[1:]),
        sir_db=tuple(sir_db),
        snr_db=noises[0].snr_db if noises else None,
        absent=absent,
        bystander=bystander,
        peak=config.peak if plan.effects else None,
    )


def set_enrollment_levels(
    segments: Sequence[UtteranceSegment],
    augmentation: Augmentation | None,
    waveforms: Sequence[NDArray[np.float32]],
    sample_rate: int,
    config: SimulationConfig,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Return the fields `enrollments` and `augmentation` of a source, with a drawn level.

    Args:
        segments: of the enrollment; their gains are ignored.
        augmentation: of the enrollment, or `None`.
        waveforms: samples of each segment, none silent.
        sample_rate: in Hz.
        config: range of the level, and the peak.
        rng: random numbers.
    """
    level_db = rng.uniform(*config.enrollment.level_db)
    gains = [
        min(recipe_gain(level_db - active_level_db(waveform, sample_rate)), config.peak / _peak(waveform))
        for waveform in waveforms
    ]
    return {
        "enrollments": tuple(replace(segment, gain=gain) for segment, gain in zip(segments, gains, strict=True)),
        "augmentation": augmentation and replace(augmentation, level_db=level_db, peak=config.peak),
    }


def _loudness_gain(waveform: NDArray[np.float32], rate: int, lufs: Range, rng: np.random.Generator) -> float:
    """Return the gain for a loudness drawn from a range; below -70 LUFS the active level replaces the loudness."""
    loudness = loudness_lufs(waveform, rate)
    return recipe_gain(rng.uniform(*lufs) - (active_level_db(waveform, rate) if loudness == -np.inf else loudness))


def _peak(waveform: NDArray[np.float32]) -> float:
    return float(np.abs(waveform).max())
