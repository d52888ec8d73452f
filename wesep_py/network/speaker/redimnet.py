"""ReDimNet: Yakovlev et al., "Reshape dimensions network for speaker recognition" (Interspeech 2024).

Its features have two forms, which hold the same values:

    2-D   [batch, channels, bins, frames]      for convolutions over frequency and time
    1-D   [batch, bins · channels, frames]     for context over time, and to mix the outputs of stages (`join_axes`)

A stage that halves the bins doubles the channels, so the 1-D form keeps its size through the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wesep_py.network.speaker.pooling import masked_statistics
from wesep_py.network.speaker.speaker_network import PooledNetwork, speaker_networks

BlockKind = Literal["convnext", "resnet", "resnet_se"]
CONTEXT_KERNELS = (7, 19, 31, 59)
NUM_ATTENTION_HEADS = 4
NORM_EPS = 1e-6


def zero_after_end(x: Tensor, mask: Tensor) -> Tensor:
    """Return `[batch, …, frames]` with zeros after the end of each recording, as a convolution pads its input."""
    return x * mask.reshape(mask.shape[0], *[1] * (x.dim() - 2), mask.shape[1])


def num_groups(channels: int, group_size: int | None) -> int:
    """Return the number of whole groups of `group_size` channels, at least 1; 1 if it is `None`.

    A remainder makes the groups larger: 12 channels in groups of 8 are one group of 12.

    Raises:
        ValueError: this number does not divide the channels.
    """
    groups = 1 if group_size is None else max(channels // group_size, 1)
    if channels % groups:
        raise ValueError(f"group_size: is {group_size}; one that divides {channels} channels is needed")
    return groups


class ChannelLayerNorm(nn.LayerNorm):
    """Layer normalisation over the channels of `[batch, channels, …]`."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class ConvNeXtBlock(nn.Module):
    """`x + pointwise(gelu(norm(conv(x))))`, after Liu et al., "A ConvNet for the 2020s" (CVPR 2022).

    Args:
        channels: of input and output.
        kernel_size: of the grouped convolution, odd.
        group_size: channels per group; `None`: one group.
        axes: 1 for `[batch, channels, frames]`, 2 for `[batch, channels, bins, frames]`.
    """

    def __init__(self, channels: int, kernel_size: int, group_size: int | None, axes: Literal[1, 2]) -> None:
        super().__init__()
        conv, norm = {1: (nn.Conv1d, nn.BatchNorm1d), 2: (nn.Conv2d, nn.BatchNorm2d)}[axes]
        groups = num_groups(channels, group_size)
        self.conv = conv(channels, channels, kernel_size, padding=kernel_size // 2, groups=groups)
        self.norm = norm(channels)
        self.pointwise = conv(channels, channels, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x + self.pointwise(F.gelu(self.norm(self.conv(zero_after_end(x, mask)))))


class ReDimNetResidualBlock(nn.Module):
    """`relu(x + f(x))` with two 3×3 convolutions; the first normalisation comes after the ReLU.

    Args:
        channels: of input and output.
        num_bins: number of frequency bins.
        group_size: channels per group of the convolutions, each of which is followed by a 1×1 convolution; `None`:
            one group, and no 1×1 convolution.
        squeeze_excite: weight each frequency bin.
    """

    def __init__(self, channels: int, num_bins: int, group_size: int | None, squeeze_excite: bool) -> None:
        super().__init__()
        groups = num_groups(channels, group_size)
        self.convs = nn.ModuleList()
        for _ in range(2):
            conv = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False))
            if group_size is not None:
                conv.append(nn.Conv2d(channels, channels, 1))
            self.convs.append(conv)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(2))
        self.excite = FrequencyExcite(num_bins, min(64, max(channels, 32))) if squeeze_excite else None

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        out = self.norms[0](torch.relu(self.convs[0](zero_after_end(x, mask))))
        out = self.norms[1](self.convs[1](zero_after_end(out, mask)))
        if self.excite is not None:
            out = self.excite(out, mask)
        return torch.relu(x + out)


class FrequencyExcite(nn.Module):
    """A weight for each bin, from the mean over channels and valid frames (Thienpondt et al., Interspeech 2021)."""

    def __init__(self, num_bins: int, bottleneck: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(num_bins, bottleneck)
        self.linear2 = nn.Linear(bottleneck, num_bins)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        mean, _ = masked_statistics(x.mean(dim=1).float(), mask)
        weights = torch.sigmoid(self.linear2(torch.relu(self.linear1(mean.squeeze(2).to(x.dtype)))))
        return x * weights[:, None, :, None]


def build_block(kind: BlockKind, channels: int, num_bins: int, group_size: int | None) -> nn.Module:
    """Build a 2-D block, which takes `[batch, channels, bins, frames]` and the mask of valid frames."""
    if kind == "convnext":
        return ConvNeXtBlock(channels, 3, group_size, axes=2)
    return ReDimNetResidualBlock(channels, num_bins, group_size, squeeze_excite=kind == "resnet_se")


class ContextBlock(nn.Module):
    """Context over time with fewer channels: depthwise convolutions of growing kernel size, then attention; residual.

    Args:
        channels: of input and output, `[batch, channels, frames]`.
        hidden: the reduced number of channels, a multiple of 4 (the attention's heads).
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Conv1d(channels, hidden, 1)
        self.norm = ChannelLayerNorm(hidden)
        self.convs = nn.ModuleList(ConvNeXtBlock(hidden, size, 1, axes=1) for size in CONTEXT_KERNELS)
        self.attention = AttentionLayer(hidden)
        self.expand = nn.Conv1d(hidden, channels, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        context = self.norm(self.reduce(x))
        for conv in self.convs:
            context = conv(context, mask)
        context = self.attention(context.transpose(1, 2), mask).transpose(1, 2)
        return x + self.expand(context)


class AttentionLayer(nn.Module):
    """Self-attention among the valid frames, then two linear layers; each is added to its input, then normalised.

    As in Vaswani et al., NeurIPS 2017.

    Args:
        channels: of input and output, `[batch, frames, channels]`; a multiple of 4 (the heads).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.project = nn.Linear(channels, channels)
        self.attention_norm = nn.LayerNorm(channels, eps=NORM_EPS)
        self.linear1 = nn.Linear(channels, channels)
        self.linear2 = nn.Linear(channels, channels)
        self.norm = nn.LayerNorm(channels, eps=NORM_EPS)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        query, key, value = (
            layer(x).unflatten(2, (NUM_ATTENTION_HEADS, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None])
        x = self.attention_norm(x + self.project(attended.transpose(1, 2).flatten(2)))
        return self.norm(x + self.linear2(F.gelu(self.linear1(x), approximate="tanh")))


@dataclass
class ReDimNetStage:
    """The configuration of one stage of ReDimNet.

    Attributes:
        stride: factor by which the frequency bins are reduced and the channels increased.
        num_blocks: number of 2-D blocks.
        width: channels inside the stage, as a multiple of those at its ends.
        context_reduction: factor by which the 1-D context block reduces the features; `null`: no such block.
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
    """Stages of 2-D and 1-D blocks, each of which takes a mix of the outputs of all stages before it.

    The input of a stage is the average of the earlier outputs, with learned weights for each feature. It is split into
    channels and frequency for the 2-D blocks, and joined again for a 1-D block over time. Time is never strided. The
    defaults are the size B2, except for the global context of its pooling.

    Args:
        num_mel_bins: number of mel bins (given by the front end); a multiple of the product of the strides.
        channels: number of channels after the first convolution.
        stages: see `ReDimNetStage`.
        block: the 2-D blocks: `convnext`, `resnet`, or `resnet_se`, which weights each frequency bin.
        group_size: channels per group of the 3×3 convolutions; `null`: one group.
        frame_dim: size of the frames after a last 1×1 convolution; `null`: there is none, and the size is
            `channels · num_mel_bins`.
        embedding_dim: size of the embedding.
        pooling: name of a pooling, or `{name: …, …}`; see `pooling`. Published: `{name: astp, global_context: true}`.
        second_layer: put ReLU, batch normalisation and another linear layer before the embedding.

    Raises:
        ValueError: a size is out of range, or does not divide another one.

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
        self.stem_norm = ChannelLayerNorm(channels)
        self.stages = nn.ModuleList()
        for stage in stages:
            self.stages.append(ReDimNetStageLayers(stage, channels, num_mel_bins, block, group_size))
            channels, num_mel_bins = channels * stage.stride, num_mel_bins // stage.stride
        # Weights for the input of each stage but the first, and for what is pooled: mix i is of i + 2 outputs.
        self.mixes = nn.ParameterList(nn.Parameter(torch.zeros(count + 2, size, 1)) for count in range(len(stages)))
        self.aggregate = None
        if frame_dim is not None:
            self.aggregate = nn.Sequential(nn.Conv1d(size, frame_dim, 1), nn.BatchNorm1d(frame_dim))
        self.add_head(size if frame_dim is None else frame_dim, embedding_dim, pooling, second_layer)

    def encode(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the frames to be pooled and their mask; see `PoolingNetwork.encode`."""
        x = self.stem_norm(self.stem(zero_after_end(features.transpose(1, 2)[:, None], mask)))
        outputs = [join_axes(x)]
        x = outputs[0]
        for stage, mix in zip(self.stages, self.mixes, strict=True):
            outputs.append(stage(x, mask))
            x = sum(weight * output for weight, output in zip(mix.softmax(dim=0), outputs, strict=True))
        return zero_after_end(x if self.aggregate is None else self.aggregate(x), mask), mask


class ReDimNetStageLayers(nn.Module):
    """The layers of one stage, from `[batch, bins · channels, frames]` to the same shape.

    Args:
        config: see `ReDimNetStage`.
        channels, num_bins: into which the input is split.
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
                nn.BatchNorm2d(channels, eps=NORM_EPS),
                nn.GELU(),
                nn.Conv2d(channels, channels, 1),
            )
        self.context = None
        if config.context_reduction is not None:
            hidden = size // config.context_reduction
            if hidden < NUM_ATTENTION_HEADS or hidden % NUM_ATTENTION_HEADS:
                raise ValueError(
                    f"context_reduction: is {config.context_reduction}, of {size} features (channels · num_mel_bins); "
                    f"what it leaves ({hidden}) has to be a multiple of {NUM_ATTENTION_HEADS}"
                )
            self.context = ContextBlock(size, hidden)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.expand(split_axes(x, self.num_bins))
        for block in self.blocks:
            x = block(x, mask)
        if self.squeeze is not None:
            x = self.squeeze(zero_after_end(x, mask))
        x = join_axes(x)
        return x if self.context is None else self.context(x, mask)


def join_axes(x: Tensor) -> Tensor:
    """Return `[batch, bins · channels, frames]` of `[batch, channels, bins, frames]`, bin by bin."""
    return x.transpose(1, 2).flatten(1, 2)


def split_axes(x: Tensor, num_bins: int) -> Tensor:
    """Return `[batch, channels, bins, frames]` of `[batch, bins · channels, frames]`; the inverse of `join_axes`.

    >>> x = torch.randn(2, 3, 4, 5)
    >>> torch.equal(split_axes(join_axes(x), 4), x)
    True
    """
    return x.unflatten(1, (num_bins, -1)).transpose(1, 2)
