"""Conversations: people take turns, with several utterances each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.level import active_mask
from wesep_py.simulation.description.ranges import level_gain
from wesep_py.simulation.description.recipe import SourceRecipe, UtteranceSegment, Turn, UnusableDraw, read_segment
from wesep_py.simulation.speech.speaker_pool import SpeakerPool

# ----------------------------------------
# Who speaks when, so that as much overlaps as was asked: worked out on the frames in which each voice is active.
#
# Everything here counts frames of 20 ms, those of `audio.active_mask`: an excerpt that begins at a frame keeps its
# activity wherever it is put.

FRAME_S = 0.02
# How far the overlap ratio that is reached may be from the one that was asked.
TOLERANCE = 0.02
Mask = NDArray[np.bool_]


class ActiveTurn(NamedTuple):
    """A turn: which of the speakers has it, and in which of its frames the voice is active."""

    speaker: int
    active: Mask


def frame_samples(sample_rate: int) -> int:
    """Length of a frame in samples."""
    return max(1, round(FRAME_S * sample_rate))


def frames_of(waveform: NDArray[np.float32], sample_rate: int) -> Mask:
    """Whether a voice is active in each frame: `[samples]` → `[ceil(samples / frame)]`."""
    return active_mask(waveform, sample_rate, frame_s=FRAME_S)[:: frame_samples(sample_rate)]


def whole_frames(stretch: UtteranceSegment, frame: int) -> UtteranceSegment:
    """The stretch without what is beyond its last whole frame; one of less than a frame as it is."""
    whole = stretch.num_samples // frame * frame
    return replace(stretch, num_samples=whole) if whole else stretch


def pair_overlap_ratio(one: Mask, other: Mask) -> float:
    """Overlapped active time / active time of the less active of two; both `[frames]` of the mixture."""
    return float(np.sum(one & other) / max(1, min(one.sum(), other.sum())))


def conversation_overlap_ratio(active: Sequence[Mask]) -> float:
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
        ratio: between neighbours, as `pair_overlap_ratio`.

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
    turns: Sequence[ActiveTurn], pauses: Sequence[int | None], ratio: float, num_frames: int | None
) -> list[int] | None:
    """The frames at which turns begin, so that all of them together overlap by the ratio asked.

    A turn without a pause begins where the ratio of what has been said up to its end comes nearest to the one asked,
    never before the turn before, nor while its speaker still speaks. Where the ratio is missed, the last turn does so
    too, whatever its pause.

    Args:
        turns: in their order.
        pauses: before each turn, as `draw_pauses`.
        ratio: as `conversation_overlap_ratio`.
        num_frames: length of the mixture; `None`: as long as it takes.

    Returns:
        As many beginnings as there is room for turns; `None` if the ratio is not reached, to the tolerance.
    """
    starts, reached = _place(turns, pauses, ratio, num_frames)
    if starts and abs(reached - ratio) > TOLERANCE:
        fitting = len(starts)
        starts, reached = _place(turns[:fitting], [*pauses[: fitting - 1], None], ratio, num_frames)
    return starts if starts and abs(reached - ratio) <= TOLERANCE else None


def turns_ratio(turns: Sequence[ActiveTurn], starts: Sequence[int]) -> float:
    """The `conversation_overlap_ratio` of turns that begin at those frames."""
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


# Everybody's first turn together takes at most this share of a conversation of a given length.
FIRST_TURNS = 0.7
MOST_TURNS = 64


def place_conversation(
    talkers: SpeakerPool, speaker_ids: Sequence[str], ratio: float, room: int | None, rng: np.random.Generator
) -> tuple[list[SourceRecipe], int]:
    """A conversation: its sources with all of their turns, and its length in samples.

    Args:
        talkers: gives the voices, and the configuration.
        speaker_ids: who takes part.
        ratio: overlap that is asked for; see `conversation.conversation_ratio`.
        room: length that it has; `None`: as long as the turns take.
        rng: what is drawn comes from here.

    Raises:
        UnusableDraw: a voice is silent, somebody has no turn, or the ratio is missed.
    """
    config, rate = talkers.config.conversation, talkers.reader.sample_rate
    frame = frame_samples(rate)
    lengths = _draw_turn_lengths(talkers, len(speaker_ids), ratio, room, rng)
    order = draw_speakers_of_turns(len(speaker_ids), len(lengths), rng)
    pauses = draw_pauses(len(lengths), ratio, config.pause_s, rng)
    said, introductions = [], []
    for speaker, speaker_id in enumerate(speaker_ids):
        own = [length for length, whose in zip(lengths, order, strict=True) if whose == speaker]
        stretches, enrollments = talkers.draw_turns(speaker_id, own, rng)
        said.append(iter(_equally_loud(talkers, [whole_frames(stretch, frame) for stretch in stretches])))
        introductions.append(enrollments)
    turns = [(whose, stretch) for whose in order if (stretch := next(said[whose], None)) is not None]
    num_frames = None if room is None else room // frame
    starts = place_turns(_hear(talkers, turns), pauses[: len(turns)], ratio, num_frames)
    if starts is None or len(starts) < len(speaker_ids):
        raise UnusableDraw(f"turns that overlap by {ratio:.2f} in all leave no room for every speaker")
    turns = turns[: len(starts)]
    if abs(turns_ratio(_hear(talkers, turns), starts) - ratio) > TOLERANCE:
        raise UnusableDraw(f"a turn that sets the level of a voice has no room, and {ratio:.2f} is missed without it")
    sources = []
    for speaker, enrollments in enumerate(introductions):
        placed = zip(turns, starts, strict=True)
        first, *others = (Turn(stretch, start * frame) for (whose, stretch), start in placed if whose == speaker)
        sources.append(SourceRecipe(first.excerpt, first.offset, enrollments, tuple(others)))
    length = max(turn.offset + turn.excerpt.num_samples for source in sources for turn in source.placed)
    return sources, length if room is None else room


def _hear(talkers: SpeakerPool, turns: Sequence[tuple[int, UtteranceSegment]]) -> list[ActiveTurn]:
    """The turns with their active frames: what is active is told by the loudest of all turns of a speaker."""
    rate, frame = talkers.reader.sample_rate, frame_samples(talkers.reader.sample_rate)
    waveforms = [read_segment(stretch, talkers.reader) * np.float32(stretch.gain) for _, stretch in turns]
    active: list[ActiveTurn] = []
    by_speaker = {
        speaker: frames_of(
            np.concatenate([w for (whose, _), w in zip(turns, waveforms, strict=True) if whose == speaker]), rate
        )
        for speaker in {whose for whose, _ in turns}
    }
    for whose, stretch in turns:
        size = -(-stretch.num_samples // frame)
        active.append(ActiveTurn(whose, by_speaker[whose][:size]))
        by_speaker[whose] = by_speaker[whose][size:]
    return active


def _draw_turn_lengths(
    talkers: SpeakerPool, num_speakers: int, ratio: float, room: int | None, rng: np.random.Generator
) -> list[int]:
    """As many turns as surely fill the mixture, or as `max_turns` says; in samples."""
    config, rate = talkers.config.conversation, talkers.reader.sample_rate
    most = config.max_turns or MOST_TURNS
    wanted = float("inf") if room is None else (1 + ratio) * room
    lengths: list[int] = []
    while len(lengths) < num_speakers or (len(lengths) < most and sum(lengths) < wanted):
        length = round(rng.uniform(*config.turn_s) * rate)
        if room is not None and len(lengths) < num_speakers:
            length = min(length, round(FIRST_TURNS * (1 + ratio) * room / num_speakers))
        lengths.append(length)
    return lengths


def _equally_loud(talkers: SpeakerPool, stretches: Sequence[UtteranceSegment]) -> list[UtteranceSegment]:
    """One speaker's turns, all brought to the level of the first's utterance."""
    levels_db = [talkers.level_db(stretch.utterance) for stretch in stretches]
    return [replace(s, gain=level_gain(levels_db[0] - db)) for s, db in zip(stretches, levels_db, strict=True)]
