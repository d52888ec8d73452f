"""x-vector and d-vector.

- x-vector: Snyder et al., ICASSP 2018.
- d-vector: Variani et al., ICASSP 2014; with an LSTM, Wan et al., ICASSP 2018.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from wesep_py.network.speaker.pooling import build_pooling
from wesep_py.network.speaker.speaker_network import PooledNetwork, PoolingNetwork, speaker_networks

TDNN_LAYERS = ((5, 1), (3, 2), (3, 3), (1, 1), (1, 1))
"""Kernel size and dilation of each layer, in frames."""
CONTEXT_FRAMES = 1 + sum((kernel - 1) * dilation for kernel, dilation in TDNN_LAYERS)
"""Number of input frames that one frame after the last layer depends on."""


@speaker_networks.register("xvector")
class XVector(PooledNetwork):
    """Time-delay layers without padding, statistics over time, and two linear layers.

    A recording shorter than the 15 frames of context is repeated up to that length.

    Args:
        num_mel_bins: number of mel bins (given by the front end).
        channels: number of channels of the first four layers.
        frame_dim: number of channels of the fifth, before pooling.
        embedding_dim: size of the embedding.
        pooling: name of a pooling, or `{name: …, …}`; see `pooling`.

    Raises:
        ValueError: a size is below 1.
        ConfigError: there is no such pooling.

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
        sizes = [num_mel_bins, *[channels] * (len(TDNN_LAYERS) - 1), frame_dim]
        self.convs = nn.ModuleList(
            nn.Conv1d(before, after, kernel, dilation=dilation)
            for before, after, (kernel, dilation) in zip(sizes[:-1], sizes[1:], TDNN_LAYERS, strict=True)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(size, affine=False) for size in sizes[1:])
        self.add_head(frame_dim, embedding_dim, pooling, second_layer=True)

    def encode(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the frames to be pooled and their mask; see `PoolingNetwork.encode`."""
        features, mask = repeat_short(features, mask, CONTEXT_FRAMES)
        x = features.transpose(1, 2)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(torch.relu(conv(x)))
        mask = mask[:, CONTEXT_FRAMES - 1 :]
        return x * mask[:, None], mask


def repeat_short(features: Tensor, mask: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """Repeat recordings with fewer valid frames than `least` up to that length; leave the others as they are.

    Args:
        features: `[batch, frames, bins]`.
        mask: `[batch, frames]`, True for valid frames.
        least: number of frames that are needed.

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
    source = torch.where((lengths < least)[:, None], positions % lengths.clamp_min(1)[:, None], positions)
    features = features.gather(1, source[:, :, None].expand_as(features))
    return features, positions < lengths.clamp_min(least)[:, None]


@speaker_networks.register("dvector")
class DVector(PoolingNetwork):
    """LSTM layers with projections, the mean over the frames, and a linear layer; the embedding has length one.

    By default the LSTM's frames are averaged, as Variani et al. do. Wan et al. take the last frame of a short window,
    and average over windows: that is `pooling: last`, with the `windows` of the encoder (`SpeakerConfig`). The LSTM
    runs forwards only, so that padding after a recording cannot change its frames.

    Args:
        num_mel_bins: number of mel bins (given by the front end).
        hidden_dim: number of cells of each layer.
        num_layers: number of layers.
        frame_dim: size to which each layer is projected; `hidden_dim` for none.
        embedding_dim: size of the embedding, whose length is one (eq. 4 of Wan et al.).
        pooling: name of a pooling, or `{name: …, …}`; see `pooling`.
        dropout: share of the values between layers that is dropped while training, from 0 to below 1.
        activation: of the embedding, before its length becomes one: `none` or `relu`.

    Raises:
        ValueError: a size is below 1, the projection is larger than the layer, or the share is out of range.
        ConfigError: there is no such pooling.

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
        activation: Literal["none", "relu"] = "none",
    ) -> None:
        super().__init__()
        for name, size in (("num_layers", num_layers), ("embedding_dim", embedding_dim)):
            if size < 1:
                raise ValueError(f"{name}: is {size}; 1 or more is needed")
        if not 1 <= frame_dim <= hidden_dim:
            raise ValueError(f"frame_dim: is {frame_dim}; from 1 to hidden_dim ({hidden_dim}) is needed")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout: is {dropout}; a share from 0 to below 1 is needed")
        self.frame_dim, self.embedding_dim = frame_dim, embedding_dim
        self.lstm = nn.LSTM(
            num_mel_bins,
            hidden_dim,
            num_layers,
            batch_first=True,
            dropout=dropout if num_layers > 1 else 0.0,
            proj_size=frame_dim if frame_dim < hidden_dim else 0,
        )
        self.pool = build_pooling(pooling, frame_dim)
        self.linear, self.activation = nn.Linear(self.pool.out_dim, embedding_dim), activation

    def encode(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the frames to be pooled and their mask; see `PoolingNetwork.encode`."""
        frames, _ = self.lstm(features * mask[:, :, None])
        return frames.transpose(1, 2) * mask[:, None], mask

    def embed(self, pooled: Tensor) -> Tensor:
        """Return the embeddings of pooled vectors; see `PoolingNetwork.embed`."""
        embedding = self.linear(pooled).float()
        return nn.functional.normalize(embedding.relu() if self.activation == "relu" else embedding, dim=1)
