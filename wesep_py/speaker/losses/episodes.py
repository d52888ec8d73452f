"""Losses that compare a speaker's utterances with one another within the batch."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from wesep_py.errors import InputError
from wesep_py.speaker.losses.base import SpeakerLoss, SpeakerLossOutput

PATIENCE = 20
"""So many batches in a row without an episode end a training: it does not learn, and chance is not why."""


class EpisodeLoss(SpeakerLoss):
    """Base of the losses on episodes: as many utterances, two or more, from each of two or more speakers.

    The episode of a batch is what `episodes` finds in it. A batch without one, which chance may draw, has a loss of 0
    with zero gradients, as triplets have where there are none; a training that meets `PATIENCE` of them in a row ends.
    """

    def __init__(self) -> None:
        super().__init__()
        self._in_vain = 0

    def compute(self, embeddings: Tensor, labels: Tensor) -> SpeakerLossOutput:
        """As `SpeakerLoss.compute`, of a batch in any order.

        Raises:
            InputError: while training, the last of `PATIENCE` batches in a row that hold no episode.
        """
        episode = episodes(embeddings, labels)
        if len(episode) >= 2:
            self._in_vain = 0
            return SpeakerLossOutput(self.episode_loss(episode))
        self._in_vain += self.training
        if self._in_vain >= PATIENCE:
            raise InputError(
                f"in {PATIENCE} batches in a row fewer than two speakers had two utterances (in the last, "
                f"{len(episode)} of {len(labels.unique())}), which this loss compares; set "
                "simulation.enrollment.count: 1, which gives a second utterance of each speaker, or a larger "
                "train.batch_size"
            )
        return SpeakerLossOutput(0.0 * sum((part.sum() for part in self.parameters()), start=embeddings.sum()))

    @abstractmethod
    def episode_loss(self, embeddings: Tensor) -> Tensor:
        """The loss of `[speakers, utterances, embedding_dim]`, a scalar."""


def episodes(embeddings: Tensor, labels: Tensor) -> Tensor:
    """`[batch, embedding_dim]` and labels → `[speakers, utterances, embedding_dim]`, speakers by rising label.

    The speakers are those with two utterances or more; of each the first ones, as many as the one of them with fewest
    has. A speaker's utterances keep their order.

    >>> episodes(torch.arange(6.0)[:, None], torch.tensor([7, 3, 7, 3, 5, 7]))[..., 0].tolist()
    [[1.0, 3.0], [0.0, 2.0]]
    """
    _, counts = labels.unique(return_counts=True)
    several = counts >= 2
    if not several.any():
        return embeddings.new_zeros(0, 2, embeddings.shape[1])
    starts = (counts.cumsum(0) - counts)[several]
    chosen = starts[:, None] + numbered(int(counts[several].min()), starts)
    return embeddings[labels.argsort(stable=True)[chosen]]


def numbered(count: int, like: Tensor) -> Tensor:
    """0 … count − 1 on the device of `like`."""
    return torch.arange(count, device=like.device)
