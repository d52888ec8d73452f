"""What every speaker loss is: embeddings and who spoke them in, one number to minimise out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wesep_py.errors import InputError
from wesep_py.registry import Registry


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
