"""SSL-TD-SpeakerBeam: TD-SpeakerBeam whose learned basis is enhanced by the features of a self-supervised model.

After Peng et al., "Target speech extraction with pre-trained self-supervised learning models" (ICASSP 2024, arXiv
2402.13199). Certain are the two uses of the model: an adaptive input enhancer, which brings its layers up to the frames
of the learned basis step by step, and multi-head factorised attention pooling of the enrollment (`speaker.mhfa`, with
`layers: two_sums`). The sizes of the enhancer are ours, and each side has its own copy of the model.

    waveform ─► convolutions c1, c2, … cn ─► transformer layers ─► learned weighted sum
                             │        │                                    │
                             │        └──────────────► merge ◄── upsample ─┘      20 ms → 10 ms → …
                             └─────────► merge ◄── upsample ─┘
                                            └─► upsample ─► joined to the output of the learned encoder

`SelfSupervisedTasNet` is a module of `network`, not of `backbones`, because it needs parts of `speaker`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wesep_py.common.config import construct
from wesep_py.network.backbones import Analysis, ConvTasNet, backbones
from wesep_py.network.backbones.conv_tasnet import ChannelNorm
from wesep_py.network.backbones.spectrum import full_precision
from wesep_py.network.cues.cue import interpolate_frames
from wesep_py.network.speaker import SelfSupervised
from wesep_py.network.speaker.self_supervised import arguments_with_form


@backbones.register("ssl_conv_tasnet")
class SelfSupervisedTasNet(ConvTasNet):
    """Conv-TasNet with an adaptive input enhancer beside its learned encoder.

    The latent is that of `ConvTasNet`. No cue can add feature channels, because the enhancer's features have no bins.

    Args:
        sample_rate: Hz (given by the model); 16000.
        input_channels: 1 (given by the model).
        self_supervised: arguments of `speaker.SelfSupervised`: `kind`, the folder `path` or the `config` of the model,
            and `training` (`frozen`, `adapters` or `full`).
        enhancer_dim: channels of the enhancer.
        kernel_ms, hop_ms, num_filters, bottleneck, hidden, kernel, blocks_per_stack, num_stacks, fusion_blocks: as for
            `ConvTasNet`, which has one encoder here.

    Raises:
        ValueError: as `ConvTasNet`; another sample rate; feature channels of cues.
        ConfigError: as `SelfSupervised`.
    """

    def __init__(
        self,
        self_supervised: dict[str, Any],
        sample_rate: int = 16000,
        input_channels: int = 1,
        enhancer_dim: int = 256,
        kernel_ms: float = 2.5,
        hop_ms: float = 1.25,
        num_filters: int = 256,
        bottleneck: int = 256,
        hidden: int = 512,
        kernel: int = 3,
        blocks_per_stack: int = 8,
        num_stacks: int = 4,
        fusion_blocks: tuple[int, ...] | None = (8,),
    ) -> None:
        if input_channels != 1:
            raise ValueError("ssl_conv_tasnet: takes no cue that adds feature channels; use 'embedding' or 'context'")
        if enhancer_dim < 1:
            raise ValueError(f"enhancer_dim: is {enhancer_dim}; 1 or more is allowed")
        super().__init__(
            sample_rate,
            kernels_ms=(kernel_ms,),
            hop_ms=hop_ms,
            num_filters=num_filters,
            bottleneck=bottleneck,
            hidden=hidden,
            kernel=kernel,
            blocks_per_stack=blocks_per_stack,
            num_stacks=num_stacks,
            fusion_blocks=fusion_blocks,
        )
        self.self_supervised = arguments_with_form(self_supervised)
        model = construct(
            SelfSupervised, self.self_supervised, "model.backbone.self_supervised", sample_rate=sample_rate
        )
        self.enhancer = InputEnhancer(model, enhancer_dim, self.stride)
        features = num_filters + enhancer_dim
        self.input = nn.Sequential(ChannelNorm(features, "frame"), nn.Conv1d(features, bottleneck, 1))

    def completed_config(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the configuration with that of the model in place of its folder, which a checkpoint does not need."""
        return {**given, "self_supervised": {**self.self_supervised, "path": None}}

    def analyse(self, waveform: Tensor) -> Analysis:
        analysis = super().analyse(waveform)
        positions = torch.arange(analysis.num_frames, device=waveform.device) * self.stride + self.kernels[0] / 2
        enhanced = self.enhancer(full_precision(waveform), positions)
        return Analysis(torch.cat([analysis.spectrum, enhanced], dim=1)[:, None], analysis.spectrum)


class InputEnhancer(nn.Module):
    """Adaptive input enhancer: the layers of a self-supervised model at given times.

    From the weighted sum of the transformer's layers on, features are upsampled to the frames of the next finer
    convolution and merged with its output, down to the convolution whose stride is just not below `finest_stride`.

    Args:
        model: the self-supervised model.
        dim: channels.
        finest_stride: samples between two frames of the basis.
    """

    def __init__(self, model: SelfSupervised, dim: int, finest_stride: int) -> None:
        super().__init__()
        self.model = model
        # Stride and receptive field of each convolution; the frames of the last are those of the transformer.
        strides, windows, stride, window = [], [], 1, 1
        for kernel, step in zip(model.kernels, model.strides, strict=True):
            window, stride = window + (kernel - 1) * stride, stride * step
            strides.append(stride)
            windows.append(window)
        self.strides, self.windows = strides, windows
        self.used = [i for i, each in enumerate(strides) if each >= finest_stride] or [len(strides) - 1]
        channels = model.model.config.conv_dim
        self.top = nn.Linear(model.num_mel_bins, dim)
        self.lateral = nn.ModuleList(nn.Conv1d(channels[i], dim, 1) for i in self.used)
        self.merge = nn.ModuleList(
            nn.Sequential(nn.Conv1d(2 * dim, dim, 1), nn.PReLU(), ChannelNorm(dim, "frame")) for _ in self.used
        )

    def forward(self, waveform: Tensor, positions: Tensor) -> Tensor:
        """Return the features `[batch, dim, times]` of waveforms `[batch, samples]`, at times in samples."""
        levels, summed = self.model.levels(waveform)
        x, level = self.top(summed).transpose(1, 2), len(self.strides) - 1
        for lateral, merge, finer in zip(
            reversed(self.lateral), reversed(self.merge), reversed(self.used), strict=True
        ):
            fine = levels[finer].to(x.dtype)
            centres = torch.arange(fine.shape[2], device=x.device) * self.strides[finer] + self.windows[finer] / 2
            x = merge(torch.cat([self._at(x, level, centres), lateral(fine)], dim=1))
            level = finer
        return self._at(x, level, positions)

    def _at(self, x: Tensor, level: int, samples: Tensor) -> Tensor:
        """Interpolate the frames of a level linearly at times in samples; beyond the first and the last they repeat."""
        position = (samples - self.windows[level] / 2) / self.strides[level]
        position = position.clamp(0, x.shape[2] - 1).expand(len(x), -1)
        return interpolate_frames(full_precision(x), position)
