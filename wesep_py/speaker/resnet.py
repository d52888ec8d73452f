"""ResNet on the filterbank as an image (r-vector): Zeinali et al., 2019; blocks of He et al., CVPR 2016."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from wesep_py.speaker.base import SpeakerNetwork, SpeakerOutput, speaker_networks
from wesep_py.speaker.pooling import masked_statistics

STAGES = 4


@speaker_networks.register("resnet")
class ResNet(SpeakerNetwork):
    """Four stages of residual blocks over frequency and time, then statistics over time.

    Each stage but the first halves frequency and time, and doubles the channels.

    Args:
        num_mel_bins: size of a filterbank frame (given by the front end).
        num_blocks: blocks of each stage: [2, 2, 2, 2] for 18 layers, [3, 4, 6, 3] for 34 (`basic`) or 50
            (`bottleneck`).
        channels: of the first stage.
        embedding_dim: size of the embedding.
        block: two 3×3 convolutions (`basic`), or 1×1, 3×3, 1×1 to four times the width (`bottleneck`).
        pooling: mean (`mean`), standard deviation (`std`) or both (`mean_std`) over time.
        second_layer: ReLU, batch normalisation and another linear layer make the embedding.

    Raises:
        ValueError: not four numbers of blocks, or one below 1.

    >>> ResNet(num_blocks=(1, 1, 1, 1), channels=4, embedding_dim=8)(torch.randn(2, 100, 80)).embedding.shape
    torch.Size([2, 8])
    """

    def __init__(
        self,
        num_mel_bins: int = 80,
        num_blocks: tuple[int, ...] = (3, 4, 6, 3),
        channels: int = 32,
        embedding_dim: int = 256,
        block: Literal["basic", "bottleneck"] = "basic",
        pooling: Literal["mean", "std", "mean_std"] = "mean_std",
        second_layer: bool = False,
    ) -> None:
        super().__init__()
        if len(num_blocks) != STAGES or min(num_blocks) < 1:
            raise ValueError(f"num_blocks: is {list(num_blocks)}; four numbers, each 1 or more, are needed")
        self.pooling, self.embedding_dim = pooling, embedding_dim
        self.conv = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.stages = nn.ModuleList()
        width, bins = channels, num_mel_bins
        for stage, count in enumerate(num_blocks):
            inner, stride = channels * 2**stage, 1 if stage == 0 else 2
            blocks = nn.ModuleList()
            for i in range(count):
                blocks.append(ResidualBlock(width, inner, stride if i == 0 else 1, block == "bottleneck"))
                width = blocks[-1].out_channels
            self.stages.append(blocks)
            bins = -(-bins // stride)
        self.frame_dim = width * bins
        self.linear = nn.Linear(self.frame_dim * (2 if pooling == "mean_std" else 1), embedding_dim)
        self.second = None
        if second_layer:
            self.second = nn.Sequential(
                nn.ReLU(), nn.BatchNorm1d(embedding_dim, affine=False), nn.Linear(embedding_dim, embedding_dim)
            )

    def forward(self, features: Tensor, mask: Tensor | None = None) -> SpeakerOutput:
        if mask is None:
            mask = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        x = features.transpose(1, 2)[:, None] * mask[:, None, None]
        x = torch.relu(self.norm(self.conv(x)))
        for blocks in self.stages:
            for block in blocks:
                x, mask = block(x, mask)
        frames = x.flatten(1, 2) * mask[:, None]
        # In float32: a deviation over few frames is a small difference.
        mean, deviation = masked_statistics(frames.float(), mask, unbiased=True)
        pooled = {"mean": [mean], "std": [deviation], "mean_std": [mean, deviation]}[self.pooling]
        embedding = self.linear(torch.cat(pooled, dim=1).squeeze(2))
        if self.second is not None:
            embedding = self.second(embedding)
        return SpeakerOutput(frames, mask, embedding.float())


class ResidualBlock(nn.Module):
    """`relu(x + f(x))`: `[batch, channels, bins, frames]` and the mask of valid frames, both at the block's stride.

    Args:
        in_channels: of the input.
        channels: of the 3×3 convolutions.
        stride: in frequency and time.
        bottleneck: 1×1, 3×3 and 1×1 convolutions, the last to four times the channels, instead of two of 3×3.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, bottleneck: bool) -> None:
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
        return torch.relu(x + passed), mask
