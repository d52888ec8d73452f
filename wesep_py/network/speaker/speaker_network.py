"""The interface of a speaker network, and what the networks share.

A speaker network takes filterbank frames and returns frame-level features and one embedding (`SpeakerNetwork`,
`SpeakerOutput`). `speaker_networks` is the registry of their names. Two base classes do the common work:
`PoolingNetwork` pools frames, and can return the embeddings of several speakers; `PooledNetwork` adds the usual head of
linear layers. The last section has layers for networks that take the filterbank as an image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wesep_py.common.errors import InputError
from wesep_py.common.registry import Registry
from wesep_py.network.speaker.pooling import Pooling, RecursiveAttentivePooling, build_pooling


class SpeakerOutput(NamedTuple):
    """Frame-level features and embedding of recordings.

    Attributes:
        frames: `[batch, frame_dim, frames]`, before pooling; zero after the end of a recording.
        mask: `[batch, frames]`, True within the recording.
        embedding: `[batch, embedding_dim]`.
    """

    frames: Tensor
    mask: Tensor
    embedding: Tensor


class SpeakerNetwork(nn.Module, ABC):
    """Base of the speaker networks.

    Attributes:
        frame_dim: size of the frame-level features.
        embedding_dim: size of the embedding.
    """

    frame_dim: int
    embedding_dim: int

    @abstractmethod
    def forward(self, features: Tensor, mask: Tensor | None = None) -> SpeakerOutput:
        """Return features and embedding of a batch, whatever its padding holds.

        Args:
            features: `[batch, frames, bins]`.
            mask: `[batch, frames]`, True for valid frames; `None` if all are.
        """


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """Return a mask `[batch, size]` that is True below each length.

    Args:
        lengths: `[batch]`, whole numbers.
        size: length of the mask.

    >>> length_mask(torch.tensor([1, 3]), 3).tolist()
    [[True, False, False], [True, True, True]]
    """
    return torch.arange(size, device=lengths.device)[None] < lengths[:, None]


speaker_networks: Registry[SpeakerNetwork] = Registry("speaker network", SpeakerNetwork)


class SpeakerEmbeddings(NamedTuple):
    """The embeddings of all speakers of recordings in which several talk.

    Attributes:
        embeddings: `[batch, voices, embedding_dim]`.
        existence_logits: `[batch, voices]`, above 0 where that voice exists. The first one always counts.
        count: `[batch]`, number of voices that exist, 1 or more.
    """

    embeddings: Tensor
    existence_logits: Tensor
    count: Tensor


class PoolingNetwork(SpeakerNetwork):
    """Base of the networks that pool frames over time and make an embedding of the result.

    Attributes:
        pool: the pooling.
    """

    pool: Pooling

    @abstractmethod
    def encode(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the frames to be pooled, `[batch, frame_dim, frames]`, zero after the end, and their mask."""

    @abstractmethod
    def embed(self, pooled: Tensor) -> Tensor:
        """Return embeddings `[items, embedding_dim]`, float32, of pooled vectors `[items, pool.out_dim]`."""

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
    ) -> SpeakerEmbeddings:
        """Return the embeddings of all voices in frames that `encode` (or `forward`) returned.

        The first one is that of `SpeakerOutput`.

        Args:
            frames: `[batch, frame_dim, …]`.
            mask: `[batch, frames]`.
            max_voices: number of voices to look for; `None`: that of the pooling.
            threshold: the count ends before the first voice whose probability of existence is below this; 0 to 1.
            counts: `[batch]`, the number of voices where it is known: the embeddings of further ones are zero, and
                batch normalisation does not see them.

        Raises:
            InputError: the pooling is not `recursive`, or a number is out of range.
        """
        if not isinstance(self.pool, RecursiveAttentivePooling):
            raise InputError(
                "this speaker encoder finds one voice per recording; one with the pooling 'recursive' is needed"
            )
        if max_voices is not None and max_voices < 1:
            raise InputError(f"max_voices: is {max_voices}; 1 or more is allowed")
        if not 0 < threshold < 1:
            raise InputError(f"threshold: is {threshold}; a probability between 0 and 1 is allowed")
        pooled, logits = self.pool.voices(frames, mask, max_voices)
        if counts is None:
            embeddings = self.embed(pooled.flatten(0, 1)).unflatten(0, logits.shape)
            return SpeakerEmbeddings(embeddings, logits, count_voices(logits, threshold))
        exists = length_mask(counts, logits.shape[1])
        of_existing = self.embed(pooled[exists])
        embeddings = of_existing.new_zeros(*logits.shape, self.embedding_dim)
        embeddings[exists] = of_existing
        return SpeakerEmbeddings(embeddings, logits, counts)


def count_voices(existence_logits: Tensor, threshold: float = 0.5) -> Tensor:
    """Return the number of voices of each recording, `[batch]`: those before the first that does not exist.

    The first voice always counts.

    >>> count_voices(torch.tensor([[-9.0, 3.0, -1.0, 5.0]])).tolist()
    [2]
    """
    exists = existence_logits[:, 1:].sigmoid() >= threshold
    return 1 + exists.long().cumprod(dim=1).sum(dim=1)  # the product stays 0 after the first that does not exist


class PooledNetwork(PoolingNetwork):
    """Base of the networks that end in pooling and one or two linear layers.

    A subclass makes its layers, calls `add_head` last, and defines `encode`.
    """

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
            frame_dim: number of channels that `encode` returns.
            embedding_dim: size of the embedding.
            pooling: a pooling's name, or `{name: …, …}`; see `pooling`.
            second_layer: put ReLU, batch normalisation and another linear layer before the embedding.
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
        """Return the embeddings of pooled vectors; see `PoolingNetwork.embed`."""
        embedding = self.linear(self.dropout(pooled))
        return (embedding if self.second is None else self.second(embedding)).float()

    def first_embedding(self, output: SpeakerOutput) -> Tensor:
        """Return the output of the first linear layer, `[batch, embedding_dim]`, for an output of `forward`.

        It differs from the embedding only if there is a second layer.
        """
        return self.linear(self.dropout(self.pool(output.frames, output.mask))).float()


# Layers for a filterbank as an image, `[batch, channels, bins, frames]`.


class ConvNorm(nn.Module):
    """Convolution and batch normalisation; the convolution takes zeros after the end of each recording.

    Args:
        in_channels, out_channels: of the image.
        kernel_size: odd, in bins and frames.
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
        """Return an image `[batch, out_channels, bins, frames]` and the mask of its frames, both at the stride."""
        if self.conv.kernel_size[1] > 1:
            x = x * mask[:, None, None]
        return self.norm(self.conv(x)), mask[:, :: self.conv.stride[1]]


def shortcut(in_channels: int, out_channels: int, stride: int | tuple[int, int]) -> ConvNorm | None:
    """Return the shortcut of a residual block: `None` if its input fits, else a strided 1×1 convolution."""
    if stride in (1, (1, 1)) and in_channels == out_channels:
        return None
    return ConvNorm(in_channels, out_channels, 1, stride)
