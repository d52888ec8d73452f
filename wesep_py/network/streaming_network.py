"""A causal network as one step of a stream: some samples and a state in, finished samples and the next state out.

    samples ─► high-pass, level ─► join with the last samples ─► frames ─► network ─► frame signals ─► overlap-add

The step is a module of its own, so that it can be exported: everything that a stream remembers is in its state.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wesep_py.common.errors import ConfigError
from wesep_py.features.stft import MIN_OVERLAP
from wesep_py.network.cues import PreparedEnrollment
from wesep_py.network.extraction_network import NetworkState, TargetSpeakerExtractor


class StreamState(NamedTuple):
    """State of a stream after a block.

    Attributes:
        samples: `[batch, size]`, filtered samples that later frames need.
        level: the same for the level that they were divided by; `None` where there is none.
        overlap: `[batch, synthesis size − stride]`, what earlier frames add to samples that are not finished.
        weight: `[synthesis size − stride]`, the sum of the window weights there; `None` where nothing is divided.
        network: state of high-pass, cues, backbone and presence head; `None` at the start.
    """

    samples: Tensor
    level: Tensor | None
    overlap: Tensor
    weight: Tensor | None
    network: Any = None


class StreamOutput(NamedTuple):
    """Output of one step.

    Attributes:
        waveform: `[batch, stride · frames]`, finished samples of the estimate.
        presence_logits: `[batch, frames]`, or `None` without a presence head.
        state: for the next step.
    """

    waveform: Tensor
    presence_logits: Tensor | None
    state: StreamState


class StreamingNetwork(nn.Module):
    """One step of a causal network.

    A step computes the frames whose samples have arrived, and returns the samples to which no later frame contributes:

        samples read       | state.samples |   block   |
        frame t            |──────── size ────────|
        frame t + 1                  |──────── size ────────|   its last samples are missing: the next step computes it
        finished           ─────────────────| before the first sample of frame t + 1

    The first frame begins before the recording (`span.start` is negative): the state starts with zeros there, and the
    first `num_leading` samples that the stream returns belong before the recording.

    Args:
        network: causal, or with a live mode.

    Raises:
        ConfigError: the network cannot stream; the message names the part that looks ahead.

    >>> network = StreamingNetwork(TargetSpeakerExtractor({
    ...     "backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1, "causal": True},
    ...     "cues": [{"name": "tf_map"}], "normalise": "none"}))
    >>> voice = network.network.prepare(torch.randn(1, 16000))
    >>> output = network(torch.randn(1, 1000), network.initial_state(1), voice)
    >>> output.waveform.shape        # six frames of 512 samples, 128 apart, have arrived
    torch.Size([1, 768])
    """

    def __init__(self, network: TargetSpeakerExtractor) -> None:
        super().__init__()
        self.network = require_streaming(network)
        span = self.network.backbone.span
        assert span is not None, "require_streaming checks it"
        self.stride, self.span = self.network.backbone.stride, span

    @property
    def num_leading(self) -> int:
        """Number of samples at the start of the output that belong before the recording."""
        return -self.span.synthesis_start

    @property
    def first_block(self) -> int:
        """Number of samples that the first frame needs."""
        return self.span.stop

    @property
    def max_delay(self) -> int:
        """Largest number of samples that have arrived and are not finished yet."""
        return self.span.stop - self.span.synthesis_start - 1

    def initial_state(self, batch: int) -> StreamState:
        """Return the state before the first sample of `batch` recordings."""
        backbone, device = self.network.backbone, next(self.network.parameters()).device
        weights = backbone.synthesis_weights()
        before = torch.zeros(batch, -self.span.start, device=device)
        num_overlapping = self.span.synthesis_size - self.stride
        return StreamState(
            before,
            torch.ones_like(before) if self.network.preprocess.level_tracker is not None else None,
            torch.zeros(batch, num_overlapping, device=device),
            None if weights is None else torch.zeros(num_overlapping, device=device),
        )

    def forward(self, samples: Tensor, state: StreamState, prepared: PreparedEnrollment) -> StreamOutput:
        """Take the next samples.

        Args:
            samples: `[batch, samples]` of the mixture, at the model's rate.
            state: of the step before, or `initial_state`.
            prepared: of the voice, for a batch of the same size.
        """
        network_state = NetworkState() if state.network is None else state.network
        filtered, scale, front_end = self.network.preprocess.forward_block(samples, network_state.front_end)
        segment, level = torch.cat([state.samples, filtered], dim=1), None
        if isinstance(scale, Tensor):
            assert state.level is not None, "the state of another network"
            level = torch.cat([state.level, scale], dim=1)
        waveform, presence, backbone_state, overlap, weight = self.run_frames(segment, level, state, prepared)
        num_done = waveform.shape[1]
        new_state = StreamState(
            segment[:, num_done:],
            None if level is None else level[:, num_done:],
            overlap,
            weight,
            NetworkState(*backbone_state, front_end),
        )
        return StreamOutput(waveform, presence, new_state)

    def run_frames(
        self, segment: Tensor, level: Tensor | None, state: StreamState, prepared: PreparedEnrollment
    ) -> tuple[Tensor, Tensor | None, tuple[Any, Any], Tensor, Tensor | None]:
        """Run the network on the frames that lie wholly in a segment.

        Args:
            segment: `[batch, samples]`, filtered, from the first sample of the next frame on.
            level: what the segment was divided by, of the same shape; `None` if nothing.
            state: of the step before.
            prepared: of the voice.

        Returns:
            Finished samples `[batch, stride · frames]`, presence logits, the states of backbone and presence head,
            and `overlap` and `weight` of the next state.
        """
        network_state = NetworkState() if state.network is None else state.network
        num_frames = (segment.shape[1] - self.span.size) // self.stride + 1
        if num_frames < 1:
            states = (network_state.backbone, network_state.presence)
            return segment[:, :0], None, states, state.overlap, state.weight
        network, backbone = self.network, self.network.backbone
        analysis = backbone.analyse_frames(segment)
        latent, encoder_state = network.encode(analysis, prepared, network_state.backbone)
        presence, presence_state = network.detect(latent, analysis, prepared, None, network_state.presence)
        signals = backbone.frame_signals(latent, analysis)

        # Overlap-add. `num_done` samples are finished; the rest waits for later frames.
        num_done = num_frames * self.stride
        added = self._overlap_add(signals, state.overlap)
        finished, overlap, weight = added[:, :num_done], added[:, num_done:], None
        weights = backbone.synthesis_weights()
        if weights is not None:
            assert state.weight is not None, "the state of another network"
            sums = self._overlap_add(weights[None, :, None].expand(1, -1, num_frames), state.weight[None])[0]
            finished = finished / sums[:num_done].clamp_min(MIN_OVERLAP)
            weight = sums[num_done:]
        finished = finished + backbone.synthesis_offset()
        if level is not None:
            first = self.span.synthesis_start - self.span.start
            finished = finished * level[:, first : first + num_done]
        return finished, presence, (encoder_state, presence_state), overlap, weight

    def _overlap_add(self, signals: Tensor, overlap: Tensor) -> Tensor:
        """Add frame k of `[batch, size, frames]` at sample k · stride to the samples that earlier frames overlap."""
        total = (signals.shape[2] - 1) * self.stride + signals.shape[1]
        added = F.fold(signals, (1, total), kernel_size=(1, signals.shape[1]), stride=(1, self.stride))[:, 0, 0]
        return added + F.pad(overlap, (0, total - overlap.shape[1]))


def require_streaming(network: TargetSpeakerExtractor) -> TargetSpeakerExtractor:
    """Return the network that streams: the network itself if it is causal, or its live mode.

    Raises:
        ConfigError: it cannot stream; the message names the part that looks ahead, and what to do.
    """
    live = network.live()
    for cue in live.cues:
        name = type(cue).__name__
        if cue.looks_ahead or cue.needs_speaker_frames:
            raise ConfigError(f"this model cannot stream: its cue {name} needs later frames of the mixture")
        if cue.stage == "waveform":
            raise ConfigError(
                f"this model cannot stream: its cue {name} puts the enrollment before the mixture, and a stream has "
                "begun when the voice is known; use the cue 'tf_map' or 'embedding'"
            )
    if live.backbone.span is None:
        raise ConfigError(
            f"this model cannot stream: its backbone {type(live.backbone).__name__} has no `analyse_frames`"
        )
    if getattr(getattr(live.backbone, "stft", None), "pad_mode", "constant") != "constant":
        raise ConfigError("this model cannot stream: its pad_mode 'reflect' needs later samples; use 'constant'")
    return live
