"""The network: a backbone, the cues that steer it, a speaker encoder, and a head that says when the target speaks.

mixture ─► high-pass, level ─► backbone.analyse ─► features ─► input-stage cues
                                                                  │
enrollment ─► high-pass, level ─► every cue's `prepare`           ▼
                                    └─────────────────────► backbone.encode ─► latent ─► backbone.synthesise
                                       latent-stage cues                         └─────► presence head
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from wesep_py import checkpoint
from wesep_py.common.config import construct, to_plain
from wesep_py.common.errors import CheckpointError, ConfigError
from wesep_py.common.registry import no_plugins
from wesep_py.common.safe_building import build_within, check_numbers
from wesep_py.features import CausalHighPass, HighPass
from wesep_py.network.backbones import Analysis, backbones
from wesep_py.network.cues import Cue, PreparedEnrollment, SignalFeatures, cues
from wesep_py.network.presence_head import PresenceConfig, PresenceHead
from wesep_py.network.speaker import build_encoder, is_encoder, length_mask

# ----------------------------------------
# A module in evaluation mode for a while.


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Within it every part of the module is in evaluation mode; afterwards each is in the mode it had.

    >>> network = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    >>> with in_evaluation(network):
    ...     network[0].training
    False
    >>> network[0].training, network[1].training
    (True, False)
    """
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


DEFAULT_HIGHPASS_HZ = 40.0
"""Below this nobody speaks, and ears hear next to nothing."""
HIGHEST_HIGHPASS_HZ = 200.0
# A causal filter turns the phase of what is above its cutoff: 40 Hz would turn that of voices, 5 Hz by 3° at 100 Hz.
CAUSAL_SHARE = 1 / 8
# Samples beyond this, which no recording holds, are brought near 1 while levels are computed, for their squares
# overflow; a causal network, which cannot know what is to come, clips them.
HUGE, SHRINK = 1e9, 2.0**-100


class NetworkOutput(NamedTuple):
    """What the network returns, whatever is switched on.

    Attributes:
        waveforms: estimates `[batch, samples]`: one, or several scales with the result first.
        presence_logits: `[batch, frames]`, above 0 where the target is more likely to speak than not; or `None`.
        speaker_logits: `[batch, speakers]`, or `None`.
        state: what a causal network passes on to the next `extract`, of backbone and presence head; else `None`.
    """

    waveforms: tuple[Tensor, ...]
    presence_logits: Tensor | None = None
    speaker_logits: Tensor | None = None
    state: Any = None


@dataclass
class ModelConfig:
    """A model.

    Attributes:
        backbone: `{name: bsrnn, …}`.
        speaker: a `speaker.SpeakerConfig`, or `null` where no cue needs an encoder.
        cues: a list of `{name: embedding, …}`.
        presence: a `PresenceConfig`, or `null` for none.
        sample_rate: Hz at which the network works.
        normalise: mixture and enrollment are divided by their RMS or their standard deviation before anything else,
            and the estimate multiplied by the mixture's again; `none` for causal networks, which cannot know it.
        level: whose level an extracted voice has. `fitted`: what fits the mixture best (`inference.level`), for
            networks trained by scale-invariant losses; `learned`: nearly the network's own, where the losses
            minded it, so that a voice that is not there may come out as quiet as it should.
        highpass_hz: what mixture and enrollment hold below this frequency (a constant, a rumble) is removed before
            anything else, so it is in no estimate either; 0 removes nothing. A causal backbone's mixtures lose what
            is below an eighth of it: a constant, and what changes slowly.
    """

    backbone: dict[str, Any]
    speaker: dict[str, Any] | None = None
    cues: list[dict[str, Any]] = field(default_factory=list)
    presence: PresenceConfig | None = None
    sample_rate: int = 16000
    normalise: Literal["none", "rms", "std"] = "rms"
    level: Literal["fitted", "learned"] = "fitted"
    highpass_hz: float = DEFAULT_HIGHPASS_HZ

    def __post_init__(self) -> None:
        if self.sample_rate < 8000:
            raise ValueError(f"sample_rate: is {self.sample_rate}; 8000 Hz or more is allowed")
        if not self.cues:
            raise ValueError("cues: is empty; a model needs at least one cue to know whom to extract")
        if not 0 <= self.highpass_hz <= HIGHEST_HIGHPASS_HZ:
            raise ValueError(
                f"highpass_hz: is {self.highpass_hz}; 0 (nothing is removed) to {HIGHEST_HIGHPASS_HZ:g} Hz is allowed"
            )


class TargetSpeakerExtractor(nn.Module):
    """Mixture and enrollment in, the enrolled voice out.

    Args:
        config: a `ModelConfig` or the mapping that makes one.
        initialise: read the speaker encoder's checkpoint; false where weights are about to be loaded anyway.

    Raises:
        ConfigError: something in the configuration is unknown, missing, of the wrong type or does not fit.

    >>> network = TargetSpeakerExtractor({
    ...     "backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1}, "cues": [{"name": "tf_map"}]})
    >>> network(torch.randn(2, 4000), torch.randn(2, 16000)).waveforms[0].shape
    torch.Size([2, 4000])
    """

    def __init__(self, config: ModelConfig | Mapping[str, Any], initialise: bool = True) -> None:
        super().__init__()
        if not isinstance(config, ModelConfig):
            config = construct(ModelConfig, config, "model")
        self.config: dict[str, Any] = to_plain(config)
        self.sample_rate, self.normalise, self.level = config.sample_rate, config.normalise, config.level
        self.highpass_hz = config.highpass_hz
        self.high_pass = HighPass(config.sample_rate, config.highpass_hz) if config.highpass_hz else None
        self.cues = nn.ModuleList(cues.build(cue, f"model.cues[{i}]") for i, cue in enumerate(config.cues))
        backbone_class = backbones.get(str(config.backbone.get("name")), "model.backbone")
        if sum(cue.replaces_features for cue in self.cues) > 1:
            raise ConfigError("model.cues: two cues would replace the backbone's features; one at most can")
        native = 0 if any(cue.replaces_features for cue in self.cues) else backbone_class.native_channels
        self.backbone = backbones.build(
            config.backbone,
            "model.backbone",
            sample_rate=config.sample_rate,
            input_channels=native + sum(cue.added_channels() for cue in self.cues),
        )
        if self.backbone.latency is not None and self.normalise != "none":
            raise ConfigError(
                f"model.normalise: is {self.normalise!r}, which needs the whole recording; "
                "a causal backbone needs 'none'"
            )
        self.causal_high_pass = None
        if self.backbone.latency is not None and config.highpass_hz:
            self.causal_high_pass = CausalHighPass(config.sample_rate, CAUSAL_SHARE * config.highpass_hz)
        self.encoder = build_encoder(config.speaker, config.sample_rate, initialise, self.backbone)
        if self.encoder is not None and self.encoder.config.self_supervised:
            self.config["speaker"]["self_supervised"] = to_plain(self.encoder.config.self_supervised)
        for i, cue in enumerate(self.cues):
            try:
                cue.attach(self.backbone, self.encoder)
            except ValueError as error:
                raise ConfigError(f"model.cues[{i}]: {error}") from error
        self.presence = None
        if config.presence is not None:
            self.presence = PresenceHead(config.presence, self.backbone, list(self.cues), config.sample_rate)

    @property
    def latency(self) -> int | None:
        """The backbone's latency in samples; `None` where it, or a cue, looks at later frames without bound."""
        return None if any(cue.looks_ahead for cue in self.cues) else self.backbone.latency

    @property
    def external_embedding_dim(self) -> int | None:
        """Size of the embedding that is computed elsewhere and given to `prepare`; `None` where no cue takes one."""
        return next((cue.embedding_dim for cue in self.cues if cue.embedding_dim is not None), None)

    def forward(self, mixture: Tensor, enrollment: Tensor, enrollment_lengths: Tensor | None = None) -> NetworkOutput:
        """Extract.

        Args:
            mixture: `[batch, samples]`, from one sample up.
            enrollment, enrollment_lengths: as for `prepare`.
        """
        return self.extract(mixture, self.prepare(enrollment, enrollment_lengths))

    def prepare(self, enrollment: Tensor, lengths: Tensor | None = None, embedding: Tensor | None = None) -> PreparedEnrollment:
        """What the cues keep of an enrollment: named tensors, batch first. Computed once a voice.

        Args:
            enrollment: `[batch, samples]`, zero-padded; of no samples where all cues take an embedding.
            lengths: `[batch]`, valid samples; all, if `None`.
            embedding: `[batch, external_embedding_dim]` of the voice, where a cue takes one that is computed elsewhere.

        Raises:
            InputError: a cue takes an embedding, and there is none, or one of another size.
        """
        lengths = _all_of(enrollment) if lengths is None else lengths
        enrollment, _ = self.preprocess(enrollment, lengths)
        seen = SignalFeatures(enrollment, lengths, self.backbone, self.encoder, embedding)
        return {f"{i}.{key}": value for i, cue in enumerate(self.cues) for key, value in cue.prepare(seen).items()}

    def combine(self, prepared: Sequence[PreparedEnrollment], weights: Sequence[float] | None = None) -> PreparedEnrollment:
        """Several enrollments of one voice as one: embeddings are averaged, frame-level cues joined in time.

        Args:
            prepared: one or more.
            weights: of each in the averages, above 0; all alike, if `None`.
        """
        combined: PreparedEnrollment = {}
        for i, cue in enumerate(self.cues):
            own = cue.combine([_of_cue(one, i) for one in prepared], weights)
            combined |= {f"{i}.{key}": value for key, value in own.items()}
        return combined

    def extract(self, mixture: Tensor, prepared: PreparedEnrollment, state: Any = None) -> NetworkOutput:
        """Extract the prepared voice.

        Args:
            mixture: `[batch, samples]`.
            prepared: what `prepare` returned, for a batch of the same size.
            state: of the stretch before, for a causal backbone.
        """
        filtered = None
        if self.backbone.latency is None:
            waveform, scale = self.preprocess(mixture)
        else:
            waveform, filtered = self.preprocess_block(mixture, None if state is None else state[2])
            scale = 1.0
        heard_before = 0
        if state is None:
            own = [_of_cue(prepared, i) for i in range(len(self.cues))]
            for cue, kept in self._cues("waveform", own):
                waveform, added = cue.steer_waveform(waveform, kept)
                heard_before += added
        heard = SignalFeatures(waveform, _all_of(waveform), self.backbone, self.encoder)
        analysis = heard.analysis
        if any(cue.needs_speaker_frames for cue in self.cues):
            analysis = replace(analysis, speaker_frames=heard.speaker_frames)
        encoded, detected = (None, None) if state is None else state[:2]
        latent, encoded = self.encode(analysis, prepared, encoded)
        estimates = self.backbone.synthesise(latent, analysis, waveform.shape[1])
        presence, detected = self.detect(latent, analysis, prepared, estimates[0], detected)
        if presence is not None:
            presence = presence[:, heard_before // self.backbone.stride :]
        waveforms = tuple(estimate[:, heard_before:] * scale for estimate in estimates)
        logits = (cue.speaker_logits(_of_cue(prepared, i)) for i, cue in enumerate(self.cues))
        speaker = next((one for one in logits if one is not None), None)
        return NetworkOutput(waveforms, presence, speaker, None if encoded is None else (encoded, detected, filtered))

    def preprocess(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | float]:
        """Prepare a whole recording for the network: nothing below speech, at the level that `normalise` says.

        Args:
            waveform: `[batch, samples]`.
            lengths: `[batch]`, samples of each before it was padded; all, if `None`.

        Returns:
            `[batch, samples]`, and by what, `[batch, 1]`, it was divided.
        """
        peak = waveform.detach().abs().amax(dim=1, keepdim=True) if waveform.shape[1] else waveform.sum(1, True)
        # A power of two, so that everything else is the same to the bit.
        shrink = torch.where(peak > HUGE, SHRINK, 1.0).to(waveform.dtype)
        waveform = waveform * shrink
        if self.high_pass is not None:
            waveform = self.high_pass(waveform, lengths)
        scale = self._scale(waveform, lengths)
        return waveform / scale, scale / shrink

    def preprocess_block(self, waveform: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Prepare the next samples of a mixture for a network with a causal backbone: without a constant.

        Args:
            waveform: `[batch, samples]`.
            state: what the call before returned; `None` at the beginning.

        Returns:
            `[batch, samples]`, and the state after them.
        """
        waveform = waveform.clamp(-HUGE, HUGE)
        return (waveform, None) if self.causal_high_pass is None else self.causal_high_pass(waveform, state)

    def encode(self, analysis: Analysis, prepared: PreparedEnrollment, state: Any = None) -> tuple[Tensor, Any]:
        """The latent of a stretch of frames, steered by the cues, and the state after it.

        Waveform-stage cues have done their part before: in `extract`.
        """
        own = [_of_cue(prepared, i) for i in range(len(self.cues))]
        past, state = (None, None) if state is None else state
        seen = analysis if past is None else past.followed_by(analysis)
        features = seen.features
        for cue, kept in self._cues("input", own):
            features = cue.steer_features(seen, features, kept)
        features = features[..., seen.num_frames - analysis.num_frames :]

        def condition(point: int, latent: Tensor) -> Tensor:
            for cue, kept in self._cues("latent", own):
                latent = cue.steer_latent(point, latent, kept)
            return latent

        latent, state = self.backbone.encode(features, condition, state)
        if state is None or any(cue.looks_ahead for cue in self.cues):
            return latent, None
        wanted = max(cue.past_frames for cue in self.cues)
        return latent, (seen.frames(-wanted) if wanted else None, state)

    def detect(
        self,
        latent: Tensor,
        analysis: Analysis,
        prepared: PreparedEnrollment,
        estimate: Tensor | None = None,
        state: Any = None,
    ) -> tuple[Tensor | None, Any]:
        """Presence logits `[batch, frames]` of a stretch, `None` without a head, and what a causal head goes on from.

        Args:
            latent, analysis: of the stretch.
            prepared: what `prepare` returned.
            estimate: `[batch, samples]`, made of the latent; causal networks need none.
            state: of the stretch before, for a causal head.
        """
        if self.presence is None:
            return None, None
        own = [_of_cue(prepared, i) for i in range(len(self.cues))]
        made = None
        if self.presence.needs_estimate and estimate is not None:
            made = SignalFeatures(estimate, _all_of(estimate), self.backbone, self.encoder)
        evidence = self.presence.observe(analysis, list(self.cues), own, made)
        return self.presence.go_on(self.backbone.summarise(latent), evidence, state)

    def _cues(self, stage: str, prepared: Sequence[PreparedEnrollment]) -> list[tuple[Cue, PreparedEnrollment]]:
        return [(cue, kept) for cue, kept in zip(self.cues, prepared, strict=True) if cue.stage == stage]

    def _scale(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor | float:
        """`[batch, 1]`: what the waveform, of which nothing overflows, is divided by; 1 for silence."""
        if self.normalise == "none":
            return 1.0
        lengths = _all_of(waveform) if lengths is None else lengths
        valid, count = length_mask(lengths, waveform.shape[1]), lengths.clamp_min(1)[:, None]
        waveform = waveform.float() * valid
        if self.normalise == "std":
            waveform = (waveform - waveform.sum(dim=1, keepdim=True) / count) * valid
            count = (count - 1).clamp_min(1)  # unbiased, as TF-GridNet's authors divide
        level = (waveform.square().sum(dim=1, keepdim=True) / count).sqrt()
        return torch.where(level > 1e-8, level, torch.ones_like(level))


def build_network(config: ModelConfig | Mapping[str, Any], initialise: bool = True) -> TargetSpeakerExtractor:
    """The network of a configuration; see `TargetSpeakerExtractor`."""
    return TargetSpeakerExtractor(config, initialise)


def load_network(path: str | Path) -> TargetSpeakerExtractor:
    """The network of a checkpoint, in evaluation mode on the CPU.

    Raises:
        CheckpointError: the checkpoint is damaged, its weights do not fit its configuration, or that names code that
            is no part of this package (see `registry.no_plugins`).
    """
    saved = checkpoint.load(path)
    if is_encoder(saved.config):
        raise CheckpointError(
            f"{saved.folder}: is a speaker encoder, no extractor; train one with it as 'speaker.checkpoint'"
        )
    try:
        check_numbers(saved.config)
        with no_plugins():
            network = build_within(lambda: build_network(_completed(saved), initialise=False), saved.state_dict)
    except ConfigError as error:
        raise CheckpointError(f"{saved.folder}: weights and configuration do not fit ({error})") from error
    if problems := checkpoint.misfit(network.state_dict(), saved.state_dict):
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise CheckpointError(f"{saved.folder}: weights and configuration do not fit ({problems[0]}{more})")
    network.load_state_dict(saved.state_dict)
    return network.eval()


def _completed(saved: checkpoint.Checkpoint) -> dict[str, Any]:
    """Complete a configuration with what was meant before there was a key for it.

    A network that was imported computes what its source does, so nothing is filtered; ours lose what is below speech,
    those that were trained without it too.
    """
    imported = "imported_from" in saved.provenance
    return {"highpass_hz": 0.0, **saved.config} if imported else saved.config


def _all_of(waveform: Tensor) -> Tensor:
    """`[batch]`: the lengths of waveforms without padding."""
    return torch.full((len(waveform),), waveform.shape[1], device=waveform.device)


def _of_cue(prepared: PreparedEnrollment, index: int) -> PreparedEnrollment:
    prefix = f"{index}."
    return {key[len(prefix) :]: value for key, value in prepared.items() if key.startswith(prefix)}
