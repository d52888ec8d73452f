from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from wesep_py.network.speaker.speaker_losses import ASoftmax
from wesep_py.network.speaker.speaker_losses.margins import multiplied_angle


@pytest.mark.parametrize("margin", [1, 2, 3, 4, 5, 7])
def test_the_multiplied_angle_by_arccos(margin):
    angles = torch.linspace(0.0, math.pi, 500, dtype=torch.float64)
    passed = torch.floor(margin * angles / math.pi).clamp(max=margin - 1)
    expected = torch.where(passed % 2 == 0, 1.0, -1.0) * torch.cos(margin * angles) - 2 * passed
    torch.testing.assert_close(multiplied_angle(angles.cos(), margin), expected, atol=1e-9, rtol=0)
    assert (multiplied_angle(angles.cos(), margin).diff() < 0).all()


def test_the_annealing():
    loss = ASoftmax(4, 3)
    for step in (0, 1, 50, 10**6):
        loss.update(step)
        assert loss.current_lambda == max(5.0, 1000.0 / (1 + 0.12 * (step + 1)))


def test_the_definition_by_loops():
    torch.manual_seed(0)
    loss = ASoftmax(6, 5, margin=3).double()
    loss.update(1000)
    embeddings, labels = torch.randn(4, 6, dtype=torch.float64), torch.tensor([0, 3, 3, 4])
    total = 0.0
    for e, y in zip(embeddings, labels.tolist(), strict=True):
        logits = []
        for j, w in enumerate(loss.weight.detach()):
            angle = math.acos(float(e @ w / e.norm() / w.norm()))
            value = math.cos(angle)
            if j == y:
                k = math.floor(3 * angle / math.pi)
                lamb = loss.current_lambda
                value = (lamb * value + (-1) ** k * math.cos(3 * angle) - 2 * k) / (1 + lamb)
            logits.append(float(e.norm()) * value)
        total += math.log(sum(map(math.exp, logits))) - logits[y]
    assert loss(embeddings, labels).loss.item() == pytest.approx(total / 4, rel=1e-9)


def test_margin_one_is_softmax_on_cosines_times_the_length():
    torch.manual_seed(0)
    loss = ASoftmax(6, 5, margin=1)
    embeddings, labels = torch.randn(4, 6), torch.tensor([0, 3, 3, 4])
    logits = embeddings @ F.normalize(loss.weight).T
    torch.testing.assert_close(loss(embeddings, labels).loss, F.cross_entropy(logits, labels))


def test_finite_at_the_ends():
    loss = ASoftmax(6, 5, margin=4)
    embeddings = torch.stack([loss.weight.data[0], -loss.weight.data[0], torch.zeros(6)]).requires_grad_()
    loss(embeddings, torch.tensor([0, 0, 1])).loss.backward()
    assert embeddings.grad.isfinite().all() and loss.weight.grad.isfinite().all()


def test_impossible_arguments():
    with pytest.raises(ValueError, match="margin: is 0"):
        ASoftmax(4, 3, margin=0)
    with pytest.raises(ValueError, match="lambda_base >= lambda_min"):
        ASoftmax(4, 3, lambda_base=1.0, lambda_min=2.0)
    with pytest.raises(ValueError, match="gamma"):
        ASoftmax(4, 3, gamma=-1.0)
