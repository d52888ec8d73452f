"""`wesep models` with its commands, and commands that take a model by its name or by none."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from wesep_py import checkpoint, models
from wesep_py.common.config import dump_yaml
from wesep_py.interop.converters import NATIVE_FILES


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


def rows(out: str, state: str) -> list[str]:
    """Return the lines of the list that end with a state."""
    return [line for line in out.splitlines() if line.endswith(state)]


def test_models_are_listed_with_their_state(wesep, model_store: Path):
    ran = wesep("models")
    assert ran.status == 0, ran.err
    assert ran.out == wesep("models", "list").out
    head, base, figures = ran.out.splitlines()[:3]
    assert head.split() == ["name", "kind", "sample", "rate", "size", "licence", "state"]
    assert (
        base.split()[:2] == ["*", "base"] and "16000 Hz" in base and base.split()[-4:] == ["CC", "BY", "4.0", "bundled"]
    )
    assert figures.strip() == "12.1 dB SI-SDRi on dev_2mix"
    (tiny,) = [line for line in rows(ran.out, "bundled") if line.split()[0] == "tiny"]
    assert tiny.split()[-3:] == ["not", "stated", "bundled"]
    (dvector,) = [line for line in rows(ran.out, "available") if line.split()[0] == "dvector"]
    assert "speaker encoder" in dvector and "15.0 MiB" in dvector and "Apache-2.0" in dvector
    listed = json.loads(wesep("models", "--json").out)
    assert [(m["name"], m["default"], m["stored_as"]) for m in listed if m["state"] == "bundled"] == [
        ("base", True, "F16"),
        ("tiny", False, "F32"),
    ]
    assert all(set(model) == set(listed[0]) for model in listed), "all rows have the same keys"
    voxlock = next(model for model in listed if model["name"] == "voxlock")
    assert (voxlock["loaded"], voxlock["state"]) == ("never", "by hand")


def test_the_card_of_a_model_is_printed(wesep, model_store: Path):
    assert wesep("models", "base").out == "# base\n\nA card.\n"
    about = json.loads(wesep("models", "base", "--json").out)
    assert about["card"] == "# base\n\nA card.\n" and about["provenance"]["format_version"] == 1
    ran = wesep("models", "bass")
    assert ran.status == 2 and "did you mean 'base'?" in ran.message
    ran = wesep("models", "dvector")
    assert ran.status == 2 and "dvector: is not installed; `wesep models pull dvector` installs it" in ran.message


def test_all_facts_of_a_model_are_shown(wesep, model_store: Path):
    shown = dict(line.split("  ", 1) for line in wesep("models", "show", "base").out.splitlines())
    assert shown["state"].strip() == "bundled" and shown["licence"].strip() == "CC BY 4.0" and "hash" in shown
    out = wesep("models", "show", "espnet-td-speakerbeam-librimix").out
    for text in (
        "CC BY 4.0",
        "SI-SNR 10.74 dB",
        "https://huggingface.co/espnet/",
        "99epoch.pth",
        "ESPnet-SE",
        "layout: deduced",
    ):
        assert text in out
    assert "needs --accept-licence" in wesep("models", "show", "wesep-bsrnn-ecapa-vox1").out
    shown = json.loads(wesep("models", "show", "dvector", "--json").out)
    assert shown["state"] == "available" and shown["registry"]["sources"][0]["wheel"] == "Resemblyzer==0.1.4"
    ran = wesep("models", "show", "dvectr")
    assert ran.status == 2 and "did you mean 'dvector'?" in ran.message


def test_no_bundled_model_is_reported(wesep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(models, "MODELS_FOLDER", tmp_path)
    ran = wesep("models")
    assert ran.status == 0 and not rows(ran.out, "bundled") and "no model is bundled" in ran.err
    assert {model["state"] for model in json.loads(wesep("models", "--json").out)} == {"available", "by hand"}
    ran = wesep("models", "base")
    assert ran.status == 2 and "(allowed: none)" in ran.message


@pytest.fixture
def registry(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a registry with a model of ours in a folder, and an empty store."""
    monkeypatch.setenv("WESEP_HOME", str(tmp_path / "home"))
    files = {role: name for role, name in NATIVE_FILES.items() if role != "card"}
    about = {"kind": "extractor", "task": "tests", "sample_rate": 16000, "conversion": "native", "licence": None}
    path = tmp_path / "more.yaml"
    path.write_text(dump_yaml({"models": {"mine": {**about, "sources": [{"folder": tiny_model, "files": files}]}}}))
    return path


def test_a_model_is_pulled_used_verified_and_removed(wesep, registry: Path, tiny_speech: Path, tmp_path: Path):
    ran = wesep("models", "pull", "mine", "--registry", registry)
    assert ran.status == 2 and "states no licence" in ran.message and "--accept-licence" in ran.message
    assert rows(wesep("models", "list", "--registry", registry).out, "available")[-1].split()[0] == "mine"
    ran = wesep("models", "pull", "mine", "--registry", registry, "--accept-licence")
    assert ran.status == 0 and "licence not stated; use it by --model mine" in ran.out, ran.err
    assert "mine" in rows(wesep("models", "list").out, "installed")[0]
    assert wesep("models", "mine").out.startswith("# mine\n\nA public model, converted by wesep-py")
    assert "accepted when it was installed" in wesep("models", "show", "mine").out
    ran = wesep("models", "pull", "mine", "--registry", registry, "--accept-licence")
    assert ran.status == 2 and "is installed already" in ran.message
    ran = wesep("models", "pull", "mine", "--registry", registry, "--accept-licence", "--overwrite", "--json")
    assert json.loads(ran.out)["folder"] == str(tmp_path / "home" / "models" / "mine")

    anna, bert = tiny_speech / "anna" / "anna-0.wav", tiny_speech / "bert" / "bert-0.wav"
    out = tmp_path / "out.wav"
    ran = wesep("extract", bert, "--enroll", anna, "-o", out, "--device", "cpu", "--model", "mine")
    assert ran.status == 0 and out.is_file(), ran.err

    ran = wesep("models", "verify", "mine")
    assert ran.status == 0 and ran.out == "mine: unchanged, and its network can be built\n"
    weights = tmp_path / "home" / "models" / "mine" / "model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    ran = wesep("models", "verify")
    assert ran.status == 2 and "base: unchanged" in ran.out and "mine: " in ran.out and "hash differs" in ran.out
    assert ran.message.endswith("1 of 2 model(s) are damaged: mine")
    assert json.loads(wesep("models", "verify", "base", "--json").out) == [{"name": "base", "problem": None}]

    ran = wesep("models", "remove", "mine")
    assert ran.status == 0 and ran.out.endswith("mine: removed\n") and not weights.parent.exists()
    ran = wesep("models", "remove", "base")
    assert ran.status == 2 and "comes with the package" in ran.message
    ran = wesep("extract", bert, "--enroll", anna, "-o", tmp_path / "no.wav", "--model", "dvector")
    assert ran.status == 2 and "`wesep models pull dvector` installs it" in ran.message


def test_a_model_that_nobody_knows_gets_a_suggestion(wesep, registry: Path):
    ran = wesep("models", "pull", "dvektor")
    assert ran.status == 2 and "no model is called 'dvektor'; did you mean 'dvector'?" in ran.message
    registry.write_text("models: {mine: {kind: extractor}}")
    ran = wesep("models", "list", "--registry", registry)
    assert ran.status == 2 and f"{registry}: models.mine." in ran.message and "is required but missing" in ran.message
    assert wesep("models", "pull").status == 2 and wesep("models", "remove").status == 2


def test_offline_is_one_line(wesep, registry: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://nowhere.invalid")
    ran = wesep("models", "pull", "wespeaker-resnet34")
    assert ran.status == 1 and "nowhere.invalid: cannot be reached" in ran.message and "--from" in ran.message
    monkeypatch.setenv("HF_ENDPOINT", "mirror")
    ran = wesep("models", "pull", "wespeaker-resnet34")
    assert ran.status == 2 and "HF_ENDPOINT: is mirror" in ran.message


def test_help_of_each_command_loads_nothing_heavy():
    for name in ("", "list", "show", "pull", "verify", "remove"):
        arguments = [word for word in ("models", name, "--help") if word]
        code = f"import sys; from wesep_py.cli.main import main; main({arguments!r}); assert 'torch' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


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
