"""The speaker branch of SpEx+: Ge et al., "SpEx+: a complete time domain speaker extraction network" (2020)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from wesep_py.network.speaker.speaker_network import SpeakerNetwork, SpeakerOutput, length_mask, speaker_networks

POOLED_FRAMES = 3
"""Frames of which one block keeps the maximum."""


@speaker_networks.register("spex_plus")
class SpExPlusNetwork(SpeakerNetwork):
    """Three residual blocks of 1×1 convolutions, each of which reduces the frames to a third; mean over time.

    For the learned basis of an extractor (`front_end: backbone`), with frames of about a millisecond. A recording of
    fewer than 27 frames is repeated from its start.

    Args:
        num_mel_bins: size of a frame (given by the front end).
        channels: number of channels of the first block; the others have twice as many.
        embedding_dim: size of the embedding.

    Raises:
        ValueError: a size is below 1.

    >>> SpExPlusNetwork(num_mel_bins=24, channels=8, embedding_dim=4)(torch.randn(2, 100, 24)).embedding.shape
    torch.Size([2, 4])
    """

    def __init__(self, num_mel_bins: int = 768, channels: int = 256, embedding_dim: int = 256) -> None:
        super().__init__()
        if min(channels, embedding_dim) < 1:
            raise ValueError(f"channels and embedding_dim: are {channels} and {embedding_dim}; 1 or more is needed")
        self.frame_dim, self.embedding_dim = 2 * channels, embedding_dim
        self.norm = nn.LayerNorm(num_mel_bins)
        self.input = nn.Conv1d(num_mel_bins, channels, 1)
        widths = [channels, channels, 2 * channels, 2 * channels]
        self.blocks = nn.ModuleList(PoolingBlock(a, b) for a, b in pairwise(widths))
        self.output = nn.Conv1d(2 * channels, embedding_dim, 1)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> SpeakerOutput:
        if mask is None:
            mask = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        shortest = POOLED_FRAMES ** len(self.blocks)
        features, lengths = _repeat_short(features, mask.sum(dim=1), shortest)
        frames = self.input(self.norm(features).transpose(1, 2))
        for block in self.blocks:
            frames = block(frames)
        # A frame is valid if all the frames that it was pooled from are.
        mask = length_mask(lengths // shortest, frames.shape[2])
        frames = frames * mask[:, None]
        embedded = self.output(frames) * mask[:, None]
        embedding = embedded.float().sum(dim=2) / mask.sum(dim=1, keepdim=True)
        return SpeakerOutput(frames, mask, embedding)


class PoolingBlock(nn.Module):
    """Two 1×1 convolutions with batch normalisation and PReLU, a shortcut, and the maximum of each three frames."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(in_channels, out_channels, 1, bias=False)
        self.norm1, self.activation1 = nn.BatchNorm1d(out_channels), nn.PReLU()
        self.conv2 = nn.Conv1d(out_channels, out_channels, 1, bias=False)
        self.norm2, self.activation2 = nn.BatchNorm1d(out_channels), nn.PReLU()
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv1d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return `[batch, out_channels, frames // 3]` of `[batch, in_channels, frames]`."""
        out = self.activation1(self.norm1(self.conv1(x)))
        out = self.activation2(self.norm2(self.conv2(out)) + self.shortcut(x))
        return nn.functional.max_pool1d(out, POOLED_FRAMES)


def _repeat_short(features: Tensor, lengths: Tensor, shortest: int) -> tuple[Tensor, Tensor]:
    """Repeat recordings below `shortest` frames up to it; return `[batch, frames, bins]` and the new lengths."""
    if not torch.jit.is_tracing() and int(lengths.min()) >= shortest:
        return features, lengths
    size = torch.as_tensor(features.shape[1]).clamp_min(shortest)
    index = torch.arange(size, device=features.device)[None] % lengths.clamp_min(1)[:, None]
    repeated = features.gather(1, index[..., None].expand(-1, -1, features.shape[2]))
    return repeated, lengths.clamp_min(shortest)
