"""Attention to an enrollment in parts, so that no tensor holds every pair of frames of two long recordings."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SCORES_AT_ONCE = 2**24
"""Pairs of frames, over batch, bands and heads, whose scores are in memory at a time: 64 MB of them."""


def frames_at_once(scores_of_a_frame: int) -> int:
    """How many frames may look at an enrollment together, if each makes that many scores.

    >>> frames_at_once(2**20)
    16
    """
    return max(1, SCORES_AT_ONCE // max(1, scores_of_a_frame))


def cross_attention(query: Tensor, key: Tensor, value: Tensor, valid: Tensor) -> Tensor:
    """`softmax(QKᵀ / √size) V`, over the valid keys.

    A frame of the mixture has no place in the enrollment that it is near to, so there is no window: every query sees
    every valid key, in as many parts as `SCORES_AT_ONCE` asks for. For a given enrollment, memory and time grow with
    the length of the mixture, not with its square.

    Args:
        query: `[batch, heads, frames, size]`.
        key: `[batch, heads, keys, size]`.
        value: `[batch, heads, keys, any size]`.
        valid: `[batch, 1, 1, keys]`, false for padding.

    Returns:
        `[batch, heads, frames, size of value]`.

    >>> cross_attention(*(torch.randn(1, 2, n, 4) for n in (50, 7, 7)), torch.ones(1, 1, 1, 7).bool()).shape
    torch.Size([1, 2, 50, 4])
    """
    parts = query.split(frames_at_once(query.shape[0] * query.shape[1] * key.shape[2]), dim=2)
    return torch.cat([_attend(part, key, value, valid) for part in parts], dim=2)


def _attend(query: Tensor, key: Tensor, value: Tensor, valid: Tensor) -> Tensor:
    attend = nn.functional.scaled_dot_product_attention
    if query.device.type != "cpu" or query.dtype == torch.float32 or not torch.is_grad_enabled():
        return attend(query, key, value, attn_mask=valid)
    # Forward and backward in bfloat16 take two and a half times as long on a CPU as in float32 (torch 2.11).
    with torch.autocast("cpu", enabled=False):
        return attend(query.float(), key.float(), value.float(), attn_mask=valid).to(query.dtype)
