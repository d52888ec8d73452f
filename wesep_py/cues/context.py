"""Contextual embedding: at every frame of the mixture, what the enrollment says of the voice at such a frame.

Zhang et al., "Multi-level speaker representation for target speaker extraction" (ICASSP 2025, arXiv 2410.16059).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from wesep_py.backbones import Backbone
from wesep_py.backbones.bands import BandLinear
from wesep_py.cues.attention import cross_attention
from wesep_py.cues.base import Cue, Enrollment, Prepared, cues
from wesep_py.cues.fusion import FusionPoints, Points
from wesep_py.errors import ConfigError
from wesep_py.speaker import SpeakerEncoder


@cues.register("context")
class ContextCue(Cue):
    """Attention of the latent's frames to the speaker encoder's, fused like an embedding that varies over time.

    For every band (or channel, whatever the latent has beside frames and features): queries are the latent's frames,
    keys and values the encoder's frame-level features, brought to `dim`.

    Args:
        dim: size of keys, values and of what is fused; a multiple of `num_heads`.
        num_heads: of the attention.
        fusion: `concat`, `add`, `multiply` or `film`.
        points: `first`, `all`, or indices of fusion points; the attention's layers are one for all.
        projection: how the encoder's frames are brought to `dim`: one layer for all bands (`shared`), or one for
            each (`band`), for backbones of bands.

    Raises:
        ValueError: sizes that do not divide.
        ConfigError: the model has no speaker encoder, or the backbone has no bands.
    """

    stage = "latent"

    def __init__(
        self,
        dim: int = 128,
        num_heads: int = 2,
        fusion: str = "multiply",
        points: Points = "first",
        projection: Literal["shared", "band"] = "shared",
    ) -> None:
        super().__init__()
        if dim < 1 or num_heads < 1 or dim % num_heads:
            raise ValueError(f"dim: is {dim}; a multiple of num_heads ({num_heads}) is needed")
        self.dim, self.num_heads, self.points = dim, num_heads, points
        self.operator, self.projection = fusion, projection

    def attach(self, backbone: Backbone, encoder: SpeakerEncoder | None) -> None:
        if encoder is None:
            raise ConfigError("cues: 'context' needs a speaker encoder; give the model a key 'speaker'")
        self.frame_axis, self.fusion_axis = backbone.frame_axis, backbone.fusion_axis
        if self.projection == "band":
            num_bands = getattr(backbone, "num_bands", None)
            if num_bands is None:
                name = type(backbone).__name__
                raise ConfigError(f"cues: 'context' with projection 'band': {name} has no bands; use 'shared'")
            self.frames = BandLinear(num_bands, encoder.frame_dim, self.dim)
        else:
            self.frames = nn.Linear(encoder.frame_dim, self.dim)
        self.query = nn.Linear(backbone.latent_dim, self.dim)
        self.key, self.value, self.output = (nn.Linear(self.dim, self.dim) for _ in range(3))
        self.fusion = FusionPoints(
            self.operator,
            self.dim,
            backbone.latent_dim,
            backbone.fusion_axis,
            backbone.num_fusion_points,
            self.points,
        )

    def prepare(self, enrollment: Enrollment) -> Prepared:
        speaker = enrollment.speaker
        return {"frames": speaker.frames.transpose(1, 2), "mask": speaker.mask}

    def combine(self, prepared: Sequence[Prepared], weights: Sequence[float] | None = None) -> Prepared:
        return {key: torch.cat([one[key] for one in prepared], dim=1) for key in ("frames", "mask")}

    def steer_latent(self, point: int, latent: Tensor, prepared: Prepared) -> Tensor:
        if not self.fusion.at(point):
            return latent
        axes = (self.frame_axis, self.fusion_axis % latent.dim())
        h = latent.movedim(axes, (-2, -1))
        context = self.attend(h.reshape(len(h), -1, *h.shape[-2:]), prepared)
        return self.fusion(point, latent, context.reshape(*h.shape[:-1], self.dim).movedim((-2, -1), axes))

    def attend(self, latent: Tensor, prepared: Prepared) -> Tensor:
        """`[batch, bands, frames, latent_dim]` → `[batch, bands, frames, dim]`."""
        batch, bands, frames, _ = latent.shape
        enrolled = prepared["frames"].to(latent.dtype)[:, None]
        if self.projection == "band":
            enrolled = enrolled.expand(-1, bands, -1, -1)
        enrolled = self.frames(enrolled)
        query = self._heads(self.query(latent), bands)
        key, value = self._heads(self.key(enrolled), bands), self._heads(self.value(enrolled), bands)
        valid = prepared["mask"].bool()[:, None, None, None, :].expand(-1, bands, 1, 1, -1).flatten(0, 1)
        out = cross_attention(query, key, value, valid)
        return self.output(out.transpose(1, 2).reshape(batch, bands, frames, self.dim))

    def _heads(self, x: Tensor, bands: int) -> Tensor:
        """`[batch, 1 or bands, frames, dim]` → `[batch · bands, heads, frames, dim / heads]`."""
        x = x.expand(-1, bands, -1, -1).unflatten(-1, (self.num_heads, -1))
        return x.transpose(2, 3).flatten(0, 1)
