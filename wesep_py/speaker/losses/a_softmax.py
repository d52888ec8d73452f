"""A-softmax: the own speaker's angle times a whole number."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wesep_py.speaker.losses.base import speaker_losses
from wesep_py.speaker.losses.classification import ClassificationLoss, is_own


@speaker_losses.register("a_softmax")
class ASoftmax(ClassificationLoss):
    """A-softmax ("SphereFace"): the own speaker's logit is `|e| (ψ(θ) + λ cos θ) / (1 + λ)`, the others' `|e| cos θ`.

    `ψ(θ) = (−1)^k cos(m θ) − 2k` for θ from kπ/m to (k+1)π/m. λ is annealed from softmax on towards the margin:
    `λ = max(lambda_min, lambda_base · (1 + gamma · (step + 1))^−power)`.

    Args:
        embedding_dim, num_speakers: as `ClassificationLoss`.
        margin: m, a whole number, 1 or more; 1 is softmax.
        lambda_base, lambda_min: λ before the first step, and its floor; base >= min >= 0.
        gamma, power: how fast λ falls, 0 or more.

    Raises:
        ValueError: an argument out of range.

    Source: Liu et al., "SphereFace: deep hypersphere embedding for face recognition", CVPR 2017, eqs. 6-7; the
    annealing is that of its published training and of WeSpeaker.

    >>> loss = ASoftmax(embedding_dim=4, num_speakers=3)
    >>> round(loss.current_lambda, 1)
    892.9
    >>> loss.update(10_000)
    >>> loss.current_lambda
    5.0
    """

    def __init__(
        self,
        embedding_dim: int,
        num_speakers: int,
        margin: int = 4,
        lambda_base: float = 1000.0,
        lambda_min: float = 5.0,
        gamma: float = 0.12,
        power: float = 1.0,
    ) -> None:
        super().__init__(embedding_dim, num_speakers)
        if margin < 1:
            raise ValueError(f"margin: is {margin}; a whole number of 1 or more is allowed")
        if not lambda_base >= lambda_min >= 0:
            raise ValueError(
                f"lambda_base and lambda_min: are {lambda_base} and {lambda_min}; lambda_base >= lambda_min >= 0 is "
                "allowed"
            )
        if gamma < 0 or power < 0:
            raise ValueError(f"gamma and power: are {gamma} and {power}; 0 or more is allowed")
        self.margin, self.lambda_base, self.lambda_min = margin, lambda_base, lambda_min
        self.gamma, self.power = gamma, power
        self.update(0)

    def update(self, step: int) -> None:
        """Set λ to that of a step."""
        self.current_lambda = max(self.lambda_min, self.lambda_base * (1.0 + self.gamma * (step + 1)) ** -self.power)

    def logits(self, embeddings: Tensor, labels: Tensor, cosines: Tensor) -> Tensor:
        """As `ClassificationLoss.logits`."""
        own = is_own(labels, self.num_speakers)
        pulled = cosines + (multiplied_angle(cosines, self.margin) - cosines) / (1.0 + self.current_lambda)
        return torch.where(own, pulled, cosines) * embeddings.norm(dim=1, keepdim=True)


def multiplied_angle(cosines: Tensor, margin: int) -> Tensor:
    """ψ(θ) of cos θ: `(−1)^k cos(m θ) − 2k`, falling from 1 at θ = 0 to 1 − 2m at θ = π.

    cos(m θ) is the Chebyshev polynomial T_m of cos θ, so no arccos is taken and every slope is finite.

    >>> multiplied_angle(torch.tensor([1.0, 0.0, -1.0]), 2).tolist()
    [1.0, -1.0, -3.0]
    """
    cosines = cosines.clamp(-1.0, 1.0)
    before, multiple = torch.ones_like(cosines), cosines
    for _ in range(margin - 1):
        before, multiple = multiple, 2.0 * cosines * multiple - before
    passed = sum(((cosines.detach() < math.cos(j * math.pi / margin)).int() for j in range(1, margin)), start=0)
    return (1 - 2 * (passed % 2)) * multiple - 2 * passed
