from __future__ import annotations

import pytest
import torch

from wesep_py.common.errors import CheckpointError, ConfigError
from wesep_py.interop.wespeaker_common import complete, substitute


def test_arguments_are_completed():
    assert complete("Net", {"feat_dim": 80, "a": 1}, {"a": 2, "b": 3}) == {"a": 1, "b": 3}
    with pytest.raises(ConfigError, match=r"Net has no argument 'channel'; did you mean 'channels'"):
        complete("Net", {"channel": 1}, {"channels": 2})
    with pytest.raises(ConfigError, match="Net needs its argument 'channels'"):
        complete("Net", {}, {"channels": None})


def test_rules_are_applied_in_order():
    rules = ((r"^b(\d)\.", lambda match: f"blocks.{int(match[1]) - 1}."), (r"^blocks\.0\.", "first."))
    one = torch.ones(1)
    assert list(substitute({"b1.x": one, "b2.x": one, "y": one}, rules)) == ["first.x", "blocks.1.x", "y"]
    assert substitute({"b1.x": one, "first.x": one}, rules) == {"first.x": one}
    with pytest.raises(CheckpointError, match=r"become .first\.x.; one of them is .first\.x."):
        substitute({"b1.x": one, "first.x": 2 * one}, rules)
