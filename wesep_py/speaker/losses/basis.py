"""Losses on the speaker basis, the rows of a classifier: all training speakers at every step, whatever the batch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wesep_py.speaker.losses.base import speaker_losses
from wesep_py.speaker.losses.classification import is_own


class BasisLoss(nn.Module, ABC):
    """Base of the losses that have no speakers of their own: they join a classification loss and look at its basis."""

    @abstractmethod
    def forward(self, basis: Tensor, cosines: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch, a scalar.

        Args:
            basis: `[num_speakers, embedding_dim]`, of length one (`ClassificationLoss.basis`).
            cosines: `[batch, num_speakers]`, of each embedding to each speaker.
            labels: `[batch]`, the speakers' indices.
        """


@speaker_losses.register("between_speaker")
class BetweenSpeakerLoss(BasisLoss):
    """`L_BC = Σ_i Σ_{j≠i} cos(W_i, W_j)`: the speakers' basis vectors away from each other.

    Computed as `|Σ_i W_i|² − N` with W of length one, without the N² pairs. Its least value is −N.

    Source: Heo et al., "End-to-end losses based on speaker basis vectors and all-speaker hard negative mining for
    speaker verification", Interspeech 2019.

    >>> BetweenSpeakerLoss()(torch.eye(3), torch.zeros(1, 3), torch.tensor([0])).item()
    0.0
    """

    def forward(self, basis: Tensor, cosines: Tensor, labels: Tensor) -> Tensor:
        """As `BasisLoss.forward`."""
        return basis.sum(0).square().sum() - len(basis)


@speaker_losses.register("hard_negative")
class HardNegativeLoss(BasisLoss):
    """`L_H = mean_i Σ_{h∈H_i} log(1 + exp(cos(W_h, e_i) − cos(W_{y_i}, e_i)))`, H_i: the speakers nearest to e_i.

    The own speaker is not among them. The paper's sum over the batch is a mean here, as that of the cross-entropy
    beside it.

    Args:
        num_hard: how many speakers H_i has, 1 or more; at most all others count. Published: 100 of 1,211 speakers, 50
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
        """As `BasisLoss.forward`."""
        others = cosines.masked_fill(is_own(labels, cosines.shape[1]), -math.inf)
        nearest = others.topk(min(self.num_hard, cosines.shape[1] - 1)).values
        own = torch.gather(cosines, 1, labels[:, None])
        return F.softplus(nearest - own).sum(1).mean()
