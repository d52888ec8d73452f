"""Bundled models are found by name, described without loading, small enough, and part of the wheel."""

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
def models_folder(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a models folder with `base`, `small`, and folders that are not models."""
    folder = tmp_path / "models"
    for name in ("small", "base", ".base.partial"):
        shutil.copytree(tiny_model, folder / name)
    (folder / "__pycache__").mkdir()
    (folder / "unfinished").mkdir()
    monkeypatch.setattr(models, "MODELS_FOLDER", folder)
    return folder


def test_models_are_found_by_name(models_folder: Path):
    assert list(models.bundled_models()) == ["base", "small"]
    assert models.find_model("small") == ("small", models_folder / "small")
    assert models.find_model() == ("base", models_folder / "base")


def test_an_existing_path_has_priority(models_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    assert models.find_model("base") == ("base", Path("base"))
    assert models.find_model(tmp_path / "base") == (str(tmp_path / "base"), tmp_path / "base")


def test_an_unknown_name_gets_a_suggestion(models_folder: Path, tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"bsae: no such model; did you mean 'base'\? \(allowed: base, small\)"):
        models.find_model("bsae")
    nowhere = tmp_path / "nowhere"
    assert models.find_model(nowhere) == (str(nowhere), nowhere), "a path is left to what reads checkpoints"


def test_without_a_default_a_model_has_to_be_named(models_folder: Path):
    shutil.rmtree(models_folder / "base")
    with pytest.raises(InputError, match=r"no model is bundled with this version yet; name one .*or one of small$"):
        models.find_model()
    shutil.rmtree(models_folder / "small")
    with pytest.raises(InputError, match=r"experiment folder$"):
        models.find_model()
    assert models.find_model("base") == ("base", Path("base"))


def test_the_description_agrees_with_the_loaded_model(models_folder: Path, tiny_model: Path):
    saved, model = checkpoint.load(tiny_model), models.bundled_models()["base"]
    assert model.parameters == sum(tensor.numel() for tensor in saved.state_dict.values())
    assert (model.sample_rate, model.stored_as) == (16000, "F32")
    assert model.size_bytes == len((tiny_model / checkpoint.WEIGHTS).read_bytes())
    assert model.as_dict()["hash"] == saved.hash
    assert model.licence is None and model.figures is None
    about = json.loads((models_folder / "base" / "provenance.json").read_text())
    about[models.BUNDLE_KEY] = {"licence": "CC BY 4.0", "figures": "12 dB"}
    (models_folder / "base" / "provenance.json").write_text(json.dumps(about))
    assert (models.bundled_models()["base"].licence, models.bundled_models()["base"].figures) == ("CC BY 4.0", "12 dB")


@pytest.mark.parametrize("file", [checkpoint.WEIGHTS, checkpoint.PROVENANCE])
def test_errors_name_a_damaged_file(models_folder: Path, file: str):
    (models_folder / "base" / file).write_bytes(b"\x05\x00\x00")
    with pytest.raises(CheckpointError, match=file.replace(".", r"\.")):
        models.bundled_models()["base"].as_dict()


def test_bundled_models_are_small_and_complete():
    for model in models.bundled_models().values():
        assert model.size_bytes <= models.MAX_WEIGHTS_BYTES, f"{model.name}: {model.size_bytes} bytes"
        assert checkpoint.load(model.folder).hash and model.card and model.licence and model.figures


@pytest.mark.parametrize("name", sorted(models.bundled_models()))
def test_bundled_models_enroll_and_extract(wesep, tiny_speech: Path, tmp_path: Path, name: str):
    anna, bert = tiny_speech / "anna/anna-0.wav", tiny_speech / "bert/bert-0.wav"
    options = ["--model", name, "--device", "cpu"]
    assert wesep("enroll", anna, "-o", tmp_path / "anna.voice", *options).status == 0
    for source, output in ((anna, "by_recording.wav"), (tmp_path / "anna.voice", "by_print.wav")):
        ran = wesep("extract", bert, "--enroll", source, "-o", tmp_path / output, "--force", *options)
        assert ran.status == 0, ran.message
    (by_recording, _), (by_print, _) = (read(tmp_path / f"by_{what}.wav") for what in ("recording", "print"))
    assert by_recording.any() and np.array_equal(by_recording, by_print)


def test_listing_models_imports_neither_torch_nor_numpy():
    code = "import sys, wesep_py.models as m; m.bundled_models(); print({'torch', 'numpy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_wheel_contains_the_models(tiny_model: Path, tmp_path: Path):
    """Build a wheel from a copy with a model whose files `.gitignore` excludes."""
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
    names = zipfile.ZipFile(wheel).namelist()
    assert "wesep_py/export/web/stream.js" in names
    packed = {name for name in names if name.startswith("wesep_py/models/")}
    parts = (checkpoint.WEIGHTS, checkpoint.CONFIG, checkpoint.PROVENANCE, checkpoint.CARD)
    shipped = {f"{name}/{part}" for name in ("tiny", *models.bundled_models()) for part in parts}
    modules = {path.name for path in (ROOT / "wesep_py" / "models").iterdir() if path.suffix in (".py", ".yaml")}
    assert packed == {f"wesep_py/models/{name}" for name in (*modules, *shipped)}
