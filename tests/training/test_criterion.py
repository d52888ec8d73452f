"""Sums of losses, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from wesep_py.common.errors import ConfigError
from wesep_py.training.extraction_task import Criterion


def estimate(error: float) -> tuple[SimpleNamespace, dict[str, torch.Tensor]]:
    target = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    orthogonal = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    return SimpleNamespace(waveforms=(target + error * orthogonal,)), {"target": target}


def test_one_loss():
    values = Criterion({"name": "si_sdr"})(*estimate(0.1))
    assert values["loss"].item() == values["si_sdr"].item() == pytest.approx(-20.0, abs=1e-3)


def test_a_weighted_sum_whose_terms_are_told_apart():
    values = Criterion([{"name": "si_sdr"}, {"name": "si_sdr", "weight": 0.5}])(*estimate(0.1))
    assert values.keys() == {"loss", "si_sdr", "si_sdr_1"}
    assert values["si_sdr_1"].item() == pytest.approx(-20.0, abs=1e-3)
    assert values["loss"].item() == pytest.approx(-30.0, abs=1e-3)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ([], "loss: is an empty list"),
        ({"name": "si_snr"}, "loss: no loss is called 'si_snr'; did you mean 'si_sdr'"),
        ([{"name": "si_sdr"}, {"name": "si_sdr", "weight": 0}], r"loss\[1\]\.weight: is 0.0; it must be above 0"),
        ({"name": "si_sdr", "weight": "much"}, r"loss\.weight: is 'much'; a number is needed"),
        ({"name": "si_sdr", "limit": 3}, r"loss\.limit: unknown key"),
        ({}, r"loss: needs a key 'name'"),
    ],
)
def test_what_is_refused(config, message: str):
    with pytest.raises(ConfigError, match=message):
        Criterion(config)
