from __future__ import annotations

import pytest
import torch

from wesep_py.common.errors import InputError
from wesep_py.network.speaker.speaker_losses import AngularPrototypicalLoss, GE2ELoss, PrototypicalLoss
from wesep_py.network.speaker.speaker_losses.episodes import PATIENCE, episodes

LOSSES = [PrototypicalLoss, AngularPrototypicalLoss, GE2ELoss]
NONE = [[0, 1, 2], [0, 0, 1, 2], [3, 3, 3]]
"""Labels of batches in which fewer than two speakers have two utterances."""


def test_utterances_are_gathered_by_speaker_in_their_order():
    labels = torch.tensor([9, 2, 5, 2, 9, 5, 5, 9, 2])
    embeddings = torch.arange(9.0)[:, None].repeat(1, 2)
    assert episodes(embeddings, labels)[..., 0].tolist() == [[1, 3, 8], [2, 5, 6], [0, 4, 7]]


def test_of_each_speaker_as_many_as_the_one_with_fewest_has_and_none_of_who_has_one():
    labels = torch.tensor([4, 8, 1, 4, 8, 8, 6, 6, 4, 6, 6])
    assert episodes(torch.arange(11.0)[:, None], labels)[..., 0].tolist() == [[0, 3, 8], [6, 7, 9], [1, 4, 5]]


@pytest.mark.parametrize("kind", LOSSES)
def test_labels_are_names_only(kind):
    """Renamed speakers, and batches in another order of the same utterances, give the same loss."""
    embeddings, labels = torch.randn(9, 4), torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    value = kind()(embeddings, labels).loss
    shuffled = torch.tensor([6, 3, 0, 4, 7, 8, 1, 2, 5])
    names = torch.tensor([17, 400, 5])
    torch.testing.assert_close(kind()(embeddings[shuffled], names[labels[shuffled]]).loss, value)


@pytest.mark.parametrize("kind", LOSSES)
def test_what_is_over_is_left_out(kind):
    """Two utterances of one speaker, three of another and one of a third: the loss is that of two of the first two."""
    embeddings = torch.randn(6, 4, requires_grad=True)
    found = kind()(embeddings, torch.tensor([0, 1, 0, 1, 1, 2])).loss
    torch.testing.assert_close(found, kind()(embeddings[:4], torch.tensor([0, 1, 0, 1])).loss)
    (slopes,) = torch.autograd.grad(found, embeddings)
    assert slopes[:4].any() and not slopes[4:].any()


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("labels", NONE)
def test_a_batch_with_nothing_to_compare_moves_nothing(kind, labels):
    loss, embeddings = kind(), torch.randn(len(labels), 4, requires_grad=True)
    found = loss(embeddings, torch.tensor(labels)).loss
    found.backward()
    assert found == 0 and not embeddings.grad.any()
    assert all(not parameter.grad.any() for parameter in loss.parameters())


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize(("labels", "counted"), zip(NONE, ("0 of 3", "1 of 3", "1 of 1"), strict=True))
def test_many_such_batches_in_a_row_are_refused(kind, labels, counted):
    loss, labels = kind(), torch.tensor(labels)
    embeddings = torch.randn(len(labels), 4)
    for _ in range(PATIENCE - 1):
        loss(embeddings, labels)
    loss(torch.randn(4, 4), torch.tensor([0, 0, 1, 1]))
    for _ in range(PATIENCE - 1):
        loss(embeddings, labels)
    loss.eval()(embeddings, labels)
    with pytest.raises(InputError, match=rf"{counted}.*simulation\.enrollment\.count: 1.*train\.batch_size"):
        loss.train()(embeddings, labels)
