"""Every frame counts alike: mean, standard deviation, or both."""

from __future__ import annotations

import torch
from torch import Tensor

from wesep_py.speaker.pooling.base import Pooling, masked_statistics, poolings


@poolings.register("tap")
class AveragePooling(Pooling):
    """Mean over time (TAP).

    Args:
        dim: channels.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.out_dim = dim

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """`[batch, dim, frames]`, `[batch, frames]` → `[batch, dim]`."""
        return masked_statistics(frames.float(), mask)[0].squeeze(2)


@poolings.register("tsdp")
class DeviationPooling(Pooling):
    """Standard deviation over time, unbiased (TSDP).

    Args:
        dim: channels.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.out_dim = dim

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """`[batch, dim, frames]`, `[batch, frames]` → `[batch, dim]`."""
        return masked_statistics(frames.float(), mask, unbiased=True)[1].squeeze(2)


@poolings.register("tstp")
class StatisticsPooling(Pooling):
    """Mean and standard deviation over time, unbiased (TSTP): Snyder et al., Interspeech 2017.

    Args:
        dim: channels.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.out_dim = 2 * dim

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """`[batch, dim, frames]`, `[batch, frames]` → `[batch, 2 · dim]`."""
        return torch.cat(masked_statistics(frames.float(), mask, unbiased=True), dim=1).squeeze(2)
