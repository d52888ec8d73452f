"""Models by path, and devices by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import wesep_py
from wesep_py import checkpoint, models
from wesep_py.common.errors import CheckpointError, InputError
from wesep_py.inference import pick_device


def test_a_checkpoint_is_loaded_ready_for_use(tiny_model: Path):
    extractor = wesep_py.load(str(tiny_model), device="cpu")
    assert extractor.sample_rate == 16000
    assert extractor.name == str(tiny_model)


def test_without_a_bundled_model_one_has_to_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    with pytest.raises(InputError, match="--model"):
        wesep_py.load()


def test_a_bundled_model_in_half_precision_computes_as_float32(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    saved = checkpoint.load(tiny_model)
    half = {name: value.half() for name, value in saved.state_dict.items()}
    checkpoint.save(tmp_path / models.DEFAULT, saved.config, half)
    extractor = wesep_py.load(device="cpu")
    assert extractor.name == wesep_py.load(models.DEFAULT, "cpu").name == models.DEFAULT
    found = extractor.network.state_dict()
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert all(torch.equal(found[name], value.float()) for name, value in half.items())
    noise = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    exact = wesep_py.load(tiny_model, "cpu")
    one, other = (model.extract((noise, 16000), model.enroll((noise, 16000))).waveform for model in (exact, extractor))
    assert not np.array_equal(one, other), "the weights are not those of the float32 checkpoint"
    assert np.linalg.norm(one - other) < 1e-2 * np.linalg.norm(one)


def test_a_misspelt_name_is_answered_with_the_nearest(tiny_model: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    saved = checkpoint.load(tiny_model)
    checkpoint.save(tmp_path / "base", saved.config, saved.state_dict)
    with pytest.raises(CheckpointError, match="did you mean 'base'"):
        wesep_py.load("bas", "cpu")


def test_a_missing_model_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match="nowhere"):
        wesep_py.load(tmp_path / "nowhere")


def test_devices(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("cpu") == "cpu"
    assert pick_device("auto") == "cpu"
    with pytest.raises(InputError, match=r"'tpu' is not there; choose among auto, cpu"):
        pick_device("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("auto") == "cuda"
    assert pick_device("cuda:1") == "cuda:1"
    with pytest.raises(InputError, match="'cuda:2' is not there"):
        pick_device("cuda:2")
