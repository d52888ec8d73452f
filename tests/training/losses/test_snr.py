"""SNR, thresholded and scale-dependent SDR: known values, and an independent implementation."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from wesep_py.common.errors import ConfigError
from wesep_py.training.losses import SDSDR, SNR, ThresholdedSDR, losses

# Two orthogonal signals of energy 4.
TARGET = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
ERROR = torch.tensor([[1.0, 1.0, -1.0, -1.0]])


def value(loss, *estimates: torch.Tensor, target: torch.Tensor = TARGET) -> float:
    return loss(SimpleNamespace(waveforms=estimates), target, {}).item()


@pytest.mark.parametrize(
    ("loss", "estimate", "expected"),
    [
        (SNR(), TARGET + 0.1 * ERROR, -20.0),
        (SNR(), 0.9 * TARGET, -20.0),  # level counts
        (SNR(), 0 * TARGET, 0.0),
        (ThresholdedSDR(30), TARGET, -30.0),
        (ThresholdedSDR(20), TARGET + 0.1 * ERROR, -16.9897),  # 10 log10(1 / (0.01 + 0.01))
        (ThresholdedSDR(30), 0 * TARGET, 0.0043),
        (SDSDR(), TARGET + 0.1 * ERROR, -20.0),
        (SDSDR(), 0.5 * TARGET, 0.0),  # |0.5 s|² = |s - 0.5 s|²
        (SDSDR(), 2 * TARGET, -6.0206),
    ],
)
def test_known_values(loss, estimate: torch.Tensor, expected: float):
    assert value(loss, estimate) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("name", "theirs"), [("snr", "snr"), ("sd_sdr", "sdsdr")])
def test_asteroid_agrees(name: str, theirs: str):
    sdr = pytest.importorskip("asteroid.losses.sdr")
    generator = torch.Generator().manual_seed(0)
    target, noise = torch.randn(2, 4, 2000, generator=generator)
    estimate = 0.7 * target + 0.3 * noise
    expected = sdr.SingleSrcNegSDR(theirs, zero_mean=False)(estimate, target).mean().item()
    assert value(losses.build({"name": name}, "loss"), estimate, target=target) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", ["snr", "thresholded_sdr", "sd_sdr"])
def test_silent_targets_are_skipped_and_all_gradients_finite(name: str):
    loss = losses.build({"name": name}, "loss")
    target = torch.cat([TARGET, torch.zeros(1, 4)])
    estimate = torch.cat([TARGET + 0.1 * ERROR, ERROR]).requires_grad_()
    found = loss(SimpleNamespace(waveforms=(estimate,)), target, {})
    assert found.item() == pytest.approx(value(loss, TARGET + 0.1 * ERROR), abs=1e-4)
    found.backward()
    assert estimate.grad[0].abs().sum() > 0 and (estimate.grad[1] == 0).all()
    silent = torch.zeros(1, 4, requires_grad=True)
    loss(SimpleNamespace(waveforms=(silent,)), TARGET, {}).backward()
    assert silent.grad.isfinite().all()


def test_a_target_that_is_said_to_be_absent_is_skipped():
    output = SimpleNamespace(waveforms=(torch.cat([TARGET + 0.1 * ERROR, ERROR]),))
    batch = {"present": torch.tensor([1, 0])}
    assert SNR()(output, torch.cat([TARGET, TARGET]), batch).item() == pytest.approx(-20, abs=1e-3)


def test_scales_are_weighted():
    loss = losses.build({"name": "snr", "weights": [0.8, 0.2]}, "loss")
    assert value(loss, TARGET + 0.1 * ERROR, 0 * TARGET) == pytest.approx(-16.0, abs=1e-3)
    with pytest.raises(ValueError, match="gives 2 waveforms and the snr loss has no weights"):
        value(SNR(), TARGET, TARGET)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "thresholded_sdr", "ceiling_db": 0.0}, "ceiling_db is 0.0"),
        ({"name": "snr", "weights": [-1.0]}, r"weights is \[-1.0\]"),
        ({"name": "sd_sdr", "ceiling_db": 3.0}, "ceiling_db: unknown key"),
    ],
)
def test_what_cannot_be_is_refused(config: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        losses.build(config, "loss")
