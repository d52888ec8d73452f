"""Fitting the presence verifier: the logistic, the threshold, reading results, and the command."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from wesep_py import checkpoint
from wesep_py.common.errors import InputError
from wesep_py.evaluation.verifier_calibration import calibrate_verifier, detection, fit_logistic
from wesep_py.inference.presence_decision.presence import sigmoid
from wesep_py.inference.presence_decision.presence_verifier import EVIDENCE, read_verifiers


def test_weights_that_made_the_labels_are_found():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20000, 3)) * [1.0, 0.1, 20.0] + [0.0, 2.0, -5.0]
    weights, offset = np.array([1.5, -8.0, 0.05]), 16.0
    present = rng.uniform(size=len(x)) < sigmoid(x @ weights + offset)
    fitted, found = fit_logistic(x, present, ridge=1e-9)
    np.testing.assert_allclose(fitted, weights, rtol=0.1)
    assert found == pytest.approx(offset, rel=0.1)


def test_separated_trials_have_a_finite_solution():
    weights, offset = fit_logistic([[0.0], [1.0], [9.0], [10.0]], [0, 0, 1, 1])
    assert 0 < weights[0] < 10 and np.isfinite(offset)
    with pytest.raises(InputError, match="with present and with absent"):
        fit_logistic([[0.0], [1.0]], [1, 1])


def test_detection_by_hand():
    row = detection([0.5, 0.6, 0.7, 0.8, 0.9, 0.55, 0.1], [1, 1, 1, 1, 1, 0, 0], max_missed=0.2)
    assert row.auc == pytest.approx(0.9) and row.detected == 1.0
    assert detection([0.5, 0.6, 0.7, 0.8, 0.9, 0.55, 0.1], [1, 1, 1, 1, 1, 0, 0], 0.0).detected == 0.5


def write_results(folder: Path, model_hash: str, outcome: str, seed: int, encoder: str = "tones") -> Path:
    """Write results in which only the estimate's cosine, and a little the head, tell present from absent."""
    rng, present = np.random.default_rng(seed), outcome == "scored"
    folder.mkdir(parents=True)
    lines = []
    for number in range(100):
        evidence = dict(zip(EVIDENCE, rng.standard_normal(5), strict=True))
        evidence["head"] += 0.5 * present
        evidence["estimate"] = 0.6 + 0.1 * evidence["estimate"] + 0.25 * present
        record = {
            "mixture_id": f"m{number}", "target_utterance_id": "u", "enrollment": "e.wav", "outcome": outcome,
            "number": number, "duration_s": 4.0, "presence": float(sigmoid(evidence["head"])), "evidence": evidence,
        }  # fmt: skip
        lines.append(json.dumps(record))
    (folder / "per_trial.jsonl").write_text("\n".join(lines) + "\n")
    protocol = {
        "condition": "clean", "trials": {"sha256": "0"}, "metrics": {}, "model": {"name": "tiny", "hash": model_hash},
        "presence_verifier": {"encoder": encoder, "encoder_hash": "e", "calibration": None},
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps({"protocol": protocol, "counts": {"trials": len(lines)}}))
    return folder


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_model, tmp_path / "model")


@pytest.fixture
def results(model: Path, tmp_path: Path) -> list[Path]:
    """Present and absent targets of two lists."""
    of_model = checkpoint.load(model).hash
    return [
        write_results(tmp_path / f"{name}{suffix}" / "clean", of_model, outcome, seed)
        for seed, (name, suffix, outcome) in enumerate(
            (name, suffix, outcome)
            for name in ("dev", "other")
            for suffix, outcome in (("", "scored"), ("_absent", "absent"))
        )
    ]


def test_verifier_is_fitted_checked_and_written(model, results):
    of_model = checkpoint.load(model).hash
    fitted = calibrate_verifier(model, "tones", results[:2], results[2:])
    assert fitted.fitted.lost <= 0.02
    assert fitted.calibration.weights["estimate"] > 10
    for name in ("dev/clean", "other/clean"):
        row = fitted.lists[name]
        assert row.verifier.auc > 0.93 > row.head.auc and row.verifier.detected > row.head.detected
        assert row.verifier_errors[0] > 0.4 and row.verifier_errors[1] < 0.1
    assert checkpoint.load(model).hash == of_model
    stored = read_verifiers(checkpoint.load(model).provenance)["tones"]
    assert stored == fitted.calibration and stored.model_hash == of_model
    about = checkpoint.load(model).provenance["presence_verifiers"]["tones"]
    assert about["checked"]["lost"] == fitted.checked.lost
    assert len(fitted.table().splitlines()) == 5


def test_command_fits_the_same_and_a_dry_run_writes_nothing(wesep, model, results):
    before = (model / "provenance.json").read_bytes()
    arguments = ("calibrate", *results[:2], "--check", results[2], "--check", results[3], "--model", model)
    ran = wesep(*arguments, "--verify", "tones", "--dry-run", "--json")
    assert ran.status == 0, ran.err
    assert (model / "provenance.json").read_bytes() == before
    printed = json.loads(ran.out)
    ran = wesep(*arguments, "--verify", "tones")
    assert ran.status == 0 and "weights: head" in ran.out and "other/clean" in ran.out
    stored = read_verifiers(checkpoint.load(model).provenance)["tones"]
    assert printed["calibration"]["weights"] == stored.weights


def test_results_that_do_not_fit_are_refused(model, results, tmp_path):
    with pytest.raises(InputError, match="was made with the verifier tones; evaluate again with --verify dvector"):
        calibrate_verifier(model, "dvector", results)
    other = write_results(tmp_path / "x" / "clean", "another model", "absent", 9)
    with pytest.raises(InputError, match="is of another model"):
        calibrate_verifier(model, "tones", [results[0], other])
    text = (results[1] / "per_trial.jsonl").read_text()
    (results[1] / "per_trial.jsonl").write_text(re.sub(r', "evidence": {[^}]*}', "", text, count=1))
    with pytest.raises(InputError, match=r"trial 0 has no evidence"):
        calibrate_verifier(model, "tones", results)
