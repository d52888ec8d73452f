"""Cues for which the backbone itself is the speaker encoder: it runs over the enrollment as over a mixture.

| class | name | what it keeps of the enrollment | what it does with it |
| --- | --- | --- | --- |
| `OwnStatesCue` | `own_states` | mean and standard deviation after each block | FiLM before the same block |
| `OwnFramesCue` | `own_frames` | the latent's frames before each block | attention before the same block |

    enrollment ─► analyse ─► block 0 ──┬──► block 1 ──┬──► …      the same weights in both rows
                                       │ summary      │ summary
    mixture ────► analyse ─► FiLM, block 0 ─► FiLM, block 1 ─► …

Neither needs speaker labels or a speaker encoder, and both begin with layers at zero: the network starts as a separator
without an enrollment.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wesep_py.common.errors import ConfigError
from wesep_py.network.backbones import BSRNN, Backbone, TFGridNet
from wesep_py.network.backbones.bsrnn import FLOAT32_EPS, SequenceNorm
from wesep_py.network.backbones.spectrum import full_precision
from wesep_py.network.cues.cue import Cue, PreparedEnrollment, SignalFeatures, cross_attention, cues
from wesep_py.network.cues.fusion import FusionPoints, PointSelection, resolve_points
from wesep_py.network.speaker import SpeakerEncoder


def enrollment_latents(backbone: Backbone, enrollment: SignalFeatures) -> tuple[list[Tensor], Tensor]:
    """Run a backbone over enrollments, and return the latent at each fusion point and after the last block.

    Channels that cues add to the features of a mixture are zero.

    What lies after a frame must not depend on padding. A causal backbone, and the live mode of one that has it, compute
    a frame of earlier ones, so a padded batch is computed at once. Any other computes enrollments of one length
    together.

    Returns:
        `num_fusion_points` + 1 latents, and the mask `[batch, frames]` of valid frames. Invalid frames are zero.
    """
    lengths, mask = enrollment.lengths, enrollment.frame_mask
    if torch.jit.is_tracing() or backbone.latency is not None or backbone.live or len(lengths.unique()) == 1:
        latents = _latents_of(backbone, enrollment.analysis.features)
    else:
        parts: list[list[Tensor]] = []
        order: list[Tensor] = []
        for length in lengths.unique().tolist():
            items = torch.nonzero(lengths == length).squeeze(1)
            waveform = enrollment.waveform[items, :length]
            part = _latents_of(backbone, backbone.analyse(waveform).features)
            missing = mask.shape[1] - part[0].shape[backbone.frame_axis]
            parts.append([_pad_frames(latent, backbone.frame_axis, missing) for latent in part])
            order.append(items)
        back = torch.cat(order).argsort()
        latents = [torch.cat(of_point)[back] for of_point in zip(*parts, strict=True)]
    return [_masked(latent, mask, backbone.frame_axis) for latent in latents], mask


def _latents_of(backbone: Backbone, features: Tensor) -> list[Tensor]:
    """Return the latents of recordings without padding."""
    batch, native, bins, frames = features.shape
    if backbone.input_channels > native:
        features = torch.cat([features, features.new_zeros(batch, backbone.input_channels - native, bins, frames)], 1)
    latents: list[Tensor] = []

    def record(point: int, latent: Tensor) -> Tensor:
        latents.append(latent)
        return latent

    last = backbone.encode_enrollment(features, record)
    return [*latents, last]


def _pad_frames(latent: Tensor, axis: int, count: int) -> Tensor:
    shape = list(latent.shape)
    shape[axis] = count
    return torch.cat([latent, latent.new_zeros(shape)], dim=axis)


def _masked(latent: Tensor, mask: Tensor, frame_axis: int) -> Tensor:
    shape = [len(mask), *(1,) * (latent.dim() - 1)]
    shape[frame_axis] = -1
    return latent * mask.view(shape).to(latent.dtype)


@cues.register("own_states")
class OwnStatesCue(Cue):
    """The extractor's own states over the enrollment, pooled over time, steer its pass over the mixture.

    The same recurrent blocks run over the enrollment first. After block i, mean and standard deviation over time of
    the latent, in each band, are its state; FiLM fuses the state of block i into the mixture's latent before block i,
    with a layer for all bands. A voice print is a small tensor, whatever the length of the enrollment.

    After VE-VE: Yang et al., "Target speaker extraction with ultra-short reference speech by VE-VE framework" (ICASSP
    2023); in real time: Pärnamaa & Saabas, "Personalized speech enhancement without a separate speaker embedding model"
    (Interspeech 2024, arXiv 2406.09928). That the network runs over the enrollment and is steered by its own states is
    theirs; which state is taken, and FiLM, are a choice of ours.

    For `bsrnn` and `tf_gridnet`. A `bsrnn` with a live mode runs in that mode over the enrollment, so that the voice
    is the same in both modes.

    Args:
        points: where the states are fused: `first`, `all`, or indices of fusion points; each has a layer of its own.

    Raises:
        ValueError: a point that the backbone does not have.
        ConfigError: the backbone has no recurrent blocks.
    """

    stage = "latent"
    runs_backbone = True

    def __init__(self, points: PointSelection = "all") -> None:
        super().__init__()
        self.points = points

    def attach(self, backbone: Backbone, encoder: SpeakerEncoder | None) -> None:
        if not isinstance(backbone, (BSRNN, TFGridNet)):
            raise ConfigError(
                f"cues: 'own_states' are those of recurrent blocks, and {type(backbone).__name__} has none; use "
                "backbone 'bsrnn' or 'tf_gridnet', or the cue 'own_frames'"
            )
        self.frame_axis, self.fusion_axis = backbone.frame_axis, backbone.fusion_axis
        selected = resolve_points(self.points, backbone.num_fusion_points)
        self.position_of = {point: i for i, point in enumerate(selected)}
        self.fusion = FusionPoints(
            "film",
            2 * backbone.latent_dim,
            backbone.latent_dim,
            backbone.fusion_axis,
            backbone.num_fusion_points,
            self.points,
        )

    def prepare(self, enrollment: SignalFeatures) -> PreparedEnrollment:
        latents, mask = enrollment_latents(enrollment.backbone, enrollment)
        # latents[0] is before block 0, so latents[point + 1] is after block `point`.
        return {"states": torch.stack([self.pool(latents[point + 1], mask) for point in self.position_of], dim=1)}

    def pool(self, latent: Tensor, mask: Tensor) -> Tensor:
        """Return mean and standard deviation over the valid frames of a latent, side by side along the fused axis.

        Args:
            latent: zero in invalid frames.
            mask: `[batch, frames]`.

        Returns:
            The latent's shape, with one frame and twice the size along the fused axis.
        """
        shape = [len(mask), *(1,) * (latent.dim() - 1)]
        shape[self.frame_axis] = -1
        latent, valid = full_precision(latent), mask.view(shape)
        valid = valid.to(latent.dtype)
        count = valid.sum(dim=self.frame_axis, keepdim=True)
        mean = latent.sum(dim=self.frame_axis, keepdim=True) / count
        variance = ((latent - mean) * valid).square().sum(dim=self.frame_axis, keepdim=True) / count
        return torch.cat([mean, (variance + FLOAT32_EPS).sqrt()], dim=self.fusion_axis)

    def combine(
        self, prepared: Sequence[PreparedEnrollment], weights: Sequence[float] | None = None
    ) -> PreparedEnrollment:
        shares = torch.tensor([1.0] * len(prepared) if weights is None else list(weights))
        states = torch.stack([tensors["states"] for tensors in prepared], dim=-1)
        return {"states": (states * (shares / shares.sum()).to(states)).sum(dim=-1)}

    def steer_latent(self, point: int, latent: Tensor, prepared: PreparedEnrollment) -> Tensor:
        if point not in self.position_of:
            return latent
        return self.fusion(point, latent, prepared["states"][:, self.position_of[point]].to(latent.dtype))


@cues.register("own_frames")
class OwnFramesCue(Cue):
    """Frames of the mixture attend, before every block, to the enrollment's frames at the same place in the network.

    Both signals go through the same encoder and the same blocks. Before block i, with h the mixture's latent and E the
    enrollment's, in each band:

        h ← h + W_o softmax(q(h) k(E)ᵀ / √d) v(E),    W_o zero at the start

    After SEF-Net: Zeng et al., "SEF-Net: speaker embedding free target speaker extraction network" (Interspeech 2023).
    A shared encoder, and cross-attention inside the blocks without an embedding, are theirs; that the enrollment goes
    through the same blocks, and the zero start (Hao et al., "X-TF-GridNet", Information Fusion 2024), are a choice of
    ours. A voice print grows with the enrollment and the number of points.

    Args:
        dim: size of queries, keys and values over all heads; a multiple of `num_heads`.
        num_heads: heads of the attention.
        points: where the latent attends: `all`, `first`, or indices of fusion points; each has layers of its own.

    Raises:
        ValueError: sizes that do not divide, or a point that the backbone does not have.
    """

    stage = "latent"
    runs_backbone = True

    def __init__(self, dim: int = 64, num_heads: int = 4, points: PointSelection = "all") -> None:
        super().__init__()
        if min(dim, num_heads) < 1 or dim % num_heads:
            raise ValueError(f"dim: is {dim}; a multiple of num_heads ({num_heads}) is needed")
        self.dim, self.num_heads, self.points = dim, num_heads, points

    def attach(self, backbone: Backbone, encoder: SpeakerEncoder | None) -> None:
        self.frame_axis, self.fusion_axis = backbone.frame_axis, backbone.fusion_axis
        selected = resolve_points(self.points, backbone.num_fusion_points)
        self.position_of = {point: i for i, point in enumerate(selected)}
        self.attention = nn.ModuleList(FrameAttention(backbone.latent_dim, self.dim, self.num_heads) for _ in selected)

    def prepare(self, enrollment: SignalFeatures) -> PreparedEnrollment:
        latents, mask = enrollment_latents(enrollment.backbone, enrollment)
        pairs = [
            layer.enrolled(self._by_band(latents[point]))
            for point, layer in zip(self.position_of, self.attention, strict=True)
        ]
        keys, values = (torch.stack(tensors, dim=1) for tensors in zip(*pairs, strict=True))
        return {"keys": keys, "values": values, "mask": mask}

    def combine(
        self, prepared: Sequence[PreparedEnrollment], weights: Sequence[float] | None = None
    ) -> PreparedEnrollment:
        time_axis = {"keys": 3, "values": 3, "mask": 1}
        return {key: torch.cat([tensors[key] for tensors in prepared], dim=axis) for key, axis in time_axis.items()}

    def steer_latent(self, point: int, latent: Tensor, prepared: PreparedEnrollment) -> Tensor:
        if point not in self.position_of:
            return latent
        position = self.position_of[point]
        keys, values = (prepared[name][:, position].to(latent.dtype) for name in ("keys", "values"))
        added = self.attention[position](self._by_band(latent), keys, values, prepared["mask"].bool())
        # [batch, bands, frames, features] → the latent's order of axes.
        moved = latent.movedim(self._axes(latent), (latent.dim() - 2, latent.dim() - 1))
        return latent + added.reshape(moved.shape).movedim((latent.dim() - 2, latent.dim() - 1), self._axes(latent))

    def _axes(self, latent: Tensor) -> tuple[int, int]:
        return self.frame_axis % latent.dim(), self.fusion_axis % latent.dim()

    def _by_band(self, latent: Tensor) -> Tensor:
        """Any latent → `[batch, bands, frames, features]`, with one band where it has no other axis."""
        moved = latent.movedim(self._axes(latent), (latent.dim() - 2, latent.dim() - 1))
        return moved.reshape(moved.shape[0], -1, moved.shape[-2], moved.shape[-1])


class FrameAttention(nn.Module):
    """Attention of a latent's frames to an enrollment's frames, in each band.

    Args:
        latent_dim: size of both.
        dim: size of queries, keys and values, over all heads.
        num_heads: number of heads.
    """

    def __init__(self, latent_dim: int, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.norm, self.enrolled_norm = (SequenceNorm(latent_dim, over_length=False) for _ in range(2))
        self.query, self.key, self.value = (nn.Linear(latent_dim, dim) for _ in range(3))
        self.output = nn.Linear(dim, latent_dim)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def enrolled(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values `[batch, bands, frames, dim]` of an enrollment's latent."""
        normalised = self.enrolled_norm(latent)
        return self.key(normalised), self.value(normalised)

    def forward(self, latent: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Return what is added to the latent.

        Args:
            latent: `[batch, bands, frames, latent_dim]`.
            keys, values: from `enrolled`, `[batch, bands, enrolled frames, dim]`.
            mask: `[batch, enrolled frames]`, false for padding.

        Returns:
            `[batch, bands, frames, latent_dim]`.
        """
        query = self.query(self.norm(latent))
        bands = query.shape[1]
        valid = mask[:, None, None, None].expand(-1, bands, 1, 1, -1).flatten(0, 1)
        heads = [self._split_heads(x.to(query.dtype)) for x in (query, keys, values)]
        out = cross_attention(*heads, valid).transpose(1, 2).flatten(2)
        return self.output(out.unflatten(0, (-1, bands)))

    def _split_heads(self, x: Tensor) -> Tensor:
        """`[batch, bands, frames, dim]` → `[batch · bands, heads, frames, dim / heads]`."""
        return x.flatten(0, 1).unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
