"""Gemini DF-ResNet: Liu et al., "Golden Gemini is all you need", TASLP 2024; DF-ResNet, Interspeech 2022."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wesep_py.speaker.base import speaker_networks
from wesep_py.speaker.pooled import PooledNetwork

STRIDES = ((2, 1), (2, 2), (2, 1), (2, 1))
"""Of each stage in frequency and time: time keeps its resolution longest (T14c of the paper)."""
EXPANSION = 4


@speaker_networks.register("gemini_df_resnet")
class GeminiDFResNet(PooledNetwork):
    """Four stages of inverted bottlenecks, deep and narrow; every stage halves frequency, only one of them time.

    Args:
        num_mel_bins: size of a filterbank frame (given by the front end).
        num_blocks: blocks of each stage: [3, 3, 9, 3] for 60 layers, [3, 3, 27, 3] for 114, [3, 8, 45, 3] for
            183, [3, 8, 63, 3] for 237.
        channels: of the first convolution and of each stage: five numbers.
        embedding_dim: size of the embedding.
        pooling: a pooling's name, or `{name: …, …}`; see `pooling`.
        second_layer: ReLU, batch normalisation and another linear layer make the embedding.

    Raises:
        ValueError: not four numbers of blocks, not five of channels, or one below 1.
        ConfigError: no such pooling.

    >>> GeminiDFResNet(num_blocks=(1, 1, 1, 1), channels=(2, 2, 4, 4, 8), embedding_dim=8)(
    ...     torch.randn(2, 100, 80)
    ... ).embedding.shape
    torch.Size([2, 8])
    """

    def __init__(
        self,
        num_mel_bins: int = 80,
        num_blocks: tuple[int, ...] = (3, 3, 27, 3),
        channels: tuple[int, ...] = (32, 32, 64, 128, 256),
        embedding_dim: int = 256,
        pooling: str | dict[str, Any] = "tstp",
        second_layer: bool = False,
    ) -> None:
        super().__init__()
        if len(num_blocks) != len(STRIDES) or min(num_blocks) < 1:
            raise ValueError(f"num_blocks: is {list(num_blocks)}; four numbers, each 1 or more, are needed")
        if len(channels) != len(STRIDES) + 1 or min(channels) < 1:
            raise ValueError(f"channels: is {list(channels)}; five numbers, each 1 or more, are needed")
        self.conv = nn.Conv2d(1, channels[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels[0])
        self.stages = nn.ModuleList()
        bins = num_mel_bins
        for i, (count, stride) in enumerate(zip(num_blocks, STRIDES, strict=True)):
            self.stages.append(Stage(channels[i], channels[i + 1], stride, count))
            bins = -(-bins // stride[0])
        self.add_head(channels[-1] * bins, embedding_dim, pooling, second_layer)

    def encode(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x = features.transpose(1, 2)[:, None] * mask[:, None, None]
        x = torch.relu(self.norm(self.conv(x)))
        for stage in self.stages:
            x, mask = stage(x, mask)
        return x.flatten(1, 2) * mask[:, None], mask


class Stage(nn.Module):
    """A convolution with stride and its normalisation, then inverted bottlenecks.

    Args:
        in_channels, out_channels: before and after the convolution.
        stride: in frequency and time.
        num_blocks: inverted bottlenecks.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: tuple[int, int], num_blocks: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.blocks = nn.ModuleList(InvertedBottleneck(out_channels) for _ in range(num_blocks))

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(self.conv(x * mask[:, None, None]))
        mask = mask[:, :: self.conv.stride[1]]
        for block in self.blocks:
            x = block(x, mask)
        return x, mask


class InvertedBottleneck(nn.Module):
    """`relu(x + f(x))` with f: 1×1 to four times the channels, 3×3 channel by channel, 1×1 back.

    Args:
        channels: of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = EXPANSION * channels
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(channels, inner, 1, bias=False),
                nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False),
                nn.Conv2d(inner, channels, 1, bias=False),
            ]
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(size) for size in (inner, inner, channels))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        out = torch.relu(self.norms[0](self.convs[0](x)))
        out = torch.relu(self.norms[1](self.convs[1](out * mask[:, None, None])))
        return torch.relu(x + self.norms[2](self.convs[2](out)))
