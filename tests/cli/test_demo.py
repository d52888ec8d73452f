"""`wesep demo` with a bundled model, or with very little training: its output and its files agree."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import soundfile

from wesep_py import models
from wesep_py.cli import demo

pytest.importorskip("espeakng_loader")
pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "demo"


@pytest.fixture(autouse=True)
def model_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder the folder of bundled models."""
    monkeypatch.setattr(models, "MODELS_FOLDER", tmp_path / "models")
    return models.MODELS_FOLDER


def test_demo_trains_a_model_and_writes_its_files(wesep, folder: Path):
    ran = wesep("demo", "-o", folder, "--minutes", "0.05", "--device", "cpu", "--threads", "1", "--json")
    assert ran.status == 0, ran.err
    report = json.loads(ran.out)
    assert report["num_mixtures"] == 20 and -30 < report["mean_si_sdri_db"] < 30
    lengths = {part: soundfile.info(report[part]).frames for part in ("mixture", "extracted", "reference")}
    assert set(lengths.values()) == {4 * 16000}
    assert soundfile.info(report["enrollment"]).duration > 2
    assert Path(report["picture"]).read_bytes()[:4] == b"\x89PNG"
    assert (folder / "model" / "checkpoints" / "average" / "model.safetensors").is_file()


def test_printed_numbers_match_the_files(wesep, folder: Path):
    from wesep_py.metrics import si_sdr

    ran = wesep("demo", "-o", folder, "--model", folder / "model", "--device", "cpu", "--overwrite", "--json")
    report = json.loads(ran.out)
    mixture, extracted, reference = (
        soundfile.read(report[part], dtype="float32")[0] for part in ("mixture", "extracted", "reference")
    )
    assert float(si_sdr(mixture, reference)) == pytest.approx(report["shown_si_sdr_before_db"], abs=0.01)
    assert float(si_sdr(extracted, reference)) == pytest.approx(report["shown_si_sdr_after_db"], abs=0.01)


def test_the_printed_command_reproduces_the_estimate(wesep, folder: Path, tmp_path: Path):
    ran = wesep("demo", "-o", folder, "--model", folder / "model", "--device", "cpu", "--overwrite")
    line = next(line for line in ran.out.splitlines() if line.strip().startswith("wesep extract"))
    arguments = [*line.split()[1:-1], str(tmp_path / "out.wav"), "--device", "cpu"]
    assert wesep(*arguments).status == 0
    expected, _ = soundfile.read(folder / "extracted.wav", dtype="float32")
    got, _ = soundfile.read(tmp_path / "out.wav", dtype="float32")
    assert got == pytest.approx(expected, abs=1e-5)


def test_existing_files_are_not_replaced(wesep, tmp_path: Path):
    (tmp_path / "mixture.wav").write_bytes(b"somebody's")
    ran = wesep("demo", "-o", tmp_path)
    assert ran.status == 2 and "exists already" in ran.message
    assert [path.name for path in tmp_path.iterdir()] == ["mixture.wav"]
    assert (tmp_path / "mixture.wav").read_bytes() == b"somebody's"


def speak_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use few sentences and mixtures."""
    monkeypatch.setattr(demo, "SENTENCES", demo.HELD_OUT_SENTENCES + 1)
    monkeypatch.setattr(demo, "NUM_MIXTURES", 3)


def test_a_bundled_model_is_used_without_training(wesep, model_store, tiny_model: Path, tmp_path: Path, monkeypatch):
    shutil.copytree(tiny_model, model_store / models.DEFAULT_MODEL)
    speak_little(monkeypatch)
    ran = wesep("demo", "-o", tmp_path / "shown", "--device", "cpu")
    assert ran.status == 0, ran.err
    assert [line[:3] for line in ran.err.splitlines()] == ["1/3", "2/3", "3/3"]
    assert not (tmp_path / "shown" / "model").exists()
    assert f"The model is {models.DEFAULT_MODEL};" in ran.out
    line = next(line for line in ran.out.splitlines() if line.strip().startswith("wesep extract"))
    assert "--model" not in line
    arguments = [*line.split()[1:-1], str(tmp_path / "out.wav"), "--device", "cpu"]
    assert wesep(*arguments).status == 0
    expected, got = (soundfile.read(path)[0] for path in (tmp_path / "shown" / "extracted.wav", tmp_path / "out.wav"))
    assert got == pytest.approx(expected, abs=1e-5)


def test_train_option_trains_a_model(wesep, model_store: Path, tiny_model: Path, tmp_path: Path, monkeypatch):
    shutil.copytree(tiny_model, model_store / models.DEFAULT_MODEL)
    speak_little(monkeypatch)
    monkeypatch.setattr(demo, "_train", lambda experiment, *rest: shutil.copytree(tiny_model, experiment))
    ran = wesep("demo", "-o", tmp_path / "shown", "--train", "--device", "cpu", "--json")
    assert ran.status == 0, ran.err
    assert json.loads(ran.out)["model"] == str(tmp_path / "shown" / "model")
    ran = wesep("demo", "-o", tmp_path / "other", "--train", "--model", models.DEFAULT_MODEL)
    assert ran.status == 2 and "--train" in ran.message


def test_foreign_voices_are_not_replaced(wesep, tmp_path: Path):
    voices = tmp_path / "dd" / "voices"
    (voices / "alice").mkdir(parents=True)
    (voices / "alice" / "000.wav").write_bytes(b"mine")
    (voices / "manifest.jsonl").write_text("mine")
    message = "holds files that are not from a demo (alice/000.wav, manifest.jsonl)"
    for more in ([], ["--overwrite"]):
        ran = wesep("demo", "-o", tmp_path / "dd", *more)
        assert ran.status == 2 and message in ran.message
    assert (voices / "manifest.jsonl").read_text() == "mine"
    assert [path.name for path in (tmp_path / "dd").iterdir()] == ["voices"]
    (voices / "alice" / "000.wav").unlink()
    ran = wesep("demo", "-o", tmp_path / "dd", "--overwrite")
    assert ran.status == 2 and "holds files that are not from a demo (manifest.jsonl)" in ran.message
    (voices / "manifest.jsonl").write_text('{"utterance_id": "toy000-000"}')
    ran = wesep("demo", "-o", tmp_path / "dd")
    assert ran.status == 2 and "exists already; name another output, or pass --overwrite" in ran.message
