"""What is frozen does not move, and thaws in time; groups have their learning rates."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.training.runs import assert_same, stop_after, weights, weights_at
from wesep_py.common.errors import ConfigError
from wesep_py.training import TrainingInterrupted, train
from wesep_py.training.optimisation import Freezer, build_optimizer
from wesep_py.training.training_config import GroupConfig, OptimConfig


class Step(nn.Module):
    """Two parts, the first with batch norm, under names like those of a training step."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.ModuleDict(
            {"encoder": nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), "head": nn.Linear(2, 1)}
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network["head"](self.network["encoder"](x)).square().mean()


def take_steps(config: OptimConfig, count: int) -> list[dict[str, torch.Tensor]]:
    """The states before the first step and after each."""
    torch.manual_seed(0)
    step = Step()
    optimizer, freezer = build_optimizer(config, step), Freezer(config, step)
    states = [{key: value.clone() for key, value in step.state_dict().items()}]
    for number in range(count):
        freezer.begin_step(number)
        step(torch.randn(8, 2)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        states.append({key: value.clone() for key, value in step.state_dict().items()})
    return states


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], part: str) -> set[bool]:
    return {not torch.equal(before[key], after[key]) for key in before if key.startswith(f"network.{part}.")}


def test_frozen_weights_and_statistics_stand_still_and_thaw():
    config = OptimConfig(groups=[GroupConfig("encoder.*", freeze_steps=2)], weight_decay=0.1)
    states = take_steps(config, 4)
    for before, after in pairwise(states[:3]):
        assert moved(before, after, "encoder") == {False} and moved(before, after, "head") == {True}
    assert moved(states[2], states[3], "encoder") == {True}


def test_what_is_frozen_for_the_whole_run_never_moves():
    states = take_steps(OptimConfig(groups=[GroupConfig("encoder.*", freeze_steps=None)]), 3)
    assert moved(states[0], states[3], "encoder") == {False}


def test_a_group_has_its_share_of_the_learning_rate():
    """Adam's first step is as long as the learning rate."""
    groups = [GroupConfig("encoder.0.weight", lr_ratio=0.1), GroupConfig("encoder.*", lr_ratio=10)]
    before, after = take_steps(OptimConfig("adam", lr=0.01, groups=groups), 1)
    length = {key: (after[key] - before[key]).abs().max().item() for key in before}
    assert length["network.encoder.0.weight"] == pytest.approx(0.001, rel=1e-2)
    assert length["network.encoder.1.weight"] == pytest.approx(0.1, rel=1e-2)
    assert length["network.head.weight"] == pytest.approx(0.01, rel=1e-2)


def test_a_group_has_its_own_weight_decay():
    config = OptimConfig(weight_decay=0.1, groups=[GroupConfig("head.*", weight_decay=0.0)])
    groups = build_optimizer(config, Step()).param_groups
    assert [(group["weight_decay"], len(group["params"])) for group in groups] == [(0, 1), (0, 1), (0.1, 1), (0, 3)]


def test_a_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(
        ConfigError,
        match=r"optim\.groups\[0\]\.match: no trained parameter matches 'encodr\.\*'; they begin with encoder, head",
    ):
        build_optimizer(OptimConfig(groups=[GroupConfig("encodr.*")]), Step())


def test_a_run_with_groups_resumes_to_the_bit(settings, tmp_path: Path, monkeypatch):
    groups = [{"match": "encoder.*", "lr_ratio": 0.5, "freeze_steps": 4}]
    train(settings(experiment=str(tmp_path / "unbroken"), optim__groups=groups))
    with monkeypatch.context() as patch, pytest.raises(TrainingInterrupted):
        stop_after(patch, 3)
        train(settings(optim__groups=groups))
    train(settings(optim__groups=groups))
    assert_same(weights(tmp_path / "unbroken"), weights(tmp_path / "exp"))
    two, four, six = (weights_at(tmp_path / "exp", step) for step in (2, 4, 6))
    encoder = [key for key in two if key.startswith("encoder.")]
    assert encoder and all(torch.equal(two[key], four[key]) for key in encoder)
    assert any(not torch.equal(four[key], six[key]) for key in encoder)
