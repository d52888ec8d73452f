"""Distances of spectra that are known without computing any."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from wesep_py.common.errors import ConfigError
from wesep_py.training.losses import MultiResolutionSpectral, losses

NOISE = torch.randn(2, 8000, generator=torch.Generator().manual_seed(0))


def value(estimate: torch.Tensor, target: torch.Tensor = NOISE, mixture: torch.Tensor = NOISE, **arguments) -> float:
    output = SimpleNamespace(waveforms=(estimate,))
    return MultiResolutionSpectral(**arguments)(output, target, {"mixture": mixture}).item()


ALONE = {
    "magnitude": {"magnitude": 1.0, "power": 1.0},
    "log": {"magnitude": 0.0, "log_magnitude": 1.0},
    "complex": {"magnitude": 0.0, "complex": 1.0, "power": 1.0},
    "convergence": {"magnitude": 0.0, "convergence": 1.0},
}


@pytest.mark.parametrize("kind", ALONE)
def test_the_same_signal_has_no_distance_and_the_level_of_all_three_does_not_matter(kind: str):
    assert value(NOISE, **ALONE[kind]) == pytest.approx(0, abs=1e-4)
    reference = value(0.5 * NOISE, **ALONE[kind])
    assert reference > 0.1
    assert value(0.005 * NOISE, 0.01 * NOISE, 0.01 * NOISE, **ALONE[kind]) == pytest.approx(reference, rel=1e-3)


def test_half_the_amplitude():
    """Magnitudes of white noise of variance 1 are Rayleigh: their mean is sqrt(pi) / 2."""
    assert value(0.5 * NOISE, **ALONE["log"]) == pytest.approx(0.6931, abs=1e-3)
    assert value(0.5 * NOISE, **ALONE["convergence"]) == pytest.approx(0.5, abs=1e-3)
    half_of_the_mean = 0.5 * torch.pi**0.5 / 2
    assert value(0.5 * NOISE, **ALONE["magnitude"]) == pytest.approx(half_of_the_mean, rel=0.03)
    assert value(0.5 * NOISE, **ALONE["complex"]) == pytest.approx(half_of_the_mean, rel=0.03)


def test_only_the_complex_distance_hears_the_sign():
    assert value(-NOISE, **ALONE["magnitude"]) == pytest.approx(0, abs=1e-6)
    assert value(-NOISE, **ALONE["complex"]) == pytest.approx(2 * torch.pi**0.5 / 2, rel=0.03)
    # |S|^(1/2) of a Rayleigh magnitude has the mean gamma(1.25); a quarter of the amplitude is half of it.
    assert value(0.25 * NOISE, **{**ALONE["complex"], "power": 0.5}) == pytest.approx(0.5 * 0.9064, rel=0.03)
    compressed = {**ALONE["complex"], "power": 0.5}
    assert value(-NOISE, **compressed) > value(-0.25 * NOISE, **compressed) > value(0.25 * NOISE, **compressed)


def test_weights_add_up_and_resolutions_are_averaged():
    both = value(0.5 * NOISE, magnitude=0.0, log_magnitude=2.0, convergence=3.0)
    assert both == pytest.approx(2 * 0.6931 + 3 * 0.5, abs=3e-3)
    single = [value(NOISE.flip(1), window_lengths=(length,)) for length in (256, 1024)]
    assert value(NOISE.flip(1), window_lengths=(256, 1024)) == pytest.approx(sum(single) / 2, rel=1e-4)


def test_silent_targets_are_skipped_and_gradients_finite():
    everything = MultiResolutionSpectral(magnitude=1, log_magnitude=1, complex=1, convergence=1)
    target = NOISE.clone()
    target[1] = 0
    for estimate in (torch.zeros(2, 8000, requires_grad=True), NOISE.clone().requires_grad_()):
        everything(SimpleNamespace(waveforms=(estimate,)), target, {"mixture": NOISE}).backward()
        assert estimate.grad.isfinite().all() and (estimate.grad[1] == 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window_lengths": [255]}, "window_lengths: are"),
        ({"window_lengths": []}, "window_lengths: are"),
        ({"power": 0.0}, "power: is 0.0"),
        ({"magnitude": 0.0}, "not all 0"),
        ({"complex": -1.0}, "weights >= 0"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        losses.build({"name": "multi_resolution_spectral", **arguments}, "loss")
