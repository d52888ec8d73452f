"""DPCCN: a U-Net of densely connected convolutions with a temporal convolution network between its halves.

Han et al., "DPCCN: densely-connected pyramid complex convolutional network for robust speech separation and
extraction" (ICASSP 2022).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from wesep_py.backbones.base import Analysis, Backbone, Condition, backbones
from wesep_py.backbones.dpccn_layers import (
    OF_TIME,
    BinStep,
    ConvBlock,
    DenseBlock,
    History,
    PyramidPooling,
    TemporalBlock,
    TransposedBlock,
)
from wesep_py.backbones.spectrum_head import Estimate, SpectrumHead
from wesep_py.features import STFT


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
            Level(
                ConvBlock(above, width, *how, step),
                DenseBlock(width, width, width, dense_layers, *how) if i < len(dense_channels) else None,
            )
            for i, (above, width, step) in enumerate(zip(widths, widths[1:], steps, strict=False))
        )
        self.tcn = nn.ModuleList(
            TemporalBlock(widths[-1], 2**i, *how) for _ in range(tcn_repeats) for i in range(tcn_blocks)
        )
        self.up = nn.ModuleList(
            Level(
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


class Level(nn.Module):
    """The convolution that halves or doubles the bins, and the dense block beside it, where there is one."""

    def __init__(self, resize: ConvBlock | TransposedBlock, dense: DenseBlock | None) -> None:
        super().__init__()
        self.resize, self.dense = resize, dense
