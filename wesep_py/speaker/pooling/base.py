"""What a pooling is, the registry of poolings, and the masked statistics that they are made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wesep_py.registry import Registry

VARIANCE_FLOOR = 1e-7


class Pooling(nn.Module, ABC):
    """Base of the poolings.

    Attributes:
        out_dim: size of the vector.
    """

    out_dim: int

    @abstractmethod
    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """`[batch, dim, frames]` and the mask `[batch, frames]` of its valid frames → `[batch, out_dim]`."""


poolings: Registry[Pooling] = Registry("pooling", Pooling)


def build_pooling(pooling: str | Mapping[str, Any], dim: int, where: str = "pooling") -> Pooling:
    """The pooling of a configuration: its name, or `{name: …, …}` where it has arguments.

    Raises:
        ConfigError: no such pooling, or no such argument.
    """
    return poolings.build({"name": pooling} if isinstance(pooling, str) else pooling, where, dim=dim)


def masked_statistics(frames: Tensor, mask: Tensor, unbiased: bool = False) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the valid frames: `[batch, dim, frames]` → two of `[batch, dim, 1]`."""
    valid = mask[:, None].to(frames.dtype)
    count = valid.sum(dim=2, keepdim=True).clamp_min(1)
    mean = (frames * valid).sum(dim=2, keepdim=True) / count
    squares = ((frames - mean).square() * valid).sum(dim=2, keepdim=True)
    variance = squares / (count - 1).clamp_min(1) if unbiased else squares / count
    return mean, (variance + VARIANCE_FLOOR).sqrt()


def attentive_statistics(frames: Tensor, scores: Tensor, mask: Tensor, floor: float = VARIANCE_FLOOR) -> Tensor:
    """Mean and standard deviation under weights that are the softmax over the valid frames of the scores.

    Args:
        frames: `[batch, dim, frames]`.
        scores: `[batch, dim, frames]`, or `[batch, 1, frames]` for one weight a frame.
        mask: `[batch, frames]`.
        floor: least variance.

    Returns:
        `[batch, 2 · dim]`, the means before the deviations.
    """
    return weighted_statistics(frames, attention(scores, mask), floor)


def attention(scores: Tensor, mask: Tensor) -> Tensor:
    """The softmax over the valid frames: `[batch, dim, frames]`, `[batch, frames]` → `[batch, dim, frames]`."""
    return scores.float().masked_fill(~mask[:, None], -torch.inf).softmax(dim=2)


def weighted_statistics(frames: Tensor, weights: Tensor, floor: float = VARIANCE_FLOOR) -> Tensor:
    """Mean and standard deviation under weights that sum to one over time, as `attentive_statistics` gives them."""
    mean = (weights * frames).sum(dim=2, keepdim=True)
    variance = (weights * (frames - mean).square()).sum(dim=2)
    return torch.cat([mean.squeeze(2), variance.clamp_min(floor).sqrt()], dim=1)
