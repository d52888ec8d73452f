"""Measures of responses with a known answer: decaying noise with a set RT60, a few echoes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wesep_py.common.errors import InputError
from wesep_py.simulation.rooms.acoustics import (
    clarity_db,
    direct_to_reverberant_db,
    energy_decay_db,
    find_direct_tap,
    measure_acoustics,
    rt60_s,
)

RATE = 16000


def _decaying_noise(rt60: float, seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    taps = np.arange(round(seconds * rate))
    return np.random.default_rng(seed).standard_normal(taps.size) * 10 ** (-3 * taps / (rt60 * rate))


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
@pytest.mark.parametrize("rt60", [0.15, 0.5, 1.5])
def test_rt60_of_decaying_noise(rt60: float, rate: int) -> None:
    measured = [rt60_s(_decaying_noise(rt60, 1.2 * rt60, seed, rate), rate) for seed in range(10)]
    assert np.median(measured) == pytest.approx(rt60, rel=0.03)
    assert np.ptp(measured) < 0.15 * rt60


@pytest.mark.parametrize("noise_db", [-55.0, -50.0, -40.0])
def test_noise_at_the_end_does_not_change_rt60(noise_db: float) -> None:
    measured, naive = [], []
    for seed in range(10):
        response = _decaying_noise(0.4, 1.5, seed)
        response += 10 ** (noise_db / 20) * np.random.default_rng(seed + 100).standard_normal(response.size)
        measured.append(rt60_s(response, RATE))
        energy = np.cumsum(response[::-1] ** 2)[::-1]
        decay_db = 10 * np.log10(energy / energy[0])
        fitted = np.flatnonzero((decay_db <= -5) & (decay_db >= -35))
        naive.append(-60 / np.polyfit(fitted / RATE, decay_db[fitted], 1)[0])
    assert np.median(measured) == pytest.approx(0.4, rel=0.05)
    if noise_db == -40.0:
        assert np.median(naive) > 0.6


def test_too_much_noise_gives_nan() -> None:
    response = _decaying_noise(0.4, 1.5)
    response += 10 ** (-15 / 20) * np.random.default_rng(1).standard_normal(response.size)
    assert math.isnan(rt60_s(response, RATE))
    assert math.isnan(rt60_s([1.0, 0.5], RATE))
    assert rt60_s(response, RATE, range_db=(-1.0, -8.0)) == pytest.approx(0.4, rel=0.15)


def test_decay_curve_of_two_echoes() -> None:
    response = np.zeros(400)
    response[0], response[300] = 3.0, 1.0
    decay_db = energy_decay_db(response, RATE)
    assert decay_db.size == 301
    np.testing.assert_allclose(decay_db[:1], 0.0, atol=1e-9)
    np.testing.assert_allclose(decay_db[1:], -10.0, atol=1e-9)


def test_range_selects_part_of_a_decay_with_two_slopes() -> None:
    bent = _decaying_noise(0.2, 1.5) + 10 ** (-20 / 20) * _decaying_noise(1.0, 1.5, seed=1)
    assert rt60_s(bent, RATE, (-1.0, -8.0)) < 0.4
    assert rt60_s(bent, RATE, (-25.0, -35.0)) == pytest.approx(1.0, rel=0.15)


def test_clarity_and_direct_to_reverberant_ratio_count_energy() -> None:
    response = np.zeros(RATE)
    response[100] = 1.0
    response[100 + 39] = 1.0  # 2.4 ms: still the direct sound
    response[100 + 42] = 1.0  # 2.6 ms: a reflection, early
    response[100 + 801] = 0.5  # just later than 50 ms
    assert direct_to_reverberant_db(response, 100, RATE) == pytest.approx(10 * math.log10(2 / 1.25))
    assert clarity_db(response, 100, RATE) == pytest.approx(10 * math.log10(3 / 0.25))
    response[100 + 801] = 0.0
    assert clarity_db(response, 100, RATE) == math.inf


def test_clarity_of_an_exponential_decay() -> None:
    # Barron & Lee (1988): without direct sound, C50 = 10 log10(exp(6 ln 10 · 0.05 / RT60) - 1).
    ratio = 10 ** (6 * 0.05 / 0.5) - 1
    measured = [measure_acoustics(_decaying_noise(0.5, 1.0, seed), RATE, 0).c50_db for seed in range(20)]
    assert np.median(measured) == pytest.approx(10 * math.log10(ratio), abs=0.2)


def test_direct_path_is_found_before_a_louder_reflection() -> None:
    response = 1e-3 * np.random.default_rng(0).standard_normal(RATE)
    response[498:502] += [0.1, 0.3, -0.5, 0.2]
    response[900] = 1.0
    assert find_direct_tap(response, RATE) == 500
    assert measure_acoustics(response, RATE).drr_db == pytest.approx(direct_to_reverberant_db(response, 500, RATE))


def test_silence_and_positions_outside_are_refused() -> None:
    with pytest.raises(InputError, match=r"^response: is silent; give one with sound"):
        measure_acoustics(np.zeros(100), RATE)
    with pytest.raises(InputError, match=r"^response: is of shape \[2, 100\]"):
        rt60_s(np.ones((2, 100)), RATE)
    with pytest.raises(InputError, match=r"^direct_tap: is 100; the response has the taps 0 to 99$"):
        clarity_db(np.ones(100), 100, RATE)
