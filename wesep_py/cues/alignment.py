"""A speaker encoder's frames at the times of a backbone's."""

from __future__ import annotations

import torch
from torch import Tensor

from wesep_py.backbones import Backbone
from wesep_py.backbones.bands import full_precision
from wesep_py.speaker import SpeakerEncoder, SpeakerOutput


def align_frames(
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
    return interpolate(full_precision(speaker.frames), position.clamp_min(0).minimum(count - 1))


def interpolate(frames: Tensor, position: Tensor) -> Tensor:
    """`[batch, dim, frames]` at the `position`s `[batch, n]`, numbers from 0 to frames − 1 → `[batch, dim, n]`.

    >>> interpolate(torch.tensor([[[0.0, 10.0, 30.0]]]), torch.tensor([[0.5, 1.0, 1.75]])).tolist()
    [[[5.0, 10.0, 25.0]]]
    """
    before = position.floor().long()
    after = (before + 1).clamp_max(frames.shape[2] - 1)
    left, right = (frames.gather(2, at[:, None].expand(-1, frames.shape[1], -1)) for at in (before, after))
    return left + (right - left) * (position - before).to(frames.dtype)[:, None]
