"""What every cue offers: how an enrollment steers a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from torch import Tensor, nn

from wesep_py.backbones import Analysis, Backbone
from wesep_py.cues.alignment import align_frames
from wesep_py.registry import Registry
from wesep_py.speaker import SpeakerEncoder, SpeakerOutput, length_mask

Prepared = dict[str, Tensor]
"""What a cue keeps of an enrollment: named tensors, batch first. A voice print stores these."""


@dataclass
class Recording:
    """An enrollment, or a mixture, and what may be computed from it: each once, and only if some cue asks.

    Attributes:
        waveform: `[batch, samples]`, zero where a recording is shorter than the longest.
        lengths: `[batch]`, samples of each.
        backbone, encoder: those of the model.
        embedding: of the voice, computed elsewhere, `[batch, dim]`; `None` where there is none.
    """

    waveform: Tensor
    lengths: Tensor
    backbone: Backbone
    encoder: SpeakerEncoder | None
    embedding: Tensor | None = None

    @cached_property
    def analysis(self) -> Analysis:
        """The recording as the backbone sees it."""
        return self.backbone.analyse(self.waveform)

    @cached_property
    def frame_mask(self) -> Tensor:
        """`[batch, frames]`, true for the frames that the recording would have without its padding."""
        return length_mask(self.backbone.num_frames(self.lengths), self.analysis.num_frames)

    @cached_property
    def speaker(self) -> SpeakerOutput:
        """Embedding and frame-level features of the speaker encoder."""
        assert self.encoder is not None, "Cue.attach checks that there is an encoder"
        if self.encoder.front_end == "backbone":
            return self.encoder.of_features(self.analysis.features, self.frame_mask)
        return self.encoder(self.waveform, self.lengths)

    @cached_property
    def speaker_frames(self) -> Tensor:
        """`[batch, frame_dim, frames]`: the encoder's features at the frames of `analysis`, each of unit length."""
        assert self.encoder is not None, "Cue.attach checks that there is an encoder"
        aligned = align_frames(self.speaker, self.encoder, self.backbone, self.lengths, self.analysis.num_frames)
        return nn.functional.normalize(aligned, dim=1)


Enrollment = Recording
"""What `Cue.prepare` is given."""


class Cue(nn.Module, ABC):
    """Base of all cues.

    A cue is built in two steps: the constructor takes its configuration; `attach` makes the layers whose sizes
    depend on the backbone and the encoder. In between, `added_channels` tells the backbone how many feature
    channels to expect.

    Attributes:
        stage: `waveform`, `input` (features) or `latent`.
        replaces_features: an input-stage cue whose channels stand in the place of the backbone's own.
        past_frames: frames before the first that `steer_features` wants to see again when a causal network goes on.
        looks_ahead: whether a frame is steered by later ones of the mixture, so that no stretch can go on.
        needs_speaker_frames: whether `steer_features` wants the speaker encoder to hear the mixture too
            (`Analysis.speaker_frames`).
        embedding_dim: size of the embedding, computed elsewhere, that the cue takes instead of a recording; `None`: it
            hears the recording.
    """

    stage: Literal["waveform", "input", "latent"]
    replaces_features: bool = False
    past_frames: int = 0
    looks_ahead: bool = False
    needs_speaker_frames: bool = False
    embedding_dim: int | None = None

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
    def combine(self, prepared: Sequence[Prepared], weights: Sequence[float] | None = None) -> Prepared:
        """Several enrollments of the same voice as one.

        Args:
            prepared: one or more.
            weights: of each, above 0, for what is averaged; all alike, if `None`. What is joined in time
                takes no notice.
        """

    def steer_waveform(self, waveform: Tensor, prepared: Prepared) -> tuple[Tensor, int]:
        """Waveform-stage cues: `[batch, samples]` with what is to be heard before it, and how many samples that is.

        The number is a multiple of the backbone's stride; the network cuts as much from the estimate.
        """
        return waveform, 0

    def steer_features(self, analysis: Analysis, features: Tensor, prepared: Prepared) -> Tensor:
        """Input-stage cues: features `[batch, channels, bins, frames]` with the cue's channels appended.

        A cue that replaces features drops the backbone's own, which stand first.
        """
        return features

    def steer_latent(self, point: int, latent: Tensor, prepared: Prepared) -> Tensor:
        """Latent-stage cues: the latent at a fusion point, steered."""
        return latent

    def speaker_logits(self, prepared: Prepared) -> Tensor | None:
        """`[batch, speakers]`: which speaker of the training set the enrollment sounds like, from cues that tell."""
        return None


cues: Registry[Cue] = Registry("cue", Cue)
