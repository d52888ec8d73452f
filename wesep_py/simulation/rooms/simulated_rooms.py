"""Simulated rooms of a bank: by image sources, by image sources and ray tracing (hybrid), or by FRA.

pyroomacoustics (Scheibler, Bezzam & Dokmanić, ICASSP 2018) is needed for the first two only. Two properties of these
rooms: A source is moved towards the first microphone by less than the distance of one sample, so that the direct path
arrives exactly on a sample and a dry target is exactly aligned. And a shoebox decays with several slopes, because waves
along it meet its walls less often, so that T30 is up to 1.5 times the RT60 that Eyring's or Sabine's formula was solved
for. Rooms are drawn from a bank by their measured RT60.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wesep_py.common.errors import InputError, nearest
from wesep_py.simulation.description.recipe import RoomRecipe
from wesep_py.simulation.description.simulation_config import Range, RoomConfig
from wesep_py.simulation.rooms.bank_writer import BankResponse, BankRoom, lead_of
from wesep_py.simulation.rooms.fra import (
    NEAREST_M,
    SPEED_OF_SOUND_M_S,
    WALL_DISTANCE_M,
    draw_room,
    eyring_absorption,
    high_pass,
)
from wesep_py.simulation.rooms.reverberation import room_responses

SURFACES = ("ceiling", "floor", "walls")
# Image sources reach this many times the RT60.
REACH = 1.2
OCTAVES_HZ = (125.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SimulatedRoomsConfig:
    """Configuration of the simulated rooms of a bank.

    Args:
        count: number of rooms.
        method: `image_source`; `hybrid`: image sources up to `hybrid_order`, ray tracing after that; `fra`: as for
            rooms that are drawn for each mixture.
        rt60_s: range of the RT60 from which the absorption of the walls is computed.
        length_m, width_m, height_m: ranges of the room's size.
        distance_m: range of the distance from source to first microphone; shorter if the room is too small.
        num_sources: responses of each room.
        num_microphones: of each room, on a circle; distances are to the first.
        array_radius_m: radius of the circle.
        absorption: of the walls: from the RT60 by Eyring's or Sabine's formula, or by `materials`.
        materials: for `materials`: names of pyroomacoustics, of which one is drawn for each of `ceiling`, `floor` and
            `walls`.
        scattering: share of the energy that walls scatter, for ray tracing.
        air_absorption: whether air attenuates high frequencies.
        max_order: largest number of reflections of an image source; with high RT60 and in low rooms it shortens the
            response.
        hybrid_order: largest number of reflections of an image source, with ray tracing.
        num_rays: rays of each source.
        num_reflections: number of virtual sources of each response, for `fra`.
    """

    count: int = 1000
    method: Literal["image_source", "hybrid", "fra"] = "hybrid"
    rt60_s: Range = (0.15, 0.8)
    length_m: Range = (3.0, 9.0)
    width_m: Range = (3.0, 7.0)
    height_m: Range = (2.4, 3.5)
    distance_m: Range = (0.5, 3.0)
    num_sources: int = 4
    num_microphones: int = 1
    array_radius_m: float = 0.05
    absorption: Literal["eyring", "sabine", "materials"] = "eyring"
    materials: dict[str, list[str]] = field(default_factory=dict)
    scattering: float = 0.1
    air_absorption: bool = True
    max_order: int = 100
    hybrid_order: int = 3
    num_rays: int = 5000
    num_reflections: int = 2048

    @property
    def ranges(self) -> RoomConfig:
        """The ranges of the rooms, as `fra.draw_room` needs them."""
        return RoomConfig(
            rt60_s=self.rt60_s, length_m=self.length_m, width_m=self.width_m, height_m=self.height_m,
            distance_m=self.distance_m, num_reflections=self.num_reflections,
        )  # fmt: skip

    def __post_init__(self) -> None:
        self.ranges  # noqa: B018 - raises where a range is wrong
        for name, low, high in (
            ("count", 0, 10_000_000), ("num_sources", 1, 64), ("num_microphones", 1, 64), ("scattering", 0, 1),
            ("max_order", 1, 300), ("hybrid_order", 0, 20), ("num_rays", 100, 10_000_000),
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name}: is {getattr(self, name)}; give {low} to {high}")
        if not 0 < self.array_radius_m < WALL_DISTANCE_M / 2:
            raise ValueError(f"array_radius_m: is {self.array_radius_m}; give more than 0 and less than 0.15")
        if self.absorption == "materials" and (
            set(self.materials) != set(SURFACES) or not all(self.materials.values())
        ):
            raise ValueError(f"materials: has {sorted(self.materials)}; give names for each of {', '.join(SURFACES)}")
        if self.absorption == "materials" and self.method == "fra":
            raise ValueError("absorption: is materials, which method fra cannot use; give eyring")


def simulate_room(config: SimulatedRoomsConfig, index: int, seed: int, sample_rate: int) -> BankRoom:
    """Simulate room `index` of a bank; a pure function of the arguments.

    Args:
        config: the simulated rooms of the bank.
        index, seed: 0 or more.
        sample_rate: in Hz.

    Raises:
        InputError: pyroomacoustics is needed and missing, or does not know a material.
    """
    rng = np.random.default_rng([seed, index])
    room = draw_room(rng, config.ranges, config.num_sources)
    microphones = _circle(rng, config, room)
    if config.method == "fra":
        responses = room_responses(room, sample_rate, microphones)
        rows, reference = responses.full.astype(np.float64), responses.direct_tap
        starts, gains = np.full(len(rows), reference), responses.direct_gains[:, 0]
        how: dict[str, Any] = {"absorption": round(eyring_absorption(room.rt60_s, room.size_m), 4)}
    else:
        room = _on_samples(room, sample_rate)
        rows, starts, how = _by_pyroomacoustics(rng, config, room, microphones, sample_rate)
        gains = np.array([row[0, start] for row, start in zip(rows, starts, strict=True)])
    lead = lead_of(sample_rate)
    distances = np.maximum(np.linalg.norm(np.array(room.sources_m)[:, None] - microphones, axis=-1), NEAREST_M)
    delays = np.rint((distances - distances[:, :1]) * sample_rate / SPEED_OF_SOUND_M_S).astype(int)
    about = {
        "index": index,
        "method": config.method,
        "seed": seed,
        "size_m": _rounded(room.size_m),
        "rt60_asked_s": None if config.absorption == "materials" else round(room.rt60_s, 4),
        **how,
        "microphones_m": [_rounded(place) for place in microphones],
    }
    built = tuple(
        BankResponse(
            samples=_aligned(row, int(start), lead),
            direct_taps=tuple(int(lead + delay) for delay in delay_row),
            direct_gains=tuple(float(gain * distance_row[0] / distance) for distance in distance_row),
            about={"source_m": _rounded(place)},
        )
        for row, start, gain, delay_row, distance_row, place in zip(
            rows, starts, gains, delays, distances, room.sources_m, strict=True
        )
    )
    return BankRoom(about, built)


def import_pyroomacoustics() -> Any:
    """Import pyroomacoustics.

    Raises:
        InputError: it is not installed, or its version cannot be seeded; the message says what to install.
    """
    try:
        import pyroomacoustics
    except ImportError as error:
        raise InputError(
            f"rooms of method image_source and hybrid need pyroomacoustics ({error}); "
            "pip install 'pyroomacoustics>=0.10', or give method fra"
        ) from error
    if not hasattr(pyroomacoustics, "random"):
        raise InputError(
            f"pyroomacoustics {pyroomacoustics.__version__} cannot be seeded; pip install 'pyroomacoustics>=0.10'"
        )
    return pyroomacoustics


def image_source_order(rt60_s: float, size_m: tuple[float, float, float]) -> int:
    """Return the number of reflections up to which all image sources within `REACH` · RT60 of travel are included.

    >>> image_source_order(0.3, (6.0, 5.0, 3.0))
    53
    """
    # The images with up to n reflections fill an octahedron; its nearest face is at n / sqrt(Σ 1/L²).
    return math.ceil(REACH * rt60_s * SPEED_OF_SOUND_M_S * math.sqrt(sum(length**-2 for length in size_m)))


def _by_pyroomacoustics(
    rng: np.random.Generator, config: SimulatedRoomsConfig, room: RoomRecipe, microphones: Array, sample_rate: int
) -> tuple[list[Array], list[int], dict[str, Any]]:
    """Return the responses `[microphones, taps]` of each source, their direct taps, and values for the index."""
    pra = import_pyroomacoustics()
    pra.random.seed(numpy=int(rng.integers(2**63)), libroom=int(rng.integers(2**63)))
    materials, how = _materials(pra, rng, config, room)
    rt60_s = _longest_rt60_s(materials, room) if config.absorption == "materials" else room.rt60_s
    hybrid = config.method == "hybrid"
    how["order"] = config.hybrid_order if hybrid else min(image_source_order(rt60_s, room.size_m), config.max_order)
    shoebox = pra.ShoeBox(
        room.size_m, fs=sample_rate, materials=materials, air_absorption=config.air_absorption,
        ray_tracing=hybrid, max_order=how["order"],
    )  # fmt: skip
    if hybrid:
        shoebox.set_ray_tracing(n_rays=config.num_rays, receiver_radius=0.3)
    for place in room.sources_m:
        shoebox.add_source(list(place))
    shoebox.add_microphone_array(microphones.T)
    shoebox.compute_rir()
    lead = pra.constants.get("frac_delay_length") // 2
    starts = [lead + round(distance * sample_rate / SPEED_OF_SOUND_M_S) for distance in room.distances_m]
    rows = []
    for source, start in enumerate(starts):
        stop = start + round(REACH * rt60_s * sample_rate)
        row = np.zeros((len(microphones), stop))
        for out, response in zip(row, (channel[source] for channel in shoebox.rir), strict=True):
            out[: len(response[:stop])] = response[:stop]
        rows.append(high_pass(row, sample_rate))
    return rows, starts, how


def _materials(
    pra: Any, rng: np.random.Generator, config: SimulatedRoomsConfig, room: RoomRecipe
) -> tuple[Any, dict[str, Any]]:
    if config.absorption == "materials":
        names = {surface: str(rng.choice(config.materials[surface])) for surface in SURFACES}
        known = pra.materials_absorption_table
        for surface, name in names.items():
            if name not in known:
                raise InputError(f"materials.{surface}: pyroomacoustics knows no {name!r}; {nearest(name, known)}")
        sides = dict.fromkeys(("north", "east", "south", "west"), names["walls"])
        surfaces = {"ceiling": names["ceiling"], "floor": names["floor"], **sides}
        return {side: pra.Material(name, config.scattering) for side, name in surfaces.items()}, {"materials": names}
    absorption = eyring_absorption(room.rt60_s, room.size_m)
    if config.absorption == "sabine":
        # Sabine: the first term of Eyring's formula, α = -ln(1 - α_Eyring). Small, dry rooms would need more than 1.
        absorption = min(-math.log1p(-absorption), 0.99)
    return pra.Material(absorption, config.scattering), {"absorption": round(absorption, 4)}


def _longest_rt60_s(materials: Mapping[str, Any], room: RoomRecipe) -> float:
    """Return the longest RT60, by Eyring's formula, of the octaves from 125 Hz to 4 kHz."""
    length, width, height = room.size_m
    areas = {"floor": length * width, "ceiling": length * width}
    areas |= dict.fromkeys(("north", "south"), length * height) | dict.fromkeys(("east", "west"), width * height)
    absorbed = np.zeros(len(OCTAVES_HZ))
    for side, area in areas.items():
        about = materials[side].energy_absorption
        # A single coefficient applies to all frequencies.
        known_hz = about.get("center_freqs", [1000.0])
        absorbed += area * np.interp(np.log2(OCTAVES_HZ), np.log2(known_hz), about["coeffs"])
    surface = sum(areas.values())
    reflected = np.clip(1 - absorbed / surface, 1e-3, 0.999).max()
    return float(-24 * np.log(10) * room.volume_m3 / (SPEED_OF_SOUND_M_S * surface * np.log(reflected)))


def _circle(rng: np.random.Generator, config: SimulatedRoomsConfig, room: RoomRecipe) -> Array:
    """Place microphones evenly on a horizontal circle; the first is the room's microphone: `[microphones, 3]`."""
    first = np.array(room.microphone_m)
    angles = rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(config.num_microphones) / config.num_microphones
    circle = np.stack([np.cos(angles), np.sin(angles), np.zeros_like(angles)], axis=1)
    return first + config.array_radius_m * (circle - circle[0])


def _on_samples(room: RoomRecipe, sample_rate: int) -> RoomRecipe:
    """Move every source so that sound takes a whole number of samples from it to the room's microphone."""
    microphone, step = np.array(room.microphone_m), SPEED_OF_SOUND_M_S / sample_rate
    places = []
    for place, distance in zip(room.sources_m, room.distances_m, strict=True):
        whole = max(math.floor(distance / step), 1) * step
        x, y, z = (float(v) for v in microphone + (np.array(place) - microphone) * (whole / max(distance, 1e-9)))
        places.append((x, y, z))
    return replace(room, sources_m=tuple(places))


def _aligned(row: Array, start: int, lead: int) -> NDArray[np.float32]:
    """Shift `[microphones, taps]` so that tap `start` becomes tap `lead`."""
    moved = row[:, start - lead :] if start >= lead else np.pad(row, ((0, 0), (lead - start, 0)))
    return moved.astype(np.float32)


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 4) for value in values]
