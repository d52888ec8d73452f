"""The table of the loss against the output's level, and how it stands beside a loss of present targets."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from wesep_py.common.errors import ConfigError
from wesep_py.training.losses import AbsentEnergy, losses


def value(estimate: torch.Tensor, target: torch.Tensor, mixture: torch.Tensor, **arguments) -> torch.Tensor:
    batch = {"mixture": mixture}
    return AbsentEnergy(**arguments)(SimpleNamespace(waveforms=(estimate,)), target, batch)


@pytest.mark.parametrize(
    ("level_db", "expected"), [(0, 0.04), (-10, -9.59), (-20, -16.99), (-30, -19.59), (-40, -19.96)]
)
@pytest.mark.parametrize("gain", [1.0, 1e-2])
def test_the_range_is_that_of_the_floor_at_any_level_of_the_recording(level_db: float, expected: float, gain: float):
    mixture = gain * torch.randn(1, 1000, generator=torch.Generator().manual_seed(0))
    found = value(mixture * 10 ** (level_db / 20), torch.zeros(1, 1000), mixture)
    assert found.item() == pytest.approx(expected, abs=0.01)


def test_present_targets_count_as_nothing_and_absent_ones_by_their_share():
    mixture = torch.randn(4, 100, generator=torch.Generator().manual_seed(0))
    target = mixture.clone()
    target[3] = 0
    estimate = mixture.clone().requires_grad_()
    found = value(estimate, target, mixture)
    assert found.item() == pytest.approx(0.0432 / 4, abs=1e-4)
    found.backward()
    assert (estimate.grad[:3] == 0).all() and (estimate.grad[3] * mixture[3]).sum() > 0


def test_silence_is_finite_everywhere():
    estimate = torch.zeros(2, 10, requires_grad=True)
    mixture = torch.stack([torch.ones(10), torch.zeros(10)])
    found = value(estimate, torch.zeros(2, 10), mixture)
    assert found.item() == pytest.approx(-20.0, abs=1e-3)
    found.backward()
    assert estimate.grad.isfinite().all()


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match=r"loss: floor_db is 3\.0; give a number of dB below 0"):
        losses.build({"name": "absent_energy", "floor_db": 3}, "loss")
    with pytest.raises(ConfigError, match="weights is"):
        losses.build({"name": "absent_energy", "weights": [0.0]}, "loss")
