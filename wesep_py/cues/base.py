"""What every cue offers: how an enrollment steers a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from wesep_py.backbones import Analysis, Backbone
from wesep_py.registry import Registry
from wesep_py.speaker import SpeakerEncoder, SpeakerOutput

Prepared = dict[str, Tensor]
"""What a cue keeps of an enrollment: named tensors, batch first. A voice print stores these."""


@dataclass
class Enrollment:
    """An enrollment and what may be computed from it, each once and only if some cue asks.

    Attributes:
        waveform: `[batch, samples]`, zero where a recording is shorter than the longest.
        lengths: `[batch]`, samples of each.
        backbone, encoder: those of the model.
    """

    waveform: Tensor
    lengths: Tensor
    backbone: Backbone
    encoder: SpeakerEncoder | None

    @cached_property
    def analysis(self) -> Analysis:
        """The enrollment as the backbone sees a mixture."""
        return self.backbone.analyse(self.waveform)

    @cached_property
    def frame_mask(self) -> Tensor:
        """`[batch, frames]`, true where a frame of `analysis` holds any of the recording."""
        frames = torch.arange(self.analysis.num_frames, device=self.waveform.device)
        return frames[None] * self.backbone.stride < self.lengths[:, None].clamp_min(1)

    @cached_property
    def speaker(self) -> SpeakerOutput:
        """Embedding and frame-level features of the speaker encoder."""
        assert self.encoder is not None, "Cue.attach checks that there is an encoder"
        return self.encoder(self.waveform, self.lengths)


class Cue(nn.Module, ABC):
    """Base of all cues.

    A cue is built in two steps: the constructor takes its configuration; `attach` makes the layers whose sizes
    depend on the backbone and the encoder. In between, `added_channels` tells the backbone how many feature
    channels to expect.

    Attributes:
        stage: `waveform`, `input` (features) or `latent`.
    """

    stage: Literal["waveform", "input", "latent"]

    def added_channels(self) -> int:
        """Feature channels that the cue adds to the backbone's own."""
        return 0

    def attach(self, backbone: Backbone, encoder: SpeakerEncoder | None) -> None:
        """Make the layers that depend on the backbone and the encoder.

        Raises:
            ConfigError: the cue needs an encoder and there is none.
        """

    @abstractmethod
    def prepare(self, enrollment: Enrollment) -> Prepared:
        """What is kept of the enrollment: computed once, used for any number of mixtures."""

    @abstractmethod
    def combine(self, prepared: Sequence[Prepared]) -> Prepared:
        """Several enrollments of the same voice as one."""

    def steer_features(self, analysis: Analysis, features: Tensor, prepared: Prepared) -> Tensor:
        """Input-stage cues: features `[batch, channels, bins, frames]` with the cue's channels appended."""
        return features

    def steer_latent(self, point: int, latent: Tensor, prepared: Prepared) -> Tensor:
        """Latent-stage cues: the latent at a fusion point, steered."""
        return latent


cues: Registry[Cue] = Registry("cue")
