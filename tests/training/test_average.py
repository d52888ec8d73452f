"""The mean of weights, and the snapshots it is made of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from wesep_py.common.errors import CheckpointError
from wesep_py.training.snapshots import BestSnapshots, Snapshots, average_state_dicts, read_snapshot, step_of


def weights(value: float, counter: int = 0) -> dict[str, torch.Tensor]:
    return {"w": torch.full((2,), value), "num_batches_tracked": torch.tensor(counter)}


def test_floats_are_averaged_and_counters_are_the_lasts():
    mean = average_state_dicts([weights(1.0, 10), weights(2.0, 20), weights(6.0, 30)])
    assert mean["w"].tolist() == [3.0, 3.0] and mean["num_batches_tracked"].item() == 30


def test_the_mean_is_exact_where_float32_sums_are_not():
    big = [weights(16777216.0), weights(1.0), weights(1.0), weights(-16777216.0)]
    assert average_state_dicts(big)["w"].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("other", [{"v": torch.zeros(2)}, {"w": torch.zeros(3)}])
def test_weights_of_different_networks_are_refused(other: dict):
    with pytest.raises(CheckpointError, match="not of one network"):
        average_state_dicts([{"w": torch.zeros(2)}, other])


def test_nothing_to_average_is_an_error():
    with pytest.raises(CheckpointError, match="no weights to average"):
        average_state_dicts([])


def test_snapshots_keep_the_newest_in_the_order_of_their_steps(tmp_path: Path):
    snapshots = Snapshots(tmp_path / "snapshots", keep=3)
    for step in (900, 1000, 2000, 10000):
        snapshots.save(step, weights(float(step), step))
    assert len(snapshots) == 3
    assert snapshots.average(2)["w"][0].item() == 6000.0
    assert snapshots.average(2)["num_batches_tracked"].item() == 10000
    snapshots.drop_after(1000)
    assert len(snapshots) == 1 and snapshots.average(5)["w"][0].item() == 1000.0


def test_tied_weights_can_be_saved(tmp_path: Path):
    """Tensors that share memory, which safetensors refuses as they are."""
    shared = torch.ones(2)
    snapshots = Snapshots(tmp_path, keep=1)
    snapshots.save(1, {"a": shared, "b": shared})
    assert torch.equal(snapshots.average(1)["b"], shared)


def test_a_flipped_bit_of_a_snapshot_is_noticed(tmp_path: Path):
    snapshots = Snapshots(tmp_path, 3)
    snapshots.save(1, {"w": torch.ones(20)})
    (path,) = snapshots.newest(1)
    whole = path.read_bytes()
    assert torch.equal(read_snapshot(path)["w"], torch.ones(20))
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 4
        path.write_bytes(damaged)
        try:
            found = read_snapshot(path)
        except CheckpointError as error:
            assert str(path) in str(error)
        else:
            assert torch.equal(found["w"], torch.ones(20))


def test_files_of_other_names_are_no_snapshots(tmp_path: Path):
    (tmp_path / "step_last.safetensors").touch()
    assert len(Snapshots(tmp_path, 3)) == 0


def test_the_best_come_before_what_is_damaged(tmp_path: Path):
    best = BestSnapshots(tmp_path, 5)
    for step, result in ((1, 1.0), (2, 3.0), (3, 2.0)):
        best.offer(step, result, {"w": torch.ones(2)})
    (tmp_path / "step_00000002.safetensors").write_bytes(b"damaged")
    assert [step_of(path) for path in best.best(3)] == [3, 1, 2]
