"""Triplet loss: an anchor nearer to its own speaker than to another, by a margin, for the telling triplets."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from wesep_py.speaker.losses.base import SpeakerLoss, SpeakerLossOutput, speaker_losses

OUT_OF_REACH = 5.0
"""More than any squared distance of two vectors of length one, which is at most 4."""


@speaker_losses.register("triplet")
class TripletLoss(SpeakerLoss):
    """`max(0, d(anchor, positive) − d(anchor, negative) + margin)`, d: squared distance of length-one vectors.

    Args:
        margin: 0 to 4.
        mining: `hard`: each anchor with its furthest positive and its nearest negative in the batch; `semi_hard`: each
            pair of anchor and positive with the nearest negative that is further than the positive, or, where there
            is none, with the furthest negative.

    The mean is over the anchors (`hard`) or the pairs (`semi_hard`) that have a positive and a negative in the batch;
    without any the loss is 0, with zero gradients.

    Raises:
        ValueError: the margin is out of range.

    Source: Schroff et al., "FaceNet: a unified embedding for face recognition and clustering", CVPR 2015, eq. 3 and
    section 3.2 (semi-hard); Hermans et al., "In defense of the triplet loss for person re-identification", 2017, eq. 5
    (hard).

    >>> loss = TripletLoss(margin=0.5)
    >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> loss(embeddings, torch.tensor([0, 0, 1])).loss.item()
    0.0
    """

    def __init__(self, margin: float = 0.2, mining: Literal["hard", "semi_hard"] = "semi_hard") -> None:
        super().__init__()
        if not 0 <= margin <= 4:
            raise ValueError(f"margin: is {margin}; 0 to 4 is allowed (a squared distance)")
        self.margin, self.mining = margin, mining

    def compute(self, embeddings: Tensor, labels: Tensor) -> SpeakerLossOutput:
        """As `SpeakerLoss.compute`."""
        unit = F.normalize(embeddings)
        distances = 2.0 - 2.0 * unit @ unit.mT
        same = labels[:, None] == labels
        positive = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        pick = self._hard if self.mining == "hard" else self._semi_hard
        to_positive, to_negative, counts = pick(distances, positive, ~same)
        losses = F.relu(to_positive - to_negative + self.margin) * counts
        return SpeakerLossOutput(losses.sum() / counts.sum().clamp(min=1))

    @staticmethod
    def _hard(distances: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        furthest = distances.masked_fill(~positive, -OUT_OF_REACH).amax(1)
        nearest = distances.masked_fill(~negative, OUT_OF_REACH).amin(1)
        return furthest, nearest, positive.any(1) & negative.any(1)

    @staticmethod
    def _semi_hard(distances: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # [anchor, positive, negative]
        further = negative[:, None] & (distances[:, None] > distances[:, :, None])
        nearest_further = distances[:, None].masked_fill(~further, OUT_OF_REACH).amin(2)
        furthest = distances.masked_fill(~negative, -OUT_OF_REACH).amax(1, keepdim=True)
        chosen = torch.where(further.any(2), nearest_further, furthest)
        return distances, chosen, positive & negative.any(1, keepdim=True)
