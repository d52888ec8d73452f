"""How a long recording is cut into blocks that overlap, and how what comes out of them is joined."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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

    def grid(self, sample_rate: int, stride: int) -> Grid:
        """The same in samples, on the frames of a network.

        Args:
            sample_rate: of the network, in Hz.
            stride: samples between its frames.
        """
        frame = stride * max(1, round(FRAME_S * sample_rate / stride))
        overlap = 2 * frame * max(1, math.ceil(self.overlap_s * sample_rate / (2 * frame)))
        step = frame * max(overlap // frame, round((self.block_s * sample_rate - overlap) / frame))
        return Grid(step, overlap, min(overlap, round(self.fade_s * sample_rate)), stride, frame)


@dataclass(frozen=True)
class Grid:
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
class Joint:
    """How two blocks fit where they overlap.

    Attributes:
        gain: by which the later one is multiplied to go on from the earlier: −1 for one turned around.
        agrees: whether both hold the same voice; `None` where neither holds one to judge by.
    """

    gain: float
    agrees: bool | None


def join(earlier: NDArray[np.float32], later: NDArray[np.float32], mixture: NDArray[np.float32]) -> Joint:
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
        return Joint(1.0, False if max(energies) > 30 * least > 0 else None)
    product = (a * b).sum()
    cosine = product / math.sqrt(energies[0] * energies[1])
    if abs(cosine) < SAME_VOICE:
        return Joint(1.0, False)
    ratio = math.sqrt(energies[0] / energies[1])
    size = ratio if abs(20 * math.log10(ratio)) > STEP_DB and abs(cosine) > 0.9 else 1.0
    return Joint(math.copysign(size, cosine), True)
