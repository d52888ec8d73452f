"""A sample depends only on (seed, epoch, index), not on workers, ranks, or earlier samples."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from wesep_py.data import FileReader, Utterance, read_speaker_folders
from wesep_py.simulation import Recipe, SimulationConfig, Simulator, render
from wesep_py.simulation.description.simulation_config import EnrollmentConfig, NoiseConfig, RoomConfig
from wesep_py.training.batches import PositionSampler, SimulatedMixtures, make_loader
from wesep_py.training.extraction_task import collate_targets, target_items

ALL = partial(target_items, targets="all")
RATE = 16000
EPOCH_SIZE = 5
CONFIG = SimulationConfig(
    duration_s=1.0,
    min_source_s=0.5,
    num_speakers={1: 1, 2: 2, 3: 1},
    overlap={"full": 1, "longest": 1, "partial": 1},
    noise=NoiseConfig(probability=0.7, kinds={"coloured": 1, "babble": 1}, babble_speakers=(1, 1)),
    room=RoomConfig(probability=0.5, num_reflections=256),
    enrollment=EnrollmentConfig(duration_s=(0.5, 1.0)),
)


@pytest.fixture(scope="module")
def utterances(tiny_speech: Path) -> list[Utterance]:
    return read_speaker_folders(tiny_speech)


def dataset(utterances: list[Utterance], seed: int = 7) -> SimulatedMixtures:
    simulator = Simulator(CONFIG, utterances, [], FileReader(RATE), seed)
    labels = {speaker: label for label, speaker in enumerate(sorted({u.speaker_id for u in utterances}))}
    return SimulatedMixtures(simulator, labels, ALL)


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for key in left:
        assert torch.equal(left[key], right[key]), key


def batches(utterances: list[Utterance], workers: int, start: int = 0, rank: int = 0, world: int = 1, size: int = 2):
    sampler = PositionSampler(start, (12 - start) // (size * world), size, EPOCH_SIZE, rank, world)
    return list(make_loader(dataset(utterances), sampler, collate_targets, workers, prefetch=2))


def test_earlier_samples_do_not_matter(utterances: list[Utterance]):
    original, other = dataset(utterances), dataset(list(reversed(utterances)))
    for key in [(3, 1), (0, 4), (0, 0)]:
        other[key]
    assert_same(collate_targets([original[0, 1]]), collate_targets([other[0, 1]]))
    draws = [
        *((original, (0, 1)), (original, (0, 1)), (original, (1, 1)), (original, (0, 2))),
        (dataset(utterances, 8), (0, 1)),
    ]
    first, again, next_epoch, next_index, other_seed = (mixtures[key][0]["mixture"] for mixtures, key in draws)
    np.testing.assert_array_equal(first, again)
    for different in (next_epoch, next_index, other_seed):
        assert not np.array_equal(first, different)


def test_the_global_random_state_does_not_matter(utterances: list[Utterance]):
    torch.manual_seed(1)
    np.random.seed(1)
    expected = collate_targets([dataset(utterances)[0, 3]])
    torch.manual_seed(2)
    np.random.seed(2)
    assert_same(expected, collate_targets([dataset(utterances)[0, 3]]))


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_does_not_matter(utterances: list[Utterance], workers: int):
    expected, actual = batches(utterances, 0), batches(utterances, workers)
    assert len(expected) == len(actual) == 6
    for left, right in zip(expected, actual, strict=True):
        assert_same(left, right)


def test_a_resumed_loader_continues_at_its_position(utterances: list[Utterance]):
    for left, right in zip(batches(utterances, 0)[2:], batches(utterances, 1, start=4), strict=True):
        assert_same(left, right)


def test_the_number_of_ranks_does_not_matter(utterances: list[Utterance]):
    """Two ranks with batches of 2 have together the samples of one rank with batches of 4."""
    whole = batches(utterances, 0, size=4)
    halves = [batches(utterances, 0, rank=rank, world=2, size=2) for rank in (0, 1)]
    assert len(whole) == len(halves[0]) == 3
    for position, both in enumerate(whole):
        speakers = torch.cat([half[position]["speaker"] for half in halves])
        mixtures = torch.cat([half[position]["mixture"] for half in halves])
        assert torch.equal(both["speaker"], speakers) and torch.equal(both["mixture"], mixtures)


def test_rendering_a_recipe_again_is_bit_exact(utterances: list[Utterance]):
    mixtures = dataset(utterances)
    for index in range(EPOCH_SIZE):
        recipe = Recipe.from_dict(mixtures.simulator.draw(2, index).to_dict())
        again = render(recipe, FileReader(RATE))
        for item, target, enrollment in zip(mixtures[2, index], again.targets, again.enrollments, strict=True):
            np.testing.assert_array_equal(item["mixture"], again.mixture)
            np.testing.assert_array_equal(item["target"], target)
            np.testing.assert_array_equal(item["enrollment"], enrollment)
