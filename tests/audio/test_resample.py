"""Resampling: exact lengths, tones, blocks, and the differentiable layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wesep_py import audio
from wesep_py.audio.reading import resample_blocks
from wesep_py.audio.resample import StreamResampler
from wesep_py.common.errors import InputError

RATES = [8000, 11025, 16000, 22050, 44100, 48000]


def _tone(frequency: float, sample_rate: int, duration_s: float = 0.5) -> np.ndarray:
    time_s = np.arange(round(duration_s * sample_rate)) / sample_rate
    return (0.5 * np.sin(2 * np.pi * frequency * time_s)).astype(np.float32)


@pytest.mark.parametrize("from_rate", RATES)
@pytest.mark.parametrize("to_rate", RATES)
def test_a_tone_keeps_frequency_phase_and_level(from_rate: int, to_rate: int):
    resampled = audio.resample(_tone(1000, from_rate), from_rate, to_rate)
    expected = _tone(1000, to_rate)
    length, edge = min(len(resampled), len(expected)), to_rate // 50
    np.testing.assert_allclose(resampled[edge : length - edge], expected[edge : length - edge], atol=2e-4)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.sampled_from(RATES), st.sampled_from(RATES))
def test_lengths_are_rounded_up(num_samples: int, from_rate: int, to_rate: int):
    waveform = np.ones((2, num_samples), np.float32)
    expected = (2, -(-num_samples * to_rate // from_rate))
    assert audio.resample(waveform, from_rate, to_rate).shape == expected
    assert audio.resampled_length(num_samples, from_rate, to_rate) == expected[1]
    # Back again it is never shorter than it was, so it can be cut to length.
    assert audio.resampled_length(expected[1], to_rate, from_rate) >= num_samples


def test_frequencies_above_the_lower_rate_are_removed():
    assert audio.rms(audio.resample(_tone(6000, 16000), 16000, 8000)[200:-200]) < 1e-4


def test_a_channel_does_not_depend_on_the_others():
    waveform = np.random.default_rng(0).standard_normal((3, 5000)).astype(np.float32)
    together = audio.resample(waveform, 44100, 16000)
    for channel in range(3):
        np.testing.assert_array_equal(audio.resample(waveform[channel], 44100, 16000), together[channel])


def test_equal_rates_return_the_same_samples():
    waveform = np.random.default_rng(0).standard_normal(100).astype(np.float32)
    assert audio.resample(waveform, 16000, 16000) is waveform


def test_an_empty_waveform_stays_empty():
    assert audio.resample(np.zeros((2, 0), np.float32), 16000, 8000).shape == (2, 0)


@pytest.mark.parametrize("resampler", [lambda a, b: audio.resample(np.zeros(9), a, b), audio.SincResample])
def test_rates_have_to_be_positive(resampler):
    for rates in ((0, 16000), (16000, -1)):
        with pytest.raises(InputError, match="positive"):
            resampler(*rates)


@pytest.mark.parametrize(("from_rate", "to_rate"), [(16000, 8000), (8000, 16000), (44100, 16000), (16000, 48000)])
def test_the_layer_agrees_with_the_function(from_rate: int, to_rate: int):
    lowest = min(from_rate, to_rate)
    waveform = sum(_tone(f * lowest, from_rate) for f in (0.03, 0.11, 0.29, 0.4)).astype(np.float32)
    arrays = audio.resample(waveform, from_rate, to_rate)
    graph = audio.SincResample(from_rate, to_rate)(torch.from_numpy(waveform)).numpy()
    assert graph.shape == arrays.shape
    edge = to_rate // 50
    np.testing.assert_allclose(graph[edge:-edge], arrays[edge:-edge], atol=1e-3)


@pytest.mark.parametrize("num_samples", [1, 2, 159, 160, 161, 1000])
def test_the_layer_equals_torchaudio_at_every_length(num_samples: int):
    from torchaudio.transforms import Resample

    reference = Resample(
        44100, 16000, lowpass_filter_width=64, rolloff=0.9475937167399596,
        resampling_method="sinc_interp_kaiser", beta=14.769656459379492,
    )  # fmt: skip
    waveform = torch.randn(2, 3, num_samples)
    torch.testing.assert_close(audio.SincResample(44100, 16000)(waveform), reference(waveform), atol=1e-6, rtol=0)


def test_the_layer_has_gradients_and_no_weights():
    module = audio.SincResample(16000, 8000)
    waveform = torch.randn(1, 400, requires_grad=True)
    module(waveform).square().sum().backward()
    assert waveform.grad is not None and waveform.grad.abs().sum() > 0
    assert not module.state_dict() and not list(module.parameters())


@pytest.mark.parametrize(("from_rate", "to_rate"), [(44100, 16000), (16000, 44100), (8000, 16000), (16000, 16000)])
@pytest.mark.parametrize("num_samples", [1, 5, 30011])
def test_blocks_give_the_same_samples_as_the_whole(from_rate: int, to_rate: int, num_samples: int):
    rng = np.random.default_rng(num_samples)
    waveform = rng.standard_normal((2, num_samples)).astype(np.float32)
    cuts = np.sort(rng.integers(0, num_samples, 6))
    joined = np.concatenate(list(resample_blocks(np.split(waveform, cuts, axis=1), from_rate, to_rate, 2)), axis=1)
    np.testing.assert_allclose(joined, audio.resample(waveform, from_rate, to_rate), atol=1e-6)


def test_stream_resampler_refuses_wrong_rates_and_shapes():
    with pytest.raises(InputError, match="have to be positive"):
        StreamResampler(0, 16000, 1)
    with pytest.raises(InputError, match=r"\[2, samples\] is needed"):
        StreamResampler(8000, 16000, 2).push(np.zeros((1, 10), np.float32))
