"""Res2Net and ERes2Net, on the filterbank as an image.

- Res2Net: Gao et al., "Res2Net: a new multi-scale backbone architecture", TPAMI 2019.
- ERes2Net, a Res2Net with local and global feature fusion: Chen et al., Interspeech 2023.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wesep_py.network.speaker.speaker_network import ConvNorm, PooledNetwork, shortcut, speaker_networks

NUM_STAGES = 4
FULL_WIDTH = 64
"""Channels of a stage to which `base_width` refers."""
FUSION_REDUCTION = 4
"""An attentive fusion reduces the channels by this factor inside."""


@speaker_networks.register("res2net")
class Res2Net(PooledNetwork):
    """Four stages of residual blocks whose 3×3 convolutions work on parts of the channels, one after the other.

    The second and later stages halve frequency and time, and double the channels.

    Args:
        num_mel_bins: number of mel bins (given by the front end).
        num_blocks: number of blocks of each stage.
        channels: number of channels of the first stage.
        embedding_dim: size of the embedding.
        base_width: channels of a part, per 64 channels of a stage.
        scale: number of parts into which a block's channels are split.
        expansion: output channels of a block, per channel of its stage.
        pooling: name of a pooling, or `{name: …, …}`; see `pooling`.
        second_layer: put ReLU, batch normalisation and another linear layer before the embedding.

    Raises:
        ValueError: `num_blocks` are not four numbers of 1 or more, or a part would have no channel.

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
        if len(num_blocks) != NUM_STAGES or min(num_blocks) < 1:
            raise ValueError(f"num_blocks: is {list(num_blocks)}; four numbers, each 1 or more, are needed")
        if scale < 2:
            raise ValueError(f"scale: is {scale}; 2 or more parts are needed")
        if expansion < 1:
            raise ValueError(f"expansion: is {expansion}; 1 or more is needed")
        if channels * base_width < FULL_WIDTH:
            raise ValueError(
                f"base_width: is {base_width}, which with {channels} channels leaves the parts of a block empty; "
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
        """Return the frames to be pooled and their mask; see `PoolingNetwork.encode`."""
        x, mask = self.stem(features.transpose(1, 2)[:, None], mask)
        x, mask = self._trunk(torch.relu(x), mask)
        return x.flatten(1, 2) * mask[:, None], mask

    def _block(self, stage: int, *sizes: int) -> Res2Block:
        """Return a block of a stage; `sizes` are the first six arguments of `Res2Block`."""
        return Res2Block(*sizes, pass_last=True)

    def _trunk(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the image to be pooled, and its mask, for that of the stem."""
        for blocks in self.stages:
            x, mask = run_blocks(blocks, x, mask)
        return x, mask


class Res2Block(nn.Module):
    """Residual block `relu(x + f(x))` whose 3×3 convolutions each take a part of the channels and the result before.

    With `scale` 3:

        part 0 ── conv ──┬────────────────────────► ┐
        part 1 ────────► + ── conv ──┬────────────► ├─ concatenate, expand
        part 2 ────────────────────► + ── conv ───► ┘     (`pass_last`: part 2 itself)

    Args:
        in_channels: channels of the input.
        channels: of the stage.
        stride: in frequency and time.
        width: number of channels of a part.
        scale: number of parts.
        expansion: output channels, per channel of the stage.
        pass_last: leave the last part as it is.
        attentive: weight each part against the result before (`AttentiveFusion`) instead of adding them.
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
        residual = x if self.shortcut is None else self.shortcut(x, mask)[0]
        x, mask = self.reduce(x, mask)
        parts = clipped_relu(x).split(self.width, dim=1)
        current, results = parts[0], []
        for i, conv in enumerate(self.convs):
            if i and self.fusions is None:
                current = current + parts[i]
            elif i:
                current = self.fusions[i - 1](current, parts[i])
            current = clipped_relu(conv(current, mask)[0])
            results.append(current)
        x, _ = self.expand(torch.cat([*results, *parts[len(results) :]], dim=1), mask)
        return clipped_relu(x + residual), mask


class AttentiveFusion(nn.Module):
    """`(1 + a) x + (1 - a) y`, with weights a in (-1, 1) that are computed of both.

    Attentional feature fusion, in the form of Chen et al., Interspeech 2023.

    Args:
        channels: number of channels of each of the two images.
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


def run_blocks(blocks: nn.ModuleList, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return an image and its mask after all of the blocks."""
    for block in blocks:
        x, mask = block(x, mask)
    return x, mask


def clipped_relu(x: Tensor) -> Tensor:
    """Return the values clipped to 0 to 20, so that no activation grows without bound."""
    return functional.hardtanh(x, 0.0, 20.0)


@speaker_networks.register("eres2net")
class ERes2Net(Res2Net):
    """Res2Net with attentive fusion of the parts within a block (local), and of the stages (global).

    The last two stages fuse locally. From the second stage on, the image of a stage is fused with the fused image of
    the stages before it, at half its size.

    Args:
        num_mel_bins: number of mel bins (given by the front end).
        num_blocks: number of blocks of each stage.
        channels: number of channels of the first stage; 32 is the published base, 64 the large one.
        embedding_dim: size of the embedding.
        base_width: channels of a part, per 64 channels of a stage.
        scale: number of parts into which a block's channels are split.
        expansion: output channels of a block, per channel of its stage.
        pooling: name of a pooling, or `{name: …, …}`; see `pooling`.
        second_layer: put ReLU, batch normalisation and another linear layer before the embedding.

    Raises:
        ValueError: `num_blocks` are not four numbers of 1 or more, or there are too few channels to fuse.

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
        widths = [expansion * channels * 2**stage for stage in range(NUM_STAGES)]
        self.downsamples = nn.ModuleList(nn.Conv2d(w, 2 * w, 3, 2, 1, bias=False) for w in widths[:-1])
        self.fusions = nn.ModuleList(AttentiveFusion(w) for w in widths[1:])

    def _block(self, stage: int, *sizes: int) -> Res2Block:
        return Res2Block(*sizes, attentive=stage >= 2)

    def _trunk(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x, mask = run_blocks(self.stages[0], x, mask)
        fused = x
        for blocks, downsample, fusion in zip(self.stages[1:], self.downsamples, self.fusions, strict=True):
            before = downsample(fused * mask[:, None, None])
            x, mask = run_blocks(blocks, x, mask)
            fused = fusion(x, before)
        return fused, mask
