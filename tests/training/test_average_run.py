"""`average_run`: the mean of the snapshots that were asked for, as a checkpoint."""

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
from wesep_py.training.snapshots import BestSnapshots, average_run


@pytest.fixture(scope="module")
def run(tmp_path_factory, corpus, request) -> Path:
    """A run that validated four times."""
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


def test_the_last(run: Path, tmp_path: Path):
    made = average_run(run, tmp_path / "out", last=2)
    assert made.steps == [3, 4] and made.results == []
    found = checkpoint.load(tmp_path / "out")
    files = [run / "state" / "snapshots" / f"step_{step:08d}.safetensors" for step in (3, 4)]
    for key, value in found.state_dict.items():
        torch.testing.assert_close(value, mean_of(files, key))
    assert (found.provenance["made_by"], found.provenance["steps"]) == ("wesep average", [3, 4])
    assert load_network(tmp_path / "out").sample_rate == 16000


def test_the_best(run: Path, tmp_path: Path):
    results = {line["step"]: line["si_sdri"] for line in lines(run, "validation")}
    best = sorted(results, key=lambda step: -results[step])[:2]
    made = average_run(run, tmp_path / "out", best=2)
    assert made.steps == best and made.results == [results[step] for step in best]
    files = [run / "state" / "best" / f"step_{step:08d}.safetensors" for step in best]
    found = checkpoint.load(tmp_path / "out")
    for key, value in found.state_dict.items():
        torch.testing.assert_close(value, mean_of(files, key))
    one = average_run(run, tmp_path / "one", best=1)
    assert one.steps == best[:1]
    for key, value in weights(run, "best").items():
        torch.testing.assert_close(checkpoint.load(tmp_path / "one").state_dict[key], value)


def test_what_cannot_be_is_said(run: Path, tmp_path: Path):
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
def test_only_the_best_stay(tmp_path: Path, lower: bool, kept: list[int]):
    snapshots = BestSnapshots(tmp_path, 2, lower)
    for step, result in enumerate((1.0, 5.0, 0.5, 3.0), start=1):
        snapshots.offer(step, result, {"w": torch.ones(1)})
    assert [int(path.stem[5:]) for path in snapshots.best(9)] == kept
    BestSnapshots(tmp_path / "none", 0).offer(1, 1.0, {"w": torch.ones(1)})
    assert not (tmp_path / "none").exists()


def test_another_models_weights_are_mixed_in(run: Path, tmp_path: Path):
    average_run(run, tmp_path / "first", last=3)
    average_run(run, tmp_path / "last", last=1)
    average_run(run, tmp_path / "out", last=1, other=tmp_path / "first", share=0.25)
    first, last, out = (checkpoint.load(tmp_path / name) for name in ("first", "last", "out"))
    assert any(not torch.equal(first.state_dict[key], last.state_dict[key]) for key in last.state_dict)
    for key, value in out.state_dict.items():
        torch.testing.assert_close(value, 0.75 * last.state_dict[key] + 0.25 * first.state_dict[key])
    assert out.provenance["mixed_in"] == {"share": 0.25, "hash": first.hash}
    assert "with 25% of the weights of first" in (tmp_path / "out" / "card.md").read_text()


def test_weights_that_do_not_fit_and_shares_out_of_range_are_one_line(run: Path, tmp_path: Path):
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


def test_nothing_but_a_checkpoint_is_overwritten_and_nothing_that_is_read(run: Path, tmp_path: Path):
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
