"""d-vector: Variani et al., ICASSP 2014; with an LSTM, Wan et al., ICASSP 2018."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from wesep_py.speaker.base import speaker_networks
from wesep_py.speaker.pooling import build_pooling
from wesep_py.speaker.voices import PoolingNetwork


@speaker_networks.register("dvector")
class DVector(PoolingNetwork):
    """LSTM layers with projections, the mean over the frames, a linear layer, and the length of one.

    Wan et al. take the LSTM's last frame of a short window, and average over windows; this averages its frames, as
    Variani et al. do. The LSTM runs forwards only, so that what follows a recording cannot reach its frames.

    Args:
        num_mel_bins: size of a filterbank frame (given by the front end).
        hidden_dim: cells of each layer.
        num_layers: layers.
        frame_dim: width to which each layer is projected; below `hidden_dim`.
        embedding_dim: size of the embedding, whose length is one (eq. 4 of Wan et al.).
        pooling: a pooling's name, or `{name: …, …}`; see `pooling`.
        dropout: share of the values between layers that is dropped while training, from 0 to below 1.

    Raises:
        ValueError: a size below 1, a projection that is not narrower than the layer, an impossible share.
        ConfigError: no such pooling.

    >>> import torch
    >>> DVector(hidden_dim=8, frame_dim=4, embedding_dim=6)(torch.randn(2, 100, 80)).embedding.norm(dim=1).allclose(
    ...     torch.ones(2)
    ... )
    True
    """

    def __init__(
        self,
        num_mel_bins: int = 80,
        hidden_dim: int = 768,
        num_layers: int = 3,
        frame_dim: int = 256,
        embedding_dim: int = 256,
        pooling: str | dict[str, Any] = "tap",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        for name, size in (("num_layers", num_layers), ("embedding_dim", embedding_dim)):
            if size < 1:
                raise ValueError(f"{name}: is {size}; 1 or more is needed")
        if not 1 <= frame_dim < hidden_dim:
            raise ValueError(f"frame_dim: is {frame_dim}; from 1 to below hidden_dim ({hidden_dim}) is needed")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout: is {dropout}; a share from 0 to below 1 is needed")
        self.frame_dim, self.embedding_dim = frame_dim, embedding_dim
        self.lstm = nn.LSTM(
            num_mel_bins,
            hidden_dim,
            num_layers,
            batch_first=True,
            dropout=dropout if num_layers > 1 else 0.0,
            proj_size=frame_dim,
        )
        self.pool = build_pooling(pooling, frame_dim)
        self.linear = nn.Linear(self.pool.out_dim, embedding_dim)

    def encode(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        frames, _ = self.lstm(features * mask[:, :, None])
        return frames.transpose(1, 2) * mask[:, None], mask

    def embed(self, pooled: Tensor) -> Tensor:
        return nn.functional.normalize(self.linear(pooled).float(), dim=1)
