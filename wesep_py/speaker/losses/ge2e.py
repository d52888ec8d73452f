"""GE2E: every utterance against the centroid of every speaker in the batch."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wesep_py.speaker.losses.base import speaker_losses
from wesep_py.speaker.losses.episodes import EpisodeLoss, numbered
from wesep_py.speaker.losses.prototypical import LEAST_SCALE


@speaker_losses.register("ge2e")
class GE2ELoss(EpisodeLoss):
    """Generalised end-to-end loss on `S = w cos(e, c_k) + b`; for its own speaker, c is taken without the utterance.

    Args:
        kind: `softmax`: cross-entropy of S over the speakers; `contrast`: `1 − σ(S_own) + max_{k≠own} σ(S_k)`.
        initial_scale, initial_bias: w, > 0, and b at the start; both are learned.

    The paper's sum over the batch is a mean here.

    Raises:
        ValueError: the scale is not positive.

    Source: Wan et al., "Generalized end-to-end loss for speaker verification", ICASSP 2018, eqs. 5-9.

    >>> loss = GE2ELoss()
    >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
    >>> loss(embeddings, torch.tensor([0, 0, 1, 1])).loss.item() < 1e-6
    True
    """

    def __init__(
        self,
        kind: Literal["softmax", "contrast"] = "softmax",
        initial_scale: float = 10.0,
        initial_bias: float = -5.0,
    ) -> None:
        super().__init__()
        if not initial_scale > 0:
            raise ValueError(f"initial_scale: is {initial_scale}; a number > 0 is allowed")
        self.kind = kind
        self.scale = nn.Parameter(torch.tensor(float(initial_scale)))
        self.bias = nn.Parameter(torch.tensor(float(initial_bias)))

    def episode_loss(self, embeddings: Tensor) -> Tensor:
        """As `EpisodeLoss.episode_loss`."""
        unit = F.normalize(embeddings, dim=2)
        num_speakers, num_utterances, _ = unit.shape
        total = unit.sum(1)
        to_all = torch.einsum("sud,kd->suk", unit, F.normalize(total))
        to_own = (unit * F.normalize(total[:, None] - unit, dim=2)).sum(2)
        own = torch.eye(num_speakers, dtype=torch.bool, device=unit.device)[:, None]
        cosines = torch.where(own, to_own[:, :, None], to_all)
        similarity = self.scale.clamp(min=LEAST_SCALE) * cosines + self.bias
        if self.kind == "softmax":
            labels = numbered(num_speakers, unit).repeat_interleave(num_utterances)
            return F.cross_entropy(similarity.flatten(0, 1), labels)
        probability = torch.sigmoid(similarity)
        nearest_other = probability.masked_fill(own, 0.0).amax(2)
        return (1.0 - probability.diagonal(dim1=0, dim2=2).mT + nearest_other).mean()
