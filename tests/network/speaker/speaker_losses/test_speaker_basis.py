"""Losses on the speaker basis, and the centre loss."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from wesep_py.common.errors import InputError
from wesep_py.network.speaker.speaker_losses import BetweenSpeakerLoss, CentreLoss, HardNegativeLoss

NOTHING = (torch.zeros(1, 7), torch.tensor([0]))


def test_between_speakers_by_all_pairs():
    torch.manual_seed(0)
    weight = torch.randn(7, 5, dtype=torch.float64)
    expected = sum(
        float(weight[i] @ weight[j] / weight[i].norm() / weight[j].norm()) for i in range(7) for j in range(7) if i != j
    )
    assert BetweenSpeakerLoss()(F.normalize(weight), *NOTHING).item() == pytest.approx(expected, rel=1e-9)


def test_between_speakers_gradient_by_its_formula():
    """d / d W_i of Σ_{i≠j} cos = 2 Σ_{j≠i} (u_j − cos_ij u_i) / |W_i|, u of length one."""
    torch.manual_seed(0)
    weight = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    BetweenSpeakerLoss()(F.normalize(weight), *NOTHING).backward()
    unit = F.normalize(weight.detach())
    for i in range(7):
        others = [unit[j] - (unit[i] @ unit[j]) * unit[i] for j in range(7) if j != i]
        torch.testing.assert_close(weight.grad[i], 2 * sum(others) / weight[i].detach().norm())


@pytest.mark.parametrize("num_hard", [1, 3, 6, 100])
def test_hard_negatives_by_loops(num_hard):
    torch.manual_seed(0)
    cosines, labels = 2 * torch.rand(4, 7, dtype=torch.float64) - 1, torch.tensor([0, 3, 3, 6])
    total = 0.0
    for row, y in zip(cosines.tolist(), labels.tolist(), strict=True):
        others = sorted((c for j, c in enumerate(row) if j != y), reverse=True)
        total += sum(math.log(1 + math.exp(c - row[y])) for c in others[:num_hard])
    value = HardNegativeLoss(num_hard)(torch.eye(7), cosines, labels).item()
    assert value == pytest.approx(total / 4, rel=1e-9)


def test_hard_negatives_gradient_reaches_only_hard_and_target():
    cosines = torch.tensor([[0.5, 0.4, 0.1, -0.2]], dtype=torch.float64, requires_grad=True)
    HardNegativeLoss(num_hard=2)(torch.eye(4), cosines, torch.tensor([1])).backward()
    first, second = (1 / (1 + math.exp(-(c - 0.4))) for c in (0.5, 0.1))
    expected = torch.tensor([[first, -(first + second), second, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(cosines.grad, expected)


def test_impossible_number_of_hard_negatives():
    with pytest.raises(ValueError, match="num_hard: is 0"):
        HardNegativeLoss(num_hard=0)


def test_value_gradient_and_moved_centres_by_their_formulas():
    torch.manual_seed(0)
    loss = CentreLoss(3, 4, strength=0.2, rate=0.5).double()
    loss.centres.copy_(torch.randn(4, 3))
    before = loss.centres.clone()
    embeddings = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 2, 2, 2, 0])
    value = loss(embeddings, labels).loss
    value.backward()
    away = embeddings.detach() - before[labels]
    assert value.item() == pytest.approx(0.1 * sum(float(a @ a) for a in away) / 5)
    torch.testing.assert_close(embeddings.grad, 0.2 * away / 5)
    for j in range(4):
        items = [i for i, y in enumerate(labels.tolist()) if y == j]
        move = sum((before[j] - embeddings[i].detach() for i in items), torch.zeros(3)) / (1 + len(items))
        torch.testing.assert_close(loss.centres[j], before[j] - 0.5 * move)


def test_centres_are_constant_in_evaluation_and_in_the_state_dict():
    loss = CentreLoss(3, 4).eval()
    loss(torch.randn(2, 3), torch.tensor([0, 1]))
    assert (loss.centres == 0).all()
    loss.train()(torch.randn(2, 3), torch.tensor([0, 1]))
    assert (loss.centres[:2] != 0).all() and (loss.centres[2:] == 0).all()
    assert list(loss.state_dict()) == ["centres"]
    assert list(loss.parameters()) == []


def test_centres_converge_to_the_mean():
    torch.manual_seed(0)
    loss = CentreLoss(3, 1)
    embeddings = torch.randn(50, 3) + 4
    for _ in range(60):
        loss(embeddings, torch.zeros(50, dtype=torch.long))
    torch.testing.assert_close(loss.centres[0], embeddings.mean(0), atol=1e-4, rtol=0)


def test_impossible_arguments_of_centre_loss():
    with pytest.raises(ValueError, match="rate: is 2"):
        CentreLoss(3, 4, rate=2.0)
    with pytest.raises(ValueError, match="strength"):
        CentreLoss(3, 4, strength=-1.0)
    with pytest.raises(ValueError, match="num_speakers"):
        CentreLoss(3, 0)
    with pytest.raises(InputError, match="not from 0 to 3"):
        CentreLoss(3, 4)(torch.randn(1, 3), torch.tensor([4]))
