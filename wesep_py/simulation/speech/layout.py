"""When each source of a mixture speaks: its place on the mixture's time axis."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np


class Slot(NamedTuple):
    """From sample `offset` of the mixture on, `num_samples` long."""

    offset: int
    num_samples: int


def fixed_layout(
    overlap: str,
    count: int,
    num_samples: int,
    overlap_ratio: float,
    min_samples: int,
    rng: np.random.Generator,
) -> list[Slot]:
    """Slots for `count` sources in a mixture of a given length.

    Args:
        overlap: `full`: each fills the mixture; `longest`: one, drawn, fills it, the others have a length
            drawn between `min_samples` and all, and a place drawn; `partial`: equally long slots one after
            the other.
        count: number of sources.
        num_samples: length of the mixture.
        overlap_ratio: for `partial`: overlapped length / length of a slot, 0 to 1.
        min_samples: shortest slot for `longest`.
        rng: what is drawn comes from here.

    >>> fixed_layout("partial", 2, 300, 0.5, 1, np.random.default_rng(0))
    [Slot(offset=0, num_samples=200), Slot(offset=100, num_samples=200)]
    """
    if count == 1 or overlap == "full":
        return [Slot(0, num_samples)] * count
    if overlap == "longest":
        longest = int(rng.integers(count))
        slots = []
        for source in range(count):
            length = num_samples if source == longest else int(rng.integers(min_samples, num_samples + 1))
            slots.append(Slot(int(rng.integers(num_samples - length + 1)), length))
        return slots
    # Slots of length L whose neighbours share r L fill the mixture: L (count - (count - 1) r) = num_samples.
    length = num_samples / (count - (count - 1) * overlap_ratio)
    starts = [round(source * length * (1 - overlap_ratio)) for source in range(count)]
    return [Slot(start, min(round(length), num_samples - start)) for start in starts]


def whole_layout(overlap: str, lengths: Sequence[int], overlap_ratio: float) -> tuple[list[Slot], int]:
    """Slots for sources of given lengths, and the length of the mixture that they make.

    Args:
        overlap: `full`: all cut to the shortest; `longest`: all begin together, the mixture ends with the
            longest; `partial`: each begins before the one before ends.
        lengths: number of samples of each source.
        overlap_ratio: for `partial`: overlapped length / length of the shorter of two neighbours.

    >>> whole_layout("longest", [50, 80], 0.0)
    ([Slot(offset=0, num_samples=50), Slot(offset=0, num_samples=80)], 80)
    """
    if overlap == "full":
        return [Slot(0, min(lengths))] * len(lengths), min(lengths)
    if overlap == "longest":
        return [Slot(0, length) for length in lengths], max(lengths)
    slots = [Slot(0, lengths[0])]
    for before, length in pairwise(lengths):
        end = slots[-1].offset + before
        slots.append(Slot(end - round(overlap_ratio * min(before, length)), length))
    return slots, max(slot.offset + slot.num_samples for slot in slots)
