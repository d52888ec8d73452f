from __future__ import annotations

import math

import pytest
import torch

from wesep_py.network.speaker.speaker_losses import AngularPrototypicalLoss, PrototypicalLoss


def episode(speakers: int = 4, utterances: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(speakers, utterances, 5, generator=generator, dtype=torch.float64)
    return embeddings, torch.arange(speakers).repeat_interleave(utterances)


def by_loops(embeddings: torch.Tensor, similarity) -> float:
    total = 0.0
    for j, utterances in enumerate(embeddings):
        values = [math.exp(similarity(utterances[-1], others[:-1].sum(0) / (len(others) - 1))) for others in embeddings]
        total -= math.log(values[j] / sum(values))
    return total / len(embeddings)


@pytest.mark.parametrize("utterances", [2, 3, 5])
def test_the_definitions_by_loops(utterances):
    embeddings, labels = episode(utterances=utterances)
    expected = by_loops(embeddings, lambda q, c: -float((q - c) @ (q - c)))
    value = PrototypicalLoss()(embeddings.flatten(0, 1), labels).loss.item()
    assert value == pytest.approx(expected, rel=1e-9)
    angular = AngularPrototypicalLoss(initial_scale=3.0, initial_bias=0.7).double()
    expected = by_loops(embeddings, lambda q, c: 3 * float(q @ c / q.norm() / c.norm()) + 0.7)
    assert angular(embeddings.flatten(0, 1), labels).loss.item() == pytest.approx(expected, rel=1e-9)


def test_gradient_of_the_queries_by_its_formula():
    """d loss / d q_j = Σ_k (p_jk − [k = j]) · (−2 (q_j − c_k)) / speakers."""
    embeddings, labels = episode()
    embeddings.requires_grad_()
    PrototypicalLoss()(embeddings.flatten(0, 1), labels).loss.backward()
    with torch.no_grad():
        queries, centres = embeddings[:, -1], embeddings[:, :-1].mean(1)
        away = queries[:, None] - centres[None]
        error = torch.softmax(-away.square().sum(2), 1) - torch.eye(4, dtype=torch.float64)
        torch.testing.assert_close(embeddings.grad[:, -1], (-2 * error[..., None] * away).sum(1) / 4)


def test_the_scale_cannot_turn_negative():
    embeddings, labels = episode()
    loss = AngularPrototypicalLoss().double()
    loss.scale.data.fill_(-5.0)
    value = loss(embeddings.flatten(0, 1), labels).loss.item()
    assert value == pytest.approx(math.log(4), rel=1e-4), "no preference, instead of the opposite one"
    with pytest.raises(ValueError, match="initial_scale: is 0"):
        AngularPrototypicalLoss(initial_scale=0.0)
