"""From a latent on the grid of a spectrum to the target's spectrum: as it is, or as a complex mask on the mixture's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor, nn

# ----------------------------------------
# Splitting a spectrum into bands, and layers that treat every band with weights of its own.
#
# Neighbouring bands of equal width are handled together, in one batched product: the thirty-two bands of the
# standard list are five groups, so five operations instead of thirty-two.

STANDARD_BANDS = ((100.0, 15), (200.0, 10), (500.0, 5), (2000.0, 1))
"""(bandwidth in Hz, how many): the list of Yu et al. (2023) and of WeSep; the last width repeats to Nyquist."""


def band_widths(sample_rate: int, num_bins: int, bands: Sequence[tuple[float, int]] = STANDARD_BANDS) -> list[int]:
    """Widths of the bands in bins, from the lowest up; their sum is `num_bins`.

    A band of `bandwidth` Hz is floor(bandwidth / (sample_rate / 2) · num_bins) bins wide. The list is cut at
    the Nyquist frequency; where it ends below, its last width repeats, and what is left is the last band.

    Args:
        sample_rate: Hz.
        num_bins: bins from 0 Hz to Nyquist.
        bands: (bandwidth in Hz, count) from the lowest up.

    Raises:
        ValueError: no band, or a band narrower than one bin.

    >>> len(band_widths(16000, 257)), band_widths(16000, 257)[-2:]
    (32, [64, 8])
    """
    if not bands:
        raise ValueError("bands: is empty; give at least one [bandwidth in Hz, count]")
    widths: list[int] = []
    for bandwidth_hz, count in bands:
        width = math.floor(bandwidth_hz / (sample_rate / 2) * num_bins)
        if width < 1:
            bin_hz = sample_rate / 2 / num_bins
            raise ValueError(f"bands: {bandwidth_hz} Hz is narrower than one bin ({bin_hz:.1f} Hz); widen it")
        if count < 1:
            raise ValueError(f"bands: {bandwidth_hz} Hz is asked {count} times; 1 or more is allowed")
        widths += [width] * count
    total, kept = 0, []
    while total < num_bins:
        width = widths[len(kept)] if len(kept) < len(widths) else widths[-1]
        kept.append(min(width, num_bins - total))
        total += kept[-1]
    return kept


class BandGroup:
    """Neighbouring bands of one width.

    Attributes:
        count, width: how many bands, and bins in each.
        start, stop: first bin, and the bin past the last.
    """

    def __init__(self, count: int, width: int, start: int) -> None:
        self.count, self.width, self.start = count, width, start
        self.stop = start + count * width


def group_bands(widths: Sequence[int]) -> list[BandGroup]:
    """Runs of equal width, in order."""
    groups, start = [], 0
    for width, run in groupby(widths):
        groups.append(BandGroup(len(list(run)), width, start))
        start = groups[-1].stop
    return groups


class BandLinear(nn.Module):
    """A linear layer a band: `[batch, bands, frames, in]` → `[batch, bands, frames, out]`."""

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
    """Normalisation of every band by itself, with weights of its own: `[batch, bands, frames, features]`.

    Args:
        num_bands, num_features: sizes of the second and the last axis.
        over_time: statistics over frames and features (a one-group GroupNorm a band), or over the features
            of each frame alone, which is what a causal network may know.
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


def full_precision(x: Tensor) -> Tensor:
    """Half-precision tensors as float32, others as they are: for statistics, and for spectra."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


Estimate = Literal["spectrum", "mask"]


class SpectrumHead(nn.Module):
    """A transposed convolution to real and imaginary part.

    Args:
        channels: of the latent.
        causal: see one frame instead of three, so that a stretch of the latent needs nothing of the one before.
        estimate: `spectrum`: the parts are the target's; `mask`: they are a complex mask, one before training. `None`
            is `spectrum` as published, but `mask` where causal: a latent that is normalised frame by frame hardly
            knows a level, and a causal network cannot know the recording's, so the mixture has to give it.
    """

    def __init__(self, channels: int, causal: bool, estimate: Estimate | None) -> None:
        super().__init__()
        frames = 1 if causal else 3
        self.is_mask = (estimate or ("mask" if causal else "spectrum")) == "mask"
        self.conv = nn.ConvTranspose2d(channels, 2, (frames, 3), padding=(frames // 2, 1))
        if self.is_mask:
            with torch.no_grad():
                self.conv.weight.mul_(0.1)
                self.conv.bias.copy_(torch.tensor([1.0, 0.0]))

    def forward(self, latent: Tensor, mixture: Tensor) -> Tensor:
        """The target's spectrum; zero for a mixture that is silent throughout.

        Args:
            latent: `[batch, channels, frames, bins]`.
            mixture: complex `[batch, bins, frames]`.

        Returns:
            complex `[batch, bins, frames]`.
        """
        parts = full_precision(self.conv(latent)).transpose(2, 3)
        out = torch.complex(parts[:, 0], parts[:, 1])
        if self.is_mask:
            return out * mixture
        return out * (mixture.abs().amax(dim=(1, 2), keepdim=True) > 0)
