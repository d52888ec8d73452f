"""Losses that classify the training speakers: one basis vector a speaker, or several."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wesep_py.errors import InputError
from wesep_py.speaker.losses.base import SpeakerLoss, SpeakerLossOutput, at_least_float32


class ClassificationLoss(SpeakerLoss):
    """Base of the classification losses: cosines to every training speaker, logits, cross-entropy.

    Args:
        embedding_dim: size of the embeddings.
        num_speakers: how many speakers are told apart, 2 or more. Speed perturbation that makes new speakers of
            the old ones multiplies it.
        num_subcentres: basis vectors a speaker, 1 or more; the nearest one counts, so that mislabelled or odd
            recordings gather at one of their own (Deng et al., "Sub-center ArcFace", ECCV 2020).

    Attributes:
        weight: `[num_speakers * num_subcentres, embedding_dim]`, a speaker's sub-centres in consecutive rows.
    """

    def __init__(self, embedding_dim: int, num_speakers: int, num_subcentres: int = 1) -> None:
        super().__init__()
        if embedding_dim < 1:
            raise ValueError(f"embedding_dim: is {embedding_dim}; 1 or more is allowed")
        if num_speakers < 2:
            raise ValueError(f"num_speakers: is {num_speakers}; 2 or more are needed to tell speakers apart")
        if num_subcentres < 1:
            raise ValueError(f"num_subcentres: is {num_subcentres}; 1 or more is allowed")
        self.num_speakers, self.num_subcentres = num_speakers, num_subcentres
        self.weight = nn.Parameter(torch.empty(num_speakers * num_subcentres, embedding_dim))
        nn.init.xavier_uniform_(self.weight)

    def basis(self) -> Tensor:
        """One vector of length one for each speaker, `[num_speakers, embedding_dim]`: of several, their mean."""
        unit = F.normalize(at_least_float32(self.weight))
        if self.num_subcentres == 1:
            return unit
        return F.normalize(unit.unflatten(0, (self.num_speakers, self.num_subcentres)).mean(1))

    def cosines(self, embeddings: Tensor) -> Tensor:
        """Cosine of each embedding to each speaker's nearest sub-centre, `[batch, num_speakers]`."""
        unit = F.normalize(at_least_float32(self.weight))
        cosines = F.linear(F.normalize(embeddings), unit.to(embeddings.dtype))
        if self.num_subcentres > 1:
            cosines = cosines.unflatten(1, (self.num_speakers, self.num_subcentres)).amax(2)
        return cosines

    @abstractmethod
    def logits(self, embeddings: Tensor, labels: Tensor, cosines: Tensor) -> Tensor:
        """What the softmax is taken of, `[batch, num_speakers]`, from `cosines(embeddings)`."""

    def item_losses(self, embeddings: Tensor, labels: Tensor, cosines: Tensor) -> Tensor:
        """The loss of each embedding, `[batch]`."""
        return F.cross_entropy(self.logits(embeddings, labels, cosines), labels, reduction="none")

    def compute(self, embeddings: Tensor, labels: Tensor) -> SpeakerLossOutput:
        """As `SpeakerLoss.compute`: the mean of `item_losses`."""
        labels = self.check_labels(labels)
        cosines = self.cosines(embeddings)
        return SpeakerLossOutput(self.item_losses(embeddings, labels, cosines).mean(), cosines.detach())

    def check_labels(self, labels: Tensor) -> Tensor:
        """The labels as int64.

        Raises:
            InputError: one is not from 0 to `num_speakers - 1`; on a GPU it is the kernels' own error, as to look at
                them here would make every step wait.
        """
        if labels.is_cuda:
            return labels.long()
        lowest, highest = labels.aminmax()
        if lowest < 0 or highest >= self.num_speakers:
            wrong = int(lowest) if lowest < 0 else int(highest)
            raise InputError(f"labels: has {wrong}; the loss was made for speakers 0 to {self.num_speakers - 1}")
        return labels.long()


def is_own(labels: Tensor, num_speakers: int) -> Tensor:
    """`[batch, num_speakers]`, true at each item's own speaker.

    >>> is_own(torch.tensor([1]), 3).tolist()
    [[False, True, False]]
    """
    return labels[:, None] == torch.arange(num_speakers, device=labels.device)
