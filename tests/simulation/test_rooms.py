"""Rooms keep their word: decay as asked, direct path where the geometry puts it, level as image sources give it."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest

from wesep_py.simulation import RoomConfig
from wesep_py.simulation.recipe import RoomRecipe
from wesep_py.simulation.rooms import SPEED_OF_SOUND_M_S, draw_room, reverberate, room_responses

RATE = 16000


def _rt60_s(response: np.ndarray, rate: int) -> float:
    """Schroeder (1965): backward-integrated energy, slope from -5 to -35 dB."""
    energy = np.cumsum(response[::-1].astype(np.float64) ** 2)[::-1]
    decay_db = 10 * np.log10(np.maximum(energy, 1e-30) / energy[0])
    fitted = np.flatnonzero((decay_db <= -5) & (decay_db >= -35))
    return -60 / np.polyfit(fitted / rate, decay_db[fitted], 1)[0]


def _rooms(rt60_s: float, count: int, sources: int = 1) -> list[RoomRecipe]:
    rng = np.random.default_rng(0)
    config = RoomConfig(rt60_s=(rt60_s, rt60_s))
    return [draw_room(rng, config, sources) for _ in range(count)]


@pytest.mark.parametrize("rt60_s", [0.2, 0.4, 0.6, 0.9])
def test_decay_is_as_asked(rt60_s: float) -> None:
    measured = [_rt60_s(room_responses(room, RATE).full[0], RATE) for room in _rooms(rt60_s, 100)]
    assert np.median(measured) == pytest.approx(rt60_s, rel=0.05)
    assert np.percentile(measured, 5) > 0.9 * rt60_s
    assert np.percentile(measured, 95) < 1.1 * rt60_s


def test_reverberant_energy_is_that_of_a_field_of_image_sources() -> None:
    # One image per room volume, each 1/d² · 10^(-6 d / (c RT60)): integrated from the direct path on,
    # 4π/V · c RT60 / (6 ln 10) · 10^(-6 d0 / (c RT60)).
    ratios = []
    for room in _rooms(0.5, 100):
        responses = room_responses(room, RATE)
        gain = responses.direct_gains[0]
        reach_m = SPEED_OF_SOUND_M_S * room.rt60_s
        expected = 4 * np.pi / room.volume_m3 * reach_m / (6 * np.log(10)) * 10 ** (-6 / gain / reach_m)
        tail = responses.full[0].astype(np.float64).copy()
        ratios.append((np.sum(tail**2) - gain**2) / expected)
    # The 80 Hz high-pass takes about 1 % of the energy.
    assert np.median(ratios) == pytest.approx(1.0, abs=0.1)


def test_direct_path_is_first_and_one_over_distance() -> None:
    heights = []
    for room in _rooms(0.3, 50, sources=2):
        responses = room_responses(room, RATE)
        tap = responses.direct_tap
        np.testing.assert_allclose(responses.direct_gains, 1 / np.array(room.distances_m), rtol=1e-6)
        # Reflections come later; their band-limited impulses reach at most 12 samples ahead.
        assert not responses.full[:, : tap - 12].any()
        heights.extend(responses.full[:, tap] / responses.direct_gains)
    assert np.median(heights) == pytest.approx(1.0, abs=0.05)


def test_the_direct_path_keeps_no_delay() -> None:
    click = np.zeros((2, 8000), dtype=np.float32)
    click[:, 1000] = 1.0
    image, early = reverberate(click, _rooms(0.3, 1, sources=2)[0], RATE, "early")
    assert np.abs(image).argmax(axis=1).tolist() == [1000, 1000]
    assert np.abs(early).argmax(axis=1).tolist() == [1000, 1000]
    _, dry = reverberate(click, _rooms(0.3, 1, sources=2)[0], RATE, "dry")
    assert np.count_nonzero(dry) == 2


def test_early_part_ends_when_it_says() -> None:
    room = dataclasses.replace(_rooms(0.5, 1)[0], early_ms=30.0)
    responses = room_responses(room, RATE)
    end = responses.direct_tap + round(0.030 * RATE)
    assert np.array_equal(responses.early[:, responses.direct_tap : end], responses.full[:, responses.direct_tap : end])
    assert not responses.early[:, end:].any()
    assert responses.full[:, end:].any()


def test_all_sources_stand_in_one_room() -> None:
    rng = np.random.default_rng(1)
    for _ in range(100):
        room = draw_room(rng, RoomConfig(distance_m=(0.5, 6.0)), 3)
        for place in (room.microphone_m, *room.sources_m):
            assert all(0 < x < size for x, size in zip(place, room.size_m, strict=True))
        assert len(set(room.sources_m)) == 3
        assert max(room.distances_m) <= 6.0


def test_responses_are_a_function_of_the_room() -> None:
    room = _rooms(0.4, 1, sources=2)[0]
    again = room_responses(room, RATE).full
    assert np.array_equal(room_responses(room, RATE).full, again)
    other = dataclasses.replace(room, seed=room.seed + 1)
    assert not np.array_equal(room_responses(other, RATE).full, again)
    assert not np.array_equal(again[0], again[1])


@pytest.mark.parametrize("rate", [8000, 44100])
def test_other_rates_decay_alike(rate: int) -> None:
    measured = [_rt60_s(room_responses(room, rate).full[0], rate) for room in _rooms(0.4, 20)]
    assert np.median(measured) == pytest.approx(0.4, rel=0.05)


def test_a_room_takes_milliseconds() -> None:
    rooms = _rooms(0.6, 20, sources=2)
    room_responses(rooms[0], RATE)
    began = time.process_time()
    for room in rooms:
        room_responses(room, RATE)
    # The public implementation takes about 600 ms; bench/rooms.py measures ours. Far from both.
    assert (time.process_time() - began) / len(rooms) < 0.06
