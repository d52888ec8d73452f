"""What a speaker network is: filterbank frames in, frame-level features and one embedding out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wesep_py.registry import Registry


class SpeakerOutput(NamedTuple):
    """What an encoder says of a recording.

    Attributes:
        frames: `[batch, frame_dim, frames]`, before pooling; zero past the end of a recording.
        mask: `[batch, frames]`, true within the recording.
        embedding: `[batch, embedding_dim]`.
    """

    frames: Tensor
    mask: Tensor
    embedding: Tensor


class SpeakerNetwork(nn.Module, ABC):
    """Base of the speaker networks.

    Attributes:
        frame_dim, embedding_dim: sizes of the frame-level features and of the embedding.
    """

    frame_dim: int
    embedding_dim: int

    @abstractmethod
    def forward(self, features: Tensor, mask: Tensor | None = None) -> SpeakerOutput:
        """`[batch, frames, bins]` and the mask of its valid frames (all, if `None`) → `SpeakerOutput`."""


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """`[batch]` lengths → `[batch, size]`, true below each.

    >>> length_mask(torch.tensor([1, 3]), 3).tolist()
    [[True, False, False], [True, True, True]]
    """
    return torch.arange(size, device=lengths.device)[None] < lengths[:, None]


speaker_networks: Registry[SpeakerNetwork] = Registry("speaker network", SpeakerNetwork)
