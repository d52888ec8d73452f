"""The blocks of ReDimNet: on channels, frequency and time (2-D), and on what they make when put together (1-D)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wesep_py.speaker.pooling import masked_statistics

BlockKind = Literal["convnext", "resnet", "resnet_se"]
CONTEXT_KERNELS = (7, 19, 31, 59)
NUM_HEADS = 4
EPS = 1e-6


def masked(x: Tensor, mask: Tensor) -> Tensor:
    """`[batch, …, frames]` with zeros past the end of each recording, as a convolution pads its input."""
    return x * mask.reshape(mask.shape[0], *[1] * (x.dim() - 2), mask.shape[1])


def num_groups(channels: int, group_size: int | None) -> int:
    """How many whole groups of `group_size` channels there are; one where it is `None`, and one at least.

    What is left over makes the groups larger: 12 channels, 8 a group, are one group of 12.

    Raises:
        ValueError: that number does not divide the channels.
    """
    groups = 1 if group_size is None else max(channels // group_size, 1)
    if channels % groups:
        raise ValueError(f"group_size: is {group_size}; one that divides {channels} channels is needed")
    return groups


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of `[batch, channels, …]`."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class ConvNeXtBlock(nn.Module):
    """`x + pointwise(gelu(norm(conv(x))))`, after Liu et al., "A ConvNet for the 2020s" (CVPR 2022).

    Args:
        channels: of input and output.
        kernel_size: of the grouped convolution, odd.
        group_size: channels a group, or `None`: all in one.
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
        return x + self.pointwise(F.gelu(self.norm(self.conv(masked(x, mask)))))


class ResidualBlock(nn.Module):
    """`relu(x + f(x))` with two 3×3 convolutions; normalisation follows the first one's ReLU.

    Args:
        channels: of input and output.
        num_bins: size of the frequency axis.
        group_size: channels a group of the convolutions, each then followed by a 1×1 convolution; `None`: all in
            one, and no 1×1 convolution.
        squeeze_excite: a weight for each bin of frequency.
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
        out = self.norms[0](torch.relu(self.convs[0](masked(x, mask))))
        out = self.norms[1](self.convs[1](masked(out, mask)))
        if self.excite is not None:
            out = self.excite(out, mask)
        return torch.relu(x + out)


class FrequencyExcite(nn.Module):
    """A weight for every bin, from the mean over channels and valid frames (Thienpondt et al., Interspeech 2021)."""

    def __init__(self, num_bins: int, bottleneck: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(num_bins, bottleneck)
        self.linear2 = nn.Linear(bottleneck, num_bins)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        mean, _ = masked_statistics(x.mean(dim=1).float(), mask)
        weights = torch.sigmoid(self.linear2(torch.relu(self.linear1(mean.squeeze(2).to(x.dtype)))))
        return x * weights[:, None, :, None]


def build_block(kind: BlockKind, channels: int, num_bins: int, group_size: int | None) -> nn.Module:
    """A 2-D block, which takes `[batch, channels, bins, frames]` and the mask of valid frames."""
    if kind == "convnext":
        return ConvNeXtBlock(channels, 3, group_size, axes=2)
    return ResidualBlock(channels, num_bins, group_size, squeeze_excite=kind == "resnet_se")


class ContextBlock(nn.Module):
    """Context over time at a reduced width: depthwise convolutions with ever longer kernels, then attention; residual.

    Args:
        channels: of input and output, `[batch, channels, frames]`.
        hidden: the reduced width, a multiple of 4 (the attention's heads).
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Conv1d(channels, hidden, 1)
        self.norm = ChannelNorm(hidden)
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
    """Self-attention among the valid frames, then two linear layers; each is added, then normalised.

    Vaswani et al., NeurIPS 2017, except that the second normalisation sees the output of the first with the linear
    layers' added.

    Args:
        channels: of input and output, `[batch, frames, channels]`; a multiple of 4 (the heads).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.project = nn.Linear(channels, channels)
        self.attention_norm = nn.LayerNorm(channels, eps=EPS)
        self.linear1 = nn.Linear(channels, channels)
        self.linear2 = nn.Linear(channels, channels)
        self.norm = nn.LayerNorm(channels, eps=EPS)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        query, key, value = (
            layer(x).unflatten(2, (NUM_HEADS, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None])
        x = self.attention_norm(x + self.project(seen.transpose(1, 2).flatten(2)))
        return self.norm(x + self.linear2(F.gelu(self.linear1(x), approximate="tanh")))
