"""Positions, batches, padding; law 3 itself is tested with the laws."""

from __future__ import annotations

import gc
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from wesep_py.corpus import FileReader, read_speaker_folders
from wesep_py.simulation import SimulationConfig, Simulator
from wesep_py.simulation.config import EnrollmentConfig
from wesep_py.training import data
from wesep_py.training.data import PositionSampler, SimulatedMixtures, make_loader
from wesep_py.training.extraction_task import collate_targets, target_items


@pytest.fixture(scope="module")
def simulator(tiny_speech: Path) -> Simulator:
    config = SimulationConfig(
        duration_s=1.0, min_source_s=0.5, num_speakers=3, enrollment=EnrollmentConfig(duration_s=(0.5, 1.0))
    )
    return Simulator(config, read_speaker_folders(tiny_speech), [], FileReader(16000), seed=3)


ALL = partial(target_items, targets="all")
LABELS = {"anna": 0, "bert": 1, "carl": 2, "dora": 3}


def test_positions_run_on_over_epochs_and_are_dealt_to_ranks():
    ranks = [list(PositionSampler(6, 2, 2, 5, rank, world_size=2)) for rank in (0, 1)]
    assert ranks[0] == [[(1, 1), (1, 2)], [(2, 0), (2, 1)]]
    assert ranks[1] == [[(1, 3), (1, 4)], [(2, 2), (2, 3)]]
    assert len(PositionSampler(6, 2, 2, 5)) == 2


def test_every_speaker_is_a_target_or_the_recipes_alone(simulator: Simulator):
    recipe = simulator.draw(0, 4)
    all_items = SimulatedMixtures(simulator, LABELS, ALL)[0, 4]
    assert [item["speaker"] for item in all_items] == [LABELS[source.speaker_id] for source in recipe.sources]
    total = sum(item["target"] for item in all_items)
    np.testing.assert_allclose(total, all_items[0]["mixture"], atol=1e-6)
    (one,) = SimulatedMixtures(simulator, LABELS, target_items)[0, 4]
    assert one["speaker"] == LABELS[recipe.sources[recipe.target].speaker_id]
    np.testing.assert_array_equal(one["target"], all_items[recipe.target]["target"])
    np.testing.assert_array_equal(one["enrollment"], all_items[recipe.target]["enrollment"])


def test_collate_pads_at_the_end_and_tells_lengths():
    def item(samples: int, enrollment: int, label: int) -> dict:
        return {
            "mixture": np.full(samples, 2.0, np.float32), "target": np.ones(samples, np.float32),
            "enrollment": np.ones(enrollment, np.float32), "activity": np.array([True, False]), "speaker": label,
        }  # fmt: skip

    batch = collate_targets([[item(4, 3, 7), item(4, 5, 8)], [item(2, 1, 9)]])
    assert batch["mixture"].tolist() == [[2, 2, 2, 2], [2, 2, 2, 2], [2, 2, 0, 0]]
    assert batch["enrollment"].sum(1).tolist() == [3, 5, 1] and batch["enrollment"].shape == (3, 5)
    assert batch["enrollment_lengths"].tolist() == [3, 5, 1]
    assert batch["speaker"].tolist() == [7, 8, 9] and batch["speaker"].dtype == torch.int64
    assert batch["activity"].tolist() == [[1, 0]] * 3
    assert {batch[key].dtype for key in ("mixture", "target", "enrollment", "activity")} == {torch.float32}


def test_batches_lie_aligned_in_memory(simulator: Simulator):
    """Sums over memory that is aligned otherwise differ in the last bit: resumed runs would drift."""
    batch = collate_targets([SimulatedMixtures(simulator, LABELS, ALL)[0, 0]])
    assert all(batch[key].data_ptr() % 64 == 0 for key in ("mixture", "target", "enrollment"))


def test_an_error_in_a_worker_reaches_the_run(simulator: Simulator):
    """A speaker without a label cannot be passed over in silence."""
    dataset = SimulatedMixtures(simulator, {}, ALL)
    with pytest.raises(KeyError, match=r"anna|bert|carl|dora"):
        next(iter(make_loader(dataset, PositionSampler(0, 1, 1, 5), collate_targets, workers=1, prefetch=1)))
    gc.collect()  # ends the worker, which the error's traceback keeps alive


def test_a_worker_that_is_told_to_end_does_so_in_time(simulator: Simulator, monkeypatch):
    """Regression: workers ignored SIGTERM for good, and a process that left one behind could not end."""
    monkeypatch.setattr(data, "WORKER_GRACE_S", 1)
    loader = make_loader(
        SimulatedMixtures(simulator, LABELS, target_items),
        PositionSampler(0, 99, 1, 5),
        collate_targets,
        workers=1,
        prefetch=1,
    )
    batches = iter(loader)
    next(batches)
    (worker,) = batches._workers
    worker.terminate()
    with suppress(RuntimeError):  # torch's word that a worker died, if it hears of it first
        worker.join(timeout=20)
    assert not worker.is_alive()
