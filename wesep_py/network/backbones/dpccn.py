"""DPCCN: a U-Net of densely connected convolutions with a temporal convolution network between its halves.

Han et al., "DPCCN: densely-connected pyramid complex convolutional network for robust speech separation and
extraction" (ICASSP 2022).

    spectrum ─► convolution ─► dense block ─► condition ─────────────────────── skip ─► dense block ─► pyramid ─► head
                                                │                                           ▲
                                                └─► level 1: halve the bins ─── skip ─► level 1: double them
                                                                │                           ▲
                                                                └─► … ─► TCN ─► … ──────────┘

The layers compute on `[batch, channels, frames, bins]`. Every convolution sees three frames: one to either side, or the
two before where the network is causal.
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
from wesep_py.network.backbones.spectrum import EstimateKind, SpectrumHead, full_precision, span_of

NORM_EPS = 1e-5
KERNEL_FRAMES = 3
"""Size of every convolution along time, in frames."""


@backbones.register("dpccn")
class DPCCN(Backbone):
    """DPCCN, which maps the mixture's spectrum to the target's, through seven levels that each halve the bins.

    An embedding is fused once, into the output of the first dense block, `[batch, channels, frames, bins]`.

    Args:
        sample_rate: Hz (given by the model).
        input_channels: feature channels, those of the cues included (given by the model).
        negative_channels: further channels, of negative enrollments (given by the model).
        window_ms, hop_ms: analysis window (centred) and its shift, in milliseconds.
        window: shape of the window, periodic: `sqrt_hann` (the paper's) or `hann` (WeSep's).
        pad_mode: padding before and after the waveform: zeros (`constant`) or its reflection (`reflect`).
        channels: of the first level, which keeps all bins.
        dense_channels: of the levels that halve the bins and have a dense block.
        deep_channels: of the levels below, which have none; the last is also the temporal network's.
        dense_layers: convolutions of a dense block.
        pad_bins: whether zeros are put beside the lowest and the highest bin where bins are halved. Without (the
            paper's), 257 bins become one; with (WeSep's), three, which the temporal network sees as three time steps.
        tcn_repeats, tcn_blocks: the temporal network: `tcn_repeats` times the blocks with dilations 1, 2, …,
            2^(tcn_blocks − 1).
        pool_sizes, pool_channels: the pyramid: sizes of the squares in frames and bins, and channels of each size.
        fuse_along: axis along which an embedding is fused: `channels` of the first dense block's output, or its `bins`
            (as WeSep does).
        causal: convolutions over past frames only, means within a frame, and one frame in the last convolution. The
            look-ahead that remains is the window's: `latency`.
        norm: `instance` normalises each channel over the recording, `frame` each frame over channels and bins;
            `null` is `frame` when causal and `instance` otherwise.
        estimate: output of the last convolution: the target's `spectrum` (as published), or a complex `mask`; `null`
            is `mask` when causal, because the level of the recording is unknown then, and `spectrum` otherwise.

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
        negative_channels: int = 0,
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
        estimate: EstimateKind | None = None,
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
        # See BSRNN: a centred window whose first sample is zero looks window - 2 samples ahead in the worst phase.
        self.stride, self.latency = hop, length - 2 if causal else None
        self.stft = STFT(length, hop, window, pad_mode=pad_mode)
        self.span = span_of(self.stft)
        self.fusion_axis = 1 if fuse_along == "channels" else 3
        self.latent_dim = channels if fuse_along == "channels" else self.stft.num_bins

        steps, bins = [], self.stft.num_bins
        for _ in widths[1:]:
            steps.append(BinStep.halving(bins, pad_bins))
            bins = steps[-1].bins
        # From the top down: (channels above, channels below, halving of the bins) of each level.
        levels = list(zip(widths, widths[1:], steps, strict=False))
        mode = (over_time, causal)
        padding = (0 if causal else KERNEL_FRAMES // 2, 1)
        self.convolution = nn.Conv2d(input_channels, channels, KERNEL_FRAMES, padding=padding)
        # As in TF-GridNet: kernels of their own, which start at zero.
        self.negative_convolution = None
        if negative_channels:
            self.negative_convolution = nn.Conv2d(
                negative_channels, channels, KERNEL_FRAMES, padding=padding, bias=False
            )
            nn.init.zeros_(self.negative_convolution.weight)
        self.first = DenseBlock(channels, channels, channels, dense_layers, *mode)
        self.down = nn.ModuleList(
            UNetLevel(
                ConvBlock(above, width, *mode, step),
                DenseBlock(width, width, width, dense_layers, *mode) if i < len(dense_channels) else None,
            )
            for i, (above, width, step) in enumerate(levels)
        )
        self.tcn = nn.ModuleList(
            TemporalBlock(widths[-1], 2**i, *mode) for _ in range(tcn_repeats) for i in range(tcn_blocks)
        )
        # The input of a level on the way up is its own output on the way down beside that of the level below.
        self.up = nn.ModuleList(
            UNetLevel(
                TransposedConvBlock(2 * width, above, *mode, step),
                DenseBlock(2 * width, width, 2 * width, dense_layers, *mode) if i < len(dense_channels) else None,
            )
            for i, (above, width, step) in reversed(list(enumerate(levels)))
        )
        self.last = DenseBlock(2 * channels, channels, 2 * channels, dense_layers, *mode)
        self.pyramid = PyramidPooling(2 * channels, pool_sizes, pool_channels, over_time=not causal)
        self.synthesis = SpectrumHead(2 * channels, causal, estimate)

    def analyse(self, waveform: Tensor) -> Analysis:
        return self._analyse(self.stft(waveform))

    def analyse_frames(self, segment: Tensor) -> Analysis:
        return self._analyse(self.stft.frames(segment))

    def _analyse(self, spectrum: Tensor) -> Analysis:
        return Analysis(features=torch.stack([spectrum.real, spectrum.imag], dim=1), spectrum=spectrum)

    def encode(self, features: Tensor, condition: Condition, state: Any = None) -> tuple[Tensor, Any]:
        history = ConvHistory(self.causal, state)
        frames = features.transpose(2, 3)
        if self.causal:
            frames = history.prepend(frames, KERNEL_FRAMES - 1)
        given = self.convolution.in_channels
        convolved = self.convolution(frames[:, :given])
        if self.negative_convolution is not None:
            convolved = convolved + self.negative_convolution(frames[:, given:])
        x = condition(0, self.first(convolved, history))
        skips = [x]
        for level in self.down:
            x = level.resize(x, history)
            x = x if level.dense is None else level.dense(x, history)
            skips.append(x)
        # Where more than one bin is left, the temporal network sees the bins of a frame one after the other.
        sequence = x.flatten(2)
        for block in self.tcn:
            sequence = block(sequence, history)
        x = sequence.view_as(x)
        for level in self.up:
            x = torch.cat([skips.pop(), x], dim=1)
            x = x if level.dense is None else level.dense(x, history)
            x = level.resize(x, history)
        x = self.last(torch.cat([skips.pop(), x], dim=1), history)
        return self.pyramid(x), history.new if self.causal else None

    def synthesise(self, latent: Tensor, analysis: Analysis, length: int) -> tuple[Tensor, ...]:
        return (self.stft.inverse(self.synthesis(latent, analysis.spectrum), length),)

    def frame_signals(self, latent: Tensor, analysis: Analysis) -> Tensor:
        return self.stft.frame_signals(self.synthesis(latent, analysis.spectrum))

    def synthesis_weights(self) -> Tensor:
        return self.stft.synthesis_weights()

    def summarise(self, latent: Tensor) -> Tensor:
        if self.fusion_axis == 3:
            return latent.mean(dim=1)
        # The last layer has twice the channels of the first dense block: the mean of each pair.
        return latent.mean(dim=3).transpose(1, 2).unflatten(2, (self.latent_dim, 2)).mean(dim=3)


class ConvHistory:
    """Streaming state of all convolutions of a causal network: the last frames that each of them has seen.

    A block of frames passes the convolutions in the same order each time, so the state is a list, one entry per
    convolution, and each call of `prepend` takes the next entry:

        block 1    | 0 0 | a b c d |   zeros at the start of a recording; `new` keeps | c d |
        block 2          | c d | e f |   the output frames are those of e f; `new` keeps | e f |

    Args:
        causal: whether the network is causal. If not, `prepend` is never called.
        past: `new` of the block before; `None` at the start of a recording, whose past is zeros.

    Attributes:
        new: the state for the next block.
    """

    def __init__(self, causal: bool, past: Sequence[Tensor] | None = None) -> None:
        self.causal = causal
        self._past = None if past is None else iter(past)
        self.new: list[Tensor] = []

    def prepend(self, x: Tensor, count: int) -> Tensor:
        """Return `x` with the `count` frames before it on axis 2, and save its last `count` frames in `new`."""
        past = x.new_zeros(*x.shape[:2], count, *x.shape[3:]) if self._past is None else next(self._past)
        joined = torch.cat([past, x], dim=2)
        self.new.append(joined[:, :, x.shape[2] :])
        return joined


@dataclass(frozen=True)
class BinStep:
    """Sizes of a convolution that halves the bins, and of the transposed one that restores exactly their number.

    Attributes:
        kernel, padding: along the bins; the stride is 2.
        output_padding: of the transposed convolution.
        bins: bins after the convolution.
    """

    kernel: int
    padding: int
    output_padding: int
    bins: int

    @classmethod
    def halving(cls, bins: int, padded: bool) -> BinStep:
        """Return the step that halves `bins` bins.

        >>> BinStep.halving(257, padded=False).bins, BinStep.halving(257, padded=True).bins
        (128, 129)
        """
        kernel, padding = (3, 1) if padded else (min(3, bins), 0)
        halved = (bins + 2 * padding - kernel) // 2 + 1
        # A transposed convolution of `halved` bins gives 2 (halved − 1) + kernel − 2 padding; the others are added.
        return cls(kernel, padding, bins - (2 * (halved - 1) + kernel - 2 * padding), halved)


def normalise(x: Tensor, over_time: bool) -> Tensor:
    """Normalise to zero mean and unit variance, without weights.

    Args:
        x: `[batch, channels, frames]` or `[batch, channels, frames, bins]`.
        over_time: whether each channel is normalised over its frames and bins (instance normalisation), or each frame
            over its channels and bins, as a causal network needs it.
    """
    x = full_precision(x)
    if over_time:
        return F.layer_norm(x, x.shape[2:], eps=NORM_EPS)
    frames_first = x.transpose(1, 2)
    return F.layer_norm(frames_first, frames_first.shape[2:], eps=NORM_EPS).transpose(1, 2)


class UNetLevel(nn.Module):
    """Level of the U-Net: the convolution that halves or doubles the bins, and the dense block, where there is one."""

    def __init__(self, resize: ConvBlock | TransposedConvBlock, dense: DenseBlock | None) -> None:
        super().__init__()
        self.resize, self.dense = resize, dense


class ConvBlock(nn.Module):
    """Convolution over three frames and three bins (or as `step` says, halving the bins), ELU, normalisation."""

    def __init__(
        self, in_channels: int, out_channels: int, over_time: bool, causal: bool, step: BinStep | None = None
    ) -> None:
        super().__init__()
        self.over_time = over_time
        kernel, stride, padding = (3, 1, 1) if step is None else (step.kernel, 2, step.padding)
        time_padding = 0 if causal else KERNEL_FRAMES // 2
        self.conv = nn.Conv2d(in_channels, out_channels, (KERNEL_FRAMES, kernel), (1, stride), (time_padding, padding))

    def forward(self, x: Tensor, history: ConvHistory) -> Tensor:
        """`[batch, in_channels, frames, bins]` → `[batch, out_channels, frames, bins or step.bins]`."""
        if history.causal:
            x = history.prepend(x, KERNEL_FRAMES - 1)
        return normalise(F.elu(self.conv(x)), self.over_time)


class TransposedConvBlock(nn.Module):
    """Inverse of a `ConvBlock` with a step, in sizes: transposed convolution, ELU, normalisation."""

    def __init__(self, in_channels: int, out_channels: int, over_time: bool, causal: bool, step: BinStep) -> None:
        super().__init__()
        self.over_time = over_time
        # Output j of a transposed convolution is made of the inputs j − 2 … j, and there are two more outputs than
        # inputs; `padding` drops that number at each end. Causal, two past frames p come before the block, and the two
        # outputs at each end are dropped, so each frame of the block is made of itself and the two before it:
        #
        #   input    p p 0 1 2 3
        #   output   . . 0 1 2 3 . .
        time_padding = KERNEL_FRAMES - 1 if causal else KERNEL_FRAMES // 2
        self.conv = nn.ConvTranspose2d(
            in_channels,
            out_channels,
            (KERNEL_FRAMES, step.kernel),
            (1, 2),
            (time_padding, step.padding),
            output_padding=(0, step.output_padding),
        )

    def forward(self, x: Tensor, history: ConvHistory) -> Tensor:
        """`[batch, in_channels, frames, step.bins]` → `[batch, out_channels, frames, bins]`."""
        if history.causal:
            x = history.prepend(x, KERNEL_FRAMES - 1)
        return normalise(F.elu(self.conv(x)), self.over_time)


class DenseBlock(nn.Module):
    """Densely connected convolution blocks: each sees the input and the outputs of all before it.

    Args:
        in_channels, out_channels: of the block; its output is that of the last layer.
        growth: channels of every layer but the last.
        num_layers: number of layers, at least 1.
        over_time, causal: as for `ConvBlock`.
    """

    def __init__(
        self, in_channels: int, growth: int, out_channels: int, num_layers: int, over_time: bool, causal: bool
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            ConvBlock(in_channels + i * growth, growth if i < num_layers - 1 else out_channels, over_time, causal)
            for i in range(num_layers)
        )

    def forward(self, x: Tensor, history: ConvHistory) -> Tensor:
        """`[batch, in_channels, frames, bins]` → `[batch, out_channels, frames, bins]`."""
        inputs = out = x
        for layer in self.layers:
            out = layer(inputs, history)
            inputs = torch.cat([inputs, out], dim=1)
        return out


class TemporalBlock(nn.Module):
    """Block of the temporal convolution network: `x + W · ELU(norm(depthwise(ELU(norm(x)))))`.

    Along the last axis of `[batch, channels, length]`.
    """

    def __init__(self, channels: int, dilation: int, over_time: bool, causal: bool) -> None:
        super().__init__()
        self.over_time, self.reach = over_time, (KERNEL_FRAMES - 1) * dilation
        padding = 0 if causal else dilation
        self.depthwise = nn.Conv1d(
            channels, channels, KERNEL_FRAMES, padding=padding, dilation=dilation, groups=channels
        )
        self.pointwise = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, history: ConvHistory) -> Tensor:
        out = F.elu(normalise(x, self.over_time))
        if history.causal:
            out = history.prepend(out, self.reach)
        out = F.elu(normalise(self.depthwise(out), self.over_time))
        return x + self.pointwise(out)


class PyramidPooling(nn.Module):
    """Pyramid pooling: means over squares of several sizes beside the input, `W [x; W₁ mean₄(x); W₂ mean₈(x); …]`.

    Args:
        channels: of input and output.
        sizes: frames and bins of the squares; what does not fill a square at the end is left out.
        pooled_channels: channels of each size.
        over_time: whether means are over squares, or over runs of bins within each frame.
    """

    def __init__(self, channels: int, sizes: Sequence[int], pooled_channels: int, over_time: bool) -> None:
        super().__init__()
        self.sizes, self.over_time = tuple(sizes), over_time
        self.reduce = nn.ModuleList(nn.Conv2d(channels, pooled_channels, 1) for _ in sizes)
        self.project = nn.Conv2d(channels + len(self.sizes) * pooled_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, channels, frames, bins]` → the same shape."""
        frames, bins = x.shape[2:]
        scales = [x]
        for size, reduce in zip(self.sizes, self.reduce, strict=True):
            kernel = (min(size, frames) if self.over_time else 1, min(size, bins))
            pooled = full_precision(reduce(F.avg_pool2d(x, kernel)))
            scales.append(F.interpolate(pooled, size=(frames, bins), mode="bilinear", align_corners=False))
        return self.project(torch.cat(scales, dim=1))
