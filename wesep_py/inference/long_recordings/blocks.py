"""Long recordings in overlapping blocks: one block at a time, cross-faded into one result. Needs NumPy only.

- `Blocks`, `BlockGrid`: lengths of blocks in seconds, and in samples on the network's frames.
- `extract_channels`: the network on every channel of one block, for every voice.
- `match_blocks`: gain between two estimates of the same samples, and whether they are of one voice.
- `BlockRunner`: takes samples as they come, returns finished parts of the result, in the memory of one block.

The network is a function: `wesep_py.inference.long_recordings.overlap_add` has it in torch, `wesep_py.runtime` in ONNX.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wesep_py.inference.presence_decision.presence import SILENT_LOGIT

Estimates = tuple[NDArray[np.float32], NDArray[np.float32] | None]
"""Estimates `[voices, channels, samples]` at any level; presence logits `[voices, channels, frames]` or `None`."""

# Two estimates are of the same voice if the cosine between them, over the overlap, is at least this.
MIN_COSINE = 0.5
# An estimate with less than this share of the mixture's energy in the overlap holds no speech to compare.
SILENT_SHARE = 1e-3
# One estimate speaks and the other is silent, if its energy is more than this many times that limit.
SPEAKING_FACTOR = 30
# The levels of two blocks are matched if they differ by more than this, and the cosine is above that. Smaller steps
# are errors of the estimate; to correct each of them would add up to a drift.
MIN_STEP_DB, MATCHING_COSINE = 1.0, 0.9
# About the length of the frames whose energies are stored, in seconds.
ENERGY_FRAME_S = 0.02


@dataclass(frozen=True)
class Blocks:
    """Lengths of blocks and their overlaps, in seconds.

    Attributes:
        block_s: length of a block; a shorter recording is extracted whole.
        overlap_s: overlap of two blocks.
        fade_s: cross-fade, in the middle of the overlap. The estimates between the cross-fade and the ends of the two
            blocks are discarded, because they were computed with little context.

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
        """Return blocks of a length in seconds, which overlap by a quarter of it, or by 4 s if that is less.

        Raises:
            ValueError: less than 2 s.

        >>> Blocks.of(30.0), Blocks.of(8.0)
        (Blocks(block_s=30.0, overlap_s=4.0, fade_s=2.0), Blocks(block_s=8.0, overlap_s=2.0, fade_s=1.0))
        """
        if not block_s >= 2:
            raise ValueError(f"block_s is {block_s:g} s; 2 s or more are needed to recognise a voice")
        overlap_s = min(4.0, block_s / 4)
        return cls(block_s, overlap_s, overlap_s / 2)

    def grid(self, sample_rate: int, stride: int) -> BlockGrid:
        """Return the lengths in samples, rounded to whole frames of a network.

        Args:
            sample_rate: of the network, in Hz.
            stride: samples from one frame of the network to the next.
        """
        frame = stride * max(1, round(ENERGY_FRAME_S * sample_rate / stride))
        # An even number of frames, because presence logits are cut in the middle of the overlap.
        overlap = 2 * frame * max(1, math.ceil(self.overlap_s * sample_rate / (2 * frame)))
        step = frame * max(overlap // frame, round((self.block_s * sample_rate - overlap) / frame))
        return BlockGrid(step, overlap, min(overlap, round(self.fade_s * sample_rate)), stride, frame)


@dataclass(frozen=True)
class BlockGrid:
    """Lengths of blocks in samples.

    ```
    block 0  |------- step -------|--overlap--|
    block 1                       |------- step -------|--overlap--|
    block 2                                            |------- step -------|--overlap--|
    ```

    Attributes:
        step: from the start of a block to the start of the next; also the length that each block adds to the result.
        overlap: of two blocks.
        fade: length of the cross-fade in the middle of the overlap.
        stride: of the network's frames.
        frame: length of the frames whose energies are stored, a whole number of strides.
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
        """Return the weight `[overlap]` of the later block, from 0 to 1; the earlier block has 1 minus it."""
        # 0 0 0 / 1 1 1: a raised cosine of `fade` samples in the middle of the overlap.
        before = (self.overlap - self.fade) // 2
        ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(self.fade) + 0.5) / self.fade)
        after = np.ones(self.overlap - self.fade - before)
        return np.concatenate([np.zeros(before), ramp, after]).astype(np.float32)


@dataclass(frozen=True)
class BlockMatch:
    """Comparison of two blocks where they overlap.

    Attributes:
        gain: factor that brings the later block to the level and polarity of the earlier; negative if it is inverted.
        agrees: true if both hold the same voice; `None` if neither holds speech to compare.
    """

    gain: float
    agrees: bool | None


def match_blocks(earlier: NDArray[np.float32], later: NDArray[np.float32], mixture: NDArray[np.float32]) -> BlockMatch:
    """Compare two estimates of the same samples, `[channels, samples]` each, and the mixture of the same shape.

    A network that was trained with scale-invariant losses may return another level, or polarity, for every block. If
    both blocks hold the same voice, their sign is matched always, and their level if it differs by more than 1 dB, so
    that small errors do not add up to a drift.

    >>> rng = np.random.default_rng(0)
    >>> voice = rng.standard_normal((1, 1000)).astype(np.float32)
    >>> round(match_blocks(voice, -0.5 * voice, voice).gain, 3), match_blocks(voice, 0.95 * voice, voice).gain
    (-2.0, 1.0)
    """
    a, b, m = (waveform.astype(np.float64) for waveform in (earlier, later, mixture))
    energies, silent = ((a**2).sum(), (b**2).sum()), SILENT_SHARE * (m**2).sum()
    if min(energies) <= silent or min(energies) <= 0.0:
        # At most one estimate speaks. If it clearly does, the other must be of another voice.
        return BlockMatch(1.0, False if max(energies) > SPEAKING_FACTOR * silent > 0 else None)
    cosine = (a * b).sum() / math.sqrt(energies[0] * energies[1])
    if abs(cosine) < MIN_COSINE:
        return BlockMatch(1.0, False)
    # If b = g·a + noise with little noise, sqrt(|a|² / |b|²) is 1 / |g|; the cosine's sign is that of g.
    ratio = math.sqrt(energies[0] / energies[1])
    size = ratio if abs(20 * math.log10(ratio)) > MIN_STEP_DB and abs(cosine) > MATCHING_COSINE else 1.0
    return BlockMatch(math.copysign(size, cosine), True)


@dataclass
class BlockOutput:
    """Part of the result that one block finishes, for each voice.

    Attributes:
        index: of the block, from 0.
        mixture: `[channels, samples]` at the network's rate: the samples that are finished.
        estimates: `[voices, channels, samples]` of these samples, at any level.
        tail: `[voices, channels, overlap]`: estimates that the next block is cross-faded with.
        logits: `[voices, channels, frames]` of the presence head; `None` if the network has none.
        last: true for the last block.
        voice_changed: for each voice, true if the block may hold another voice than the block before.
    """

    index: int
    mixture: NDArray[np.float32]
    estimates: NDArray[np.float32]
    tail: NDArray[np.float32]
    logits: NDArray[np.float32] | None
    last: bool
    voice_changed: list[bool]


class BlockRunner:
    """Run a network on overlapping blocks of a recording and cross-fade them.

    A block is computed when all its samples are there and one more: so the last block is known to be the last. The last
    block starts earlier than the grid says, so that it is a whole block too.

    Args:
        run: the network on a block `[channels, samples]`, for all voices.
        grid: lengths in samples.
        num_voices, num_channels: of the estimates.
        match_levels: whether to bring each block to the level and polarity of the one before: for a network that did
            not learn the level.

    >>> def half(block):
    ...     return 0.5 * block[None], None
    >>> runner = BlockRunner(half, Blocks().grid(16000, 128), num_voices=1, num_channels=1, match_levels=False)
    >>> outputs = [*runner.push(np.ones((1, 40 * 16000), np.float32)), *runner.finish()]
    >>> [output.estimates.shape[-1] / 16000 for output in outputs]
    [26.0, 14.0]
    """

    def __init__(
        self,
        run: Callable[[NDArray[np.float32]], Estimates],
        grid: BlockGrid,
        num_voices: int,
        num_channels: int,
        match_levels: bool,
    ) -> None:
        self._run, self.grid, self._match_levels = run, grid, match_levels
        self.shape = (num_voices, num_channels)
        # Samples of the mixture from number `_buffer_start` on, and the number of the next block.
        self._buffer, self._buffer_start = np.zeros((num_channels, 0), np.float32), 0
        self._index = 0
        self._tail: NDArray[np.float32] | None = None
        self._rise = grid.rise()

    def push(self, samples: NDArray[np.float32]) -> Iterator[BlockOutput]:
        """Take the next samples `[channels, samples]` at the network's rate; yield the blocks that they complete."""
        self._buffer = np.concatenate([self._buffer, samples], axis=1)
        # One step more than the next block needs is kept: the last block may start earlier.
        self._drop(self._start - self.grid.step)
        while self._end > self._start + self.grid.block:
            yield self._run_block(self._start, self._start + self.grid.block, last=False)
            self._drop(self._start - self.grid.step)

    def finish(self) -> Iterator[BlockOutput]:
        """Yield the last block, after all samples were pushed."""
        if self._end == 0:
            return
        whole_block_start = max(0, self._end - self.grid.block) // self.grid.stride * self.grid.stride
        yield self._run_block(min(self._start, max(whole_block_start, self._buffer_start)), self._end, last=True)

    def resume(self, index: int, tail: NDArray[np.float32]) -> None:
        """Continue after the block `index`, which had this tail; samples are pushed from the first one nevertheless."""
        self._index, self._tail = index + 1, tail

    def state(self) -> Any:
        """Return what `resume` needs beside the tail: nothing."""
        return None

    @property
    def _start(self) -> int:
        return self._index * self.grid.step

    @property
    def _end(self) -> int:
        return self._buffer_start + self._buffer.shape[1]

    def _drop(self, before: int) -> None:
        """Drop the buffered samples before the sample with that number."""
        count = min(max(0, before - self._buffer_start), self._buffer.shape[1])
        self._buffer, self._buffer_start = self._buffer[:, count:], self._buffer_start + count

    def _run_block(self, start: int, stop: int, last: bool) -> BlockOutput:
        # The samples of a block, and what becomes of their estimates:
        #
        #   start       self._start      + overlap             + step            stop
        #     |-- skipped --|== cross-fade ==|== as computed ====|---- tail ------|
        #                   |<------- finished by this block --->|
        #
        # Only the last block starts before self._start; the samples before it have been finished already. It has no
        # tail, and finishes all that is left.
        mixture = self._buffer[:, start - self._buffer_start : stop - self._buffer_start]
        estimates, logits = self._run(mixture)
        skipped, overlap, half = self._start - start, self.grid.overlap, self.grid.overlap // 2
        voice_changed = [False] * self.shape[0]
        if self._tail is not None:
            estimates = estimates[..., skipped:]
            voice_changed = [
                self._cross_fade(self._tail[voice], estimate, mixture[:, skipped:])
                for voice, estimate in enumerate(estimates)
            ]
        count = estimates.shape[-1] if last else self.grid.step
        if logits is not None:
            # Logits are not cross-faded: two blocks meet in the middle of their overlap, so that every frame comes from
            # the block with more context around it.
            first = (skipped + half) // self.grid.stride if self._tail is not None else 0
            logits = logits[..., first:] if last else logits[..., first : (self.grid.step + half) // self.grid.stride]
        tail = np.zeros((*self.shape, 0), np.float32) if last else estimates[..., -overlap:].copy()
        output = BlockOutput(
            self._index,
            mixture[:, skipped : skipped + count],
            estimates[..., :count],
            tail,
            logits,
            last,
            voice_changed,
        )
        self._index, self._tail = self._index + 1, tail
        return output

    def _cross_fade(
        self, tail: NDArray[np.float32], estimate: NDArray[np.float32], mixture: NDArray[np.float32]
    ) -> bool:
        """Match a block `[channels, samples]` to the tail of the block before and cross-fade it, in place.

        The whole block is scaled, so that later blocks are matched to the same level. A level that the network learned
        is left as it is.

        Returns:
            True if the two seem to hold different voices.
        """
        overlap = self.grid.overlap
        match = match_blocks(tail, estimate[:, :overlap], mixture[:, :overlap])
        if match.gain != 1.0 and self._match_levels:
            estimate *= np.float32(match.gain)
        estimate[:, :overlap] = tail + (estimate[:, :overlap] - tail) * self._rise
        return match.agrees is False


def extract_channels(
    mixture: NDArray[np.float32],
    num_voices: int,
    extract: Callable[[NDArray[np.float32], int], tuple[NDArray[np.float32], NDArray[np.float32] | None]],
    num_frames: int | None,
) -> Estimates:
    """Run a network on each channel, for each voice; a channel that is silent or constant gives silence.

    Args:
        mixture: `[channels, samples]` at the network's rate.
        num_voices: number of voices.
        extract: the network: samples `[samples]` and the index of a voice → estimate `[samples]`, and presence logits
            `[frames]` or `None`.
        num_frames: of the mixture; `None` for a network without a presence head.
    """
    estimates = np.zeros((num_voices, *mixture.shape), dtype=np.float32)
    tracks: dict[tuple[int, int], NDArray[np.float32]] = {}
    for channel, samples in enumerate(mixture):
        if is_constant(samples):
            continue
        for voice in range(num_voices):
            estimates[voice, channel], track = extract(samples, voice)
            if track is not None:
                tracks[voice, channel] = track
    frames = len(next(iter(tracks.values()))) if tracks else num_frames
    if frames is None:
        return estimates, None
    logits = np.full((num_voices, len(mixture), frames), SILENT_LOGIT, dtype=np.float32)
    for voice_and_channel, track in tracks.items():
        logits[voice_and_channel] = track
    return estimates, logits


def is_constant(samples: NDArray[np.float32]) -> bool:
    """Return whether all samples are equal, as in digital silence: nobody speaks there."""
    return bool(samples.min() == samples.max())
