"""What the numbers of a recipe are allowed to be, looked at before anything is allocated for them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from wesep_py.simulation.recipe_parts import BankRoomRecipe, NoiseRecipe, RoomRecipe, SourceRecipe

RATES_HZ = (1, 768_000)
LONGEST_S = 24 * 3600.0
ALWAYS_S = 3600.0
"""A mixture may be that long whatever is said in it; a longer one up to `MOST_OF_SPEECH` times what is."""
MOST_OF_SPEECH = 20
LONGEST_RT60_S = 60.0
MOST_REFLECTIONS = 10_000_000


def check_sizes(
    sample_rate: int,
    num_samples: int,
    sources: Sequence[SourceRecipe],
    noises: Sequence[NoiseRecipe],
    room: RoomRecipe | BankRoomRecipe | None,
) -> None:
    """Refuse a recipe whose sizes no mixture has.

    Raises:
        ValueError: in one line, which begins with the name of the value.
    """
    if not RATES_HZ[0] <= sample_rate <= RATES_HZ[1]:
        raise ValueError(f"sample_rate: is {_short(sample_rate)}; {RATES_HZ[0]} to {RATES_HZ[1]} Hz are allowed")
    if num_samples < 0:
        raise ValueError(f"num_samples: is {_short(num_samples)}; 0 or more are needed")
    turns = [turn for source in sources for turn in source.placed]
    speech = sum(turn.excerpt.num_samples for turn in turns)
    longest = min(LONGEST_S * sample_rate, max(ALWAYS_S * sample_rate, MOST_OF_SPEECH * speech))
    if num_samples > longest:
        raise ValueError(
            f"num_samples: is {_short(num_samples)}; its sources say {speech / sample_rate:.1f} s, and at most "
            f"{longest / sample_rate:.0f} s ({longest:.0f} samples) are allowed"
        )
    for turn in turns:
        if not 0 <= turn.offset <= turn.offset + turn.excerpt.num_samples <= num_samples:
            raise ValueError(
                f"offset: {turn.excerpt.utterance.utterance_id!r} is placed from sample {_short(turn.offset)} to "
                f"{_short(turn.offset + turn.excerpt.num_samples)}; the mixture has {num_samples}"
            )
    for stretch in (stretch for noise in noises for stretch in noise.stretches):
        if stretch.num_samples != num_samples:
            raise ValueError(
                f"noise: a stretch has {_short(stretch.num_samples)} samples; the mixture's {num_samples} are needed"
            )
    if isinstance(room, RoomRecipe):
        _check_room(room)


def _check_room(room: RoomRecipe) -> None:
    if not 0 <= room.rt60_s <= LONGEST_RT60_S:
        raise ValueError(f"room.rt60_s: is {room.rt60_s}; 0 to {LONGEST_RT60_S:g} s are allowed")
    if not 0 <= room.num_reflections <= MOST_REFLECTIONS:
        raise ValueError(
            f"room.num_reflections: is {_short(room.num_reflections)}; 0 to {MOST_REFLECTIONS} are allowed"
        )
    if not all(map(math.isfinite, (*room.size_m, *room.microphone_m, *(x for point in room.sources_m for x in point)))):
        raise ValueError("room: a size or a place is not finite; give metres")


def _short(number: int) -> str:
    """A whole number, also one of thousands of digits, in a few characters."""
    return str(number) if abs(number) < 10**15 else f"a number of {len(str(number))} digits"
