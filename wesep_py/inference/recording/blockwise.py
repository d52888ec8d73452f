"""A recording that comes in pieces through a network in blocks: any length, in the memory of one block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from wesep_py.inference.presence import SILENT
from wesep_py.inference.recording.blocks import Grid, join

if TYPE_CHECKING:
    from wesep_py.extractor import TargetSpeakerExtractor
    from wesep_py.inference.voice import Voice


@dataclass
class Piece:
    """What a block adds to the result, for each of the voices.

    Attributes:
        index: of the block, from 0.
        mixture: `[channels, samples]` at the network's rate: the stretch that is finished.
        estimates: `[voices, channels, samples]` of it, at any level.
        tail: `[voices, channels, overlap]`: what the next block will be joined to.
        logits: `[voices, channels, frames]` of the presence head; `None` where the network has none.
        last: whether it is the last.
        broken: for each voice, whether it may be another one than in the block before.
    """

    index: int
    mixture: NDArray[np.float32]
    estimates: NDArray[np.float32]
    tail: NDArray[np.float32]
    logits: NDArray[np.float32] | None
    last: bool
    broken: list[bool]


class Overlapping:
    """Blocks that overlap, extracted each by itself and cross-faded.

    A block is computed as soon as its samples are there and one more, so the last is known to be the last; it begins
    early enough to be a whole block.

    Args:
        network: in evaluation mode.
        device: on which it is.
        voices: one or more, of this network.
        grid: lengths in samples.
        num_channels: of the mixture.

    >>> Overlapping(network, "cpu", [voice], Blocks().grid(16000, 128), num_channels=1)     # doctest: +SKIP
    """

    def __init__(
        self,
        network: TargetSpeakerExtractor,
        device: str | torch.device,
        voices: Sequence[Voice],
        grid: Grid,
        num_channels: int,
    ) -> None:
        self.network, self.device, self.grid = network, device, grid
        self.prepared = [{key: tensor.to(device) for key, tensor in voice.tensors.items()} for voice in voices]
        self.shape = (len(voices), num_channels)
        self._buffer, self._from = np.zeros((num_channels, 0), np.float32), 0
        self._index = 0
        self._tail: NDArray[np.float32] | None = None
        self._rise = grid.rise()

    def push(self, samples: NDArray[np.float32]) -> Iterator[Piece]:
        """The next samples `[channels, samples]` at the network's rate, and the pieces that they complete."""
        self._buffer = np.concatenate([self._buffer, samples], axis=1)
        # What the last block may need to be a whole one is kept.
        self._drop(self._start - self.grid.step)
        while self._end > self._start + self.grid.block:
            yield self._block(self._start, self._start + self.grid.block, last=False)
            self._drop(self._start - self.grid.step)

    def finish(self) -> Iterator[Piece]:
        """The last piece."""
        if self._end == 0:
            return
        early = max(0, self._end - self.grid.block) // self.grid.stride * self.grid.stride
        yield self._block(min(self._start, max(early, self._from)), self._end, last=True)

    def resume(self, index: int, tail: NDArray[np.float32]) -> None:
        """Go on after the block `index`, which left this tail; samples are pushed from the first on all the same."""
        self._index, self._tail = index + 1, tail

    def state(self) -> Any:
        """What `resume` needs beside the tail: nothing."""
        return None

    @property
    def _start(self) -> int:
        return self._index * self.grid.step

    @property
    def _end(self) -> int:
        return self._from + self._buffer.shape[1]

    def _drop(self, before: int) -> None:
        count = min(max(0, before - self._from), self._buffer.shape[1])
        self._buffer, self._from = self._buffer[:, count:], self._from + count

    def _block(self, start: int, stop: int, last: bool) -> Piece:
        mixture = self._buffer[:, start - self._from : stop - self._from]
        estimates, logits = run_voices(self.network, self.device, mixture, self.prepared)
        done, overlap, half = self._start - start, self.grid.overlap, self.grid.overlap // 2
        broken = [False] * self.shape[0]
        if self._tail is not None:
            estimates = estimates[..., done:]
            broken = [self._fade_in(self._tail[i], one, mixture[:, done:]) for i, one in enumerate(estimates)]
        count = estimates.shape[-1] if last else self.grid.step
        if logits is not None:  # each frame is told by the block in which it lies deeper
            begin = (done + half) // self.grid.stride if self._tail is not None else 0
            logits = logits[..., begin:] if last else logits[..., begin : (self.grid.step + half) // self.grid.stride]
        tail = np.zeros((*self.shape, 0), np.float32) if last else estimates[..., -overlap:].copy()
        piece = Piece(self._index, mixture[:, done : done + count], estimates[..., :count], tail, logits, last, broken)
        self._index, self._tail = self._index + 1, tail
        return piece

    def _fade_in(self, tail: NDArray[np.float32], estimate: NDArray[np.float32], mixture: NDArray[np.float32]) -> bool:
        """Bring a block `[channels, samples]` to the level of the one before, fade over; whether the voice broke.

        A level that the network learned stays as it is.
        """
        overlap = self.grid.overlap
        joint = join(tail, estimate[:, :overlap], mixture[:, :overlap])
        if joint.gain != 1.0 and self.network.level == "fitted":
            estimate *= np.float32(joint.gain)
        estimate[:, :overlap] = tail + (estimate[:, :overlap] - tail) * self._rise
        return joint.agrees is False


def run_voices(
    network: TargetSpeakerExtractor,
    device: str | torch.device,
    mixture: NDArray[np.float32],
    prepared: Sequence[dict[str, torch.Tensor]],
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """The network on each channel, for each voice; a channel that is silent, or constant, is silent in the result.

    Args:
        network: in evaluation mode.
        device: on which it, and what is prepared, is.
        mixture: `[channels, samples]` at the network's rate.
        prepared: of each voice.

    Returns:
        Estimates `[voices, channels, samples]` at any level; presence logits `[voices, channels, frames]` or `None`.
    """
    estimates = np.zeros((len(prepared), *mixture.shape), dtype=np.float32)
    found: dict[tuple[int, int], NDArray[np.float32]] = {}
    for channel, samples in enumerate(mixture):
        if is_constant(samples):
            continue
        batch = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))[None].to(device)
        for voice, kept in enumerate(prepared):
            with torch.inference_mode():
                output = network.extract(batch, kept)
            estimates[voice, channel] = output.waveforms[0][0].float().cpu().numpy()
            if output.presence_logits is not None:
                found[voice, channel] = output.presence_logits[0].float().cpu().numpy()
    if not found and getattr(network, "presence", None) is None:
        return estimates, None
    frames = len(next(iter(found.values()))) if found else num_frames(network, mixture.shape[1])
    logits = np.full((*estimates.shape[:2], frames), SILENT, dtype=np.float32)
    for place, values in found.items():
        logits[place] = values
    return estimates, logits


def is_constant(samples: NDArray[np.float32]) -> bool:
    """True if all samples are alike: nobody speaks in silence, nor in a constant."""
    return bool(samples.min() == samples.max())


def num_frames(network: TargetSpeakerExtractor, num_samples: int) -> int:
    """Frames of that many samples."""
    return int(network.backbone.num_frames(torch.tensor(num_samples)))
