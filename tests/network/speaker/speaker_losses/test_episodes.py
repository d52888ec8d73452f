"""Episodes, and the losses that compare utterances."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from wesep_py.common.errors import InputError
from wesep_py.network.speaker.speaker_losses import AngularPrototypicalLoss, GE2ELoss, PrototypicalLoss, TripletLoss
from wesep_py.network.speaker.speaker_losses.episodes import MAX_BATCHES_WITHOUT_EPISODE, episodes

LOSSES = [PrototypicalLoss, AngularPrototypicalLoss, GE2ELoss]
NONE = [[0, 1, 2], [0, 0, 1, 2], [3, 3, 3]]
"""Labels of batches in which fewer than two speakers have two utterances."""


def test_episode_has_utterances_by_speaker_in_their_order():
    labels = torch.tensor([9, 2, 5, 2, 9, 5, 5, 9, 2])
    embeddings = torch.arange(9.0)[:, None].repeat(1, 2)
    assert episodes(embeddings, labels)[..., 0].tolist() == [[1, 3, 8], [2, 5, 6], [0, 4, 7]]


def test_episode_takes_equal_numbers_and_no_single_utterances():
    labels = torch.tensor([4, 8, 1, 4, 8, 8, 6, 6, 4, 6, 6])
    assert episodes(torch.arange(11.0)[:, None], labels)[..., 0].tolist() == [[0, 3, 8], [6, 7, 9], [1, 4, 5]]


@pytest.mark.parametrize("kind", LOSSES)
def test_labels_are_only_names(kind):
    """Renamed speakers, and batches in another order of the same utterances, give the same loss."""
    embeddings, labels = torch.randn(9, 4), torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    value = kind()(embeddings, labels).loss
    shuffled = torch.tensor([6, 3, 0, 4, 7, 8, 1, 2, 5])
    names = torch.tensor([17, 400, 5])
    torch.testing.assert_close(kind()(embeddings[shuffled], names[labels[shuffled]]).loss, value)


@pytest.mark.parametrize("kind", LOSSES)
def test_surplus_utterances_are_left_out(kind):
    """Two utterances of one speaker, three of another and one of a third: the loss is that of two of the first two."""
    embeddings = torch.randn(6, 4, requires_grad=True)
    value = kind()(embeddings, torch.tensor([0, 1, 0, 1, 1, 2])).loss
    torch.testing.assert_close(value, kind()(embeddings[:4], torch.tensor([0, 1, 0, 1])).loss)
    (slopes,) = torch.autograd.grad(value, embeddings)
    assert slopes[:4].any() and not slopes[4:].any()


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("labels", NONE)
def test_batch_without_episode_has_zero_gradients(kind, labels):
    loss, embeddings = kind(), torch.randn(len(labels), 4, requires_grad=True)
    value = loss(embeddings, torch.tensor(labels)).loss
    value.backward()
    assert value == 0 and not embeddings.grad.any()
    assert all(not parameter.grad.any() for parameter in loss.parameters())


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize(("labels", "counted"), zip(NONE, ("0 of 3", "1 of 3", "1 of 1"), strict=True))
def test_many_batches_without_episode_are_refused(kind, labels, counted):
    loss, labels = kind(), torch.tensor(labels)
    embeddings = torch.randn(len(labels), 4)
    for _ in range(MAX_BATCHES_WITHOUT_EPISODE - 1):
        loss(embeddings, labels)
    loss(torch.randn(4, 4), torch.tensor([0, 0, 1, 1]))
    for _ in range(MAX_BATCHES_WITHOUT_EPISODE - 1):
        loss(embeddings, labels)
    loss.eval()(embeddings, labels)
    with pytest.raises(InputError, match=rf"{counted}.*simulation\.enrollment\.count: 1.*train\.batch_size"):
        loss.train()(embeddings, labels)


def episode(speakers: int = 4, utterances: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(speakers, utterances, 5, generator=generator, dtype=torch.float64)
    return embeddings, torch.arange(speakers).repeat_interleave(utterances)


def prototypical_by_loops(embeddings: torch.Tensor, similarity) -> float:
    total = 0.0
    for j, utterances in enumerate(embeddings):
        values = [math.exp(similarity(utterances[-1], others[:-1].sum(0) / (len(others) - 1))) for others in embeddings]
        total -= math.log(values[j] / sum(values))
    return total / len(embeddings)


@pytest.mark.parametrize("utterances", [2, 3, 5])
def test_prototypical_losses_by_their_definitions(utterances):
    embeddings, labels = episode(utterances=utterances)
    expected = prototypical_by_loops(embeddings, lambda q, c: -float((q - c) @ (q - c)))
    value = PrototypicalLoss()(embeddings.flatten(0, 1), labels).loss.item()
    assert value == pytest.approx(expected, rel=1e-9)
    angular = AngularPrototypicalLoss(initial_scale=3.0, initial_bias=0.7).double()
    expected = prototypical_by_loops(embeddings, lambda q, c: 3 * float(q @ c / q.norm() / c.norm()) + 0.7)
    assert angular(embeddings.flatten(0, 1), labels).loss.item() == pytest.approx(expected, rel=1e-9)


def test_gradient_of_prototypical_queries_by_its_formula():
    """d loss / d q_j = Σ_k (p_jk − [k = j]) · (−2 (q_j − c_k)) / speakers."""
    embeddings, labels = episode()
    embeddings.requires_grad_()
    PrototypicalLoss()(embeddings.flatten(0, 1), labels).loss.backward()
    with torch.no_grad():
        queries, centres = embeddings[:, -1], embeddings[:, :-1].mean(1)
        away = queries[:, None] - centres[None]
        error = torch.softmax(-away.square().sum(2), 1) - torch.eye(4, dtype=torch.float64)
        torch.testing.assert_close(embeddings.grad[:, -1], (-2 * error[..., None] * away).sum(1) / 4)


def test_scale_of_a_cosine_cannot_become_negative():
    embeddings, labels = episode()
    loss = AngularPrototypicalLoss().double()
    loss.scale.data.fill_(-5.0)
    value = loss(embeddings.flatten(0, 1), labels).loss.item()
    assert value == pytest.approx(math.log(4), rel=1e-4), "no preference, instead of the opposite one"
    with pytest.raises(ValueError, match="initial_scale: is 0"):
        AngularPrototypicalLoss(initial_scale=0.0)


def ge2e_by_loops(embeddings: torch.Tensor, w: float, b: float, kind: str) -> float:
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
def test_ge2e_by_its_definition(kind, speakers, utterances):
    torch.manual_seed(0)
    embeddings = torch.randn(speakers, utterances, 5, dtype=torch.float64)
    loss = GE2ELoss(kind, initial_scale=4.0, initial_bias=-1.0).double()
    value = loss(embeddings.flatten(0, 1), torch.arange(speakers).repeat_interleave(utterances)).loss.item()
    assert value == pytest.approx(ge2e_by_loops(embeddings, 4.0, -1.0, kind), rel=1e-9)


@pytest.mark.parametrize("kind", ["softmax", "contrast"])
def test_gradients_of_ge2e_by_finite_differences(kind):
    torch.manual_seed(0)
    loss, labels = GE2ELoss(kind, initial_scale=2.0).double(), torch.tensor([0, 0, 1, 1, 2, 2])
    embeddings = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda e: loss(e, labels).loss, (embeddings,))
    loss(embeddings, labels).loss.backward()
    episode, step = embeddings.detach().view(3, 2, 3), 1e-6
    slope_w = (ge2e_by_loops(episode, 2 + step, -5, kind) - ge2e_by_loops(episode, 2 - step, -5, kind)) / (2 * step)
    slope_b = (ge2e_by_loops(episode, 2, -5 + step, kind) - ge2e_by_loops(episode, 2, -5 - step, kind)) / (2 * step)
    assert loss.scale.grad.item() == pytest.approx(slope_w, rel=1e-4)
    assert loss.bias.grad.item() == pytest.approx(slope_b, rel=1e-4, abs=1e-9)


def test_impossible_scale_of_ge2e():
    with pytest.raises(ValueError, match="initial_scale: is -1"):
        GE2ELoss(initial_scale=-1.0)


def triplet_by_loops(embeddings: torch.Tensor, labels: list[int], margin: float, mining: str) -> float:
    unit = [e / e.norm() for e in embeddings]
    size = range(len(labels))
    d = [[float((unit[i] - unit[j]).pow(2).sum()) for j in size] for i in size]
    values = []
    for a in size:
        positives = [p for p in size if p != a and labels[p] == labels[a]]
        negatives = [n for n in size if labels[n] != labels[a]]
        if not positives or not negatives:
            continue
        if mining == "hard":
            values.append(max(d[a][p] for p in positives) - min(d[a][n] for n in negatives) + margin)
            continue
        for p in positives:
            further = [d[a][n] for n in negatives if d[a][n] > d[a][p]]
            values.append(d[a][p] - (min(further) if further else max(d[a][n] for n in negatives)) + margin)
    return sum(max(0.0, value) for value in values) / len(values)


@pytest.mark.parametrize(("mining", "seed", "margin"), itertools.product(["hard", "semi_hard"], range(4), [0.1, 0.5]))
def test_triplet_loss_by_its_definition(mining, seed, margin):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    labels = [0, 1, 0, 2, 1, 0, 2, 3, 1]  # one speaker with a single utterance
    expected = triplet_by_loops(embeddings, labels, margin, mining)
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
def test_batch_without_triplets_has_zero_gradients(mining, labels):
    embeddings = torch.randn(3, 4, requires_grad=True)
    value = TripletLoss(mining=mining)(embeddings, torch.tensor(labels)).loss
    value.backward()
    assert value == 0 and (embeddings.grad == 0).all()


def test_impossible_margin_of_triplet_loss():
    with pytest.raises(ValueError, match="margin: is 5"):
        TripletLoss(margin=5.0)
