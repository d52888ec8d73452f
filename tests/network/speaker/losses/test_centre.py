from __future__ import annotations

import pytest
import torch

from wesep_py.common.errors import InputError
from wesep_py.network.speaker.speaker_losses import CentreLoss


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


def test_centres_rest_in_evaluation_and_are_in_the_state_dict():
    loss = CentreLoss(3, 4).eval()
    loss(torch.randn(2, 3), torch.tensor([0, 1]))
    assert (loss.centres == 0).all()
    loss.train()(torch.randn(2, 3), torch.tensor([0, 1]))
    assert (loss.centres[:2] != 0).all() and (loss.centres[2:] == 0).all()
    assert list(loss.state_dict()) == ["centres"]
    assert list(loss.parameters()) == []


def test_centres_settle_at_the_mean():
    torch.manual_seed(0)
    loss = CentreLoss(3, 1)
    embeddings = torch.randn(50, 3) + 4
    for _ in range(60):
        loss(embeddings, torch.zeros(50, dtype=torch.long))
    torch.testing.assert_close(loss.centres[0], embeddings.mean(0), atol=1e-4, rtol=0)


def test_impossible_arguments():
    with pytest.raises(ValueError, match="rate: is 2"):
        CentreLoss(3, 4, rate=2.0)
    with pytest.raises(ValueError, match="strength"):
        CentreLoss(3, 4, strength=-1.0)
    with pytest.raises(ValueError, match="num_speakers"):
        CentreLoss(3, 0)
    with pytest.raises(InputError, match="outside 0 to 3"):
        CentreLoss(3, 4)(torch.randn(1, 3), torch.tensor([4]))
