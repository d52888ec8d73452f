"""What makes a model's probability that a voice is in a recording believable: Platt scaling, and a threshold."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wesep_py import checkpoint
from wesep_py.errors import InputError
from wesep_py.evaluation.reliability import Reliability, of_one_shape, reliability
from wesep_py.inference.presence import Calibration, calibration_of, save_calibration, sigmoid

MAX_LOST = 0.02
"""Share of present voices that the threshold may lose."""
_STEPS, _SMALLEST = 100, 1e-10


def fit_platt(scores: ArrayLike, present: ArrayLike, equal_priors: bool = False) -> tuple[float, float]:
    """Scale and offset with which sigmoid(scale · score + offset) is the most likely probability.

    Newton's method on the cross-entropy, with a line search; the labels are drawn in a little, as if each kind had one
    trial more of either label, so that scores that tell all trials apart have a finite solution.

    Args:
        scores: `[trials]`, higher for present.
        present: `[trials]`, whether the voice is there.
        equal_priors: weigh both kinds alike, however many trials each has.

    Raises:
        InputError: shapes that differ, one kind only, a score that is not finite, scores that fall with presence.

    Source: Platt, "Probabilistic outputs for support vector machines" (1999); the algorithm after Lin, Lin and Weng,
        "A note on Platt's probabilistic outputs" (Machine Learning, 2007).

    >>> scale, offset = fit_platt([-2, -1, 0.5, 1, 2, -0.5], [0, 0, 0, 1, 1, 1])
    >>> scale > 0
    True
    """
    x, labels = _checked(scores, present)
    positive, negative = int(labels.sum()), int((~labels).sum())
    targets = np.where(labels, (positive + 1) / (positive + 2), 1 / (negative + 2))
    weights = np.where(labels, 0.5 / positive, 0.5 / negative) if equal_priors else np.full(len(x), 1 / len(x))
    # In standard form the two parameters are of one size, whatever the scores' scale.
    centre, spread = float(x.mean()), float(x.std()) or 1.0
    z = (x - centre) / spread
    prior = float((weights * targets).sum() / weights.sum())
    a, b = 0.0, math.log(prior / (1 - prior))
    value = _cross_entropy(a, b, z, targets, weights)
    for _ in range(_STEPS):
        p = sigmoid(a * z + b)
        error, curve = weights * (p - targets), weights * p * (1 - p)
        gradient = np.array([(error * z).sum(), error.sum()])
        if np.abs(gradient).max() < 1e-10:
            break
        hessian = np.array([[(curve * z * z).sum(), (curve * z).sum()], [(curve * z).sum(), curve.sum()]])
        step = np.linalg.solve(hessian + 1e-12 * np.eye(2), gradient)
        size = 1.0
        while size > _SMALLEST:
            trial = _cross_entropy(a - size * step[0], b - size * step[1], z, targets, weights)
            if trial < value - 1e-4 * size * float(gradient @ step):
                break
            size /= 2
        else:
            break
        a, b, value = a - size * step[0], b - size * step[1], trial
    scale, offset = float(a) / spread, float(b - a * centre / spread)
    if scale <= 0:
        raise InputError(
            f"the scores do not rise with presence (the best scale is {scale:.3g}); are labels turned around?"
        )
    return scale, offset


def threshold_for(probabilities: ArrayLike, present: ArrayLike, max_lost: float = MAX_LOST) -> float:
    """The highest threshold that loses at most a share of the present voices; absent ones fall below it as they may.

    It lies halfway between two trials, so that neither is at the edge.

    Args:
        probabilities: `[trials]`.
        present: `[trials]`.
        max_lost: 0 to 1.

    Raises:
        InputError: no present trials.

    >>> threshold_for([0.1, 0.6, 0.7, 0.8, 0.9], [0, 1, 1, 1, 1], max_lost=0.25)
    0.65
    """
    p, labels = of_one_shape(probabilities, present)
    there = np.sort(p[labels])
    if not len(there):
        raise InputError("a threshold is found from trials in which the voice is there; there are none")
    keep = there[min(len(there) - 1, math.floor(max_lost * len(there) + 1e-9))]
    below = p[p < keep]
    return float((keep + below.max()) / 2) if len(below) else float(keep)


def calibrate(
    scores: ArrayLike, present: ArrayLike, max_lost: float = MAX_LOST, equal_priors: bool = True
) -> tuple[Calibration, Reliability]:
    """Fit scale and offset, set the threshold, and say what they do on the same trials.

    Args:
        scores: `[trials]`, `Presence.score` of each.
        present: `[trials]`.
        max_lost: share of the present voices that may be lost.
        equal_priors: as if half of the trials were absent.

    Raises:
        InputError: as `fit_platt`.
    """
    scale, offset = fit_platt(scores, present, equal_priors)
    p = sigmoid(scale * np.asarray(scores, dtype=np.float64) + offset)
    calibration = Calibration(scale, offset, threshold_for(p, present, max_lost))
    return calibration, reliability(p, present, calibration.threshold)


def scores_of(
    folders: Sequence[str | Path], applied: Calibration | None = None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores and labels from results of `wesep evaluate`, on lists with and without the target.

    Args:
        folders: with `per_trial.jsonl`; trials that failed, and those with a silent reference, are left out.
        applied: the calibration that the model had when they were made, which is taken back.

    Raises:
        InputError: a file that is missing; no presence in it, as the model has no presence head.
    """
    applied = applied or Calibration()
    scores, labels = [], []
    for folder in folders:
        path = Path(folder) / "per_trial.jsonl"
        if not path.is_file():
            raise InputError(f"{path}: no such file; make it with `wesep evaluate`")
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if record["outcome"] not in ("scored", "absent"):
                continue
            if record.get("presence") is None:
                raise InputError(f"{path}: a trial without a presence; the model needs a presence head")
            p = min(max(float(record["presence"]), 1e-15), 1 - 1e-15)
            scores.append((math.log(p) - math.log1p(-p) - applied.offset) / applied.scale)
            labels.append(record["outcome"] == "scored")
    return np.array(scores), np.array(labels, dtype=bool)


def calibrate_model(
    model: str | Path, results: Sequence[str | Path], check: Sequence[str | Path] = (), max_lost: float = MAX_LOST
) -> tuple[Calibration, Reliability, Reliability | None]:
    """Calibrate a checkpoint on results of `wesep evaluate`, and write it there (`presence.save_calibration`).

    Args:
        model: the checkpoint or experiment folder that the results are of.
        results: folders with present and with absent targets.
        check: other results, to see what the calibration does there.
        max_lost: as `calibrate`.

    Returns:
        The calibration, what it does on `results`, and on `check`.

    Raises:
        InputError, CheckpointError: as `scores_of`, `fit_platt` and `save_calibration`.
    """
    applied = calibration_of(checkpoint.load(model).provenance)
    calibration, there = calibrate(*scores_of(results, applied), max_lost)
    about: dict[str, Any] = {"fitted_on": [str(folder) for folder in results], "there": there.as_dict()}
    elsewhere = None
    if check:
        scores, labels = scores_of(check, applied)
        elsewhere = reliability(sigmoid(calibration.scale * scores + calibration.offset), labels, calibration.threshold)
        about |= {"checked_on": [str(folder) for folder in check], "checked": elsewhere.as_dict()}
    save_calibration(model, calibration, about)
    return calibration, there, elsewhere


def _cross_entropy(
    a: float, b: float, z: NDArray[np.float64], targets: NDArray[np.float64], weights: NDArray[np.float64]
) -> float:
    logits = a * z + b
    return float((weights * (np.logaddexp(0.0, logits) - targets * logits)).sum())


def _checked(scores: ArrayLike, present: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    x, labels = of_one_shape(scores, present)
    if labels.all() or not labels.any():
        raise InputError("trials with and without the voice are needed, to tell them apart")
    if not np.isfinite(x).all():
        raise InputError("the scores hold values that are not finite")
    return x, labels
