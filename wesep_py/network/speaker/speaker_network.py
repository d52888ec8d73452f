"""Layers on a filterbank as an image, `[batch, channels, bins, frames]`, that are deaf to padding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wesep_py.common.errors import InputError
from wesep_py.common.registry import Registry
from wesep_py.network.speaker.pooling import Pooling, RecursiveAttentivePooling, build_pooling

# ----------------------------------------
# What a speaker network is: filterbank frames in, frame-level features and one embedding out.


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


# ----------------------------------------
# All voices of a recording: what networks with a recursive pooling say beyond the one embedding.


class Voices(NamedTuple):
    """The voices of recordings.

    Attributes:
        embeddings: `[batch, voices, embedding_dim]`.
        existence_logits: `[batch, voices]`, above 0 where there is such a voice. The first counts whatever its is.
        count: `[batch]`, how many there are, 1 or more.
    """

    embeddings: Tensor
    existence_logits: Tensor
    count: Tensor


class PoolingNetwork(SpeakerNetwork):
    """Base of the networks that pool frames and make an embedding of what was pooled.

    Attributes:
        pool: the pooling.
    """

    pool: Pooling

    @abstractmethod
    def encode(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """`[batch, frames, bins]`, `[batch, frames]` → what is pooled, zero past the end; its mask."""

    @abstractmethod
    def embed(self, pooled: Tensor) -> Tensor:
        """What was pooled, `[items, pool.out_dim]` → embeddings `[items, embedding_dim]`, float32."""

    def forward(self, features: Tensor, mask: Tensor | None = None) -> SpeakerOutput:
        if mask is None:
            mask = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        frames, mask = self.encode(features, mask)
        return SpeakerOutput(frames, mask, self.embed(self.pool(frames, mask)))

    def voices(
        self,
        frames: Tensor,
        mask: Tensor,
        max_voices: int | None = None,
        threshold: float = 0.5,
        counts: Tensor | None = None,
    ) -> Voices:
        """The voices in frames that `encode` (or `forward`) returned; the first is `SpeakerOutput.embedding`.

        Args:
            frames: `[batch, frame_dim, …]`.
            mask: `[batch, frames]`.
            max_voices: as many are looked for; the pooling's own number, if `None`.
            threshold: the first voice whose probability to exist is below ends the count, 0 to 1.
            counts: `[batch]`, where it is known how many there are: the embeddings of the others are zero, and batch
                normalisation does not see them.

        Raises:
            InputError: the pooling is another than `recursive`, or a number is out of range.
        """
        if not isinstance(self.pool, RecursiveAttentivePooling):
            raise InputError(
                "the speaker encoder hears one voice a recording; one with the pooling 'recursive' is needed"
            )
        if max_voices is not None and max_voices < 1:
            raise InputError(f"max_voices: is {max_voices}; 1 or more is allowed")
        if not 0 < threshold < 1:
            raise InputError(f"threshold: is {threshold}; a probability between 0 and 1 is allowed")
        pooled, logits = self.pool.voices(frames, mask, max_voices)
        if counts is None:
            return Voices(self.embed(pooled.flatten(0, 1)).unflatten(0, logits.shape), logits, count(logits, threshold))
        there = torch.arange(logits.shape[1], device=logits.device)[None] < counts[:, None]
        found = self.embed(pooled[there])
        embeddings = found.new_zeros(*logits.shape, self.embedding_dim)
        embeddings[there] = found
        return Voices(embeddings, logits, counts)


def count(existence_logits: Tensor, threshold: float = 0.5) -> Tensor:
    """How many voices there are, `[batch]`: up to the first that is not; the first of all is taken for granted.

    >>> count(torch.tensor([[-9.0, 3.0, -1.0, 5.0]])).tolist()
    [2]
    """
    there = existence_logits[:, 1:].sigmoid() >= threshold
    return 1 + there.long().cumprod(dim=1).sum(dim=1)


# ----------------------------------------
# Networks that end alike: frames are pooled, and one or two linear layers make the embedding.


class PooledNetwork(PoolingNetwork):
    """Base of these networks; a subclass makes its layers, calls `add_head` last, and defines `encode`."""

    def add_head(
        self,
        frame_dim: int,
        embedding_dim: int,
        pooling: str | dict[str, Any],
        second_layer: bool = False,
        dropout: float = 0.0,
    ) -> None:
        """Make the layers after `encode`.

        Args:
            frame_dim: channels that `encode` returns.
            embedding_dim: size of the embedding.
            pooling: a pooling's name, or `{name: …, …}`; see `pooling`.
            second_layer: ReLU, batch normalisation and another linear layer make the embedding.
            dropout: share of the pooled vector that is dropped while training, from 0 to below 1.

        Raises:
            ValueError: a size below 1, or an impossible share.
            ConfigError: no such pooling.
        """
        if embedding_dim < 1:
            raise ValueError(f"embedding_dim: is {embedding_dim}; 1 or more is needed")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout: is {dropout}; a share from 0 to below 1 is needed")
        self.frame_dim, self.embedding_dim = frame_dim, embedding_dim
        self.pool = build_pooling(pooling, frame_dim)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(self.pool.out_dim, embedding_dim)
        self.second = None
        if second_layer:
            self.second = nn.Sequential(
                nn.ReLU(), nn.BatchNorm1d(embedding_dim, affine=False), nn.Linear(embedding_dim, embedding_dim)
            )

    def embed(self, pooled: Tensor) -> Tensor:
        embedding = self.linear(self.dropout(pooled))
        return (embedding if self.second is None else self.second(embedding)).float()

    def first_embedding(self, output: SpeakerOutput) -> Tensor:
        """What the first linear layer makes of the frames that `forward` returned: `[batch, embedding_dim]`.

        It differs from the embedding only where there is a second layer.
        """
        return self.linear(self.dropout(self.pool(output.frames, output.mask))).float()


class ConvNorm(nn.Module):
    """Convolution and batch normalisation; what stands past the end of a recording is zero to the convolution.

    Args:
        in_channels, out_channels: of the image.
        kernel_size: odd; in bins and frames.
        stride: in bins and frames.

    >>> import torch
    >>> x, mask = ConvNorm(1, 4, 3, (2, 1))(torch.randn(2, 1, 80, 50), torch.ones(2, 50, dtype=torch.bool))
    >>> x.shape, mask.shape
    (torch.Size([2, 4, 40, 50]), torch.Size([2, 50]))
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int | tuple[int, int] = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """`[batch, in_channels, bins, frames]`, `[batch, frames]` → both at the convolution's stride."""
        if self.conv.kernel_size[1] > 1:
            x = x * mask[:, None, None]
        return self.norm(self.conv(x)), mask[:, :: self.conv.stride[1]]


def shortcut(in_channels: int, out_channels: int, stride: int | tuple[int, int]) -> ConvNorm | None:
    """What carries a block's input past it: nothing where it fits as it is, else a strided 1×1 convolution."""
    if stride in (1, (1, 1)) and in_channels == out_channels:
        return None
    return ConvNorm(in_channels, out_channels, 1, stride)
