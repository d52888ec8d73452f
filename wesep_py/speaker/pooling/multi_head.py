"""Attentive statistics of several heads, each over its share of the channels, and of several queries."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from wesep_py.speaker.pooling.base import Pooling, attentive_statistics, poolings


@poolings.register("mhastp")
class MultiHeadAttentivePooling(Pooling):
    """Channels in as many parts as heads; each head weighs the frames of its part (MHASTP).

    India et al., "Self multi-head attention for speaker recognition", Interspeech 2019, with standard deviations.

    Args:
        dim: channels; a multiple of `num_heads`.
        num_heads: parts.
        num_layers: linear layers of each head, tanh between them.
        bottleneck: units of their hidden layers.
        per_channel: a weight for every frame and channel, instead of one for every frame.

    Raises:
        ValueError: `dim` is not a multiple of `num_heads`, or no head or layer.

    >>> MultiHeadAttentivePooling(8)(torch.randn(2, 8, 50), torch.ones(2, 50, dtype=torch.bool)).shape
    torch.Size([2, 16])
    """

    def __init__(
        self, dim: int, num_heads: int = 2, num_layers: int = 2, bottleneck: int = 64, per_channel: bool = False
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"num_heads: is {num_heads}; a number that divides the {dim} channels is needed")
        if num_layers < 1:
            raise ValueError(f"num_layers: is {num_layers}; 1 or more is needed")
        self.out_dim = 2 * dim
        width = dim // num_heads
        sizes = [width, *[bottleneck] * (num_layers - 1), width if per_channel else 1]
        self.heads = nn.ModuleList(_attention(sizes) for _ in range(num_heads))

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """`[batch, dim, frames]`, `[batch, frames]` → `[batch, 2 · dim]`, head by head."""
        parts = frames.float().chunk(len(self.heads), dim=1)
        pooled = [attentive_statistics(part, head(part), mask) for part, head in zip(parts, self.heads, strict=True)]
        return torch.cat(pooled, dim=1)


@poolings.register("mqmhastp")
class MultiQueryAttentivePooling(Pooling):
    """Several multi-head attentive poolings beside each other (MQMHASTP).

    Zhao et al., "Multi-query multi-head attention pooling and inter-topK penalty for speaker verification",
    ICASSP 2022.

    Args:
        dim: channels; a multiple of `num_heads`.
        num_queries: multi-head poolings.
        num_heads, num_layers, bottleneck, per_channel: of each; see `MultiHeadAttentivePooling`.

    Raises:
        ValueError: no query, or what `MultiHeadAttentivePooling` raises.
    """

    def __init__(
        self,
        dim: int,
        num_queries: int = 2,
        num_heads: int = 8,
        num_layers: int = 2,
        bottleneck: int = 64,
        per_channel: bool = True,
    ) -> None:
        super().__init__()
        if num_queries < 1:
            raise ValueError(f"num_queries: is {num_queries}; 1 or more is needed")
        self.out_dim = 2 * dim * num_queries
        self.queries = nn.ModuleList(
            MultiHeadAttentivePooling(dim, num_heads, num_layers, bottleneck, per_channel) for _ in range(num_queries)
        )

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """`[batch, dim, frames]`, `[batch, frames]` → `[batch, num_queries · 2 · dim]`."""
        return torch.cat([query(frames, mask) for query in self.queries], dim=1)


def _attention(sizes: list[int]) -> nn.Sequential:
    """Linear layers of these sizes over the channels, tanh between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Conv1d(before, after, 1), nn.Tanh()]
    return nn.Sequential(*layers[:-1])
