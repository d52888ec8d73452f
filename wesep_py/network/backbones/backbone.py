"""What every backbone offers, and what it is told.

A backbone turns a mixture into features (`analyse`), features into a latent (`encode`) and the latent into a
waveform (`synthesise`). It knows nothing of enrollments: at each of its fusion points `encode` calls back, and
whatever steers the network does so there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wesep_py.common.registry import Registry

Condition = Callable[[int, Tensor], Tensor]
"""`condition(point, latent) -> latent`: called at fusion point 0, 1, …; returns a latent of the same shape."""


@dataclass
class Analysis:
    """A waveform as a backbone sees it.

    Attributes:
        features: `[batch, channels, bins, frames]`, real; input-stage cues append channels to these.
        spectrum: `[batch, bins, frames]`, complex (or a real basis): what the estimate is made from.
        speaker_frames: `[batch, dim, frames]`, what a speaker encoder makes of the same frames, each of unit length;
            only where a cue asks for it.
    """

    features: Tensor
    spectrum: Tensor
    speaker_frames: Tensor | None = None

    @property
    def num_frames(self) -> int:
        return self.spectrum.shape[-1]

    def frames(self, start: int | None = None, stop: int | None = None) -> Analysis:
        """The frames from `start` to `stop`, as in a slice; without those of a speaker encoder."""
        return Analysis(self.features[..., start:stop], self.spectrum[..., start:stop])

    def followed_by(self, later: Analysis) -> Analysis:
        """These frames and then those of `later`; without those of a speaker encoder."""
        return Analysis(
            torch.cat([self.features, later.features], dim=-1), torch.cat([self.spectrum, later.spectrum], dim=-1)
        )


class Backbone(nn.Module, ABC):
    """Base of all backbones.

    Attributes:
        native_channels: feature channels that `analyse` makes, before cues add theirs.
        sample_rate: Hz.
        latent_dim: size of the latent along `fusion_axis`.
        fusion_axis: axis of the latent along which an embedding is fused.
        frame_axis: axis of the latent along which its frames lie.
        num_fusion_points: how many times `encode` calls the condition.
        stride: samples between two frames.
        latency: algorithmic latency in samples: the largest d such that output sample n depends on input
            sample n + d, over all phases of the hop; `None` where the whole recording is looked at.
    """

    native_channels: int = 2
    sample_rate: int
    latent_dim: int
    fusion_axis: int
    frame_axis: int = 2
    num_fusion_points: int
    stride: int
    latency: int | None

    @abstractmethod
    def analyse(self, waveform: Tensor) -> Analysis:
        """`[batch, samples]` → `Analysis`."""

    def num_frames(self, lengths: Tensor) -> Tensor:
        """Frames of recordings of so many samples; if not overridden, frame t is centred on sample t · stride."""
        return lengths // self.stride + 1

    @abstractmethod
    def encode(self, features: Tensor, condition: Condition, state: Any = None) -> tuple[Tensor, Any]:
        """Features → latent, and the state with which the next frames go on.

        Args:
            features: `[batch, channels, bins, frames]`, with the channels of the input-stage cues.
            condition: called at every fusion point.
            state: what an earlier call returned, for causal backbones; `None` at the start of a recording.

        Returns:
            The latent and the new state (`None` for a backbone that is not causal).
        """

    @abstractmethod
    def synthesise(self, latent: Tensor, analysis: Analysis, length: int) -> tuple[Tensor, ...]:
        """Latent → estimates `[batch, length]`: one, or several scales with the result first."""

    @abstractmethod
    def summarise(self, latent: Tensor) -> Tensor:
        """Latent → `[batch, frames, summary_dim]`: what a head that judges frames looks at."""

    @property
    def summary_dim(self) -> int:
        """Size of the last axis of what `summarise` returns."""
        return self.latent_dim


backbones: Registry[Backbone] = Registry("backbone", Backbone)
