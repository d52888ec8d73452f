"""What a worker does of a mixture that is rendered on a device: draw it and read it, no level and no convolution.

`DrySimulator.dry` draws what `Simulator.sample` draws, from the same random numbers in the same order; instead of
gains, which follow from waveforms that are not there yet, it hands on the levels that were drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.level import ACTIVE_FLOOR_DB, active_level_db
from wesep_py.simulation.draw import Simulator
from wesep_py.simulation.enrollment import render_enrollment
from wesep_py.simulation.levels import set_enrollment_levels
from wesep_py.simulation.noise.draw import draw_snr_db
from wesep_py.simulation.noise.render import modulation_gains, render_noise
from wesep_py.simulation.on_device.effects import runs_on_device
from wesep_py.simulation.recipe import (
    AbsentVoice,
    Augmentation,
    BankRoomRecipe,
    NoiseRecipe,
    Recipe,
    RoomRecipe,
    SourceRecipe,
)
from wesep_py.simulation.render import Parts, read_parts
from wesep_py.simulation.rooms.responses import RoomResponses, reverberate, room_responses
from wesep_py.simulation.unusable import Unusable

ROOM_MARGIN_DB = 20.0
"""So far above silence the direct path has to be for a room's reflections not to cancel it below silence."""

Waveform = NDArray[np.float32]


@dataclass(frozen=True)
class DryNoise:
    """A noise before its colour and its swing.

    Attributes:
        recipe: what becomes of it.
        waveform: `[samples]`; of coloured noise, white with an RMS of 0.1.
        snr_db: level of the speech to it.
    """

    recipe: NoiseRecipe
    waveform: Waveform
    snr_db: float


@dataclass(frozen=True)
class DryEnrollment:
    """An enrollment before its level, room and noise.

    Attributes:
        pieces: its stretches, to be joined in time; each `[samples]`.
        level_db: that each is brought to; `None`: they are as they should be.
        augmentation: what happens to the whole, with its level, or `None`.
        responses: of its room, or `None`.
        noises: with `snr_db`.
    """

    pieces: tuple[Waveform, ...]
    level_db: float | None
    augmentation: Augmentation | None = None
    responses: RoomResponses | None = None
    noises: tuple[DryNoise, ...] = ()


@dataclass(frozen=True)
class DryMixture:
    """A mixture before rendering.

    Attributes:
        plan: its recipe; gains are not known yet and count for nothing.
        dry: the sources after their effects, in their places, `[sources, samples]`.
        responses: of the room, or `None`.
        noises: what is added to the speech.
        sir_db: of each source; 0 for the reference.
        level_db: of the mixture.
        peak: largest absolute sample of mixture and parts.
        enrollments: of each source, and then of an absent voice.
    """

    plan: Recipe
    dry: Waveform
    responses: RoomResponses | None
    noises: tuple[DryNoise, ...]
    sir_db: tuple[float, ...]
    level_db: float
    peak: float
    enrollments: tuple[DryEnrollment, ...]

    def waveforms(self) -> dict[str, Waveform]:
        """What was read, for checks, end to end: `sources`, `noises`, `enrollments`."""
        none = np.zeros(0, np.float32)
        pieces = [piece for enrollment in self.enrollments for piece in enrollment.pieces]
        return {
            "sources": self.dry.ravel(),
            "noises": np.concatenate([none, *(noise.waveform for noise in self.noises)]),
            "enrollments": np.concatenate([none, *pieces]),
        }


class DrySimulator(Simulator):
    """A simulator that also gives mixtures before rendering; arguments as for `Simulator`."""

    def dry(self, epoch: int, index: int) -> DryMixture:
        """The mixture that `sample(epoch, index)` would give, for `render.render_on_device`.

        Args:
            epoch, index: 0 or more.

        Raises:
            InputError: 50 draws in a row held a silent stretch; the message names the last.
            AudioError: likewise, where the last held a recording that is missing or damaged.
        """
        return self._attempt(epoch, index, self._read_dry)

    def _read_dry(self, plan: Recipe, rng: np.random.Generator) -> DryMixture:
        """What a plan says, read; its levels drawn.

        Raises:
            Unusable: as `levels.set_levels`.
        """
        parts = read_parts(replace(plan, room=None, noise=None, further_noises=()), self.reader)
        responses = self._responses(plan.room)
        noises = [self._read_noise(noise, plan.num_samples) for noise in plan.noises]
        self._check_dry(plan, parts.dry, responses, noises)
        return self._ask_levels(plan, parts, responses, noises, rng)

    def _ask_levels(
        self,
        plan: Recipe,
        parts: Parts,
        responses: RoomResponses | None,
        noises: list[Waveform],
        rng: np.random.Generator,
    ) -> DryMixture:
        """The levels that `levels.set_levels` draws, in its order."""
        config = self.config
        sir_db = tuple(
            0.0 if source == plan.reference else rng.uniform(*config.sir_db) for source in range(len(plan.sources))
        )
        under = []
        if config.noise is not None:
            snrs_db = [draw_snr_db(config.noise, recipe, rng) for recipe in plan.noises]
            under = [DryNoise(*given) for given in zip(plan.noises, noises, snrs_db, strict=True)]
        level_db = rng.uniform(*config.level_db)
        voices = [*plan.sources, *([] if plan.absent is None else [plan.absent])]
        said = [*parts.enrollments, *([] if plan.absent is None else [parts.absent])]
        enrollments = tuple(
            self._dry_enrollment(voice, pieces, rng) for voice, pieces in zip(voices, said, strict=True)
        )
        return DryMixture(plan, parts.dry, responses, tuple(under), sir_db, level_db, config.peak, enrollments)

    def _dry_enrollment(
        self,
        voice: SourceRecipe | AbsentVoice,
        pieces: tuple[Waveform, ...],
        rng: np.random.Generator,
    ) -> DryEnrollment:
        config, augmentation = self.config, voice.augmentation
        if augmentation is not None and not all(runs_on_device(effect) for effect in augmentation.effects):
            levels = set_enrollment_levels(voice.enrollments, augmentation, pieces, self.sample_rate, config, rng)
            whole = render_enrollment(levels["enrollments"], pieces, levels["augmentation"], self.reader)
            return DryEnrollment((whole,), None)
        level_db = rng.uniform(*config.enrollment.level_db)
        if augmentation is None:
            return DryEnrollment(pieces, level_db)
        length = sum(piece.size for piece in pieces)
        noises = tuple(
            DryNoise(noise, self._read_noise(noise, length), noise.snr_db or 0.0) for noise in augmentation.noises
        )
        augmentation = replace(augmentation, level_db=level_db, peak=config.peak)
        return DryEnrollment(pieces, level_db, augmentation, self._responses(augmentation.room), noises)

    def _read_noise(self, recipe: NoiseRecipe, num_samples: int) -> Waveform:
        return render_noise(replace(recipe, slope_db=0.0, modulation=None), num_samples, self.reader)

    def _responses(self, room: RoomRecipe | BankRoomRecipe | None) -> RoomResponses | None:
        return None if room is None else room_responses(room, self.sample_rate)

    def _check_dry(self, plan: Recipe, dry: Waveform, responses: RoomResponses | None, noises: list[Waveform]) -> None:
        """What `levels.set_levels` refuses; the waveforms that it listens to are made in doubtful cases only."""
        for recipe, noise in zip(plan.noises, noises, strict=True):
            swing = recipe.modulation
            if _mean_db(noise) < ACTIVE_FLOOR_DB + (0.0 if swing is None else swing.depth_db / 2) + 0.1:
                swung = noise if swing is None else noise * modulation_gains(swing, noise.size, self.sample_rate)
                if active_level_db(swung, self.sample_rate) == -np.inf:
                    raise Unusable("the noise is silent")
        if responses is not None:
            direct_db = [
                _mean_db(row) + 20 * np.log10(max(float(gain), 1e-9))
                for row, gain in zip(dry, responses.direct_gains, strict=True)
            ]
            if min(direct_db) >= ACTIVE_FLOOR_DB + ROOM_MARGIN_DB:
                return
            assert plan.room is not None
            dry = reverberate(dry, plan.room, self.sample_rate)[0]
        elif not any(source.effects for source in plan.sources):
            return
        if any(active_level_db(row, self.sample_rate) == -np.inf for row in dry):
            raise Unusable("a source is silent at the microphone")


def _mean_db(waveform: Waveform) -> float:
    """Mean level over all samples; the loudest frame is no quieter."""
    return float(10 * np.log10(max(float(np.dot(waveform, waveform)) / max(1, waveform.size), 1e-30)))
