"""ResNet, SimAM-ResNet and Gemini DF-ResNet, on the filterbank as an image.

- ResNet (r-vector): Zeinali et al., "BUT system description to VoxCeleb speaker recognition challenge 2019"; blocks of
  He et al., CVPR 2016.
- SimAM-ResNet: Qin et al., ICASSP 2022; SimAM, an attention without parameters: Yang et al., ICML 2021.
- Gemini DF-ResNet: Liu et al., "Golden Gemini is all you need", TASLP 2024; DF-ResNet: Liu et al., Interspeech 2022.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from wesep_py.network.speaker.speaker_network import PooledNetwork, speaker_networks

NUM_STAGES = 4


@speaker_networks.register("resnet")
class ResNet(PooledNetwork):
    """Four stages of residual blocks over frequency and time, then pooling over time.

    The second and later stages halve frequency and time, and double the channels. A subclass may set `attention`.

    Args:
        num_mel_bins: number of mel bins (given by the front end).
        num_blocks: number of blocks of each stage: [2, 2, 2, 2] for 18 layers, [3, 4, 6, 3] for 34 (`basic`) or 50
            (`bottleneck`).
        channels: number of channels of the first stage.
        embedding_dim: size of the embedding.
        block: two 3×3 convolutions (`basic`), or 1×1, 3×3, 1×1 to four times the width (`bottleneck`).
        pooling: name of a pooling, or `{name: …, …}`; see `pooling`.
        second_layer: put ReLU, batch normalisation and another linear layer before the embedding.
        dropout: share of the pooled vector that is dropped while training, from 0 to below 1.

    Raises:
        ValueError: `num_blocks` are not four numbers of 1 or more, or another size is out of range.
        ConfigError: there is no such pooling.

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
        if len(num_blocks) != NUM_STAGES or min(num_blocks) < 1:
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
                blocks.append(ResNetBlock(width, inner, stride if i == 0 else 1, block == "bottleneck", weigh))
                width = blocks[-1].out_channels
            self.stages.append(blocks)
            bins = -(-bins // stride)
        self.add_head(width * bins, embedding_dim, pooling, second_layer, dropout)

    def encode(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the frames to be pooled and their mask; see `PoolingNetwork.encode`."""
        x = features.transpose(1, 2)[:, None] * mask[:, None, None]
        x = torch.relu(self.norm(self.conv(x)))
        for blocks in self.stages:
            for block in blocks:
                x, mask = block(x, mask)
        return x.flatten(1, 2) * mask[:, None], mask


class ResNetBlock(nn.Module):
    """Residual block `relu(x + f(x))` on an image and the mask of its valid frames.

    Args:
        in_channels: channels of the input.
        channels: of the 3×3 convolutions.
        stride: in frequency and time.
        bottleneck: f is a 1×1, a 3×3 and a 1×1 convolution, the last to four times the channels, instead of two 3×3.
        attention: a module that weights f(x), given the mask too, or `None`.
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
        """Return an image `[batch, out_channels, bins, frames]` and the mask of its frames, both at the stride."""
        residual = x if self.shortcut is None else self.shortcut(x)
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = torch.relu(x) if i else x
            # After the end of a recording the convolution must see zeros, as its own padding is.
            x = norm(conv(x * mask[:, None, None]))
            if conv.stride[0] > 1:
                mask = mask[:, :: self.stride]
        if self.attention is not None:
            x = self.attention(x, mask)
        return torch.relu(x + residual), mask


class SimAM(nn.Module):
    """SimAM: a weight for each value of a channel; the further it is from the channel's mean, the nearer to one.

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
        """Return a weighted image of the same shape, `[batch, channels, bins, frames]`."""
        valid, values = mask[:, None, None], x.float()
        count = x.shape[2] * valid.sum(dim=3, keepdim=True)
        mean = (values * valid).sum(dim=(2, 3), keepdim=True) / count.clamp_min(1)
        squares = (values - mean).square()
        variance = (squares * valid).sum(dim=(2, 3), keepdim=True) / (count - 1).clamp_min(1)
        weights = torch.sigmoid(squares / (4 * (variance + self.regularisation)) + 0.5)
        return x * weights.to(x.dtype)


@speaker_networks.register("simam_resnet")
class SimAMResNet(ResNet):
    """`ResNet` of basic blocks, whose values are weighted by SimAM before the block's input is added.

    Args:
        num_mel_bins: number of mel bins (given by the front end).
        num_blocks: number of blocks of each stage: [3, 4, 6, 3] for 34 layers, [6, 16, 24, 3] for 100.
        channels: number of channels of the first stage.
        embedding_dim: size of the embedding.
        pooling: name of a pooling, or `{name: …, …}`; see `pooling`.
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


GEMINI_STRIDES = ((2, 1), (2, 2), (2, 1), (2, 1))
"""Strides of each stage in frequency and time: time keeps its resolution longest (T14c of the paper)."""
GEMINI_EXPANSION = 4


@speaker_networks.register("gemini_df_resnet")
class GeminiDFResNet(PooledNetwork):
    """Four stages of inverted bottlenecks, deep and narrow; all halve frequency, and one of them time.

    Args:
        num_mel_bins: number of mel bins (given by the front end).
        num_blocks: number of blocks of each stage: [3, 3, 9, 3] for 60 layers, [3, 3, 27, 3] for 114, [3, 8, 45, 3] for
            183, [3, 8, 63, 3] for 237.
        channels: of the first convolution and of each stage, five numbers.
        embedding_dim: size of the embedding.
        pooling: name of a pooling, or `{name: …, …}`; see `pooling`.
        second_layer: put ReLU, batch normalisation and another linear layer before the embedding.

    Raises:
        ValueError: `num_blocks` are not four numbers, or `channels` not five, of 1 or more each.
        ConfigError: there is no such pooling.

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
        if len(num_blocks) != len(GEMINI_STRIDES) or min(num_blocks) < 1:
            raise ValueError(f"num_blocks: is {list(num_blocks)}; four numbers, each 1 or more, are needed")
        if len(channels) != len(GEMINI_STRIDES) + 1 or min(channels) < 1:
            raise ValueError(f"channels: is {list(channels)}; five numbers, each 1 or more, are needed")
        self.conv = nn.Conv2d(1, channels[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels[0])
        self.stages = nn.ModuleList()
        bins = num_mel_bins
        for i, (count, stride) in enumerate(zip(num_blocks, GEMINI_STRIDES, strict=True)):
            self.stages.append(GeminiStage(channels[i], channels[i + 1], stride, count))
            bins = -(-bins // stride[0])
        self.add_head(channels[-1] * bins, embedding_dim, pooling, second_layer)

    def encode(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the frames to be pooled and their mask; see `PoolingNetwork.encode`."""
        x = features.transpose(1, 2)[:, None] * mask[:, None, None]
        x = torch.relu(self.norm(self.conv(x)))
        for stage in self.stages:
            x, mask = stage(x, mask)
        return x.flatten(1, 2) * mask[:, None], mask


class GeminiStage(nn.Module):
    """A stage of Gemini DF-ResNet: a strided convolution and its normalisation, then inverted bottlenecks.

    Args:
        in_channels, out_channels: channels before and after the convolution.
        stride: in frequency and time.
        num_blocks: number of inverted bottlenecks.
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
    """`relu(x + f(x))` with f: 1×1 convolution to four times the channels, depthwise 3×3, 1×1 back.

    Args:
        channels: of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = GEMINI_EXPANSION * channels
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
