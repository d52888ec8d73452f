"""The interface of a speaker loss, the base of the losses that classify speakers, and what margins need.

- `SpeakerLoss`, `SpeakerLossOutput`, `speaker_losses`: base class, result, registry.
- `ClassificationLoss`: base of the losses with one basis vector per training speaker, or several.
- `add_angle`, `subtract_angle`: angular margins without arccos, and monotone.
- `MarginSchedule`: how a margin grows during training.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wesep_py.common.errors import InputError
from wesep_py.common.registry import Registry


class SpeakerLossOutput(NamedTuple):
    """The value of a speaker loss on a batch.

    Attributes:
        loss: a scalar.
        cosines: `[batch, num_speakers]`, cosine of each embedding to each training speaker, without margin and scale,
            detached, for the accuracy; `None` if the loss has no basis vectors of speakers.
        parts: of a sum of losses, the value of each before its weight.
    """

    loss: Tensor
    cosines: Tensor | None = None
    parts: dict[str, Tensor] | None = None


class SpeakerLoss(nn.Module, ABC):
    """Base of the losses that train a speaker encoder.

    They compute in float32 or finer, under autocast too. What changes during training (margin, annealing) is a function
    of the step alone, so that no checkpoint has to hold it: call `update(step)` before each step.
    """

    def update(self, step: int) -> None:
        """Set the state for a step (number of optimiser steps done, 0 or more). Most losses have no such state."""

    def forward(self, embeddings: Tensor, labels: Tensor) -> SpeakerLossOutput:
        """Return the loss of a batch.

        Args:
            embeddings: `[batch, embedding_dim]`, of any length.
            labels: `[batch]`, whole numbers: the index of each speaker.

        Raises:
            InputError: the shapes do not fit, or a label is not whole or out of range.
        """
        check_batch(embeddings, labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.compute(at_least_float32(embeddings), labels)

    @abstractmethod
    def compute(self, embeddings: Tensor, labels: Tensor) -> SpeakerLossOutput:
        """Return the loss as `forward` does, for a batch that was checked, in float32 or finer."""


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return the tensor in float32, or as it is if it is finer.

    >>> at_least_float32(torch.ones(1, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def check_batch(embeddings: Tensor, labels: Tensor) -> None:
    """Check the shapes of a batch.

    Raises:
        InputError: the embeddings are not `[batch, embedding_dim]`, or the labels not whole numbers `[batch]`.
    """
    if embeddings.dim() != 2 or not embeddings.numel():
        raise InputError(f"embeddings have shape {list(embeddings.shape)}; [batch, embedding_dim] is needed")
    if labels.shape != embeddings.shape[:1] or labels.is_floating_point():
        raise InputError(
            f"labels have shape {list(labels.shape)} and type {labels.dtype}; "
            f"{len(embeddings)} whole numbers are needed, one for each embedding"
        )


speaker_losses: Registry[Any] = Registry("speaker loss", nn.Module)
"""The speaker losses that a configuration can name: `{"name": "aam", "margin": 0.2, …}`."""


class ClassificationLoss(SpeakerLoss):
    """Base of the classification losses: cosines to all training speakers, logits, cross-entropy.

    Args:
        embedding_dim: size of the embeddings.
        num_speakers: number of training speakers, 2 or more. Speed perturbation that makes new speakers multiplies it.
        num_subcentres: number of basis vectors per speaker, 1 or more; the nearest one is used, so that mislabelled or
            unusual recordings get one of their own (Deng et al., "Sub-center ArcFace", ECCV 2020).

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
        """Return a vector of length one per speaker, `[num_speakers, embedding_dim]`; of sub-centres, their mean."""
        unit = F.normalize(at_least_float32(self.weight))
        if self.num_subcentres == 1:
            return unit
        return F.normalize(unit.unflatten(0, (self.num_speakers, self.num_subcentres)).mean(1))

    def cosines(self, embeddings: Tensor) -> Tensor:
        """Return the cosine of each embedding to each speaker's nearest sub-centre, `[batch, num_speakers]`."""
        unit = F.normalize(at_least_float32(self.weight))
        cosines = F.linear(F.normalize(embeddings), unit.to(embeddings.dtype))
        if self.num_subcentres > 1:
            cosines = cosines.unflatten(1, (self.num_speakers, self.num_subcentres)).amax(2)
        return cosines

    @abstractmethod
    def logits(self, embeddings: Tensor, labels: Tensor, cosines: Tensor) -> Tensor:
        """Return the logits for the softmax, `[batch, num_speakers]`; `cosines` are `self.cosines(embeddings)`."""

    def item_losses(self, embeddings: Tensor, labels: Tensor, cosines: Tensor) -> Tensor:
        """Return the loss of each embedding, `[batch]`."""
        return F.cross_entropy(self.logits(embeddings, labels, cosines), labels, reduction="none")

    def compute(self, embeddings: Tensor, labels: Tensor) -> SpeakerLossOutput:
        """Return the mean of `item_losses`; see `SpeakerLoss.compute`."""
        labels = self.check_labels(labels)
        cosines = self.cosines(embeddings)
        return SpeakerLossOutput(self.item_losses(embeddings, labels, cosines).mean(), cosines.detach())

    def check_labels(self, labels: Tensor) -> Tensor:
        """Return the labels as int64.

        Raises:
            InputError: a label is not from 0 to `num_speakers - 1`. On a GPU the kernels raise their own error, as a
                check here would make each step wait for the device.
        """
        if labels.is_cuda:
            return labels.long()
        lowest, highest = labels.aminmax()
        if lowest < 0 or highest >= self.num_speakers:
            wrong = int(lowest) if lowest < 0 else int(highest)
            raise InputError(f"labels: has {wrong}; the loss is for speakers 0 to {self.num_speakers - 1}")
        return labels.long()


def is_own_speaker(labels: Tensor, num_speakers: int) -> Tensor:
    """Return `[batch, num_speakers]`, True at the speaker of each item.

    >>> is_own_speaker(torch.tensor([1]), 3).tolist()
    [[False, True, False]]
    """
    return labels[:, None] == torch.arange(num_speakers, device=labels.device)


# The cosine of a larger or smaller angle, θ ± m, is cos θ cos m ∓ sin θ sin m. Beyond its turning point it would rise
# again; there a shifted cos θ takes its place, so that the result falls with θ over all of 0 to π:
#
#     cos(θ + m)   used for θ < π − m;   from there on  cos θ − (1 − cos m)

SINE_EDGE = 1e-6
"""Cosines are clipped to ±(1 − this) before the sine, whose slope is then still finite in float32."""


def sine(cosines: Tensor) -> Tensor:
    """Return sin θ ≥ 0 for cos θ, with finite slopes.

    >>> sine(torch.tensor([0.6])).item()
    0.800000011920929
    """
    return torch.sqrt(1.0 - cosines.clamp(-1.0 + SINE_EDGE, 1.0 - SINE_EDGE).square())


def add_angle(cosines: Tensor, margin: float) -> Tensor:
    """Return cos(θ + m), and above θ = π − m, where that would rise again, cos θ − (1 − cos m).

    The result is continuous and falls with θ.

    Args:
        cosines: cos θ, any shape.
        margin: m in radians, 0 to π/2.
    """
    if margin == 0:
        return cosines
    turned = cosines * math.cos(margin) - sine(cosines) * math.sin(margin)
    return torch.where(cosines > -math.cos(margin), turned, cosines - (1.0 - math.cos(margin)))


def subtract_angle(cosines: Tensor, margin: float) -> Tensor:
    """Return cos(θ − m), and below θ = m, where that would fall again, cos θ + (1 − cos m).

    Args:
        cosines: cos θ, any shape.
        margin: m in radians, 0 to π/2.
    """
    return -add_angle(-cosines, margin)


EXPONENTIAL_REMAINDER = 1e-3
"""Share of the increase that the exponential schedule leaves for its last step."""


@dataclass(frozen=True)
class MarginSchedule:
    """Schedule of a margin: constant, then increasing, then constant, as a function of the step alone.

    Args:
        start_step: the margin is `initial` up to this step, 0 or more.
        end_step: from this step on it is the margin of the loss; `start_step` or more.
        initial: the first margin.
        increase: `exponential`: the share of the increase is `1 − 0.001^r`, with r from 0 to 1 between the two steps,
            steep at first; `linear`: it is r.

    Raises:
        ValueError: steps or a margin out of range.

    Both are those of WeSpeaker's recipes, where the increase takes the epochs 20 to 40 of 150 (Wang et al.,
    "WeSpeaker: a research and production oriented speaker embedding learning toolkit", ICASSP 2023).

    >>> schedule = MarginSchedule(start_step=100, end_step=200, increase="linear")
    >>> [schedule.margin_at(step, 0.2) for step in (0, 150, 1000)]
    [0.0, 0.1, 0.2]
    """

    start_step: int = 0
    end_step: int = 0
    initial: float = 0.0
    increase: Literal["exponential", "linear"] = "exponential"

    def __post_init__(self) -> None:
        if self.start_step < 0 or self.end_step < self.start_step:
            raise ValueError(
                f"start_step and end_step: are {self.start_step} and {self.end_step}; "
                "0 <= start_step <= end_step is allowed"
            )
        if self.initial < 0:
            raise ValueError(f"initial: is {self.initial}; a margin of 0 or more is allowed")

    def margin_at(self, step: int, final: float) -> float:
        """Return the margin at a step; `final` is that after the increase."""
        if step >= self.end_step:
            return final
        if step <= self.start_step:
            return self.initial
        share = (step - self.start_step) / (self.end_step - self.start_step)
        if self.increase == "exponential":
            share = 1.0 - EXPONENTIAL_REMAINDER**share
        return self.initial + (final - self.initial) * share
