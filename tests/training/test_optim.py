"""Which parameters are trained, and which are decayed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wesep_py.common.errors import ConfigError
from wesep_py.training.optimisation import build_optimizer, set_learning_rate
from wesep_py.training.training_config import OPTIMIZERS, OptimConfig


def test_only_weights_of_two_dimensions_are_decayed_and_frozen_ones_left_out():
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
def test_every_optimiser_by_its_name_takes_a_step_downhill(name: str):
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


def test_arguments_reach_the_optimiser_and_wrong_ones_are_named():
    layer = nn.Linear(2, 2)
    assert build_optimizer(OptimConfig("sgd", arguments={"momentum": 0.9}), layer).param_groups[0]["momentum"] == 0.9
    with pytest.raises(ConfigError, match=r"momentun: sgd has no such argument; did you mean 'momentum'"):
        build_optimizer(OptimConfig("sgd", arguments={"momentun": 0.9}), layer)
    with pytest.raises(ConfigError, match=r"optim\.arguments\.lr: sgd has no such argument"):
        build_optimizer(OptimConfig("sgd", arguments={"lr": 0.9}), layer)
    with pytest.raises(ConfigError, match=r"optim\.arguments: sgd refuses them \(.*momentum"):
        build_optimizer(OptimConfig("sgd", arguments={"momentum": -1.0}), layer)
