from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from wesep_py.common.errors import ConfigError
from wesep_py.metrics import si_sdr
from wesep_py.training.losses import SISDR, losses


def output_of(*waveforms: torch.Tensor) -> SimpleNamespace:
    return SimpleNamespace(waveforms=waveforms)


@pytest.fixture
def target() -> torch.Tensor:
    return torch.randn(3, 800, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def estimate(target: torch.Tensor) -> torch.Tensor:
    return target + 0.3 * torch.randn(3, 800, generator=torch.Generator().manual_seed(1))


def test_is_the_negative_mean_of_the_metric(target, estimate):
    loss = losses.build({"name": "si_sdr"}, where="loss")
    assert loss(output_of(estimate), target, {}).item() == pytest.approx(-si_sdr(estimate, target).mean().item())


def test_scales_are_weighted(target, estimate):
    loss = losses.build({"name": "si_sdr", "weights": [0.8, 0.1, 0.1]}, where="loss")
    waveforms = (estimate, estimate + 0.5, target + 2 * estimate.flip(1))
    expected = -sum(w * si_sdr(x, target).mean() for w, x in zip((0.8, 0.1, 0.1), waveforms, strict=True))
    assert loss(output_of(*waveforms), target, {}).item() == pytest.approx(expected.item(), abs=1e-5)


def test_silent_targets_are_skipped(target, estimate):
    with_silence = torch.cat([target, torch.zeros(1, 800)])
    estimates = torch.cat([estimate, torch.ones(1, 800).cumsum(1)]).requires_grad_()
    value = SISDR()(output_of(estimates), with_silence, {})
    assert value.item() == pytest.approx(SISDR()(output_of(estimate), target, {}).item())
    value.backward()
    assert estimates.grad is not None
    assert estimates.grad[:3].abs().sum() > 0
    assert estimates.grad[3].abs().sum() == 0


def test_nothing_but_silence_is_zero_with_zero_gradients():
    estimate = torch.randn(2, 100, requires_grad=True)
    value = SISDR()(output_of(estimate), torch.zeros(2, 100), {})
    assert value.item() == 0
    value.backward()
    assert estimate.grad is not None and (estimate.grad == 0).all()


def test_a_silent_estimate_has_finite_gradients(target):
    estimate = torch.zeros(3, 800, requires_grad=True)
    SISDR()(output_of(estimate), target, {}).backward()
    assert estimate.grad is not None and torch.isfinite(estimate.grad).all()


def test_ceiling(target):
    close = target + 1e-4 * torch.randn_like(target)
    assert SISDR(ceiling_db=30)(output_of(close), target, {}).item() == pytest.approx(-30, abs=0.01)
    assert SISDR()(output_of(close), target, {}).item() < -70


def test_half_precision_output_is_scored_in_float32(target, estimate):
    value = SISDR()(output_of(estimate.bfloat16()), target, {})
    assert value.dtype is torch.float32
    assert value.item() == pytest.approx(SISDR()(output_of(estimate), target, {}).item(), abs=0.05)


def test_minimising_it_finds_the_target(target):
    estimate = torch.randn(3, 800, generator=torch.Generator().manual_seed(2)).requires_grad_()
    optimiser = torch.optim.Adam([estimate], lr=0.05)
    for _ in range(400):
        optimiser.zero_grad()
        SISDR()(output_of(estimate), target, {}).backward()
        optimiser.step()
    assert si_sdr(estimate, target).min().item() > 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": [0.5, -0.5]}, "weights is"),
        ({"weights": [0.0]}, "not all zero"),
        ({"weights": []}, "not all zero"),
        ({"ceiling_db": 0.0}, "give a number of dB > 0"),
        ({"celling_db": 3}, "did you mean 'ceiling_db'"),
    ],
)
def test_impossible_arguments(arguments, message):
    with pytest.raises(ConfigError, match=message):
        losses.build({"name": "si_sdr", **arguments}, where="loss")


def test_outputs_that_do_not_fit(target):
    with pytest.raises(ValueError, match="3 waveforms and the si_sdr loss has no weights"):
        SISDR()(output_of(target, target, target), target, {})
    with pytest.raises(ValueError, match="1 waveforms and the si_sdr loss has 2 weights"):
        SISDR(weights=(1.0, 1.0))(output_of(target), target, {})
    with pytest.raises(ValueError, match=r"shape \[3, 799\] and the target \[3, 800\]"):
        SISDR()(output_of(target[:, 1:]), target, {})
