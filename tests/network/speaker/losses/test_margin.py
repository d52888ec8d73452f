from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from wesep_py.common.errors import InputError
from wesep_py.network.speaker.speaker_losses import AAMSoftmax, AMSoftmax, Softmax

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
def test_the_definition_by_loops(kind):
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
def test_without_margin_it_is_softmax_on_scaled_cosines(kind):
    embeddings, labels = batch()
    loss = make(kind, scale=16.0, margin=0.0)
    plain = with_weights_of(loss, make(Softmax, scale=16.0))
    torch.testing.assert_close(loss(embeddings, labels).loss, plain(embeddings, labels).loss, rtol=0, atol=1e-12)
    assert make(kind, margin=0.2)(embeddings, labels).loss > make(kind, margin=0.0)(embeddings, labels).loss


def test_softmax_is_a_linear_layer():
    loss, (embeddings, labels) = make(Softmax), batch()
    loss.bias.data = torch.randn(SPEAKERS, dtype=torch.float64)
    expected = F.cross_entropy(embeddings @ loss.weight.T + loss.bias, labels)
    torch.testing.assert_close(loss(embeddings, labels).loss, expected)


def test_gradient_of_the_softmax_by_its_formula():
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
def test_gradient_of_the_margin_losses_by_their_formula(kind, margin):
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
def test_one_subcentre_is_none_and_the_nearest_of_several_counts(kind):
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
def test_the_penalty_is_on_the_nearest_others(kind, num_hard):
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


def test_easy_margin_only_within_a_right_angle():
    loss = make(AAMSoftmax, scale=1.0, easy_margin=True)
    cosines = torch.tensor([0.5, -0.5], dtype=torch.float64)
    expected = torch.tensor([math.cos(math.acos(0.5) + 0.2), -0.5], dtype=torch.float64)
    torch.testing.assert_close(loss.further(cosines, 0.2), expected)


@pytest.mark.parametrize("kind", [AMSoftmax, AAMSoftmax, Softmax])
def test_cosines_are_plain_and_detached(kind):
    loss, (embeddings, labels) = make(kind), batch()
    cosines = loss(embeddings, labels).cosines
    expected = F.normalize(embeddings) @ F.normalize(loss.weight).T
    torch.testing.assert_close(cosines, expected.detach())
    assert not cosines.requires_grad


@pytest.mark.parametrize("kind", [AMSoftmax, AAMSoftmax])
def test_extreme_embeddings_have_finite_losses_and_gradients(kind):
    loss = make(kind, margin=0.5, num_hard=2).float()
    towards, against = loss.weight.data[0], -loss.weight.data[1]
    embeddings = torch.stack([1e-3 * towards, 1e4 * against, torch.zeros(DIM), towards]).requires_grad_()
    out = loss(embeddings, torch.tensor([0, 1, 2, 1]))
    out.loss.backward()
    assert out.loss.isfinite() and embeddings.grad.isfinite().all() and loss.weight.grad.isfinite().all()


def test_impossible_arguments():
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
    with pytest.raises(InputError, match="labels: has 6; the loss was made for speakers 0 to 5"):
        loss(torch.randn(2, DIM), torch.tensor([0, 6]))
    with pytest.raises(InputError, match="one for each embedding"):
        loss(torch.randn(2, DIM), torch.tensor([0]))
    with pytest.raises(InputError, match="embedding_dim"):
        loss(torch.randn(DIM), torch.tensor([0]))
