from __future__ import annotations

import pytest
import torch

from wesep_py.errors import InputError
from wesep_py.speaker.losses import AngularPrototypicalLoss, GE2ELoss, PrototypicalLoss
from wesep_py.speaker.losses.episodes import episodes

LOSSES = [PrototypicalLoss, AngularPrototypicalLoss, GE2ELoss]


def test_utterances_are_gathered_by_speaker_in_their_order():
    labels = torch.tensor([9, 2, 5, 2, 9, 5, 5, 9, 2])
    embeddings = torch.arange(9.0)[:, None].repeat(1, 2)
    assert episodes(embeddings, labels)[..., 0].tolist() == [[1, 3, 8], [2, 5, 6], [0, 4, 7]]


@pytest.mark.parametrize("kind", LOSSES)
def test_labels_are_names_only(kind):
    """Renamed speakers, and batches in another order of the same utterances, give the same loss."""
    embeddings, labels = torch.randn(9, 4), torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    value = kind()(embeddings, labels).loss
    shuffled = torch.tensor([6, 3, 0, 4, 7, 8, 1, 2, 5])
    names = torch.tensor([17, 400, 5])
    torch.testing.assert_close(kind()(embeddings[shuffled], names[labels[shuffled]]).loss, value)


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 1], [0, 1, 2], [3, 3, 3]])
def test_batches_that_are_no_episodes(kind, labels):
    with pytest.raises(InputError, match="same number of utterances"):
        kind()(torch.randn(len(labels), 4), torch.tensor(labels))
