"""x-vector: Snyder et al., ICASSP 2018."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wesep_py.speaker.base import speaker_networks
from wesep_py.speaker.pooled import PooledNetwork

LAYERS = ((5, 1), (3, 2), (3, 3), (1, 1), (1, 1))
"""Kernel size and dilation of each layer, in frames."""
CONTEXT = 1 + sum((kernel - 1) * dilation for kernel, dilation in LAYERS)
"""Frames that one frame after the last layer has seen."""


@speaker_networks.register("xvector")
class XVector(PooledNetwork):
    """Time-delay layers without padding, statistics over time, and two linear layers.

    A recording shorter than the 15 frames of context is repeated until it has them.

    Args:
        num_mel_bins: size of a filterbank frame (given by the front end).
        channels: of the first four layers.
        frame_dim: of the fifth, before pooling.
        embedding_dim: size of the embedding.
        pooling: a pooling's name, or `{name: …, …}`; see `pooling`.

    Raises:
        ValueError: a size below 1.
        ConfigError: no such pooling.

    >>> XVector(channels=8, frame_dim=16, embedding_dim=4).eval()(torch.randn(2, 100, 80)).frames.shape
    torch.Size([2, 16, 86])
    """

    def __init__(
        self,
        num_mel_bins: int = 80,
        channels: int = 512,
        frame_dim: int = 1500,
        embedding_dim: int = 512,
        pooling: str | dict[str, Any] = "tstp",
    ) -> None:
        super().__init__()
        for name, size in (("channels", channels), ("frame_dim", frame_dim)):
            if size < 1:
                raise ValueError(f"{name}: is {size}; 1 or more is needed")
        sizes = [num_mel_bins, *[channels] * (len(LAYERS) - 1), frame_dim]
        self.convs = nn.ModuleList(
            nn.Conv1d(before, after, kernel, dilation=dilation)
            for before, after, (kernel, dilation) in zip(sizes[:-1], sizes[1:], LAYERS, strict=True)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(size, affine=False) for size in sizes[1:])
        self.add_head(frame_dim, embedding_dim, pooling, second_layer=True)

    def encode(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        features, mask = repeat_short(features, mask, CONTEXT)
        x = features.transpose(1, 2)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(torch.relu(conv(x)))
        mask = mask[:, CONTEXT - 1 :]
        return x * mask[:, None], mask


def repeat_short(features: Tensor, mask: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """Recordings with fewer valid frames than `least` repeated up to it; the others as they are.

    >>> repeated, mask = repeat_short(torch.tensor([[[1.0], [2.0], [0.0]]]), torch.tensor([[True, True, False]]), 5)
    >>> repeated[0, :, 0].tolist()
    [1.0, 2.0, 1.0, 2.0, 1.0]
    """
    lengths = mask.sum(dim=1)
    if not bool((lengths < least).any()):
        return features, mask
    missing = max(0, least - features.shape[1])
    features = nn.functional.pad(features, (0, 0, 0, missing))
    positions = torch.arange(features.shape[1], device=features.device)[None]
    repeated = torch.where((lengths < least)[:, None], positions % lengths.clamp_min(1)[:, None], positions)
    features = features.gather(1, repeated[:, :, None].expand_as(features))
    return features, positions < lengths.clamp_min(least)[:, None]
