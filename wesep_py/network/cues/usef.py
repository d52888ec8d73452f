"""USEF: the mixture's frames attend to the enrollment's; no speaker encoder.

Zeng & Li, "USEF-TSE: universal speaker embedding free target speaker extraction" (arXiv 2409.02615). The attention is
TF-GridNet's (Wang et al., TASLP 2023), with queries from one signal and keys and values from the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from wesep_py.network.backbones import Analysis, Backbone
from wesep_py.network.backbones.spectrum import full_precision
from wesep_py.network.cues.cue import Cue, Enrollment, PreparedEnrollment, cross_attention, cues
from wesep_py.network.speaker import SpeakerEncoder, length_mask

INPUT_EPS = torch.finfo(torch.float32).eps
ATTENTION_EPS = 1e-5


@cues.register("usef")
class USEFCue(Cue):
    """Convolved features of the mixture, and what the enrollment's features have to say of each of its frames.

    One convolution on both signals; `softmax(QKᵀ / √d) V` for every head, with all bins of a frame in one query; a
    projection. Mixture features and projected attention take the place of the backbone's own features, or join them.

    Args:
        channels: of the convolution, and of the attention's result; a multiple of `num_heads`.
        num_heads: of the attention.
        query_dim: size of a query over all bins, about: each head has ⌈query_dim / bins⌉ channels.
        kernel: of the convolution, frames and bins; odd.
        norm: of the spectrum before the convolution: `group` over time, bins and parts; `frame` over bins and parts
            of each frame; `none`, where the model's `normalise` is enough; `null` is `frame` when causal and `group`
            otherwise.
        causal: the convolution knows earlier frames only; `null`: when the backbone is causal. With `false` on a
            causal backbone every frame looks (kernel − 1) / 2 frames ahead, and no recording can go on in stretches.
        keep_features: the backbone's own features stay.

    Raises:
        ValueError: sizes that do not divide, an even kernel, `norm: group` when causal.
    """

    stage = "input"

    def __init__(
        self,
        channels: int = 8,
        num_heads: int = 4,
        query_dim: int = 512,
        kernel: int = 3,
        norm: Literal["none", "group", "frame"] | None = None,
        causal: bool | None = None,
        keep_features: bool = False,
    ) -> None:
        super().__init__()
        if min(channels, num_heads, query_dim) < 1 or channels % num_heads:
            raise ValueError(f"channels: is {channels}; a multiple of num_heads ({num_heads}) is needed")
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel: is {kernel}; an odd number is needed")
        self.channels, self.num_heads, self.query_dim, self.kernel = channels, num_heads, query_dim, kernel
        self.norm, self.causal, self.replaces_features = norm, causal, not keep_features

    def added_channels(self) -> int:
        return 2 * self.channels

    def attach(self, backbone: Backbone, encoder: SpeakerEncoder | None) -> None:
        features = backbone.analyse(torch.zeros(1, backbone.stride)).features
        self.native, bins = features.shape[1], features.shape[2]
        streams = backbone.latency is not None
        causal = streams if self.causal is None else self.causal
        norm = self.norm or ("frame" if streams else "group")
        if norm == "group" and streams:
            raise ValueError("norm: 'group' averages over time, which a causal network cannot; use 'frame' or 'none'")
        self.past_frames = self.kernel - 1 if causal else 0
        self.looks_ahead = streams and not causal and self.kernel > 1
        before = self.kernel - 1 if causal else self.kernel // 2
        self.padding = (before, self.kernel - 1 - before)

        self.input_norm = None if norm == "none" else SpectrumNorm(self.native, bins, over_time=norm == "group")
        self.conv = nn.Conv2d(self.native, self.channels, self.kernel, padding=(self.kernel // 2, 0))
        per_head = -(-self.query_dim // bins)
        self.query = ConvHeadProjection(self.channels, self.num_heads, per_head, bins)
        self.key = ConvHeadProjection(self.channels, self.num_heads, per_head, bins)
        self.value = ConvHeadProjection(self.channels, self.num_heads, self.channels // self.num_heads, bins)
        self.output = ConvHeadProjection(self.channels, 1, self.channels, bins)

    def prepare(self, enrollment: Enrollment) -> PreparedEnrollment:
        mask = enrollment.frame_mask
        features = self.convolve(enrollment.analysis.features[:, : self.native], mask)
        return {
            "keys": self.key(features).flatten(3),
            "values": self.value(features).flatten(3),
            "mask": mask,
        }

    def combine(self, prepared: Sequence[PreparedEnrollment], weights: Sequence[float] | None = None) -> PreparedEnrollment:
        along = {"keys": 2, "values": 2, "mask": 1}
        return {key: torch.cat([one[key] for one in prepared], dim=axis) for key, axis in along.items()}

    def steer_features(self, analysis: Analysis, features: Tensor, prepared: PreparedEnrollment) -> Tensor:
        everywhere = torch.full((len(features),), features.shape[-1], device=features.device)
        own = self.convolve(analysis.features[:, : self.native], length_mask(everywhere, features.shape[-1]))
        query = self.query(own)
        attended = cross_attention(
            query.flatten(3),
            prepared["keys"].to(query.dtype),
            prepared["values"].to(query.dtype),
            prepared["mask"].bool()[:, None, None],
        )
        batch, _, frames, _ = attended.shape
        merged = attended.view(batch, self.num_heads, frames, -1, features.shape[2]).transpose(2, 3)
        attended = self.output(merged.flatten(1, 2).transpose(2, 3)).squeeze(1).permute(0, 2, 3, 1)
        kept = features[:, self.native :] if self.replaces_features else features
        return torch.cat([kept, own.to(attended.dtype), attended], dim=1)

    def convolve(self, features: Tensor, mask: Tensor) -> Tensor:
        """`[batch, channels, bins, frames]` and valid frames → the convolution's, of the same frames."""
        if self.input_norm is not None:
            features = self.input_norm(features, mask)
        features = features * mask[:, None, None]
        return self.conv(nn.functional.pad(features, self.padding))


class SpectrumNorm(nn.Module):
    """Normalisation of `[batch, channels, bins, frames]` over channels, bins and valid frames, or for each frame.

    Args:
        over_time: over frames too, with a weight a channel; else one a channel and bin.
    """

    def __init__(self, channels: int, bins: int, over_time: bool) -> None:
        super().__init__()
        self.over_time = over_time
        shape = (channels, 1, 1) if over_time else (channels, bins, 1)
        self.weight, self.bias = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.zeros(shape))

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        features = full_precision(features)
        if self.over_time:
            axes, valid = (1, 2, 3), mask[:, None, None].to(features.dtype)
            count = valid.sum(dim=3, keepdim=True) * features.shape[1] * features.shape[2]
        else:
            axes, valid, count = (1, 2), 1.0, features.shape[1] * features.shape[2]
        mean = (features * valid).sum(dim=axes, keepdim=True) / count
        variance = ((features - mean).square() * valid).sum(dim=axes, keepdim=True) / count
        return (features - mean) / (variance + INPUT_EPS).sqrt() * self.weight + self.bias


class ConvHeadProjection(nn.Module):
    """1×1 convolution, PReLU and normalisation over the channels and bins of each head's frames.

    `[batch, channels, bins, frames]` → `[batch, heads, frames, per_head, bins]`.
    """

    def __init__(self, channels: int, heads: int, per_head: int, bins: int) -> None:
        super().__init__()
        self.heads = heads
        self.conv = nn.Conv2d(channels, heads * per_head, 1)
        self.act = nn.PReLU(heads)
        self.weight = nn.Parameter(torch.ones(heads, 1, per_head, bins))
        self.bias = nn.Parameter(torch.zeros(heads, 1, per_head, bins))

    def forward(self, features: Tensor) -> Tensor:
        x = self.act(self.conv(features).unflatten(1, (self.heads, -1)))
        x = full_precision(x.movedim(-1, 2))
        return nn.functional.layer_norm(x, x.shape[-2:], eps=ATTENTION_EPS) * self.weight + self.bias
