"""Checkpoints are saved atomically, read back exactly, and refused when they are damaged."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from wesep_py import checkpoint
from wesep_py.common.errors import CheckpointError, InputError, WesepError

CONFIG = {"backbone": {"name": "bsrnn", "feature_dim": 8}, "cues": [{"name": "tf_map"}]}


def save(folder, value: float = 1.0, keep_others: bool = False, **provenance):
    weights = {"a": torch.full((3,), value)}
    return checkpoint.save(folder, CONFIG, weights, provenance, keep_others=keep_others)


def test_a_saved_checkpoint_is_read_back(tmp_path):
    read = checkpoint.load(save(tmp_path / "deep" / "model", command="wesep train"))
    assert read.config == CONFIG
    assert torch.equal(read.state_dict["a"], torch.ones(3))
    assert read.provenance["command"] == "wesep train"
    assert read.provenance["versions"]["torch"] == torch.__version__.split("+")[0]
    assert sorted(p.name for p in read.folder.iterdir()) == sorted(
        ["model.safetensors", "config.yaml", "provenance.json", "card.md"]
    )


def test_a_second_save_replaces_the_first(tmp_path):
    first = checkpoint.load(save(tmp_path / "model", 1.0)).hash
    assert checkpoint.load(save(tmp_path / "model", 2.0)).hash != first
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_cut_weights_are_refused(tmp_path):
    weights = save(tmp_path / "model") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="cut short or damaged"):
        checkpoint.load(tmp_path / "model")


def test_a_flipped_bit_is_refused(tmp_path):
    weights = save(tmp_path / "model") / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CheckpointError, match="hash differs"):
        checkpoint.load(tmp_path / "model")


def test_missing_files_and_other_versions_are_refused(tmp_path):
    folder = save(tmp_path / "model")
    made = json.loads((folder / "provenance.json").read_text())
    (folder / "provenance.json").write_text(json.dumps({**made, "format_version": 99}))
    with pytest.raises(CheckpointError, match="format version 99"):
        checkpoint.load(folder)
    (folder / "provenance.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"provenance\.json: is not JSON .*; copy the folder again"):
        checkpoint.load(folder)
    (folder / "config.yaml").unlink()
    with pytest.raises(CheckpointError, match=r"config.yaml is missing"):
        checkpoint.load(folder)
    with pytest.raises(CheckpointError, match="no such model"):
        checkpoint.load(tmp_path / "none")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        checkpoint.load(tmp_path)


def test_an_experiment_resolves_to_average_best_or_last(tmp_path):
    for name in ("last", "best", "average"):
        save(tmp_path / "checkpoints" / name)
        assert checkpoint.resolve(tmp_path).name == name


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    save(tmp_path / "model", 1.0)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(WesepError, match="No space left on device"):
        save(tmp_path / "model", 2.0)
    monkeypatch.undo()
    assert torch.equal(checkpoint.load(tmp_path / "model").state_dict["a"], torch.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_folder_with_other_files_is_not_replaced(tmp_path):
    save(tmp_path / "model")
    (tmp_path / "model" / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match=r"other things than a checkpoint \(thesis.tex\)"):
        save(tmp_path / "model", 2.0)
    (tmp_path / "foreign").mkdir()
    for name in ("model.safetensors", "config.yaml"):
        (tmp_path / "foreign" / name).write_text("of another program")
    with pytest.raises(InputError, match="other things than a checkpoint"):
        save(tmp_path / "foreign")
    assert checkpoint.load(tmp_path / "model").state_dict["a"][0] == 1 and len(list(tmp_path.iterdir())) == 2
    save(tmp_path / "model", 3.0, keep_others=True)
    assert (tmp_path / "model" / "thesis.tex").read_text() == "mine"
    assert checkpoint.load(tmp_path / "model").state_dict["a"][0] == 3


def test_similar_folders_of_the_user_are_kept(tmp_path):
    for name in (".model.partial", ".model.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("mine")
    save(tmp_path / "model")
    save(tmp_path / "model", 2.0)
    assert sorted(p.name for p in tmp_path.rglob("*.txt")) == ["notes.txt", "notes.txt"]


def test_after_a_kill_the_previous_checkpoint_is_read(tmp_path, monkeypatch, caplog):
    save(tmp_path / "exp" / "checkpoints" / "best")
    child, rename = os.fork(), Path.rename
    if child == 0:
        try:
            die = os._exit
            monkeypatch.setattr(Path, "rename", lambda self, to: die(9) if "partial" in self.name else rename(self, to))
            save(tmp_path / "exp" / "checkpoints" / "best", 2.0)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not (tmp_path / "exp" / "checkpoints" / "best").exists()
    for path in (tmp_path / "exp" / "checkpoints" / "best", tmp_path / "exp"):
        assert checkpoint.load(path).state_dict["a"][0] == 1
    assert "killed while it replaced this" in caplog.text
    save(tmp_path / "exp" / "checkpoints" / "best", 3.0)
    assert checkpoint.load(tmp_path / "exp").state_dict["a"][0] == 3
    assert [p.name for p in (tmp_path / "exp" / "checkpoints").iterdir()] == ["best"]


def test_a_folder_set_aside_by_an_earlier_version_is_read(tmp_path):
    save(tmp_path / "model").rename(tmp_path / ".model.old")
    assert checkpoint.load(tmp_path / "model").state_dict["a"][0] == 1
