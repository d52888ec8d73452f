"""ECAPA-TDNN: Desplanques et al., "ECAPA-TDNN: emphasized channel attention, propagation and aggregation in TDNN based
speaker verification", Interspeech 2020.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from wesep_py.network.speaker.pooling import RecursiveAttentivePooling, build_pooling, masked_statistics
from wesep_py.network.speaker.speaker_network import PoolingNetwork, SpeakerOutput, speaker_networks


@speaker_networks.register("ecapa_tdnn")
class ECAPATDNN(PoolingNetwork):
    """Squeeze-and-excitation Res2 blocks, aggregated over layers, with attentive statistics or another pooling.

    Args:
        num_mel_bins: number of mel bins (given by the front end).
        channels: number of channels of the blocks; a multiple of `res2_scale`.
        frame_dim: number of channels before pooling.
        embedding_dim: size of the embedding.
        res2_scale: number of parts into which a block's channels are split.
        global_context: give the attention of the pooling the whole recording's mean and standard deviation. `None`:
            yes if `pooling` is just the name `astp`, else as its own arguments say.
        embedding_norm: batch normalisation of the embedding.
        frames: the frame-level features that are returned: `pooled`, those before pooling (`frame_dim` channels), or
            `last_block`, those of the third block (`channels` channels), as in WeSpeaker.
        pooling: name of a pooling, or `{name: …, …}`; see `pooling`.

    Raises:
        ValueError: `channels` is not a multiple of `res2_scale`; `global_context` is given with a pooling other than
            the name `astp`; `last_block` with the pooling `recursive`, which needs the frames before pooling.
        ConfigError: there is no such pooling.

    >>> ECAPATDNN(channels=16, embedding_dim=8)(torch.randn(2, 100, 80)).embedding.shape
    torch.Size([2, 8])
    """

    def __init__(
        self,
        num_mel_bins: int = 80,
        channels: int = 512,
        frame_dim: int = 1536,
        embedding_dim: int = 192,
        res2_scale: int = 8,
        global_context: bool | None = None,
        embedding_norm: bool = False,
        frames: Literal["pooled", "last_block"] = "pooled",
        pooling: str | dict[str, Any] = "astp",
    ) -> None:
        super().__init__()
        if channels < 1 or channels % res2_scale:
            raise ValueError(f"channels: is {channels}; a multiple of res2_scale ({res2_scale}) is needed")
        if pooling == "astp":
            pooling = {"name": "astp", "global_context": global_context is not False}
        elif global_context is not None:
            raise ValueError("global_context: is an argument of the pooling 'astp'; remove it with another one")
        self.frames, self.embedding_dim = frames, embedding_dim
        self.frame_dim = channels if frames == "last_block" else frame_dim
        self.layer1 = ConvReluNorm(num_mel_bins, channels, kernel_size=5, padding=2)
        self.blocks = nn.ModuleList(SERes2Block(channels, res2_scale, dilation) for dilation in (2, 3, 4))
        self.conv = nn.Conv1d(3 * channels, frame_dim, 1)
        self.pool = build_pooling(pooling, frame_dim)
        if frames == "last_block" and isinstance(self.pool, RecursiveAttentivePooling):
            raise ValueError("frames: is 'last_block'; the pooling 'recursive' needs 'pooled'")
        self.pool_norm = nn.BatchNorm1d(self.pool.out_dim)
        self.linear = nn.Linear(self.pool.out_dim, embedding_dim)
        self.embedding_norm = nn.BatchNorm1d(embedding_dim) if embedding_norm else nn.Identity()

    def forward(self, features: Tensor, mask: Tensor | None = None) -> SpeakerOutput:
        if mask is None:
            mask = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        frames, last = self._blocks(features, mask)
        return SpeakerOutput(last if self.frames == "last_block" else frames, mask, self.embed(self.pool(frames, mask)))

    def encode(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the frames to be pooled and their mask; see `PoolingNetwork.encode`."""
        return self._blocks(features, mask)[0], mask

    def embed(self, pooled: Tensor) -> Tensor:
        """Return the embeddings of pooled vectors; see `PoolingNetwork.embed`."""
        return self.embedding_norm(self.linear(self.pool_norm(pooled))).float()

    def _blocks(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the frames before pooling and those of the last block, zero after the end of each recording."""
        valid = mask[:, None].to(features.dtype)
        x = self.layer1(features.transpose(1, 2) * valid)
        outputs = []
        for block in self.blocks:
            x = block(x * valid, mask)
            outputs.append(x)
        return torch.relu(self.conv(torch.cat(outputs, dim=1))) * valid, x * valid


class ConvReluNorm(nn.Module):
    """Convolution, ReLU, batch normalisation, in this order."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_channels, out_channels, kernel_size, padding=padding)
        self.norm = nn.BatchNorm1d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(torch.relu(self.conv(x)))


class SERes2Block(nn.Module):
    """1×1 convolution, Res2 dilated convolution, 1×1 convolution, squeeze and excitation; residual."""

    def __init__(self, channels: int, scale: int, dilation: int) -> None:
        super().__init__()
        self.expand = ConvReluNorm(channels, channels)
        self.res2 = Res2Conv(channels, scale, dilation)
        self.project = ConvReluNorm(channels, channels)
        self.excite = SqueezeExcite(channels)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        out = self.res2(self.expand(x), mask)
        return x + self.excite(self.project(out), mask)


class Res2Conv(nn.Module):
    """Dilated convolutions on parts of the channels, each on its part plus the result of the part before.

    The last part stays as it is.

    Gao et al., "Res2Net" (TPAMI 2019).
    """

    def __init__(self, channels: int, scale: int, dilation: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.width = channels // scale
        padding = dilation * (kernel_size - 1) // 2
        self.convs = nn.ModuleList(
            nn.Conv1d(self.width, self.width, kernel_size, padding=padding, dilation=dilation) for _ in range(scale - 1)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(self.width) for _ in range(scale - 1))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        *parts, last = x.split(self.width, dim=1)
        valid, results, current = mask[:, None].to(x.dtype), [], None
        for part, conv, norm in zip(parts, self.convs, self.norms, strict=True):
            current = part if current is None else current + part
            current = norm(torch.relu(conv(current * valid)))
            results.append(current)
        return torch.cat([*results, last], dim=1)


class SqueezeExcite(nn.Module):
    """Squeeze and excitation: a weight for each channel, from the mean over time (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int, bottleneck: int = 128) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, bottleneck)
        self.linear2 = nn.Linear(bottleneck, channels)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        mean, _ = masked_statistics(x, mask)
        weights = torch.sigmoid(self.linear2(torch.relu(self.linear1(mean.squeeze(2)))))
        return x * weights[:, :, None]
