"""Who speaks when, so that as much overlaps as was asked: worked out on the frames in which each voice is active.

Everything here counts frames of 20 ms, those of `audio.active_mask`: an excerpt that begins at a frame keeps its
activity wherever it is put.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.level import active_mask
from wesep_py.simulation.recipe_parts import Stretch

FRAME_S = 0.02
# How far the overlap ratio that is reached may be from the one that was asked.
TOLERANCE = 0.02

Mask = NDArray[np.bool_]


class Speaking(NamedTuple):
    """A turn: which of the speakers has it, and in which of its frames the voice is active."""

    speaker: int
    active: Mask


def frame_samples(sample_rate: int) -> int:
    """Length of a frame in samples."""
    return max(1, round(FRAME_S * sample_rate))


def frames_of(waveform: NDArray[np.float32], sample_rate: int) -> Mask:
    """Whether a voice is active in each frame: `[samples]` → `[ceil(samples / frame)]`."""
    return active_mask(waveform, sample_rate, frame_s=FRAME_S)[:: frame_samples(sample_rate)]


def whole_frames(stretch: Stretch, frame: int) -> Stretch:
    """The stretch without what is beyond its last whole frame; one of less than a frame as it is."""
    whole = stretch.num_samples // frame * frame
    return replace(stretch, num_samples=whole) if whole else stretch


def neighbours_ratio(one: Mask, other: Mask) -> float:
    """Overlapped active time / active time of the less active of two; both `[frames]` of the mixture."""
    return float(np.sum(one & other) / max(1, min(one.sum(), other.sum())))


def conversation_ratio(active: Sequence[Mask]) -> float:
    """Time in which two or more speak / time in which anybody speaks; each `[frames]` of the mixture.

    >>> conversation_ratio([np.array([1, 1, 1, 0], bool), np.array([0, 0, 1, 1], bool)])
    0.25
    """
    count = np.sum(active, axis=0)
    return float(np.sum(count >= 2) / max(1, np.sum(count >= 1)))


def partial_layout(active: Sequence[Mask], ratio: float) -> list[int] | None:
    """The frames at which the sources begin, each after the one before has begun.

    Args:
        active: of each source, `[frames of its own]`.
        ratio: between neighbours, as `neighbours_ratio`.

    Returns:
        The first at 0; where several beginnings give the ratio the latest. `None` if pauses keep two neighbours further
        than the tolerance from it.

    >>> partial_layout([np.ones(100, bool), np.ones(50, bool)], 0.2)
    [0, 90]
    """
    starts = [0]
    for before, after in pairwise(active):
        shared = _correlate(before, after, before.size + 1)
        reached = shared / max(1, min(before.sum(), after.sum()))
        shift = _latest_nearest(reached, ratio)
        if abs(reached[shift] - ratio) > TOLERANCE:
            return None
        starts.append(starts[-1] + shift)
    return starts


def draw_speakers_of_turns(num_speakers: int, num_turns: int, rng: np.random.Generator) -> list[int]:
    """Whose turn it is: first everybody's, then anybody's but that of whoever spoke last."""
    speakers = list(range(min(num_speakers, num_turns)))
    while len(speakers) < num_turns:
        step = int(rng.integers(1, num_speakers)) if num_speakers > 1 else 0
        speakers.append((speakers[-1] + step) % num_speakers)
    return speakers


def draw_pauses(
    num_turns: int, ratio: float, pause_s: tuple[float, float], rng: np.random.Generator
) -> list[int | None]:
    """Before each turn the length of a pause in frames, or `None` where it may overlap with the one before.

    The share of turns after a pause is 1 - 2 · ratio: all of them where nothing is to overlap, none from a half on.
    """
    share = max(0.0, 1.0 - 2.0 * ratio)
    drawn = [(rng.random(), rng.uniform(*pause_s)) for _ in range(num_turns)]
    return [round(length_s / FRAME_S) if chance < share else None for chance, length_s in drawn]


def place_turns(
    turns: Sequence[Speaking], pauses: Sequence[int | None], ratio: float, num_frames: int | None
) -> list[int] | None:
    """The frames at which turns begin, so that all of them together overlap by the ratio asked.

    A turn without a pause begins where the ratio of what has been said up to its end comes nearest to the one asked,
    never before the turn before, nor while its speaker still speaks. Where the ratio is missed, the last turn does so
    too, whatever its pause.

    Args:
        turns: in their order.
        pauses: before each turn, as `draw_pauses`.
        ratio: as `conversation_ratio`.
        num_frames: length of the mixture; `None`: as long as it takes.

    Returns:
        As many beginnings as there is room for turns; `None` if the ratio is not reached, to the tolerance.
    """
    starts, reached = _place(turns, pauses, ratio, num_frames)
    if starts and abs(reached - ratio) > TOLERANCE:
        fitting = len(starts)
        starts, reached = _place(turns[:fitting], [*pauses[: fitting - 1], None], ratio, num_frames)
    return starts if starts and abs(reached - ratio) <= TOLERANCE else None


def turns_ratio(turns: Sequence[Speaking], starts: Sequence[int]) -> float:
    """The `conversation_ratio` of turns that begin at those frames."""
    active = np.zeros(
        (1 + max(turn.speaker for turn in turns), max(s + t.active.size for s, t in zip(starts, turns, strict=True))),
        dtype=bool,
    )
    for turn, start in zip(turns, starts, strict=True):
        active[turn.speaker, start : start + turn.active.size] |= turn.active
    return conversation_ratio(list(active))


def _place(
    turns: Sequence[Speaking], pauses: Sequence[int | None], ratio: float, num_frames: int | None
) -> tuple[list[int], float]:
    """Beginnings of the turns that have room, and the ratio reached."""
    size = sum(turn.active.size for turn in turns) + sum(pause or 0 for pause in pauses)
    speaking = np.zeros(size, dtype=np.int64)
    free_from: dict[int, int] = {}
    starts: list[int] = []
    end, reached = 0, 0.0
    for turn, pause in zip(turns, pauses, strict=True):
        start = end if pause is None else end + pause
        earliest = max(starts[-1] + 1 if starts else 0, free_from.get(turn.speaker, 0))
        if pause is None and earliest < end:
            offered = _ratios(speaking[earliest:end], speaking, turn.active)
            start = earliest + _latest_nearest(offered, ratio)
        start = start if starts else 0
        if num_frames is not None and start + turn.active.size > num_frames:
            break
        speaking[start : start + turn.active.size] += turn.active
        starts.append(start)
        free_from[turn.speaker] = start + turn.active.size
        end = max(end, start + turn.active.size)
        reached = float(np.sum(speaking >= 2) / max(1, np.sum(speaking >= 1)))
    return starts, reached


def _ratios(window: NDArray[np.int64], speaking: NDArray[np.int64], active: Mask) -> NDArray[np.float64]:
    """The ratio that there would be, for each beginning in the window and for one right after it."""
    num_starts = window.size + 1
    overlapped = np.sum(speaking >= 2) + _correlate(window == 1, active, num_starts)
    anybody = np.sum(speaking >= 1) + active.sum() - _correlate(window >= 1, active, num_starts)
    return overlapped / np.maximum(1, anybody)


def _correlate(before: Mask, after: Mask, num_starts: int) -> NDArray[np.float64]:
    """In how many frames both are active, where `after` begins at frame 0, 1, …, num_starts - 1 of `before`."""
    padded = np.concatenate([before, np.zeros(num_starts + after.size - 1 - before.size, dtype=bool)])
    return np.rint(np.correlate(padded.astype(np.float64), after.astype(np.float64), "valid"))


def _latest_nearest(values: NDArray[np.float64], wanted: float) -> int:
    """The last position of the value that is nearest to the one wanted."""
    errors = np.abs(values - wanted)
    return int(values.size - 1 - np.argmin(errors[::-1]))
