from __future__ import annotations

import itertools

import pytest
import torch

from wesep_py.network.speaker.speaker_losses import TripletLoss


def by_loops(embeddings: torch.Tensor, labels: list[int], margin: float, mining: str) -> float:
    unit = [e / e.norm() for e in embeddings]
    size = range(len(labels))
    d = [[float((unit[i] - unit[j]).pow(2).sum()) for j in size] for i in size]
    found = []
    for a in size:
        positives = [p for p in size if p != a and labels[p] == labels[a]]
        negatives = [n for n in size if labels[n] != labels[a]]
        if not positives or not negatives:
            continue
        if mining == "hard":
            found.append(max(d[a][p] for p in positives) - min(d[a][n] for n in negatives) + margin)
            continue
        for p in positives:
            further = [d[a][n] for n in negatives if d[a][n] > d[a][p]]
            found.append(d[a][p] - (min(further) if further else max(d[a][n] for n in negatives)) + margin)
    return sum(max(0.0, value) for value in found) / len(found)


@pytest.mark.parametrize(("mining", "seed", "margin"), itertools.product(["hard", "semi_hard"], range(4), [0.1, 0.5]))
def test_the_definition_by_loops(mining, seed, margin):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    labels = [0, 1, 0, 2, 1, 0, 2, 3, 1]  # one speaker with a single utterance
    expected = by_loops(embeddings, labels, margin, mining)
    assert expected > 0
    value = TripletLoss(margin, mining)(embeddings, torch.tensor(labels)).loss.item()
    assert value == pytest.approx(expected, rel=1e-9)


def test_gradient_of_one_triplet_by_its_formula():
    """On unit vectors d = 2 − 2 cos, so the gradient of d(a, p) − d(a, n) at n is 2 a, less its part along n."""
    a, p, n = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]], dtype=torch.float64)
    embeddings = torch.stack([a, p, n]).requires_grad_()
    # both anchors of the pair count: (a, p, n) and (p, a, n)
    TripletLoss(margin=2.0, mining="hard")(embeddings, torch.tensor([0, 0, 1])).loss.backward()
    pull = a + p
    torch.testing.assert_close(embeddings.grad[2], (pull - (pull @ n) * n))


@pytest.mark.parametrize("mining", ["hard", "semi_hard"])
@pytest.mark.parametrize("labels", [[0, 1, 2], [4, 4, 4]])
def test_a_batch_without_triplets_is_nothing_to_learn_from(mining, labels):
    embeddings = torch.randn(3, 4, requires_grad=True)
    value = TripletLoss(mining=mining)(embeddings, torch.tensor(labels)).loss
    value.backward()
    assert value == 0 and (embeddings.grad == 0).all()


def test_impossible_margin():
    with pytest.raises(ValueError, match="margin: is 5"):
        TripletLoss(margin=5.0)
