"""Losses beside a classification loss: two on its speaker basis, and the centre loss.

The speaker basis are the rows of a classifier, so that all training speakers take part in each step, whatever the
batch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wesep_py.common.errors import InputError
from wesep_py.network.speaker.speaker_losses.speaker_loss import (
    SpeakerLoss,
    SpeakerLossOutput,
    is_own_speaker,
    speaker_losses,
)


class BasisLoss(nn.Module, ABC):
    """Base of the losses that take the speaker basis of a classification loss beside them."""

    @abstractmethod
    def forward(self, basis: Tensor, cosines: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a batch, a scalar.

        Args:
            basis: `[num_speakers, embedding_dim]`, vectors of length one (`ClassificationLoss.basis`).
            cosines: `[batch, num_speakers]`, of each embedding to each speaker.
            labels: `[batch]`, indices of the speakers.
        """


@speaker_losses.register("between_speaker")
class BetweenSpeakerLoss(BasisLoss):
    """`L_BC = Σ_i Σ_{j≠i} cos(W_i, W_j)`, which separates the basis vectors of the speakers.

    Computed as `|Σ_i W_i|² − N` with W of length one, without the N² pairs. Its smallest value is −N.

    Source: Heo et al., "End-to-end losses based on speaker basis vectors and all-speaker hard negative mining for
    speaker verification", Interspeech 2019.

    >>> BetweenSpeakerLoss()(torch.eye(3), torch.zeros(1, 3), torch.tensor([0])).item()
    0.0
    """

    def forward(self, basis: Tensor, cosines: Tensor, labels: Tensor) -> Tensor:
        """Return the loss; see `BasisLoss.forward`."""
        return basis.sum(0).square().sum() - len(basis)


@speaker_losses.register("hard_negative")
class HardNegativeLoss(BasisLoss):
    """`L_H = mean_i Σ_{h∈H_i} log(1 + exp(cos(W_h, e_i) − cos(W_{y_i}, e_i)))`, with H_i the speakers nearest to e_i.

    The target speaker is not in H_i. The paper's sum over the batch is a mean here, as in the cross-entropy beside it.

    Args:
        num_hard: size of H_i, 1 or more; at most all other speakers are used. Published: 100 of 1,211 speakers, 50
            of 6,112.

    Raises:
        ValueError: `num_hard` is out of range.

    Source: Heo et al., "End-to-end losses based on speaker basis vectors and all-speaker hard negative mining for
    speaker verification", Interspeech 2019.

    >>> cosines = torch.tensor([[0.5, 0.5, -1.0]])
    >>> round(HardNegativeLoss(num_hard=1)(torch.eye(3), cosines, torch.tensor([0])).item(), 4)  # log 2
    0.6931
    """

    def __init__(self, num_hard: int = 100) -> None:
        super().__init__()
        if num_hard < 1:
            raise ValueError(f"num_hard: is {num_hard}; 1 or more is allowed")
        self.num_hard = num_hard

    def forward(self, basis: Tensor, cosines: Tensor, labels: Tensor) -> Tensor:
        """Return the loss; see `BasisLoss.forward`."""
        others = cosines.masked_fill(is_own_speaker(labels, cosines.shape[1]), -math.inf)
        nearest = others.topk(min(self.num_hard, cosines.shape[1] - 1)).values
        target = torch.gather(cosines, 1, labels[:, None])
        return F.softplus(nearest - target).sum(1).mean()


@speaker_losses.register("centre")
class CentreLoss(SpeakerLoss):
    """`λ/2 · mean_i |e_i − c_{y_i}|²`; in training, centres then move towards their speaker's embeddings.

    `c_j ← c_j − α Σ_{i: y_i = j} (c_j − e_i) / (1 + n_j)`, with n_j items of speaker j in the batch. It needs a
    classification loss beside it, which separates the speakers; alone, all embeddings become one point. The paper's sum
    over the batch is a mean here, as in the cross-entropy beside it.

    Args:
        embedding_dim: size of the embeddings.
        num_speakers: 1 or more.
        strength: λ, 0 or more.
        rate: α, 0 to 1.

    Attributes:
        centres: a buffer, `[num_speakers, embedding_dim]`, starting at zero; it is part of the state dict.

    Raises:
        ValueError: an argument out of range.

    Source: Wen et al., "A discriminative feature learning approach for deep face recognition", ECCV 2016, eqs. 2-4.

    >>> loss = CentreLoss(embedding_dim=2, num_speakers=2, strength=1.0)
    >>> loss(torch.tensor([[3.0, 4.0]]), torch.tensor([0])).loss.item()
    12.5
    >>> loss.centres[0].tolist()
    [0.75, 1.0]
    """

    centres: Tensor

    def __init__(self, embedding_dim: int, num_speakers: int, strength: float = 0.001, rate: float = 0.5) -> None:
        super().__init__()
        if embedding_dim < 1 or num_speakers < 1:
            raise ValueError(
                f"embedding_dim and num_speakers: are {embedding_dim} and {num_speakers}; 1 or more is allowed"
            )
        if strength < 0:
            raise ValueError(f"strength: is {strength}; 0 or more is allowed")
        if not 0 <= rate <= 1:
            raise ValueError(f"rate: is {rate}; 0 to 1 is allowed")
        self.strength, self.rate = strength, rate
        self.register_buffer("centres", torch.zeros(num_speakers, embedding_dim))

    def compute(self, embeddings: Tensor, labels: Tensor) -> SpeakerLossOutput:
        """Return the loss, and in training move the centres; see `SpeakerLoss.compute`."""
        if labels.min() < 0 or labels.max() >= len(self.centres):
            raise InputError(
                f"labels: some are not from 0 to {len(self.centres) - 1}; the loss is for {len(self.centres)} speakers"
            )
        labels = labels.long()
        offsets = embeddings - self.centres[labels].to(embeddings.dtype)
        if self.training:
            self._move(offsets.detach(), labels)
        return SpeakerLossOutput(self.strength / 2 * offsets.square().sum(1).mean())

    @torch.no_grad()
    def _move(self, offsets: Tensor, labels: Tensor) -> None:
        offsets = offsets.to(self.centres.dtype)
        total = torch.zeros_like(self.centres).index_add_(0, labels, offsets)
        counts = offsets.new_zeros(len(self.centres)).index_add_(0, labels, torch.ones_like(offsets[:, 0]))
        self.centres += self.rate * total / (1.0 + counts)[:, None]
