"""Cues that act before the backbone's encoder: listen first on the waveform, TF-map and USEF on the features.

None of them needs a speaker encoder, unless a TF-map is configured so.

| class | name | what it does |
| --- | --- | --- |
| `ListenFirstCue` | `listen_first` | puts the enrollment and a silence before the mixture |
| `TFMapCue` | `tf_map` | appends the enrollment's spectrum, rearranged in time to match the mixture; no parameters |
| `USEFCue` | `usef` | replaces the features by an attention of the mixture's frames to the enrollment's |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from wesep_py.common.errors import ConfigError
from wesep_py.network.backbones import Analysis, Backbone
from wesep_py.network.backbones.spectrum import full_precision
from wesep_py.network.cues.cue import (
    NEGATIVE,
    Cue,
    PreparedEnrollment,
    SignalFeatures,
    cross_attention,
    cues,
    negative_mask,
    query_blocks,
)
from wesep_py.network.speaker import SpeakerEncoder, length_mask

USEF_INPUT_EPS = torch.finfo(torch.float32).eps
"""Added to the variance of the spectrum."""
USEF_ATTENTION_EPS = 1e-5
"""Added to the variance of queries, keys, values and the result."""


@cues.register("listen_first")
class ListenFirstCue(Cue):
    """Listen first: the enrollment and a silence before the mixture, so that the network continues with the same voice.

    LExt: the estimate of the prefix is thrown away; no encoder and no parameters, at the cost of running the network
    over the enrollment too. The enrollments of a batch end together, so that the silence before the mixture is the same
    for all; a shorter one has silence before it:

        | . . . enrollment   | silence | mixture |     . . .: silence
        | longer enrollment  | silence | mixture |
        ├── whole strides of backbone ─┤               the silence is lengthened to fit

    Args:
        silence_ms: shortest silence between enrollment and mixture, in milliseconds.

    Raises:
        ValueError: a silence below 0.
    """

    stage = "waveform"

    def __init__(self, silence_ms: float = 32.0) -> None:
        super().__init__()
        if silence_ms < 0:
            raise ValueError(f"silence_ms: is {silence_ms}; 0 or more is allowed")
        self.silence_ms = silence_ms

    def attach(self, backbone: Backbone, encoder: SpeakerEncoder | None) -> None:
        self.stride = backbone.stride
        self.silence = round(self.silence_ms / 1000 * backbone.sample_rate)

    def prepare(self, enrollment: SignalFeatures) -> PreparedEnrollment:
        size = max(1, int(enrollment.lengths.max()))
        total = -(-(size + self.silence) // self.stride) * self.stride
        right_aligned = _right_aligned(enrollment.waveform[:, :size], enrollment.lengths)
        return {"prefix": nn.functional.pad(right_aligned, (0, total - size))}

    def combine(
        self, prepared: Sequence[PreparedEnrollment], weights: Sequence[float] | None = None
    ) -> PreparedEnrollment:
        return {"prefix": torch.cat([tensors["prefix"] for tensors in prepared], dim=1)}

    def steer_waveform(self, waveform: Tensor, prepared: PreparedEnrollment) -> tuple[Tensor, int]:
        prefix = prepared["prefix"].to(waveform.dtype)
        return torch.cat([prefix, waveform], dim=1), prefix.shape[1]


def _right_aligned(waveform: Tensor, lengths: Tensor) -> Tensor:
    """Move the padding of waveforms `[batch, samples]` from their ends to their starts."""
    size = waveform.shape[1]
    source = torch.arange(size, device=waveform.device)[None] - (size - lengths[:, None].to(waveform.device))
    return waveform.gather(1, source.clamp_min(0)).masked_fill(source < 0, 0.0)


@cues.register("tf_map")
class TFMapCue(Cue):
    """TF-map: feature channels with the expected spectrum of the target in each frame; no parameters.

    Zhang et al., "Multi-level speaker representation for target speaker extraction" (ICASSP 2025, arXiv 2410.16059).
    With X and E the magnitudes of mixture and enrollment, and X̄, Ē their frames at unit length:

        S = X̄ᵀ Ē                         similarity of each mixture frame t to each enrollment frame s
        A = softmax(τ S) over s
        M̃_t = Σ_s A_ts Ē_s               at unit length: the matching frames of the enrollment
        M_t = (Σ_f X_tf M̃_tf) M̃_t        the part of the mixture's frame in that direction

    With `source: encoder`, S compares the speaker encoder's features of the two frames, at unit length, instead of
    their magnitudes.

    With `negative`, a person who is not meant may be enrolled too (`--enroll-not`). Her maps, by the same formula, are
    further channels, zero without her. Xu et al. (NeurIPS 2025, arXiv 2502.16611) compare a positive and a negative
    enrollment by attention; as TF-maps they need no parameters.

    Args:
        source: what similarity is computed from: the `spectrum`, or the features of the speaker `encoder`. The encoder
            needs the whole mixture, so `encoder` excludes a causal backbone.
        temperatures: τ of each map; one channel for each. The paper's is 1, which nearly gives the enrollment's average
            spectrum; around 20 (with `power` 0.5) the matching frames dominate.
        power: exponent on the magnitudes, above 0 and at most 1.
        learn_temperatures: whether τ is trained.
        negative: whether the cue takes a negative enrollment.

    Raises:
        ValueError: no temperature, one that is not above 0, a power out of range, or an encoder on a causal backbone.
        ConfigError: `source: encoder` in a model without one.
    """

    stage = "input"

    def __init__(
        self,
        temperatures: tuple[float, ...] = (1.0,),
        power: float = 1.0,
        learn_temperatures: bool = False,
        source: Literal["spectrum", "encoder"] = "spectrum",
        negative: bool = False,
    ) -> None:
        super().__init__()
        if not temperatures or min(temperatures) <= 0:
            raise ValueError(f"temperatures: is {list(temperatures)}; one or more numbers above 0 are needed")
        if not 0 < power <= 1:
            raise ValueError(f"power: is {power}; above 0 and at most 1 is allowed")
        self.power, self.needs_speaker_frames = power, source == "encoder"
        self.log_temperatures = nn.Parameter(torch.tensor(temperatures).log(), requires_grad=learn_temperatures)
        self.negative = negative
        if negative:
            names = ("frames", "mask", *(["speaker_frames"] if self.needs_speaker_frames else []))
            self.negative_axes = dict.fromkeys(names, -1)

    def added_channels(self) -> int:
        return len(self.log_temperatures)

    def negative_channels(self) -> int:
        return len(self.log_temperatures) if self.negative else 0

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
                "source: is 'encoder', which needs the whole mixture; a causal backbone needs source 'spectrum'"
            )

    def prepare(self, enrollment: SignalFeatures) -> PreparedEnrollment:
        frames = self.magnitude(enrollment.analysis.spectrum) * enrollment.frame_mask[:, None]
        prepared = {"frames": nn.functional.normalize(frames, dim=1), "mask": enrollment.frame_mask}
        return prepared | ({"speaker_frames": enrollment.speaker_frames} if self.needs_speaker_frames else {})

    def combine(
        self, prepared: Sequence[PreparedEnrollment], weights: Sequence[float] | None = None
    ) -> PreparedEnrollment:
        return {key: torch.cat([tensors[key] for tensors in prepared], dim=-1) for key in prepared[0]}

    def steer_features(self, analysis: Analysis, features: Tensor, prepared: PreparedEnrollment) -> Tensor:
        return torch.cat([features, self.maps(analysis, prepared)], dim=1)

    def negative_features(self, analysis: Analysis, prepared: PreparedEnrollment) -> Tensor:
        valid, exists = negative_mask(prepared)
        negative = {name: prepared[f"{NEGATIVE}{name}"] for name in self.negative_axes}
        maps = self.maps(analysis, {**negative, "mask": valid})
        return maps * exists[:, None, None, None]

    def maps(self, analysis: Analysis, prepared: PreparedEnrollment) -> Tensor:
        """Return the map of each temperature, `[batch, maps, bins, frames]`.

        Args:
            analysis: of the mixture.
            prepared: `frames` and `mask`, and where the encoder gives the similarity `speaker_frames`.
        """
        with torch.autocast(analysis.spectrum.device.type, enabled=False):
            mixture = self.magnitude(analysis.spectrum)
            frames, padding = prepared["frames"].to(mixture.dtype), ~prepared["mask"].bool()[:, None]
            # Similarity is between `queries` of the mixture and `keys` of the enrollment.
            queries, keys = nn.functional.normalize(mixture, dim=1), frames
            if self.needs_speaker_frames:
                assert analysis.speaker_frames is not None, "the extractor computes it where `needs_speaker_frames`"
                queries, keys = analysis.speaker_frames, prepared["speaker_frames"].to(mixture.dtype)
            per_query = len(mixture) * frames.shape[2]
            blocks = zip(query_blocks(mixture, per_query), query_blocks(queries, per_query), strict=True)
            pairs = ((block, query.transpose(-1, -2) @ keys) for block, query in blocks)
            return torch.cat([self._maps(*pair, frames, padding) for pair in pairs], dim=3)

    def _maps(self, mixture: Tensor, similarity: Tensor, frames: Tensor, padding: Tensor) -> Tensor:
        """`[batch, bins, frames]` and its similarity `[batch, frames, enrolled]` → `[batch, maps, bins, frames]`."""
        maps = []
        for temperature in self.log_temperatures.exp():
            # Mask after the multiplication: −∞ · τ would make the gradient of τ not a number.
            weights = (temperature * similarity).masked_fill(padding, -torch.inf).softmax(dim=-1)
            matched = nn.functional.normalize(frames @ weights.transpose(-1, -2), dim=1)
            maps.append((mixture * matched).sum(dim=1, keepdim=True) * matched)
        return torch.stack(maps, dim=1)

    def magnitude(self, spectrum: Tensor) -> Tensor:
        """Return the magnitudes of a spectrum, to the cue's power."""
        magnitude = spectrum.abs()
        return magnitude if self.power == 1 else (magnitude + 1e-8) ** self.power


@cues.register("usef")
class USEFCue(Cue):
    """USEF: features of the mixture, and an attention of each of its frames to the enrollment's frames.

    Zeng & Li, "USEF-TSE: universal speaker embedding free target speaker extraction" (arXiv 2409.02615). The attention
    is TF-GridNet's (Wang et al., TASLP 2023), with queries from the mixture and keys and values from the enrollment:

        enrollment ─► norm ─► convolution ─► keys, values ─┐
        mixture ────► norm ─► convolution ─┬─► queries ────┴─► attention ─► projection ─► channels 2
                      (the same layers)    └────────────────────────────────────────────► channels 1

    A query, key or value holds all bins of a frame. Both groups of channels replace the backbone's own features, or
    join them.

    Args:
        channels: channels of the convolution, and of the attention's result; a multiple of `num_heads`.
        num_heads: heads of the attention.
        query_dim: approximate size of a query over all bins: each head has ⌈query_dim / bins⌉ channels per bin.
        kernel: size of the convolution in frames and bins; odd.
        norm: of the spectrum before the convolution: `group` over time, bins and channels; `frame` over bins and
            channels of each frame; `none`, where the model's `normalise` is enough; `null` is `frame` when causal and
            `group` otherwise.
        causal: whether the convolution sees earlier frames only; `null`: if the backbone is causal. With `false` on a
            causal backbone every frame looks (kernel − 1) / 2 frames ahead, and streaming is impossible.
        keep_features: whether the backbone's own features stay.

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
        # A causal convolution needs the kernel − 1 frames before a block again; see `TargetSpeakerExtractor.encode`.
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

    def prepare(self, enrollment: SignalFeatures) -> PreparedEnrollment:
        mask = enrollment.frame_mask
        features = self.convolve(enrollment.analysis.features[:, : self.native], mask)
        return {
            "keys": self.key(features).flatten(3),
            "values": self.value(features).flatten(3),
            "mask": mask,
        }

    def combine(
        self, prepared: Sequence[PreparedEnrollment], weights: Sequence[float] | None = None
    ) -> PreparedEnrollment:
        time_axis = {"keys": 2, "values": 2, "mask": 1}
        return {key: torch.cat([tensors[key] for tensors in prepared], dim=axis) for key, axis in time_axis.items()}

    def steer_features(self, analysis: Analysis, features: Tensor, prepared: PreparedEnrollment) -> Tensor:
        all_frames = torch.full((len(features),), features.shape[-1], device=features.device)
        convolved = self.convolve(analysis.features[:, : self.native], length_mask(all_frames, features.shape[-1]))
        query = self.query(convolved)
        attended = cross_attention(
            query.flatten(3),
            prepared["keys"].to(query.dtype),
            prepared["values"].to(query.dtype),
            prepared["mask"].bool()[:, None, None],
        )
        batch, _, bins, frames = features.shape
        merged = attended.view(batch, self.num_heads, frames, -1, bins).transpose(2, 3)
        attended = self.output(merged.flatten(1, 2).transpose(2, 3)).squeeze(1).permute(0, 2, 3, 1)
        others = features[:, self.native :] if self.replaces_features else features
        return torch.cat([others, convolved.to(attended.dtype), attended], dim=1)

    def convolve(self, features: Tensor, mask: Tensor) -> Tensor:
        """Normalise and convolve features `[batch, channels, bins, frames]` with valid frames `[batch, frames]`."""
        if self.input_norm is not None:
            features = self.input_norm(features, mask)
        features = features * mask[:, None, None]
        return self.conv(nn.functional.pad(features, self.padding))


class SpectrumNorm(nn.Module):
    """Normalisation of `[batch, channels, bins, frames]` over channels and bins, and over valid frames or for each.

    Args:
        channels, bins: sizes.
        over_time: whether statistics are over valid frames too, with one weight for each channel; else they are per
            frame, with one weight for each channel and bin.
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
        return (features - mean) / (variance + USEF_INPUT_EPS).sqrt() * self.weight + self.bias


class ConvHeadProjection(nn.Module):
    """1×1 convolution, PReLU and normalisation of each frame over the channels and bins of each head.

    `[batch, channels, bins, frames]` → `[batch, heads, frames, per_head, bins]`. It computes the same as
    `tf_gridnet.HeadProjection`, but from another layout, and its parameters have other names and shapes in checkpoints.
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
        return nn.functional.layer_norm(x, x.shape[-2:], eps=USEF_ATTENTION_EPS) * self.weight + self.bias
