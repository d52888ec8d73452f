"""Training of the live mode: which steps, what is logged, validation, resuming, networks without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.training.runs import assert_same, lines, stop_after, weights
from wesep_py.common.errors import ConfigError
from wesep_py.training import TrainingInterrupted, train
from wesep_py.training.extraction_task import LiveSteps

LIVE_MODEL = {
    "backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1, "live": True, "norm": "frame"},
    "cues": [{"name": "tf_map"}],
}
Settings = Callable[..., dict[str, Any]]


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_the_share_of_live_steps_is_their_probability():
    steps = [LiveSteps(0.3, seed=5).at(step) for step in range(2000)]
    assert 0.26 < sum(steps) / 2000 < 0.34
    assert not any(LiveSteps(0.0, 5).at(step) for step in range(100))
    assert all(LiveSteps(1.0, 5).at(step) for step in range(100))


@pytest.mark.parametrize(
    ("probability", "trained", "left"), [(0.0, ".linear", "live_"), (1.0, "live_linear", "_reverse")]
)
def test_a_step_trains_one_of_the_modes(settings: Settings, tmp_path, probability: float, trained: str, left: str):
    train(settings(model=LIVE_MODEL, train__live_probability=probability, train__steps=2))
    one = weights(tmp_path / "exp")
    train(settings(model=LIVE_MODEL, train__live_probability=probability, train__steps=4, experiment=f"{tmp_path}/two"))
    names = {name for name in changed(one, weights(tmp_path / "two")) if "along_time" in name}
    assert any(trained in name for name in names) and not any(left in name for name in names)


def test_losses_of_live_steps_are_logged_apart(settings: Settings, tmp_path):
    train(settings(model=LIVE_MODEL, train__live_probability=0.5, train__steps=8))
    records = lines(tmp_path / "exp", "train")
    assert any("loss_live" in record for record in records) and all("loss" in record for record in records)


def test_a_resumed_run_draws_the_same_live_steps(settings: Settings, tmp_path, monkeypatch):
    config = settings(model=LIVE_MODEL, train__live_probability=0.5, experiment=str(tmp_path / "whole"))
    train(config)
    config["experiment"] = str(tmp_path / "stopped")
    with monkeypatch.context() as context:
        stop_after(context, 3)
        with pytest.raises(TrainingInterrupted):
            train(config)
    train(config)
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "stopped"))


def test_the_live_mode_is_validated_on_request(settings: Settings, tmp_path):
    results = {}
    for live in (False, True):
        validation = {"trials": "trials.csv", "enrollment": "trials.map", "every_steps": 2, "live": live}
        experiment = str(tmp_path / str(live))
        train(settings(model=LIVE_MODEL, train__steps=2, validation=validation, experiment=experiment))
        (results[live],) = {record["si_sdri"] for record in lines(tmp_path / str(live), "validation")}
    assert results[False] != results[True]


@pytest.mark.parametrize("changes", [{"train__live_probability": 0.5}, {"validation": {"live": True}}])
def test_a_network_without_a_live_mode_is_refused(settings: Settings, changes: dict):
    if "validation" in changes:
        changes = {"validation": {"trials": "trials.csv", "enrollment": "trials.map", "live": True}}
    with pytest.raises(ConfigError, match="the network has no live mode; give its backbone live: true"):
        train(settings(**changes))


def test_a_probability_beyond_one_is_refused(settings: Settings):
    with pytest.raises(ConfigError, match=r"live_probability: is 1\.5; 0 to 1 is allowed"):
        train(settings(model=LIVE_MODEL, train__live_probability=1.5))
