"""Models by path, and devices by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import wesep_py
from wesep_py.errors import CheckpointError, InputError
from wesep_py.inference import pick_device


def test_a_checkpoint_is_loaded_ready_for_use(tiny_model: Path):
    extractor = wesep_py.load(str(tiny_model), device="cpu")
    assert extractor.sample_rate == 16000
    assert extractor.name == str(tiny_model)


def test_without_a_bundled_model_one_has_to_be_named():
    with pytest.raises(InputError, match="--model"):
        wesep_py.load()


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
