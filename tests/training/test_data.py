"""Positions, batches, padding; law 3 itself is tested with the laws."""

from __future__ import annotations

import gc
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from wesep_py.data import FileReader, read_speaker_folders
from wesep_py.simulation import Sample, SimulationConfig, Simulator
from wesep_py.simulation.description.simulation_config import EnrollmentConfig
from wesep_py.training import batches as data
from wesep_py.training.batches import PositionSampler, SimulatedMixtures, make_loader
from wesep_py.training.extraction_task import Criterion, collate_targets, target_items


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


@pytest.fixture(scope="module")
def absent_sample(tiny_speech: Path) -> Sample:
    """A mixture in which the voice that is asked for is not."""
    config = SimulationConfig(
        duration_s=1.0,
        min_source_s=0.5,
        num_speakers=3,
        enrollment=EnrollmentConfig(duration_s=(0.5, 1.0)),
        absent_probability=1.0,
    )
    return Simulator(config, read_speaker_folders(tiny_speech), [], FileReader(16000), seed=3).sample(0, 0)


def test_an_absent_target_is_silence_with_its_voice_as_enrollment(absent_sample: Sample):
    (item,) = target_items(absent_sample, LABELS)
    absent = absent_sample.recipe.absent.speaker_id
    assert absent not in {source.speaker_id for source in absent_sample.recipe.sources}
    assert (item["present"], item["speaker"]) == (0, LABELS[absent])
    np.testing.assert_array_equal(item["mixture"], absent_sample.mixture)
    assert item["enrollment"].any()
    assert item["target"].shape == absent_sample.mixture.shape and not item["target"].any()
    assert item["activity"].shape == absent_sample.activity[0].shape and not item["activity"].any()
    every = target_items(absent_sample, LABELS, "all")
    assert [one["present"] for one in every] == [1, 1, 1, 0] and every[-1]["speaker"] == LABELS[absent]
    batch = collate_targets([every])
    assert batch["present"].tolist() == [1, 1, 1, 0] and not batch["target"][3].any()


def test_every_loss_takes_a_batch_in_which_targets_are_absent(absent_sample: Sample):
    batch = collate_targets([target_items(absent_sample, LABELS, "all")])
    for names in (
        ["thresholded_sdr", "multi_resolution_spectral", "absent_energy", "presence"],
        ["si_sdr", "snr", "sd_sdr"],
    ):
        waveforms = (0.5 * batch["mixture"]).requires_grad_()
        logits = torch.zeros(4, 63, requires_grad=True)
        output = SimpleNamespace(waveforms=(waveforms,), presence_logits=logits, speaker_logits=None)
        losses = Criterion([{"name": name} for name in names])(output, batch)
        losses["loss"].backward()
        assert all(value.isfinite() for value in losses.values()) and waveforms.grad.isfinite().all()
        assert (waveforms.grad[3] != 0).any() == ("absent_energy" in names)


def test_collate_pads_at_the_end_and_tells_lengths():
    def item(samples: int, enrollment: int, label: int) -> dict:
        return {
            "mixture": np.full(samples, 2.0, np.float32), "target": np.ones(samples, np.float32),
            "enrollment": np.ones(enrollment, np.float32), "activity": np.array([True, False]), "present": 1,
            "speaker": label,
        }  # fmt: skip

    batch = collate_targets([[item(4, 3, 7), item(4, 5, 8)], [item(2, 1, 9)]])
    assert batch["mixture"].tolist() == [[2, 2, 2, 2], [2, 2, 2, 2], [2, 2, 0, 0]]
    assert batch["enrollment"].sum(1).tolist() == [3, 5, 1] and batch["enrollment"].shape == (3, 5)
    assert batch["enrollment_lengths"].tolist() == [3, 5, 1]
    assert batch["speaker"].tolist() == [7, 8, 9] and batch["speaker"].dtype == torch.int64
    assert batch["present"].tolist() == [1, 1, 1]
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
