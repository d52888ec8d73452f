"""Embeddings of windows: a recording is cut into overlapping windows of features, and their embeddings are averaged.

GE2E encoders are trained on windows of one length and embed a recording so (Wan et al., "Generalized end-to-end loss
for speaker verification", ICASSP 2018, section 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from wesep_py.network.speaker.speaker_network import SpeakerNetwork, SpeakerOutput, length_mask

MAX_WINDOWS_AT_A_TIME = 512
"""Windows that go through the network together where there are no gradients."""


class FrontEnd(Protocol):
    """A front end, as far as windows need it: hop length and number of frames."""

    @property
    def hop_length(self) -> int:
        """Samples from one frame to the next."""
        ...

    def frame_lengths(self, lengths: Tensor) -> Tensor:
        """Return the number of frames of waveforms of `lengths` samples."""
        ...


class WindowCounts(NamedTuple):
    """Windows of recordings, `[batch]` each.

    Attributes:
        all: windows that cover every frame.
        embedded: those of them, from the first on, that are averaged: all, or all but the last.
        samples: length in samples to which zeros extend a recording, so that the last averaged window is complete.
    """

    all: Tensor
    embedded: Tensor
    samples: Tensor


@dataclass
class WindowConfig:
    """Lengths that cut a recording into windows.

    Attributes:
        num_frames: length of a window, in frames of the front end.
        hop_frames: frames from the start of a window to the start of the next.
        min_coverage: the last window counts if the recording covers at least this share of it, above 0 to 1; zeros
            complete it. The first window always counts.

    Raises:
        ValueError: a value is out of range.

    The windows of a recording of 300 frames of 10 ms; the one that starts at frame 154 is covered by 91 %:

    >>> from wesep_py.features import SlaneyMel
    >>> counts = WindowConfig().counts(torch.tensor([48000]), SlaneyMel())
    >>> counts.embedded.item(), counts.samples.item()
    (3, 50240)
    """

    num_frames: int = 160
    hop_frames: int = 77
    min_coverage: float = 0.75

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise ValueError(f"num_frames: is {self.num_frames}; 1 or more is allowed")
        if not 1 <= self.hop_frames <= self.num_frames:
            raise ValueError(f"hop_frames: is {self.hop_frames}; from 1 to num_frames ({self.num_frames}) is allowed")
        if not 0 < self.min_coverage <= 1:
            raise ValueError(f"min_coverage: is {self.min_coverage}; above 0 to 1 is allowed")

    def counts(self, lengths: Tensor, front_end: FrontEnd) -> WindowCounts:
        """Return the number of windows of recordings, and the lengths to which they are extended.

        Args:
            lengths: `[batch]`, samples of each.
            front_end: makes the frames.
        """
        #   frames   |0                                   n|
        #   windows  |-- num_frames --|
        #            |-hop-|-- num_frames --|
        #                  |-hop-|-- num_frames --|            the last starts at or before n - num_frames + hop
        frames = front_end.frame_lengths(lengths)
        last = (frames - self.num_frames + self.hop_frames).clamp_min(0) // self.hop_frames
        covered = lengths - last * self.hop_frames * front_end.hop_length
        enough = covered >= self.min_coverage * self.num_frames * front_end.hop_length
        embedded = torch.where(enough, last + 1, last).clamp_min(1)
        stop = (embedded - 1) * self.hop_frames + self.num_frames
        samples = torch.maximum(lengths, stop * front_end.hop_length)
        # Frames that lie wholly inside a recording, as Kaldi's, need a little more for the last one.
        missing = (stop - front_end.frame_lengths(samples)).clamp_min(0)
        return WindowCounts(last + 1, embedded, samples + missing * front_end.hop_length)

    def embed(
        self, network: SpeakerNetwork, features: Tensor, frames: Tensor, extended: Tensor, counts: WindowCounts
    ) -> SpeakerOutput:
        """Return the embeddings of recordings, and their frame-level features.

        A frame of the result is the mean over the windows that it is in.

        Args:
            network: returns as many frames as it gets.
            features: `[batch, frames, bins]` of the extended recordings.
            frames: `[batch]`, number of frames of each recording.
            extended: the same for the extended recordings.
            counts: the windows of each.
        """
        size, device = self.num_frames, features.device
        starts = torch.arange(int(counts.all.max()), device=device) * self.hop_frames
        positions = starts[:, None] + torch.arange(size, device=device)[None]
        features = functional.pad(features, (0, 0, 0, max(0, int(positions[-1, -1]) + 1 - features.shape[1])))

        # One row for each window of each recording.
        recording, window = length_mask(counts.all, len(starts)).nonzero(as_tuple=True)
        chunk = len(recording) if torch.is_grad_enabled() else MAX_WINDOWS_AT_A_TIME
        outputs = []
        for rows, places in zip(recording.split(chunk), positions[window].split(chunk), strict=True):
            mask = places < extended[rows, None]
            outputs.append(network(features[rows[:, None], places], mask))

        embeddings = torch.cat([output.embedding for output in outputs]).float()
        averaged = (window < counts.embedded[recording])[:, None]
        sums = embeddings.new_zeros(len(features), embeddings.shape[1])
        embedding = functional.normalize(sums.index_add(0, recording, embeddings * averaged), dim=1)

        values = torch.cat([output.frames for output in outputs]).float().transpose(1, 2)
        valid = torch.cat([output.mask for output in outputs])[:, :, None]
        place = recording[:, None] * features.shape[1] + positions[window]
        total = _summed(values * valid, place, features.shape[:2])
        number = _summed(valid.to(values.dtype), place, features.shape[:2])
        mask = length_mask(frames, int(frames.max()))
        mean = (total / number.clamp_min(1))[:, : mask.shape[1]]
        return SpeakerOutput(mean.transpose(1, 2) * mask[:, None], mask, embedding)


def _summed(values: Tensor, place: Tensor, shape: torch.Size) -> Tensor:
    """Return the sums `[batch, frames, dim]` of values `[rows, size, dim]` at flat places `[rows, size]`."""
    sums = values.new_zeros(shape.numel(), values.shape[2])
    return sums.index_add(0, place.flatten(), values.flatten(0, 1)).unflatten(0, shape)
