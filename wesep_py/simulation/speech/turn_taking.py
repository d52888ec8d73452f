"""Conversations: people take turns, with several utterances each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from wesep_py.simulation.gains import level_gain
from wesep_py.simulation.recipe_parts import SourceRecipe, Stretch, Turn
from wesep_py.simulation.speech.conversation import (
    TOLERANCE,
    Speaking,
    draw_pauses,
    draw_speakers_of_turns,
    frame_samples,
    frames_of,
    place_turns,
    turns_ratio,
    whole_frames,
)
from wesep_py.simulation.speech.talkers import Talkers
from wesep_py.simulation.unusable import Unusable, read_stretch

# Everybody's first turn together takes at most this share of a conversation of a given length.
FIRST_TURNS = 0.7
MOST_TURNS = 64


def place_conversation(
    talkers: Talkers, speaker_ids: Sequence[str], ratio: float, room: int | None, rng: np.random.Generator
) -> tuple[list[SourceRecipe], int]:
    """A conversation: its sources with all of their turns, and its length in samples.

    Args:
        talkers: gives the voices, and the configuration.
        speaker_ids: who takes part.
        ratio: overlap that is asked for; see `conversation.conversation_ratio`.
        room: length that it has; `None`: as long as the turns take.
        rng: what is drawn comes from here.

    Raises:
        Unusable: a voice is silent, somebody has no turn, or the ratio is missed.
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
        raise Unusable(f"turns that overlap by {ratio:.2f} in all leave no room for every speaker")
    turns = turns[: len(starts)]
    if abs(turns_ratio(_hear(talkers, turns), starts) - ratio) > TOLERANCE:
        raise Unusable(f"a turn that sets the level of a voice has no room, and {ratio:.2f} is missed without it")
    sources = []
    for speaker, enrollments in enumerate(introductions):
        placed = zip(turns, starts, strict=True)
        first, *others = (Turn(stretch, start * frame) for (whose, stretch), start in placed if whose == speaker)
        sources.append(SourceRecipe(first.excerpt, first.offset, enrollments, tuple(others)))
    length = max(turn.offset + turn.excerpt.num_samples for source in sources for turn in source.placed)
    return sources, length if room is None else room


def _hear(talkers: Talkers, turns: Sequence[tuple[int, Stretch]]) -> list[Speaking]:
    """The turns with their active frames: what is active is told by the loudest of all turns of a speaker."""
    rate, frame = talkers.reader.sample_rate, frame_samples(talkers.reader.sample_rate)
    waveforms = [read_stretch(stretch, talkers.reader) * np.float32(stretch.gain) for _, stretch in turns]
    active: list[Speaking] = []
    by_speaker = {
        speaker: frames_of(
            np.concatenate([w for (whose, _), w in zip(turns, waveforms, strict=True) if whose == speaker]), rate
        )
        for speaker in {whose for whose, _ in turns}
    }
    for whose, stretch in turns:
        size = -(-stretch.num_samples // frame)
        active.append(Speaking(whose, by_speaker[whose][:size]))
        by_speaker[whose] = by_speaker[whose][size:]
    return active


def _draw_turn_lengths(
    talkers: Talkers, num_speakers: int, ratio: float, room: int | None, rng: np.random.Generator
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


def _equally_loud(talkers: Talkers, stretches: Sequence[Stretch]) -> list[Stretch]:
    """One speaker's turns, all brought to the level of the first's utterance."""
    levels_db = [talkers.level_db(stretch.utterance) for stretch in stretches]
    return [replace(s, gain=level_gain(levels_db[0] - db)) for s, db in zip(stretches, levels_db, strict=True)]
