"""Bundled models: found by name, described without being loaded, small enough, and part of the wheel."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from wesep_py import checkpoint, models
from wesep_py.audio import read
from wesep_py.common.errors import CheckpointError, InputError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def shelf(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models folder with `base`, `small`, and things that are no models."""
    folder = tmp_path / "models"
    for name in ("small", "base", ".base.partial"):
        shutil.copytree(tiny_model, folder / name)
    (folder / "__pycache__").mkdir()
    (folder / "unfinished").mkdir()
    monkeypatch.setattr(models, "FOLDER", folder)
    return folder


def test_models_are_found_by_name_the_default_first(shelf: Path):
    assert list(models.bundled()) == ["base", "small"]
    assert models.find("small") == ("small", shelf / "small")
    assert models.find() == ("base", shelf / "base")


def test_a_path_that_exists_wins(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    assert models.find("base") == ("base", Path("base"))
    assert models.find(tmp_path / "base") == (str(tmp_path / "base"), tmp_path / "base")


def test_a_misspelt_name_is_answered_with_the_nearest(shelf: Path, tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"bsae: no such model; did you mean 'base'\? \(allowed: base, small\)"):
        models.find("bsae")
    nowhere = tmp_path / "nowhere"
    assert models.find(nowhere) == (str(nowhere), nowhere), "a path is left to what reads checkpoints"


def test_without_the_default_one_has_to_be_named(shelf: Path):
    shutil.rmtree(shelf / "base")
    with pytest.raises(InputError, match=r"no model is bundled with this version yet; name one .*or one of small$"):
        models.find()
    shutil.rmtree(shelf / "small")
    with pytest.raises(InputError, match=r"experiment folder$"):
        models.find()
    assert models.find("base") == ("base", Path("base"))


def test_what_is_said_without_loading_is_true(shelf: Path, tiny_model: Path):
    saved, model = checkpoint.load(tiny_model), models.bundled()["base"]
    assert model.parameters == sum(tensor.numel() for tensor in saved.state_dict.values())
    assert (model.sample_rate, model.stored_as) == (16000, "F32")
    assert model.size_bytes == len((tiny_model / checkpoint.WEIGHTS).read_bytes())
    assert model.as_dict()["hash"] == saved.hash
    assert model.licence is None and model.figures is None
    about = json.loads((shelf / "base" / "provenance.json").read_text())
    about[models.KEY] = {"licence": "CC BY 4.0", "figures": "12 dB"}
    (shelf / "base" / "provenance.json").write_text(json.dumps(about))
    assert (models.bundled()["base"].licence, models.bundled()["base"].figures) == ("CC BY 4.0", "12 dB")


@pytest.mark.parametrize("file", [checkpoint.WEIGHTS, checkpoint.PROVENANCE])
def test_a_damaged_bundle_is_named(shelf: Path, file: str):
    (shelf / "base" / file).write_bytes(b"\x05\x00\x00")
    with pytest.raises(CheckpointError, match=file.replace(".", r"\.")):
        models.bundled()["base"].as_dict()


def test_what_is_bundled_is_small_and_whole():
    for model in models.bundled().values():
        assert model.size_bytes <= models.MAX_BYTES, f"{model.name}: {model.size_bytes} bytes"
        assert checkpoint.load(model.folder).hash and model.card and model.licence and model.figures


@pytest.mark.parametrize("name", sorted(models.bundled()))
def test_what_is_bundled_enrolls_prints_and_extracts(wesep, tiny_speech: Path, tmp_path: Path, name: str):
    anna, bert = tiny_speech / "anna/anna-0.wav", tiny_speech / "bert/bert-0.wav"
    given = ["--model", name, "--device", "cpu"]
    assert wesep("enroll", anna, "-o", tmp_path / "anna.voice", *given).status == 0
    for source, output in ((anna, "by_recording.wav"), (tmp_path / "anna.voice", "by_print.wav")):
        ran = wesep("extract", bert, "--enroll", source, "-o", tmp_path / output, "--force", *given)
        assert ran.status == 0, ran.message
    (by_recording, _), (by_print, _) = (read(tmp_path / f"by_{what}.wav") for what in ("recording", "print"))
    assert by_recording.any() and np.array_equal(by_recording, by_print)


def test_the_registry_loads_nothing_heavy():
    code = "import wesep_py.models, sys; wesep_py.models.bundled(); assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_wheel_holds_the_models(tiny_model: Path, tmp_path: Path):
    """Built of a copy in which a model lies, and whose `.gitignore` names its files."""
    pytest.importorskip("hatchling")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("wesep_py", "conf"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(tiny_model, tmp_path / "wesep_py" / "models" / "tiny")
    (tmp_path / "wesep_py" / "models" / "__pycache__").mkdir()
    (tmp_path / "wesep_py" / "models" / "__pycache__" / "a.cpython-311.pyc").touch()
    (tmp_path / ".gitignore").write_text("*.safetensors\n*.json\n")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel"], cwd=tmp_path, check=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("wesep_py/models/")}
    parts = (checkpoint.WEIGHTS, checkpoint.CONFIG, checkpoint.PROVENANCE, checkpoint.CARD)
    shipped = {f"{name}/{part}" for name in ("tiny", *models.bundled()) for part in parts}
    assert held == {f"wesep_py/models/{name}" for name in ("__init__.py", *shipped)}
