"""The interface of all cues, what they are given, and the attention that several of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from wesep_py.common.registry import Registry
from wesep_py.network.backbones import Analysis, Backbone
from wesep_py.network.backbones.spectrum import full_precision
from wesep_py.network.speaker import SpeakerEncoder, SpeakerOutput, length_mask

PreparedEnrollment = dict[str, Tensor]
"""The tensors that a cue, or all cues of a network, need of an enrollment, batch first. A voice print stores these."""
NEGATIVE = "negative_"
"""Prefix of the names of tensors of a negative enrollment."""
MAX_SCORES_PER_BLOCK = 2**24
"""Scores of an attention to an enrollment that are in memory at a time, over batch, bands and heads: 64 MB of them."""


@dataclass
class SignalFeatures:
    """An enrollment, mixture or estimate, and what cues need of it. Each property is computed once, when it is used.

    Attributes:
        waveform: `[batch, samples]`, zero-padded.
        lengths: `[batch]`, samples of each.
        backbone, encoder: those of the model.
        embedding: of the voice, computed elsewhere, `[batch, dim]`; `None` where there is none.
        level: factor that brings the waveform back to the level that the recording had, `[batch, 1]`.
    """

    waveform: Tensor
    lengths: Tensor
    backbone: Backbone
    encoder: SpeakerEncoder | None
    embedding: Tensor | None = None
    level: Tensor | float = 1.0

    @cached_property
    def analysis(self) -> Analysis:
        """The backbone's analysis of the waveform."""
        return self.backbone.analyse(self.waveform)

    @cached_property
    def frame_mask(self) -> Tensor:
        """`[batch, frames]`, true for the frames that the signal would have without its padding."""
        return length_mask(self.backbone.num_frames(self.lengths), self.analysis.num_frames)

    @cached_property
    def speaker(self) -> SpeakerOutput:
        """Embedding and frame-level features of the speaker encoder."""
        assert self.encoder is not None, "Cue.attach checks that there is an encoder"
        if self.encoder.front_end == "backbone":
            return self.encoder.of_features(self.analysis.features, self.frame_mask)
        waveform = self.waveform * self.level if self.encoder.takes_own_level else self.waveform
        return self.encoder(waveform, self.lengths)

    @cached_property
    def speaker_frames(self) -> Tensor:
        """`[batch, frame_dim, frames]`: the encoder's features at the frames of `analysis`, each of unit length."""
        assert self.encoder is not None, "Cue.attach checks that there is an encoder"
        aligned = align_speaker_frames(
            self.speaker, self.encoder, self.backbone, self.lengths, self.analysis.num_frames
        )
        return nn.functional.normalize(aligned, dim=1)


class Cue(nn.Module, ABC):
    """Base class of all cues.

    A cue is built in two steps: the constructor takes its configuration; `attach` makes the layers whose sizes depend
    on the backbone and the encoder. In between, `added_channels` tells the backbone how many feature channels to
    expect. A cue overrides the `steer_…` method of its stage; the others leave their input unchanged.

    Attributes:
        stage: `waveform`, `input` (features) or `latent`.
        replaces_features: true for an input-stage cue whose channels replace the backbone's own.
        past_frames: frames of the block before that `steer_features` needs again when a causal network continues.
        looks_ahead: true if a frame is steered by later frames of the mixture, so that streaming is impossible.
        needs_speaker_frames: true if `steer_features` needs the speaker encoder's features of the mixture
            (`Analysis.speaker_frames`).
        runs_backbone: true if `prepare` runs the backbone over the enrollment's own features.
        embedding_dim: size of the embedding, computed elsewhere, that the cue takes instead of a recording; `None` for
            a cue that takes the recording.
        negative_axes: for a cue that also takes a negative enrollment (of a person who is not meant), the tensors of
            `prepare` that it needs of it, each with its axis along time; `mask` is one of them. Empty for other cues.
    """

    stage: Literal["waveform", "input", "latent"]
    replaces_features: bool = False
    past_frames: int = 0
    looks_ahead: bool = False
    needs_speaker_frames: bool = False
    runs_backbone: bool = False
    embedding_dim: int | None = None
    negative_axes: Mapping[str, int] = {}

    def added_channels(self) -> int:
        """Return the number of feature channels that the cue adds."""
        return 0

    def negative_channels(self) -> int:
        """Return the number of feature channels that the cue makes of a negative enrollment."""
        return 0

    def attach(self, backbone: Backbone, encoder: SpeakerEncoder | None) -> None:
        """Make the layers that depend on the backbone and the encoder.

        Raises:
            ConfigError: the cue needs an encoder and there is none.
        """

    @abstractmethod
    def prepare(self, enrollment: SignalFeatures) -> PreparedEnrollment:
        """Return the tensors needed of an enrollment: computed once, used for any number of mixtures."""

    @abstractmethod
    def combine(
        self, prepared: Sequence[PreparedEnrollment], weights: Sequence[float] | None = None
    ) -> PreparedEnrollment:
        """Combine several enrollments of the same voice.

        Args:
            prepared: one or more results of `prepare`.
            weights: weight of each, above 0, in what is averaged; `None` for equal weights. They do not apply to what
                is joined in time.
        """

    def prepare_negative(self, enrollment: SignalFeatures) -> PreparedEnrollment:
        """Return the tensors needed of a negative enrollment, under the names `negative_…`."""
        if not self.negative_axes:
            return {}
        prepared = self.prepare(enrollment)
        return {f"{NEGATIVE}{name}": prepared[name] for name in self.negative_axes}

    def no_negative(self, prepared: PreparedEnrollment) -> PreparedEnrollment:
        """Return what stands for a missing negative enrollment: one frame of zeros, which the mask excludes.

        Args:
            prepared: result of `prepare`.
        """
        return {
            f"{NEGATIVE}{name}": torch.zeros_like(prepared[name].narrow(axis, 0, 1))
            for name, axis in self.negative_axes.items()
        }

    def combine_negative(self, prepared: Sequence[PreparedEnrollment]) -> PreparedEnrollment:
        """Join several negative enrollments in time, of one person or of several."""
        return {
            f"{NEGATIVE}{name}": torch.cat([tensors[f"{NEGATIVE}{name}"] for tensors in prepared], dim=axis)
            for name, axis in self.negative_axes.items()
        }

    def steer_waveform(self, waveform: Tensor, prepared: PreparedEnrollment) -> tuple[Tensor, int]:
        """Put samples before a mixture `[batch, samples]`, and return the result and their number.

        The number is a multiple of the backbone's stride; the network cuts as many samples from the estimate.
        """
        return waveform, 0

    def steer_features(self, analysis: Analysis, features: Tensor, prepared: PreparedEnrollment) -> Tensor:
        """Append the cue's channels to features `[batch, channels, bins, frames]`.

        A cue that replaces features drops the backbone's own, which are the first channels.

        Args:
            analysis: of the mixture.
            features: those of the analysis, with the channels that earlier cues have added.
            prepared: result of `prepare`.
        """
        return features

    def negative_features(self, analysis: Analysis, prepared: PreparedEnrollment) -> Tensor:
        """Return the channels of the negative enrollment, `[batch, negative_channels, bins, frames]`; zero without one.

        They follow the channels of all cues.
        """
        raise NotImplementedError(f"{type(self).__name__} makes no channels of a negative enrollment")

    def steer_latent(self, point: int, latent: Tensor, prepared: PreparedEnrollment) -> Tensor:
        """Return the steered latent at a fusion point, of the same shape."""
        return latent

    def speaker_logits(self, prepared: PreparedEnrollment) -> Tensor | None:
        """Return logits over the speakers of the training set, `[batch, speakers]`, if the cue has a classifier."""
        return None


cues: Registry[Cue] = Registry("cue", Cue)


def negative_mask(prepared: PreparedEnrollment) -> tuple[Tensor, Tensor]:
    """Return the frames of a negative enrollment that an attention may use, and who has one.

    An attention to no frame at all is not a number, so where there is no negative enrollment all frames are allowed;
    multiply the result by the second tensor.

    Returns:
        Booleans, `[batch, frames]` and `[batch]`.

    >>> negative_mask({"negative_mask": torch.tensor([[True, False], [False, False]])})
    (tensor([[ True, False],
            [ True,  True]]), tensor([ True, False]))
    """
    mask = prepared[f"{NEGATIVE}mask"].bool()
    exists = mask.any(dim=1)
    return mask | ~exists[:, None], exists


def cross_attention(query: Tensor, key: Tensor, value: Tensor, valid: Tensor) -> Tensor:
    """Return `softmax(QKᵀ / √size) V`, over the valid keys.

    Any frame of the enrollment may match any frame of the mixture, so there is no window: every query sees every valid
    key. Queries are computed in blocks of at most `MAX_SCORES_PER_BLOCK` scores, so no tensor holds every pair of
    frames of two long recordings. For a given enrollment, memory and time grow with the length of the mixture, not
    with its square.

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
    blocks = query_blocks(query, query.shape[0] * query.shape[1] * key.shape[2])
    return torch.cat([_attend(block, key, value, valid) for block in blocks], dim=2)


def query_blocks(queries: Tensor, scores_per_query: int) -> tuple[Tensor, ...]:
    """Split queries along axis 2 into blocks whose scores fit into `MAX_SCORES_PER_BLOCK`.

    A traced network has a fixed number of operations, so it computes all queries at once.
    """
    return (queries,) if torch.jit.is_tracing() else queries.split(queries_per_block(scores_per_query), dim=2)


def queries_per_block(scores_per_query: int) -> int:
    """Return the number of queries, at least 1, whose scores fit into `MAX_SCORES_PER_BLOCK`.

    >>> queries_per_block(2**20)
    16
    """
    return max(1, MAX_SCORES_PER_BLOCK // max(1, scores_per_query))


def _attend(query: Tensor, key: Tensor, value: Tensor, valid: Tensor) -> Tensor:
    attend = nn.functional.scaled_dot_product_attention
    if query.device.type != "cpu" or query.dtype == torch.float32 or not torch.is_grad_enabled():
        return attend(query, key, value, attn_mask=valid)
    # On a CPU, forward and backward in bfloat16 take two and a half times as long as in float32 (torch 2.11).
    with torch.autocast("cpu", enabled=False):
        return attend(query.float(), key.float(), value.float(), attn_mask=valid).to(query.dtype)


def align_speaker_frames(
    speaker: SpeakerOutput, encoder: SpeakerEncoder, backbone: Backbone, lengths: Tensor, num_frames: int
) -> Tensor:
    """Return the encoder's frame-level features at the times of the backbone's frames, by linear interpolation.

    Frame t of the backbone is at sample t · stride; the first frame of a filterbank at the middle of its window, or at
    the sample `first_centre` where it says so. If a network
    gives fewer frames than its front end, they are spread evenly over those. Before the first frame and after the last,
    that frame is repeated.

    Args:
        speaker: output of the encoder.
        encoder, backbone: those of the model.
        lengths: `[batch]`, samples of each recording.
        num_frames: of the backbone.

    Returns:
        `[batch, frame_dim, num_frames]`.
    """
    frames = torch.arange(num_frames, device=lengths.device)[None]
    if encoder.front_end == "backbone":
        position, front_end_frames = frames.float(), backbone.num_frames(lengths)
    else:
        filterbank = encoder.filterbank
        sample = frames * backbone.stride * (filterbank.sample_rate / backbone.sample_rate)
        first_centre = getattr(filterbank, "first_centre", filterbank.window_length / 2)
        position = (sample - first_centre) / filterbank.hop_length
        front_end_frames = filterbank.frame_lengths(-(-lengths * filterbank.sample_rate // backbone.sample_rate))
    # From positions among the front end's frames to positions among the network's. Frame i covers i − ½ … i + ½:
    #
    #   front end   | 0 | 1 | 2 | 3 | 4 | 5 |      six frames
    #   network     |   0   |   1   |   2   |      three frames: position 0.5 → 0, 2.5 → 1
    count = speaker.mask.sum(dim=1, keepdim=True)
    position = (position + 0.5) * count / front_end_frames[:, None] - 0.5
    return interpolate_frames(full_precision(speaker.frames), position.clamp_min(0).minimum(count - 1))


def interpolate_frames(frames: Tensor, position: Tensor) -> Tensor:
    """Interpolate frames `[batch, dim, frames]` linearly at positions `[batch, n]` from 0 to frames − 1.

    Returns:
        `[batch, dim, n]`.

    >>> interpolate_frames(torch.tensor([[[0.0, 10.0, 30.0]]]), torch.tensor([[0.5, 1.0, 1.75]])).tolist()
    [[[5.0, 10.0, 25.0]]]
    """
    before = position.floor().long()
    after = (before + 1).clamp_max(frames.shape[2] - 1)
    left, right = (frames.gather(2, index[:, None].expand(-1, frames.shape[1], -1)) for index in (before, after))
    return left + (right - left) * (position - before).to(frames.dtype)[:, None]
