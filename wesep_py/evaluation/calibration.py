"""What makes a model's probability that a voice is in a recording believable: Platt scaling, and a threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wesep_py import checkpoint
from wesep_py.common.errors import InputError, shorten
from wesep_py.common.textfiles import check_schema, read_json, read_jsonl
from wesep_py.evaluation.frame_calibration import (
    Reliability,
    calibrate_frames,
    checked_scores_and_labels,
    fit_weighted,
    reliability,
)
from wesep_py.evaluation.results import PER_TRIAL, SUMMARY, check_record
from wesep_py.inference.presence import REFERENCE_S, UNCALIBRATED, Calibration, save_calibration

MAX_MISSED = 0.02
"""Share of present voices that the threshold may lose."""
MIN_LENGTH_RATIO = 4.0
"""Growth with length is fitted where the longer absent trials (95 % quantile) are so many times the shorter (5 %)."""


def fit_platt(scores: ArrayLike, present: ArrayLike, equal_priors: bool = False) -> tuple[float, float]:
    """Scale and offset with which sigmoid(scale · score + offset) is the most likely probability.

    The labels are drawn in a little, as if each kind had one trial more of either label, so that scores that tell all
    trials apart have a finite solution.

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
    scale, offset = fit_weighted(x, targets, weights)
    if scale <= 0:
        raise InputError(
            f"the scores do not rise with presence (the best scale is {scale:.3g}); are labels turned around?"
        )
    return scale, offset


def threshold_at_miss_rate(probabilities: ArrayLike, present: ArrayLike, max_lost: float = MAX_MISSED) -> float:
    """The highest threshold that loses at most a share of the present voices; absent ones fall below it as they may.

    It lies halfway between two trials, so that neither is at the edge.

    Args:
        probabilities: `[trials]`.
        present: `[trials]`.
        max_lost: 0 to 1.

    Raises:
        InputError: no present trials.

    >>> round(threshold_at_miss_rate([0.1, 0.6, 0.7, 0.8, 0.9], [0, 1, 1, 1, 1], max_lost=0.25), 3)
    0.65
    """
    p, labels = checked_scores_and_labels(probabilities, present)
    there = np.sort(p[labels])
    if not len(there):
        raise InputError("a threshold is found from trials in which the voice is there; there are none")
    keep = there[min(len(there) - 1, math.floor(max_lost * len(there) + 1e-9))]
    below = p[p < keep]
    return float((keep + below.max()) / 2) if len(below) else float(keep)


def fit_length_correction(scores: ArrayLike, durations_s: ArrayLike) -> float:
    """By how much the score of absent voices rises with each doubling of the length, in least squares; 0 or more.

    Where lengths differ too little to tell (`MIN_LENGTH_RATIO`), 0.

    Args:
        scores: `[trials]`, of absent voices.
        durations_s: `[trials]`, of their recordings.

    >>> fit_length_correction([1.0, 2.0, 3.0], [4.0, 16.0, 64.0])
    0.5
    """
    lengths = np.log2(np.asarray(durations_s, dtype=np.float64))
    shorter, longer = np.quantile(lengths, [0.05, 0.95])
    if longer - shorter < math.log2(MIN_LENGTH_RATIO):
        return 0.0
    return max(0.0, round(float(np.polynomial.polynomial.polyfit(lengths, scores, 1)[1]), 6))


def calibrate(
    scores: ArrayLike,
    present: ArrayLike,
    max_lost: float = MAX_MISSED,
    equal_priors: bool = True,
    durations_s: ArrayLike | None = None,
) -> tuple[Calibration, Reliability]:
    """Fit scale and offset, set the threshold, and say what they do on the same trials.

    Args:
        scores: `[trials]`, `Presence.score` of each.
        present: `[trials]`.
        max_lost: share of the present voices that may be lost.
        equal_priors: as if half of the trials were absent.
        durations_s: `[trials]`, of the recordings; `None` for recordings of one length.

    Raises:
        InputError: as `fit_platt`.
    """
    x, labels = _checked(scores, present)
    lengths = np.full(len(x), REFERENCE_S) if durations_s is None else np.asarray(durations_s, dtype=np.float64)
    growth = Calibration(growth=fit_length_correction(x[~labels], lengths[~labels]))
    scale, offset = fit_platt(x - growth.length_correction(lengths), labels, equal_priors)
    fitted = replace(growth, scale=scale, offset=offset)
    p = fitted.probabilities(x, lengths)
    calibration = replace(fitted, threshold=threshold_at_miss_rate(p, labels, max_lost))
    return calibration, reliability(p, labels, calibration.threshold)


def read_presence_scores(
    folders: Sequence[str | Path], model_hash: str | None = None
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """Scores, labels and lengths in seconds from results of `wesep evaluate`, on lists with and without the target.

    The calibration that the model had when a result was made, which its `summary.json` names, is taken back.

    Args:
        folders: finished results; trials that failed, and those with a silent reference, are left out.
        model_hash: of the model that they have to be of; `None` asks for none.

    Raises:
        InputError: a file that is missing or damaged; results of another model; no presence in them, as the model has
            no presence head.
    """
    scores, labels, durations_s = [], [], []
    for folder in folders:
        path = Path(folder) / PER_TRIAL
        if not path.is_file():
            raise InputError(f"{path}: no such file; make it with `wesep evaluate`")
        rows = read_jsonl(path, "trials of `wesep evaluate`")
        applied = _applied(Path(folder) / SUMMARY, model_hash)
        for row in rows:
            check_record(row, "outcome")
            if row.values["outcome"] not in ("scored", "absent"):
                continue
            if row.values.get("presence") is None:
                raise InputError(f"{row.place}: a trial without a presence; the model needs a presence head")
            presence, duration_s = row.number("presence"), row.number("duration_s")
            if not 0 <= presence <= 1 or duration_s <= 0:
                raise InputError(
                    f"{row.place}: presence is {presence:g} and duration_s {duration_s:g}; 0 to 1 and more than "
                    "0 s are needed: evaluate again"
                )
            p = min(max(presence, 1e-15), 1 - 1e-15)
            durations_s.append(duration_s)
            score = (math.log(p) - math.log1p(-p) - applied.offset) / applied.scale
            scores.append(score + float(applied.length_correction(durations_s[-1])))
            labels.append(row.values["outcome"] == "scored")
    return np.array(scores), np.array(labels, dtype=bool), np.array(durations_s)


def calibrate_model(
    model: str | Path,
    results: Sequence[str | Path],
    check: Sequence[str | Path] = (),
    max_lost: float = MAX_MISSED,
    dry_run: bool = False,
) -> tuple[Calibration, Reliability, Reliability | None]:
    """Calibrate a checkpoint on results of `wesep evaluate`, and write it there (`presence.save_calibration`).

    Args:
        model: the checkpoint or experiment folder that the results are of.
        results: folders with present and with absent targets.
        check: other results, to see what the calibration does there.
        max_lost: as `calibrate`.
        dry_run: write nothing.

    Returns:
        The calibration, what it does on `results`, and on `check`.

    Raises:
        InputError, CheckpointError: as `read_presence_scores`, `fit_platt` and `save_calibration`.
    """
    model_hash = checkpoint.load(model).hash
    scores, labels, durations_s = read_presence_scores(results, model_hash)
    calibration, there = calibrate(scores, labels, max_lost, durations_s=durations_s)
    about: dict[str, Any] = {"fitted_on": [str(folder) for folder in results], "there": there.as_dict()}
    frames = calibrate_frames(results)
    if frames is not None:
        calibration = replace(calibration, frame_scale=frames.scale, frame_offset=frames.offset)
        about["frames"] = frames.as_dict()
    elsewhere = None
    if check:
        scores, labels, durations_s = read_presence_scores(check, model_hash)
        elsewhere = reliability(calibration.probabilities(scores, durations_s), labels, calibration.threshold)
        about |= {"checked_on": [str(folder) for folder in check], "checked": elsewhere.as_dict()}
    if not dry_run:
        save_calibration(model, calibration, about)
    return calibration, there, elsewhere


def _applied(path: Path, model_hash: str | None) -> Calibration:
    """The calibration that a result was made with, from its `summary.json`.

    Results of versions that did not write it down count as uncalibrated where their threshold is that of a model
    without a calibration.

    Raises:
        InputError: it is missing or damaged, says nothing of a calibration that there was, or is of another model.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; make it with `wesep evaluate`, or repeat its command to finish it")
    summary = read_json(path, "a summary of results", "evaluate again").values
    shape = {
        "protocol": {
            "model": {"hash": (str, None)},
            "presence_calibration?": (dict, None),
            "presence_threshold?": float,
        }
    }
    check_schema(summary, shape, str(path), "evaluate again")
    protocol = summary["protocol"]
    try:
        made_by, given = protocol["model"]["hash"], protocol.get("presence_calibration")
        threshold = protocol.get("presence_threshold", UNCALIBRATED.threshold)
        names = {field.name for field in fields(Calibration)}
        known = {} if given is None else {name: value for name, value in given.items() if name in names}
        applied = Calibration(**known)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: is damaged ({shorten(error)}); evaluate again") from error
    if model_hash is not None and made_by != model_hash:
        raise InputError(
            f"{path}: is of another model (hash {str(made_by)[:12]}, this one is {model_hash[:12]}); evaluate this one"
        )
    if given is None and threshold != UNCALIBRATED.threshold:
        raise InputError(f"{path}: does not say how the model was calibrated when it was made; evaluate again")
    return applied


def _checked(scores: ArrayLike, present: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    x, labels = checked_scores_and_labels(scores, present)
    if labels.all() or not labels.any():
        raise InputError("trials with and without the voice are needed, to tell them apart")
    if not np.isfinite(x).all():
        raise InputError("the scores hold values that are not finite")
    return x, labels
