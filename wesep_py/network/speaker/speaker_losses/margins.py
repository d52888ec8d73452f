"""Losses that classify the training speakers, most of them with a margin.

| name | loss |
| --- | --- |
| `softmax` | softmax of a linear layer, or of scaled cosines |
| `am`, `aam` | additive margin, additive angular margin; sub-centres, inter-top-k penalty |
| `a_softmax` | A-softmax (SphereFace): the angle times a whole number |
| `adaptive_margin` | AM softmax with a learned margin per speaker |
| `sphereface2` | a binary classification per speaker |

θ is the angle between an embedding and a basis vector; the target speaker of an item is the one it was spoken by.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wesep_py.network.speaker.speaker_losses.speaker_loss import (
    ClassificationLoss,
    MarginSchedule,
    SpeakerLossOutput,
    add_angle,
    at_least_float32,
    is_own_speaker,
    speaker_losses,
    subtract_angle,
)


@speaker_losses.register("softmax")
class Softmax(ClassificationLoss):
    """Cross-entropy of a linear layer's outputs; with a scale, of scaled cosines.

    Args:
        embedding_dim, num_speakers: as for `ClassificationLoss`.
        scale: above 0; the logits are `scale · cos θ`, without bias. `None`: they are `W e + b`.

    Raises:
        ValueError: a size or the scale is out of range.

    Source: for scaled cosines ("NormFace") Wang et al., "NormFace: L2 hypersphere embedding for face verification",
    ACM Multimedia 2017.

    >>> loss = Softmax(embedding_dim=4, num_speakers=3)
    >>> loss(torch.randn(2, 4), torch.tensor([0, 2])).cosines.shape
    torch.Size([2, 3])
    """

    def __init__(self, embedding_dim: int, num_speakers: int, scale: float | None = None) -> None:
        super().__init__(embedding_dim, num_speakers)
        if scale is not None and not scale > 0:
            raise ValueError(f"scale: is {scale}; a number > 0 is allowed, or null")
        self.scale = scale
        self.bias = nn.Parameter(torch.zeros(num_speakers)) if scale is None else None

    def logits(self, embeddings: Tensor, labels: Tensor, cosines: Tensor) -> Tensor:
        """Return the logits; see `ClassificationLoss.logits`."""
        if self.bias is None:
            return self.scale * cosines
        weight, bias = (at_least_float32(p).to(embeddings.dtype) for p in (self.weight, self.bias))
        return F.linear(embeddings, weight, bias)


class MarginSoftmax(ClassificationLoss):
    """Base of AM and AAM: softmax of scaled cosines with a margin at the target speaker.

    Args:
        embedding_dim, num_speakers, num_subcentres: as for `ClassificationLoss`.
        scale: factor of the cosines, above 0.
        margin: of the target speaker; 0: softmax of scaled cosines.
        num_hard: inter-top-k penalty: number of nearest other speakers whose cosines are raised, 0 to
            `num_speakers - 1` (Zhao et al., "Multi-query multi-head attention pooling and inter-topk penalty for
            speaker verification", ICASSP 2022).
        hard_penalty: the penalty, 0 or more, in the margin's unit. While the margin grows, it grows in proportion.
        schedule: how the margin grows; `None`: it is constant.

    Attributes:
        current_margin, current_penalty: those of the last `update`.

    Raises:
        ValueError: an argument is out of range.
    """

    largest_margin: float = 1.0

    def __init__(
        self,
        embedding_dim: int,
        num_speakers: int,
        scale: float = 32.0,
        margin: float = 0.2,
        num_subcentres: int = 1,
        num_hard: int = 0,
        hard_penalty: float = 0.06,
        schedule: MarginSchedule | None = None,
    ) -> None:
        super().__init__(embedding_dim, num_speakers, num_subcentres)
        if not scale > 0:
            raise ValueError(f"scale: is {scale}; a number > 0 is allowed")
        for name, value in (("margin", margin), ("hard_penalty", hard_penalty)):
            if not 0 <= value <= self.largest_margin:
                raise ValueError(f"{name}: is {value}; 0 to {self.largest_margin:.4g} is allowed")
        if schedule is not None and schedule.initial > self.largest_margin:
            raise ValueError(f"schedule.initial: is {schedule.initial}; 0 to {self.largest_margin:.4g} is allowed")
        if not 0 <= num_hard < num_speakers:
            raise ValueError(f"num_hard: is {num_hard}; 0 to {num_speakers - 1} other speakers are allowed")
        self.scale, self.margin, self.schedule = scale, margin, schedule
        self.num_hard, self.hard_penalty = num_hard, hard_penalty
        self.update(0)

    def update(self, step: int) -> None:
        """Set margin and penalty to those of a step; see `SpeakerLoss.update`."""
        self.current_margin = self.margin if self.schedule is None else self.schedule.margin_at(step, self.margin)
        share = self.current_margin / self.margin if self.margin else 1.0
        self.current_penalty = self.hard_penalty * share

    def logits(self, embeddings: Tensor, labels: Tensor, cosines: Tensor) -> Tensor:
        """Return the logits; see `ClassificationLoss.logits`."""
        is_target = is_own_speaker(labels, self.num_speakers)
        others = cosines
        if self.num_hard:
            nearest = cosines.detach().masked_fill(is_target, -math.inf).topk(self.num_hard).indices
            hard = torch.zeros_like(is_target).scatter(1, nearest, True)
            others = torch.where(hard, self.nearer(cosines, self.current_penalty), cosines)
        return self.scale * torch.where(is_target, self.further(cosines, self.current_margin), others)

    @abstractmethod
    def further(self, cosines: Tensor, margin: float) -> Tensor:
        """Return the cosines lowered by the margin."""

    @abstractmethod
    def nearer(self, cosines: Tensor, penalty: float) -> Tensor:
        """Return the cosines raised by the penalty."""


@speaker_losses.register("am")
class AMSoftmax(MarginSoftmax):
    """Additive margin softmax: `cos θ − m` at the target speaker.

    Arguments and errors are those of `MarginSoftmax`; the margin is 0 to 1.

    Source: Wang et al., "Additive margin softmax for face verification", IEEE SPL 25(7), 2018; Wang et al.,
    "CosFace: large margin cosine loss for deep face recognition", CVPR 2018, eq. 4.

    >>> loss = AMSoftmax(embedding_dim=4, num_speakers=3, margin=0.3)
    >>> loss.further(torch.tensor(0.5), 0.3).item()
    0.19999998807907104
    """

    def further(self, cosines: Tensor, margin: float) -> Tensor:
        """Return `cos θ − m`."""
        return cosines - margin

    def nearer(self, cosines: Tensor, penalty: float) -> Tensor:
        """Return `cos θ + m'`."""
        return cosines + penalty


@speaker_losses.register("aam")
class AAMSoftmax(MarginSoftmax):
    """Additive angular margin softmax: `cos(θ + m)` at the target speaker.

    Args:
        easy_margin: no margin if the target speaker is further than a right angle.

    The other arguments and the errors are those of `MarginSoftmax`; the margin is in radians, 0 to π/2.

    Source: Deng et al., "ArcFace: additive angular margin loss for deep face recognition", CVPR 2019, eq. 3.

    >>> loss = AAMSoftmax(embedding_dim=4, num_speakers=3)
    >>> loss.further(torch.tensor(1.0), 0.2).item() < math.cos(0.199)
    True
    """

    largest_margin = math.pi / 2

    def __init__(
        self,
        embedding_dim: int,
        num_speakers: int,
        scale: float = 32.0,
        margin: float = 0.2,
        num_subcentres: int = 1,
        num_hard: int = 0,
        hard_penalty: float = 0.06,
        schedule: MarginSchedule | None = None,
        easy_margin: bool = False,
    ) -> None:
        super().__init__(embedding_dim, num_speakers, scale, margin, num_subcentres, num_hard, hard_penalty, schedule)
        self.easy_margin = easy_margin

    def further(self, cosines: Tensor, margin: float) -> Tensor:
        """Return `cos(θ + m)`, made monotone by `add_angle`."""
        turned = add_angle(cosines, margin)
        return torch.where(cosines > 0, turned, cosines) if self.easy_margin else turned

    def nearer(self, cosines: Tensor, penalty: float) -> Tensor:
        """Return `cos(θ − m')`, made monotone by `subtract_angle`."""
        return subtract_angle(cosines, penalty)


@speaker_losses.register("a_softmax")
class ASoftmax(ClassificationLoss):
    """A-softmax (SphereFace): `|e| (ψ(θ) + λ cos θ) / (1 + λ)` at the target speaker, `|e| cos θ` at the others.

    `ψ(θ) = (−1)^k cos(m θ) − 2k` for θ from kπ/m to (k+1)π/m. λ is annealed from softmax towards the margin:
    `λ = max(lambda_min, lambda_base · (1 + gamma · (step + 1))^−power)`.

    Args:
        embedding_dim, num_speakers: as for `ClassificationLoss`.
        margin: m, a whole number, 1 or more; 1 is softmax.
        lambda_base, lambda_min: the first and the smallest λ; base >= min >= 0.
        gamma, power: how fast λ falls, 0 or more.

    Raises:
        ValueError: an argument is out of range.

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
        """Set λ to that of a step; see `SpeakerLoss.update`."""
        self.current_lambda = max(self.lambda_min, self.lambda_base * (1.0 + self.gamma * (step + 1)) ** -self.power)

    def logits(self, embeddings: Tensor, labels: Tensor, cosines: Tensor) -> Tensor:
        """Return the logits; see `ClassificationLoss.logits`."""
        is_target = is_own_speaker(labels, self.num_speakers)
        with_margin = cosines + (multiplied_angle(cosines, self.margin) - cosines) / (1.0 + self.current_lambda)
        return torch.where(is_target, with_margin, cosines) * embeddings.norm(dim=1, keepdim=True)


def multiplied_angle(cosines: Tensor, margin: int) -> Tensor:
    """Return ψ(θ) = `(−1)^k cos(m θ) − 2k` for cos θ; it falls from 1 at θ = 0 to 1 − 2m at θ = π.

    cos(m θ) is the Chebyshev polynomial T_m of cos θ, so that no arccos is needed and all slopes are finite.

    >>> multiplied_angle(torch.tensor([1.0, 0.0, -1.0]), 2).tolist()
    [1.0, -1.0, -3.0]
    """
    cosines = cosines.clamp(-1.0, 1.0)
    # T_{n+1}(x) = 2x T_n(x) − T_{n−1}(x); k is the number of angles jπ/m below θ.
    previous, multiple = torch.ones_like(cosines), cosines
    for _ in range(margin - 1):
        previous, multiple = multiple, 2.0 * cosines * multiple - previous
    k = sum(((cosines.detach() < math.cos(j * math.pi / margin)).int() for j in range(1, margin)), start=0)
    return (1 - 2 * (k % 2)) * multiple - 2 * k


@speaker_losses.register("adaptive_margin")
class AdaptiveMarginSoftmax(ClassificationLoss):
    """AM softmax with a learned margin per speaker: cross-entropy of `s (cos θ_y − m_y)`, minus the mean margin.

    `L = L_AM(m_1 … m_N) − reward · mean(m)`. The cross-entropy pushes a margin down by `s (1 − p_y)` for each item of
    the speaker, and the reward pushes it up. With balanced speakers the two are equal where a speaker's mean `1 − p_y`
    is `reward / s`, so that speakers that are easy to tell apart get larger margins.

    Args:
        embedding_dim, num_speakers: as for `ClassificationLoss`.
        scale: s, above 0.
        initial_margin: of all speakers, above 0, below `max_margin`.
        max_margin: margins stay between 0 and this (they are `max_margin · sigmoid` of a parameter; the paper leaves
            them free), at most 2.
        reward: weight of the mean margin, between 0 and `scale`.

    Attributes:
        margin_logits: `[num_speakers]`, the learned parameter.

    Raises:
        ValueError: an argument is out of range.

    Source: Liu et al., "AdaptiveFace: adaptive margin and sampling for face recognition", CVPR 2019
    ("AdaM-Softmax").

    >>> loss = AdaptiveMarginSoftmax(embedding_dim=4, num_speakers=2, initial_margin=0.2)
    >>> [round(margin, 3) for margin in loss.margins().tolist()]
    [0.2, 0.2]
    """

    def __init__(
        self,
        embedding_dim: int,
        num_speakers: int,
        scale: float = 32.0,
        initial_margin: float = 0.2,
        max_margin: float = 0.5,
        reward: float = 10.0,
    ) -> None:
        super().__init__(embedding_dim, num_speakers)
        if not scale > 0:
            raise ValueError(f"scale: is {scale}; a number > 0 is allowed")
        if not 0 < initial_margin < max_margin <= 2:
            raise ValueError(
                f"initial_margin and max_margin: are {initial_margin} and {max_margin}; "
                "0 < initial_margin < max_margin <= 2 is allowed"
            )
        if not 0 <= reward < scale:
            raise ValueError(
                f"reward: is {reward}; it must be 0 or more and below scale ({scale}), or margins grow without bound"
            )
        self.scale, self.max_margin, self.reward = scale, max_margin, reward
        start = math.log(initial_margin / (max_margin - initial_margin))
        self.margin_logits = nn.Parameter(torch.full((num_speakers,), start))

    def margins(self) -> Tensor:
        """Return the margin of each speaker, `[num_speakers]`."""
        return self.max_margin * torch.sigmoid(at_least_float32(self.margin_logits))

    def logits(self, embeddings: Tensor, labels: Tensor, cosines: Tensor) -> Tensor:
        """Return the logits; see `ClassificationLoss.logits`."""
        margins = self.margins().to(cosines.dtype)
        return self.scale * (cosines - is_own_speaker(labels, self.num_speakers) * margins)

    def compute(self, embeddings: Tensor, labels: Tensor) -> SpeakerLossOutput:
        """Return the cross-entropy minus the reward; see `SpeakerLoss.compute`."""
        output = super().compute(embeddings, labels)
        return output._replace(loss=output.loss - self.reward * self.margins().mean())


@speaker_losses.register("sphereface2")
class SphereFace2(ClassificationLoss):
    """Binary classification for each speaker: `λ log(1 + e^−p) + (1 − λ) Σ_{j≠y} log(1 + e^{n_j})`.

    Cosine margin: `p = s (g(cos θ_y) − m) + b`, `n_j = s (g(cos θ_j) + m) + b`; angular margin: `p = s g(cos(θ_y +
    m)) + b`, `n_j = s g(cos(θ_j − m)) + b`; with `g(z) = 2 ((z + 1) / 2)^t − 1` and a learned b. As in WeSpeaker, and
    unlike the paper, the two terms are not divided by s.

    Args:
        embedding_dim, num_speakers: as for `ClassificationLoss`.
        scale: s, above 0.
        margin: m, 0 to 1 for cosines, 0 to π/2 (radians) for angles. WeSpeaker uses 0.2 and 0.15.
        positive_weight: λ, between 0 and 1: the share of the target speaker.
        power: t, 1 or more: how strongly high cosines are spread.
        margin_type: `cosine` (the paper's SphereFace2-C) or `angular` (-A).
        schedule: how the margin grows; `None`: it is constant.

    Raises:
        ValueError: an argument is out of range.

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
        """Set the margin to that of a step; see `SpeakerLoss.update`."""
        self.current_margin = self.margin if self.schedule is None else self.schedule.margin_at(step, self.margin)

    def logits(self, embeddings: Tensor, labels: Tensor, cosines: Tensor) -> Tensor:
        """Return the logits of the binary classifications, `[batch, num_speakers]`: p at the target speaker, else n."""
        is_target, margin = is_own_speaker(labels, self.num_speakers), self.current_margin
        if self.margin_type == "angular":
            spread = self._spread(torch.where(is_target, add_angle(cosines, margin), subtract_angle(cosines, margin)))
        else:
            spread = self._spread(cosines)
            spread = torch.where(is_target, spread - margin, spread + margin)
        return self.scale * spread + at_least_float32(self.bias).to(cosines.dtype)

    def item_losses(self, embeddings: Tensor, labels: Tensor, cosines: Tensor) -> Tensor:
        """Return the loss of each embedding; see `ClassificationLoss.item_losses`."""
        logits = self.logits(embeddings, labels, cosines)
        is_target = is_own_speaker(labels, self.num_speakers)
        weighted = torch.where(
            is_target, self.positive_weight * F.softplus(-logits), (1 - self.positive_weight) * F.softplus(logits)
        )
        return weighted.sum(1)

    def _spread(self, cosines: Tensor) -> Tensor:
        half = (cosines + 1.0) / 2.0
        # A monotone margin can reach values below −1; there the power keeps the sign of its base.
        return 2.0 * half.sign() * half.abs().pow(self.power) - 1.0
