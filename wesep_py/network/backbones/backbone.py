"""The interface of all backbones.

A backbone turns a mixture into features (`analyse`), features into a latent (`encode`) and the latent into a waveform
(`synthesise`). It knows nothing of enrollments: at each of its fusion points `encode` calls a function, the condition,
and cues steer the latent there. For streaming, `analyse_frames` and `frame_signals` do the first and the last step
frame by frame.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wesep_py.common.registry import Registry

Condition = Callable[[int, Tensor], Tensor]
"""`condition(point, latent) -> latent`: called at fusion point 0, 1, …; returns a latent of the same shape."""


@dataclass
class Analysis:
    """Output of `Backbone.analyse`: a waveform in the backbone's domain.

    Attributes:
        features: `[batch, channels, bins, frames]`, real; input-stage cues append channels to these.
        spectrum: `[batch, bins, frames]`, complex (real for a learned basis): the estimate is made from it.
        speaker_frames: `[batch, dim, frames]`, the speaker encoder's features of the same frames, each of unit length;
            `None` where no cue needs them.
    """

    features: Tensor
    spectrum: Tensor
    speaker_frames: Tensor | None = None

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return self.spectrum.shape[-1]

    def frames(self, start: int | None = None, stop: int | None = None) -> Analysis:
        """Return the frames from `start` to `stop`, as a slice does; without `speaker_frames`."""
        return Analysis(self.features[..., start:stop], self.spectrum[..., start:stop])

    def followed_by(self, later: Analysis) -> Analysis:
        """Return these frames and then those of `later`; without `speaker_frames`."""
        return Analysis(
            torch.cat([self.features, later.features], dim=-1), torch.cat([self.spectrum, later.spectrum], dim=-1)
        )


class FrameSpan(NamedTuple):
    """Samples of a frame, relative to sample t · stride of frame t.

    Attributes:
        start, stop: the frame is computed from the samples `start` … `stop` − 1.
        synthesis_start: the frame contributes to the samples from `synthesis_start` on.
        synthesis_size: number of samples that it contributes to.
    """

    start: int
    stop: int
    synthesis_start: int
    synthesis_size: int

    @property
    def size(self) -> int:
        """Number of samples that a frame is computed from."""
        return self.stop - self.start


class Backbone(nn.Module, ABC):
    """Base class of all backbones.

    Attributes:
        native_channels: feature channels that `analyse` makes; cues add theirs to them.
        input_channels: feature channels that `encode` takes, those of the cues included; set by the network.
        sample_rate: Hz.
        latent_dim: size of the latent along `fusion_axis`.
        fusion_axis: axis of the latent along which an embedding is fused.
        frame_axis: axis of the latent along which its frames lie.
        num_fusion_points: number of calls of the condition by `encode`.
        stride: samples between two frames.
        latency: algorithmic latency in samples: the largest d such that output sample n depends on input
            sample n + d, over all phases of the hop; `None` where the output depends on the whole recording.
        span: samples of a frame; `None` for one that cannot stream, with neither `analyse_frames` nor `frame_signals`.
        live: true if a network that needs the whole recording can also leave its backward layers out and stream
            (`TargetSpeakerExtractor.live`).
    """

    native_channels: int = 2
    input_channels: int
    sample_rate: int
    latent_dim: int
    fusion_axis: int
    frame_axis: int = 2
    num_fusion_points: int
    stride: int
    latency: int | None
    span: FrameSpan | None = None
    live: bool = False

    def completed_config(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the configuration of the backbone for a checkpoint, which needs no other file.

        Args:
            given: the configuration as it was given.
        """
        return dict(given)

    @abstractmethod
    def analyse(self, waveform: Tensor) -> Analysis:
        """Analyse a waveform: `[batch, samples]` → `Analysis`."""

    def num_frames(self, lengths: Tensor) -> Tensor:
        """Return the number of frames of recordings of `lengths` samples.

        Unless a backbone overrides it, frame t is centred on sample t · stride.
        """
        return lengths // self.stride + 1

    @abstractmethod
    def encode(self, features: Tensor, condition: Condition, state: Any = None) -> tuple[Tensor, Any]:
        """Turn features into a latent, and return the state for the next block of frames.

        Args:
            features: `[batch, channels, bins, frames]`, with the channels of the input-stage cues.
            condition: called at every fusion point.
            state: returned by an earlier call, for causal backbones; `None` at the start of a recording.

        Returns:
            The latent and the new state (`None` for a backbone that is not causal).
        """

    def encode_enrollment(self, features: Tensor, condition: Condition) -> Tensor:
        """Turn the features of an enrollment into a latent, for cues whose speaker encoder is the backbone itself.

        A backbone with a live mode works in that mode, so that a voice is the same offline and live.

        Args:
            features, condition: as for `encode`.
        """
        return self.encode(features, condition)[0]

    @abstractmethod
    def synthesise(self, latent: Tensor, analysis: Analysis, length: int) -> tuple[Tensor, ...]:
        """Turn the latent into estimates `[batch, length]`: one, or several scales with the result first."""

    def analyse_frames(self, segment: Tensor) -> Analysis:
        """Analyse the frames that lie wholly in a segment `[batch, span.size + (frames − 1) · stride]`.

        These are the frames of `analyse`; it is the caller who pads the recording. For streaming.
        """
        raise NotImplementedError(f"{type(self).__name__} has no `analyse_frames`, so it cannot stream")

    def frame_signals(self, latent: Tensor, analysis: Analysis) -> Tensor:
        """Return what each frame adds to the estimate, from its sample `span.synthesis_start` on. For streaming.

        Their overlap-add at a distance of `stride`, divided by that of `synthesis_weights`, plus `synthesis_offset` is
        the first estimate of `synthesise`.

        Returns:
            `[batch, span.synthesis_size, frames]`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no `frame_signals`, so it cannot stream")

    def synthesis_weights(self) -> Tensor | None:
        """Return the weights `[span.synthesis_size]` of `frame_signals`; `None`: nothing is divided."""
        return None

    def synthesis_offset(self) -> Tensor | float:
        """Return a constant that is added to each sample of the estimate."""
        return 0.0

    @abstractmethod
    def summarise(self, latent: Tensor) -> Tensor:
        """Reduce the latent to `[batch, frames, summary_dim]`, the input of the presence head."""

    @property
    def summary_dim(self) -> int:
        """Size of the last axis of the output of `summarise`."""
        return self.latent_dim


backbones: Registry[Backbone] = Registry("backbone", Backbone)
