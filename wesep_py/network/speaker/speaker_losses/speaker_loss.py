"""How a margin grows: late, when the speakers are roughly apart, and slowly."""

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

# ----------------------------------------
# What every speaker loss is: embeddings and who spoke them in, one number to minimise out.


class SpeakerLossOutput(NamedTuple):
    """What a speaker loss says of a batch.

    Attributes:
        loss: a scalar.
        cosines: `[batch, num_speakers]`, cosine of each embedding to each training speaker, without margin and scale,
            detached, for the accuracy; `None` where a loss has no speakers of its own.
        parts: where several losses were summed, the value of each before its weight.
    """

    loss: Tensor
    cosines: Tensor | None = None
    parts: dict[str, Tensor] | None = None


class SpeakerLoss(nn.Module, ABC):
    """Base of the losses that train a speaker encoder.

    They compute in float32 at least, under autocast too. What changes in the course of a training (margin,
    annealing) follows from the step alone, so a checkpoint needs none of it: call `update(step)` before each.
    """

    def update(self, step: int) -> None:
        """Take on the state of a step, 0 or more: optimiser steps done. Most losses have none."""

    def forward(self, embeddings: Tensor, labels: Tensor) -> SpeakerLossOutput:
        """The loss of a batch.

        Args:
            embeddings: `[batch, embedding_dim]`, of any length.
            labels: `[batch]`, whole numbers: the speaker's index.

        Raises:
            InputError: the shapes do not fit, or a label is not whole or out of range.
        """
        check_batch(embeddings, labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.compute(at_least_float32(embeddings), labels)

    @abstractmethod
    def compute(self, embeddings: Tensor, labels: Tensor) -> SpeakerLossOutput:
        """As `forward`, of a batch that was checked, in float32 at least."""


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or as it is if it is finer.

    >>> at_least_float32(torch.ones(1, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def check_batch(embeddings: Tensor, labels: Tensor) -> None:
    """Raises:
    InputError: the embeddings are not `[batch, embedding_dim]`, the labels not `[batch]` whole numbers.
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


# ----------------------------------------
# Losses that classify the training speakers: one basis vector a speaker, or several.


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


def is_own_speaker(labels: Tensor, num_speakers: int) -> Tensor:
    """`[batch, num_speakers]`, true at each item's own speaker.

    >>> is_own(torch.tensor([1]), 3).tolist()
    [[False, True, False]]
    """
    return labels[:, None] == torch.arange(num_speakers, device=labels.device)


# ----------------------------------------
# The cosine of a larger or smaller angle, without arccos, monotone all the way.

EDGE = 1e-6
"""The sine is taken of cosines within ±(1 − this), where its slope is still finite in float32."""


def sine(cosines: Tensor) -> Tensor:
    """sin θ ≥ 0 of cos θ, with finite slopes.

    >>> sine(torch.tensor([0.6])).item()
    0.800000011920929
    """
    return torch.sqrt(1.0 - cosines.clamp(-1.0 + EDGE, 1.0 - EDGE).square())


def add_angle(cosines: Tensor, margin: float) -> Tensor:
    """cos(θ + m), and beyond θ = π − m, where that would rise again, cos θ − (1 − cos m): continuous, falling in θ.

    Args:
        cosines: cos θ, any shape.
        margin: m in radians, 0 to π/2.
    """
    if margin == 0:
        return cosines
    turned = cosines * math.cos(margin) - sine(cosines) * math.sin(margin)
    return torch.where(cosines > -math.cos(margin), turned, cosines - (1.0 - math.cos(margin)))


def subtract_angle(cosines: Tensor, margin: float) -> Tensor:
    """cos(θ − m), and below θ = m, where that would fall again, cos θ + (1 − cos m); arguments as `add_angle`."""
    return -add_angle(-cosines, margin)


REMAINDER = 1e-3
"""Share of the way that the exponential increase leaves to its last step."""


@dataclass(frozen=True)
class MarginSchedule:
    """A margin that waits, grows and stays, as a function of the step alone.

    Args:
        start_step: the margin is `initial` up to this step, 0 or more.
        end_step: from this step on it is the loss's own margin; `start_step` or more.
        initial: the margin before.
        increase: `exponential`: the share of the way done is `1 − 0.001^r`, r from 0 to 1 between the two steps,
            steep at first; `linear`: it is r.

    Raises:
        ValueError: steps or a margin out of range.

    Both increases are those of WeSpeaker's recipes, which there take the epochs 20 to 40 of 150 (Wang et al.,
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
        """The margin at a step, on its way to `final`."""
        if step >= self.end_step:
            return final
        if step <= self.start_step:
            return self.initial
        done = (step - self.start_step) / (self.end_step - self.start_step)
        if self.increase == "exponential":
            done = 1.0 - REMAINDER**done
        return self.initial + (final - self.initial) * done
