"""A drawn room holds what is put into it."""

from __future__ import annotations

import numpy as np

from wesep_py.simulation import RoomConfig
from wesep_py.simulation.rooms.fra import draw_room


def test_all_sources_stand_in_one_room() -> None:
    rng = np.random.default_rng(1)
    for _ in range(100):
        room = draw_room(rng, RoomConfig(distance_m=(0.5, 6.0)), 3)
        for place in (room.microphone_m, *room.sources_m):
            assert all(0 < x < size for x, size in zip(place, room.size_m, strict=True))
        assert len(set(room.sources_m)) == 3
        assert max(room.distances_m) <= 6.0
