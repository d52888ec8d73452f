"""Drawing a room: its size and decay, and where microphone and sources stand in it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wesep_py.simulation.config import RoomConfig
from wesep_py.simulation.recipe import Point, RoomRecipe

WALL_DISTANCE_M = 0.3


def draw_room(rng: np.random.Generator, config: RoomConfig, num_sources: int) -> RoomRecipe:
    """A room, a microphone in it, and a place for each source.

    Args:
        rng: what is drawn comes from here.
        config: ranges of size, reverberation time and distance.
        num_sources: 1 or more.

    >>> room = draw_room(np.random.default_rng(0), RoomConfig(), 2)
    >>> len(room.sources_m)
    2
    """
    ranges = (config.length_m, config.width_m, config.height_m)
    size = np.array([rng.uniform(*bounds) for bounds in ranges])
    rt60_s = float(rng.uniform(*config.rt60_s))
    microphone = rng.uniform(WALL_DISTANCE_M, size - WALL_DISTANCE_M)
    sources = tuple(_draw_place(rng, config, size, microphone) for _ in range(num_sources))
    return RoomRecipe(
        size_m=_point(size),
        rt60_s=rt60_s,
        microphone_m=_point(microphone),
        sources_m=sources,
        num_reflections=config.num_reflections,
        early_ms=config.early_ms,
        seed=int(rng.integers(2**31)),
    )


def _draw_place(
    rng: np.random.Generator, config: RoomConfig, size: NDArray[np.float64], microphone: NDArray[np.float64]
) -> Point:
    """A place in the room at a drawn distance from the microphone, in a random direction."""
    distance = rng.uniform(*config.distance_m)
    while True:
        directions = rng.standard_normal((16, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        places = microphone + distance * directions
        inside = np.all((places > 0) & (places < size), axis=1)
        if inside.any():
            return _point(places[inside.argmax()])
        distance *= 0.9  # no direction tried leaves so much space: nearer


def _point(values: NDArray[np.float64]) -> Point:
    x, y, z = (float(value) for value in values)
    return x, y, z
