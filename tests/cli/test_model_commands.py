"""`wesep models`, and commands that take a bundled model by its name or by none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import soundfile

from wesep_py import checkpoint, models


@pytest.fixture
def model_store(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "models"
    monkeypatch.setattr(models, "MODELS_FOLDER", folder)
    saved = checkpoint.load(tiny_model)
    half = {name: value.half() for name, value in saved.state_dict.items()}
    about = {models.BUNDLE_KEY: {"licence": "CC BY 4.0", "figures": "12.1 dB SI-SDRi on dev_2mix"}}
    checkpoint.save(folder / "base", saved.config, half, about, "# base\n\nA card.\n")
    shutil.copytree(tiny_model, folder / "tiny")
    return folder


def test_bundled_models_are_listed(wesep, model_store: Path):
    ran = wesep("models")
    assert ran.status == 0, ran.err
    head, base, figures, tiny = ran.out.splitlines()
    assert head.split() == ["name", "size", "parameters", "sample", "rate", "licence", "state"]
    assert (
        base.split()[:2] == ["*", "base"] and "16000 Hz" in base and base.split()[-4:] == ["CC", "BY", "4.0", "bundled"]
    )
    assert figures.strip() == "12.1 dB SI-SDRi on dev_2mix"
    assert tiny.split()[0] == "tiny" and tiny.split()[-3:] == ["not", "stated", "bundled"]
    listed = json.loads(wesep("models", "--json").out)
    assert [(model["name"], model["default"], model["stored_as"]) for model in listed] == [
        ("base", True, "F16"),
        ("tiny", False, "F32"),
    ]


def test_the_card_of_a_model_is_printed(wesep, model_store: Path):
    assert wesep("models", "base").out == "# base\n\nA card.\n"
    about = json.loads(wesep("models", "base", "--json").out)
    assert about["card"] == "# base\n\nA card.\n" and about["provenance"]["format_version"] == 1
    ran = wesep("models", "bass")
    assert ran.status == 2 and "did you mean 'base'?" in ran.message


def test_no_bundled_model_is_reported(wesep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(models, "MODELS_FOLDER", tmp_path)
    ran = wesep("models")
    assert (ran.status, ran.out) == (0, "") and "no model is bundled" in ran.err
    assert json.loads(wesep("models", "--json").out) == []
    ran = wesep("models", "base")
    assert ran.status == 2 and "(allowed: none)" in ran.message


def test_commands_use_the_default_model_or_a_named_one(wesep, model_store: Path, tiny_speech: Path, tmp_path: Path):
    anna, bert = tiny_speech / "anna" / "anna-0.wav", tiny_speech / "bert" / "bert-0.wav"
    estimates = []
    for name, options in {"none": [], "named": ["--model", "base"], "path": ["--model", model_store / "base"]}.items():
        out = tmp_path / f"{name}.wav"
        ran = wesep("extract", bert, "--enroll", anna, "-o", out, "--device", "cpu", *options)
        assert ran.status == 0, ran.err
        estimates.append(soundfile.read(out)[0].tolist())
    assert estimates[0] == estimates[1] == estimates[2]
    voice = tmp_path / "anna.voice"
    ran = wesep("enroll", anna, "-o", voice, "--device", "cpu", "--json")
    assert ran.status == 0 and json.loads(ran.out)["model"] == "base", ran.err
    assert wesep("extract", bert, "--enroll", voice, "-o", tmp_path / "by_print.wav", "--device", "cpu").status == 0
    ran = wesep("extract", bert, "--enroll", anna, "-o", tmp_path / "no.wav", "--model", "tinny")
    assert ran.status == 2 and "did you mean 'tiny'?" in ran.message


def test_evaluation_stores_name_and_hash_of_a_bundled_model(
    wesep, model_store: Path, tiny_speech: Path, tmp_path: Path
):
    rows = [tiny_speech / name / f"{name}-0.wav" for name in ("anna", "bert")]
    (tmp_path / "list.csv").write_text(
        f"mixture_ID,source_1_path,source_1_gain,source_2_path,source_2_gain\nmix,{rows[0]},1,{rows[1]},1\n"
    )
    (tmp_path / "list.map").write_text(f"mix anna-0 {tiny_speech / 'anna' / 'anna-1.wav'}\n")
    arguments = ["--trials", tmp_path / "list.csv", "--enrollment", tmp_path / "list.map", "-o", tmp_path / "out"]
    ran = wesep("evaluate", *arguments, "--device", "cpu", "--json")
    assert ran.status == 0, ran.err
    assert json.loads(ran.out)["protocol"]["model"] == {
        "name": "base",
        "hash": checkpoint.load(model_store / "base").hash,
    }
