from __future__ import annotations

import math

import pytest
import torch

from wesep_py.network.speaker.speaker_losses import GE2ELoss


def by_loops(embeddings: torch.Tensor, w: float, b: float, kind: str) -> float:
    """Wan et al., eqs. 4-9, utterance by utterance; the mean instead of the sum."""
    unit = embeddings / embeddings.norm(dim=2, keepdim=True)
    num_speakers, num_utterances, _ = unit.shape
    total = 0.0
    for j in range(num_speakers):
        for i in range(num_utterances):
            similarity = []
            for k in range(num_speakers):
                members = [unit[k, m] for m in range(num_utterances) if not (k == j and m == i)]
                centroid = sum(members) / len(members)
                similarity.append(w * float(unit[j, i] @ centroid / centroid.norm()) + b)
            if kind == "softmax":
                total += -similarity[j] + math.log(sum(math.exp(s) for s in similarity))
            else:
                sigma = [1 / (1 + math.exp(-s)) for s in similarity]
                total += 1 - sigma[j] + max(s for k, s in enumerate(sigma) if k != j)
    return total / (num_speakers * num_utterances)


@pytest.mark.parametrize("kind", ["softmax", "contrast"])
@pytest.mark.parametrize(("speakers", "utterances"), [(2, 2), (4, 3), (3, 5)])
def test_the_definition_by_loops(kind, speakers, utterances):
    torch.manual_seed(0)
    embeddings = torch.randn(speakers, utterances, 5, dtype=torch.float64)
    loss = GE2ELoss(kind, initial_scale=4.0, initial_bias=-1.0).double()
    value = loss(embeddings.flatten(0, 1), torch.arange(speakers).repeat_interleave(utterances)).loss.item()
    assert value == pytest.approx(by_loops(embeddings, 4.0, -1.0, kind), rel=1e-9)


@pytest.mark.parametrize("kind", ["softmax", "contrast"])
def test_gradients_by_finite_differences(kind):
    torch.manual_seed(0)
    loss, labels = GE2ELoss(kind, initial_scale=2.0).double(), torch.tensor([0, 0, 1, 1, 2, 2])
    embeddings = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda e: loss(e, labels).loss, (embeddings,))
    loss(embeddings, labels).loss.backward()
    episode, step = embeddings.detach().view(3, 2, 3), 1e-6
    slope_w = (by_loops(episode, 2 + step, -5, kind) - by_loops(episode, 2 - step, -5, kind)) / (2 * step)
    slope_b = (by_loops(episode, 2, -5 + step, kind) - by_loops(episode, 2, -5 - step, kind)) / (2 * step)
    assert loss.scale.grad.item() == pytest.approx(slope_w, rel=1e-4)
    assert loss.bias.grad.item() == pytest.approx(slope_b, rel=1e-4, abs=1e-9)


def test_impossible_scale():
    with pytest.raises(ValueError, match="initial_scale: is -1"):
        GE2ELoss(initial_scale=-1.0)
