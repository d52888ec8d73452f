"""A recording that comes in pieces through a network in blocks: any length, in the memory of one block."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from wesep_py.inference.presence import SILENT_LOGIT

if TYPE_CHECKING:
    from wesep_py.inference.voice_print import Voice
    from wesep_py.network.extraction_network import TargetSpeakerExtractor


# ----------------------------------------
# How a long recording is cut into blocks that overlap, and how what comes out of them is joined.

# Two estimates of one voice agree where they overlap, at least so much (the cosine between them).
SAME_VOICE = 0.5
# Below this part of the mixture's energy in the overlap nothing is said of the agreement: nobody speaks.
HEARD = 1e-3
# A step in level from one block to the next is taken back where it is more than this.
STEP_DB = 1.0
# Frames of which the energies are kept, in seconds, about.
FRAME_S = 0.02


@dataclass(frozen=True)
class Blocks:
    """The lengths of blocks and their overlaps, in seconds.

    Attributes:
        block_s: what is extracted at a time; a shorter recording is extracted whole.
        overlap_s: of a block with the one before.
        fade_s: the cross-fade, in the middle of the overlap; what lies between it and the ends of the two blocks is
            computed with little context, and thrown away.

    Raises:
        ValueError: not `0 < fade_s <= overlap_s <= block_s / 2`.
    """

    block_s: float = 30.0
    overlap_s: float = 4.0
    fade_s: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.fade_s <= self.overlap_s <= self.block_s / 2:
            raise ValueError(
                f"blocks: {self.block_s:g} s with {self.overlap_s:g} s of overlap and {self.fade_s:g} s of cross-fade; "
                "a cross-fade above 0 within the overlap, and an overlap of at most half a block, are allowed"
            )

    @classmethod
    def of(cls, block_s: float) -> Blocks:
        """Blocks of so many seconds; short ones overlap less.

        Raises:
            ValueError: less than 2 s.

        >>> Blocks.of(30.0), Blocks.of(8.0)
        (Blocks(block_s=30.0, overlap_s=4.0, fade_s=2.0), Blocks(block_s=8.0, overlap_s=2.0, fade_s=1.0))
        """
        if not block_s >= 2:
            raise ValueError(f"blocks of {block_s:g} s: too short to know a voice in; 2 s or more are allowed")
        overlap_s = min(4.0, block_s / 4)
        return cls(block_s, overlap_s, overlap_s / 2)

    def grid(self, sample_rate: int, stride: int) -> BlockGrid:
        """The same in samples, on the frames of a network.

        Args:
            sample_rate: of the network, in Hz.
            stride: samples between its frames.
        """
        frame = stride * max(1, round(FRAME_S * sample_rate / stride))
        overlap = 2 * frame * max(1, math.ceil(self.overlap_s * sample_rate / (2 * frame)))
        step = frame * max(overlap // frame, round((self.block_s * sample_rate - overlap) / frame))
        return BlockGrid(step, overlap, min(overlap, round(self.fade_s * sample_rate)), stride, frame)


@dataclass(frozen=True)
class BlockGrid:
    """Lengths in samples, whole numbers of frames.

    Attributes:
        step: from the beginning of a block to that of the next, and what each of them adds to the result.
        overlap: of two blocks.
        fade: of this the cross-fade.
        stride: of the network's frames.
        frame: of which the energies are kept.
    """

    step: int
    overlap: int
    fade: int
    stride: int
    frame: int

    @property
    def block(self) -> int:
        """Length of a block."""
        return self.step + self.overlap

    def rise(self) -> NDArray[np.float32]:
        """`[overlap]`: the weight of the later block, from 0 to 1; that of the earlier one is the rest."""
        before = (self.overlap - self.fade) // 2
        ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(self.fade) + 0.5) / self.fade)
        after = np.ones(self.overlap - self.fade - before)
        return np.concatenate([np.zeros(before), ramp, after]).astype(np.float32)


@dataclass(frozen=True)
class BlockMatch:
    """How two blocks fit where they overlap.

    Attributes:
        gain: by which the later one is multiplied to go on from the earlier: −1 for one turned around.
        agrees: whether both hold the same voice; `None` where neither holds one to judge by.
    """

    gain: float
    agrees: bool | None


def match_blocks(earlier: NDArray[np.float32], later: NDArray[np.float32], mixture: NDArray[np.float32]) -> BlockMatch:
    """Compare two estimates of one stretch, `[channels, samples]` each, in a mixture of the same shape.

    A network trained for scale-invariant measures may return another level, or polarity, for every block. Where both
    blocks agree but for a factor, the factor is taken out: its sign always, its size beyond a step of 1 dB, so that
    small errors do not add up to a drift.

    >>> rng = np.random.default_rng(0)
    >>> voice = rng.standard_normal((1, 1000)).astype(np.float32)
    >>> round(join(voice, -0.5 * voice, voice).gain, 3), join(voice, 0.95 * voice, voice).gain
    (-2.0, 1.0)
    """
    a, b, m = (one.astype(np.float64) for one in (earlier, later, mixture))
    energies, least = ((a**2).sum(), (b**2).sum()), HEARD * (m**2).sum()
    if min(energies) <= least or min(energies) <= 0.0:
        # One speaks and the other does not: another voice, unless it is next to nothing anyway.
        return BlockMatch(1.0, False if max(energies) > 30 * least > 0 else None)
    product = (a * b).sum()
    cosine = product / math.sqrt(energies[0] * energies[1])
    if abs(cosine) < SAME_VOICE:
        return BlockMatch(1.0, False)
    ratio = math.sqrt(energies[0] / energies[1])
    size = ratio if abs(20 * math.log10(ratio)) > STEP_DB and abs(cosine) > 0.9 else 1.0
    return BlockMatch(math.copysign(size, cosine), True)


@dataclass
class BlockOutput:
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


class OverlapAddRunner:
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
        grid: BlockGrid,
        num_channels: int,
    ) -> None:
        self.network, self.device, self.grid = network, device, grid
        self.prepared = [{key: tensor.to(device) for key, tensor in voice.tensors.items()} for voice in voices]
        self.shape = (len(voices), num_channels)
        self._buffer, self._from = np.zeros((num_channels, 0), np.float32), 0
        self._index = 0
        self._tail: NDArray[np.float32] | None = None
        self._rise = grid.rise()

    def push(self, samples: NDArray[np.float32]) -> Iterator[BlockOutput]:
        """The next samples `[channels, samples]` at the network's rate, and the pieces that they complete."""
        self._buffer = np.concatenate([self._buffer, samples], axis=1)
        # What the last block may need to be a whole one is kept.
        self._drop(self._start - self.grid.step)
        while self._end > self._start + self.grid.block:
            yield self._block(self._start, self._start + self.grid.block, last=False)
            self._drop(self._start - self.grid.step)

    def finish(self) -> Iterator[BlockOutput]:
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

    def _block(self, start: int, stop: int, last: bool) -> BlockOutput:
        mixture = self._buffer[:, start - self._from : stop - self._from]
        estimates, logits = run_network(self.network, self.device, mixture, self.prepared)
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
        piece = BlockOutput(
            self._index, mixture[:, done : done + count], estimates[..., :count], tail, logits, last, broken
        )
        self._index, self._tail = self._index + 1, tail
        return piece

    def _fade_in(self, tail: NDArray[np.float32], estimate: NDArray[np.float32], mixture: NDArray[np.float32]) -> bool:
        """Bring a block `[channels, samples]` to the level of the one before, fade over; whether the voice broke.

        A level that the network learned stays as it is.
        """
        overlap = self.grid.overlap
        joint = match_blocks(tail, estimate[:, :overlap], mixture[:, :overlap])
        if joint.gain != 1.0 and self.network.level == "fitted":
            estimate *= np.float32(joint.gain)
        estimate[:, :overlap] = tail + (estimate[:, :overlap] - tail) * self._rise
        return joint.agrees is False


def run_network(
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
    logits = np.full((*estimates.shape[:2], frames), SILENT_LOGIT, dtype=np.float32)
    for place, values in found.items():
        logits[place] = values
    return estimates, logits


def is_constant(samples: NDArray[np.float32]) -> bool:
    """True if all samples are alike: nobody speaks in silence, nor in a constant."""
    return bool(samples.min() == samples.max())


def num_frames(network: TargetSpeakerExtractor, num_samples: int) -> int:
    """Frames of that many samples."""
    return int(network.backbone.num_frames(torch.tensor(num_samples)))
