"""Snapshots of the weights, their average, and wesep average."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.runs import lines, weights
from wesep_py import checkpoint
from wesep_py.common.errors import CheckpointError, InputError, OutputExistsError
from wesep_py.network.extraction_network import load_network
from wesep_py.training import train
from wesep_py.training.snapshots import (
    BestSnapshots,
    Snapshots,
    average_run,
    average_state_dicts,
    read_snapshot,
    step_of,
)


def snapshot_weights(value: float, counter: int = 0) -> dict[str, torch.Tensor]:
    return {"w": torch.full((2,), value), "num_batches_tracked": torch.tensor(counter)}


def test_floats_are_averaged_and_integers_are_the_last():
    mean = average_state_dicts([snapshot_weights(1.0, 10), snapshot_weights(2.0, 20), snapshot_weights(6.0, 30)])
    assert mean["w"].tolist() == [3.0, 3.0] and mean["num_batches_tracked"].item() == 30


def test_the_mean_is_exact_where_float32_sums_are_not():
    big = [snapshot_weights(16777216.0), snapshot_weights(1.0), snapshot_weights(1.0), snapshot_weights(-16777216.0)]
    assert average_state_dicts(big)["w"].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("other", [{"v": torch.zeros(2)}, {"w": torch.zeros(3)}])
def test_weights_of_different_networks_are_refused(other: dict):
    with pytest.raises(CheckpointError, match="not of one network"):
        average_state_dicts([{"w": torch.zeros(2)}, other])


def test_averaging_nothing_is_an_error():
    with pytest.raises(CheckpointError, match="no weights to average"):
        average_state_dicts([])


def test_snapshots_keep_the_newest_in_the_order_of_their_steps(tmp_path: Path):
    snapshots = Snapshots(tmp_path / "snapshots", keep=3)
    for step in (900, 1000, 2000, 10000):
        snapshots.save(step, snapshot_weights(float(step), step))
    assert len(snapshots) == 3
    assert snapshots.average(2)["w"][0].item() == 6000.0
    assert snapshots.average(2)["num_batches_tracked"].item() == 10000
    snapshots.drop_after(1000)
    assert len(snapshots) == 1 and snapshots.average(5)["w"][0].item() == 1000.0


def test_tied_weights_can_be_saved(tmp_path: Path):
    """Tensors that share memory, which safetensors refuses unless they are copied."""
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
            tensors = read_snapshot(path)
        except CheckpointError as error:
            assert str(path) in str(error)
        else:
            assert torch.equal(tensors["w"], torch.ones(20))


def test_files_of_other_names_are_no_snapshots(tmp_path: Path):
    (tmp_path / "step_last.safetensors").touch()
    assert len(Snapshots(tmp_path, 3)) == 0


def test_best_snapshots_come_before_damaged_ones(tmp_path: Path):
    best = BestSnapshots(tmp_path, 5)
    for step, result in ((1, 1.0), (2, 3.0), (3, 2.0)):
        best.offer(step, result, {"w": torch.ones(2)})
    (tmp_path / "step_00000002.safetensors").write_bytes(b"damaged")
    assert [step_of(path) for path in best.best(3)] == [3, 1, 2]


@pytest.fixture(scope="module")
def run(tmp_path_factory, corpus, request) -> Path:
    """Return a run with four validations."""
    folder = tmp_path_factory.mktemp("run")
    train(
        {
            "experiment": str(folder / "exp"),
            "model": {"backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1}, "cues": [{"name": "tf_map"}]},
            "data": {"root": str(corpus), "train": ["train.jsonl"], "workers": 0},
            "simulation": {"duration_s": 1.0, "min_source_s": 0.5, "enrollment": {"duration_s": [0.5, 1.0]}},
            "optim": {"lr": 0.01},
            "train": {"steps": 4, "batch_size": 1, "device": "cpu", "threads": 1},
            "checkpoint": {"every_steps": 1, "keep": 3, "average": 1, "keep_best": 3},
            "validation": {"trials": "trials.csv", "enrollment": "trials.map", "every_steps": 1},
            "log": {"audio_samples": 0},
        }
    )
    return folder / "exp"


def mean_of(files: list[Path], key: str) -> torch.Tensor:
    return torch.stack([load_file(file)[f"network.{key}"] for file in files]).mean(0)


def test_average_of_the_last(run: Path, tmp_path: Path):
    averaged = average_run(run, tmp_path / "out", last=2)
    assert averaged.steps == [3, 4] and averaged.results == []
    saved = checkpoint.load(tmp_path / "out")
    files = [run / "state" / "snapshots" / f"step_{step:08d}.safetensors" for step in (3, 4)]
    for key, value in saved.state_dict.items():
        torch.testing.assert_close(value, mean_of(files, key))
    assert (saved.provenance["made_by"], saved.provenance["steps"]) == ("wesep average", [3, 4])
    assert load_network(tmp_path / "out").sample_rate == 16000


def test_average_of_the_best(run: Path, tmp_path: Path):
    results = {line["step"]: line["si_sdri"] for line in lines(run, "validation")}
    best = sorted(results, key=lambda step: -results[step])[:2]
    averaged = average_run(run, tmp_path / "out", best=2)
    assert averaged.steps == best and averaged.results == [results[step] for step in best]
    files = [run / "state" / "best" / f"step_{step:08d}.safetensors" for step in best]
    saved = checkpoint.load(tmp_path / "out")
    for key, value in saved.state_dict.items():
        torch.testing.assert_close(value, mean_of(files, key))
    single = average_run(run, tmp_path / "one", best=1)
    assert single.steps == best[:1]
    for key, value in weights(run, "best").items():
        torch.testing.assert_close(checkpoint.load(tmp_path / "one").state_dict[key], value)


def test_impossible_averages_are_refused(run: Path, tmp_path: Path):
    with pytest.raises(InputError, match="either --last N or --best N"):
        average_run(run, tmp_path / "out")
    with pytest.raises(InputError, match=r"has 3 such snapshots; ask for fewer, or raise checkpoint\.keep$"):
        average_run(run, tmp_path / "out", last=4)
    with pytest.raises(InputError, match=r"checkpoint\.keep_best"):
        average_run(run, tmp_path / "out", best=9)
    with pytest.raises(InputError, match="at least 1"):
        average_run(run, tmp_path / "out", last=0)
    with pytest.raises(CheckpointError, match="no experiment folder"):
        average_run(tmp_path, tmp_path / "out", last=1)
    (tmp_path / "there").mkdir()
    with pytest.raises(OutputExistsError, match="--overwrite"):
        average_run(run, tmp_path / "there", last=1)
    assert average_run(run, tmp_path / "there", last=1, overwrite=True).folder == tmp_path / "there"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("lower", "kept"), [(False, [2, 4]), (True, [3, 1])])
def test_only_the_best_snapshots_are_kept(tmp_path: Path, lower: bool, kept: list[int]):
    snapshots = BestSnapshots(tmp_path, 2, lower)
    for step, result in enumerate((1.0, 5.0, 0.5, 3.0), start=1):
        snapshots.offer(step, result, {"w": torch.ones(1)})
    assert [int(path.stem[5:]) for path in snapshots.best(9)] == kept
    BestSnapshots(tmp_path / "none", 0).offer(1, 1.0, {"w": torch.ones(1)})
    assert not (tmp_path / "none").exists()


def test_mixing_in_another_models_weights(run: Path, tmp_path: Path):
    average_run(run, tmp_path / "first", last=3)
    average_run(run, tmp_path / "last", last=1)
    average_run(run, tmp_path / "out", last=1, other=tmp_path / "first", share=0.25)
    first, last, out = (checkpoint.load(tmp_path / name) for name in ("first", "last", "out"))
    assert any(not torch.equal(first.state_dict[key], last.state_dict[key]) for key in last.state_dict)
    for key, value in out.state_dict.items():
        torch.testing.assert_close(value, 0.75 * last.state_dict[key] + 0.25 * first.state_dict[key])
    assert out.provenance["mixed_in"] == {"share": 0.25, "hash": first.hash}
    assert "with 25% of the weights of first" in (tmp_path / "out" / "card.md").read_text()


def test_unfit_weights_and_shares_are_one_line_errors(run: Path, tmp_path: Path):
    average_run(run, tmp_path / "narrow", last=1)
    narrow = checkpoint.load(tmp_path / "narrow")
    tensors = {key: value[..., :1].contiguous() for key, value in narrow.state_dict.items()}
    checkpoint.save(tmp_path / "other", narrow.config, tensors, narrow.provenance, "")
    with pytest.raises(CheckpointError, match=r"not of one network: .* has another shape"):
        average_run(run, tmp_path / "out", last=1, other=tmp_path / "other")
    for share in (0.0, 1.0, -1.0):
        with pytest.raises(InputError, match="above 0 and below 1 is allowed"):
            average_run(run, tmp_path / "out", last=1, other=tmp_path / "narrow", share=share)
    with pytest.raises(InputError, match="--share: says how much of --with; give both"):
        average_run(run, tmp_path / "out", last=1, share=0.5)
    assert not (tmp_path / "out").exists()


def test_only_checkpoints_are_overwritten_and_no_input(run: Path, tmp_path: Path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("mine")
    before = sorted(path for path in run.rglob("*"))
    (tmp_path / "link").symlink_to(run)
    with pytest.raises(InputError, match=r"thesis: is a folder with other things than a checkpoint \(chapter.tex\)"):
        average_run(run, tmp_path / "thesis", last=1, overwrite=True)
    for output in (run, tmp_path / "link", run / "checkpoints" / "last"):
        with pytest.raises(InputError, match="which is read; name another output"):
            average_run(run, output, last=1, overwrite=True)
    average_run(run, tmp_path / "other", last=1)
    with pytest.raises(InputError, match="is the other model, which is read"):
        average_run(run, tmp_path / "other", last=1, overwrite=True, other=tmp_path / "other")
    with pytest.raises(InputError, match="other things than a checkpoint"):
        average_run(run, run / "state", last=1, overwrite=True)
    assert sorted(path for path in run.rglob("*")) == before
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]
