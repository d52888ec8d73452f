"""Attentive statistics: the network says how much each frame counts, channel by channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wesep_py.speaker.pooling.base import Pooling, attentive_statistics, masked_statistics, poolings

ASP_VARIANCE_FLOOR = 1e-5


@poolings.register("astp")
class AttentiveStatisticsPooling(Pooling):
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
        self.out_dim = 2 * dim
        self.global_context = global_context
        self.linear1 = nn.Conv1d(dim * (3 if global_context else 1), bottleneck, 1)
        self.linear2 = nn.Conv1d(bottleneck, dim, 1)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """`[batch, dim, frames]`, `[batch, frames]` → `[batch, 2 · dim]`."""
        frames = frames.float()
        seen = frames
        if self.global_context:
            mean, deviation = masked_statistics(frames, mask, unbiased=True)
            seen = torch.cat([frames, mean.expand_as(frames), deviation.expand_as(frames)], dim=1)
        return attentive_statistics(frames, self.linear2(torch.tanh(self.linear1(seen))), mask)


@poolings.register("asp")
class NormalisedAttentivePooling(Pooling):
    """Attentive statistics whose hidden layer ends in ReLU and batch normalisation, as in SimAM-ResNet (ASP).

    Qin et al., "Simple attention module based speaker verification with iterative noisy label detection",
    ICASSP 2022.

    Args:
        dim: channels.
        bottleneck: units of the attention's hidden layer.
    """

    def __init__(self, dim: int, bottleneck: int = 128) -> None:
        super().__init__()
        self.out_dim = 2 * dim
        self.linear1 = nn.Conv1d(dim, bottleneck, 1)
        self.norm = nn.BatchNorm1d(bottleneck)
        self.linear2 = nn.Conv1d(bottleneck, dim, 1)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """`[batch, dim, frames]`, `[batch, frames]` → `[batch, 2 · dim]`."""
        frames = frames.float()
        scores = self.linear2(self.norm(torch.relu(self.linear1(frames))))
        return attentive_statistics(frames, scores, mask, floor=ASP_VARIANCE_FLOOR)
