"""`wesep extract` with damaged checkpoints and wrong models, devices and voice prints."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.mark.parametrize("part", ["model.safetensors", "config.yaml", "provenance.json"])
@pytest.mark.parametrize("damage", ["half", "empty", "missing"])
def test_a_damaged_checkpoint_is_refused(wesep, tiny_model: Path, tiny_speech: Path, tmp_path: Path, part, damage):
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    content = (model / part).read_bytes()
    if damage == "missing":
        (model / part).unlink()
    else:
        (model / part).write_bytes(content[: len(content) // 2 if damage == "half" else 0])
    recording = tiny_speech / "anna" / "anna-0.wav"
    ran = wesep("extract", recording, "--enroll", recording, "--model", model, "-o", tmp_path / "out.wav")
    assert ran.status == 2, ran.err
    assert str(model) in ran.message and "Traceback" not in ran.err
    assert not (tmp_path / "out.wav").exists()


def test_a_missing_model_is_refused(wesep, tiny_speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recording = tiny_speech / "anna" / "anna-0.wav"
    ran = wesep("extract", recording, "--enroll", recording, "--model", tmp_path / "none", "-o", tmp_path / "out.wav")
    assert ran.status == 2 and "none: no such model" in ran.message
    monkeypatch.setattr("wesep_py.models.MODELS_FOLDER", tmp_path / "nothing bundled")
    ran = wesep("extract", recording, "--enroll", recording, "-o", tmp_path / "out.wav")
    assert ran.status == 2 and "--model" in ran.message


def test_a_missing_device_is_refused(wesep, tiny_model: Path, tiny_speech: Path, tmp_path: Path):
    recording = tiny_speech / "anna" / "anna-0.wav"
    arguments = ["--model", tiny_model, "-o", tmp_path / "out.wav", "--device", "tpu"]
    ran = wesep("extract", recording, "--enroll", recording, *arguments)
    assert ran.status == 2 and "'tpu' is not there" in ran.message and "cpu" in ran.message


def test_a_voice_print_of_another_model_is_refused(wesep, tiny_model: Path, tiny_speech: Path, tmp_path: Path):
    import torch

    from wesep_py import checkpoint

    saved = checkpoint.load(tiny_model)
    changed = {key: value + torch.ones_like(value) for key, value in saved.state_dict.items()}
    other = checkpoint.save(tmp_path / "other", saved.config, changed)
    recording = tiny_speech / "anna" / "anna-0.wav"
    assert wesep("enroll", recording, "-o", tmp_path / "a.voice", "--model", other).status == 0
    ran = wesep(
        *("extract", recording, "--enroll", tmp_path / "a.voice", "--model", tiny_model, "-o", tmp_path / "out.wav"),
    )
    assert ran.status == 2 and "another model" in ran.message and "enroll it again" in ran.message
