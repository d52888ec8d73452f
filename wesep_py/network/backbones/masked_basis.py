"""Base of backbones that mask one learned basis: SkiM, SpeakerBeam-SS and SepFormer.

    waveform ─► LearnedEncoder ─► encode ─► mask · encoder output ─► LearnedDecoder ─► estimate

`ConvTasNet` has several bases and options of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wesep_py.network.backbones.backbone import Analysis, Backbone, FrameSpan
from wesep_py.network.backbones.conv_tasnet import LearnedDecoder, LearnedEncoder
from wesep_py.network.backbones.spectrum import full_precision


class MaskedBasis(Backbone):
    """A backbone between a learned encoder and a learned decoder; a subclass has `encode` and the layers `mask`.

    Args:
        sample_rate: Hz.
        kernel_ms, hop_ms: window of the encoder and its shift, in milliseconds.
        num_filters: filters of the encoder.
        causal: whether `encode` is; the look-ahead that remains is the window's.

    Raises:
        ValueError: a hop longer than the window.
    """

    native_channels = 1
    mask: nn.Module

    def __init__(self, sample_rate: int, kernel_ms: float, hop_ms: float, num_filters: int, causal: bool) -> None:
        super().__init__()
        kernel, hop = round(sample_rate * kernel_ms / 1000), round(sample_rate * hop_ms / 1000)
        if not 0 < hop <= kernel:
            raise ValueError(f"hop_ms: is {hop_ms}; more than 0 and at most kernel_ms ({kernel_ms}) is allowed")
        if num_filters < 1:
            raise ValueError(f"num_filters: is {num_filters}; 1 or more is needed")
        self.sample_rate, self.kernel, self.fusion_axis = sample_rate, kernel, 1
        # As in Conv-TasNet: a frame that begins at output sample n covers the window from there on.
        self.stride, self.latency = hop, kernel - 1 if causal else None
        self.span = FrameSpan(0, kernel, 0, kernel)
        self.encoder = LearnedEncoder(num_filters, kernel, hop, deep=False, bias=False)
        self.decoder = LearnedDecoder(num_filters, kernel, hop, deep=False, bias=False)

    def num_frames(self, lengths: Tensor) -> Tensor:
        """Return the number of frames that the window needs to reach the end, at least one."""
        return 1 + ((lengths - self.kernel).clamp_min(0) + self.stride - 1) // self.stride

    def analyse(self, waveform: Tensor) -> Analysis:
        return self._analyse(waveform, int(self.num_frames(torch.as_tensor(waveform.shape[1]))))

    def analyse_frames(self, segment: Tensor) -> Analysis:
        return self._analyse(segment, (segment.shape[1] - self.kernel) // self.stride + 1)

    def _analyse(self, waveform: Tensor, frames: int) -> Analysis:
        with torch.autocast(waveform.device.type, enabled=False):
            encoded = self.encoder(full_precision(waveform), frames)
        return Analysis(features=encoded[:, None], spectrum=encoded)

    def synthesise(self, latent: Tensor, analysis: Analysis, length: int) -> tuple[Tensor, ...]:
        masked = self._masked(latent, analysis)
        with torch.autocast(latent.device.type, enabled=False):
            estimate = self.decoder(masked)[:, :length]
        return (nn.functional.pad(estimate, (0, length - estimate.shape[1])),)

    def frame_signals(self, latent: Tensor, analysis: Analysis) -> Tensor:
        return self.decoder.frame_signals(self._masked(latent, analysis))

    def _masked(self, latent: Tensor, analysis: Analysis) -> Tensor:
        return full_precision(self.mask(latent)) * analysis.spectrum

    def summarise(self, latent: Tensor) -> Tensor:
        """Reduce the latent to `[batch, frames, summary_dim]`: here, all of it."""
        return latent.transpose(1, 2)
