"""The discriminator: any length, no gain, and a gradient where there is nothing to hear."""

from __future__ import annotations

import pytest
import torch

from wesep_py.common.config import construct
from wesep_py.common.errors import ConfigError
from wesep_py.training.losses import DiscriminatorConfig, MetricDiscriminator

SMALL = DiscriminatorConfig(channels=4, num_layers=3)


@pytest.fixture
def network() -> MetricDiscriminator:
    torch.manual_seed(0)
    return MetricDiscriminator(SMALL).eval()


@pytest.mark.parametrize("samples", [1, 300, 4000])
def test_any_length_gives_a_quality_between_0_and_1(network, samples: int):
    quality = network(torch.randn(3, samples), torch.randn(3, samples))
    assert quality.shape == (3,) and quality.min() > 0 and quality.max() < 1


def test_a_gain_is_no_quality_and_the_order_of_both_counts(network):
    clean, noisy = torch.randn(2, 1, 4000)
    once = network(clean, noisy)
    torch.testing.assert_close(network(0.1 * clean, 5 * noisy), once, rtol=1e-4, atol=1e-5)
    assert (network(noisy, clean) - once).abs() > 1e-5


def test_the_gradient_of_silence_is_finite(network):
    estimate = torch.zeros(1, 4000, requires_grad=True)
    network(torch.randn(1, 4000), estimate).sum().backward()
    assert estimate.grad.isfinite().all()


def test_its_layers_are_lipschitz(network):
    """Spectral normalisation: no layer stretches its input by more than 1, however large the weights are."""
    with torch.no_grad():
        network.head[0].parametrizations.weight.original.mul_(100)
    network.train()
    for _ in range(30):
        network(torch.randn(1, 4000), torch.randn(1, 4000))
    assert torch.linalg.matrix_norm(network.head[0].weight, 2).item() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(("key", "value"), [("channels", 0), ("num_layers", 0), ("power", 0.0), ("power", 1.5)])
def test_what_is_refused(key: str, value: float):
    with pytest.raises(ConfigError, match=f"{key}: is {value}"):
        construct(DiscriminatorConfig, {key: value}, "discriminator")
