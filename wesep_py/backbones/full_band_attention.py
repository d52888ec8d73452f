"""Self-attention between whole frames of a spectrum, and its windowed form, whose cost does not grow with T².

Wang et al., "TF-GridNet: integrating full- and sub-band modeling for speech separation" (TASLP 2023), section III-D.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wesep_py.backbones.bands import full_precision

NORM_EPS = 1e-5
QUERIES_AT_ONCE = 512

Memory = tuple[Tensor, Tensor]
"""Keys and values of the frames before, `[batch, heads, frames, size]`: what a causal attention goes on from."""


class FullBandAttention(nn.Module):
    """`x + norm(PReLU(W · attention(x)))`; query, key and value are all the bins of a frame, in every head.

    Shapes: `[batch, frames, bins, dim]` in and out. A head's query and key have `ceil(query_size / bins)` channels
    in each bin, its value `dim / num_heads`.

    Args:
        dim, num_bins: sizes of the last two axes.
        num_heads: attention heads; has to divide `dim`.
        query_size: about how long a query is, over all its bins.
        causal: a frame attends to itself and to what was before.
        window: a frame attends to those at most this many frames away; `None` is all of them.

    Raises:
        ValueError: heads that do not divide `dim`.
    """

    def __init__(
        self, dim: int, num_bins: int, num_heads: int, query_size: int, causal: bool, window: int | None
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads: is {num_heads}; a divisor of feature_dim ({dim}) is needed")
        self.causal, self.window = causal, window
        query_dim = math.ceil(query_size / num_bins)
        self.query = HeadProjection(dim, num_bins, num_heads, query_dim)
        self.key = HeadProjection(dim, num_bins, num_heads, query_dim)
        self.value = HeadProjection(dim, num_bins, num_heads, dim // num_heads)
        self.linear = nn.Linear(dim, dim)
        self.activation = nn.PReLU()
        self.norm = nn.LayerNorm((num_bins, dim), eps=NORM_EPS)

    def forward(self, x: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory | None]:
        """The frames, and (causal) the keys and values that the next ones will need."""
        batch, frames, bins, dim = x.shape
        query, key, value = self.query(x), self.key(x), self.value(x)
        if memory is not None:
            key, value = torch.cat([memory[0], key], dim=2), torch.cat([memory[1], value], dim=2)
        attended = windowed_attention(query, key, value, self.causal, self.window)
        heads = attended.view(batch, -1, frames, dim // attended.shape[1], bins)
        out = self.linear(heads.permute(0, 2, 4, 1, 3).reshape(batch, frames, bins, dim))
        out = x + self.norm(full_precision(self.activation(out)))
        if not self.causal:
            return out, None
        kept = key.shape[2] if self.window is None else min(self.window, key.shape[2])
        start = key.shape[2] - kept
        return out, (key[:, :, start:], value[:, :, start:])


class HeadProjection(nn.Module):
    """`[batch, frames, bins, dim]` → `[batch, heads, frames, size · bins]`: linear, PReLU, normalised frame by frame.

    Each head has a slope of its own, and is normalised over its channels and bins.
    """

    def __init__(self, dim: int, num_bins: int, num_heads: int, size: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.linear = nn.Linear(dim, num_heads * size)
        self.slope = nn.Parameter(torch.full((num_heads, 1, 1, 1), 0.25))
        self.weight = nn.Parameter(torch.ones(num_heads, 1, size, num_bins))
        self.bias = nn.Parameter(torch.zeros(num_heads, 1, size, num_bins))

    def forward(self, x: Tensor) -> Tensor:
        batch, frames, bins, _ = x.shape
        heads = self.linear(x).view(batch, frames, bins, self.num_heads, -1).permute(0, 3, 1, 4, 2)
        heads = full_precision(torch.where(heads > 0, heads, heads * self.slope))
        heads = F.layer_norm(heads, heads.shape[-2:], eps=NORM_EPS) * self.weight + self.bias
        return heads.flatten(3)


def windowed_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool, window: int | None) -> Tensor:
    """`softmax(QKᵀ / √size) V`, over the frames that each may see.

    Queries are handled `QUERIES_AT_ONCE` at a time, with the keys that they reach, so no tensor holds every pair of
    frames; with a window, computation too grows with the length, not with its square.

    Args:
        query: `[batch, heads, frames, size]`.
        key: `[batch, heads, earlier + frames, size]`; the last ones belong to the frames of the query.
        value: the same, of any size.
        causal: nothing later than the query's frame is seen.
        window: nothing more than this many frames away is seen; `None`: everything.

    Returns:
        `[batch, heads, frames, size of value]`.

    >>> x = torch.randn(1, 2, 50, 8)
    >>> full, near = (windowed_attention(x, x, x, False, window) for window in (None, 49))
    >>> torch.allclose(full, near, atol=1e-5)
    True
    """
    frames, keys = query.shape[2], key.shape[2]
    earlier = keys - frames
    reach = keys if window is None else window
    parts = []
    for start in range(0, frames, QUERIES_AT_ONCE):
        stop = min(start + QUERIES_AT_ONCE, frames)
        first = max(0, earlier + start - reach)
        last = min(keys, earlier + stop + (0 if causal else reach))
        mask = None
        if causal or window is not None:
            at = torch.arange(earlier + start, earlier + stop, device=query.device)[:, None]
            distance = at - torch.arange(first, last, device=query.device)
            mask = distance.abs() <= reach
            if causal:
                mask &= distance >= 0
        attended = F.scaled_dot_product_attention(
            query[:, :, start:stop], key[:, :, first:last], value[:, :, first:last], attn_mask=mask
        )
        parts.append(attended)
    return torch.cat(parts, dim=2)
