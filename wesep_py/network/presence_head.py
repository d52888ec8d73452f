"""Presence head: one logit per frame that says whether the target speaks.

The head is a small network. It sees the backbone's latent, and further evidence that `PresenceHead.gather_evidence`
computes: how similar mixture and estimate are to the enrollment, and how much of the mixture's energy the estimate has.

Verifying an estimate against the enrollment is TSE-V of Delcroix et al., "Listen only to me! How well can target speech
extraction handle false alarms?" (Interspeech 2022). Here the verifier is learned together with the extractor, as one of
several inputs of a detector (TSEJoint: Zhang et al., 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wesep_py.common.errors import ConfigError
from wesep_py.network.backbones import Analysis, Backbone
from wesep_py.network.backbones.spectrum import full_precision
from wesep_py.network.cues import BandAttentionCue, Cue, PreparedEnrollment, SignalFeatures, TFMapCue
from wesep_py.network.cues.cue import query_blocks

PresenceInput = Literal["latent", "similarity", "energy", "voice", "mixture"]
MIN_ENERGY_DB = -40.0
"""Lower limit of the energy of an estimate, in dB relative to the mixture."""
VOICE_DIM = 32
"""Size of the vectors that `voice` and `mixture` compare."""
VOICE_STEP_S = 0.064
"""Time between two comparisons of voices, in seconds. Their windows are a second and longer, so nothing is gained by a
comparison per frame, and each takes time."""
_EPS = 1e-8


@dataclass
class PresenceConfig:
    """Configuration of the presence head.

    Attributes:
        hidden: units of the hidden layer; even with `smoothing: lstm`.
        inputs: inputs of the head, one or more, each listed once. `latent`: the backbone's latent of the frame.
            `similarity`: the highest cosine between the mixture's frame and any frame of the enrollment; needs the cue
            `tf_map`. `energy`: energy of the estimate relative to the mixture, in dB. `voice`: similarity of the
            estimate's voice around the frame to the enrollment's, band by band, computed by the network of the cue
            `band_attention`. `mixture`: the same for the mixture's voice, so that the head can compare the two. The
            last three need the finished estimate or later frames, so a causal backbone cannot use them.
        smoothing: `lstm` adds a recurrent layer along time; it runs in both directions unless the backbone is causal.
        window_s: length in seconds of the window around a frame that `voice` and `mixture` compare, 0.05 to 60; or
            several lengths, each an input of its own. Longer windows separate two voices better, shorter ones locate
            the target better in time.
        detach: where the gradient of the head stops: `none`: nowhere; `estimate`: at the estimate; `inputs`: at all
            inputs, so that it trains the head only.

    Raises:
        ValueError: a value that is out of range.
    """

    hidden: int = 64
    inputs: tuple[PresenceInput, ...] = ("latent",)
    smoothing: Literal["none", "lstm"] = "none"
    window_s: float | tuple[float, ...] = 1.0
    detach: Literal["none", "estimate", "inputs"] = "none"

    def __post_init__(self) -> None:
        if self.hidden < 1 or (self.smoothing == "lstm" and self.hidden % 2):
            raise ValueError(f"hidden: is {self.hidden}; 1 or more is needed, and with smoothing an even number")
        if not self.inputs or len(set(self.inputs)) < len(self.inputs):
            raise ValueError(f"inputs: are {list(self.inputs)}; one or more are needed, each once")
        if not self.windows_s or not all(0.05 <= window_s <= 60 for window_s in self.windows_s):
            raise ValueError(f"window_s: is {self.window_s}; 0.05 to 60 seconds are allowed, once or several times")

    @property
    def windows_s(self) -> tuple[float, ...]:
        """All windows, in seconds."""
        return self.window_s if isinstance(self.window_s, tuple) else (self.window_s,)


class PresenceHead(nn.Module):
    """Presence detector: latent and evidence of each frame in, one logit per frame out.

        latent ───► LayerNorm ─► Linear ─┐
                                         + ─► GELU ─┬───────────► + ─► Linear ─► logit
        evidence ──────────────► Linear ─┘          └─► (LSTM) ───┘

    Args:
        config: a `PresenceConfig`.
        backbone, cues: those of the model; the cues are already attached to the backbone.
        sample_rate: Hz.
        causal: true for a head of the live mode; a head of a causal backbone is causal anyway.

    Attributes:
        needs_estimate: true if an input is computed from the finished estimate.

    Raises:
        ConfigError: an input needs a cue that is missing, or cannot be computed with a causal backbone.
    """

    def __init__(
        self,
        config: PresenceConfig,
        backbone: Backbone,
        cues: Sequence[Cue],
        sample_rate: int,
        causal: bool = False,
    ) -> None:
        super().__init__()
        causal = causal or backbone.latency is not None
        self.inputs, self.detach = config.inputs, config.detach
        self.needs_estimate = not {"energy", "voice"}.isdisjoint(config.inputs)
        if (self.needs_estimate or "mixture" in config.inputs) and causal:
            raise ConfigError(
                "model.presence.inputs: 'energy', 'voice' and 'mixture' look at the finished estimate or ahead, which "
                "comes too late for a causal backbone; use 'latent' and 'similarity'"
            )
        evidence_sizes = {"similarity": 1, "energy": 1}
        if "similarity" in self.inputs:
            self.tf_map_index = _index_of_cue(cues, TFMapCue, "similarity", "tf_map")
        if voice_inputs := [name for name in ("voice", "mixture") if name in self.inputs]:
            self.band_cue_index = _index_of_cue(cues, BandAttentionCue, voice_inputs[0], "band_attention")
            band_cue = cues[self.band_cue_index]
            assert isinstance(band_cue, BandAttentionCue)
            frames_per_s = sample_rate / backbone.stride
            self.frames_per_step = max(1, round(VOICE_STEP_S * frames_per_s))
            steps_per_s = frames_per_s / self.frames_per_step
            self.reaches = [round(window_s * steps_per_s / 2) for window_s in config.windows_s]
            # Mean and standard deviation of the cue's frames → a vector to compare.
            self.voice = nn.Sequential(nn.LayerNorm(2 * band_cue.dim), nn.Linear(2 * band_cue.dim, VOICE_DIM))
            num_bands = sum(group.count for group in band_cue.groups)
            evidence_sizes |= dict.fromkeys(voice_inputs, len(self.reaches) * num_bands)
        evidence_dim = sum(evidence_sizes.get(name, 0) for name in self.inputs)
        has_latent = "latent" in self.inputs
        self.evidence = nn.Linear(evidence_dim, config.hidden) if evidence_dim else None
        self.layers = nn.Sequential(
            nn.LayerNorm(backbone.summary_dim) if has_latent else nn.Identity(),
            nn.Linear(backbone.summary_dim, config.hidden) if has_latent else nn.Identity(),
            nn.GELU(),
            nn.Linear(config.hidden, 1),
        )
        self.lstm = None
        if config.smoothing == "lstm":
            directions = 1 if causal else 2
            self.lstm = nn.LSTM(
                config.hidden, config.hidden // directions, batch_first=True, bidirectional=directions == 2
            )

    def forward(self, frames: Tensor, evidence: Tensor | None = None) -> Tensor:
        """Return the logits `[batch, frames]` of a whole recording.

        Args:
            frames: `[batch, frames, summary_dim]`, from `Backbone.summarise`.
            evidence: `[batch, frames, evidence_dim]`, from `gather_evidence`.
        """
        return self.forward_block(frames, evidence)[0]

    def forward_block(self, frames: Tensor, evidence: Tensor | None = None, state: Any = None) -> tuple[Tensor, Any]:
        """Return the logits `[batch, frames]` of a block, and the state for the next block.

        Args:
            frames, evidence: as for `forward`.
            state: of the block before, for a causal head; `None` at the start of a recording.

        Returns:
            The logits, and the new state (`None` for a head that is not causal, or has no recurrent layer).

        Raises:
            ValueError: the head needs evidence, and there is none.
        """
        norm, project, activation, output = self.layers
        hidden = torch.zeros((), device=frames.device)
        if "latent" in self.inputs:
            hidden = project(norm(frames.detach() if self.detach == "inputs" else frames))
        if self.evidence is not None:
            if evidence is None:
                raise ValueError("evidence: is missing; `TargetSpeakerExtractor.detect` gathers it")
            hidden = hidden + self.evidence(evidence)
        hidden = activation(hidden)
        if self.lstm is None:
            return output(hidden).squeeze(-1).float(), None
        smoothed, new_state = self.lstm(hidden, state)
        return output(hidden + smoothed).squeeze(-1).float(), None if self.lstm.bidirectional else new_state

    def gather_evidence(
        self,
        mixture: Analysis,
        cues: Sequence[Cue],
        prepared: Sequence[PreparedEnrollment],
        estimate: SignalFeatures | None,
    ) -> Tensor | None:
        """Return all inputs besides the latent, `[batch, frames, evidence_dim]`, or `None` if there are no others.

        Args:
            mixture: analysis of the mixture.
            cues: those of the model.
            prepared: the tensors of each cue.
            estimate: the finished estimate, where `needs_estimate`.
        """
        evidence = []
        with torch.autocast(mixture.spectrum.device.type, enabled=False):
            if "similarity" in self.inputs:
                evidence.append(_similarity(mixture.spectrum, cues[self.tf_map_index], prepared[self.tf_map_index]))
            if self.needs_estimate:
                assert estimate is not None, "the extractor passes it where `needs_estimate` is true"
                if self.detach != "none":
                    estimate = SignalFeatures(
                        estimate.waveform.detach(), estimate.lengths, estimate.backbone, estimate.encoder
                    )
            if "energy" in self.inputs:
                evidence.append(_energy(mixture.spectrum, estimate.analysis.spectrum))
        if "voice" in self.inputs:
            band_cue, tensors = cues[self.band_cue_index], prepared[self.band_cue_index]
            evidence += self._voice_similarity(band_cue, tensors, estimate.analysis)
        if "mixture" in self.inputs:
            band_cue, tensors = cues[self.band_cue_index], prepared[self.band_cue_index]
            evidence += self._voice_similarity(band_cue, tensors, mixture)
        return torch.cat(evidence, dim=-1) if evidence else None

    def _voice_similarity(self, band_cue: Cue, prepared: PreparedEnrollment, signal: Analysis) -> list[Tensor]:
        """Return the cosine between the enrollment's voice and the voice around each frame of a signal.

        The voice of a window is mean and standard deviation of the cue's frames, weighted by their magnitudes, because
        a pause says nothing about a voice. The frames of a step (`VOICE_STEP_S`) share one comparison.

        Returns:
            For each window `[batch, frames, bands]`.
        """
        assert isinstance(band_cue, BandAttentionCue)
        frames, enrolled = full_precision(band_cue.encode(signal)), full_precision(prepared["voice"])
        if self.detach == "inputs":
            frames, enrolled = frames.detach(), enrolled.detach()
        weights = (signal.spectrum.abs().square().sum(dim=1) + _EPS).sqrt()[:, None, :, None]
        moments = (weights, weights * frames, weights * frames.square())
        # The sum over any window is the difference of two cumulative sums, so a long window costs no more than a short
        # one. With 3 frames per step, 8 frames and a reach of one step to either side:
        #
        #   frames           | 0 1 2 | 3 4 5 | 6 7 . |
        #   steps            |  s0   |  s1   |  s2   |         `_step_sums`
        #   cumulative sums  0      s0     s0+s1   s0+s1+s2    `_cumulative_sums`, one more than steps
        #   around step 0      s0 + s1      = sums[2] − sums[0]
        #   around step 1      s0 + s1 + s2 = sums[3] − sums[0]   `_window_sums`
        cumulative = [_cumulative_sums(_step_sums(moment, self.frames_per_step)) for moment in moments]
        similarity = []
        for reach in self.reaches:
            total, first, second = (_window_sums(sums, reach).to(frames.dtype) for sums in cumulative)
            mean = first / total
            variance = (second / total - mean.square()).clamp_min(0)
            voice = torch.cat([mean, (variance + _EPS).sqrt()], dim=-1)
            cosine = nn.functional.cosine_similarity(self.voice(voice), self.voice(enrolled), dim=-1).float()
            cosine = cosine.transpose(-1, -2)
            similarity.append(cosine.repeat_interleave(self.frames_per_step, dim=1)[:, : signal.num_frames])
        return similarity


def _step_sums(x: Tensor, frames_per_step: int) -> Tensor:
    """Sum `[batch, bands, frames, dim]` over steps of several frames; the last step may have fewer.

    >>> _step_sums(torch.tensor([3.0, 6.0, 1.0])[None, None, :, None], 2).flatten().tolist()
    [9.0, 1.0]
    """
    padding = -x.shape[2] % frames_per_step
    return nn.functional.pad(x, (0, 0, 0, padding)).unflatten(2, (-1, frames_per_step)).sum(dim=3)


def _cumulative_sums(x: Tensor) -> Tensor:
    """Sum `[batch, bands, steps, dim]` over the steps before each step, and over all steps.

    In float64: a quiet segment after a loud one would be lost to rounding in float32.
    """
    return nn.functional.pad(x.double().cumsum(dim=2), (0, 0, 1, 0))


def _window_sums(sums: Tensor, reach: int) -> Tensor:
    """Return the sum over each step and `reach` steps to either side, as far as the recording has them.

    >>> _window_sums(_cumulative_sums(torch.tensor([3.0, 6.0, 0.0])[None, None, :, None]), 1).flatten().tolist()
    [9.0, 9.0, 6.0]
    """
    steps = torch.arange(sums.shape[2] - 1, device=sums.device)
    stop = (steps + reach + 1).clamp_max(steps.shape[0])
    start = (steps - reach).clamp_min(0)
    return sums[:, :, stop] - sums[:, :, start]


def _similarity(spectrum: Tensor, cue: Cue, prepared: PreparedEnrollment) -> Tensor:
    """Return the highest cosine of each frame's magnitudes with those of an enrolled frame, `[batch, frames, 1]`."""
    assert isinstance(cue, TFMapCue)
    enrolled, padding = prepared["frames"].float(), ~prepared["mask"].bool()[:, None]
    frames = nn.functional.normalize(cue.magnitude(spectrum), dim=1)
    blocks = query_blocks(frames, len(frames) * enrolled.shape[2])
    highest = [(block.transpose(-1, -2) @ enrolled).masked_fill(padding, -1.0).amax(dim=-1) for block in blocks]
    return torch.cat(highest, dim=1)[..., None]


def _energy(mixture: Tensor, estimate: Tensor) -> Tensor:
    """Return the energy of the estimate's frames relative to the mixture's, in units of 10 dB, `[batch, frames, 1]`.

    The lower limit is `MIN_ENERGY_DB`.
    """
    mixture_energy, estimate_energy = (spectrum.abs().square().sum(dim=1) for spectrum in (mixture, estimate))
    ratio = (estimate_energy / (mixture_energy + _EPS)).clamp_max(100.0)
    return torch.log10(ratio + 10 ** (MIN_ENERGY_DB / 10))[..., None]


def _index_of_cue(cues: Sequence[Cue], kind: type[Cue], input_name: str, cue_name: str) -> int:
    """Return the index of the first cue of a class.

    Raises:
        ConfigError: there is none.
    """
    for index, cue in enumerate(cues):
        if isinstance(cue, kind):
            return index
    raise ConfigError(
        f"model.presence.inputs: {input_name!r} needs the cue {cue_name!r}; add it, or leave the input out"
    )
