"""Loading a model: by folder and name, in half precision, and on a device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import wesep_py
from wesep_py import checkpoint, models
from wesep_py.common.errors import CheckpointError, InputError
from wesep_py.inference import pick_device


def test_checkpoint_is_loaded_by_path(tiny_model: Path):
    extractor = wesep_py.load(str(tiny_model), device="cpu")
    assert extractor.sample_rate == 16000
    assert extractor.name == str(tiny_model)


def test_without_a_bundled_model_a_name_is_required(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(models, "MODELS_FOLDER", tmp_path)
    with pytest.raises(InputError, match="--model"):
        wesep_py.load()


def test_half_precision_weights_compute_as_float32(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(models, "MODELS_FOLDER", tmp_path)
    saved = checkpoint.load(tiny_model)
    half = {name: value.half() for name, value in saved.state_dict.items()}
    checkpoint.save(tmp_path / models.DEFAULT_MODEL, saved.config, half)
    extractor = wesep_py.load(device="cpu")
    assert extractor.name == wesep_py.load(models.DEFAULT_MODEL, "cpu").name == models.DEFAULT_MODEL
    weights = extractor.network.state_dict()
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert all(torch.equal(weights[name], value.float()) for name, value in half.items())
    noise = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    exact = wesep_py.load(tiny_model, "cpu")
    exact_output, half_output = (
        model.extract((noise, 16000), model.enroll((noise, 16000))).waveform for model in (exact, extractor)
    )
    assert not np.array_equal(exact_output, half_output), "the weights are not those of the float32 checkpoint"
    assert np.linalg.norm(exact_output - half_output) < 1e-2 * np.linalg.norm(exact_output)


def test_misspelt_name_gets_the_nearest_as_a_hint(tiny_model: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(models, "MODELS_FOLDER", tmp_path)
    saved = checkpoint.load(tiny_model)
    checkpoint.save(tmp_path / "base", saved.config, saved.state_dict)
    with pytest.raises(CheckpointError, match="did you mean 'base'"):
        wesep_py.load("bas", "cpu")


def test_missing_model_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match="nowhere"):
        wesep_py.load(tmp_path / "nowhere")


def test_devices_by_name(monkeypatch: pytest.MonkeyPatch):
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
