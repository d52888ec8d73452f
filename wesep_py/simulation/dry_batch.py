"""Dry mixtures: what a data worker does of a mixture that is rendered on a device, and their batch of padded tensors.

`DrySimulator.dry` draws what `Simulator.sample` draws, from the same random numbers in the same order, and reads the
recordings. Gains follow from waveforms that do not exist yet, so it returns the levels that were drawn instead.
`collate_dry` packs the mixtures of a batch; `batched_rendering` renders it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wesep_py.audio.level import ACTIVE_FLOOR_DB, active_level_db
from wesep_py.simulation.batched_effects import Packed, by_length, pack_effects, runs_on_device
from wesep_py.simulation.description.recipe import (
    AbsentSpeaker,
    Augmentation,
    BankRoomRecipe,
    NoiseRecipe,
    Recipe,
    RoomRecipe,
    SourceRecipe,
    UnusableDraw,
)
from wesep_py.simulation.level_setting import set_enrollment_levels
from wesep_py.simulation.noise import draw_noise_snr_db, modulation_gains, render_noise
from wesep_py.simulation.rendering import MixtureParts, read_parts, render_enrollment
from wesep_py.simulation.rooms.reverberation import RoomResponses, reverberate, room_responses
from wesep_py.simulation.simulator import Simulator

ROOM_MARGIN_DB = 20.0
"""If the direct path is this far above silence, reflections cannot cancel it to silence."""
Waveform = NDArray[np.float32]


@dataclass(frozen=True)
class DryNoise:
    """Noise before its spectral slope and its modulation.

    Attributes:
        recipe: with slope and modulation.
        waveform: `[samples]`; for coloured noise, white noise with an RMS of 0.1.
        snr_db: level of the speech relative to it.
    """

    recipe: NoiseRecipe
    waveform: Waveform
    snr_db: float


@dataclass(frozen=True)
class DryEnrollment:
    """Enrollment before its level, room and noise.

    Attributes:
        segments: to be joined in time; each `[samples]`.
        level_db: level of each segment; `None`: the levels are final.
        augmentation: augmentation of the joined enrollment, with its level, or `None`.
        responses: of its room, or `None`.
        noises: with `snr_db`.
    """

    segments: tuple[Waveform, ...]
    level_db: float | None
    augmentation: Augmentation | None = None
    responses: RoomResponses | None = None
    noises: tuple[DryNoise, ...] = ()


@dataclass(frozen=True)
class DryMixture:
    """Mixture before rendering.

    Attributes:
        plan: its recipe; gains are not known yet and are ignored.
        dry: the sources after their effects, at their offsets, `[sources, samples]`.
        responses: of the room, or `None`.
        noises: the noises.
        sir_db: of each source; 0 for the reference.
        level_db: of the mixture.
        peak: largest allowed absolute sample of mixture and parts.
        enrollments: of each source, and then of an absent speaker and of a bystander.
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
        """Return all samples that were read, joined, for checks: `sources`, `noises`, `enrollments`."""
        empty = np.zeros(0, np.float32)
        segments = [segment for enrollment in self.enrollments for segment in enrollment.segments]
        return {
            "sources": self.dry.ravel(),
            "noises": np.concatenate([empty, *(noise.waveform for noise in self.noises)]),
            "enrollments": np.concatenate([empty, *segments]),
        }


class DrySimulator(Simulator):
    """Simulator that also returns mixtures before rendering; arguments as for `Simulator`."""

    def dry(self, epoch: int, index: int) -> DryMixture:
        """Return the mixture of `sample(epoch, index)` before rendering, for `batched_rendering.render_on_device`.

        Args:
            epoch, index: 0 or more.

        Raises:
            InputError: 50 draws in a row contained a silent segment; the message names the last.
            AudioError: likewise, and the last contained a recording that is missing or damaged.
        """
        return self._draw_usable(epoch, index, self._read_dry)

    def _read_dry(self, plan: Recipe, rng: np.random.Generator) -> DryMixture:
        """Read the recordings of a plan, and draw its levels.

        Raises:
            UnusableDraw: as `level_setting.set_levels`.
        """
        parts = read_parts(replace(plan, room=None, noise=None, further_noises=()), self.reader)
        responses = self._responses(plan.room)
        noises = [self._read_noise(noise, plan.num_samples) for noise in plan.noises]
        self._check_dry(plan, parts.dry, responses, noises)
        return self._draw_levels(plan, parts, responses, noises, rng)

    def _draw_levels(
        self,
        plan: Recipe,
        parts: MixtureParts,
        responses: RoomResponses | None,
        noises: list[Waveform],
        rng: np.random.Generator,
    ) -> DryMixture:
        """Draw the levels in the order of `level_setting.set_levels`, so that they are the same."""
        config = self.config
        sir_db = tuple(
            0.0 if source == plan.reference else rng.uniform(*config.sir_db) for source in range(len(plan.sources))
        )
        dry_noises = []
        if config.noise is not None:
            snrs_db = [draw_noise_snr_db(config.noise, recipe, rng) for recipe in plan.noises]
            dry_noises = [DryNoise(*fields) for fields in zip(plan.noises, noises, snrs_db, strict=True)]
        level_db = rng.uniform(*config.level_db)
        others = ((plan.absent, parts.absent), (plan.bystander, parts.bystander))
        segments_of = [*parts.enrollments, *(segments for speaker, segments in others if speaker is not None)]
        enrollments = tuple(
            self._dry_enrollment(speaker, segments, rng)
            for speaker, segments in zip(plan.enrolled, segments_of, strict=True)
        )
        return DryMixture(plan, parts.dry, responses, tuple(dry_noises), sir_db, level_db, config.peak, enrollments)

    def _dry_enrollment(
        self,
        speaker: SourceRecipe | AbsentSpeaker,
        segments: tuple[Waveform, ...],
        rng: np.random.Generator,
    ) -> DryEnrollment:
        """Return an enrollment before rendering; one with effects of the CPU only is rendered here."""
        config, augmentation = self.config, speaker.augmentation
        if augmentation is not None and not all(runs_on_device(effect) for effect in augmentation.effects):
            levels = set_enrollment_levels(speaker.enrollments, augmentation, segments, self.sample_rate, config, rng)
            rendered = render_enrollment(levels["enrollments"], segments, levels["augmentation"], self.reader)
            return DryEnrollment((rendered,), None)
        level_db = rng.uniform(*config.enrollment.level_db)
        if augmentation is None:
            return DryEnrollment(segments, level_db)
        length = sum(segment.size for segment in segments)
        noises = tuple(
            DryNoise(noise, self._read_noise(noise, length), noise.snr_db or 0.0) for noise in augmentation.noises
        )
        augmentation = replace(augmentation, level_db=level_db, peak=config.peak)
        return DryEnrollment(segments, level_db, augmentation, self._responses(augmentation.room), noises)

    def _read_noise(self, recipe: NoiseRecipe, num_samples: int) -> Waveform:
        """Read or generate a noise without slope and modulation, which the device applies."""
        return render_noise(replace(recipe, slope_db=0.0, modulation=None), num_samples, self.reader)

    def _responses(self, room: RoomRecipe | BankRoomRecipe | None) -> RoomResponses | None:
        return None if room is None else room_responses(room, self.sample_rate)

    def _check_dry(self, plan: Recipe, dry: Waveform, responses: RoomResponses | None, noises: list[Waveform]) -> None:
        """Raise `UnusableDraw` where `level_setting.set_levels` would: for silent noises and sources.

        A bound decides almost always: the loudest frame is at least as loud as the mean, and modulation and room lower
        it by a known amount at most. Only in doubt are the waveforms computed and measured.
        """
        for recipe, noise in zip(plan.noises, noises, strict=True):
            modulation = recipe.modulation
            depth_db = 0.0 if modulation is None else modulation.depth_db / 2
            if _mean_db(noise) < ACTIVE_FLOOR_DB + depth_db + 0.1:
                if modulation is not None:
                    noise = noise * modulation_gains(modulation, noise.size, self.sample_rate)
                if active_level_db(noise, self.sample_rate) == -np.inf:
                    raise UnusableDraw("the noise is silent")
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
            return  # dry excerpts without effects were checked when they were drawn
        if any(active_level_db(row, self.sample_rate) == -np.inf for row in dry):
            raise UnusableDraw("a source is silent at the microphone")


def _mean_db(waveform: Waveform) -> float:
    """Return the mean level over all samples in dB, a lower bound for the loudest frame."""
    return float(10 * np.log10(max(float(np.dot(waveform, waveform)) / max(1, waveform.size), 1e-30)))


@dataclass(frozen=True)
class DryBatch:
    """Batch of dry mixtures, for `batched_rendering.render_on_device`.

    Attributes:
        plans: recipe of each mixture; gains are not known and are ignored.
        sample_rate: in Hz.
        mixtures, enrollments: tensors by name, and the indices that assign them to mixtures.
    """

    plans: tuple[Recipe, ...]
    sample_rate: int
    mixtures: Packed
    enrollments: Packed

    def to(self, device: torch.device | str, non_blocking: bool = False) -> DryBatch:
        """Return the batch on a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> DryBatch:
        """Return the batch in pinned memory, from which copies to a GPU are fast."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> DryBatch:
        return replace(
            self, mixtures=_map_tensors(self.mixtures, change), enrollments=_map_tensors(self.enrollments, change)
        )


def collate_dry(mixtures: Sequence[DryMixture], sample_rate: int) -> DryBatch:
    """Collate mixtures to a batch.

    Args:
        mixtures: at least one, all of one configuration.
        sample_rate: in Hz.
    """
    plans = tuple(mixture.plan for mixture in mixtures)
    lengths = [plan.num_samples for plan in plans]
    max_sources = max(len(mixture.dry) for mixture in mixtures)
    dry = torch.zeros(len(mixtures), max_sources, max(lengths))
    has_source = torch.zeros(len(mixtures), max_sources, dtype=torch.bool)
    sir_db = torch.zeros(len(mixtures), max_sources, dtype=torch.float64)
    for row, mixture in enumerate(mixtures):
        dry[row, : len(mixture.dry), : mixture.dry.shape[1]] = torch.from_numpy(mixture.dry)
        has_source[row, : len(mixture.dry)] = True
        sir_db[row, : len(mixture.dry)] = torch.tensor(mixture.sir_db, dtype=torch.float64)
    packed: Packed = {
        "dry": dry,
        "has_source": has_source,
        "lengths": torch.tensor(lengths),
        "reference": torch.tensor([plan.reference for plan in plans]),
        "sir_db": sir_db,
        "level_db": torch.tensor([mixture.level_db for mixture in mixtures], dtype=torch.float64),
        "peak": torch.tensor([mixture.peak for mixture in mixtures], dtype=torch.float64),
        "rooms": _pack_rooms([mixture.responses for mixture in mixtures], max_sources),
        "noises": _pack_noises([mixture.noises for mixture in mixtures], lengths),
        "effects": pack_effects([plan.effects for plan in plans], lengths, sample_rate),
    }
    enrollments = [enrollment for mixture in mixtures for enrollment in mixture.enrollments]
    return DryBatch(plans, sample_rate, packed, _pack_enrollments(enrollments, sample_rate))


def _pack_rooms(responses: Sequence[RoomResponses | None], num_sources: int) -> Packed | None:
    """Pack the responses of the rows that are in a room, shifted so that all direct paths are at one tap."""
    rooms = [(row, room) for row, room in enumerate(responses) if room is not None]
    if not rooms:
        return None
    lead = max(room.direct_tap for _, room in rooms)
    taps = max(room.full.shape[-1] + lead - room.direct_tap for _, room in rooms)
    full = torch.zeros(len(rooms), num_sources, taps)
    gains = torch.zeros(len(rooms), num_sources)
    for padded, gain, (_, room) in zip(full, gains, rooms, strict=True):
        shift = lead - room.direct_tap
        padded[: len(room.full), shift : shift + room.full.shape[-1]] = torch.from_numpy(room.full)
        gain[: len(room.full)] = torch.from_numpy(room.direct_gains)
    return {
        "rows": torch.tensor([row for row, _ in rooms]),
        "full": full,
        "direct_gains": gains,
        "direct_tap": lead,
        "early_ms": [room.early_ms for _, room in rooms],
    }


def _pack_noises(noises: Sequence[Sequence[DryNoise]], lengths: Sequence[int]) -> Packed | None:
    """Pack the noises of all rows, `[rows, max_noises, samples]`.

    Slopes and modulations refer to a noise by its place in the flattened `[rows · max_noises]`.
    """
    max_noises = max((len(row_noises) for row_noises in noises), default=0)
    if max_noises == 0:
        return None
    waveforms = torch.zeros(len(noises), max_noises, max(lengths))
    snr_db = torch.zeros(len(noises), max_noises, dtype=torch.float64)
    exists = torch.zeros(len(noises), max_noises, dtype=torch.bool)
    coloured: list[tuple[int, int, float]] = []
    modulated: list[tuple[int, float, float, float]] = []
    for row, row_noises in enumerate(noises):
        for number, noise in enumerate(row_noises):
            place = row * max_noises + number
            waveforms[row, number, : noise.waveform.size] = torch.from_numpy(noise.waveform)
            snr_db[row, number] = noise.snr_db
            exists[row, number] = True
            if noise.recipe.kind == "coloured" and noise.recipe.slope_db != 0.0:
                coloured.append((place, noise.waveform.size, noise.recipe.slope_db))
            if (modulation := noise.recipe.modulation) is not None:
                modulated.append((place, modulation.rate_hz, modulation.depth_db, modulation.phase))
    packed: Packed = {
        "waveforms": waveforms,
        "snr_db": snr_db,
        "exists": exists,
        "coloured": None,
        "modulated": None,
    }
    if coloured:
        places, sizes, slopes_db = zip(*coloured, strict=True)
        packed["coloured"] = {
            "places": torch.tensor(places),
            "slope_db": torch.tensor(slopes_db, dtype=torch.float64),
            "groups": by_length(sizes),
        }
    if modulated:
        places, *parameters = zip(*modulated, strict=True)
        packed["modulated"] = {
            "places": torch.tensor(places),
            "parameters": torch.tensor(parameters, dtype=torch.float64),
        }
    return packed


def _pack_enrollments(enrollments: Sequence[DryEnrollment], sample_rate: int) -> Packed:
    """Pack all segments, the number of segments of each enrollment, and the augmentation of the joined ones."""
    segments = [segment for enrollment in enrollments for segment in enrollment.segments]
    sizes = [segment.size for segment in segments]
    padded = torch.zeros(len(segments), max(sizes, default=0))
    for padded_row, segment in zip(padded, segments, strict=True):
        padded_row[: segment.size] = torch.from_numpy(np.ascontiguousarray(segment))
    level_db = [
        np.nan if enrollment.level_db is None else enrollment.level_db
        for enrollment in enrollments
        for _ in enrollment.segments
    ]
    packed: Packed = {
        "segments": padded,
        "sizes": sizes,
        "segment_lengths": torch.tensor(sizes, dtype=torch.int64),
        "level_db": torch.tensor(level_db, dtype=torch.float64),
        "counts": [len(enrollment.segments) for enrollment in enrollments],
        "augmented": None,
    }
    augmented = [
        (row, enrollment, augmentation)
        for row, enrollment in enumerate(enrollments)
        if (augmentation := enrollment.augmentation) is not None and enrollment.segments
    ]
    if augmented:
        lengths = [sum(segment.size for segment in enrollment.segments) for _, enrollment, _ in augmented]
        packed["augmented"] = {
            "rows": [row for row, _, _ in augmented],
            "lengths": torch.tensor(lengths),
            "rooms": _pack_rooms([enrollment.responses for _, enrollment, _ in augmented], 1),
            "noises": _pack_noises([enrollment.noises for _, enrollment, _ in augmented], lengths),
            "effects": pack_effects([augmentation.effects for *_, augmentation in augmented], lengths, sample_rate),
            "level_db": torch.tensor([augmentation.level_db for *_, augmentation in augmented], dtype=torch.float64),
            "peak": torch.tensor([augmentation.peak for *_, augmentation in augmented], dtype=torch.float64),
        }
    return packed


def _map_tensors(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Change every tensor of nested dictionaries; other values are kept."""
    if isinstance(tree, Tensor):
        return change(tree)
    return {key: _map_tensors(value, change) for key, value in tree.items()} if isinstance(tree, dict) else tree
