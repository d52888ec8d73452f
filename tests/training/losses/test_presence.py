"""Cross-entropies that are known, labels at another frame rate, and targets that are absent."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from wesep_py.common.errors import ConfigError
from wesep_py.training.losses import PresenceLoss, losses
from wesep_py.training.losses.auxiliary import activity_at_frames


def value(logits: torch.Tensor, activity: torch.Tensor, present: list[int] | None = None, **arguments) -> float:
    batch = {"activity": activity} if present is None else {"activity": activity, "present": torch.tensor(present)}
    return PresenceLoss(**arguments)(SimpleNamespace(presence_logits=logits), torch.zeros(1, 1), batch).item()


def test_the_frames():
    logits = torch.tensor([[2.0, -2.0]])
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    assert value(logits, torch.tensor([[1.0, 1, 0, 0]]), recording=0) == pytest.approx(right, abs=1e-5)
    assert value(logits, torch.tensor([[0.0, 0, 1, 1]]), recording=0) == pytest.approx(wrong, abs=1e-5)


def test_the_surest_frames_speak_for_the_recording():
    logits = torch.full((1, 10), -4.0)
    logits[0, 3] = 3.0
    active = torch.zeros(1, 10)
    active[0, 3] = 1
    assert value(logits, active, recording=1, surest=0.1) == pytest.approx(math.log(1 + math.exp(-3)), abs=1e-5)
    assert value(logits, active, recording=1, surest=0.2) == pytest.approx(math.log(1 + math.exp(0.5)), abs=1e-5)
    assert value(logits, 0 * active, recording=1) == pytest.approx(math.log(1 + math.exp(3)), abs=1e-5)


def test_the_label_of_the_recording_is_that_of_the_batch_where_it_has_one():
    logits = torch.full((1, 10), 3.0)
    assert value(logits, torch.ones(1, 10), [0], recording=1) == pytest.approx(math.log(1 + math.exp(3)), abs=1e-5)


def test_the_two_terms_are_shared():
    logits, active = torch.randn(3, 20), (torch.rand(3, 40) > 0.5).float()
    frames, whole = (value(logits, active, recording=share) for share in (0, 1))
    assert value(logits, active, recording=0.25) == pytest.approx(0.75 * frames + 0.25 * whole, rel=1e-5)


@pytest.mark.parametrize("num_frames", [63, 100, 251])
def test_labels_at_another_rate_lie_at_the_same_time(num_frames: int):
    activity = torch.zeros(1, 100)
    activity[0, 30:60] = 1
    found = activity_at_frames(activity, num_frames)[0].nonzero()
    assert found.min().item() / num_frames == pytest.approx(0.3, abs=1 / num_frames)
    assert (found.max().item() + 1) / num_frames == pytest.approx(0.6, abs=1 / num_frames)


def test_a_network_without_a_presence_head_is_refused():
    with pytest.raises(ConfigError, match=r"'presence' needs a presence head; add model\.presence"):
        PresenceLoss()(SimpleNamespace(presence_logits=None), torch.zeros(1, 1), {"activity": torch.zeros(1, 1)})


@pytest.mark.parametrize("arguments", [{"recording": 1.5}, {"surest": 0.0}])
def test_what_cannot_be_is_refused(arguments: dict):
    with pytest.raises(ConfigError, match="is allowed"):
        losses.build({"name": "presence", **arguments}, "loss")
