"""Dry mixtures of a batch as padded tensors, which go to a device in one piece."""

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
from wesep_py.simulation.noise import draw_noise_snr_db, modulation_gains, render_noise
from wesep_py.simulation.rendering import MixtureParts, read_parts, render_enrollment, set_enrollment_levels
from wesep_py.simulation.rooms.reverberation import RoomResponses, reverberate, room_responses
from wesep_py.simulation.simulator import Simulator

# ----------------------------------------
# What a worker does of a mixture that is rendered on a device: draw it and read it, no level and no convolution.
#
# `DrySimulator.dry` draws what `Simulator.sample` draws, from the same random numbers in the same order; instead of
# gains, which follow from waveforms that are not there yet, it hands on the levels that were drawn.

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
            UnusableDraw: as `levels.set_levels`.
        """
        parts = read_parts(replace(plan, room=None, noise=None, further_noises=()), self.reader)
        responses = self._responses(plan.room)
        noises = [self._read_noise(noise, plan.num_samples) for noise in plan.noises]
        self._check_dry(plan, parts.dry, responses, noises)
        return self._ask_levels(plan, parts, responses, noises, rng)

    def _ask_levels(
        self,
        plan: Recipe,
        parts: MixtureParts,
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
            snrs_db = [draw_noise_snr_db(config.noise, recipe, rng) for recipe in plan.noises]
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
        voice: SourceRecipe | AbsentSpeaker,
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
            return
        if any(active_level_db(row, self.sample_rate) == -np.inf for row in dry):
            raise UnusableDraw("a source is silent at the microphone")


def _mean_db(waveform: Waveform) -> float:
    """Mean level over all samples; the loudest frame is no quieter."""
    return float(10 * np.log10(max(float(np.dot(waveform, waveform)) / max(1, waveform.size), 1e-30)))


@dataclass(frozen=True)
class DryBatch:
    """What `render.render_on_device` renders.

    Attributes:
        plans: of each mixture; gains are not known and count for nothing.
        sample_rate: in Hz.
        mixtures, enrollments: tensors, by name, and what tells their places.
    """

    plans: tuple[Recipe, ...]
    sample_rate: int
    mixtures: Packed
    enrollments: Packed

    def to(self, device: torch.device | str, non_blocking: bool = False) -> DryBatch:
        """The batch on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> DryBatch:
        """The batch in memory from which copies to a GPU are fast."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> DryBatch:
        return replace(self, mixtures=_map(self.mixtures, change), enrollments=_map(self.enrollments, change))


def collate_dry(mixtures: Sequence[DryMixture], sample_rate: int) -> DryBatch:
    """The batch of several mixtures.

    Args:
        mixtures: at least one, of one configuration.
        sample_rate: in Hz.
    """
    plans = tuple(mixture.plan for mixture in mixtures)
    lengths = [plan.num_samples for plan in plans]
    most = max(len(mixture.dry) for mixture in mixtures)
    dry = torch.zeros(len(mixtures), most, max(lengths))
    spoken = torch.zeros(len(mixtures), most, dtype=torch.bool)
    sir_db = torch.zeros(len(mixtures), most, dtype=torch.float64)
    for row, mixture in enumerate(mixtures):
        dry[row, : len(mixture.dry), : mixture.dry.shape[1]] = torch.from_numpy(mixture.dry)
        spoken[row, : len(mixture.dry)] = True
        sir_db[row, : len(mixture.dry)] = torch.tensor(mixture.sir_db, dtype=torch.float64)
    packed: Packed = {
        "dry": dry,
        "spoken": spoken,
        "lengths": torch.tensor(lengths),
        "reference": torch.tensor([plan.reference for plan in plans]),
        "sir_db": sir_db,
        "level_db": torch.tensor([mixture.level_db for mixture in mixtures], dtype=torch.float64),
        "peak": torch.tensor([mixture.peak for mixture in mixtures], dtype=torch.float64),
        "rooms": _pack_rooms([mixture.responses for mixture in mixtures], most),
        "noises": _pack_noises([mixture.noises for mixture in mixtures], lengths),
        "effects": pack_effects([plan.effects for plan in plans], lengths, sample_rate),
    }
    enrollments = [enrollment for mixture in mixtures for enrollment in mixture.enrollments]
    return DryBatch(plans, sample_rate, packed, _pack_enrollments(enrollments, sample_rate))


def _pack_rooms(responses: Sequence[RoomResponses | None], num_sources: int) -> Packed | None:
    """The responses of those that are in a room, all direct paths at one tap."""
    rooms = [(row, room) for row, room in enumerate(responses) if room is not None]
    if not rooms:
        return None
    lead = max(room.direct_tap for _, room in rooms)
    taps = max(room.full.shape[-1] + lead - room.direct_tap for _, room in rooms)
    full = torch.zeros(len(rooms), num_sources, taps)
    gains = torch.zeros(len(rooms), num_sources)
    for into, gain, (_, room) in zip(full, gains, rooms, strict=True):
        shift = lead - room.direct_tap
        into[: len(room.full), shift : shift + room.full.shape[-1]] = torch.from_numpy(room.full)
        gain[: len(room.full)] = torch.from_numpy(room.direct_gains)
    return {
        "rows": torch.tensor([row for row, _ in rooms]),
        "full": full,
        "direct_gains": gains,
        "direct_tap": lead,
        "early_ms": [room.early_ms for _, room in rooms],
    }


def _pack_noises(noises: Sequence[Sequence[DryNoise]], lengths: Sequence[int]) -> Packed | None:
    """`[rows, most, samples]`; what becomes of a noise goes by its place among all of `[rows · most]`."""
    most = max((len(own) for own in noises), default=0)
    if most == 0:
        return None
    waveforms = torch.zeros(len(noises), most, max(lengths))
    snr_db = torch.zeros(len(noises), most, dtype=torch.float64)
    given = torch.zeros(len(noises), most, dtype=torch.bool)
    coloured: list[tuple[int, int, float]] = []
    swinging: list[tuple[int, float, float, float]] = []
    for row, own in enumerate(noises):
        for number, noise in enumerate(own):
            place = row * most + number
            waveforms[row, number, : noise.waveform.size] = torch.from_numpy(noise.waveform)
            snr_db[row, number] = noise.snr_db
            given[row, number] = True
            if noise.recipe.kind == "coloured" and noise.recipe.slope_db != 0.0:
                coloured.append((place, noise.waveform.size, noise.recipe.slope_db))
            if (swing := noise.recipe.modulation) is not None:
                swinging.append((place, swing.rate_hz, swing.depth_db, swing.phase))
    packed: Packed = {"waveforms": waveforms, "snr_db": snr_db, "given": given, "coloured": None, "swinging": None}
    if coloured:
        places, sizes, slopes_db = zip(*coloured, strict=True)
        packed["coloured"] = {
            "places": torch.tensor(places),
            "slope_db": torch.tensor(slopes_db, dtype=torch.float64),
            "groups": by_length(sizes),
        }
    if swinging:
        places, *parameters = zip(*swinging, strict=True)
        packed["swinging"] = {
            "places": torch.tensor(places),
            "parameters": torch.tensor(parameters, dtype=torch.float64),
        }
    return packed


def _pack_enrollments(enrollments: Sequence[DryEnrollment], sample_rate: int) -> Packed:
    """All pieces, where each goes, and what happens to the joined ones."""
    pieces = [piece for enrollment in enrollments for piece in enrollment.pieces]
    sizes = [piece.size for piece in pieces]
    padded = torch.zeros(len(pieces), max(sizes, default=0))
    for into, piece in zip(padded, pieces, strict=True):
        into[: piece.size] = torch.from_numpy(np.ascontiguousarray(piece))
    level_db = [
        np.nan if enrollment.level_db is None else enrollment.level_db
        for enrollment in enrollments
        for _ in enrollment.pieces
    ]
    packed: Packed = {
        "pieces": padded,
        "sizes": sizes,
        "piece_lengths": torch.tensor(sizes, dtype=torch.int64),
        "level_db": torch.tensor(level_db, dtype=torch.float64),
        "counts": [len(enrollment.pieces) for enrollment in enrollments],
        "augmented": None,
    }
    changed = [
        (row, enrollment, augmentation)
        for row, enrollment in enumerate(enrollments)
        if (augmentation := enrollment.augmentation) is not None and enrollment.pieces
    ]
    if changed:
        lengths = [sum(piece.size for piece in enrollment.pieces) for _, enrollment, _ in changed]
        packed["augmented"] = {
            "places": [row for row, _, _ in changed],
            "lengths": torch.tensor(lengths),
            "rooms": _pack_rooms([enrollment.responses for _, enrollment, _ in changed], 1),
            "noises": _pack_noises([enrollment.noises for _, enrollment, _ in changed], lengths),
            "effects": pack_effects([augmentation.effects for *_, augmentation in changed], lengths, sample_rate),
            "level_db": torch.tensor([augmentation.level_db for *_, augmentation in changed], dtype=torch.float64),
            "peak": torch.tensor([augmentation.peak for *_, augmentation in changed], dtype=torch.float64),
        }
    return packed


def _map(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Every tensor of nested dictionaries, changed; the rest as it is."""
    if isinstance(tree, Tensor):
        return change(tree)
    return {key: _map(value, change) for key, value in tree.items()} if isinstance(tree, dict) else tree
