from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import wesep_py


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Results of a list whose present voices have the higher probabilities, by and large."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "results"
    folder.mkdir()
    lines = [
        {"outcome": outcome, "presence": float(1 / (1 + np.exp(-rng.normal(mean, 1.0))))}
        for outcome, mean in (("scored", 1.5), ("absent", -0.5))
        for _ in range(100)
    ]
    (folder / "per_trial.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_checkpoint_is_calibrated(wesep, tiny_model: Path, results: Path, tmp_path: Path):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    ran = wesep("calibrate", results, "--model", model, "--check", results, "--max-lost", "0.1")
    assert ran.status == 0 and "threshold" in ran.out and f"on {results}" in ran.out
    again = json.loads(wesep("calibrate", results, "--model", model, "--max-lost", "0.1", "--json").out)
    written = wesep_py.load(model, "cpu").calibration
    # Made of the same results: the second calibration takes the first back before it is fitted.
    assert again["calibration"]["threshold"] == written.threshold and again["there"]["lost"] <= 0.1
    assert written.offset != 0 and again["checked"] is None


def test_results_that_are_not_there_are_named(wesep, tiny_model: Path, tmp_path: Path):
    ran = wesep("calibrate", tmp_path / "none", "--model", tiny_model)
    assert ran.status == 2 and "per_trial.jsonl: no such file; make it with `wesep evaluate`" in ran.message
