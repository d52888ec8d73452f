"""`wesep calibrate`."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

import wesep_py
from wesep_py import checkpoint


@pytest.fixture
def results(tiny_model: Path, tmp_path: Path) -> Path:
    """Results in an older format, in which present targets mostly have the higher probabilities."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "results"
    folder.mkdir()
    lines = [
        {"outcome": outcome, "presence": float(1 / (1 + np.exp(-rng.normal(mean, 1.0)))), "duration_s": 4.0}
        for outcome, mean in (("scored", 1.5), ("absent", -0.5))
        for _ in range(100)
    ]
    (folder / "per_trial.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    model = {"name": "tiny", "hash": checkpoint.load(tiny_model).hash}
    (folder / "summary.json").write_text(json.dumps({"protocol": {"model": model, "presence_threshold": 0.5}}))
    return folder


def calibrated(wesep, results: Path, model: Path, *more: str) -> dict:
    ran = wesep("calibrate", results, "--model", model, "--max-lost", "0.1", "--json", *more)
    assert ran.status == 0, ran.err
    return json.loads(ran.out)


def test_the_calibration_is_written_into_the_checkpoint(wesep, tiny_model: Path, results: Path, tmp_path: Path):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    ran = wesep("calibrate", results, "--model", model, "--check", results, "--max-lost", "0.1")
    assert ran.status == 0 and "threshold" in ran.out and f"checked on {results}" in ran.out
    written = wesep_py.load(model, "cpu").calibration
    assert written.scale != 1 and written.offset != 0


def test_calibrating_again_gives_the_same_calibration(wesep, tiny_model: Path, results: Path, tmp_path: Path):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    runs = [calibrated(wesep, results, model) for _ in range(3)]
    assert runs[0] == runs[1] == runs[2]
    assert runs[0]["calibration"] == asdict(wesep_py.load(model, "cpu").calibration)
    assert runs[0]["there"]["lost"] <= 0.1 and runs[0]["checked"] is None


def test_results_of_the_calibrated_model_give_the_same(wesep, tiny_model: Path, results: Path, tmp_path: Path):
    """The calibration in the protocol is removed from the probabilities before they are fitted."""
    model = shutil.copytree(tiny_model, tmp_path / "model")
    first = calibrated(wesep, results, model)
    applied = wesep_py.load(model, "cpu").calibration
    lines = [json.loads(line) for line in (results / "per_trial.jsonl").read_text().splitlines()]
    for line in lines:
        line["presence"] = applied.probability(float(np.log(line["presence"] / (1 - line["presence"]))))
    (results / "per_trial.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = json.loads((results / "summary.json").read_text())
    summary["protocol"] |= {"presence_threshold": applied.threshold, "presence_calibration": asdict(applied)}
    (results / "summary.json").write_text(json.dumps(summary))
    again = calibrated(wesep, results, model)
    assert again["calibration"] == pytest.approx(first["calibration"], rel=1e-6)


def test_a_dry_run_prints_the_calibration_and_writes_nothing(wesep, tiny_model: Path, results: Path, tmp_path: Path):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    before = (model / "provenance.json").read_bytes()
    printed = calibrated(wesep, results, model, "--dry-run")
    assert (model / "provenance.json").read_bytes() == before
    assert printed == calibrated(wesep, results, model)
    assert (model / "provenance.json").read_bytes() != before


def test_results_of_another_model_are_refused(wesep, tiny_model: Path, results: Path):
    text = (results / "summary.json").read_text()
    (results / "summary.json").write_text(text.replace(checkpoint.load(tiny_model).hash, "cd" * 32))
    ran = wesep("calibrate", results, "--model", tiny_model, "--dry-run")
    assert ran.status == 2 and "is of another model (hash cdcdcdcdcdcd, this one is" in ran.message


def test_missing_results_are_named(wesep, tiny_model: Path, tmp_path: Path):
    ran = wesep("calibrate", tmp_path / "none", "--model", tiny_model)
    assert ran.status == 2 and "per_trial.jsonl: no such file; make it with `wesep evaluate`" in ran.message


def test_frames_are_calibrated(wesep, tiny_model: Path, results: Path, tmp_path: Path):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    lines = [json.loads(line) for line in (results / "per_trial.jsonl").read_text().splitlines()]
    for line in lines:
        active = [1, 2, 6, 9] if line["outcome"] == "scored" else [0] * 4
        line["presence_frames"] = {"lowest": -2, "active": active, "inactive": [9, 6, 2, 1]}
    (results / "per_trial.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ran = wesep("calibrate", results, "--model", model)
    written = wesep_py.load(model, "cpu").calibration
    assert ran.status == 0 and f"frames: scale {written.frame_scale:.4g}" in ran.out
    assert written.frame_scale > 1.5 and written.frame_offset < 0
    assert wesep("calibrate", results, "--model", model).status == 0
    assert wesep_py.load(model, "cpu").calibration == written
