"""Each effect against its definition: gains, responses, limits; same length, and no change of the input."""

from __future__ import annotations

import numpy as np
import pytest

from wesep_py.simulation.description.effects import (
    BandLimit,
    Clipping,
    CodecRoundTrip,
    Effect,
    Equalisation,
    LevelDrift,
    PacketLoss,
    ResampleRoundTrip,
    apply_effects,
    shelf_section,
)

RATE = 16000
ALL: list[Effect] = [
    LevelDrift(-3.0, 3.0),
    Equalisation((0.1, -0.2, 0.3, 0.1), 200.0, 6.0, 3000.0, -6.0),
    BandLimit(300.0, 3400.0),
    Clipping(0.3),
    CodecRoundTrip("ima_adpcm", 0.0, RATE),
    ResampleRoundTrip(8000),
    PacketLoss(20.0, 0.3, 5),
]


def _noise(num_samples: int = RATE, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(num_samples).astype(np.float32)


def _response_db(effect: Effect, at_hz: list[float]) -> np.ndarray:
    """Return the magnitude response, from an impulse in the middle of two seconds."""
    impulse = np.zeros(2 * RATE, np.float32)
    impulse[RATE] = 1.0
    spectrum = np.abs(np.fft.rfft(effect.apply(impulse, RATE)))
    return 20 * np.log10(spectrum[[round(2 * hz) for hz in at_hz]])


@pytest.mark.parametrize("effect", ALL, ids=lambda effect: effect.kind)
@pytest.mark.parametrize("num_samples", [RATE, 1601, 7])
def test_effect_is_pure_and_keeps_length(effect: Effect, num_samples: int) -> None:
    waveform = _noise(num_samples)
    before = waveform.copy()
    changed = effect.apply(waveform, RATE)
    assert changed.shape == waveform.shape and changed.dtype == np.float32
    assert np.isfinite(changed).all()
    assert np.array_equal(waveform, before)
    assert np.array_equal(effect.apply(waveform, RATE), changed)
    assert num_samples < RATE or not np.array_equal(changed, waveform)
    assert not effect.apply(np.zeros(num_samples, np.float32), RATE).any()


def test_level_drift_is_linear_in_db() -> None:
    changed = LevelDrift(-6.0, 6.0).apply(np.ones(101, np.float32), RATE)
    np.testing.assert_allclose(20 * np.log10(changed[[0, 25, 50, 100]]), [-6.0, -3.0, 0.0, 6.0], atol=1e-4)


def test_shelves_have_full_gain_beyond_and_half_at_corner() -> None:
    low = Equalisation((0.0, 0.0, 0.0, 0.0), 300.0, 8.0, 3000.0, 0.0)
    np.testing.assert_allclose(_response_db(low, [1, 300, 6000]), [8.0, 4.0, 0.0], atol=0.1)
    high = Equalisation((0.0, 0.0, 0.0, 0.0), 300.0, 0.0, 2000.0, -8.0)
    np.testing.assert_allclose(_response_db(high, [10, 2000, 7990]), [0.0, -4.0, -8.0], atol=0.1)
    np.testing.assert_allclose(shelf_section(300.0, 0.0, RATE)[:3], [1.0, *shelf_section(300.0, 0.0, RATE)[4:]])


def test_random_filter_has_its_transfer_function() -> None:
    r1, r2, r3, r4 = 0.3, -0.2, -0.3, 0.25
    effect = Equalisation((r1, r2, r3, r4), 300.0, 0.0, 3000.0, 0.0)
    at_hz = [100.0, 1000.0, 5000.0]
    z = np.exp(-2j * np.pi * np.array(at_hz) / RATE)
    expected = np.abs((1 + r1 * z + r2 * z**2) / (1 + r3 * z + r4 * z**2))
    np.testing.assert_allclose(_response_db(effect, at_hz), 20 * np.log10(expected), atol=0.01)


def test_band_limit_has_its_frequencies_and_no_delay() -> None:
    effect = BandLimit(300.0, 3400.0)
    response = _response_db(effect, [30, 300, 1000, 3400, 7900])
    np.testing.assert_allclose(response[1:4], [-3.01, 0.0, -3.01], atol=0.05)
    assert response[0] < -60 and response[4] < -50
    impulse = np.zeros(2001, np.float32)
    impulse[1000] = 1.0
    through = effect.apply(impulse, RATE)
    assert through.argmax() == 1000
    np.testing.assert_allclose(through, through[::-1], atol=2e-4)
    assert np.allclose(BandLimit(0.0, 8000.0).apply(_noise(), RATE), _noise(), atol=1e-6)


def test_clipping_changes_only_samples_beyond_limit() -> None:
    waveform = _noise()
    limit = 0.25 * np.abs(waveform).max()
    clipped = Clipping(0.25).apply(waveform, RATE)
    assert np.abs(clipped).max() == pytest.approx(limit, rel=1e-6)
    inside = np.abs(waveform) < limit
    assert np.array_equal(clipped[inside], waveform[inside]) and 0.1 < inside.mean() < 0.9


def test_resampling_removes_high_frequencies() -> None:
    time_s = np.arange(RATE) / RATE
    low, high = (np.sin(2 * np.pi * hz * time_s).astype(np.float32) for hz in (1000.0, 6000.0))
    through = ResampleRoundTrip(8000).apply(low + high, RATE)
    np.testing.assert_allclose(through[800:-800], low[800:-800], atol=2e-3)


def test_only_lost_packets_are_silent() -> None:
    waveform = _noise(10 * RATE)
    packets = PacketLoss(20.0, 0.2, 5).apply(waveform, RATE).reshape(-1, 320)
    lost = ~packets.any(axis=1)
    assert lost.mean() == pytest.approx(0.2, abs=0.06)
    assert np.array_equal(packets[~lost], waveform.reshape(-1, 320)[~lost])


def test_effects_are_applied_in_order() -> None:
    waveform = _noise()
    one_by_one = Clipping(0.5).apply(LevelDrift(6.0, 6.0).apply(waveform, RATE), RATE)
    assert np.array_equal(apply_effects(waveform, [LevelDrift(6.0, 6.0), Clipping(0.5)], RATE), one_by_one)
    assert apply_effects(waveform, [], RATE) is waveform
