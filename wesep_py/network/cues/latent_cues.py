"""Cues that act inside the backbone, on the latent at its fusion points: embedding, context and band attention.

| class | name | what it fuses into the latent |
| --- | --- | --- |
| `EmbeddingCue` | `embedding` | one vector per voice, from the speaker encoder or computed elsewhere |
| `ContextCue` | `context` | for each frame, an attention to the speaker encoder's frame-level features |
| `BandAttentionCue` | `band_attention` | for each frame and band of `bsrnn`, an attention to the enrollment's band |

Band attention needs no speaker encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from wesep_py.common.errors import ConfigError, InputError
from wesep_py.network.backbones import BSRNN, Analysis, Backbone
from wesep_py.network.backbones.bsrnn import (
    FLOAT32_EPS,
    BandEncoder,
    BandSplitBlock,
    ResidualRNN,
    SequenceNorm,
    split_bands,
)
from wesep_py.network.backbones.spectrum import BandLinear, full_precision
from wesep_py.network.cues.cue import (
    NEGATIVE,
    Cue,
    PreparedEnrollment,
    SignalFeatures,
    cross_attention,
    cues,
    negative_mask,
)
from wesep_py.network.cues.fusion import FusionPoints, PointSelection, mean_embedding, resolve_points
from wesep_py.network.speaker import SpeakerEncoder


@cues.register("embedding")
class EmbeddingCue(Cue):
    """Speaker embedding, fused into the latent at the backbone's fusion points.

    Args:
        fusion: `concat`, `add`, `multiply`, `film`, `scale` or `affine` (see `fusion`).
        points: `first`, `all`, or indices of fusion points.
        shared: whether one layer serves all points.
        split: whether the embedding is split into equal parts, one for each of the points in ascending order, instead
            of being fused as a whole at each.
        embedding_dim: size of embeddings that are computed elsewhere (`data.embeddings`, `--enroll NAME.npy`); `null`
            for those of the model's speaker encoder.
        transform: whether a residual bottleneck of half the embedding's width, trained with the extractor, comes before
            the fusion; it starts as the identity. Useful for an encoder that is frozen or computes elsewhere. `tanh` is
            WeSep's form of it: tanh instead of ReLU, and no residual connection.
        unit_length: whether the embedding is scaled to unit length. For encoders trained on cosines: the length of
            their embeddings means nothing, and may be fifty times that of an encoder before training.
        num_speakers: speakers of the training set, which a linear layer classifies from the embedding as a second
            training task; `null` for none.

    Raises:
        ConfigError: the model has no speaker encoder, or has one while `embedding_dim` is set.
        ValueError: `embedding_dim` below 1, `num_speakers` below 2, or an embedding of a size that cannot be split,
            or that the fusion does not take.
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
        split: bool = False,
    ) -> None:
        super().__init__()
        if embedding_dim is not None and embedding_dim < 1:
            raise ValueError(f"embedding_dim: is {embedding_dim}; 1 or more is allowed")
        if num_speakers is not None and num_speakers < 2:
            raise ValueError(f"num_speakers: is {num_speakers}; 2 or more is allowed")
        self.num_speakers = num_speakers
        self.operator, self.points, self.shared = fusion, points, shared
        self.embedding_dim, self.transform_kind = embedding_dim, transform
        self.unit_length, self.split = unit_length, split

    def attach(self, backbone: Backbone, encoder: SpeakerEncoder | None) -> None:
        if encoder is None and self.embedding_dim is None:
            raise ConfigError("cues: 'embedding' needs a speaker encoder; give the model a key 'speaker'")
        if encoder is not None and self.embedding_dim is not None:
            raise ConfigError("cues: 'embedding_dim' is for embeddings computed elsewhere; this model has a 'speaker'")
        dim = self.embedding_dim if encoder is None else encoder.embedding_dim
        assert dim is not None, "one of the two is set: see above"
        self.transform = nn.Identity()
        if self.transform_kind:
            self.transform = EmbeddingTransform(dim, residual=self.transform_kind is True)
        self.classifier = None if self.num_speakers is None else nn.Linear(dim, self.num_speakers)
        self._part_of: dict[int, int] = {}
        if self.split:
            selected = resolve_points(self.points, backbone.num_fusion_points)
            if dim % len(selected):
                raise ValueError(
                    f"split: an embedding of {dim} numbers has no {len(selected)} equal parts, one a point"
                )
            dim, self._part_of = dim // len(selected), {point: i for i, point in enumerate(selected)}
        self.part_dim = dim
        self.fusion = FusionPoints(
            self.operator,
            dim,
            backbone.latent_dim,
            backbone.fusion_axis,
            backbone.num_fusion_points,
            self.points,
            self.shared,
        )

    def prepare(self, enrollment: SignalFeatures) -> PreparedEnrollment:
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

    def combine(
        self, prepared: Sequence[PreparedEnrollment], weights: Sequence[float] | None = None
    ) -> PreparedEnrollment:
        return {"embedding": mean_embedding([tensors["embedding"] for tensors in prepared], weights)}

    def steer_latent(self, point: int, latent: Tensor, prepared: PreparedEnrollment) -> Tensor:
        if not self.fusion.at(point):
            return latent
        embedding = prepared["embedding"]
        if self.unit_length:
            embedding = nn.functional.normalize(embedding, dim=-1)
        embedding = self.transform(embedding)
        if self.split:
            embedding = embedding.narrow(-1, self._part_of[point] * self.part_dim, self.part_dim)
        return self.fusion(point, latent, embedding)

    def speaker_logits(self, prepared: PreparedEnrollment) -> Tensor | None:
        return None if self.classifier is None else self.classifier(prepared["embedding"]).float()


class EmbeddingTransform(nn.Module):
    """Bottleneck of half the embedding's width: `e + W₂ relu(W₁ e + b₁) + b₂`, where W₂ and b₂ start at zero.

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
        """Transform embeddings `[batch, dim]`; the shape stays."""
        if self.residual:
            return embedding + self.widen(torch.relu(self.narrow(embedding)))
        return self.widen(torch.tanh(self.narrow(embedding)))


@cues.register("context")
class ContextCue(Cue):
    """Contextual embedding: for each frame of the mixture, an attention to the enrollment's frames.

    Zhang et al., "Multi-level speaker representation for target speaker extraction" (ICASSP 2025, arXiv 2410.16059).
    For every band (or whatever other axis the latent has beside frames and features), queries are the latent's frames;
    keys and values are the speaker encoder's frame-level features, projected to `dim`. The result is fused like an
    embedding that varies over time.

    With `negative`, the frames also attend to those of a person who is not meant (`--enroll-not`), with the same
    layers, and the context becomes `c + W c⁻`, where W starts at zero.

    Args:
        dim: size of keys, values and the result; a multiple of `num_heads`.
        num_heads: heads of the attention.
        fusion: `concat`, `add`, `multiply` or `film`.
        points: `first`, `all`, or indices of fusion points; all points share the layers of the attention.
        projection: how the encoder's frames are projected to `dim`: with one layer for all bands (`shared`), or one for
            each (`band`), for backbones with bands.
        negative: whether the cue takes a negative enrollment.

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
        negative: bool = False,
    ) -> None:
        super().__init__()
        if dim < 1 or num_heads < 1 or dim % num_heads:
            raise ValueError(f"dim: is {dim}; a multiple of num_heads ({num_heads}) is needed")
        self.dim, self.num_heads, self.points = dim, num_heads, points
        self.operator, self.projection, self.negative = fusion, projection, negative
        if negative:
            self.negative_axes = {"frames": 1, "mask": 1}

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
        if self.negative:
            self.negative_output = nn.Linear(self.dim, self.dim, bias=False)
            nn.init.zeros_(self.negative_output.weight)
        self.fusion = FusionPoints(
            self.operator,
            self.dim,
            backbone.latent_dim,
            backbone.fusion_axis,
            backbone.num_fusion_points,
            self.points,
        )

    def prepare(self, enrollment: SignalFeatures) -> PreparedEnrollment:
        speaker = enrollment.speaker
        return {"frames": speaker.frames.transpose(1, 2), "mask": speaker.mask}

    def combine(
        self, prepared: Sequence[PreparedEnrollment], weights: Sequence[float] | None = None
    ) -> PreparedEnrollment:
        return {key: torch.cat([tensors[key] for tensors in prepared], dim=1) for key in ("frames", "mask")}

    def steer_latent(self, point: int, latent: Tensor, prepared: PreparedEnrollment) -> Tensor:
        if not self.fusion.at(point):
            return latent
        # Any latent → [batch, bands, frames, features], and the result back to the latent's order of axes.
        axes = (self.frame_axis % latent.dim(), self.fusion_axis % latent.dim())
        last = (latent.dim() - 2, latent.dim() - 1)
        h = latent.movedim(axes, last)
        by_band = h.reshape(len(h), -1, *h.shape[-2:])
        context = self.attend(by_band, prepared)
        if self.negative:
            valid, exists = negative_mask(prepared)
            unwanted = self.attend(by_band, {"frames": prepared[f"{NEGATIVE}frames"], "mask": valid})
            context = context + self.negative_output(unwanted) * exists[:, None, None, None]
        return self.fusion(point, latent, context.reshape(*h.shape[:-1], self.dim).movedim(last, axes))

    def attend(self, latent: Tensor, prepared: PreparedEnrollment) -> Tensor:
        """Attend to the enrollment: `[batch, bands, frames, latent_dim]` → `[batch, bands, frames, dim]`."""
        batch, bands, frames, _ = latent.shape
        enrolled = prepared["frames"].to(latent.dtype)[:, None]
        if self.projection == "band":
            enrolled = enrolled.expand(-1, bands, -1, -1)
        enrolled = self.frames(enrolled)
        query = self._split_heads(self.query(latent), bands)
        key, value = self._split_heads(self.key(enrolled), bands), self._split_heads(self.value(enrolled), bands)
        valid = prepared["mask"].bool()[:, None, None, None, :].expand(-1, bands, 1, 1, -1).flatten(0, 1)
        out = cross_attention(query, key, value, valid)
        return self.output(out.transpose(1, 2).reshape(batch, bands, frames, self.dim))

    def _split_heads(self, x: Tensor, bands: int) -> Tensor:
        """`[batch, 1 or bands, frames, dim]` → `[batch · bands, heads, frames, dim / heads]`."""
        x = x.expand(-1, bands, -1, -1).unflatten(-1, (self.num_heads, -1))
        return x.transpose(2, 3).flatten(0, 1)


@cues.register("band_attention")
class BandAttentionCue(Cue):
    """Band attention: a small band-split network encodes the enrollment, and the latent attends to its frames by band.

    Cross-attention to frames instead of one vector per voice, as in USEF (Zeng & Li, arXiv 2409.02615), but in the
    latent of a band-split network. The mean and standard deviation of the voice in each band steer it too, as states of
    a network over the enrollment do in VE-VE (Yang et al., ICASSP 2023).

        enrollment ─► band split ─► blocks ─► frames E [bands, frames, dim] ─► mean, standard deviation
                                                │ at `points`                    │ at `film_points`
                                                ▼                                ▼
        latent h ──► h + W_o softmax(q(h) k(E)ᵀ / √d) v(E), in each band ────► FiLM, in each band ──►

    W_o starts at zero.

    With `negative`, the latent also attends to a person who is not meant (`--enroll-not`), by layers of their own at
    the same points, which start at zero too; the network that encodes the enrollment is the same.

    Args:
        dim: features of the network that encodes the enrollment.
        num_blocks: blocks of that network; along time in one direction, across bands in both.
        hidden: units of its recurrent layers, for each direction.
        attention_dim: size of queries, keys and values over all heads; a multiple of `num_heads`.
        num_heads: heads of the attention.
        points: where the latent attends: `first`, `all`, or indices of fusion points; each has layers of its own.
        film_points: where mean and standard deviation are fused.
        negative: whether the cue takes a negative enrollment.

    Raises:
        ValueError: sizes that do not divide or are below 1, or a point that the backbone does not have.
        ConfigError: the backbone has no bands.
    """

    stage = "latent"

    def __init__(
        self,
        dim: int = 48,
        num_blocks: int = 1,
        hidden: int = 48,
        attention_dim: int = 32,
        num_heads: int = 2,
        points: PointSelection = "first",
        film_points: PointSelection = "all",
        negative: bool = False,
    ) -> None:
        super().__init__()
        if min(dim, num_blocks, hidden) < 1:
            raise ValueError("dim, num_blocks and hidden: must be 1 or more")
        if min(attention_dim, num_heads) < 1 or attention_dim % num_heads:
            raise ValueError(f"attention_dim: is {attention_dim}; a multiple of num_heads ({num_heads}) is needed")
        self.dim, self.num_blocks, self.hidden = dim, num_blocks, hidden
        self.attention_dim, self.num_heads = attention_dim, num_heads
        self.points, self.film_points, self.negative = points, film_points, negative
        if negative:
            self.negative_axes = {"frames": 2, "mask": 1}

    def attach(self, backbone: Backbone, encoder: SpeakerEncoder | None) -> None:
        if not isinstance(backbone, BSRNN):
            raise ConfigError(
                f"cues: 'band_attention' compares bands, and {type(backbone).__name__} has none; "
                "use backbone 'bsrnn', or the cue 'usef' or 'context'"
            )
        self.native_channels, self.groups = backbone.native_channels, backbone.groups
        self.split = nn.ModuleList(
            BandEncoder(group, backbone.native_channels, self.dim, over_time=False) for group in backbone.groups
        )
        # One direction along time, so that the padding after an enrollment does not reach its frames.
        self.blocks = nn.ModuleList(
            BandSplitBlock(
                ResidualRNN(self.dim, self.hidden, over_length=False, bidirectional=False),
                ResidualRNN(self.dim, self.hidden, over_length=False, bidirectional=True),
            )
            for _ in range(self.num_blocks)
        )
        sizes = (backbone.latent_dim, self.dim, self.attention_dim, self.num_heads)
        points = resolve_points(self.points, backbone.num_fusion_points)
        self.attention = nn.ModuleDict({str(point): BandAttention(*sizes) for point in points})
        if self.negative:
            self.negative_attention = nn.ModuleDict({str(point): BandAttention(*sizes) for point in points})
        self.film = FusionPoints(
            "film",
            2 * self.dim,
            backbone.latent_dim,
            backbone.fusion_axis,
            backbone.num_fusion_points,
            self.film_points,
        )

    def encode(self, analysis: Analysis) -> Tensor:
        """Encode a recording with the cue's own network: `[batch, bands, frames, dim]`."""
        frames = split_bands(analysis.features[:, : self.native_channels], self.split, self.groups)
        for block in self.blocks:
            frames, _ = block(frames)
        return frames

    def prepare(self, enrollment: SignalFeatures) -> PreparedEnrollment:
        frames, mask = self.encode(enrollment.analysis), enrollment.frame_mask
        valid = mask[:, None, :, None].to(frames.dtype)
        frames, count = frames * valid, valid.sum(dim=2, keepdim=True)
        mean = full_precision(frames).sum(dim=2, keepdim=True) / count
        variance = ((full_precision(frames) - mean) * valid).square().sum(dim=2, keepdim=True) / count
        voice = torch.cat([mean, (variance + FLOAT32_EPS).sqrt()], dim=-1)
        return {"frames": frames, "mask": mask, "voice": voice}

    def combine(
        self, prepared: Sequence[PreparedEnrollment], weights: Sequence[float] | None = None
    ) -> PreparedEnrollment:
        shares = torch.tensor([1.0] * len(prepared) if weights is None else list(weights))
        voices = torch.stack([tensors["voice"] for tensors in prepared], dim=-1)
        return {
            "frames": torch.cat([tensors["frames"] for tensors in prepared], dim=2),
            "mask": torch.cat([tensors["mask"] for tensors in prepared], dim=1),
            "voice": (voices * (shares / shares.sum()).to(voices)).sum(dim=-1),
        }

    def steer_latent(self, point: int, latent: Tensor, prepared: PreparedEnrollment) -> Tensor:
        if str(point) in self.attention:
            frames = prepared["frames"].to(latent.dtype)
            steered = latent + self.attention[str(point)](latent, frames, prepared["mask"].bool())
            if self.negative:
                valid, exists = negative_mask(prepared)
                frames = prepared[f"{NEGATIVE}frames"].to(latent.dtype)
                unwanted = self.negative_attention[str(point)](latent, frames, valid)
                steered = steered + unwanted * exists[:, None, None, None]
            latent = steered
        return self.film(point, latent, prepared["voice"].to(latent.dtype))


class BandAttention(nn.Module):
    """Attention of each band of the latent to the same band of the enrollment.

    Args:
        latent_dim, enrolled_dim: sizes of the two.
        dim: size of queries, keys and values, over all heads.
        num_heads: number of heads.
    """

    def __init__(self, latent_dim: int, enrolled_dim: int, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm, self.enrolled_norm = (SequenceNorm(size, over_length=False) for size in (latent_dim, enrolled_dim))
        self.query, self.key, self.value = (nn.Linear(size, dim) for size in (latent_dim, enrolled_dim, enrolled_dim))
        self.output = nn.Linear(dim, latent_dim)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, latent: Tensor, enrolled: Tensor, mask: Tensor) -> Tensor:
        """Return what is added to the latent.

        Args:
            latent: `[batch, bands, frames, latent_dim]`.
            enrolled: `[batch, bands, enrolled frames, enrolled_dim]`.
            mask: `[batch, enrolled frames]`, false for padding.

        Returns:
            `[batch, bands, frames, latent_dim]`.
        """
        enrolled = self.enrolled_norm(enrolled)
        query, key, value = self.query(self.norm(latent)), self.key(enrolled), self.value(enrolled)
        valid = mask[:, None, None, None].expand(-1, latent.shape[1], 1, 1, -1).flatten(0, 1)
        out = cross_attention(self._split_heads(query), self._split_heads(key), self._split_heads(value), valid)
        return self.output(out.transpose(1, 2).reshape(*latent.shape[:3], -1))

    def _split_heads(self, x: Tensor) -> Tensor:
        """`[batch, bands, frames, dim]` → `[batch · bands, heads, frames, dim / heads]`."""
        return x.flatten(0, 1).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
