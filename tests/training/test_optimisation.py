"""Optimiser, schedule, frozen groups, and moving average of the weights."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.training.runs import assert_same, lines, stop_after, weights, weights_at
from wesep_py.common.errors import ConfigError
from wesep_py.training import TrainingInterrupted, train
from wesep_py.training.optimisation import (
    Freezer,
    WeightAverage,
    build_optimizer,
    learning_rate_factor,
    schedule_progress,
    set_learning_rate,
)
from wesep_py.training.state import load_state
from wesep_py.training.training_config import OPTIMIZERS, GroupConfig, OptimConfig, ScheduleConfig


def test_only_trained_matrices_are_decayed():
    network = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 3))
    network[2].requires_grad_(False)
    optimizer = build_optimizer(OptimConfig("adamw", weight_decay=0.1), network)
    decayed, plain = optimizer.param_groups
    assert decayed["weight_decay"] == 0.1 and [id(p) for p in decayed["params"]] == [id(network[0].weight)]
    assert plain["weight_decay"] == 0.0 and len(plain["params"]) == 3


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_the_first_step_is_as_long_as_the_learning_rate(name: str):
    """Adam's first step is lr · sign(gradient), whatever the gradient's size."""
    layer = nn.Linear(1, 1, bias=False)
    before = layer.weight.detach().clone()
    optimizer = build_optimizer(OptimConfig(name, lr=0.5), layer)
    set_learning_rate(optimizer, 0.25)
    layer(torch.tensor([[123.0]])).sum().backward()
    optimizer.step()
    torch.testing.assert_close(layer.weight, before - 0.25)


def test_nothing_to_train_is_an_error():
    with pytest.raises(ConfigError, match="every parameter is frozen"):
        build_optimizer(OptimConfig(), nn.Linear(1, 1).requires_grad_(False))


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_each_optimiser_lowers_the_loss(name: str):
    torch.manual_seed(0)
    layer = nn.Linear(4, 4)
    optimizer = build_optimizer(OptimConfig(name, lr=0.01), layer)
    assert type(optimizer).__name__.lower() == name
    given = torch.randn(16, 4)
    losses = []
    for _ in range(5):
        loss = layer(given).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_optimiser_arguments_are_passed_or_refused():
    layer = nn.Linear(2, 2)
    assert build_optimizer(OptimConfig("sgd", arguments={"momentum": 0.9}), layer).param_groups[0]["momentum"] == 0.9
    with pytest.raises(ConfigError, match=r"momentun: sgd has no such argument; did you mean 'momentum'"):
        build_optimizer(OptimConfig("sgd", arguments={"momentun": 0.9}), layer)
    with pytest.raises(ConfigError, match=r"optim\.arguments\.lr: sgd has no such argument"):
        build_optimizer(OptimConfig("sgd", arguments={"lr": 0.9}), layer)
    with pytest.raises(ConfigError, match=r"optim\.arguments: sgd refuses them \(.*momentum"):
        build_optimizer(OptimConfig("sgd", arguments={"momentum": -1.0}), layer)


@pytest.mark.parametrize(
    ("name", "done", "expected"),
    [
        ("constant", 0.7, 1.0),
        ("exponential", 0.0, 1.0),
        ("exponential", 0.5, 0.1),
        ("exponential", 1.0, 0.01),
        ("cosine", 0.0, 1.0),
        ("cosine", 0.5, 0.505),
        ("cosine", 1.0, 0.01),
        ("triangular", 0.0, 0.01),
        ("triangular", 0.25, 0.505),
        ("triangular", 0.5, 1.0),
        ("triangular", 1.0, 0.01),
    ],
)
def test_schedules_decay(name: str, done: float, expected: float):
    config = ScheduleConfig(name, warmup_steps=0, final_lr_ratio=0.01)
    assert learning_rate_factor(config, 10, done) == pytest.approx(expected)


def test_warm_up_is_linear_and_reaches_one():
    config = ScheduleConfig("constant", warmup_steps=4)
    assert [learning_rate_factor(config, step, 0.0) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_progress_is_the_larger_of_steps_and_time():
    assert schedule_progress(25, 100) == 0.25
    assert schedule_progress(25, 100, elapsed_s=60, max_minutes=2) == 0.5
    assert schedule_progress(75, 100, elapsed_s=60, max_minutes=2) == 0.75
    assert schedule_progress(0, 100, elapsed_s=1e6, max_minutes=2) == 1.0
    assert schedule_progress(25, 100, elapsed_s=1e6) == 0.25


def test_triangular_cycles():
    config = ScheduleConfig("triangular", warmup_steps=0, final_lr_ratio=0.2, cycles=4)
    factors = [learning_rate_factor(config, 0, done / 8) for done in range(9)]
    assert factors == pytest.approx([0.2, 1.0] * 4 + [0.2])


def test_plateau_factors_end_at_the_final_ratio():
    config = ScheduleConfig("plateau", warmup_steps=0, final_lr_ratio=0.2, plateau_factor=0.5)
    assert [learning_rate_factor(config, 9, 0.5, falls) for falls in range(4)] == [1.0, 0.5, 0.25, 0.2]


class FrozenStep(nn.Module):
    """Two parts, the first with batch norm, named like those of a training step."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.ModuleDict(
            {"encoder": nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), "head": nn.Linear(2, 1)}
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network["head"](self.network["encoder"](x)).square().mean()


def take_steps(config: OptimConfig, count: int) -> list[dict[str, torch.Tensor]]:
    """Return the states before the first step and after each step."""
    torch.manual_seed(0)
    step = FrozenStep()
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


def test_frozen_weights_and_statistics_stay_then_move():
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
    groups = build_optimizer(config, FrozenStep()).param_groups
    assert [(group["weight_decay"], len(group["params"])) for group in groups] == [(0, 1), (0, 1), (0.1, 1), (0, 3)]


def test_a_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(
        ConfigError,
        match=r"optim\.groups\[0\]\.match: no trained parameter matches 'encodr\.\*'; they begin with encoder, head",
    ):
        build_optimizer(OptimConfig(groups=[GroupConfig("encodr.*")]), FrozenStep())


def test_a_run_with_groups_resumes_bit_exactly(settings, tmp_path: Path, monkeypatch):
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


def test_moving_average_by_hand():
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


def test_weights_are_restored_after_an_error():
    norm = nn.BatchNorm1d(2)
    average = WeightAverage(norm, 0.9)
    norm.weight.data.fill_(3.0)
    norm.running_mean.fill_(5.0)
    with pytest.raises(RuntimeError, match="broken"), average.applied():
        assert norm.weight.tolist() == [1.0, 1.0] and norm.running_mean.tolist() == [5.0, 5.0]
        raise RuntimeError("broken")
    assert norm.weight.tolist() == [3.0, 3.0]


def test_the_average_resumes_bit_exactly():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    uninterrupted, resumed = WeightAverage(first, 0.9), WeightAverage(second, 0.9)
    first.weight.data.add_(1)
    uninterrupted.update()
    resumed.load_state_dict({key: value.clone() for key, value in uninterrupted.state_dict().items()})
    second.load_state_dict(first.state_dict())
    for average, layer in ((uninterrupted, first), (resumed, second)):
        layer.weight.data.mul_(2)
        average.update()
    assert torch.equal(uninterrupted.state_dict()["weight"], resumed.state_dict()["weight"])


def test_a_run_validates_and_saves_the_average(settings, validation, tmp_path: Path, monkeypatch):
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
    with_average, without = (lines(tmp_path / name, "validation") for name in ("exp", "plain"))
    assert [line["si_sdr"] for line in with_average] != [line["si_sdr"] for line in without]
