"""ERes2Net, a Res2Net with local and global feature fusion: Chen et al., Interspeech 2023."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wesep_py.network.speaker.speaker_network import ConvNorm, PooledNetwork, shortcut, speaker_networks

# ----------------------------------------
# Res2Net on the filterbank as an image: Gao et al., TPAMI 2019.

STAGES = 4
FULL_WIDTH = 64
FUSION_REDUCTION = 4


@speaker_networks.register("res2net")
class Res2Net(PooledNetwork):
    """Four stages of residual blocks whose 3×3 convolutions work on parts of the channels, one after the other.

    Each stage but the first halves frequency and time, and doubles the channels.

    Args:
        num_mel_bins: size of a filterbank frame (given by the front end).
        num_blocks: blocks of each stage.
        channels: of the first stage.
        embedding_dim: size of the embedding.
        base_width: width of a part, per 64 channels of a stage.
        scale: parts into which a block's channels are split.
        expansion: channels that leave a block, per channel of its stage.
        pooling: a pooling's name, or `{name: …, …}`; see `pooling`.
        second_layer: ReLU, batch normalisation and another linear layer make the embedding.

    Raises:
        ValueError: not four numbers of blocks, one below 1, or parts without a channel.

    >>> Res2Net(num_blocks=(1, 1, 1, 1), channels=4, embedding_dim=8)(torch.randn(2, 50, 80)).embedding.shape
    torch.Size([2, 8])
    """

    def __init__(
        self,
        num_mel_bins: int = 80,
        num_blocks: tuple[int, ...] = (3, 4, 6, 3),
        channels: int = 32,
        embedding_dim: int = 256,
        base_width: int = 32,
        scale: int = 2,
        expansion: int = 2,
        pooling: str | dict[str, Any] = "tstp",
        second_layer: bool = False,
    ) -> None:
        super().__init__()
        if len(num_blocks) != STAGES or min(num_blocks) < 1:
            raise ValueError(f"num_blocks: is {list(num_blocks)}; four numbers, each 1 or more, are needed")
        if scale < 2:
            raise ValueError(f"scale: is {scale}; 2 or more parts are needed")
        if expansion < 1:
            raise ValueError(f"expansion: is {expansion}; 1 or more is needed")
        if channels * base_width < FULL_WIDTH:
            raise ValueError(
                f"base_width: is {base_width}, with {channels} channels no part of a block has one; "
                f"{-(-FULL_WIDTH // max(channels, 1))} or more is needed"
            )
        self.stem = ConvNorm(1, channels, 3)
        self.stages = nn.ModuleList()
        width, bins = channels, num_mel_bins
        for stage, count in enumerate(num_blocks):
            inner, stride = channels * 2**stage, 1 if stage == 0 else 2
            blocks = nn.ModuleList()
            for i in range(count):
                part = inner * base_width // FULL_WIDTH
                blocks.append(self._block(stage, width, inner, stride if i == 0 else 1, part, scale, expansion))
                width = expansion * inner
            self.stages.append(blocks)
            bins = -(-bins // stride)
        self.add_head(width * bins, embedding_dim, pooling, second_layer)

    def encode(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x, mask = self.stem(features.transpose(1, 2)[:, None], mask)
        x, mask = self._trunk(torch.relu(x), mask)
        return x.flatten(1, 2) * mask[:, None], mask

    def _block(self, stage: int, *sizes: int) -> Res2Block:
        """A block of that stage; `sizes` are the first six arguments of `Res2Block`."""
        return Res2Block(*sizes, pass_last=True)

    def _trunk(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """From the stem's image to the one that is pooled."""
        for blocks in self.stages:
            x, mask = through(blocks, x, mask)
        return x, mask


class Res2Block(nn.Module):
    """`relu(x + f(x))`, where a 3×3 convolution sees one part of the channels and the result of the part before.

    Args:
        in_channels: of the input.
        channels: of the stage.
        stride: in frequency and time.
        width: channels of a part.
        scale: number of parts.
        expansion: output channels, per channel of the stage.
        pass_last: the last part is not convolved.
        attentive: a part is weighed against the result before it (`AttentiveFusion`) instead of added to it.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        width: int,
        scale: int,
        expansion: int,
        pass_last: bool = False,
        attentive: bool = False,
    ) -> None:
        super().__init__()
        self.width = width
        self.reduce = ConvNorm(in_channels, width * scale, 1, stride)
        self.convs = nn.ModuleList(ConvNorm(width, width, 3) for _ in range(scale - pass_last))
        self.fusions = nn.ModuleList(AttentiveFusion(width) for _ in self.convs[1:]) if attentive else None
        self.expand = ConvNorm(width * scale, expansion * channels)
        self.shortcut = shortcut(in_channels, expansion * channels, stride)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        passed = x if self.shortcut is None else self.shortcut(x, mask)[0]
        x, mask = self.reduce(x, mask)
        parts = clipped_relu(x).split(self.width, dim=1)
        carried, done = parts[0], []
        for i, conv in enumerate(self.convs):
            if i and self.fusions is None:
                carried = carried + parts[i]
            elif i:
                carried = self.fusions[i - 1](carried, parts[i])
            carried = clipped_relu(conv(carried, mask)[0])
            done.append(carried)
        x, _ = self.expand(torch.cat([*done, *parts[len(done) :]], dim=1), mask)
        return clipped_relu(x + passed), mask


class AttentiveFusion(nn.Module):
    """`(1 + a) x + (1 - a) y`, the weights a in (-1, 1) made of both.

    Attentional feature fusion, in the form of Chen et al., Interspeech 2023.

    Args:
        channels: of each of the two images.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels < FUSION_REDUCTION:
            raise ValueError(
                f"channels: attentive fusion of {channels} channels; {FUSION_REDUCTION} or more are needed, "
                "from more channels, or a greater base_width or expansion"
            )
        inner = channels // FUSION_REDUCTION
        self.attention = nn.Sequential(
            nn.Conv2d(2 * channels, inner, 1),
            nn.BatchNorm2d(inner),
            nn.SiLU(),
            nn.Conv2d(inner, channels, 1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        balance = torch.tanh(self.attention(torch.cat([x, y], dim=1)))
        return x * (1 + balance) + y * (1 - balance)


def through(blocks: nn.ModuleList, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """An image and its mask through blocks, one after the other."""
    for block in blocks:
        x, mask = block(x, mask)
    return x, mask


def clipped_relu(x: Tensor) -> Tensor:
    """Between 0 and 20: no activation grows without end."""
    return functional.hardtanh(x, 0.0, 20.0)


@speaker_networks.register("eres2net")
class ERes2Net(Res2Net):
    """Res2Net that weighs features against each other: parts within a block (local), and stages (global).

    The last two stages fuse locally; from the second on, each stage's image is fused with what the ones before it
    made, halved in size.

    Args:
        num_mel_bins: size of a filterbank frame (given by the front end).
        num_blocks: blocks of each stage.
        channels: of the first stage; 32 is the published base, 64 the large one.
        embedding_dim: size of the embedding.
        base_width: width of a part, per 64 channels of a stage.
        scale: parts into which a block's channels are split.
        expansion: channels that leave a block, per channel of its stage.
        pooling: a pooling's name, or `{name: …, …}`; see `pooling`.
        second_layer: ReLU, batch normalisation and another linear layer make the embedding.

    Raises:
        ValueError: not four numbers of blocks, one below 1, or too few channels to fuse.

    >>> import torch
    >>> ERes2Net(num_blocks=(1, 1, 1, 1), channels=4, embedding_dim=8)(torch.randn(2, 50, 80)).embedding.shape
    torch.Size([2, 8])
    """

    def __init__(
        self,
        num_mel_bins: int = 80,
        num_blocks: tuple[int, ...] = (3, 4, 6, 3),
        channels: int = 32,
        embedding_dim: int = 512,
        base_width: int = 32,
        scale: int = 2,
        expansion: int = 2,
        pooling: str | dict[str, Any] = "tstp",
        second_layer: bool = False,
    ) -> None:
        super().__init__(
            num_mel_bins, num_blocks, channels, embedding_dim, base_width, scale, expansion, pooling, second_layer
        )
        widths = [expansion * channels * 2**stage for stage in range(STAGES)]
        self.downsamples = nn.ModuleList(nn.Conv2d(w, 2 * w, 3, 2, 1, bias=False) for w in widths[:-1])
        self.fusions = nn.ModuleList(AttentiveFusion(w) for w in widths[1:])

    def _block(self, stage: int, *sizes: int) -> Res2Block:
        return Res2Block(*sizes, attentive=stage >= 2)

    def _trunk(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x, mask = through(self.stages[0], x, mask)
        fused = x
        for blocks, downsample, fusion in zip(self.stages[1:], self.downsamples, self.fusions, strict=True):
            before = downsample(fused * mask[:, None, None])
            x, mask = through(blocks, x, mask)
            fused = fusion(x, before)
        return fused, mask
