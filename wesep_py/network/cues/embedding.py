"""Contextual embedding: at every frame of the mixture, what the enrollment says of the voice at such a frame.

Zhang et al., "Multi-level speaker representation for target speaker extraction" (ICASSP 2025, arXiv 2410.16059).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from wesep_py.common.errors import ConfigError, InputError
from wesep_py.network.backbones import Backbone
from wesep_py.network.backbones.spectrum import BandLinear
from wesep_py.network.cues.cue import Cue, Enrollment, PreparedEnrollment, cross_attention, cues
from wesep_py.network.cues.fusion import FusionPoints, PointSelection, mean_embedding
from wesep_py.network.speaker import SpeakerEncoder

# ----------------------------------------
# One vector for a voice, fused into the latent.


@cues.register("embedding")
class EmbeddingCue(Cue):
    """The speaker encoder's embedding at the backbone's fusion points.

    Args:
        fusion: `concat`, `add`, `multiply` or `film`.
        points: `first`, `all`, or indices of fusion points.
        shared: one layer for all points.
        embedding_dim: size of embeddings that are computed elsewhere (`data.embeddings`, `--enroll NAME.npy`); `null`
            takes those of the model's speaker encoder.
        transform: a residual bottleneck of half the embedding's width, learned with the extractor, stands before the
            fusion; it starts at the embedding as it is. For an encoder that is frozen, or computes elsewhere. `tanh`
            is WeSep's form of it: tanh for ReLU, and nothing passes by.
        unit_length: only the embedding's direction is fused. For encoders that were trained on cosines: the length of
            what they give means nothing, and may be fifty times that of an encoder before training.
        num_speakers: of the training set, among whom a linear layer is to tell the enrolled one by the embedding (a
            second task in training); `null` for none.

    Raises:
        ConfigError: the model has no speaker encoder, or has one while `embedding_dim` is given.
    """

    stage = "latent"

    def __init__(
        self,
        fusion: str = "film",
        points: PointSelection = "all",
        shared: bool = False,
        embedding_dim: int | None = None,
        transform: bool | Literal["tanh"] = False,
        unit_length: bool = False,
        num_speakers: int | None = None,
    ) -> None:
        super().__init__()
        if embedding_dim is not None and embedding_dim < 1:
            raise ValueError(f"embedding_dim: is {embedding_dim}; 1 or more is allowed")
        if num_speakers is not None and num_speakers < 2:
            raise ValueError(f"num_speakers: is {num_speakers}; 2 or more is allowed")
        self.num_speakers = num_speakers
        self.operator, self.points, self.shared = fusion, points, shared
        self.embedding_dim, self.transform_kind = embedding_dim, transform
        self.unit_length = unit_length

    def attach(self, backbone: Backbone, encoder: SpeakerEncoder | None) -> None:
        if encoder is None and self.embedding_dim is None:
            raise ConfigError("cues: 'embedding' needs a speaker encoder; give the model a key 'speaker'")
        if encoder is not None and self.embedding_dim is not None:
            raise ConfigError("cues: 'embedding_dim' is for embeddings computed elsewhere; this model has a 'speaker'")
        dim = self.embedding_dim if encoder is None else encoder.embedding_dim
        assert dim is not None, "one of the two gives it: see above"
        self.transform = nn.Identity()
        if self.transform_kind:
            self.transform = EmbeddingTransform(dim, residual=self.transform_kind is True)
        self.classifier = None if self.num_speakers is None else nn.Linear(dim, self.num_speakers)
        self.fusion = FusionPoints(
            self.operator,
            dim,
            backbone.latent_dim,
            backbone.fusion_axis,
            backbone.num_fusion_points,
            self.points,
            self.shared,
        )

    def prepare(self, enrollment: Enrollment) -> PreparedEnrollment:
        if self.embedding_dim is None:
            return {"embedding": enrollment.speaker.embedding}
        if enrollment.embedding is None:
            raise InputError(
                f"this model has no speaker encoder; compute embeddings of {self.embedding_dim} numbers elsewhere "
                "and give them beside, or instead of, recordings"
            )
        if (size := enrollment.embedding.shape[-1]) != self.embedding_dim:
            raise InputError(
                f"the embedding has {size} numbers, and this model takes {self.embedding_dim}; compute it with the "
                "network whose embeddings the model was trained with"
            )
        return {"embedding": enrollment.embedding}

    def combine(self, prepared: Sequence[PreparedEnrollment], weights: Sequence[float] | None = None) -> PreparedEnrollment:
        embeddings = [one["embedding"] for one in prepared]
        return {"embedding": mean_embedding(embeddings) if weights is None else _weighted(embeddings, weights)}

    def steer_latent(self, point: int, latent: Tensor, prepared: PreparedEnrollment) -> Tensor:
        if not self.fusion.at(point):
            return latent
        embedding = prepared["embedding"]
        if self.unit_length:
            embedding = nn.functional.normalize(embedding, dim=-1)
        return self.fusion(point, latent, self.transform(embedding))

    def speaker_logits(self, prepared: PreparedEnrollment) -> Tensor | None:
        return None if self.classifier is None else self.classifier(prepared["embedding"]).float()


class EmbeddingTransform(nn.Module):
    """`e + W₂ relu(W₁ e + b₁) + b₂` through half of e's width; W₂ and b₂ start at zero.

    Without `residual`: `W₂ tanh(W₁ e + b₁) + b₂`.
    """

    def __init__(self, dim: int, residual: bool = True) -> None:
        super().__init__()
        hidden = max(1, dim // 2)
        self.residual = residual
        self.narrow, self.widen = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        if residual:
            nn.init.zeros_(self.widen.weight)
            nn.init.zeros_(self.widen.bias)

    def forward(self, embedding: Tensor) -> Tensor:
        """`[batch, dim]` → `[batch, dim]`."""
        if self.residual:
            return embedding + self.widen(torch.relu(self.narrow(embedding)))
        return self.widen(torch.tanh(self.narrow(embedding)))


def _weighted(embeddings: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """As `fusion.mean_embedding`, with weights on directions and lengths."""
    stacked = torch.stack(list(embeddings))
    shares = torch.tensor(weights, dtype=stacked.dtype, device=stacked.device)
    shares = (shares / shares.sum())[:, None, None]
    norms = stacked.norm(dim=-1, keepdim=True).clamp_min(1e-8)
    return (stacked / norms * shares).sum(dim=0) * (norms * shares).sum(dim=0)


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
        points: PointSelection = "first",
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

    def prepare(self, enrollment: Enrollment) -> PreparedEnrollment:
        speaker = enrollment.speaker
        return {"frames": speaker.frames.transpose(1, 2), "mask": speaker.mask}

    def combine(self, prepared: Sequence[PreparedEnrollment], weights: Sequence[float] | None = None) -> PreparedEnrollment:
        return {key: torch.cat([one[key] for one in prepared], dim=1) for key in ("frames", "mask")}

    def steer_latent(self, point: int, latent: Tensor, prepared: PreparedEnrollment) -> Tensor:
        if not self.fusion.at(point):
            return latent
        axes = (self.frame_axis, self.fusion_axis % latent.dim())
        h = latent.movedim(axes, (-2, -1))
        context = self.attend(h.reshape(len(h), -1, *h.shape[-2:]), prepared)
        return self.fusion(point, latent, context.reshape(*h.shape[:-1], self.dim).movedim((-2, -1), axes))

    def attend(self, latent: Tensor, prepared: PreparedEnrollment) -> Tensor:
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
