"""Overlap on frames of activity: conversations with several turns per speaker, and partial overlap by activity.

All positions here count frames of 20 ms, those of `audio.level.active_mask`. A segment that begins at a frame boundary
has the same active frames wherever it is placed, so activity is measured once and the overlap of every placement is a
matter of shifting masks:

    speaker 0   ■■■□■■■■
    speaker 1        ■■■■■□■      starts at frame 5: 3 frames overlap, 12 are active, ratio 3 / 12

`place_conversation` draws a whole conversation; below it are the functions on masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.level import active_mask
from wesep_py.simulation.description.recipe import (
    SourceRecipe,
    Turn,
    UnusableDraw,
    UtteranceSegment,
    read_segment,
    recipe_gain,
)
from wesep_py.simulation.speech.speaker_pool import SpeakerPool

FRAME_S = 0.02
# Largest difference between the overlap ratio that is reached and the one that was drawn.
OVERLAP_TOLERANCE = 0.02
# The first turns of all speakers together take at most this share of a conversation of a given length.
FIRST_TURNS_SHARE = 0.7
MAX_TURNS = 64
Mask = NDArray[np.bool_]


class ActiveTurn(NamedTuple):
    """Turn of a conversation: number of its speaker, and whether each of its frames is active."""

    speaker: int
    active: Mask


def place_conversation(
    pool: SpeakerPool, speaker_ids: Sequence[str], ratio: float, num_samples: int | None, rng: np.random.Generator
) -> tuple[list[SourceRecipe], int]:
    """Draw a conversation: its sources with all of their turns, and its length in samples.

    Args:
        pool: draws the segments of the speakers; holds the configuration.
        speaker_ids: the speakers.
        ratio: desired overlap, see `conversation_overlap_ratio`.
        num_samples: length of the conversation; `None`: as long as the turns take.
        rng: random numbers.

    Raises:
        UnusableDraw: a segment is silent, a speaker has no turn, or the ratio is not reached.
    """
    config, rate = pool.config.conversation, pool.reader.sample_rate
    frame = frame_samples(rate)
    lengths = _draw_turn_lengths(pool, len(speaker_ids), ratio, num_samples, rng)
    order = draw_speakers_of_turns(len(speaker_ids), len(lengths), rng)
    pauses = draw_pauses(len(lengths), ratio, config.pause_s, rng)
    turns_of, enrollments_of = [], []
    for speaker, speaker_id in enumerate(speaker_ids):
        turn_lengths = [length for length, whose in zip(lengths, order, strict=True) if whose == speaker]
        segments, enrollments = pool.draw_turns(speaker_id, turn_lengths, rng)
        turns_of.append(iter(_with_equal_levels(pool, [whole_frames(segment, frame) for segment in segments])))
        enrollments_of.append(enrollments)
    # A speaker may have fewer turns than were drawn, because silent ones are left out: later positions are skipped.
    turns = [(whose, segment) for whose in order if (segment := next(turns_of[whose], None)) is not None]
    num_frames = None if num_samples is None else num_samples // frame
    starts = place_turns(_with_activity(pool, turns), pauses[: len(turns)], ratio, num_frames)
    if starts is None or len(starts) < len(speaker_ids):
        raise UnusableDraw(f"with an overlap of {ratio:.2f}, not every speaker has a turn that fits")
    # Turns that do not fit are left out. Without them the loudest turn of a speaker may be another one, and with it the
    # threshold of activity: the ratio is checked again.
    turns = turns[: len(starts)]
    if abs(turns_ratio(_with_activity(pool, turns), starts) - ratio) > OVERLAP_TOLERANCE:
        raise UnusableDraw(f"without the turns that do not fit, the overlap of {ratio:.2f} is not reached")
    sources = []
    for speaker, enrollments in enumerate(enrollments_of):
        placed = zip(turns, starts, strict=True)
        first, *others = (Turn(segment, start * frame) for (whose, segment), start in placed if whose == speaker)
        sources.append(SourceRecipe(first.excerpt, first.offset, enrollments, tuple(others)))
    length = max(turn.offset + turn.excerpt.num_samples for source in sources for turn in source.placed)
    return sources, length if num_samples is None else num_samples


def _with_activity(pool: SpeakerPool, turns: Sequence[tuple[int, UtteranceSegment]]) -> list[ActiveTurn]:
    """Return the turns with their active frames.

    Activity is relative to the loudest frame of all turns of a speaker, as it will be in the mixture: the turns of each
    speaker are joined, measured, and cut apart again.
    """
    rate, frame = pool.reader.sample_rate, frame_samples(pool.reader.sample_rate)
    waveforms = [read_segment(segment, pool.reader) * np.float32(segment.gain) for _, segment in turns]
    active: list[ActiveTurn] = []
    by_speaker = {
        speaker: frames_of(
            np.concatenate([w for (whose, _), w in zip(turns, waveforms, strict=True) if whose == speaker]), rate
        )
        for speaker in {whose for whose, _ in turns}
    }
    for whose, segment in turns:
        size = -(-segment.num_samples // frame)
        active.append(ActiveTurn(whose, by_speaker[whose][:size]))
        by_speaker[whose] = by_speaker[whose][size:]
    return active


def _draw_turn_lengths(
    pool: SpeakerPool, num_speakers: int, ratio: float, num_samples: int | None, rng: np.random.Generator
) -> list[int]:
    """Draw the lengths of turns in samples: enough to fill the mixture, or `max_turns`."""
    config, rate = pool.config.conversation, pool.reader.sample_rate
    most = config.max_turns or MAX_TURNS
    # Because of the overlap, the turns together are longer than the mixture, by at most the ratio.
    enough = float("inf") if num_samples is None else (1 + ratio) * num_samples
    lengths: list[int] = []
    while len(lengths) < num_speakers or (len(lengths) < most and sum(lengths) < enough):
        length = round(rng.uniform(*config.turn_s) * rate)
        if num_samples is not None and len(lengths) < num_speakers:
            length = min(length, round(FIRST_TURNS_SHARE * (1 + ratio) * num_samples / num_speakers))
        lengths.append(length)
    return lengths


def _with_equal_levels(pool: SpeakerPool, segments: Sequence[UtteranceSegment]) -> list[UtteranceSegment]:
    """Return the turns of one speaker with gains that bring their utterances to the level of the first one."""
    levels_db = [pool.level_db(segment.utterance) for segment in segments]
    return [replace(s, gain=recipe_gain(levels_db[0] - db)) for s, db in zip(segments, levels_db, strict=True)]


def frame_samples(sample_rate: int) -> int:
    """Return the length of a frame in samples."""
    return max(1, round(FRAME_S * sample_rate))


def frames_of(waveform: NDArray[np.float32], sample_rate: int) -> Mask:
    """Return whether speech is active in each frame: `[samples]` → `[ceil(samples / frame)]`."""
    return active_mask(waveform, sample_rate, frame_s=FRAME_S)[:: frame_samples(sample_rate)]


def whole_frames(segment: UtteranceSegment, frame: int) -> UtteranceSegment:
    """Cut a segment to whole frames; a segment shorter than a frame is returned unchanged."""
    whole = segment.num_samples // frame * frame
    return replace(segment, num_samples=whole) if whole else segment


def pair_overlap_ratio(first: Mask, second: Mask) -> float:
    """Return overlapped active time / active time of the less active of two speakers.

    Args:
        first, second: active frames, both `[frames]` of the mixture.
    """
    return float(np.sum(first & second) / max(1, min(first.sum(), second.sum())))


def conversation_overlap_ratio(active: Sequence[Mask]) -> float:
    """Return the time in which two or more speak / the time in which anybody speaks.

    Args:
        active: active frames of each speaker, `[frames]` of the mixture.

    >>> conversation_overlap_ratio([np.array([1, 1, 1, 0], bool), np.array([0, 0, 1, 1], bool)])
    0.25
    """
    count = np.sum(active, axis=0)
    return float(np.sum(count >= 2) / max(1, np.sum(count >= 1)))


def partial_layout(active: Sequence[Mask], ratio: float) -> list[int] | None:
    """Return the frames at which sources begin, so that neighbours overlap by a ratio.

    Args:
        active: active frames of each source, `[its own frames]`.
        ratio: overlap of neighbours, as `pair_overlap_ratio`.

    Returns:
        One frame per source, the first 0, each not before the previous one; if several give the ratio, the latest.
        `None` if, because of pauses, no shift of two neighbours reaches the ratio to the tolerance.

    >>> partial_layout([np.ones(100, bool), np.ones(50, bool)], 0.2)
    [0, 90]
    """
    starts = [0]
    for before, after in pairwise(active):
        # The overlap for every shift at once, from no shift to one right after the end.
        shared = _correlate(before, after, before.size + 1)
        reached = shared / max(1, min(before.sum(), after.sum()))
        shift = _latest_nearest(reached, ratio)
        if abs(reached[shift] - ratio) > OVERLAP_TOLERANCE:
            return None
        starts.append(starts[-1] + shift)
    return starts


def draw_speakers_of_turns(num_speakers: int, num_turns: int, rng: np.random.Generator) -> list[int]:
    """Draw the speaker of each turn: first each speaker once, then any but the last one."""
    speakers = list(range(min(num_speakers, num_turns)))
    while len(speakers) < num_turns:
        step = int(rng.integers(1, num_speakers)) if num_speakers > 1 else 0
        speakers.append((speakers[-1] + step) % num_speakers)
    return speakers


def draw_pauses(
    num_turns: int, ratio: float, pause_s: tuple[float, float], rng: np.random.Generator
) -> list[int | None]:
    """Draw, for each turn, the length of the pause before it in frames, or `None` if it may overlap the previous one.

    The share of turns after a pause is 1 - 2 · ratio: all turns for a ratio of 0, none for ratios of 0.5 and more.
    """
    share = max(0.0, 1.0 - 2.0 * ratio)
    drawn = [(rng.random(), rng.uniform(*pause_s)) for _ in range(num_turns)]
    return [round(length_s / FRAME_S) if chance < share else None for chance, length_s in drawn]


def place_turns(
    turns: Sequence[ActiveTurn], pauses: Sequence[int | None], ratio: float, num_frames: int | None
) -> list[int] | None:
    """Return the frames at which turns begin, so that all turns together overlap by a ratio.

    A turn without a pause begins where the overlap ratio of all turns up to it comes nearest to the desired one, but
    not before the previous turn begins, and not while its own speaker still speaks. If the ratio is not reached, the
    pause of the last turn is dropped, so that it can correct the ratio too.

    Args:
        turns: in their order.
        pauses: before each turn, from `draw_pauses`.
        ratio: desired `conversation_overlap_ratio`.
        num_frames: length of the mixture; `None`: as long as the turns take.

    Returns:
        One frame for each turn that fits; `None` if the ratio is not reached to the tolerance.
    """
    starts, reached = _place(turns, pauses, ratio, num_frames)
    if starts and abs(reached - ratio) > OVERLAP_TOLERANCE:
        fitting = len(starts)
        starts, reached = _place(turns[:fitting], [*pauses[: fitting - 1], None], ratio, num_frames)
    return starts if starts and abs(reached - ratio) <= OVERLAP_TOLERANCE else None


def turns_ratio(turns: Sequence[ActiveTurn], starts: Sequence[int]) -> float:
    """Return the `conversation_overlap_ratio` of turns that begin at the given frames."""
    active = np.zeros(
        (1 + max(turn.speaker for turn in turns), max(s + t.active.size for s, t in zip(starts, turns, strict=True))),
        dtype=bool,
    )
    for turn, start in zip(turns, starts, strict=True):
        active[turn.speaker, start : start + turn.active.size] |= turn.active
    return conversation_overlap_ratio(list(active))


def _place(
    turns: Sequence[ActiveTurn], pauses: Sequence[int | None], ratio: float, num_frames: int | None
) -> tuple[list[int], float]:
    """Return the starts of the turns that fit, and the ratio reached.

    The turns are placed one after the other; `speaking` counts the active speakers of each frame until now.
    """
    size = sum(turn.active.size for turn in turns) + sum(pause or 0 for pause in pauses)
    speaking = np.zeros(size, dtype=np.int64)
    free_from: dict[int, int] = {}  # of each speaker, the frame after the last turn
    starts: list[int] = []
    end, reached = 0, 0.0
    for turn, pause in zip(turns, pauses, strict=True):
        start = end if pause is None else end + pause
        earliest = max(starts[-1] + 1 if starts else 0, free_from.get(turn.speaker, 0))
        if pause is None and earliest < end:
            possible = _possible_ratios(speaking[earliest:end], speaking, turn.active)
            start = earliest + _latest_nearest(possible, ratio)
        start = start if starts else 0
        if num_frames is not None and start + turn.active.size > num_frames:
            break
        speaking[start : start + turn.active.size] += turn.active
        starts.append(start)
        free_from[turn.speaker] = start + turn.active.size
        end = max(end, start + turn.active.size)
        reached = float(np.sum(speaking >= 2) / max(1, np.sum(speaking >= 1)))
    return starts, reached


def _possible_ratios(window: NDArray[np.int64], speaking: NDArray[np.int64], active: Mask) -> NDArray[np.float64]:
    """Return the overlap ratio for each start of a turn in the window, and for one right after the window.

    A frame of the turn adds overlap where exactly one speaks (two or more: it is overlapped already), and adds speech
    where nobody speaks; correlations count both for all starts at once. After the window nobody speaks.
    """
    num_starts = window.size + 1
    overlapped = np.sum(speaking >= 2) + _correlate(window == 1, active, num_starts)
    anybody = np.sum(speaking >= 1) + active.sum() - _correlate(window >= 1, active, num_starts)
    return overlapped / np.maximum(1, anybody)


def _correlate(before: Mask, after: Mask, num_starts: int) -> NDArray[np.float64]:
    """Count the frames in which both are active, if `after` begins at frame 0, 1, …, num_starts - 1 of `before`."""
    padded = np.concatenate([before, np.zeros(num_starts + after.size - 1 - before.size, dtype=bool)])
    return np.rint(np.correlate(padded.astype(np.float64), after.astype(np.float64), "valid"))


def _latest_nearest(values: NDArray[np.float64], desired: float) -> int:
    """Return the last index of the value that is nearest to the desired one."""
    errors = np.abs(values - desired)
    return int(values.size - 1 - np.argmin(errors[::-1]))
