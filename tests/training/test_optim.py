"""Which parameters are trained, and which are decayed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wesep_py.errors import ConfigError
from wesep_py.training.config import OptimConfig
from wesep_py.training.optim import build_optimizer, set_learning_rate


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
