"""Platt scaling, calibration error, thresholds, and saving into a checkpoint."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

import wesep_py
from tests.inference.networks import BSRNN
from wesep_py import checkpoint
from wesep_py.common.errors import CheckpointError, InputError
from wesep_py.evaluation.calibration import (
    calibrate,
    calibrate_model,
    fit_platt,
    read_presence_scores,
    reliability,
    threshold_at_miss_rate,
)
from wesep_py.inference.presence_decision.presence import Calibration, pool_logits, save_calibration, sigmoid
from wesep_py.network.extraction_network import build_network


def drawn(scale: float, offset: float, count: int = 20000) -> tuple[np.ndarray, np.ndarray]:
    """Draw scores, and labels that are true with the probability sigmoid(scale · score + offset)."""
    rng = np.random.default_rng(0)
    scores = 3 * rng.standard_normal(count)
    return scores, rng.uniform(size=count) < sigmoid(scale * scores + offset)


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (0.3, -1.0), (2.5, 4.0)])
def test_the_parameters_that_made_the_labels_are_found(scale: float, offset: float):
    result = fit_platt(*drawn(scale, offset))
    np.testing.assert_allclose(result, (scale, offset), rtol=0.08, atol=0.08)


def test_newton_ends_where_gradient_descent_does():
    scores, labels = drawn(0.7, 0.4, 300)
    positive, negative = labels.sum(), (~labels).sum()
    targets = torch.tensor(np.where(labels, (positive + 1) / (positive + 2), 1 / (negative + 2)))
    parameters = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([parameters], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = binary_cross_entropy_with_logits(parameters[0] * torch.tensor(scores) + parameters[1], targets)
        loss.backward()
        return loss

    optimiser.step(closure)
    np.testing.assert_allclose(fit_platt(scores, labels), parameters.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_scores_that_tell_all_apart_have_a_finite_solution():
    scale, offset = fit_platt([-1e3, -2e3, 1e3, 2e3], [0, 0, 1, 1])
    assert np.isfinite([scale, offset]).all() and scale > 0
    shifted = fit_platt([9e5 - 1, 9e5 - 2, 9e5 + 1, 9e5 + 2], [0, 0, 1, 1])
    assert sigmoid(shifted[0] * 9e5 + shifted[1]) == pytest.approx(0.5, abs=1e-3)


def test_equal_priors_do_not_depend_on_the_counts():
    scores, labels = drawn(1.0, 0.0)
    many = np.concatenate([scores, *[scores[~labels]] * 4]), np.concatenate([labels, *[labels[~labels]] * 4])
    np.testing.assert_allclose(fit_platt(*many, equal_priors=True), fit_platt(scores, labels, True), atol=0.01)
    assert fit_platt(*many)[1] < fit_platt(scores, labels)[1] - 1


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([1.0, 2.0], [1, 1], "with present and with absent targets"),
        ([1.0, np.inf], [1, 0], "not finite"),
        ([1.0], [1, 0], "one of each per trial"),
        ([1.0, 2.0, 3.0, 4.0], [1, 1, 0, 0], "do not rise with presence"),
    ],
)
def test_trials_that_cannot_be_fitted(scores, labels, message):
    with pytest.raises(InputError, match=message):
        fit_platt(scores, labels)


def test_calibrated_scores_have_a_small_error_overconfident_ones_do_not():
    scores, labels = drawn(0.5, -1.0)
    good = reliability(sigmoid(0.5 * scores - 1.0), labels)
    bold = reliability(sigmoid(3.0 * scores - 1.0), labels)
    assert good.ece < 0.015 and bold.ece > 0.1 and bold.brier > good.brier
    assert sum(one.count for one in good.bins) == len(scores)
    assert all(abs(one.mean - one.present) < 0.05 for one in good.bins)


def test_reliability_by_hand():
    result = reliability([0.05, 0.05, 0.95, 0.95, 1.0], [0, 1, 1, 1, 0], threshold=0.95)
    assert (result.present, result.absent) == (3, 2)
    assert result.lost == pytest.approx(1 / 3) and result.false_alarms == pytest.approx(1 / 2)
    assert result.ece == pytest.approx(2 / 5 * 0.45 + 3 / 5 * abs(2.9 / 3 - 2 / 3))
    assert (result.bins[-1].count, result.bins[5].mean) == (3, None)
    assert "false alarms 50.0 % of 2" in result.table() and len(result.table().splitlines()) == 12


def test_the_threshold_loses_no_more_than_allowed():
    scores, labels = drawn(1.0, 0.0, 2000)
    p = sigmoid(scores)
    for share in (0.0, 0.02, 0.1):
        result = reliability(p, labels, threshold_at_miss_rate(p, labels, share))
        assert result.lost <= share
        higher = reliability(p, labels, np.nextafter(threshold_at_miss_rate(p, labels, share), 1) + 0.01)
        assert higher.lost > share


def test_the_length_correction_of_absent_scores_is_fitted():
    rng = np.random.default_rng(0)
    durations_s = rng.choice([3.0, 12.0, 60.0], 6000)
    labels = rng.uniform(size=6000) < 0.5
    scores = np.where(labels, 2.0, 0.0) + 0.4 * np.log2(durations_s / 4) + rng.standard_normal(6000)
    calibration, result = calibrate(scores, labels, 0.05, durations_s=durations_s)
    assert calibration.growth == pytest.approx(0.4, abs=0.05)
    for duration_s in (3.0, 12.0, 60.0):
        of_it = ~labels & (durations_s == duration_s)
        alarms = [calibration.probability(score, duration_s) >= calibration.threshold for score in scores[of_it]]
        assert np.mean(alarms) == pytest.approx(result.false_alarms, abs=0.05)
    without, _ = calibrate(scores, labels, 0.05)
    assert without.growth == 0.0
    assert calibrate(scores, labels, durations_s=rng.uniform(3.0, 6.0, 6000))[0].growth == 0.0


def test_a_checkpoint_takes_its_calibration_and_keeps_its_hash(tiny_model: Path, tmp_path: Path):
    import shutil

    model = shutil.copytree(tiny_model, tmp_path / "model")
    before = checkpoint.load(model).hash
    assert wesep_py.load(model, "cpu").calibration == Calibration()
    calibration, result = calibrate(*drawn(0.5, -1.0, 500))
    save_calibration(model, calibration, {"fitted_on": ["dev"], "there": result.as_dict()})
    again = wesep_py.load(model, "cpu")
    assert again.calibration == calibration and again.model_hash == before
    assert checkpoint.load(model).provenance["presence"]["fitted_on"] == ["dev"]
    provenance = json.loads((model / "provenance.json").read_text())
    provenance["presence"]["scale"] = -1
    (model / "provenance.json").write_text(json.dumps(provenance))
    with pytest.raises(CheckpointError, match=r"scale: is -1; above 0"):
        wesep_py.load(model, "cpu")


def test_the_live_mode_has_a_calibration_of_its_own(tmp_path: Path):
    network = build_network(
        {"backbone": {**BSRNN, "live": True, "norm": "frame"}, "cues": [{"name": "tf_map"}]}
        | {"presence": {}, "live_presence": {}}
    )
    model = checkpoint.save(tmp_path / "model", network.config, network.state_dict())
    offline, live = Calibration(scale=2.0), Calibration(frame_scale=0.5, frame_offset=3.0)
    save_calibration(model, offline)
    save_calibration(model, live, {"fitted_on": ["dev"]}, live=True)
    extractor = wesep_py.load(model, "cpu")
    assert (extractor.calibration, extractor.live_calibration) == (offline, live)
    assert extractor.live().calibration == wesep_py.load(model, "cpu", live=True).calibration == live


def test_results_of_both_modes_are_not_mixed(tiny_model: Path, tmp_path: Path):
    folders = [tmp_path / mode for mode in ("offline", "live")]
    for folder in folders:
        folder.mkdir()
        say_how(folder, mode=folder.name)
    with pytest.raises(InputError, match="each mode has a presence head of its own; calibrate one at a time"):
        calibrate_model(tiny_model, folders)


def say_how(folder: Path, **protocol) -> None:
    """Write the part of a summary that says which model and calibration the results are of."""
    whole = {"model": {"name": "m", "hash": "ab" * 32}, **protocol}
    (folder / "summary.json").write_text(json.dumps({"protocol": whole}))


def test_scores_from_results(tmp_path: Path):
    lines = [
        {"outcome": "scored", "presence": 0.9, "duration_s": 4.0},
        {"outcome": "absent", "presence": 0.2, "duration_s": 16.0},
        {"outcome": "failed"},
    ]
    (tmp_path / "per_trial.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    say_how(tmp_path, presence_threshold=0.7, presence_calibration=asdict(Calibration(2.0, 1.0, 0.7, growth=0.3)))
    scores, labels, durations_s = read_presence_scores([tmp_path], "ab" * 32)
    np.testing.assert_allclose(scores, [(np.log(9) - 1) / 2, (np.log(0.25) - 1) / 2 + 0.6])
    assert labels.tolist() == [True, False] and durations_s.tolist() == [4.0, 16.0]
    (tmp_path / "per_trial.jsonl").write_text(json.dumps({"outcome": "scored", "presence": None}))
    with pytest.raises(InputError, match="presence head"):
        read_presence_scores([tmp_path])


@pytest.mark.parametrize("protocol", [{}, {"presence_threshold": 0.5}])
def test_results_without_a_calibration_are_of_an_uncalibrated_model(tmp_path: Path, protocol):
    (tmp_path / "per_trial.jsonl").write_text(json.dumps({"outcome": "scored", "presence": 0.9, "duration_s": 3}))
    say_how(tmp_path, **protocol)
    np.testing.assert_allclose(read_presence_scores([tmp_path], "ab" * 32)[0], [np.log(9)])


def test_results_that_cannot_be_taken_back_are_refused(tmp_path: Path):
    (tmp_path / "per_trial.jsonl").write_text(json.dumps({"outcome": "scored", "presence": 0.9, "duration_s": 3}))
    with pytest.raises(InputError, match=r"summary\.json: no such file"):
        read_presence_scores([tmp_path])
    say_how(tmp_path, presence_threshold=0.95)
    with pytest.raises(InputError, match="does not say how the model was calibrated"):
        read_presence_scores([tmp_path])
    say_how(tmp_path)
    with pytest.raises(InputError, match=r"is of another model .hash abababababab, this one is cdcdcdcdcdcd"):
        read_presence_scores([tmp_path], "cd" * 32)
    say_how(tmp_path, presence_calibration={"scale": -1.0})
    with pytest.raises(InputError, match=r"is damaged .*above 0 is allowed"):
        read_presence_scores([tmp_path])


def test_pooling_does_not_saturate():
    assert pool_logits([500.0] * 60, 0.01) == pytest.approx(500.0)
    assert pool_logits([-500.0] * 60, 0.01) == pytest.approx(-500.0)
    assert pool_logits([-500.0] * 1000 + [3.0] * 50, 0.01) == pytest.approx(3.0)
