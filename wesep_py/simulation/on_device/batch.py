"""Dry mixtures of a batch as padded tensors, which go to a device in one piece."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wesep_py.simulation.on_device.draw import DryEnrollment, DryMixture, DryNoise
from wesep_py.simulation.on_device.effects import Packed, by_length, pack_effects
from wesep_py.simulation.recipe import Recipe
from wesep_py.simulation.rooms.responses import RoomResponses


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
