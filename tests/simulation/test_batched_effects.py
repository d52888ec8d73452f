"""Levels, activity and effects of many waveforms at once, against those of single ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wesep_py.audio.level import active_level_db, active_mask
from wesep_py.simulation.batched_effects import (
    active_frames,
    active_levels_db,
    activity_at,
    apply_packed,
    frame_length,
    level_gains,
    pack_effects,
    runs_on_device,
)
from wesep_py.simulation.description.effects import (
    BandLimit,
    Clipping,
    CodecRoundTrip,
    Equalisation,
    LevelDrift,
    PacketLoss,
    ResampleRoundTrip,
)
from wesep_py.simulation.rendering import frame_activity

RATE = 8000
LENGTHS = (8000, 4321, 100, 1, 7999)


@pytest.fixture
def rows() -> list[np.ndarray]:
    """Bursts of different lengths and levels; one is silent."""
    rng = np.random.default_rng(4)
    waveform = [rng.standard_normal(n) * np.repeat(10 ** rng.uniform(-4, 0, n // 50 + 1), 50)[:n] for n in LENGTHS]
    waveform[2] *= 0.0
    return [row.astype(np.float32) for row in waveform]


def padded(rows: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    waveforms = torch.zeros(len(rows), max(map(len, rows)))
    for padded_row, row in zip(waveforms, rows, strict=True):
        padded_row[: len(row)] = torch.from_numpy(row)
    return waveforms, torch.tensor([len(row) for row in rows])


def test_batched_levels_equal_single_ones(rows):
    result = active_levels_db(*padded(rows), RATE)
    assert result.dtype == torch.float64 and result[2] == -torch.inf
    np.testing.assert_allclose(result.numpy(), [active_level_db(row, RATE) for row in rows], rtol=0, atol=1e-9)


def test_batched_activity_equals_single_one(rows):
    waveforms, lengths = padded(rows)
    active, *_ = active_frames(waveforms, lengths, RATE)
    at_100_hz = activity_at(active, lengths, max(LENGTHS), RATE, 100)
    assert not active.all() and active.any()
    for row, frames, hundredths in zip(rows, active.numpy(), at_100_hz.numpy(), strict=True):
        np.testing.assert_array_equal(np.repeat(frames, frame_length(RATE))[: len(row)], active_mask(row, RATE))
        expected = frame_activity(row, RATE)
        np.testing.assert_array_equal(hundredths[: len(expected)], expected)


@pytest.mark.parametrize(
    "effect",
    [
        LevelDrift(-3.0, 12.0),
        Equalisation((0.3, -0.2, 0.44, 0.44), 10.0, 12.0, 3500.0, -12.0),
        BandLimit(100.0, 2000.0),
        BandLimit(0.0, 2000.0),
        BandLimit(300.0, 4000.0),
        Clipping(0.3),
        PacketLoss(20.0, 0.3, seed=5),
    ],
    ids=lambda effect: f"{effect.kind}",
)
def test_batched_effect_equals_that_of_the_cpu(rows, effect):
    """Apply an effect to every other row; the other rows, and samples beyond the ends, are unchanged."""
    waveforms, lengths = padded(rows)
    changed = [n % 2 == 0 for n in range(len(rows))]
    packed = pack_effects([[effect] if is_changed else [] for is_changed in changed], LENGTHS, RATE)
    result = apply_packed(waveforms, lengths, packed, RATE)
    for row, waveform, is_changed in zip(rows, result.numpy(), changed, strict=True):
        expected = effect.apply(row, RATE) if is_changed else row
        peak = max(float(np.abs(expected).max()), 1e-6)
        np.testing.assert_allclose(waveform[: len(row)], expected, rtol=0, atol=3e-6 * peak)
        assert not waveform[len(row) :].any()


def test_level_gains_of_drifts():
    packed = pack_effects([[LevelDrift(0.0, -20.0)], [Clipping(0.5)]], (5, 3), RATE)
    gains = level_gains(2, torch.tensor([5, 3]), packed, 5)
    np.testing.assert_allclose(gains[0].numpy(), LevelDrift(0.0, -20.0).gains(5), rtol=1e-6)
    assert (gains[1] == 1).all()


def test_effects_that_run_on_a_device():
    assert not runs_on_device(CodecRoundTrip("ulaw", 0.0, 8000)) and not runs_on_device(ResampleRoundTrip(4000))
    assert runs_on_device(Clipping(0.5))
