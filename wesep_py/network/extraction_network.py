"""The extraction network: a backbone, the cues that steer it, a speaker encoder and a presence head.

    enrollment ─► high-pass, level ─► cue.prepare of each cue ──┐ named tensors, computed once per voice
                                                                ▼
    mixture [B, T] ─► high-pass, level ─► waveform-stage cues: put samples before the mixture
                                                                ▼
                                          backbone.analyse: features and spectrum
                                                                ▼
                                          input-stage cues: append or replace feature channels
                                                                ▼
                                          backbone.encode: latent-stage cues at its fusion points ─► latent
                                                                ▼                                      │
                                          backbone.synthesise ─► estimate [B, T]                       │
                                                                ▼                                      ▼
                                          presence head: logit per frame ◄─────────────────────────────┘

`TargetSpeakerExtractor.extract` is this path, line by line. High-pass and level are `wesep_py.network.preprocessing`;
`TargetSpeakerExtractor.live` is the same network without what looks ahead (`wesep_py.network.live_mode`), for
streaming (`wesep_py.network.streaming_network`). `build_network` makes a network from a
configuration, `load_network` from a checkpoint.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from wesep_py import checkpoint
from wesep_py.common.config import construct, to_plain
from wesep_py.common.errors import CheckpointError, ConfigError, InputError
from wesep_py.common.registry import no_plugins
from wesep_py.common.safe_building import build_within, check_numbers
from wesep_py.network import self_supervised_tasnet  # noqa: F401 – registers a backbone
from wesep_py.network.backbones import Analysis, backbones
from wesep_py.network.cues import NEGATIVE, Cue, PreparedEnrollment, SignalFeatures, cues
from wesep_py.network.live_mode import build_live_network
from wesep_py.network.model_config import ModelConfig
from wesep_py.network.preprocessing import Preprocessing, full_lengths
from wesep_py.network.presence_head import PresenceHead
from wesep_py.network.speaker import build_encoder, completed_speaker, is_encoder


class NetworkOutput(NamedTuple):
    """Output of the network, the same type for every configuration.

    Attributes:
        waveforms: estimates `[batch, samples]`: one, or several scales with the result first.
        presence_logits: `[batch, frames]`, above 0 where the target is more likely to speak than not; or `None`.
        speaker_logits: `[batch, speakers]`, or `None`.
        state: `NetworkState` for the next call of `extract` with a causal backbone; else `None`.
    """

    waveforms: tuple[Tensor, ...]
    presence_logits: Tensor | None = None
    speaker_logits: Tensor | None = None
    state: Any = None


class NetworkState(NamedTuple):
    """Streaming state of a causal network, after one block of samples and before the next.

    Attributes:
        backbone: of `TargetSpeakerExtractor.encode`.
        presence: of `TargetSpeakerExtractor.detect`.
        front_end: of `Preprocessing.forward_block`.
    """

    backbone: Any = None
    presence: Any = None
    front_end: Any = None


class TargetSpeakerExtractor(nn.Module):
    """Target speaker extraction network: mixture and enrollment in, the enrolled voice out.

    Args:
        config: a `ModelConfig`, or a mapping with its keys.
        initialise: whether to read the speaker encoder's checkpoint; false where weights are loaded afterwards.

    Raises:
        ConfigError: a key of the configuration is unknown, missing, of the wrong type or does not fit the others.

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
        self.sample_rate, self.normalise = config.sample_rate, config.normalise
        self.level: Literal["fitted", "learned", "kept"] = config.level
        self.highpass_hz, self.shifts = config.highpass_hz, config.shifts

        # Cues first: the backbone has to know how many feature channels they add or replace.
        self.cues = nn.ModuleList(cues.build(cue, f"model.cues[{i}]") for i, cue in enumerate(config.cues))
        backbone_class = backbones.get(str(config.backbone.get("name")), "model.backbone")
        if sum(cue.replaces_features for cue in self.cues) > 1:
            raise ConfigError("model.cues: two cues would replace the backbone's features; one at most can")
        native_channels = 0 if any(cue.replaces_features for cue in self.cues) else backbone_class.native_channels
        if not native_channels and any(cue.runs_backbone for cue in self.cues):
            raise ConfigError(
                "model.cues: one cue runs the backbone over the enrollment's features, and another replaces these; "
                "use one of the two, or keep_features: true"
            )
        input_channels = native_channels + sum(cue.added_channels() for cue in self.cues)
        given = {"sample_rate": config.sample_rate, "input_channels": input_channels}
        if negative_channels := sum(cue.negative_channels() for cue in self.cues):
            if "negative_channels" not in inspect.signature(backbone_class).parameters:
                name = config.backbone.get("name")
                raise ConfigError(
                    f"model.cues: 'tf_map' with negative: the backbone {name!r} takes no channels of negative "
                    "enrollments; use bsrnn, tf_gridnet or dpccn, or the cue 'context' with negative"
                )
            given["negative_channels"] = negative_channels
        self.backbone = backbones.build(config.backbone, "model.backbone", **given)
        self.backbone.input_channels = input_channels
        self.config["backbone"] = self.backbone.completed_config(self.config["backbone"])
        if self.backbone.latency is not None and self.normalise not in ("none", "tracked"):
            raise ConfigError(
                f"model.normalise: is {self.normalise!r}, which needs the whole recording; "
                "a causal backbone needs 'none' or 'tracked'"
            )
        if self.backbone.latency is None and self.normalise == "tracked":
            raise ConfigError("model.normalise: is 'tracked', which is for a causal backbone; use 'rms'")
        if config.live_presence is not None and not self.backbone.live:
            raise ConfigError(
                "model.live_presence: the backbone has no live mode; give it live: true, or use 'presence'"
            )
        if self.shifts > self.backbone.stride:
            raise ConfigError(
                f"model.shifts: is {self.shifts}; at most the backbone's stride, {self.backbone.stride}, is allowed"
            )
        causal = self.backbone.latency is not None
        self.preprocess = Preprocessing(config.sample_rate, config.highpass_hz, config.normalise, causal)

        self.encoder = build_encoder(config.speaker, config.sample_rate, initialise, self.backbone)
        if self.encoder is not None:
            self.config["speaker"] = completed_speaker(self.config["speaker"], self.encoder.config)
        for i, cue in enumerate(self.cues):
            try:
                cue.attach(self.backbone, self.encoder)
            except ValueError as error:
                raise ConfigError(f"model.cues[{i}]: {error}") from error
        self.presence = None
        if config.presence is not None:
            self.presence = PresenceHead(config.presence, self.backbone, list(self.cues), config.sample_rate)
        self.live_presence = None
        if config.live_presence is not None:
            head = PresenceHead(config.live_presence, self.backbone, list(self.cues), config.sample_rate, causal=True)
            self.live_presence = head
        # The live network is not a submodule: its parameters are those of this network.
        object.__setattr__(self, "_live_network", None)
        self.is_live = False

    def live(self) -> TargetSpeakerExtractor:
        """Return the network as it works live: causal, for streaming. A causal network returns itself.

        The live network of a backbone with `live: true` has the same parameters (the same objects, so training one
        trains the other) but leaves out the backward direction along time, has its own presence head, filters with the
        causal high-pass and tracks the level. It takes the enrollments that this network has prepared.

        Raises:
            ConfigError: the network needs the whole recording; or a cue or norm has no live mode.
        """
        if self.backbone.latency is not None:
            return self
        if not self.backbone.live:
            raise ConfigError(
                f"this model works on whole recordings only: its backbone {self.config['backbone']['name']!r} looks "
                "ahead; a model trained with backbone.live: true (bsrnn) or backbone.causal: true can stream"
            )
        if self._live_network is None:
            with torch.inference_mode(False):
                object.__setattr__(self, "_live_network", build_live_network(self))
        live: TargetSpeakerExtractor = self._live_network
        return live.to(next(self.parameters()).device).train(self.training)

    @property
    def latency(self) -> int | None:
        """Algorithmic latency in samples; `None` where the backbone or a cue looks ahead without bound."""
        return None if any(cue.looks_ahead for cue in self.cues) else self.backbone.latency

    @property
    def external_embedding_dim(self) -> int | None:
        """Size of the embedding that is computed elsewhere and passed to `prepare`; `None` where no cue takes one."""
        return next((cue.embedding_dim for cue in self.cues if cue.embedding_dim is not None), None)

    @property
    def takes_negative(self) -> bool:
        """True if a cue takes a negative enrollment, of a person who is not meant."""
        return any(cue.negative_axes for cue in self.cues)

    def forward(self, mixture: Tensor, enrollment: Tensor, enrollment_lengths: Tensor | None = None) -> NetworkOutput:
        """Extract the enrolled voice from a mixture: `prepare`, then `extract`.

        Args:
            mixture: `[batch, samples]`, at least one sample.
            enrollment: `[batch, samples]`, zero-padded.
            enrollment_lengths: `[batch]`, valid samples of each enrollment; `None` if all are valid.
        """
        prepared = self.prepare(enrollment, enrollment_lengths)
        return self.extract(mixture, prepared)

    def prepare(
        self,
        enrollment: Tensor,
        lengths: Tensor | None = None,
        embedding: Tensor | None = None,
        negative: Tensor | None = None,
        negative_lengths: Tensor | None = None,
    ) -> PreparedEnrollment:
        """Return the tensors that the cues need of an enrollment, batch first. Compute them once per voice.

        Args:
            enrollment: `[batch, samples]`, zero-padded; without samples where all cues take an embedding.
            lengths: `[batch]`, valid samples of each; `None` if all are valid.
            embedding: `[batch, external_embedding_dim]` of the voice, where a cue takes one that is computed elsewhere.
            negative: `[batch, samples]`, a recording of a person who is not meant, for each item; `None` for none.
            negative_lengths: `[batch]`, valid samples of each; 0 for an item without a negative enrollment.

        Returns:
            The tensors of cue i under the names `"i.name"`.

        Raises:
            InputError: a cue takes an embedding, and there is none, or one of another size; a negative enrollment that
                no cue takes.
        """
        lengths = full_lengths(enrollment) if lengths is None else lengths
        prepared, of_negative = {}, {}
        if negative is not None:
            negative_lengths = full_lengths(negative) if negative_lengths is None else negative_lengths
            of_negative = self._prepare_negatives(enrollment, lengths, negative, negative_lengths)
        enrollment, level = self.preprocess(enrollment, lengths)
        signal = SignalFeatures(enrollment, lengths, self.backbone, self.encoder, embedding, level)
        for i, cue in enumerate(self.cues):
            tensors = cue.prepare(signal)
            tensors |= cue.no_negative(tensors)
            prepared |= {f"{i}.{key}": value for key, value in tensors.items()}
        return prepared | of_negative

    def prepare_negative(self, enrollment: Tensor, lengths: Tensor | None = None) -> PreparedEnrollment:
        """Return the tensors that replace those of a missing negative enrollment in the result of `prepare`.

        Args:
            enrollment: `[batch, samples]` of a person who is not meant, zero-padded.
            lengths: `[batch]`, valid samples of each; `None` if all are valid.

        Raises:
            InputError: no cue takes a negative enrollment.
        """
        if not self.takes_negative:
            raise InputError(
                "this model takes no negative enrollment; leave it out (--enroll-not), or train a model whose cue has "
                "negative: true"
            )
        lengths = full_lengths(enrollment) if lengths is None else lengths
        enrollment, level = self.preprocess(enrollment, lengths)
        signal = SignalFeatures(enrollment, lengths, self.backbone, self.encoder, None, level)
        return {
            f"{i}.{key}": value
            for i, cue in enumerate(self.cues)
            for key, value in cue.prepare_negative(signal).items()
        }

    def _prepare_negatives(
        self, enrollment: Tensor, lengths: Tensor, negative: Tensor, negative_lengths: Tensor
    ) -> PreparedEnrollment:
        """Return the tensors of the negative enrollments of a batch in which some items may have none.

        In place of a missing one the item's own enrollment goes through the encoder, masked afterwards: silence would
        change the statistics of a batch norm.
        """
        exists, size = negative_lengths > 0, max(enrollment.shape[1], negative.shape[1])
        own, other = (nn.functional.pad(x, (0, size - x.shape[1])) for x in (enrollment, negative))
        waveform = torch.where(exists[:, None], other, own)
        tensors = self.prepare_negative(waveform, torch.where(exists, negative_lengths, lengths))
        masks = {key: mask & exists[:, None] for key, mask in tensors.items() if key.endswith(f".{NEGATIVE}mask")}
        return tensors | masks

    def embed(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the speaker encoder's embedding of recordings, computed as that of an enrollment.

        Args:
            waveform: `[batch, samples]`, zero-padded.
            lengths: `[batch]`, valid samples of each; `None` if all are valid.

        Returns:
            `[batch, embedding_dim]`.

        Raises:
            ConfigError: the network has no speaker encoder.
        """
        if self.encoder is None:
            raise ConfigError("this model has no speaker encoder, so it has no embeddings")
        lengths = full_lengths(waveform) if lengths is None else lengths
        waveform, level = self.preprocess(waveform, lengths)
        return SignalFeatures(waveform, lengths, self.backbone, self.encoder, None, level).speaker.embedding

    def combine(
        self, prepared: Sequence[PreparedEnrollment], weights: Sequence[float] | None = None
    ) -> PreparedEnrollment:
        """Combine several enrollments of one voice: embeddings are averaged, frame-level cues joined in time.

        Args:
            prepared: one or more results of `prepare`.
            weights: weight of each in the averages, above 0; `None` for equal weights.
        """
        combined: PreparedEnrollment = {}
        for i, cue in enumerate(self.cues):
            of_cue = [_of_cue(enrollment, i) for enrollment in prepared]
            positive = [
                {key: value for key, value in tensors.items() if not key.startswith(NEGATIVE)} for tensors in of_cue
            ]
            joined = cue.combine(positive, weights) | cue.combine_negative(of_cue)
            combined |= {f"{i}.{key}": value for key, value in joined.items()}
        return combined

    def combine_negatives(self, prepared: Sequence[PreparedEnrollment]) -> PreparedEnrollment:
        """Join several results of `prepare_negative`, of one person who is not meant or of several."""
        return {
            f"{i}.{key}": value
            for i, cue in enumerate(self.cues)
            for key, value in cue.combine_negative([_of_cue(tensors, i) for tensors in prepared]).items()
        }

    def extract(
        self, mixture: Tensor, prepared: PreparedEnrollment, state: Any = None, shift: int = 0
    ) -> NetworkOutput:
        """Extract the prepared voice from a mixture, or from its next block where the backbone is causal.

        Args:
            mixture: `[batch, samples]`.
            prepared: result of `prepare`, for a batch of the same size.
            state: of the block before, for a causal backbone; `None` at the start of a recording.
            shift: number of samples, 0 to the backbone's stride, by which the mixture is delayed against the frames.
                The output has as many samples and frames as without; needs a whole recording (no `state`).
        """
        first_block = state is None
        state = NetworkState() if first_block else NetworkState(*state)

        # High-pass and level. A causal network filters sample by sample and leaves the level as it is.
        front_end_state = None
        if self.backbone.latency is None:
            waveform, scale = self.preprocess(mixture)
        else:
            waveform, scale, front_end_state = self.preprocess.forward_block(mixture, state.front_end)

        # A shift puts zeros before the mixture; after the high-pass, because a constant would start there with a step.
        # Then waveform-stage cues put samples before both. The same numbers are cut from the estimate below.
        if shift:
            waveform = nn.functional.pad(waveform, (shift, 0))
        prefix_length = 0
        if first_block:
            for cue, tensors in self._cues_at("waveform", prepared):
                waveform, added = cue.steer_waveform(waveform, tensors)
                prefix_length += added

        # Waveform → features → latent → estimates. Input-stage and latent-stage cues act inside `encode`.
        level = scale if self.backbone.latency is None else 1.0
        signal = SignalFeatures(waveform, full_lengths(waveform), self.backbone, self.encoder, level=level)
        analysis = signal.analysis
        if any(cue.needs_speaker_frames for cue in self.cues):
            analysis = replace(analysis, speaker_frames=signal.speaker_frames)
        latent, backbone_state = self.encode(analysis, prepared, state.backbone)
        estimates = self.backbone.synthesise(latent, analysis, waveform.shape[1])
        presence, presence_state = self.detect(latent, analysis, prepared, estimates[0], state.presence)

        # Cut the prefix, a whole number of strides, and the shift; restore the level. The frame beyond the mixture that
        # a shift may add is cut too.
        waveforms = tuple(estimate[:, prefix_length + shift :] * scale for estimate in estimates)
        if presence is not None:
            presence = presence[:, prefix_length // self.backbone.stride :]
        if presence is not None and shift:
            presence = presence[:, : int(self.backbone.num_frames(torch.tensor(mixture.shape[1])))]
        new_state = None
        if backbone_state is not None:
            new_state = NetworkState(backbone_state, presence_state, front_end_state)
        return NetworkOutput(waveforms, presence, self._speaker_logits(prepared), new_state)

    def encode(self, analysis: Analysis, prepared: PreparedEnrollment, state: Any = None) -> tuple[Tensor, Any]:
        """Return the latent of a block of frames, steered by the input-stage and latent-stage cues.

        Args:
            analysis: of the block; waveform-stage cues have been applied before, in `extract`.
            prepared: result of `prepare`.
            state: of the block before, for a causal backbone; `None` at the start of a recording.

        Returns:
            The latent, and the state for the next block (`None` where the backbone, or a cue, is not causal).
        """
        # An input-stage cue with a convolution needs the last `past_frames` frames of the block before again:
        #
        #   context  = | past frames | frames of this block |
        #   features =               | frames of this block |     the frames of the past are cut off again
        past, state = (None, None) if state is None else state
        context = analysis if past is None else past.followed_by(analysis)
        features = context.features
        for cue, tensors in self._cues_at("input", prepared):
            features = cue.steer_features(context, features, tensors)
        negative = [
            cue.negative_features(context, tensors)
            for cue, tensors in self._cues_at("input", prepared)
            if cue.negative_channels()
        ]
        features = torch.cat([features, *negative], dim=1) if negative else features
        features = features[..., context.num_frames - analysis.num_frames :]

        latent_cues = self._cues_at("latent", prepared)

        def condition(point: int, latent: Tensor) -> Tensor:
            for cue, tensors in latent_cues:
                latent = cue.steer_latent(point, latent, tensors)
            return latent

        latent, state = self.backbone.encode(features, condition, state)
        if state is None or any(cue.looks_ahead for cue in self.cues):
            return latent, None
        past_frames = max(cue.past_frames for cue in self.cues)
        return latent, (context.frames(-past_frames) if past_frames else None, state)

    def detect(
        self,
        latent: Tensor,
        analysis: Analysis,
        prepared: PreparedEnrollment,
        estimate: Tensor | None = None,
        state: Any = None,
    ) -> tuple[Tensor | None, Any]:
        """Return the presence logits of a block, and the state for the next block.

        Args:
            latent, analysis: of the block.
            prepared: result of `prepare`.
            estimate: `[batch, samples]`, made from the latent; causal networks need none.
            state: of the block before, for a causal head; `None` at the start of a recording.

        Returns:
            `[batch, frames]` and the state of a causal head; `None` and `None` without a head.
        """
        if self.presence is None:
            return None, None
        estimate_signal = None
        if self.presence.needs_estimate and estimate is not None:
            estimate_signal = SignalFeatures(estimate, full_lengths(estimate), self.backbone, self.encoder)
        by_cue = [_of_cue(prepared, i) for i in range(len(self.cues))]
        evidence = self.presence.gather_evidence(analysis, list(self.cues), by_cue, estimate_signal)
        return self.presence.forward_block(self.backbone.summarise(latent), evidence, state)

    def _cues_at(self, stage: str, prepared: PreparedEnrollment) -> list[tuple[Cue, PreparedEnrollment]]:
        """Return the cues of a stage, each with its own prepared tensors."""
        return [(cue, _of_cue(prepared, i)) for i, cue in enumerate(self.cues) if cue.stage == stage]

    def _speaker_logits(self, prepared: PreparedEnrollment) -> Tensor | None:
        """Return the speaker logits of the first cue that has any."""
        logits = (cue.speaker_logits(_of_cue(prepared, i)) for i, cue in enumerate(self.cues))
        return next((cue_logits for cue_logits in logits if cue_logits is not None), None)


def build_network(config: ModelConfig | Mapping[str, Any], initialise: bool = True) -> TargetSpeakerExtractor:
    """Return the network of a configuration; see `TargetSpeakerExtractor`."""
    return TargetSpeakerExtractor(config, initialise)


def load_network(path: str | Path) -> TargetSpeakerExtractor:
    """Return the network of a checkpoint, in evaluation mode on the CPU.

    Raises:
        CheckpointError: the checkpoint is damaged, its weights do not fit its configuration, or the configuration
            names code outside this package (see `registry.no_plugins`).
    """
    saved = checkpoint.load(path)
    if saved.config.get("task") == "presence":
        raise CheckpointError(
            f"{saved.folder}: is a personal VAD, no extractor; `wesep when` says when the voice speaks"
        )
    if is_encoder(saved.config):
        raise CheckpointError(
            f"{saved.folder}: is a speaker encoder, no extractor; train one with it as 'speaker.checkpoint'"
        )
    try:
        check_numbers(saved.config)
        with no_plugins():
            network = build_within(lambda: build_network(_full_config(saved), initialise=False), saved.state_dict)
    except ConfigError as error:
        raise CheckpointError(f"{saved.folder}: weights and configuration do not fit ({error})") from error
    if problems := checkpoint.weight_mismatches(network.state_dict(), saved.state_dict):
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise CheckpointError(f"{saved.folder}: weights and configuration do not fit ({problems[0]}{more})")
    network.load_state_dict(saved.state_dict)
    return network.eval()


def _full_config(saved: checkpoint.Checkpoint) -> dict[str, Any]:
    """Return the configuration of a checkpoint, with the value of keys that did not exist when it was saved.

    An imported network has to compute the same as its source, so it gets no high-pass. A network of this package gets
    the default high-pass, also where it was trained without one.
    """
    imported = "imported_from" in saved.provenance
    return {"highpass_hz": 0.0, **saved.config} if imported else saved.config


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode; at the end, restore the mode that each of its submodules had.

    >>> network = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    >>> with eval_mode(network):
    ...     network[0].training
    False
    >>> network[0].training, network[1].training
    (True, False)
    """
    modes = {submodule: submodule.training for submodule in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for submodule, training in modes.items():
            submodule.training = training


def _of_cue(prepared: PreparedEnrollment, index: int) -> PreparedEnrollment:
    """Return the tensors of one cue, without the prefix of its index."""
    prefix = f"{index}."
    return {key[len(prefix) :]: value for key, value in prepared.items() if key.startswith(prefix)}
