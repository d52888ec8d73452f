from __future__ import annotations

import math

import pytest
import torch

from wesep_py.network.speaker.speaker_losses import SphereFace2


def spread(z: float, power: float) -> float:
    return 2 * ((z + 1) / 2) ** power - 1


@pytest.mark.parametrize("margin_type", ["cosine", "angular"])
def test_the_definition_by_loops(margin_type):
    torch.manual_seed(0)
    loss = SphereFace2(6, 5, scale=8.0, margin=0.15, positive_weight=0.6, power=3, margin_type=margin_type).double()
    loss.bias.data.fill_(0.4)
    embeddings, labels = torch.randn(4, 6, dtype=torch.float64), torch.tensor([0, 3, 3, 4])
    total = 0.0
    for e, y in zip(embeddings, labels.tolist(), strict=True):
        for j, w in enumerate(loss.weight.detach()):
            cosine = float(e @ w / e.norm() / w.norm())
            angle, sign = math.acos(cosine), 1 if j == y else -1
            assert 0.15 < angle < math.pi - 0.15
            moved = spread(cosine, 3) - sign * 0.15
            if margin_type == "angular":
                moved = spread(math.cos(angle + sign * 0.15), 3)
            weight = 0.6 if j == y else 0.4
            total += weight * math.log(1 + math.exp(-sign * (8 * moved + 0.4)))
    assert loss(embeddings, labels).loss.item() == pytest.approx(total / 4, rel=1e-9)


def test_gradient_of_the_bias_by_its_formula():
    """Of λ log(1 + e^−p) it is −λ σ(−p), of (1 − λ) log(1 + e^n) it is (1 − λ) σ(n)."""
    torch.manual_seed(0)
    loss = SphereFace2(6, 5).double()
    embeddings, labels = torch.randn(4, 6, dtype=torch.float64), torch.tensor([0, 3, 3, 4])
    loss(embeddings, labels).loss.backward()
    logits = loss.logits(embeddings, labels, loss.cosines(embeddings)).detach()
    slopes = 0.3 * torch.sigmoid(logits)
    for i, y in enumerate(labels):
        slopes[i, y] = -0.7 * torch.sigmoid(-logits[i, y])
    torch.testing.assert_close(loss.bias.grad, slopes.sum(1).mean())


@pytest.mark.parametrize("margin_type", ["cosine", "angular"])
@pytest.mark.parametrize("power", [1.0, 2.0, 3.0, 3.5])
def test_finite_at_the_ends_and_for_large_scales(margin_type, power):
    loss = SphereFace2(6, 5, scale=500.0, margin=0.3, margin_type=margin_type, power=power)
    embeddings = torch.stack([loss.weight.data[0], -loss.weight.data[0], torch.zeros(6)]).requires_grad_()
    out = loss(embeddings, torch.tensor([1, 0, 1]))
    out.loss.backward()
    assert out.loss.isfinite() and embeddings.grad.isfinite().all() and loss.weight.grad.isfinite().all()


def test_impossible_arguments():
    with pytest.raises(ValueError, match=r"margin: is 1\.2; 0 to 1"):
        SphereFace2(4, 3, margin=1.2)
    assert SphereFace2(4, 3, margin=1.2, margin_type="angular").current_margin == 1.2
    with pytest.raises(ValueError, match="positive_weight: is 1"):
        SphereFace2(4, 3, positive_weight=1.0)
    with pytest.raises(ValueError, match=r"power: is 0\.5"):
        SphereFace2(4, 3, power=0.5)
    with pytest.raises(ValueError, match="scale"):
        SphereFace2(4, 3, scale=-1.0)
