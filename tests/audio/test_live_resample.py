"""Resampling a live stream: independent of the blocks, a short delay, the band below the lower Nyquist frequency."""

from __future__ import annotations

import numpy as np
import pytest

from wesep_py.audio.live_resample import LiveResampler
from wesep_py.audio.resample import resampled_length
from wesep_py.common.errors import InputError

RATES = [(48000, 16000), (16000, 48000), (44100, 16000), (16000, 44100), (8000, 16000), (11025, 16000), (16000, 16000)]


def resample_whole(waveform: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    resampler = LiveResampler(from_rate, to_rate, len(waveform))
    block, state = resampler.push(waveform, resampler.initial_state())
    return np.concatenate([block, resampler.finish(state)], axis=1)


@pytest.mark.parametrize(("from_rate", "to_rate"), RATES)
def test_blocks_of_any_size_give_the_same_samples_with_a_bounded_delay(from_rate: int, to_rate: int):
    rng = np.random.default_rng(0)
    waveform = rng.standard_normal((2, from_rate // 4)).astype(np.float32)
    resampler = LiveResampler(from_rate, to_rate, 2)
    state, blocks, start = resampler.initial_state(), [], 0
    while start < waveform.shape[1]:
        stop = min(waveform.shape[1], start + int(rng.integers(0, 300)))
        block, state = resampler.push(waveform[:, start:stop], state)
        blocks.append(block)
        start = stop
        assert state.num_in / from_rate - state.num_out / to_rate <= resampler.delay_s
    result = np.concatenate([*blocks, resampler.finish(state)], axis=1)
    assert result.shape == (2, resampled_length(waveform.shape[1], from_rate, to_rate))
    np.testing.assert_allclose(result, resample_whole(waveform, from_rate, to_rate), atol=2e-6)
    assert resampler.delay_s < 0.0045


@pytest.mark.parametrize(("from_rate", "to_rate"), RATES)
def test_a_tone_keeps_its_time_and_level(from_rate: int, to_rate: int):
    tone = np.sin(2 * np.pi * 1000 * np.arange(from_rate) / from_rate)[None].astype(np.float32)
    result = resample_whole(tone, from_rate, to_rate)[0]
    expected = np.sin(2 * np.pi * 1000 * np.arange(len(result)) / to_rate)
    assert np.abs(result - expected)[200:-200].max() < 1e-4


@pytest.mark.parametrize(
    ("frequency_hz", "limits_db"), [(6800, (-0.2, 0.2)), (8100, (-200, -60)), (15000, (-200, -60))]
)
def test_what_the_lower_rate_cannot_hold_is_removed(frequency_hz: float, limits_db: tuple[float, float]):
    tone = np.sin(2 * np.pi * frequency_hz * np.arange(48000) / 48000)[None].astype(np.float32)
    result = resample_whole(tone, 48000, 16000)[0, 500:-500]
    level_db = 10 * np.log10(2 * np.mean(result.astype(np.float64) ** 2))
    assert limits_db[0] <= level_db <= limits_db[1]


def test_the_state_does_not_change_when_a_block_is_pushed():
    resampler = LiveResampler(44100, 16000, 1)
    _, state = resampler.push(np.ones((1, 1000), np.float32), resampler.initial_state())
    first, _ = resampler.push(np.ones((1, 777), np.float32), state)
    second, _ = resampler.push(np.ones((1, 777), np.float32), state)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("arguments", [(0, 16000, 1), (16000, -1, 1), (16000, 8000, 0)])
def test_rates_and_channels_have_to_be_positive(arguments: tuple[int, int, int]):
    with pytest.raises(InputError, match="all of these have to be positive"):
        LiveResampler(*arguments)
