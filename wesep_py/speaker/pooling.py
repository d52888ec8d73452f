"""From frame-level features of any number of frames to one vector; padding does not count."""

from __future__ import annotations

import torch
from torch import Tensor, nn

VARIANCE_FLOOR = 1e-7


class AttentiveStatisticsPooling(nn.Module):
    """Weighted mean and standard deviation over time, with a weight for every frame and channel (ASTP).

    Okabe et al., Interspeech 2018; channel-dependent, with the whole recording's mean and standard deviation as
    context: Desplanques et al., Interspeech 2020, eq. 1 to 5.

    Args:
        dim: channels.
        bottleneck: units of the attention's hidden layer.
        global_context: whether the attention also sees the recording's mean and standard deviation.

    >>> AttentiveStatisticsPooling(8)(torch.randn(2, 8, 50), torch.ones(2, 50, dtype=torch.bool)).shape
    torch.Size([2, 16])
    """

    def __init__(self, dim: int, bottleneck: int = 128, global_context: bool = False) -> None:
        super().__init__()
        self.global_context = global_context
        self.linear1 = nn.Conv1d(dim * (3 if global_context else 1), bottleneck, 1)
        self.linear2 = nn.Conv1d(bottleneck, dim, 1)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """`[batch, dim, frames]`, `[batch, frames]` → `[batch, 2 · dim]`."""
        frames, valid = frames.float(), mask[:, None]
        seen = frames
        if self.global_context:
            mean, deviation = masked_statistics(frames, mask, unbiased=True)
            seen = torch.cat([frames, mean.expand_as(frames), deviation.expand_as(frames)], dim=1)
        scores = self.linear2(torch.tanh(self.linear1(seen))).float()
        weights = scores.masked_fill(~valid, -torch.inf).softmax(dim=2)
        mean = (weights * frames).sum(dim=2)
        variance = (weights * frames.square()).sum(dim=2) - mean.square()
        return torch.cat([mean, variance.clamp_min(VARIANCE_FLOOR).sqrt()], dim=1)


def masked_statistics(frames: Tensor, mask: Tensor, unbiased: bool = False) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the valid frames: `[batch, dim, frames]` → two of `[batch, dim, 1]`."""
    valid = mask[:, None].to(frames.dtype)
    count = valid.sum(dim=2, keepdim=True).clamp_min(1)
    mean = (frames * valid).sum(dim=2, keepdim=True) / count
    squares = ((frames - mean).square() * valid).sum(dim=2, keepdim=True)
    variance = squares / (count - 1).clamp_min(1) if unbiased else squares / count
    return mean, (variance + VARIANCE_FLOOR).sqrt()
