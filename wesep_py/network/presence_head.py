"""A head that says of every frame whether the target speaks, from the latent and from what speaks for it besides.

That an estimate is verified against the enrollment is TSE-V of Delcroix et al., "Listen only to me! How well can target
speech extraction handle false alarms?" (Interspeech 2022); here the verifier is learned with the extractor, as one of
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
from wesep_py.network.cues.cue import queries_per_block

PresenceInput = Literal["latent", "similarity", "energy", "voice", "mixture"]
LEAST_DB = -40.0
"""An estimate that is quieter than this re mixture counts as this quiet."""
VOICE_DIM = 32
COMPARED_EVERY_S = 0.064
"""Voices are compared this often: they are heard over a second and more, and each comparison takes time."""
_EPS = 1e-8


@dataclass
class PresenceConfig:
    """The presence head: a small network on each frame, and on its neighbours if it is smoothed.

    Attributes:
        hidden: units of its hidden layer; an even number where it is smoothed.
        inputs: what it judges by, one or more. `latent`: what the backbone makes of the frame. `similarity`: the
            highest cosine of the mixture's frame with a frame of the enrollment, for which the TF-map has to be among
            the cues. `energy`: of the estimate re mixture, in dB. `voice`: how the estimate's voice around the frame
            compares with the enrollment's, band by band, as the network of the cue `band_attention` hears both.
            `mixture`: how the mixture's does, so that the head can tell what the estimate owes to it. The last three
            look at the finished estimate, or ahead, which a causal network does not have yet.
        smoothing: `lstm` lets a recurrent layer along time have the last word, in both directions unless the backbone
            is causal.
        window_s: seconds around a frame that `voice` and `mixture` compare; or several such windows, each an input of
            its own: the longer, the better are two voices told apart; the shorter, the better is told when.
        detach: how far the head's gradient goes: `none` holds it back nowhere, `estimate` keeps it out of the estimate,
            `inputs` out of all but the head.
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
        """All windows."""
        return self.window_s if isinstance(self.window_s, tuple) else (self.window_s,)


class PresenceHead(nn.Module):
    """One logit a frame: does the target speak?

    Args:
        config: a `PresenceConfig`.
        backbone, cues: those of the model, attached to each other.
        sample_rate: Hz.

    Attributes:
        needs_estimate: whether it looks at the finished estimate.

    Raises:
        ConfigError: an input that the cues or a causal backbone do not give.
    """

    def __init__(self, config: PresenceConfig, backbone: Backbone, cues: Sequence[Cue], sample_rate: int) -> None:
        super().__init__()
        self.inputs, self.detach = config.inputs, config.detach
        self.needs_estimate = not {"energy", "voice"}.isdisjoint(config.inputs)
        if (self.needs_estimate or "mixture" in config.inputs) and backbone.latency is not None:
            raise ConfigError(
                "model.presence.inputs: 'energy', 'voice' and 'mixture' look at the finished estimate or ahead, which "
                "comes too late for a causal backbone; use 'latent' and 'similarity'"
            )
        sizes = {"similarity": 1, "energy": 1}
        if "similarity" in self.inputs:
            self.maps_at = _first(cues, TFMapCue, "similarity", "tf_map")
        if compared := [name for name in ("voice", "mixture") if name in self.inputs]:
            self.voice_at = _first(cues, BandAttentionCue, compared[0], "band_attention")
            listener = cues[self.voice_at]
            assert isinstance(listener, BandAttentionCue)
            frames_a_s = sample_rate / backbone.stride
            self.compared_every = max(1, round(COMPARED_EVERY_S * frames_a_s))
            steps_a_s = frames_a_s / self.compared_every
            self.reaches = [round(window_s * steps_a_s / 2) for window_s in config.windows_s]
            self.voice = nn.Sequential(nn.LayerNorm(2 * listener.dim), nn.Linear(2 * listener.dim, VOICE_DIM))
            sizes |= dict.fromkeys(compared, len(self.reaches) * sum(group.count for group in listener.groups))
        size = sum(sizes.get(name, 0) for name in self.inputs)
        by_latent = "latent" in self.inputs
        self.evidence = nn.Linear(size, config.hidden) if size else None
        self.layers = nn.Sequential(
            nn.LayerNorm(backbone.summary_dim) if by_latent else nn.Identity(),
            nn.Linear(backbone.summary_dim, config.hidden) if by_latent else nn.Identity(),
            nn.GELU(),
            nn.Linear(config.hidden, 1),
        )
        self.lstm = None
        if config.smoothing == "lstm":
            ways = 1 if backbone.latency is not None else 2
            self.lstm = nn.LSTM(config.hidden, config.hidden // ways, batch_first=True, bidirectional=ways == 2)

    def forward(self, frames: Tensor, evidence: Tensor | None = None) -> Tensor:
        """Logits `[batch, frames]` of a recording from its start.

        Args:
            frames: `[batch, frames, summary_dim]`, what the backbone makes of them.
            evidence: what `observe` returned.
        """
        return self.go_on(frames, evidence)[0]

    def go_on(self, frames: Tensor, evidence: Tensor | None = None, state: Any = None) -> tuple[Tensor, Any]:
        """As `forward`, from the state of the stretch before; a causal head's new state comes with the logits."""
        norm, project, activate, last = self.layers
        hidden = torch.zeros((), device=frames.device)
        if "latent" in self.inputs:
            hidden = project(norm(frames.detach() if self.detach == "inputs" else frames))
        if self.evidence is not None:
            if evidence is None:
                raise ValueError("evidence: is missing; `TargetSpeakerExtractor.detect` gathers it")
            hidden = hidden + self.evidence(evidence)
        hidden = activate(hidden)
        if self.lstm is None:
            return last(hidden).squeeze(-1).float(), None
        smoothed, after = self.lstm(hidden, state)
        return last(hidden + smoothed).squeeze(-1).float(), None if self.lstm.bidirectional else after

    def observe(
        self, heard: Analysis, cues: Sequence[Cue], prepared: Sequence[PreparedEnrollment], estimate: SignalFeatures | None
    ) -> Tensor | None:
        """`[batch, frames, inputs]`: all that the head judges by besides the latent; `None` where that is nothing.

        Args:
            heard: the mixture.
            cues: the model's.
            prepared: what each of them keeps of the enrollment.
            estimate: the finished estimate, where `needs_estimate`.
        """
        found = []
        with torch.autocast(heard.spectrum.device.type, enabled=False):
            if "similarity" in self.inputs:
                found.append(_similarity(heard.spectrum, cues[self.maps_at], prepared[self.maps_at]))
            if self.needs_estimate:
                assert estimate is not None, "the extractor sees to it: see `needs_estimate`"
                if self.detach != "none":
                    estimate = SignalFeatures(
                        estimate.waveform.detach(), estimate.lengths, estimate.backbone, estimate.encoder
                    )
            if "energy" in self.inputs:
                found.append(_energy(heard.spectrum, estimate.analysis.spectrum))
        if "voice" in self.inputs:
            found += self._likeness(cues[self.voice_at], prepared[self.voice_at], estimate.analysis)
        if "mixture" in self.inputs:
            found += self._likeness(cues[self.voice_at], prepared[self.voice_at], heard)
        return torch.cat(found, dim=-1) if found else None

    def _likeness(self, listener: Cue, prepared: PreparedEnrollment, heard: Analysis) -> list[Tensor]:
        """`[batch, frames, bands]` for each window: cosine of the enrollment's voice with that around each frame.

        Mean and spread are weighted by the magnitude: in a pause nobody's voice is heard. All frames of a step of
        `COMPARED_EVERY_S` share one comparison.
        """
        assert isinstance(listener, BandAttentionCue)
        frames, known = full_precision(listener.listen(heard)), full_precision(prepared["voice"])
        if self.detach == "inputs":
            frames, known = frames.detach(), known.detach()
        weights = (heard.spectrum.abs().square().sum(dim=1) + _EPS).sqrt()[:, None, :, None]
        weighted = (weights, weights * frames, weights * frames.square())
        sums = [_from_the_start(_steps(x, self.compared_every)) for x in weighted]
        likeness = []
        for reach in self.reaches:
            total, first, second = (_around(x, reach).to(frames.dtype) for x in sums)
            mean = first / total
            spread = (second / total - mean.square()).clamp_min(0)
            own = torch.cat([mean, (spread + _EPS).sqrt()], dim=-1)
            cosine = nn.functional.cosine_similarity(self.voice(own), self.voice(known), dim=-1).float().mT
            likeness.append(cosine.repeat_interleave(self.compared_every, dim=1)[:, : heard.num_frames])
        return likeness


def _steps(x: Tensor, every: int) -> Tensor:
    """Sums of `[batch, bands, frames, dim]` over steps of `every` frames; the last may have fewer.

    >>> _steps(torch.tensor([3.0, 6.0, 1.0])[None, None, :, None], 2).flatten().tolist()
    [9.0, 1.0]
    """
    return nn.functional.pad(x, (0, 0, 0, -x.shape[2] % every)).unflatten(2, (-1, every)).sum(dim=3)


def _from_the_start(x: Tensor) -> Tensor:
    """Sums of `[batch, bands, steps, dim]` over the steps before each, and over all.

    In float64: a quiet stretch after a loud one would be lost in float32.
    """
    return nn.functional.pad(x.double().cumsum(dim=2), (0, 0, 1, 0))


def _around(sums: Tensor, reach: int) -> Tensor:
    """Sum over `reach` steps before each step, itself and as many after it, as far as the recording goes.

    >>> _around(_from_the_start(torch.tensor([3.0, 6.0, 0.0])[None, None, :, None]), 1).flatten().tolist()
    [9.0, 9.0, 6.0]
    """
    steps = torch.arange(sums.shape[2] - 1, device=sums.device)
    after = (steps + reach + 1).clamp_max(len(steps))
    before = (steps - reach).clamp_min(0)
    return sums[:, :, after] - sums[:, :, before]


def _similarity(spectrum: Tensor, cue: Cue, prepared: PreparedEnrollment) -> Tensor:
    """`[batch, frames, 1]`: the highest cosine of each frame's magnitudes with those of an enrolled frame."""
    assert isinstance(cue, TFMapCue)
    frames, padding = prepared["frames"].float(), ~prepared["mask"].bool()[:, None]
    seen = nn.functional.normalize(cue.magnitude(spectrum), dim=1)
    parts = seen.split(queries_per_block(len(seen) * frames.shape[2]), dim=2)
    highest = [(part.mT @ frames).masked_fill(padding, -1.0).amax(dim=-1) for part in parts]
    return torch.cat(highest, dim=1)[..., None]


def _energy(mixture: Tensor, estimate: Tensor) -> Tensor:
    """`[batch, frames, 1]`: energy of the estimate's frames re mixture in units of 10 dB, from `LEAST_DB` on."""
    given, made = (spectrum.abs().square().sum(dim=1) for spectrum in (mixture, estimate))
    ratio = (made / (given + _EPS)).clamp_max(100.0)
    return torch.log10(ratio + 10 ** (LEAST_DB / 10))[..., None]


def _first(cues: Sequence[Cue], kind: type[Cue], wanted: str, name: str) -> int:
    """The place of the first cue of a kind."""
    for place, cue in enumerate(cues):
        if isinstance(cue, kind):
            return place
    raise ConfigError(f"model.presence.inputs: {wanted!r} needs the cue {name!r}; add it, or leave the input out")
