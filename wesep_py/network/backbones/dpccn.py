"""DPCCN: a U-Net of densely connected convolutions with a temporal convolution network between its halves.

Han et al., "DPCCN: densely-connected pyramid complex convolutional network for robust speech separation and
extraction" (ICASSP 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wesep_py.features import STFT
from wesep_py.network.backbones.backbone import Analysis, Backbone, Condition, backbones
from wesep_py.network.backbones.spectrum import Estimate, SpectrumHead, full_precision

# ----------------------------------------
# The layers of DPCCN on `[batch, channels, frames, bins]`, each with a causal form that goes on from its past.

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


@backbones.register("dpccn")
class DPCCN(Backbone):
    """Maps the mixture's spectrum to the target's, through seven levels that each halve the bins.

    An embedding is fused once, into the output of the first dense block, `[batch, channels, frames, bins]`.

    Args:
        sample_rate: Hz (given by the model).
        input_channels: feature channels, those of the cues included (given by the model).
        window_ms, hop_ms: analysis window (centred) and its shift.
        window: shape of the window, periodic: `sqrt_hann` (the paper's) or `hann` (WeSep's).
        pad_mode: what stands before and after the waveform: `constant` (zeros) or its `reflect`ion.
        channels: of the first level, which keeps all bins.
        dense_channels: of the levels that halve the bins and have a dense block.
        deep_channels: of the levels below, which have none; the last is the temporal network's.
        dense_layers: convolutions of a dense block.
        pad_bins: zeros beside the lowest and highest bin where bins are halved. Without (the paper's), 257 bins
            become one; with (WeSep's), three, which the temporal network sees as three steps in time.
        tcn_repeats, tcn_blocks: the temporal network: so many times, blocks with dilations 1, 2, …, 2^(blocks − 1).
        pool_sizes, pool_channels: the pyramid: squares of so many frames and bins, and the channels of each.
        fuse_along: `channels` of the first dense block's output, or its `bins` (as WeSep does).
        causal: convolutions see the past only, means are taken within a frame, the last convolution sees one frame.
            What remains of the look-ahead is the window's: `latency`.
        norm: `instance` normalises each channel over the recording, `frame` each frame over channels and bins;
            `null` is `frame` when causal and `instance` otherwise.
        estimate: what the last convolution gives: the target's `spectrum` (as published), or a complex `mask`; `null`
            is `mask` when causal, since the level of a recording is then unknown, and `spectrum` otherwise.

    Raises:
        ValueError: sizes below 1, a hop longer than half the window, no deep level, `norm: instance` in a causal
            network.

    >>> network = DPCCN(channels=4, dense_channels=(4, 4), deep_channels=(8,), tcn_repeats=1, tcn_blocks=2)
    >>> analysis = network.analyse(torch.randn(2, 1000))
    >>> latent, _ = network.encode(analysis.features, lambda point, latent: latent)
    >>> network.synthesise(latent, analysis, 1000)[0].shape
    torch.Size([2, 1000])
    """

    native_channels = 2
    num_fusion_points = 1

    def __init__(
        self,
        sample_rate: int = 16000,
        input_channels: int = 2,
        window_ms: float = 32.0,
        hop_ms: float = 8.0,
        window: Literal["sqrt_hann", "hann"] = "sqrt_hann",
        pad_mode: Literal["constant", "reflect"] = "constant",
        channels: int = 16,
        dense_channels: tuple[int, ...] = (32, 32, 32, 32),
        deep_channels: tuple[int, ...] = (64, 128, 384),
        dense_layers: int = 5,
        pad_bins: bool = False,
        tcn_repeats: int = 2,
        tcn_blocks: int = 10,
        pool_sizes: tuple[int, ...] = (4, 8, 16, 32),
        pool_channels: int = 8,
        fuse_along: Literal["channels", "bins"] = "channels",
        causal: bool = False,
        norm: Literal["instance", "frame"] | None = None,
        estimate: Estimate | None = None,
    ) -> None:
        super().__init__()
        length, hop = round(sample_rate * window_ms / 1000), round(sample_rate * hop_ms / 1000)
        if not 0 < hop <= length // 2:
            raise ValueError(f"hop_ms: is {hop_ms}; more than 0 and at most half of window_ms ({window_ms}) is allowed")
        if not deep_channels:
            raise ValueError("deep_channels: is empty; at least one level is needed below the dense ones")
        widths = (channels, *dense_channels, *deep_channels)
        if min(*widths, *pool_sizes, dense_layers, tcn_repeats, tcn_blocks, pool_channels) < 1:
            raise ValueError("channels, layers, blocks and sizes: must be 1 or more")
        if causal and norm == "instance":
            raise ValueError("norm: 'instance' averages over time, which a causal network cannot; use 'frame'")
        over_time = (norm or ("frame" if causal else "instance")) == "instance"

        self.sample_rate, self.causal = sample_rate, causal
        # As in BSRNN: a centred window whose first sample is zero reaches window - 2 samples ahead in the worst phase.
        self.stride, self.latency = hop, length - 2 if causal else None
        self.stft = STFT(length, hop, window, pad_mode=pad_mode)
        self.fusion_axis = 1 if fuse_along == "channels" else 3
        self.latent_dim = channels if fuse_along == "channels" else self.stft.num_bins

        steps, bins = [], self.stft.num_bins
        for _ in widths[1:]:
            steps.append(BinStep.halving(bins, pad_bins))
            bins = steps[-1].bins
        how = (over_time, causal)
        self.convolution = nn.Conv2d(input_channels, channels, OF_TIME, padding=(0 if causal else OF_TIME // 2, 1))
        self.first = DenseBlock(channels, channels, channels, dense_layers, *how)
        self.down = nn.ModuleList(
            UNetLevel(
                ConvBlock(above, width, *how, step),
                DenseBlock(width, width, width, dense_layers, *how) if i < len(dense_channels) else None,
            )
            for i, (above, width, step) in enumerate(zip(widths, widths[1:], steps, strict=False))
        )
        self.tcn = nn.ModuleList(
            TemporalBlock(widths[-1], 2**i, *how) for _ in range(tcn_repeats) for i in range(tcn_blocks)
        )
        self.up = nn.ModuleList(
            UNetLevel(
                TransposedBlock(2 * width, above, *how, step),
                DenseBlock(2 * width, width, 2 * width, dense_layers, *how) if i < len(dense_channels) else None,
            )
            for i, (above, width, step) in reversed(list(enumerate(zip(widths, widths[1:], steps, strict=False))))
        )
        self.last = DenseBlock(2 * channels, channels, 2 * channels, dense_layers, *how)
        self.pyramid = PyramidPooling(2 * channels, pool_sizes, pool_channels, over_time=not causal)
        self.synthesis = SpectrumHead(2 * channels, causal, estimate)

    def analyse(self, waveform: Tensor) -> Analysis:
        spectrum = self.stft(waveform)
        return Analysis(features=torch.stack([spectrum.real, spectrum.imag], dim=1), spectrum=spectrum)

    def encode(self, features: Tensor, condition: Condition, state: Any = None) -> tuple[Tensor, Any]:
        history = History(self.causal, state)
        frames = features.transpose(2, 3)
        if self.causal:
            frames = history.prepend(frames, OF_TIME - 1)
        x = condition(0, self.first(self.convolution(frames), history))
        levels = [x]
        for level in self.down:
            x = level.resize(x, history)
            x = x if level.dense is None else level.dense(x, history)
            levels.append(x)
        # Where more than one bin is left, the temporal network sees a frame's bins one after the other.
        sequence = x.flatten(2)
        for block in self.tcn:
            sequence = block(sequence, history)
        x = sequence.view_as(x)
        for level in self.up:
            x = torch.cat([levels.pop(), x], dim=1)
            x = x if level.dense is None else level.dense(x, history)
            x = level.resize(x, history)
        x = self.last(torch.cat([levels.pop(), x], dim=1), history)
        return self.pyramid(x), history.new if self.causal else None

    def synthesise(self, latent: Tensor, analysis: Analysis, length: int) -> tuple[Tensor, ...]:
        return (self.stft.inverse(self.synthesis(latent, analysis.spectrum), length),)

    def summarise(self, latent: Tensor) -> Tensor:
        if self.fusion_axis == 3:
            return latent.mean(dim=1)
        # The last layer has twice the channels of the first dense block: the mean of each pair.
        return latent.mean(dim=3).transpose(1, 2).unflatten(2, (self.latent_dim, 2)).mean(dim=3)


class UNetLevel(nn.Module):
    """The convolution that halves or doubles the bins, and the dense block beside it, where there is one."""

    def __init__(self, resize: ConvBlock | TransposedBlock, dense: DenseBlock | None) -> None:
        super().__init__()
        self.resize, self.dense = resize, dense
