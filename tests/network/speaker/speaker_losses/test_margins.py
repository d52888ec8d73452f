"""Classification losses against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from wesep_py.common.errors import InputError
from wesep_py.network.speaker.speaker_losses import (
    AAMSoftmax,
    AdaptiveMarginSoftmax,
    AMSoftmax,
    ASoftmax,
    Softmax,
    SphereFace2,
)
from wesep_py.network.speaker.speaker_losses.margins import multiplied_angle

DIM, SPEAKERS = 8, 6


def batch(seed: int = 0, size: int = 5, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(size, DIM, generator=generator, dtype=dtype), torch.arange(size) % SPEAKERS


def make(kind, **arguments):
    torch.manual_seed(1)
    return kind(DIM, SPEAKERS, **arguments).double()


def with_weights_of(other, loss):
    loss.weight.data.copy_(other.weight.data)
    return loss


@pytest.mark.parametrize("kind", [AMSoftmax, AAMSoftmax])
def test_am_and_aam_by_their_definition(kind):
    loss, (embeddings, labels) = make(kind, scale=20.0, margin=0.3), batch()
    total = 0.0
    for e, y in zip(embeddings, labels.tolist(), strict=True):
        angles = [math.acos(float(e @ w / e.norm() / w.norm())) for w in loss.weight.detach()]
        own = math.cos(angles[y]) - 0.3 if kind is AMSoftmax else math.cos(angles[y] + 0.3)
        assert angles[y] + 0.3 < math.pi
        exponentials = [math.exp(20 * (own if j == y else math.cos(a))) for j, a in enumerate(angles)]
        total -= math.log(exponentials[y] / sum(exponentials))
    assert loss(embeddings, labels).loss.item() == pytest.approx(total / len(labels), rel=1e-9)


@pytest.mark.parametrize("kind", [AMSoftmax, AAMSoftmax])
def test_margin_zero_is_softmax_of_scaled_cosines(kind):
    embeddings, labels = batch()
    loss = make(kind, scale=16.0, margin=0.0)
    plain = with_weights_of(loss, make(Softmax, scale=16.0))
    torch.testing.assert_close(loss(embeddings, labels).loss, plain(embeddings, labels).loss, rtol=0, atol=1e-12)
    assert make(kind, margin=0.2)(embeddings, labels).loss > make(kind, margin=0.0)(embeddings, labels).loss


def test_softmax_is_that_of_a_linear_layer():
    loss, (embeddings, labels) = make(Softmax), batch()
    loss.bias.data = torch.randn(SPEAKERS, dtype=torch.float64)
    expected = F.cross_entropy(embeddings @ loss.weight.T + loss.bias, labels)
    torch.testing.assert_close(loss(embeddings, labels).loss, expected)


def test_gradient_of_softmax_by_its_formula():
    """d loss / d e = Σ_j (p_j − [j = y]) W_j / batch; of the bias, Σ_i (p − one-hot) / batch."""
    loss, (embeddings, labels) = make(Softmax), batch()
    embeddings.requires_grad_()
    loss(embeddings, labels).loss.backward()
    with torch.no_grad():
        error = (embeddings @ loss.weight.T + loss.bias).exp()
        error = error / error.sum(1, keepdim=True) - torch.eye(SPEAKERS, dtype=torch.float64)[labels]
        torch.testing.assert_close(embeddings.grad, error @ loss.weight / len(labels))
        torch.testing.assert_close(loss.weight.grad, error.T @ embeddings / len(labels))
        torch.testing.assert_close(loss.bias.grad, error.mean(0))


@pytest.mark.parametrize(("kind", "margin"), [(AMSoftmax, 0.2), (AAMSoftmax, 0.2), (AAMSoftmax, 0.5)])
def test_gradients_of_am_and_aam_by_their_formula(kind, margin):
    """d loss / d cos θ_j = s (p_j − [j = y]) f'(θ_j), and d cos θ / d e = (w − cos θ · u) / |e|."""
    loss, (embeddings, labels) = make(kind, scale=10.0, margin=margin), batch()
    embeddings.requires_grad_()
    loss(embeddings, labels).loss.backward()
    expected = torch.zeros_like(embeddings)
    basis = loss.weight.detach() / loss.weight.detach().norm(dim=1, keepdim=True)
    for i, y in enumerate(labels.tolist()):
        e = embeddings[i].detach()
        unit = e / e.norm()
        cosines = basis @ unit
        angle = torch.acos(cosines[y])
        moved, slopes = cosines.clone(), torch.ones_like(cosines)
        moved[y] = cosines[y] - margin if kind is AMSoftmax else torch.cos(angle + margin)
        slopes[y] = 1.0 if kind is AMSoftmax else torch.sin(angle + margin) / torch.sin(angle)
        p = torch.softmax(10 * moved, 0)
        p[y] -= 1
        to_cosines = 10 * p * slopes / len(labels)
        expected[i] = sum(g * (w - c * unit) / e.norm() for g, w, c in zip(to_cosines, basis, cosines, strict=True))
    torch.testing.assert_close(embeddings.grad, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", [AMSoftmax, AAMSoftmax])
def test_nearest_subcentre_is_used(kind):
    embeddings, labels = batch()
    one = make(kind, num_subcentres=1)
    several = make(kind, num_subcentres=3)
    rows = several.weight.data.view(SPEAKERS, 3, DIM)
    rows[:] = -100 * embeddings.mean(0)  # far from every embedding that is used
    rows[:, 1] = one.weight.data
    toward = embeddings + 6 * F.normalize(embeddings.mean(0), dim=0)
    torch.testing.assert_close(several(toward, labels).loss, one(toward, labels).loss)
    assert several.basis().shape == (SPEAKERS, DIM)
    torch.testing.assert_close(several.basis().norm(dim=1), torch.ones(SPEAKERS, dtype=torch.float64))


@pytest.mark.parametrize("kind", [AMSoftmax, AAMSoftmax])
@pytest.mark.parametrize("num_hard", [1, 3, SPEAKERS - 1])
def test_penalty_is_on_the_nearest_other_speakers(kind, num_hard):
    embeddings, labels = batch()
    loss = make(kind, scale=1.0, margin=0.2, num_hard=num_hard, hard_penalty=0.1)
    cosines = loss.cosines(embeddings)
    raised = (loss.logits(embeddings, labels, cosines) - cosines).detach()
    for row, cosine, y in zip(raised, cosines.detach(), labels.tolist(), strict=True):
        others = sorted((j for j in range(SPEAKERS) if j != y), key=lambda j, c=cosine: -c[j])
        for rank, j in enumerate(others):
            expected = 0.0
            if rank < num_hard:
                expected = 0.1 if kind is AMSoftmax else float(torch.cos(torch.acos(cosine[j]) - 0.1) - cosine[j])
            assert float(row[j]) == pytest.approx(expected, abs=1e-9)


def test_easy_margin_applies_within_a_right_angle():
    loss = make(AAMSoftmax, scale=1.0, easy_margin=True)
    cosines = torch.tensor([0.5, -0.5], dtype=torch.float64)
    expected = torch.tensor([math.cos(math.acos(0.5) + 0.2), -0.5], dtype=torch.float64)
    torch.testing.assert_close(loss.further(cosines, 0.2), expected)


@pytest.mark.parametrize("kind", [AMSoftmax, AAMSoftmax, Softmax])
def test_cosines_have_no_margin_and_are_detached(kind):
    loss, (embeddings, labels) = make(kind), batch()
    cosines = loss(embeddings, labels).cosines
    expected = F.normalize(embeddings) @ F.normalize(loss.weight).T
    torch.testing.assert_close(cosines, expected.detach())
    assert not cosines.requires_grad


@pytest.mark.parametrize("kind", [AMSoftmax, AAMSoftmax])
def test_extreme_embeddings_have_finite_gradients(kind):
    loss = make(kind, margin=0.5, num_hard=2).float()
    towards, against = loss.weight.data[0], -loss.weight.data[1]
    embeddings = torch.stack([1e-3 * towards, 1e4 * against, torch.zeros(DIM), towards]).requires_grad_()
    out = loss(embeddings, torch.tensor([0, 1, 2, 1]))
    out.loss.backward()
    assert out.loss.isfinite() and embeddings.grad.isfinite().all() and loss.weight.grad.isfinite().all()


def test_impossible_arguments_of_am_and_aam():
    with pytest.raises(ValueError, match="margin: is 2"):
        make(AAMSoftmax, margin=2.0)
    with pytest.raises(ValueError, match="scale: is 0"):
        make(AMSoftmax, scale=0.0)
    with pytest.raises(ValueError, match=f"num_hard: is {SPEAKERS}"):
        make(AMSoftmax, num_hard=SPEAKERS)
    with pytest.raises(ValueError, match="num_subcentres"):
        make(AMSoftmax, num_subcentres=0)
    with pytest.raises(ValueError, match="num_speakers: is 1"):
        AAMSoftmax(4, 1)
    loss = make(AAMSoftmax)
    with pytest.raises(InputError, match="labels: has 6; the loss is for speakers 0 to 5"):
        loss(torch.randn(2, DIM), torch.tensor([0, 6]))
    with pytest.raises(InputError, match="one for each embedding"):
        loss(torch.randn(2, DIM), torch.tensor([0]))
    with pytest.raises(InputError, match="embedding_dim"):
        loss(torch.randn(DIM), torch.tensor([0]))


@pytest.mark.parametrize("margin", [1, 2, 3, 4, 5, 7])
def test_multiplied_angle_by_arccos(margin):
    angles = torch.linspace(0.0, math.pi, 500, dtype=torch.float64)
    passed = torch.floor(margin * angles / math.pi).clamp(max=margin - 1)
    expected = torch.where(passed % 2 == 0, 1.0, -1.0) * torch.cos(margin * angles) - 2 * passed
    torch.testing.assert_close(multiplied_angle(angles.cos(), margin), expected, atol=1e-9, rtol=0)
    assert (multiplied_angle(angles.cos(), margin).diff() < 0).all()


def test_annealing_of_a_softmax():
    loss = ASoftmax(4, 3)
    for step in (0, 1, 50, 10**6):
        loss.update(step)
        assert loss.current_lambda == max(5.0, 1000.0 / (1 + 0.12 * (step + 1)))


def test_a_softmax_by_its_definition():
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


def test_a_softmax_of_margin_one_is_softmax():
    torch.manual_seed(0)
    loss = ASoftmax(6, 5, margin=1)
    embeddings, labels = torch.randn(4, 6), torch.tensor([0, 3, 3, 4])
    logits = embeddings @ F.normalize(loss.weight).T
    torch.testing.assert_close(loss(embeddings, labels).loss, F.cross_entropy(logits, labels))


def test_a_softmax_is_finite_at_extreme_angles():
    loss = ASoftmax(6, 5, margin=4)
    embeddings = torch.stack([loss.weight.data[0], -loss.weight.data[0], torch.zeros(6)]).requires_grad_()
    loss(embeddings, torch.tensor([0, 0, 1])).loss.backward()
    assert embeddings.grad.isfinite().all() and loss.weight.grad.isfinite().all()


def test_impossible_arguments_of_a_softmax():
    with pytest.raises(ValueError, match="margin: is 0"):
        ASoftmax(4, 3, margin=0)
    with pytest.raises(ValueError, match="lambda_base >= lambda_min"):
        ASoftmax(4, 3, lambda_base=1.0, lambda_min=2.0)
    with pytest.raises(ValueError, match="gamma"):
        ASoftmax(4, 3, gamma=-1.0)


def test_equal_adaptive_margins_are_am_softmax_minus_the_reward():
    torch.manual_seed(0)
    loss = AdaptiveMarginSoftmax(6, 5, scale=20.0, initial_margin=0.3, reward=4.0).double()
    fixed = AMSoftmax(6, 5, scale=20.0, margin=0.3).double()
    fixed.weight.data.copy_(loss.weight.data)
    embeddings, labels = torch.randn(4, 6, dtype=torch.float64), torch.tensor([0, 3, 3, 4])
    expected = fixed(embeddings, labels).loss - 4.0 * 0.3
    torch.testing.assert_close(loss(embeddings, labels).loss, expected, atol=1e-6, rtol=0)


def test_gradient_of_adaptive_margins_by_its_formula():
    """d loss / d m_c = s Σ_{i: y = c} (1 − p_i) / batch − reward / speakers; of the logit, times m (1 − m / max)."""
    torch.manual_seed(0)
    loss = AdaptiveMarginSoftmax(6, 5, scale=20.0, max_margin=0.5, reward=4.0).double()
    loss.margin_logits.data = torch.randn(5, dtype=torch.float64)
    embeddings, labels = torch.randn(4, 6, dtype=torch.float64), torch.tensor([0, 3, 3, 4])
    loss(embeddings, labels).loss.backward()
    with torch.no_grad():
        p = torch.softmax(loss.logits(embeddings, labels, loss.cosines(embeddings)), 1)
        expected = torch.full((5,), -4.0 / 5, dtype=torch.float64)
        for i, y in enumerate(labels.tolist()):
            expected[y] += 20 * (1 - p[i, y]) / 4
        margins = loss.margins()
        torch.testing.assert_close(loss.margin_logits.grad, expected * margins * (1 - margins / 0.5))


def test_easy_speakers_get_larger_adaptive_margins():
    torch.manual_seed(0)
    loss = AdaptiveMarginSoftmax(8, 4, scale=16.0, reward=5.0)
    loss.weight.requires_grad_(False)
    easy, near = torch.eye(8)[0], torch.eye(8)[2]
    loss.weight.data[0], loss.weight.data[1] = easy, torch.eye(8)[1]
    loss.weight.data[2], loss.weight.data[3] = near, near + 0.3 * torch.eye(8)[3]
    embeddings, labels = loss.weight.data + 0.02 * torch.randn(4, 8), torch.arange(4)
    for _ in range(150):
        (slopes,) = torch.autograd.grad(loss(embeddings, labels).loss, loss.margin_logits)
        loss.margin_logits.data -= slopes
    margins = loss.margins()
    assert margins[:2].min() > margins[2:].max() + 0.1
    assert margins.min() > 0 and margins.max() < 0.5


def test_impossible_arguments_of_adaptive_margin():
    with pytest.raises(ValueError, match="initial_margin < max_margin"):
        AdaptiveMarginSoftmax(4, 3, initial_margin=0.6)
    with pytest.raises(ValueError, match="reward: is 40"):
        AdaptiveMarginSoftmax(4, 3, reward=40.0)
    with pytest.raises(ValueError, match="scale"):
        AdaptiveMarginSoftmax(4, 3, scale=0.0)


def spread(z: float, power: float) -> float:
    return 2 * ((z + 1) / 2) ** power - 1


@pytest.mark.parametrize("margin_type", ["cosine", "angular"])
def test_sphereface2_by_its_definition(margin_type):
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


def test_gradient_of_the_bias_of_sphereface2_by_its_formula():
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
def test_sphereface2_is_finite_at_extreme_angles_and_scales(margin_type, power):
    loss = SphereFace2(6, 5, scale=500.0, margin=0.3, margin_type=margin_type, power=power)
    embeddings = torch.stack([loss.weight.data[0], -loss.weight.data[0], torch.zeros(6)]).requires_grad_()
    out = loss(embeddings, torch.tensor([1, 0, 1]))
    out.loss.backward()
    assert out.loss.isfinite() and embeddings.grad.isfinite().all() and loss.weight.grad.isfinite().all()


def test_impossible_arguments_of_sphereface2():
    with pytest.raises(ValueError, match=r"margin: is 1\.2; 0 to 1"):
        SphereFace2(4, 3, margin=1.2)
    assert SphereFace2(4, 3, margin=1.2, margin_type="angular").current_margin == 1.2
    with pytest.raises(ValueError, match="positive_weight: is 1"):
        SphereFace2(4, 3, positive_weight=1.0)
    with pytest.raises(ValueError, match=r"power: is 0\.5"):
        SphereFace2(4, 3, power=0.5)
    with pytest.raises(ValueError, match="scale"):
        SphereFace2(4, 3, scale=-1.0)
