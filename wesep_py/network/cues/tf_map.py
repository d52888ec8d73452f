"""Band attention: every band of the mixture attends to the same band of the enrollment; no speaker encoder.

Cross-attention to frames instead of one vector a voice, as in USEF (Zeng & Li, arXiv 2409.02615), but in the latent of
a band-split network. The voice's mean and spread in each band steer it too, as states of a network over the enrollment
do in VE-VE (Yang et al., ICASSP 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from wesep_py.common.errors import ConfigError
from wesep_py.network.backbones import BSRNN, Analysis, Backbone
from wesep_py.network.backbones.bsrnn import FLOAT_EPS, BandEncoder, BandSplitBlock, ResidualRNN, SequenceNorm
from wesep_py.network.backbones.spectrum import full_precision
from wesep_py.network.cues.cue import Cue, Enrollment, PreparedEnrollment, cross_attention, cues, queries_per_block
from wesep_py.network.cues.fusion import FusionPoints, PointSelection, resolve_points
from wesep_py.network.speaker import SpeakerEncoder

# ----------------------------------------
# TF-map: the enrollment's spectrum, rearranged in time to resemble the mixture; no parameters.
#
# Zhang et al., "Multi-level speaker representation for target speaker extraction" (ICASSP 2025, arXiv 2410.16059).


@cues.register("tf_map")
class TFMapCue(Cue):
    """Feature channels that say, frame by frame, what the target would look like there.

    With X and E the magnitudes of mixture and enrollment, frames brought to unit length (X̄, Ē):
    S = X̄ᵀĒ; A = softmax(τ S) over enrollment frames; M̃_t = Σ_s A_ts Ē_s, brought to unit length;
    M_t = (Σ_f X_tf M̃_tf) M̃_t. With `source: encoder`, S compares what the speaker encoder makes of the two frames,
    each brought to unit length, in place of their magnitudes.

    Args:
        source: what says which frames are alike: the `spectrum`, or the speaker `encoder`, which then has to hear the
            mixture too. It hears all of it at once, so this is nothing for a causal backbone.
        temperatures: τ of each map; one channel a map. The paper's is 1, which is nearly the enrollment's average
            spectrum; around 20 (with `power` 0.5) the matching frames stand out.
        power: exponent on the magnitudes.
        learn_temperatures: whether training may move τ.

    Raises:
        ValueError: no temperature, one that is not above 0, a power outside 0…1, or an encoder on a causal backbone.
        ConfigError: `source: encoder` in a model without one.
    """

    stage = "input"

    def __init__(
        self,
        temperatures: tuple[float, ...] = (1.0,),
        power: float = 1.0,
        learn_temperatures: bool = False,
        source: Literal["spectrum", "encoder"] = "spectrum",
    ) -> None:
        super().__init__()
        if not temperatures or min(temperatures) <= 0:
            raise ValueError(f"temperatures: is {list(temperatures)}; one or more numbers above 0 are needed")
        if not 0 < power <= 1:
            raise ValueError(f"power: is {power}; above 0 and at most 1 is allowed")
        self.power, self.needs_speaker_frames = power, source == "encoder"
        self.log_temperatures = nn.Parameter(torch.tensor(temperatures).log(), requires_grad=learn_temperatures)

    def added_channels(self) -> int:
        return len(self.log_temperatures)

    def attach(self, backbone: Backbone, encoder: SpeakerEncoder | None) -> None:
        if not self.needs_speaker_frames:
            return
        if encoder is None:
            raise ConfigError(
                "cues: 'tf_map' with source 'encoder' needs a speaker encoder; give the model a key 'speaker', "
                "or use source 'spectrum'"
            )
        if backbone.latency is not None:
            raise ValueError(
                "source: is 'encoder', which hears the whole mixture before it says anything; "
                "a causal backbone needs 'spectrum'"
            )

    def prepare(self, enrollment: Enrollment) -> PreparedEnrollment:
        frames = self.magnitude(enrollment.analysis.spectrum) * enrollment.frame_mask[:, None]
        prepared = {"frames": nn.functional.normalize(frames, dim=1), "mask": enrollment.frame_mask}
        return prepared | ({"speaker_frames": enrollment.speaker_frames} if self.needs_speaker_frames else {})

    def combine(self, prepared: Sequence[PreparedEnrollment], weights: Sequence[float] | None = None) -> PreparedEnrollment:
        return {key: torch.cat([one[key] for one in prepared], dim=-1) for key in prepared[0]}

    def steer_features(self, analysis: Analysis, features: Tensor, prepared: PreparedEnrollment) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            mixture = self.magnitude(analysis.spectrum)
            frames, padding = prepared["frames"].to(mixture.dtype), ~prepared["mask"].bool()[:, None]
            seen, known = nn.functional.normalize(mixture, dim=1), frames
            if self.needs_speaker_frames:
                assert analysis.speaker_frames is not None, "the extractor sees to it: see `needs_speaker_frames`"
                seen, known = analysis.speaker_frames, prepared["speaker_frames"].to(mixture.dtype)
            size = queries_per_block(len(mixture) * frames.shape[2])
            parts = zip(mixture.split(size, dim=2), seen.split(size, dim=2), strict=True)
            maps = torch.cat([self._maps(part, s.mT @ known, frames, padding) for part, s in parts], dim=3)
        return torch.cat([features, maps], dim=1)

    def _maps(self, mixture: Tensor, similarity: Tensor, frames: Tensor, padding: Tensor) -> Tensor:
        """`[batch, bins, frames]` and its similarity `[batch, frames, enrolled]` → `[batch, maps, bins, frames]`."""
        maps = []
        for temperature in self.log_temperatures.exp():
            # Masked after the product: minus infinity times τ would give τ a gradient that is not a number.
            weights = (temperature * similarity).masked_fill(padding, -torch.inf).softmax(dim=-1)
            matched = nn.functional.normalize(frames @ weights.mT, dim=1)
            maps.append((mixture * matched).sum(dim=1, keepdim=True) * matched)
        return torch.stack(maps, dim=1)

    def magnitude(self, spectrum: Tensor) -> Tensor:
        """What frames are compared by: the magnitudes of a spectrum, to the cue's power."""
        magnitude = spectrum.abs()
        return magnitude if self.power == 1 else (magnitude + 1e-8) ** self.power


@cues.register("band_attention")
class BandAttentionCue(Cue):
    """A small band-split network hears the enrollment; the mixture's latent attends to its frames, band by band.

    At `points`, `h + W_o softmax(q(h) k(E)ᵀ / √d) v(E)`, W_o starting at zero; at `film_points`, FiLM by mean and
    standard deviation over the enrollment's time, in every band by themselves.

    Args:
        dim: of the network that hears the enrollment.
        num_blocks: of that network; along time in one direction, across bands in both.
        hidden: units of its recurrent layers, for each direction.
        attention_dim: size of queries, keys and values; a multiple of `num_heads`.
        num_heads: of the attention.
        points: where the mixture attends: `first`, `all`, or indices of fusion points; each has layers of its own.
        film_points: where mean and spread are fused.

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
    ) -> None:
        super().__init__()
        if min(dim, num_blocks, hidden) < 1:
            raise ValueError("dim, num_blocks and hidden: must be 1 or more")
        if min(attention_dim, num_heads) < 1 or attention_dim % num_heads:
            raise ValueError(f"attention_dim: is {attention_dim}; a multiple of num_heads ({num_heads}) is needed")
        self.dim, self.num_blocks, self.hidden = dim, num_blocks, hidden
        self.attention_dim, self.num_heads = attention_dim, num_heads
        self.points, self.film_points = points, film_points

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
        # One direction along time: what stands behind a padded enrollment must not reach its frames.
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
        self.film = FusionPoints(
            "film",
            2 * self.dim,
            backbone.latent_dim,
            backbone.fusion_axis,
            backbone.num_fusion_points,
            self.film_points,
        )

    def listen(self, heard: Analysis) -> Tensor:
        """What the cue's network makes of a recording: `[batch, bands, frames, dim]`."""
        features = heard.features[:, : self.native_channels]
        frames = torch.cat(
            [split(features[:, :, g.start : g.stop]) for split, g in zip(self.split, self.groups, strict=True)], dim=1
        )
        for block in self.blocks:
            frames, _ = block(frames)
        return frames

    def prepare(self, enrollment: Enrollment) -> PreparedEnrollment:
        frames, mask = self.listen(enrollment.analysis), enrollment.frame_mask
        valid = mask[:, None, :, None].to(frames.dtype)
        frames, count = frames * valid, valid.sum(dim=2, keepdim=True)
        mean = full_precision(frames).sum(dim=2, keepdim=True) / count
        spread = ((full_precision(frames) - mean) * valid).square().sum(dim=2, keepdim=True) / count
        voice = torch.cat([mean, (spread + FLOAT_EPS).sqrt()], dim=-1)
        return {"frames": frames, "mask": mask, "voice": voice}

    def combine(self, prepared: Sequence[PreparedEnrollment], weights: Sequence[float] | None = None) -> PreparedEnrollment:
        shares = torch.tensor([1.0] * len(prepared) if weights is None else list(weights))
        voices = torch.stack([one["voice"] for one in prepared], dim=-1)
        voice = (voices * (shares / shares.sum()).to(voices)).sum(dim=-1)
        frames = torch.cat([one["frames"] for one in prepared], dim=2)
        return {"frames": frames, "mask": torch.cat([one["mask"] for one in prepared], dim=1), "voice": voice}

    def steer_latent(self, point: int, latent: Tensor, prepared: PreparedEnrollment) -> Tensor:
        if str(point) in self.attention:
            frames = prepared["frames"].to(latent.dtype)
            latent = latent + self.attention[str(point)](latent, frames, prepared["mask"].bool())
        return self.film(point, latent, prepared["voice"].to(latent.dtype))


class BandAttention(nn.Module):
    """What the enrollment's frames say of every frame of the latent, band by band.

    Args:
        latent_dim, enrolled_dim: sizes of the two.
        dim: of queries, keys and values, over all heads.
        num_heads: of the attention.
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
        """`[batch, bands, frames, latent_dim]`, `[batch, bands, enrolled frames, enrolled_dim]` → as the first."""
        enrolled = self.enrolled_norm(enrolled)
        query, key, value = self.query(self.norm(latent)), self.key(enrolled), self.value(enrolled)
        valid = mask[:, None, None, None].expand(-1, latent.shape[1], 1, 1, -1).flatten(0, 1)
        out = cross_attention(self._heads(query), self._heads(key), self._heads(value), valid)
        return self.output(out.transpose(1, 2).reshape(*latent.shape[:3], -1))

    def _heads(self, x: Tensor) -> Tensor:
        """`[batch, bands, frames, dim]` → `[batch · bands, heads, frames, dim / heads]`."""
        return x.flatten(0, 1).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
