"""Layers on spectra that backbones and cues share: band splitting, and the head that makes the target's spectrum.

Neighbouring bands of equal width form a group, and a group is computed as one batched product. The 32 bands of the
standard list at 16 kHz are five groups, so five operations instead of 32:

    bins     0          45         105        185   249 257
    bands    |3|3| … |3|6|6| … |6|16| … |16|   64   |8|
    groups   |  15 × 3 |  10 × 6 |  5 × 16 |   64   |8|
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor, nn

from wesep_py.features import STFT
from wesep_py.network.backbones.backbone import FrameSpan

STANDARD_BANDS = ((100.0, 15), (200.0, 10), (500.0, 5), (2000.0, 1))
"""(bandwidth in Hz, number of bands): the list of Yu et al. (2023) and of WeSep; the last width repeats to Nyquist."""

EstimateKind = Literal["spectrum", "mask"]


def band_widths(sample_rate: int, num_bins: int, bands: Sequence[tuple[float, int]] = STANDARD_BANDS) -> list[int]:
    """Return the widths of the bands in bins, from the lowest up; their sum is `num_bins`.

    A band of `bandwidth` Hz is floor(bandwidth / (sample_rate / 2) · num_bins) bins wide. The list is cut at the
    Nyquist frequency. If it ends below, its last width repeats, and the bins that remain are the last band.

    Args:
        sample_rate: Hz.
        num_bins: bins from 0 Hz to Nyquist.
        bands: (bandwidth in Hz, number of bands) from the lowest up.

    Raises:
        ValueError: no band, a band narrower than one bin, or a number of bands below 1.

    >>> len(band_widths(16000, 257)), band_widths(16000, 257)[-2:]
    (32, [64, 8])
    """
    if not bands:
        raise ValueError("bands: is empty; give at least one [bandwidth in Hz, count]")
    listed: list[int] = []
    for bandwidth_hz, count in bands:
        width = math.floor(bandwidth_hz / (sample_rate / 2) * num_bins)
        if width < 1:
            bin_hz = sample_rate / 2 / num_bins
            raise ValueError(f"bands: {bandwidth_hz} Hz is narrower than one bin ({bin_hz:.1f} Hz); widen it")
        if count < 1:
            raise ValueError(f"bands: the count of the bands of {bandwidth_hz} Hz is {count}; 1 or more is allowed")
        listed += [width] * count
    widths: list[int] = []
    total = 0
    while total < num_bins:
        width = listed[len(widths)] if len(widths) < len(listed) else listed[-1]
        widths.append(min(width, num_bins - total))
        total += widths[-1]
    return widths


class BandGroup:
    """Neighbouring bands of one width.

    Attributes:
        count: number of bands.
        width: bins of each band.
        start, stop: first bin, and the bin after the last.
    """

    def __init__(self, count: int, width: int, start: int) -> None:
        self.count, self.width, self.start = count, width, start
        self.stop = start + count * width


def group_bands(widths: Sequence[int]) -> list[BandGroup]:
    """Group runs of bands of equal width, in order.

    >>> [(group.count, group.width, group.start) for group in group_bands([3, 3, 6, 6, 6, 2])]
    [(2, 3, 0), (3, 6, 6), (1, 2, 24)]
    """
    groups, start = [], 0
    for width, run in groupby(widths):
        groups.append(BandGroup(len(list(run)), width, start))
        start = groups[-1].stop
    return groups


class BandLinear(nn.Module):
    """Linear layer with weights of its own for each band: `[batch, bands, frames, in]` → `[batch, bands, frames, out]`.

    Args:
        num_bands, in_features, out_features: sizes.
    """

    def __init__(self, num_bands: int, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)
        self.weight = nn.Parameter(torch.empty(num_bands, in_features, out_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_bands, 1, out_features).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        batch, bands, frames, _ = x.shape
        by_band = x.transpose(0, 1).reshape(bands, batch * frames, -1)
        out = torch.baddbmm(self.bias, by_band, self.weight)
        return out.view(bands, batch, frames, -1).transpose(0, 1)


class BandNorm(nn.Module):
    """Normalisation of each band by itself, with weights of its own: `[batch, bands, frames, features]`.

    Args:
        num_bands, num_features: sizes of the second and the last axis.
        over_time: whether statistics are over frames and features (a one-group GroupNorm per band), or over the
            features of each frame, as a causal network needs it.
        eps: added to the variance.
    """

    def __init__(self, num_bands: int, num_features: int, over_time: bool, eps: float) -> None:
        super().__init__()
        self.over_time, self.eps = over_time, eps
        self.weight = nn.Parameter(torch.ones(num_bands, 1, num_features))
        self.bias = nn.Parameter(torch.zeros(num_bands, 1, num_features))

    def forward(self, x: Tensor) -> Tensor:
        shape = x.shape[-2:] if self.over_time else x.shape[-1:]
        return nn.functional.layer_norm(full_precision(x), shape, eps=self.eps) * self.weight + self.bias


class SpectrumHead(nn.Module):
    """Transposed convolution from a latent to the target's spectrum, directly or as a complex mask on the mixture's.

    Args:
        channels: channels of the latent.
        causal: whether the convolution sees one frame instead of three, so that a block of the latent needs no frame
            of the block before.
        estimate: `spectrum`: the output is the target's spectrum; `mask`: the output is a complex mask, which is near
            one before training. `None` is `spectrum`, as published, but `mask` where causal: a latent that is
            normalised frame by frame hardly knows a level, and a causal network cannot know the recording's, so the
            level has to come from the mixture.
    """

    def __init__(self, channels: int, causal: bool, estimate: EstimateKind | None) -> None:
        super().__init__()
        frames, self.causal = 1 if causal else 3, causal
        self.is_mask = (estimate or ("mask" if causal else "spectrum")) == "mask"
        self.conv = nn.ConvTranspose2d(channels, 2, (frames, 3), padding=(frames // 2, 1))
        if self.is_mask:
            with torch.no_grad():
                self.conv.weight.mul_(0.1)
                self.conv.bias.copy_(torch.tensor([1.0, 0.0]))

    def forward(self, latent: Tensor, mixture: Tensor) -> Tensor:
        """Return the target's spectrum; zero for a mixture, or if causal a frame, that is silent throughout.

        Args:
            latent: `[batch, channels, frames, bins]`.
            mixture: complex `[batch, bins, frames]`.

        Returns:
            complex `[batch, bins, frames]`.
        """
        real_imag = full_precision(self.conv(latent)).transpose(2, 3)
        out = torch.complex(real_imag[:, 0], real_imag[:, 1])
        if self.is_mask:
            return out * mixture
        return out * (mixture.abs().amax(dim=1 if self.causal else (1, 2), keepdim=True) > 0)


def span_of(stft: STFT) -> FrameSpan:
    """Return the samples of a frame of a backbone that works on this transform."""
    return FrameSpan(stft.start, stft.stop, stft.synthesis_start, stft.stop - stft.synthesis_start)


def full_precision(x: Tensor) -> Tensor:
    """Convert half precision to float32, and leave other types as they are; for statistics and spectra."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
