from __future__ import annotations

import json

import pytest
import torch

from wesep_py import checkpoint
from wesep_py.errors import CheckpointError, WesepError

CONFIG = {"backbone": {"name": "bsrnn", "feature_dim": 8}, "cues": [{"name": "tf_map"}]}


def save(folder, value: float = 1.0, **provenance):
    return checkpoint.save(folder, CONFIG, {"a": torch.full((3,), value)}, provenance)


def test_what_is_saved_is_what_is_read(tmp_path):
    read = checkpoint.load(save(tmp_path / "deep" / "model", command="wesep train"))
    assert read.config == CONFIG
    assert torch.equal(read.state_dict["a"], torch.ones(3))
    assert read.provenance["command"] == "wesep train"
    assert read.provenance["versions"]["torch"] == torch.__version__.split("+")[0]
    assert sorted(p.name for p in read.folder.iterdir()) == sorted(
        ["model.safetensors", "config.yaml", "provenance.json", "card.md"]
    )


def test_a_second_save_replaces_the_first_and_leaves_nothing_else(tmp_path):
    first = checkpoint.load(save(tmp_path / "model", 1.0)).hash
    assert checkpoint.load(save(tmp_path / "model", 2.0)).hash != first
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_one_cut_in_half_is_noticed(tmp_path):
    weights = save(tmp_path / "model") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="cut short or damaged"):
        checkpoint.load(tmp_path / "model")


def test_one_flipped_bit_is_noticed(tmp_path):
    weights = save(tmp_path / "model") / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CheckpointError, match="hash differs"):
        checkpoint.load(tmp_path / "model")


def test_missing_parts_other_versions_and_no_checkpoint_at_all(tmp_path):
    folder = save(tmp_path / "model")
    made = json.loads((folder / "provenance.json").read_text())
    (folder / "provenance.json").write_text(json.dumps({**made, "format_version": 99}))
    with pytest.raises(CheckpointError, match="format version 99"):
        checkpoint.load(folder)
    (folder / "provenance.json").write_text("{")
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoint.load(folder)
    (folder / "config.yaml").unlink()
    with pytest.raises(CheckpointError, match=r"config.yaml is missing"):
        checkpoint.load(folder)
    with pytest.raises(CheckpointError, match="no such model"):
        checkpoint.load(tmp_path / "none")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        checkpoint.load(tmp_path)


def test_an_experiment_means_its_average_then_its_best_then_its_last(tmp_path):
    for name in ("last", "best", "average"):
        save(tmp_path / "checkpoints" / name)
        assert checkpoint.resolve(tmp_path).name == name


def test_a_disk_that_fills_leaves_the_old_one(tmp_path, monkeypatch):
    save(tmp_path / "model", 1.0)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(WesepError, match="No space left on device"):
        save(tmp_path / "model", 2.0)
    monkeypatch.undo()
    assert torch.equal(checkpoint.load(tmp_path / "model").state_dict["a"], torch.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
