"""The moving average by hand, and that it is what a run validates and saves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.training.runs import assert_same, lines, stop_after, weights
from wesep_py.training import TrainingInterrupted, train
from wesep_py.training.optimisation import WeightAverage
from wesep_py.training.state import load_state


def test_the_average_by_hand():
    layer = nn.Linear(1, 1, bias=False)
    average, expected = WeightAverage(layer, 0.15), layer.weight.item()
    for step, value in enumerate((2.0, -1.0, 4.0), start=1):
        with torch.no_grad():
            layer.weight.fill_(value)
        average.update()
        keep = min(0.15, step / (step + 9))
        expected = keep * expected + (1 - keep) * value
    with average.applied():
        assert layer.weight.item() == pytest.approx(expected)
    assert layer.weight.item() == 4.0


def test_the_weights_come_back_after_an_error_and_buffers_stay_those_of_the_module():
    norm = nn.BatchNorm1d(2)
    average = WeightAverage(norm, 0.9)
    norm.weight.data.fill_(3.0)
    norm.running_mean.fill_(5.0)
    with pytest.raises(RuntimeError, match="broken"), average.applied():
        assert norm.weight.tolist() == [1.0, 1.0] and norm.running_mean.tolist() == [5.0, 5.0]
        raise RuntimeError("broken")
    assert norm.weight.tolist() == [3.0, 3.0]


def test_a_state_is_gone_on_from_to_the_bit():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    one, other = WeightAverage(first, 0.9), WeightAverage(second, 0.9)
    first.weight.data.add_(1)
    one.update()
    other.load_state_dict({key: value.clone() for key, value in one.state_dict().items()})
    second.load_state_dict(first.state_dict())
    for average, layer in ((one, first), (other, second)):
        layer.weight.data.mul_(2)
        average.update()
    assert torch.equal(one.state_dict()["weight"], other.state_dict()["weight"])


def test_a_run_validates_and_saves_the_average_and_resumes_to_the_bit(
    settings, validation, tmp_path: Path, monkeypatch
):
    averaged = {"validation": validation, "optim__ema_decay": 0.9}
    train(settings(experiment=str(tmp_path / "plain"), validation=validation))
    train(settings(experiment=str(tmp_path / "unbroken"), **averaged))
    with monkeypatch.context() as patch, pytest.raises(TrainingInterrupted):
        stop_after(patch, 3)
        train(settings(**averaged))
    train(settings(**averaged))
    for name in ("last", "best", "average"):
        assert_same(weights(tmp_path / "unbroken", name), weights(tmp_path / "exp", name))
    # The steps are those of a run without an average; what is validated and saved is not.
    plain, state = (load_state(tmp_path / name / "state") for name in ("plain", "exp"))
    assert_same(plain.model, state.model)
    saved, raw = weights(tmp_path / "exp"), weights(tmp_path / "plain")
    key = next(key for key, value in saved.items() if value.is_floating_point() and value.ndim > 1)
    assert torch.equal(saved[key], state.average[f"network.{key}"]) and not torch.equal(saved[key], raw[key])
    found, without = (lines(tmp_path / name, "validation") for name in ("exp", "plain"))
    assert [line["si_sdr"] for line in found] != [line["si_sdr"] for line in without]
