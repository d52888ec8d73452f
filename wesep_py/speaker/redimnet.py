"""ReDimNet: Yakovlev et al., "Reshape dimensions network for speaker recognition" (Interspeech 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from wesep_py.speaker.base import speaker_networks
from wesep_py.speaker.pooled import PooledNetwork
from wesep_py.speaker.redimnet_blocks import (
    EPS,
    NUM_HEADS,
    BlockKind,
    ChannelNorm,
    ContextBlock,
    build_block,
    masked,
    num_groups,
)


@dataclass
class ReDimNetStage:
    """One stage of ReDimNet.

    Attributes:
        stride: bins of frequency that become one, with as many times the channels.
        num_blocks: 2-D blocks.
        width: channels inside the stage, as a multiple of those that go in and out.
        context_reduction: the 1-D context block is narrower than the features by this factor; `null`: no such block.
    """

    stride: int
    num_blocks: int
    width: int = 1
    context_reduction: int | None = None

    def __post_init__(self) -> None:
        for name in ("stride", "num_blocks", "width", "context_reduction"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: is {value}; 1 or more is needed")


B2_STAGES = (
    ReDimNetStage(1, 2, 1, 12),
    ReDimNetStage(2, 2, 1, 12),
    ReDimNetStage(1, 3, 1, 12),
    ReDimNetStage(2, 4, 1, 8),
    ReDimNetStage(1, 4, 1, 8),
    ReDimNetStage(2, 4, 1, 4),
)


@speaker_networks.register("redimnet")
class ReDimNet(PooledNetwork):
    """Stages whose outputs all have one size when channels and frequency are one axis, so that each sees all before.

    A stage's input is the average of the outputs before it, with learned weights for each feature; it is
    taken apart into channels and frequency for 2-D blocks, and put together again for a 1-D block over time. Time is
    never strided. The defaults are the size B2, but for the global context of its pooling.

    Args:
        num_mel_bins: size of a filterbank frame (given by the front end); a multiple of the product of the strides.
        channels: after the first convolution.
        stages: see `ReDimNetStage`.
        block: the 2-D blocks: `convnext`, `resnet`, or `resnet_se` with a weight for each bin of frequency.
        group_size: channels in each group of the 3×3 convolutions; `null`: all in one.
        frame_dim: a last 1×1 convolution makes frames of this size; `null`: none, frames have
            `channels · num_mel_bins`.
        embedding_dim: size of the embedding.
        pooling: a pooling's name, or `{name: …, …}`; see `pooling`. Published: `{name: astp, global_context: true}`.
        second_layer: ReLU, batch normalisation and another linear layer make the embedding.

    Raises:
        ValueError: sizes that do not divide one another as they must.

    >>> stages = (ReDimNetStage(1, 1), ReDimNetStage(2, 1, 1, 4))
    >>> ReDimNet(16, channels=4, stages=stages, embedding_dim=8)(torch.randn(2, 100, 16)).embedding.shape
    torch.Size([2, 8])
    """

    def __init__(
        self,
        num_mel_bins: int = 72,
        channels: int = 16,
        stages: tuple[ReDimNetStage, ...] = B2_STAGES,
        block: BlockKind = "convnext",
        group_size: int | None = 4,
        frame_dim: int | None = None,
        embedding_dim: int = 192,
        pooling: str | dict[str, Any] = "astp",
        second_layer: bool = False,
    ) -> None:
        super().__init__()
        stride = prod(stage.stride for stage in stages)
        if num_mel_bins % stride:
            raise ValueError(f"num_mel_bins: is {num_mel_bins}; the stages' strides need a multiple of {stride}")
        if group_size is not None and group_size < 1:
            raise ValueError(f"group_size: is {group_size}; 1 or more is needed, or null")
        if frame_dim is not None and frame_dim < 1:
            raise ValueError(f"frame_dim: is {frame_dim}; 1 or more is needed, or null")
        size = channels * num_mel_bins
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.stem_norm = ChannelNorm(channels)
        self.stages = nn.ModuleList()
        for stage in stages:
            self.stages.append(Stage(stage, channels, num_mel_bins, block, group_size))
            channels, num_mel_bins = channels * stage.stride, num_mel_bins // stage.stride
        # One for the input of each stage but the first, and one for what is pooled.
        self.mixes = nn.ParameterList(nn.Parameter(torch.zeros(count + 2, size, 1)) for count in range(len(stages)))
        self.aggregate = None
        if frame_dim is not None:
            self.aggregate = nn.Sequential(nn.Conv1d(size, frame_dim, 1), nn.BatchNorm1d(frame_dim))
        self.add_head(size if frame_dim is None else frame_dim, embedding_dim, pooling, second_layer)

    def encode(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem_norm(self.stem(masked(features.transpose(1, 2)[:, None], mask)))
        outputs = [together(x)]
        x = outputs[0]
        for stage, mix in zip(self.stages, self.mixes, strict=True):
            outputs.append(stage(x, mask))
            x = sum(weight * output for weight, output in zip(mix.softmax(dim=0), outputs, strict=True))
        return masked(x if self.aggregate is None else self.aggregate(x), mask), mask


class Stage(nn.Module):
    """`[batch, channels · bins, frames]` and the mask of valid frames → the same shape.

    Args:
        config: see `ReDimNetStage`.
        channels, num_bins: into which the input is taken apart.
        block, group_size: see `ReDimNet`.
    """

    def __init__(
        self, config: ReDimNetStage, channels: int, num_bins: int, block: BlockKind, group_size: int | None
    ) -> None:
        super().__init__()
        stride, size = config.stride, channels * num_bins
        self.num_bins = num_bins
        channels, num_bins = channels * stride, num_bins // stride
        inner = channels * config.width
        self.expand = nn.Conv2d(channels // stride, inner, (stride, 1), (stride, 1))
        self.blocks = nn.ModuleList(build_block(block, inner, num_bins, group_size) for _ in range(config.num_blocks))
        self.squeeze = None
        if config.width > 1:
            groups = num_groups(channels, group_size)
            self.squeeze = nn.Sequential(
                nn.Conv2d(inner, channels, 3, padding=1, groups=groups),
                nn.BatchNorm2d(channels, eps=EPS),
                nn.GELU(),
                nn.Conv2d(channels, channels, 1),
            )
        self.context = None
        if config.context_reduction is not None:
            hidden = size // config.context_reduction
            if hidden < NUM_HEADS or hidden % NUM_HEADS:
                raise ValueError(
                    f"context_reduction: is {config.context_reduction}, of {size} features (channels · num_mel_bins); "
                    f"what it leaves ({hidden}) has to be a multiple of {NUM_HEADS}"
                )
            self.context = ContextBlock(size, hidden)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.expand(apart(x, self.num_bins))
        for block in self.blocks:
            x = block(x, mask)
        if self.squeeze is not None:
            x = self.squeeze(masked(x, mask))
        x = together(x)
        return x if self.context is None else self.context(x, mask)


def together(x: Tensor) -> Tensor:
    """`[batch, channels, bins, frames]` → `[batch, bins · channels, frames]`, the channels of a bin side by side."""
    return x.transpose(1, 2).flatten(1, 2)


def apart(x: Tensor, num_bins: int) -> Tensor:
    """The inverse of `together`.

    >>> x = torch.randn(2, 3, 4, 5)
    >>> torch.equal(apart(together(x), 4), x)
    True
    """
    return x.unflatten(1, (num_bins, -1)).transpose(1, 2)
