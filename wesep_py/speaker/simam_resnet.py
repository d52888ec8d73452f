"""SimAM-ResNet: Qin et al., ICASSP 2022; SimAM, an attention without parameters: Yang et al., ICML 2021."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wesep_py.speaker.base import speaker_networks
from wesep_py.speaker.resnet import ResNet


class SimAM(nn.Module):
    """A weight for every value of a channel: the further from the channel's mean, the nearer to one.

    With the mean μ and the variance σ² of a channel over bins and valid frames,
    `x · sigmoid((x − μ)² / (4 (σ² + λ)) + 1/2)` (eq. 5).

    Args:
        regularisation: λ, above 0.

    Raises:
        ValueError: λ is not above 0.

    >>> SimAM()(torch.randn(2, 4, 10, 30), torch.ones(2, 30, dtype=torch.bool)).shape
    torch.Size([2, 4, 10, 30])
    """

    def __init__(self, regularisation: float = 1e-4) -> None:
        super().__init__()
        if regularisation <= 0:
            raise ValueError(f"regularisation: is {regularisation}; a number above 0 is needed")
        self.regularisation = regularisation

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`[batch, channels, bins, frames]`, `[batch, frames]` → the same shape."""
        valid, values = mask[:, None, None], x.float()
        count = x.shape[2] * valid.sum(dim=3, keepdim=True)
        mean = (values * valid).sum(dim=(2, 3), keepdim=True) / count.clamp_min(1)
        squares = (values - mean).square()
        variance = (squares * valid).sum(dim=(2, 3), keepdim=True) / (count - 1).clamp_min(1)
        weights = torch.sigmoid(squares / (4 * (variance + self.regularisation)) + 0.5)
        return x * weights.to(x.dtype)


@speaker_networks.register("simam_resnet")
class SimAMResNet(ResNet):
    """`ResNet` of basic blocks whose values SimAM weighs before they are added to the block's input.

    Args:
        num_mel_bins: size of a filterbank frame (given by the front end).
        num_blocks: blocks of each stage: [3, 4, 6, 3] for 34 layers, [6, 16, 24, 3] for 100.
        channels: of the first stage.
        embedding_dim: size of the embedding.
        pooling: a pooling's name, or `{name: …, …}`; see `pooling`.
        dropout: share of the pooled vector that is dropped while training, from 0 to below 1.

    Raises:
        ValueError, ConfigError: as `ResNet`.

    >>> SimAMResNet(num_blocks=(1, 1, 1, 1), channels=4, embedding_dim=8)(torch.randn(2, 100, 80)).embedding.shape
    torch.Size([2, 8])
    """

    attention = SimAM

    def __init__(
        self,
        num_mel_bins: int = 80,
        num_blocks: tuple[int, ...] = (3, 4, 6, 3),
        channels: int = 64,
        embedding_dim: int = 256,
        pooling: str | dict[str, Any] = "asp",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(num_mel_bins, num_blocks, channels, embedding_dim, pooling=pooling, dropout=dropout)
