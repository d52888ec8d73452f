"""ResNet on the filterbank as an image (r-vector): Zeinali et al., 2019; blocks of He et al., CVPR 2016."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from wesep_py.speaker.base import speaker_networks
from wesep_py.speaker.pooled import PooledNetwork

STAGES = 4


@speaker_networks.register("resnet")
class ResNet(PooledNetwork):
    """Four stages of residual blocks over frequency and time, then pooling over time.

    Each stage but the first halves frequency and time, and doubles the channels. A subclass may set `attention`.

    Args:
        num_mel_bins: size of a filterbank frame (given by the front end).
        num_blocks: blocks of each stage: [2, 2, 2, 2] for 18 layers, [3, 4, 6, 3] for 34 (`basic`) or 50
            (`bottleneck`).
        channels: of the first stage.
        embedding_dim: size of the embedding.
        block: two 3×3 convolutions (`basic`), or 1×1, 3×3, 1×1 to four times the width (`bottleneck`).
        pooling: a pooling's name, or `{name: …, …}`; see `pooling`.
        second_layer: ReLU, batch normalisation and another linear layer make the embedding.
        dropout: share of the pooled vector that is dropped while training, from 0 to below 1.

    Raises:
        ValueError: not four numbers of blocks, or one below 1, or another size out of its range.
        ConfigError: no such pooling.

    >>> ResNet(num_blocks=(1, 1, 1, 1), channels=4, embedding_dim=8)(torch.randn(2, 100, 80)).embedding.shape
    torch.Size([2, 8])
    """

    attention: type[nn.Module] | None = None

    def __init__(
        self,
        num_mel_bins: int = 80,
        num_blocks: tuple[int, ...] = (3, 4, 6, 3),
        channels: int = 32,
        embedding_dim: int = 256,
        block: Literal["basic", "bottleneck"] = "basic",
        pooling: str | dict[str, Any] = "tstp",
        second_layer: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if len(num_blocks) != STAGES or min(num_blocks) < 1:
            raise ValueError(f"num_blocks: is {list(num_blocks)}; four numbers, each 1 or more, are needed")
        if channels < 1:
            raise ValueError(f"channels: is {channels}; 1 or more is needed")
        self.conv = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.stages = nn.ModuleList()
        width, bins = channels, num_mel_bins
        for stage, count in enumerate(num_blocks):
            inner, stride = channels * 2**stage, 1 if stage == 0 else 2
            blocks = nn.ModuleList()
            for i in range(count):
                weigh = None if self.attention is None else self.attention()
                blocks.append(ResidualBlock(width, inner, stride if i == 0 else 1, block == "bottleneck", weigh))
                width = blocks[-1].out_channels
            self.stages.append(blocks)
            bins = -(-bins // stride)
        self.add_head(width * bins, embedding_dim, pooling, second_layer, dropout)

    def encode(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x = features.transpose(1, 2)[:, None] * mask[:, None, None]
        x = torch.relu(self.norm(self.conv(x)))
        for blocks in self.stages:
            for block in blocks:
                x, mask = block(x, mask)
        return x.flatten(1, 2) * mask[:, None], mask


class ResidualBlock(nn.Module):
    """`relu(x + f(x))`: `[batch, channels, bins, frames]` and the mask of valid frames, both at the block's stride.

    Args:
        in_channels: of the input.
        channels: of the 3×3 convolutions.
        stride: in frequency and time.
        bottleneck: 1×1, 3×3 and 1×1 convolutions, the last to four times the channels, instead of two of 3×3.
        attention: a module that weighs f(x), given the mask too, or `None`.
    """

    def __init__(
        self, in_channels: int, channels: int, stride: int, bottleneck: bool, attention: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.stride = stride
        self.out_channels = 4 * channels if bottleneck else channels
        if bottleneck:
            sizes = [
                (in_channels, channels, 1, 1),
                (channels, channels, 3, stride),
                (channels, self.out_channels, 1, 1),
            ]
        else:
            sizes = [(in_channels, channels, 3, stride), (channels, channels, 3, 1)]
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, kernel, step, kernel // 2, bias=False) for before, after, kernel, step in sizes
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(after) for _, after, _, _ in sizes)
        self.attention = attention
        self.shortcut = None
        if stride != 1 or in_channels != self.out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, self.out_channels, 1, stride, bias=False), nn.BatchNorm2d(self.out_channels)
            )

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        passed = x if self.shortcut is None else self.shortcut(x)
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = torch.relu(x) if i else x
            # What stands past the end of a recording must be to a convolution what its own padding is.
            x = norm(conv(x * mask[:, None, None]))
            if conv.stride[0] > 1:
                mask = mask[:, :: self.stride]
        if self.attention is not None:
            x = self.attention(x, mask)
        return torch.relu(x + passed), mask
