"""The permutation-free loss, against every order tried by hand."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch.nn import functional as F

from wesep_py.common.errors import InputError
from wesep_py.network.speaker.speaker_losses import PermutationFreeLoss, build_speaker_loss, speaker_losses
from wesep_py.network.speaker.speaker_losses.permutation_free import existence_loss

LABELS = torch.tensor([[3, 1, -1], [2, -1, -1], [0, 4, 2]])


def permutation_free_loss(name: str = "aam", **arguments) -> PermutationFreeLoss:
    torch.manual_seed(0)
    return PermutationFreeLoss(speaker_losses.build({"name": name, **arguments}, "", embedding_dim=6, num_speakers=5))


@pytest.mark.parametrize("name", ["aam", "am", "softmax", "a_softmax", "sphereface2", "adaptive_margin"])
def test_order_has_the_smallest_loss(name):
    loss = permutation_free_loss(name)
    embeddings = torch.randn(3, 3, 6)
    classifier = loss.classifier
    for item, labels in enumerate(LABELS.tolist()):
        speakers = [label for label in labels if label >= 0]
        costs = {}
        for order in permutations(speakers):
            chosen, own = torch.tensor(order), embeddings[item, : len(speakers)]
            costs[order] = classifier.item_losses(own, chosen, classifier.cosines(own)).sum().item()
        output = loss(embeddings, torch.zeros(3, 3), LABELS).labels[item].tolist()
        assert output[: len(speakers)] == list(min(costs, key=costs.get)) and set(output[len(speakers) :]) <= {-1}


def test_loss_is_that_of_ordered_voices_and_existence():
    loss = permutation_free_loss()
    embeddings, logits = torch.randn(3, 3, 6), torch.randn(3, 3)
    output = loss(embeddings, logits, LABELS)
    exists = output.labels >= 0
    alone = loss.loss(embeddings[exists], output.labels[exists]).loss
    asked = F.binary_cross_entropy_with_logits(
        torch.stack([logits[0, 1], logits[0, 2], logits[1, 1], logits[2, 1], logits[2, 2]]),
        torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0]),
    )
    torch.testing.assert_close(output.loss, alone + 0.1 * asked)
    torch.testing.assert_close(output.parts["existence"], asked)
    turned = loss(embeddings[2:], logits[2:], LABELS[2:, [1, 0, 2]]).labels
    assert turned.tolist() == output.labels[2:].tolist()


def test_existence_of_one_or_two_speakers_is_that_of_the_second():
    logits = torch.tensor([[-50.0, 0.0], [-50.0, 1.0]], requires_grad=True)
    existence_loss(logits, torch.tensor([1, 2])).backward()
    assert (logits.grad[:, 0] == 0).all() and logits.grad[0, 1] > 0 > logits.grad[1, 1]


def test_gradients_come_from_existing_voices_only():
    loss = permutation_free_loss()
    embeddings = torch.randn(3, 3, 6, requires_grad=True)
    loss(embeddings, torch.zeros(3, 3), LABELS).loss.backward()
    exists = LABELS >= 0
    assert (embeddings.grad[~exists] == 0).all() and (embeddings.grad[exists] != 0).any(dim=1).all()


def test_accuracy_is_over_existing_voices():
    loss = permutation_free_loss()
    embeddings = torch.zeros(3, 3, 6)
    embeddings[LABELS >= 0] = loss.classifier.weight.detach()[LABELS[LABELS >= 0]]
    assert loss(embeddings.flip(1)[2:], torch.zeros(1, 3), LABELS[2:]).accuracy == 1
    other = loss.classifier.weight.detach()[3][None, None]
    assert loss(other, torch.zeros(1, 1), LABELS[1:2, :1]).accuracy == 0


def test_further_losses_use_the_same_order():
    losses = [{"name": "aam"}, {"name": "between_speaker", "weight": 0.1}, {"name": "centre"}]
    loss = PermutationFreeLoss(build_speaker_loss(losses, 6, 5))
    assert set(loss(torch.randn(3, 3, 6), torch.zeros(3, 3), LABELS).parts) == {
        "aam", "between_speaker", "centre", "existence",
    }  # fmt: skip


def test_impossible_inputs_are_refused():
    with pytest.raises(ValueError, match="has no classification loss"):
        PermutationFreeLoss(build_speaker_loss([{"name": "triplet"}], 6, 5))
    loss = permutation_free_loss()
    for labels, message in (
        (torch.tensor([[-1, 2, -1]]), "no speaker, or one after a -1"),
        (torch.tensor([[1, -1, 2]]), "no speaker, or one after a -1"),
        (torch.tensor([[1, 2]]), r"\[1, 3\], one for each embedding"),
        (torch.tensor([[1, 5, -1]]), "has 5; the loss is for speakers 0 to 4"),
    ):
        with pytest.raises(InputError, match=message):
            loss(torch.randn(1, 3, 6), torch.zeros(1, 3), labels)
