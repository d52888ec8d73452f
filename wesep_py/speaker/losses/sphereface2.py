"""SphereFace2: one yes-or-no question for each training speaker, instead of one choice among all."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wesep_py.speaker.losses.angles import add_angle, subtract_angle
from wesep_py.speaker.losses.base import at_least_float32, speaker_losses
from wesep_py.speaker.losses.classification import ClassificationLoss, is_own
from wesep_py.speaker.losses.schedule import MarginSchedule


@speaker_losses.register("sphereface2")
class SphereFace2(ClassificationLoss):
    """Binary classification of every speaker: `λ log(1 + e^−p) + (1 − λ) Σ_{j≠y} log(1 + e^{n_j})`.

    Cosine margin: `p = s (g(cos θ_y) − m) + b`, `n_j = s (g(cos θ_j) + m) + b`; angular margin: `p = s g(cos(θ_y +
    m)) + b`, `n_j = s g(cos(θ_j − m)) + b`; with `g(z) = 2 ((z + 1) / 2)^t − 1` and a learned b. As in WeSpeaker, and
    unlike the paper, the two terms are not divided by s.

    Args:
        embedding_dim, num_speakers: as `ClassificationLoss`.
        scale: s, > 0.
        margin: m, 0 to 1 for cosines, 0 to π/2 (radians) for angles. WeSpeaker takes 0.2 and 0.15.
        positive_weight: λ, between 0 and 1: the own speaker's share.
        power: t, 1 or more: how strongly high cosines are spread.
        margin_type: `cosine` (the paper's SphereFace2-C) or `angular` (-A).
        schedule: how the margin grows; `None`: it is there from the start.

    Raises:
        ValueError: an argument out of range.

    Source: Wen et al., "SphereFace2: binary classification is all you need for deep face recognition", ICLR 2022;
    Han et al., "Exploring binary classification loss for speaker verification", ICASSP 2023.

    >>> loss = SphereFace2(embedding_dim=4, num_speakers=3)
    >>> loss(torch.randn(2, 4), torch.tensor([0, 2])).loss.shape
    torch.Size([])
    """

    def __init__(
        self,
        embedding_dim: int,
        num_speakers: int,
        scale: float = 32.0,
        margin: float = 0.2,
        positive_weight: float = 0.7,
        power: float = 3.0,
        margin_type: Literal["cosine", "angular"] = "cosine",
        schedule: MarginSchedule | None = None,
    ) -> None:
        super().__init__(embedding_dim, num_speakers)
        if not scale > 0:
            raise ValueError(f"scale: is {scale}; a number > 0 is allowed")
        largest = 1.0 if margin_type == "cosine" else math.pi / 2
        for name, value in (("margin", margin), ("schedule.initial", schedule.initial if schedule else 0.0)):
            if not 0 <= value <= largest:
                raise ValueError(f"{name}: is {value}; 0 to {largest:.4g} is allowed")
        if not 0 < positive_weight < 1:
            raise ValueError(f"positive_weight: is {positive_weight}; between 0 and 1 is allowed")
        if power < 1:
            raise ValueError(f"power: is {power}; 1 or more is allowed")
        self.scale, self.margin, self.schedule = scale, margin, schedule
        self.positive_weight, self.power, self.margin_type = positive_weight, power, margin_type
        self.bias = nn.Parameter(torch.zeros(()))
        self.update(0)

    def update(self, step: int) -> None:
        """Set the margin to that of a step."""
        self.current_margin = self.margin if self.schedule is None else self.schedule.margin_at(step, self.margin)

    def logits(self, embeddings: Tensor, labels: Tensor, cosines: Tensor) -> Tensor:
        """p at the own speaker, n elsewhere, `[batch, num_speakers]`: logits of so many yes-or-no questions."""
        own, margin = is_own(labels, self.num_speakers), self.current_margin
        if self.margin_type == "angular":
            spread = self._spread(torch.where(own, add_angle(cosines, margin), subtract_angle(cosines, margin)))
        else:
            spread = self._spread(cosines)
            spread = torch.where(own, spread - margin, spread + margin)
        return self.scale * spread + at_least_float32(self.bias).to(cosines.dtype)

    def item_losses(self, embeddings: Tensor, labels: Tensor, cosines: Tensor) -> Tensor:
        """As `ClassificationLoss.item_losses`."""
        logits = self.logits(embeddings, labels, cosines)
        own = is_own(labels, self.num_speakers)
        weighted = torch.where(
            own, self.positive_weight * F.softplus(-logits), (1 - self.positive_weight) * F.softplus(logits)
        )
        return weighted.sum(1)

    def _spread(self, cosines: Tensor) -> Tensor:
        half = (cosines + 1.0) / 2.0
        # Beyond −1, which a monotone margin can reach, the power goes on with the sign of its base.
        return 2.0 * half.sign() * half.abs().pow(self.power) - 1.0
