"""AM and AAM: softmax on scaled cosines with a margin at the own speaker, sub-centres and a penalty on the hardest."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from wesep_py.speaker.losses.angles import add_angle, subtract_angle
from wesep_py.speaker.losses.base import speaker_losses
from wesep_py.speaker.losses.classification import ClassificationLoss, is_own
from wesep_py.speaker.losses.schedule import MarginSchedule


class MarginSoftmax(ClassificationLoss):
    """Base of AM and AAM.

    Args:
        embedding_dim, num_speakers, num_subcentres: as `ClassificationLoss`.
        scale: what the cosines are multiplied by, > 0.
        margin: by how much the own speaker must be nearer; 0: softmax on scaled cosines.
        num_hard: the inter-top-k penalty: so many of the nearest other speakers are brought nearer yet, 0 to
            `num_speakers - 1` (Zhao et al., "Multi-query multi-head attention pooling and inter-topk penalty for
            speaker verification", ICASSP 2022).
        hard_penalty: by how much, 0 or more, in the margin's unit. While the margin grows, it grows in proportion.
        schedule: how the margin grows; `None`: it is there from the start.

    Attributes:
        current_margin, current_penalty: what holds now.

    Raises:
        ValueError: an argument out of range.
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
        """Set margin and penalty to those of a step."""
        self.current_margin = self.margin if self.schedule is None else self.schedule.margin_at(step, self.margin)
        grown = self.current_margin / self.margin if self.margin else 1.0
        self.current_penalty = self.hard_penalty * grown

    def logits(self, embeddings: Tensor, labels: Tensor, cosines: Tensor) -> Tensor:
        """As `ClassificationLoss.logits`."""
        own = is_own(labels, self.num_speakers)
        others = cosines
        if self.num_hard:
            nearest = cosines.detach().masked_fill(own, -math.inf).topk(self.num_hard).indices
            hard = torch.zeros_like(own).scatter(1, nearest, True)
            others = torch.where(hard, self.nearer(cosines, self.current_penalty), cosines)
        return self.scale * torch.where(own, self.further(cosines, self.current_margin), others)

    @abstractmethod
    def further(self, cosines: Tensor, margin: float) -> Tensor:
        """The cosines, lowered by the margin."""

    @abstractmethod
    def nearer(self, cosines: Tensor, penalty: float) -> Tensor:
        """The cosines, raised by the penalty."""


@speaker_losses.register("am")
class AMSoftmax(MarginSoftmax):
    """Additive margin softmax: `cos θ − m` at the own speaker; arguments and errors as `MarginSoftmax`, margin 0 to 1.

    Source: Wang et al., "Additive margin softmax for face verification", IEEE SPL 25(7), 2018; Wang et al.,
    "CosFace: large margin cosine loss for deep face recognition", CVPR 2018, eq. 4.

    >>> loss = AMSoftmax(embedding_dim=4, num_speakers=3, margin=0.3)
    >>> loss.further(torch.tensor(0.5), 0.3).item()
    0.19999998807907104
    """

    def further(self, cosines: Tensor, margin: float) -> Tensor:
        """As `MarginSoftmax.further`: `cos θ − m`."""
        return cosines - margin

    def nearer(self, cosines: Tensor, penalty: float) -> Tensor:
        """As `MarginSoftmax.nearer`: `cos θ + m'`."""
        return cosines + penalty


@speaker_losses.register("aam")
class AAMSoftmax(MarginSoftmax):
    """Additive angular margin softmax: `cos(θ + m)` at the own speaker.

    Args:
        easy_margin: the margin is left out where the own speaker is further than a right angle.

    The other arguments, and the errors, as `MarginSoftmax`; the margin in radians, 0 to π/2.

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
        """As `MarginSoftmax.further`: `cos(θ + m)`, made monotone (`add_angle`)."""
        turned = add_angle(cosines, margin)
        return torch.where(cosines > 0, turned, cosines) if self.easy_margin else turned

    def nearer(self, cosines: Tensor, penalty: float) -> Tensor:
        """As `MarginSoftmax.nearer`: `cos(θ − m')`, made monotone (`subtract_angle`)."""
        return subtract_angle(cosines, penalty)
