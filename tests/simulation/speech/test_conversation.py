"""Overlap: of synthetic activity against counts by hand, and of mixtures measured on their activity."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from wesep_py.common.errors import InputError
from wesep_py.data import FileReader, Utterance
from wesep_py.simulation import ConversationConfig, EnrollmentConfig, SimulationConfig, Simulator
from wesep_py.simulation.speech.conversation import (
    ActiveTurn,
    conversation_overlap_ratio,
    draw_pauses,
    draw_speakers_of_turns,
    pair_overlap_ratio,
    partial_layout,
    place_turns,
    turns_ratio,
)

SHORT = EnrollmentConfig(duration_s=(0.6, 1.0))
TALK = ConversationConfig(turn_s=(0.6, 1.2), pause_s=(0.1, 0.4), max_turns=6)


def _patchy(num_frames: int, seed: int) -> np.ndarray:
    """Return activity with pauses."""
    return np.repeat(np.random.default_rng(seed).random(num_frames // 5) < 0.8, 5)


def _naive_ratio(turns: list[ActiveTurn], starts: list[int]) -> float:
    """Compute the ratio frame by frame, with sets."""
    speakers_at: dict[int, set[int]] = {}
    for turn, start in zip(turns, starts, strict=True):
        for frame in np.flatnonzero(turn.active):
            speakers_at.setdefault(start + int(frame), set()).add(turn.speaker)
    return sum(len(speakers) > 1 for speakers in speakers_at.values()) / len(speakers_at)


def test_overlap_ratios_of_small_masks() -> None:
    first, second = np.array([1, 1, 1, 1, 0, 0], bool), np.array([0, 0, 0, 1, 1, 0], bool)
    assert pair_overlap_ratio(first, second) == 0.5
    assert conversation_overlap_ratio([first, second]) == 0.2
    assert conversation_overlap_ratio([first, second, second]) == 2 / 5


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.35, 0.6])
def test_neighbours_overlap_by_the_ratio_despite_pauses(ratio: float) -> None:
    for seed in range(10):
        active = [_patchy(length, 10 * seed + n) for n, length in enumerate((150, 90, 200))]
        starts = partial_layout(active, ratio)
        assert starts is not None and starts == sorted(starts)
        size = max(start + mask.size for start, mask in zip(starts, active, strict=True))
        rows = [np.zeros(size, bool) for _ in active]
        for row, mask, start in zip(rows, active, starts, strict=True):
            row[start : start + mask.size] = mask
        for before, after in pairwise(rows):
            assert pair_overlap_ratio(before, after) == pytest.approx(ratio, abs=0.02)


def test_unreachable_ratio_gives_none() -> None:
    tenths, sevenths = np.arange(140) % 10 == 0, np.arange(140) % 7 == 0
    assert partial_layout([tenths, sevenths], 0.5) is None
    assert partial_layout([tenths, sevenths], 2 / 14) is not None


def test_every_speaker_has_a_turn_and_none_two_in_a_row() -> None:
    rng = np.random.default_rng(0)
    for count in (2, 3, 4):
        order = draw_speakers_of_turns(count, 12, rng)
        assert order[:count] == list(range(count)) and len(order) == 12
        assert all(first != second for first, second in pairwise(order))
    assert draw_speakers_of_turns(1, 3, rng) == [0, 0, 0]


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.25, 0.4])
@pytest.mark.parametrize("num_speakers", [2, 3])
def test_turns_overlap_by_the_ratio(num_speakers: int, ratio: float) -> None:
    reached = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        order = draw_speakers_of_turns(num_speakers, 8, rng)
        turns = [ActiveTurn(who, _patchy(int(rng.integers(60, 150)), seed * 8 + n)) for n, who in enumerate(order)]
        starts = place_turns(turns, draw_pauses(8, ratio, (0.1, 1.0), rng), ratio, None)
        if starts is None:
            continue
        reached += 1
        assert turns_ratio(turns, starts) == pytest.approx(_naive_ratio(turns, starts))
        assert turns_ratio(turns, starts) == pytest.approx(ratio, abs=0.02)
        ends: dict[int, int] = {}
        for turn, start in zip(turns, starts, strict=True):
            assert start >= ends.get(turn.speaker, 0)  # nobody overlaps with themselves
            ends[turn.speaker] = start + turn.active.size
    assert reached >= 7


def test_turns_that_do_not_fit_are_left_out() -> None:
    turns = [ActiveTurn(n % 2, np.ones(50, bool)) for n in range(6)]
    starts = place_turns(turns, [0, 10, 10, 10, 10, 10], 0.0, 200)
    assert starts == [0, 60, 120]
    assert place_turns(turns, [0] * 6, 0.0, 40) is None


@pytest.mark.parametrize("duration_s", [4.0, None])
@pytest.mark.parametrize("overlap", ["partial", "conversation"])
def test_mixtures_overlap_by_the_drawn_ratio(
    utterances: list[Utterance], reader: FileReader, overlap: str, duration_s: float | None
) -> None:
    config = SimulationConfig(
        duration_s=duration_s,
        num_speakers={2: 1, 3: 1},
        overlap=overlap,
        overlap_ratio=(0.0, 0.35),
        overlap_measure="activity",
        edge_s=(0.1, 0.3),
        conversation=TALK,
        enrollment=SHORT,
    )
    simulator = Simulator(config, utterances, [], reader)
    ratios = set()
    for index in range(6):
        sample = simulator.sample(0, index)
        desired = sample.recipe.overlap_ratio
        assert desired is not None
        if overlap == "partial":
            ratios_reached = [pair_overlap_ratio(first, second) for first, second in pairwise(sample.activity)]
        else:
            ratios_reached = [conversation_overlap_ratio(list(sample.activity))]
        np.testing.assert_allclose(ratios_reached, desired, atol=0.02)
        ratios.add(round(desired, 3))
        assert duration_s is None or sample.mixture.size == duration_s * 16000
        assert not sample.mixture[: round(0.09 * 16000)].any()
        assert not sample.mixture[-round(0.09 * 16000) :].any()
        assert sample.activity.any(axis=1).all()
    assert len(ratios) == 6


def test_turns_are_apart_from_enrollment_and_equally_loud(utterances: list[Utterance], reader: FileReader) -> None:
    config = SimulationConfig(
        duration_s=None, overlap="conversation", overlap_ratio=(0.0, 0.2), conversation=TALK, enrollment=SHORT
    )
    simulator = Simulator(config, utterances, [], reader)
    several = 0
    for index in range(8):
        for source in simulator.draw(0, index).sources:
            several += len(source.turns) > 0
            assert {turn.excerpt.utterance.speaker_id for turn in source.placed} == {source.speaker_id}
            enrolled = {segment.utterance.utterance_id for segment in source.enrollments}
            assert enrolled and not enrolled & {turn.excerpt.utterance.utterance_id for turn in source.placed}
            assert len({turn.excerpt.utterance.utterance_id for turn in source.placed}) == len(source.placed)
            levels = [
                simulator._speech.level_db(t.excerpt.utterance) + 20 * np.log10(t.excerpt.gain) for t in source.placed
            ]
            np.testing.assert_allclose(levels, levels[0], atol=0.01)
    assert several > 8


def test_conversation_of_one_speaker_has_pauses(utterances: list[Utterance], reader: FileReader) -> None:
    config = SimulationConfig(
        duration_s=4.0, num_speakers=1, overlap="conversation", conversation=TALK, enrollment=SHORT
    )
    sample = Simulator(config, utterances, [], reader).sample(0, 0)
    assert sample.recipe.overlap_ratio is None and len(sample.recipe.sources[0].placed) > 1
    assert np.array_equal(sample.mixture, sample.images[0])


def test_unreachable_ratio_is_an_error(utterances: list[Utterance], reader: FileReader) -> None:
    config = SimulationConfig(
        duration_s=2.0, overlap="partial", overlap_ratio=(1.0, 1.0), overlap_measure="activity", enrollment=SHORT
    )
    with pytest.raises(InputError, match=r"of pauses, the overlap of 1\.00 is not reached; check .*overlap_ratio"):
        Simulator(config, utterances, [], reader).draw(0, 0)
