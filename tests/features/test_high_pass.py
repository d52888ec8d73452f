"""High-pass filters: a constant is removed exactly, rumble is attenuated, the phase of voices is kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wesep_py.features import CausalHighPass, HighPass


def tone(hz: float, rate: int, duration_s: float = 2.0) -> torch.Tensor:
    return torch.sin(2 * torch.pi * hz * torch.arange(round(duration_s * rate), dtype=torch.float64) / rate).float()[
        None
    ]


def db(waveform: torch.Tensor, rate: int) -> float:
    """Return the RMS of the middle, in dB relative to a full-scale sine."""
    inner = waveform[:, rate // 4 : -rate // 4]
    return 20 * float(torch.log10(inner.square().mean().sqrt() * 2**0.5 + 1e-12))


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_rumble_is_removed_and_voices_keep_their_phase(rate: int):
    high_pass = HighPass(rate, 40.0)
    for hz in (1.0, 20.0, 40.0):
        assert db(high_pass(tone(hz, rate)), rate) < -50
    for hz in (60.0, 80.0, 150.0, 3000.0):
        assert db(high_pass(tone(hz, rate)) - tone(hz, rate), rate) < -58


@pytest.mark.parametrize("length", [1, 2, 50, 1500, 1600, 5000])
def test_a_constant_is_removed_from_the_first_to_the_last_sample(length: int):
    assert HighPass(16000, 40.0)(torch.full((2, length), 0.1)).abs().max() < 1e-8
    assert CausalHighPass(16000, 5.0)(torch.full((2, length), 0.1))[0].abs().max() == 0
    waveform = torch.randn(1, length)
    with_constant, without = (HighPass(16000, 40.0)(waveform + constant) for constant in (0.5, 0.0))
    torch.testing.assert_close(with_constant, without, atol=1e-6, rtol=0)


def test_an_empty_waveform_stays_empty():
    assert HighPass(16000, 40.0)(torch.zeros(2, 0)).shape == (2, 0)
    assert CausalHighPass(16000, 5.0)(torch.zeros(2, 0), None)[0].shape == (2, 0)


def test_padding_is_ignored_and_becomes_zero():
    high_pass, short, long = HighPass(16000, 40.0), torch.randn(1, 700) + 0.3, torch.randn(1, 9000) - 0.2
    batch = torch.cat([torch.nn.functional.pad(short, (0, 8300)), long])
    filtered = high_pass(batch, torch.tensor([700, 9000]))
    torch.testing.assert_close(filtered[:1, :700], high_pass(short), atol=1e-6, rtol=0)
    torch.testing.assert_close(filtered[1:], high_pass(long), atol=1e-6, rtol=0)
    assert not filtered[0, 700:].any()


def test_the_causal_filter_equals_its_recursion():
    waveform = torch.randn(2, 20000) + 0.1
    shifted, share = (waveform - waveform[:, :1]).double().numpy(), 1 - np.exp(-2 * np.pi * 5 / 16000)
    low, expected = np.zeros(2), np.empty_like(shifted)
    for n in range(shifted.shape[1]):
        low = low + share * (shifted[:, n] - low)
        expected[:, n] = shifted[:, n] - low
    np.testing.assert_allclose(CausalHighPass(16000, 5.0)(waveform)[0].numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("rate", [8000, 48000])
def test_causal_filtering_of_blocks_equals_that_of_the_whole(rate: int):
    high_pass, waveform, state, outputs = CausalHighPass(rate, 5.0), torch.randn(2, 30000) + 0.1, None, []
    for block in waveform.split([1, 7, 2000, 0, 12345, 30000 - 14353], dim=1):
        output, state = high_pass(block, state)
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, dim=1), high_pass(waveform)[0], atol=2e-6, rtol=0)


def test_the_causal_filter_has_no_look_ahead_and_a_small_phase_shift():
    high_pass, waveform = CausalHighPass(16000, 5.0), torch.randn(1, 9000)
    later = torch.cat([waveform[:, :5000], torch.randn(1, 4000)], dim=1)
    assert torch.equal(high_pass(waveform)[0][:, :5000], high_pass(later)[0][:, :5000])
    assert db(high_pass(tone(100, 16000))[0] - tone(100, 16000), 16000) < -25


def test_gradients_are_finite_and_not_zero():
    waveform = torch.randn(1, 3000, dtype=torch.float64, requires_grad=True)
    (HighPass(16000, 40.0)(waveform).square().sum() + CausalHighPass(16000, 5.0)(waveform)[0].square().sum()).backward()
    assert torch.isfinite(waveform.grad).all() and waveform.grad.any()


@pytest.mark.parametrize("kind", [HighPass, CausalHighPass])
@pytest.mark.parametrize("cutoff_hz", [0.0, -1.0, 500.0])
def test_an_invalid_cutoff_is_refused(kind, cutoff_hz: float):
    with pytest.raises(ValueError, match="above 0 and below 500 Hz is allowed"):
        kind(8000, cutoff_hz)
