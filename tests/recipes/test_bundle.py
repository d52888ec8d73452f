"""recipes/default/bundle.py: half precision, removed parts, checks and card of a bundled model."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

import wesep_py
from wesep_py import checkpoint, models
from wesep_py.inference.presence_decision.presence import Calibration, save_calibration
from wesep_py.network.extraction_network import build_network

SCRIPTS = Path(__file__).resolve().parents[2] / "recipes" / "default"
MODEL = {
    "backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1},
    "speaker": {"network": {"name": "xvector", "embedding_dim": 8}, "spec_augment": {}},
    "cues": [{"name": "tf_map"}, {"name": "embedding", "num_speakers": 4}],
    "presence": {"hidden": 4},
}
FACTS = ("recipe=train.yaml", "hardware=one CPU")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        return importlib.import_module("bundle")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_speech: Path) -> Path:
    """Write a checkpoint as training does, lists of trials, and results on them; return the folder."""
    from wesep_py.data import read_trials
    from wesep_py.evaluation import evaluate

    torch.manual_seed(0)
    network, folder = build_network(MODEL), tmp_path_factory.mktemp("run")
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value[0] = 1e9  # more than float16 holds
    provenance = {
        "made_by": "wesep train",
        "command": ["/home/someone/wesep", "train", "x.yaml"],
        "step": 7,
        "mixtures": 56,
        "hours_trained": 0.5,
        "went_on_from": [
            {
                "hash": "fe12",
                "steps": [30, 40],
                "mixtures": 320,
                "hours_trained": 1.25,
                "snapshots_averaged": 2,
                "mixed_in": {"share": 0.5, "hash": "012345"},
            },
            {"hash": "cd34", "made_by": "wesep import"},
        ],
        "corpus": {"utterances": 16, "speakers": 4, "hours": 0.1},
        "git": {"commit": "abc123", "branch": "work", "changed": ["/home/someone/notes"], "changed_count": 1},
        "training": {"data": {"root": "/home/someone/corpora/data"}, "noise": ["../data/noise/train"]},
    }
    checkpoint.save(folder / "model", network.config, network.state_dict(), provenance)
    save_calibration(folder / "model", Calibration(2.0, 0.5, 0.4), _calibrated("/home/someone/exp/results/dev_2mix"))
    rows = [tiny_speech / name / f"{name}-0.wav" for name in ("anna", "bert")]
    (folder / "dev_2mix.csv").write_text(
        f"mixture_ID,source_1_path,source_1_gain,source_2_path,source_2_gain\nmix,{rows[0]},1,{rows[1]},1\n"
    )
    enrollments = {name: tiny_speech / name / f"{name}-1.wav" for name in ("anna", "bert", "carl")}
    lines = {"dev_2mix": ("anna", "bert"), "dev_2mix_absent": ("carl",)}
    for listed, names in lines.items():
        targets = ["-" if listed.endswith("absent") else f"{name}-0" for name in names]
        path = folder / f"{listed}.map_mixture2enrollment"
        path.write_text("".join(f"mix {t} {enrollments[n]}\n" for t, n in zip(targets, names, strict=True)))
        trials = read_trials(folder / "dev_2mix.csv", path)
        evaluate(wesep_py.load(folder / "model", "cpu"), trials, folder / "results" / listed / "clean")
    return folder


def _calibrated(*lists: str) -> dict:
    there = {"false_alarms": 0.05, "lost": 0.02, "present": 2, "absent": 1, "ece": 0.031}
    return {"fitted_on": list(lists), "there": there}


def bundled(script: ModuleType, run: Path, output: Path, *options: object) -> int:
    """Run the script on the model of the run; return its exit status."""
    arguments = [run / "model", *FACTS, "-o", output, "--results", run / "results", *options]
    return script.main([str(argument) for argument in arguments])


def test_the_bundle_extracts_almost_the_same(script, run: Path, tmp_path: Path, monkeypatch, tiny_speech):
    monkeypatch.setattr(models, "MODELS_FOLDER", tmp_path)
    assert bundled(script, run, tmp_path / "base", "--half", "--trials", run / "dev_2mix") == 0
    anna, bert = tiny_speech / "anna" / "anna-0.wav", tiny_speech / "bert" / "bert-0.wav"
    before, after = wesep_py.load(run / "model", "cpu"), wesep_py.load(device="cpu")
    expected, estimate = (model.extract(bert, model.enroll(anna)).waveform for model in (before, after))
    assert ((expected - estimate) ** 2).sum() < 1e-4 * (expected**2).sum()
    assert after.calibration == before.calibration == Calibration(2.0, 0.5, 0.4)
    stored = checkpoint.load(tmp_path / "base").state_dict
    whole = {name for name, value in stored.items() if value.dtype == torch.float32}
    assert whole and all(name.endswith("running_var") for name in whole), "only what float16 cannot hold"
    about = models.bundled_models()["base"]
    assert (about.stored_as, about.licence) == ("F16", "CC BY 4.0")
    assert about.figures is not None and "on dev_2mix/clean" in about.figures
    assert about.provenance[models.BUNDLE_KEY]["half_costs"]["trials"] == 2


def test_parts_that_only_training_needs_are_removed(script, run: Path, tmp_path: Path):
    assert bundled(script, run, tmp_path / "base") == 0
    saved = checkpoint.load(tmp_path / "base")
    assert not [name for name in saved.state_dict if "classifier" in name]
    assert set(saved.config["speaker"]) == {"network"}
    removed = saved.provenance[models.BUNDLE_KEY]["removed"]
    assert removed == ["cues.1.classifier.bias", "cues.1.classifier.weight"]
    text = json.dumps(saved.provenance) + (tmp_path / "base" / "card.md").read_text()
    assert "someone" not in text and "../" not in text
    assert saved.provenance["training"] == {"data": {"root": "corpora/data"}, "noise": ["noise/train"]}
    assert saved.provenance["presence"]["fitted_on"] == ["results/dev_2mix"]
    assert saved.provenance["git"] == {"commit": "abc123", "changed_count": 1}


def test_the_card_shows_results_training_and_calibration(script, run: Path, tmp_path: Path):
    assert bundled(script, run, tmp_path / "base") == 0
    card = (tmp_path / "base" / "card.md").read_text()
    present = json.loads((run / "results" / "dev_2mix" / "clean" / "summary.json").read_text())
    absent = json.loads((run / "results" / "dev_2mix_absent" / "clean" / "summary.json").read_text())
    row = next(line for line in card.splitlines() if line.startswith("| dev_2mix/clean | clean | 2 | "))
    assert row.split("|")[4].split()[0] == f"{present['si_sdri']['mean']:.2f}"
    row = next(line for line in card.splitlines() if line.startswith("| dev_2mix_absent/clean | clean | 1 | "))
    assert row.split("|")[4].split()[0] == f"{absent['absent']['attenuation_db']['mean']:.1f}"
    assert "| fitted on results/dev_2mix | 1 | 2 | 5.0 % | 2.0 % | 0.031 |" in card and "0.400 on" in card
    runs = [
        "run 1: 40 steps, 320 simulated mixtures, 1.25 h; the mean of 2 snapshots, with 50% of the weights 012345",
        "run 2, from the weights of the run before: 7 steps, 56 simulated mixtures, 0.5 h",
    ]
    for text in ("one CPU", "CC BY 4.0", *runs, "4 speakers", "RTF", "abc123"):
        assert text in card, text
    assert "$" not in card and "???" not in card and "trained weights" in card


def test_nothing_is_written_if_a_check_fails(script, run: Path, tmp_path: Path, monkeypatch, capsys):
    def refused(*options: object) -> str:
        assert bundled(script, run, tmp_path / "base", *options) > 0
        assert not (tmp_path / "base").exists()
        return capsys.readouterr().err

    half = ("--half", "--trials", run / "dev_2mix")
    assert "--half needs --trials" in refused("--half")
    with monkeypatch.context() as patch:
        patch.setattr(script, "MAX_COST_DB", 0.0)
        assert "half precision changes the SI-SDR by" in refused(*half)
    with monkeypatch.context() as patch:
        patch.setattr(script, "MAX_WEIGHTS_BYTES", 1000)
        assert "0.0 MiB are allowed: store it with --half" in refused()
    other = tmp_path / "other"
    (other / "one").mkdir(parents=True)
    summary = json.loads((run / "results" / "dev_2mix" / "clean" / "summary.json").read_text())
    summary["protocol"]["model"]["hash"] = "0" * 64
    (other / "one" / "summary.json").write_text(json.dumps(summary))
    assert "is of another model (hash 000000000000)" in refused("--results", other)
    assert "holds no summary.json" in refused("--results", tmp_path / "base")
    assert "hardware is missing, and the card needs it" in refused("hardware=???")
    assert "facts.colour: unknown key" in refused("colour=red")


def test_an_existing_bundle_needs_overwrite(script, run: Path, tmp_path: Path, capsys):
    (tmp_path / "base").mkdir()
    assert bundled(script, run, tmp_path / "base") == 2
    assert "exists already" in capsys.readouterr().err and not any((tmp_path / "base").iterdir())
    assert bundled(script, run, tmp_path / "base", "--overwrite") == 0
    assert (tmp_path / "base" / "card.md").is_file()


def test_results_of_the_bundle_itself_are_accepted(script, run: Path, tmp_path: Path):
    from wesep_py.data import read_trials
    from wesep_py.evaluation import evaluate

    assert bundled(script, run, tmp_path / "base") == 0
    trials = read_trials(run / "dev_2mix.csv", run / "dev_2mix.map_mixture2enrollment")
    evaluate(wesep_py.load(tmp_path / "base", "cpu"), trials, tmp_path / "results" / "dev_2mix")
    assert bundled(script, run, tmp_path / "base", "--results", tmp_path / "results", "--overwrite") == 0
    assert "Measured with the weights in this folder." in (tmp_path / "base" / "card.md").read_text()


def test_values_beyond_float16_stay_float32(script):
    values = {"fine": [0.3, -2.0], "zero": [0.0], "tiny": [1e-9], "huge": [1e6]}
    weights = {name: torch.tensor(value) for name, value in values.items()} | {"count": torch.tensor(3)}
    kinds = {name: value.dtype for name, value in script.to_half_precision(weights).items()}
    assert kinds == {
        "fine": torch.float16,
        "zero": torch.float16,
        "tiny": torch.float32,
        "huge": torch.float32,
        "count": torch.int64,
    }
