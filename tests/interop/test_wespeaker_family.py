"""Tables of network families: they complete arguments and apply renaming rules in order."""

from __future__ import annotations

import pytest
import torch

from wesep_py.common.errors import CheckpointError, ConfigError
from wesep_py.interop.wespeaker_family import REQUIRED, NetworkFamily, PublicNetwork, rename_tensors

ARGUMENTS = {"channels": "width", "depth": "num_blocks"}


def family(**defaults) -> NetworkFamily:
    return NetworkFamily("ours", {"Net": PublicNetwork(defaults, {"depth": (1, 2)})}, ARGUMENTS, rules=())


def test_arguments_are_completed_and_renamed():
    expected = {"name": "ours", "width": 3, "num_blocks": [1, 2]}
    assert family(channels=2).translate("Net", {"feat_dim": 80, "channels": 3}) == expected
    assert family(channels=3).translate("Net", {}) == expected


def test_unknown_and_missing_arguments_are_all_named():
    with pytest.raises(ConfigError, match=r"Net has no argument 'channel'; did you mean 'channels'"):
        family(channels=2).translate("Net", {"channel": 1})
    with pytest.raises(ConfigError, match="Net needs its argument 'channels'"):
        family(channels=REQUIRED).translate("Net", {})
    with pytest.raises(ConfigError) as caught:
        family(channels=REQUIRED).translate("Net", {"a": 1, "b": 2})
    assert len(caught.value.lines) == 3


def test_rules_are_applied_in_order():
    rules = ((r"^b(\d)\.", "blocks.{1-1}."), (r"^blocks\.0\.", "first."), (r"^z", None))
    one = torch.ones(1)
    tensors = {"b1.x": one, "b2.x": one, "y": one, "z": one}
    assert list(rename_tensors(tensors, rules)) == ["first.x", "blocks.1.x", "y"]


def test_two_tensors_of_one_name_must_be_equal():
    rules, one = ((r"^b1\.", "first."),), torch.ones(1)
    assert rename_tensors({"b1.x": one, "first.x": one}, rules) == {"first.x": one}
    with pytest.raises(CheckpointError, match=r"become .first\.x.; one of them is .first\.x."):
        rename_tensors({"b1.x": one, "first.x": 2 * one}, rules)
