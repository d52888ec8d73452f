"""SepFormer: transformers within and across chunks of frames, on learned filters.

Subakan et al., "Attention is all you need in speech separation" (ICASSP 2021), after the dual-path recurrent network of
Luo et al., "Dual-path RNN" (ICASSP 2020).

    waveform ─► learned encoder ─► norm, 1×1 ─► repeats ─► gate, mask · encoder output ─► learned decoder ─► estimate
                                                  │
                             point ─► transformer within each chunk  (neighbouring frames)
                             point ─► transformer across chunks      (frames at the same place of each chunk)

Two systems that steer it are configurations: X-SepFormer (Liu et al., ICASSP 2023), with an embedding at every point,
and SEF-Net (Zeng et al., Interspeech 2023), with the cue `own_frames`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wesep_py.network.backbones.backbone import Condition, backbones
from wesep_py.network.backbones.conv_tasnet import ACTIVATIONS, Activation, ChannelNorm
from wesep_py.network.backbones.masked_basis import MaskedBasis
from wesep_py.network.backbones.spectrum import full_precision

NORM_EPS = 1e-6


@backbones.register("sepformer")
class SepFormer(MaskedBasis):
    """Dual-path transformer that masks a learned encoder.

    The latent is `[batch, feature_dim, frames]`; an embedding is fused along its channels before each of the two
    transformers of a repeat, so there are 2 · `num_repeats` fusion points. Chunks are cut before, and joined after each
    transformer: a frame in two chunks takes their mean. In the paper they are joined once, at the end.

    Args:
        sample_rate: Hz (given by the model).
        input_channels: feature channels, those of the cues included (given by the model).
        kernel_ms, hop_ms: window of the learned filters and its shift, in milliseconds.
        num_filters: filters of the encoder.
        feature_dim: N, size of a frame in the transformers; even, and a multiple of `num_heads`.
        num_repeats: number of pairs of transformers.
        intra_layers, inter_layers: layers of the transformer within chunks, and of that across them.
        num_heads: heads of the attention.
        hidden: units of the feed-forward layers.
        chunk: frames of a chunk.
        chunk_hop: frames from one chunk to the next; at most `chunk`, where chunks do not overlap.
        dropout: share of the outputs of each layer that training drops, 0 to below 1.
        mask_activation: activation of the mask.

    Raises:
        ValueError: sizes below 1, or that do not divide; a hop longer than a window; a dropout out of range.

    >>> network = SepFormer(num_filters=8, feature_dim=8, num_repeats=1, intra_layers=1, inter_layers=1, num_heads=2)
    >>> analysis = network.analyse(torch.randn(2, 1000))
    >>> latent, _ = network.encode(analysis.features, lambda point, latent: latent)
    >>> network.synthesise(latent, analysis, 1000)[0].shape
    torch.Size([2, 1000])
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        input_channels: int = 1,
        kernel_ms: float = 2.0,
        hop_ms: float = 1.0,
        num_filters: int = 256,
        feature_dim: int = 256,
        num_repeats: int = 2,
        intra_layers: int = 8,
        inter_layers: int = 8,
        num_heads: int = 8,
        hidden: int = 1024,
        chunk: int = 250,
        chunk_hop: int = 125,
        dropout: float = 0.0,
        mask_activation: Activation = "relu",
    ) -> None:
        if min(num_filters, feature_dim, num_repeats, intra_layers, inter_layers, num_heads, hidden) < 1:
            raise ValueError(
                "num_filters, feature_dim, num_repeats, intra_layers, inter_layers, num_heads, hidden: need 1 or more"
            )
        if feature_dim % 2 or feature_dim % num_heads:
            raise ValueError(f"feature_dim: is {feature_dim}; an even multiple of num_heads ({num_heads}) is needed")
        if not 0 < chunk_hop <= chunk:
            raise ValueError(f"chunk_hop: is {chunk_hop}; 1 to chunk ({chunk}) is allowed")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout: is {dropout}; 0 to below 1 is allowed")
        super().__init__(sample_rate, kernel_ms, hop_ms, num_filters, causal=False)
        self.latent_dim, self.num_fusion_points = feature_dim, 2 * num_repeats
        features = input_channels * num_filters
        self.input = nn.Sequential(ChannelNorm(features, "global"), nn.Conv1d(features, feature_dim, 1))
        sizes = (feature_dim, num_heads, hidden, dropout)
        self.blocks = nn.ModuleList(
            ChunkTransformer(layers, *sizes, chunk, chunk_hop, across)
            for _ in range(num_repeats)
            for layers, across in ((intra_layers, False), (inter_layers, True))
        )
        self.mask = nn.Sequential(
            nn.PReLU(),
            nn.Conv1d(feature_dim, feature_dim, 1),
            GatedConvolution(feature_dim),
            nn.Conv1d(feature_dim, num_filters, 1),
            ACTIVATIONS[mask_activation](),
        )

    def encode(self, features: Tensor, condition: Condition, state: Any = None) -> tuple[Tensor, Any]:
        latent = self.input(features.flatten(1, 2))
        for point, block in enumerate(self.blocks):
            latent = block(condition(point, latent))
        return latent, None


class GatedConvolution(nn.Module):
    """`tanh(V x) · σ(G x)`, with 1×1 convolutions V and G, of `[batch, dim, frames]`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.value, self.gate = (nn.Conv1d(dim, dim, 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.value(x)) * torch.sigmoid(self.gate(x))


class ChunkTransformer(nn.Module):
    """A transformer within chunks, or across them, and a residual connection: `x + norm(transformer(x))`.

    Args:
        num_layers: number of layers.
        dim, num_heads, hidden, dropout: of a `TransformerLayer`.
        chunk, chunk_hop: frames of a chunk, and from one to the next.
        across: whether frames attend to those at the same place of the other chunks, instead of within their chunk.
    """

    def __init__(
        self,
        num_layers: int,
        dim: int,
        num_heads: int,
        hidden: int,
        dropout: float,
        chunk: int,
        chunk_hop: int,
        across: bool,
    ) -> None:
        super().__init__()
        self.chunk, self.chunk_hop, self.across = chunk, chunk_hop, across
        self.layers = nn.ModuleList(TransformerLayer(dim, num_heads, hidden, dropout) for _ in range(num_layers))
        self.last = nn.LayerNorm(dim, eps=NORM_EPS)
        self.norm = ChannelNorm(dim, "global")

    def forward(self, x: Tensor) -> Tensor:
        """Return `[batch, dim, frames]` of the same shape."""
        chunks = cut_chunks(x, self.chunk, self.chunk_hop)  # [batch, dim, chunks, chunk]
        batch, dim, *sizes = chunks.shape
        order = (0, 3, 2, 1) if self.across else (0, 2, 3, 1)
        h = chunks.permute(order).reshape(-1, sizes[0] if self.across else sizes[1], dim)
        h = h + position_encoding(h.shape[1], dim, h)
        for layer in self.layers:
            h = layer(h)
        h = self.last(full_precision(h))
        # The permutation (0, 3, 2, 1) is its own inverse; that of (0, 2, 3, 1) is (0, 3, 1, 2).
        first, second = (sizes[1], sizes[0]) if self.across else (sizes[0], sizes[1])
        h = h.view(batch, first, second, dim).permute((0, 3, 2, 1) if self.across else (0, 3, 1, 2))
        return x + self.norm(join_chunks(h, x.shape[2], self.chunk_hop))


class TransformerLayer(nn.Module):
    """Layer of a transformer, normalised before each part: self-attention, then two linear layers with a ReLU.

    Args:
        dim, num_heads: size of a frame, and number of heads, which divides it.
        hidden: units between the linear layers.
        dropout: share that is dropped of what each part adds.
    """

    def __init__(self, dim: int, num_heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm, self.linear_norm = nn.LayerNorm(dim, eps=NORM_EPS), nn.LayerNorm(dim, eps=NORM_EPS)
        self.projections, self.output = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.linear = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return `[sequences, length, dim]` of the same shape."""
        heads = self.projections(self.attention_norm(x)).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = x + self.dropout(self.output(attended))
        return x + self.dropout(self.linear(self.linear_norm(x)))


def position_encoding(length: int, dim: int, like: Tensor) -> Tensor:
    """Return sines and cosines of the positions, `[length, dim]`, on the device and of the type of `like`.

    Vaswani et al., "Attention is all you need" (NeurIPS 2017), section 3.5.

    >>> position_encoding(2, 4, torch.zeros(1))[0].tolist()
    [0.0, 1.0, 0.0, 1.0]
    """
    position = torch.arange(length, device=like.device, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, dim, 2, device=like.device, dtype=torch.float32) * (-math.log(10000.0) / dim))
    return torch.stack([torch.sin(position * rate), torch.cos(position * rate)], dim=2).flatten(1).to(like.dtype)


def cut_chunks(x: Tensor, chunk: int, hop: int) -> Tensor:
    """Cut `[batch, dim, frames]` into overlapping chunks `[batch, dim, chunks, chunk]`; zeros fill the last one up.

    >>> cut_chunks(torch.arange(5.0).view(1, 1, 5), 4, 2).tolist()
    [[[[0.0, 1.0, 2.0, 3.0], [2.0, 3.0, 4.0, 0.0]]]]
    """
    missing = max(0, chunk - x.shape[2]) or -(x.shape[2] - chunk) % hop
    return F.pad(x, (0, missing)).unfold(2, chunk, hop)


def join_chunks(chunks: Tensor, frames: int, hop: int) -> Tensor:
    """Join chunks of `cut_chunks` to `[batch, dim, frames]`: a frame in several chunks is their mean.

    >>> x = torch.randn(2, 3, 11)
    >>> torch.allclose(join_chunks(cut_chunks(x, 4, 2), 11, 2), x)
    True
    """
    batch, dim, count, size = chunks.shape
    total = (count - 1) * hop + size
    stacked = torch.cat([chunks.flatten(0, 1), chunks.new_ones(1, count, size)]).transpose(1, 2)
    summed = F.fold(stacked, (1, total), kernel_size=(1, size), stride=(1, hop))[:, 0, 0, :frames]
    return (summed[:-1] / summed[-1]).view(batch, dim, frames)
