"""Losses that compare a speaker's utterances with one another within the batch."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from wesep_py.errors import InputError
from wesep_py.speaker.losses.base import SpeakerLoss, SpeakerLossOutput


class EpisodeLoss(SpeakerLoss):
    """Base of the losses on episodes: batches of as many utterances, two or more, from each of two or more speakers."""

    def compute(self, embeddings: Tensor, labels: Tensor) -> SpeakerLossOutput:
        """As `SpeakerLoss.compute`, of a batch in any order.

        Raises:
            InputError: the speakers have different numbers of utterances, or one only, or there is one speaker.
        """
        return SpeakerLossOutput(self.episode_loss(episodes(embeddings, labels)))

    @abstractmethod
    def episode_loss(self, embeddings: Tensor) -> Tensor:
        """The loss of `[speakers, utterances, embedding_dim]`, a scalar."""


def episodes(embeddings: Tensor, labels: Tensor) -> Tensor:
    """`[batch, embedding_dim]` and labels → `[speakers, utterances, embedding_dim]`, speakers by rising label.

    A speaker's utterances keep their order.

    Raises:
        InputError: as `EpisodeLoss.compute`.

    >>> episodes(torch.arange(4.0)[:, None], torch.tensor([7, 3, 7, 3]))[..., 0].tolist()
    [[1.0, 3.0], [0.0, 2.0]]
    """
    speakers, counts = labels.unique(return_counts=True)
    lowest, highest = int(counts.min()), int(counts.max())
    if len(speakers) < 2 or lowest < 2 or lowest != highest:
        raise InputError(
            f"the batch has {len(speakers)} speakers with {lowest} to {highest} utterances; this loss needs batches "
            "of two or more speakers with the same number of utterances, two or more"
        )
    order = labels.argsort(stable=True)
    return embeddings[order].reshape(len(speakers), lowest, embeddings.shape[1])


def numbered(count: int, like: Tensor) -> Tensor:
    """0 … count − 1 on the device of `like`."""
    return torch.arange(count, device=like.device)
