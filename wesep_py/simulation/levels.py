"""The gains that give a mixture its drawn levels: SIR, SNR, level of mixture and enrollments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.level import active_level_db, db_to_gain
from wesep_py.simulation.config import SimulationConfig
from wesep_py.simulation.recipe import Recipe, Stretch
from wesep_py.simulation.render import Parts


def set_levels(plan: Recipe, parts: Parts, config: SimulationConfig, rng: np.random.Generator) -> Recipe:
    """The recipe with gains that give levels drawn from the configuration's ranges.

    Levels are over active samples (`audio.active_level_db`) of the images, as they arrive at the microphone. SIR is the
    target's level to that of each interferer, SNR the level of all speech to that of the noise. One gain for all
    parts then gives the mixture its level, or less where a part or the mixture would exceed the peak.

    Args:
        plan: a recipe whose gains count for nothing yet.
        parts: its waveforms; no image, noise or enrollment is silent.
        config: the ranges.
        rng: what is drawn comes from here.
    """
    rate = plan.sample_rate
    levels_db = [active_level_db(image, rate) for image in parts.images]
    sir_db = [0.0 if s == plan.target else rng.uniform(*config.sir_db) for s in range(len(plan.sources))]
    gains = [level_gain(levels_db[plan.target] - level - sir) for level, sir in zip(levels_db, sir_db, strict=True)]
    images = parts.images * np.array(gains, dtype=np.float32)[:, None]
    mixture = images.sum(axis=0)
    peak = _peak(images)
    snr_db, noise_gain = None, 0.0
    if parts.noise is not None and config.noise is not None:
        snr_db = rng.uniform(*config.noise.snr_db)
        noise_gain = level_gain(active_level_db(mixture, rate) - active_level_db(parts.noise, rate) - snr_db)
        noise = parts.noise * np.float32(noise_gain)
        mixture += noise
        peak = max(peak, _peak(noise))
    level = level_gain(rng.uniform(*config.level_db) - active_level_db(mixture, rate))
    level = min(level, config.peak / max(peak, _peak(mixture)))
    sources = tuple(
        replace(
            source,
            excerpt=replace(source.excerpt, gain=gain * level),
            enrollments=_set_enrollment_levels(source.enrollments, pieces, rate, config, rng),
        )
        for source, gain, pieces in zip(plan.sources, gains, parts.enrollments, strict=True)
    )
    noise_recipe = None if plan.noise is None else replace(plan.noise, gain=noise_gain * level)
    return replace(plan, sources=sources, noise=noise_recipe, sir_db=tuple(sir_db), snr_db=snr_db)


def level_gain(level_db: float) -> float:
    """The linear gain, rounded so that differences in the last bit between machines do not change a recipe.

    >>> level_gain(-20.0)
    0.1
    """
    return float(f"{db_to_gain(level_db):.7g}")


def _set_enrollment_levels(
    stretches: Sequence[Stretch],
    pieces: Sequence[NDArray[np.float32]],
    sample_rate: int,
    config: SimulationConfig,
    rng: np.random.Generator,
) -> tuple[Stretch, ...]:
    wanted_db = rng.uniform(*config.enrollment.level_db)
    return tuple(
        replace(
            stretch,
            gain=min(level_gain(wanted_db - active_level_db(piece, sample_rate)), config.peak / _peak(piece)),
        )
        for stretch, piece in zip(stretches, pieces, strict=True)
    )


def _peak(waveform: NDArray[np.float32]) -> float:
    return float(np.abs(waveform).max())
