"""The layers of DPCCN on `[batch, channels, frames, bins]`, each with a causal form that goes on from its past."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wesep_py.backbones.bands import full_precision

NORM_EPS = 1e-5
OF_TIME = 3
"""Frames that every convolution sees."""


class History:
    """What causal convolutions have seen before, in the order in which they ask; or nothing, for the others.

    Args:
        causal: whether there is a past at all.
        kept: `new` of the stretch before; `None` at the start of a recording, where the past is zeros.
    """

    def __init__(self, causal: bool, kept: Sequence[Tensor] | None = None) -> None:
        self.causal = causal
        self._kept = None if kept is None else iter(kept)
        self.new: list[Tensor] = []

    def prepend(self, x: Tensor, count: int) -> Tensor:
        """`x` with the `count` elements before it on axis 2, which the next stretch will find from here on."""
        past = x.new_zeros(*x.shape[:2], count, *x.shape[3:]) if self._kept is None else next(self._kept)
        joined = torch.cat([past, x], dim=2)
        self.new.append(joined[:, :, x.shape[2] :])
        return joined


@dataclass(frozen=True)
class BinStep:
    """How a convolution halves a number of bins, and how its mirror image gives exactly as many back.

    Attributes:
        kernel, padding: along the bins; the stride is 2.
        output_padding: of the transposed convolution.
        bins: how many are left.
    """

    kernel: int
    padding: int
    output_padding: int
    bins: int

    @classmethod
    def halving(cls, bins: int, padded: bool) -> BinStep:
        """The step from `bins` on.

        >>> BinStep.halving(257, padded=False).bins, BinStep.halving(257, padded=True).bins
        (128, 129)
        """
        kernel, padding = (3, 1) if padded else (min(3, bins), 0)
        left = (bins + 2 * padding - kernel) // 2 + 1
        return cls(kernel, padding, bins - (2 * (left - 1) + kernel - 2 * padding), left)


def normalise(x: Tensor, over_time: bool) -> Tensor:
    """Zero mean and unit variance, without weights.

    Args:
        x: `[batch, channels, frames]` or `[batch, channels, frames, bins]`.
        over_time: each channel over its frames and bins (instance normalisation), or each frame over its channels
            and bins, which is what a causal network may know.
    """
    x = full_precision(x)
    if over_time:
        return F.layer_norm(x, x.shape[2:], eps=NORM_EPS)
    frames_first = x.transpose(1, 2)
    return F.layer_norm(frames_first, frames_first.shape[2:], eps=NORM_EPS).transpose(1, 2)


class ConvBlock(nn.Module):
    """Convolution over three frames and three bins (or as `step` says, halving the bins), ELU, normalisation."""

    def __init__(
        self, in_channels: int, out_channels: int, over_time: bool, causal: bool, step: BinStep | None = None
    ) -> None:
        super().__init__()
        self.over_time = over_time
        kernel, stride, padding = (3, 1, 1) if step is None else (step.kernel, 2, step.padding)
        before = 0 if causal else OF_TIME // 2
        self.conv = nn.Conv2d(in_channels, out_channels, (OF_TIME, kernel), (1, stride), (before, padding))

    def forward(self, x: Tensor, history: History) -> Tensor:
        """`[batch, in_channels, frames, bins]` → `[batch, out_channels, frames, bins or step.bins]`."""
        if history.causal:
            x = history.prepend(x, OF_TIME - 1)
        return normalise(F.elu(self.conv(x)), self.over_time)


class TransposedBlock(nn.Module):
    """The mirror image of a `ConvBlock` with a step: transposed convolution, ELU, normalisation."""

    def __init__(self, in_channels: int, out_channels: int, over_time: bool, causal: bool, step: BinStep) -> None:
        super().__init__()
        self.over_time = over_time
        # The output's frames that a causal one drops belong to the two that it is given from before.
        before = OF_TIME - 1 if causal else OF_TIME // 2
        self.conv = nn.ConvTranspose2d(
            in_channels,
            out_channels,
            (OF_TIME, step.kernel),
            (1, 2),
            (before, step.padding),
            output_padding=(0, step.output_padding),
        )

    def forward(self, x: Tensor, history: History) -> Tensor:
        """`[batch, in_channels, frames, step.bins]` → `[batch, out_channels, frames, bins]`."""
        if history.causal:
            x = history.prepend(x, OF_TIME - 1)
        return normalise(F.elu(self.conv(x)), self.over_time)


class DenseBlock(nn.Module):
    """Convolution blocks of which each sees the input and the outputs of all before it; the last one's is returned.

    Args:
        in_channels, out_channels: of the block.
        growth: channels of every layer but the last.
        num_layers: how many, at least 1.
    """

    def __init__(
        self, in_channels: int, growth: int, out_channels: int, num_layers: int, over_time: bool, causal: bool
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            ConvBlock(in_channels + i * growth, growth if i < num_layers - 1 else out_channels, over_time, causal)
            for i in range(num_layers)
        )

    def forward(self, x: Tensor, history: History) -> Tensor:
        """`[batch, in_channels, frames, bins]` → `[batch, out_channels, frames, bins]`."""
        seen = out = x
        for layer in self.layers:
            out = layer(seen, history)
            seen = torch.cat([seen, out], dim=1)
        return out


class TemporalBlock(nn.Module):
    """`x + W · ELU(norm(depthwise(ELU(norm(x)))))` along the last axis of `[batch, channels, length]`."""

    def __init__(self, channels: int, dilation: int, over_time: bool, causal: bool) -> None:
        super().__init__()
        self.over_time, self.reach = over_time, (OF_TIME - 1) * dilation
        padding = 0 if causal else dilation
        self.depthwise = nn.Conv1d(channels, channels, OF_TIME, padding=padding, dilation=dilation, groups=channels)
        self.pointwise = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, history: History) -> Tensor:
        out = F.elu(normalise(x, self.over_time))
        if history.causal:
            out = history.prepend(out, self.reach)
        out = F.elu(normalise(self.depthwise(out), self.over_time))
        return x + self.pointwise(out)


class PyramidPooling(nn.Module):
    """Means over squares of several sizes, beside what they were taken from: `W [x; W₁ mean₄(x); W₂ mean₈(x); …]`.

    Args:
        channels: of input and output.
        sizes: frames and bins of the squares; what is over at the end is left out.
        pooled_channels: of each size.
        over_time: squares, or runs of bins within each frame.
    """

    def __init__(self, channels: int, sizes: Sequence[int], pooled_channels: int, over_time: bool) -> None:
        super().__init__()
        self.sizes, self.over_time = tuple(sizes), over_time
        self.reduce = nn.ModuleList(nn.Conv2d(channels, pooled_channels, 1) for _ in sizes)
        self.project = nn.Conv2d(channels + len(self.sizes) * pooled_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, channels, frames, bins]` → the same."""
        frames, bins = x.shape[2:]
        parts = [x]
        for size, reduce in zip(self.sizes, self.reduce, strict=True):
            kernel = (min(size, frames) if self.over_time else 1, min(size, bins))
            pooled = full_precision(reduce(F.avg_pool2d(x, kernel)))
            parts.append(F.interpolate(pooled, size=(frames, bins), mode="bilinear", align_corners=False))
        return self.project(torch.cat(parts, dim=1))
