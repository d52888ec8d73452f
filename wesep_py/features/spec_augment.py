"""SpecAugment: stripes of time and of frequency taken out of features while training."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SpecAugment(nn.Module):
    """Mask random stripes of frames and of bins in features `[B, frames, bins]`, in training only.

    Masks of Park et al., "SpecAugment" (2019), section 2: each has a width drawn uniformly from 0 to its
    largest and a place drawn uniformly among those where it fits; every utterance of a batch has its own.
    Masked values become 0, the mean of mean-normalised features. Draws come from torch's generator of the
    features' device.

    Args:
        num_time_masks: stripes of frames.
        max_time_frames: largest width of one, in frames.
        num_freq_masks: stripes of bins.
        max_freq_bins: largest width of one, in bins.

    Raises:
        ValueError: a negative number.

    >>> augment = SpecAugment(max_time_frames=10, max_freq_bins=8).eval()
    >>> bool((augment(torch.ones(1, 50, 80)) == 1).all())
    True
    """

    def __init__(
        self,
        num_time_masks: int = 1,
        max_time_frames: int = 10,
        num_freq_masks: int = 1,
        max_freq_bins: int = 8,
    ) -> None:
        super().__init__()
        for name, value in (
            ("num_time_masks", num_time_masks),
            ("max_time_frames", max_time_frames),
            ("num_freq_masks", num_freq_masks),
            ("max_freq_bins", max_freq_bins),
        ):
            if value < 0:
                raise ValueError(f"{name}: is {value}; 0 or more is allowed")
        self.num_time_masks, self.max_time_frames = num_time_masks, max_time_frames
        self.num_freq_masks, self.max_freq_bins = num_freq_masks, max_freq_bins

    def forward(self, features: Tensor, frame_lengths: Tensor | None = None) -> Tensor:
        """The features with stripes masked; unchanged outside training.

        Args:
            features: `[B, frames, bins]`.
            frame_lengths: frames of each utterance before padding, integers `[B]`: masks fall within them.

        Returns:
            `[B, frames, bins]`, a new tensor in training.

        Raises:
            ValueError: not three axes.
        """
        if features.ndim != 3:
            raise ValueError(f"SpecAugment: features of shape {list(features.shape)}; [batch, frames, bins] is needed")
        if not self.training:
            return features
        batch, frames, bins = features.shape
        sizes = torch.full((batch,), frames, device=features.device)
        if frame_lengths is not None:
            sizes = frame_lengths.to(features.device)
        in_time = _stripes(self.num_time_masks, self.max_time_frames, sizes, frames)
        all_bins = torch.full((batch,), bins, device=features.device)
        in_freq = _stripes(self.num_freq_masks, self.max_freq_bins, all_bins, bins)
        return features.masked_fill(in_time[:, :, None] | in_freq[:, None, :], 0.0)


def _stripes(count: int, widest: int, sizes: Tensor, axis_length: int) -> Tensor:
    """Bool `[B, axis_length]`: true within any of `count` stripes drawn inside each utterance's `sizes`."""
    drawn = torch.rand(2, len(sizes), count, device=sizes.device)
    largest = sizes.clamp(max=widest)[:, None]
    width = (drawn[0] * (largest + 1)).long().clamp(max=largest)
    start = (drawn[1] * (sizes[:, None] - width + 1)).long().clamp(max=sizes[:, None] - width)
    position = torch.arange(axis_length, device=sizes.device)
    inside = (position >= start[..., None]) & (position < (start + width)[..., None])
    return inside.any(dim=1)
