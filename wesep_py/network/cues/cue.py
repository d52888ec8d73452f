"""What every cue offers: how an enrollment steers a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from wesep_py.common.registry import Registry
from wesep_py.network.backbones import Analysis, Backbone
from wesep_py.network.backbones.spectrum import full_precision
from wesep_py.network.speaker import SpeakerEncoder, SpeakerOutput, length_mask

# ----------------------------------------
# A speaker encoder's frames at the times of a backbone's.


def align_speaker_frames(
    speaker: SpeakerOutput, encoder: SpeakerEncoder, backbone: Backbone, lengths: Tensor, num_frames: int
) -> Tensor:
    """The encoder's frame-level features at the backbone's frames, interpolated between the nearest two.

    Frame t of the backbone is at sample t · stride; frame i of a filterbank at the middle of its window. The frames
    of a network that makes fewer of them than its front end lie evenly over those. Before the first and after the
    last, that one is repeated.

    Args:
        speaker: of the encoder.
        encoder, backbone: those of the model.
        lengths: `[batch]`, samples of each recording.
        num_frames: of the backbone.

    Returns:
        `[batch, frame_dim, num_frames]`.
    """
    frames = torch.arange(num_frames, device=lengths.device)[None]
    if encoder.front_end == "backbone":
        position, heard = frames.float(), backbone.num_frames(lengths)
    else:
        filterbank = encoder.filterbank
        sample = frames * backbone.stride * (filterbank.sample_rate / backbone.sample_rate)
        position = (sample - filterbank.window_length / 2) / filterbank.hop_length
        heard = filterbank.frame_lengths(-(-lengths * filterbank.sample_rate // backbone.sample_rate))
    count = speaker.mask.sum(dim=1, keepdim=True)
    position = (position + 0.5) * count / heard[:, None] - 0.5
    return interpolate_frames(full_precision(speaker.frames), position.clamp_min(0).minimum(count - 1))


def interpolate_frames(frames: Tensor, position: Tensor) -> Tensor:
    """`[batch, dim, frames]` at the `position`s `[batch, n]`, numbers from 0 to frames − 1 → `[batch, dim, n]`.

    >>> interpolate(torch.tensor([[[0.0, 10.0, 30.0]]]), torch.tensor([[0.5, 1.0, 1.75]])).tolist()
    [[[5.0, 10.0, 25.0]]]
    """
    before = position.floor().long()
    after = (before + 1).clamp_max(frames.shape[2] - 1)
    left, right = (frames.gather(2, at[:, None].expand(-1, frames.shape[1], -1)) for at in (before, after))
    return left + (right - left) * (position - before).to(frames.dtype)[:, None]


# ----------------------------------------
# Attention to an enrollment in parts, so that no tensor holds every pair of frames of two long recordings.

MAX_SCORES_PER_BLOCK = 2**24
"""Pairs of frames, over batch, bands and heads, whose scores are in memory at a time: 64 MB of them."""


def queries_per_block(scores_of_a_frame: int) -> int:
    """How many frames may look at an enrollment together, if each makes that many scores.

    >>> frames_at_once(2**20)
    16
    """
    return max(1, MAX_SCORES_PER_BLOCK // max(1, scores_of_a_frame))


def cross_attention(query: Tensor, key: Tensor, value: Tensor, valid: Tensor) -> Tensor:
    """`softmax(QKᵀ / √size) V`, over the valid keys.

    A frame of the mixture has no place in the enrollment that it is near to, so there is no window: every query sees
    every valid key, in as many parts as `MAX_SCORES_PER_BLOCK` asks for. For a given enrollment, memory and time grow with
    the length of the mixture, not with its square.

    Args:
        query: `[batch, heads, frames, size]`.
        key: `[batch, heads, keys, size]`.
        value: `[batch, heads, keys, any size]`.
        valid: `[batch, 1, 1, keys]`, false for padding.

    Returns:
        `[batch, heads, frames, size of value]`.

    >>> cross_attention(*(torch.randn(1, 2, n, 4) for n in (50, 7, 7)), torch.ones(1, 1, 1, 7).bool()).shape
    torch.Size([1, 2, 50, 4])
    """
    parts = query.split(queries_per_block(query.shape[0] * query.shape[1] * key.shape[2]), dim=2)
    return torch.cat([_attend(part, key, value, valid) for part in parts], dim=2)


def _attend(query: Tensor, key: Tensor, value: Tensor, valid: Tensor) -> Tensor:
    attend = nn.functional.scaled_dot_product_attention
    if query.device.type != "cpu" or query.dtype == torch.float32 or not torch.is_grad_enabled():
        return attend(query, key, value, attn_mask=valid)
    # Forward and backward in bfloat16 take two and a half times as long on a CPU as in float32 (torch 2.11).
    with torch.autocast("cpu", enabled=False):
        return attend(query.float(), key.float(), value.float(), attn_mask=valid).to(query.dtype)


PreparedEnrollment = dict[str, Tensor]
"""What a cue keeps of an enrollment: named tensors, batch first. A voice print stores these."""


@dataclass
class SignalFeatures:
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
        aligned = align_speaker_frames(self.speaker, self.encoder, self.backbone, self.lengths, self.analysis.num_frames)
        return nn.functional.normalize(aligned, dim=1)


Enrollment = SignalFeatures
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
    def prepare(self, enrollment: Enrollment) -> PreparedEnrollment:
        """What is kept of the enrollment: computed once, used for any number of mixtures."""

    @abstractmethod
    def combine(self, prepared: Sequence[PreparedEnrollment], weights: Sequence[float] | None = None) -> PreparedEnrollment:
        """Several enrollments of the same voice as one.

        Args:
            prepared: one or more.
            weights: of each, above 0, for what is averaged; all alike, if `None`. What is joined in time
                takes no notice.
        """

    def steer_waveform(self, waveform: Tensor, prepared: PreparedEnrollment) -> tuple[Tensor, int]:
        """Waveform-stage cues: `[batch, samples]` with what is to be heard before it, and how many samples that is.

        The number is a multiple of the backbone's stride; the network cuts as much from the estimate.
        """
        return waveform, 0

    def steer_features(self, analysis: Analysis, features: Tensor, prepared: PreparedEnrollment) -> Tensor:
        """Input-stage cues: features `[batch, channels, bins, frames]` with the cue's channels appended.

        A cue that replaces features drops the backbone's own, which stand first.
        """
        return features

    def steer_latent(self, point: int, latent: Tensor, prepared: PreparedEnrollment) -> Tensor:
        """Latent-stage cues: the latent at a fusion point, steered."""
        return latent

    def speaker_logits(self, prepared: PreparedEnrollment) -> Tensor | None:
        """`[batch, speakers]`: which speaker of the training set the enrollment sounds like, from cues that tell."""
        return None


cues: Registry[Cue] = Registry("cue", Cue)
