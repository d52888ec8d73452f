"""Networks that end alike: frames are pooled, and one or two linear layers make the embedding."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from wesep_py.speaker.base import SpeakerOutput
from wesep_py.speaker.pooling import build_pooling
from wesep_py.speaker.voices import PoolingNetwork


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
