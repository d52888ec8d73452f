"""Calibrate the probability of presence of a recording: Platt scaling, length correction, and a threshold.

`calibrate_model` reads results of `wesep evaluate` on trials with present and with absent targets, fits a calibration
and writes it into the checkpoint. Frames are calibrated with it, by `frame_calibration`.
"""

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
from wesep_py.inference.presence_decision.presence import REFERENCE_S, UNCALIBRATED, Calibration, save_calibration
from wesep_py.models.hub import refuse_hub_name
from wesep_py.models.public_files import shorten_paths

MAX_MISSED = 0.02
"""Share of the present targets that the threshold may miss."""
MIN_LENGTH_RATIO = 4.0
"""Least ratio of the lengths of absent trials, 95 % to 5 % quantile, from which a length correction is fitted."""


def fit_platt(scores: ArrayLike, present: ArrayLike, equal_priors: bool = False) -> tuple[float, float]:
    """Fit scale and offset so that sigmoid(scale · score + offset) is the probability of presence.

    The labels are smoothed, as if each kind had one more trial of either label, so that scores that separate all trials
    have a finite solution.

    Args:
        scores: `[trials]`, higher for present targets.
        present: `[trials]`, whether the target is present.
        equal_priors: give both kinds the same weight, however many trials each has.

    Returns:
        Scale, above 0, and offset.

    Raises:
        InputError: shapes differ, all trials are of one kind, a score is not finite, or scores fall with presence.

    Source: Platt, "Probabilistic outputs for support vector machines" (1999); the algorithm after Lin, Lin and Weng,
    "A note on Platt's probabilistic outputs" (Machine Learning, 2007).

    >>> scale, offset = fit_platt([-2, -1, 0.5, 1, 2, -0.5], [0, 0, 0, 1, 1, 1])
    >>> scale > 0
    True
    """
    x, labels = _checked_scores(scores, present)
    positive, negative = int(labels.sum()), int((~labels).sum())
    targets = np.where(labels, (positive + 1) / (positive + 2), 1 / (negative + 2))
    weights = np.where(labels, 0.5 / positive, 0.5 / negative) if equal_priors else np.full(len(x), 1 / len(x))
    scale, offset = fit_weighted(x, targets, weights)
    if scale <= 0:
        raise InputError(
            f"the scores do not rise with presence (the best scale is {scale:.3g}); are the labels swapped?"
        )
    return scale, offset


def threshold_at_miss_rate(probabilities: ArrayLike, present: ArrayLike, max_missed: float = MAX_MISSED) -> float:
    """Return the highest threshold that misses at most a share of the present targets.

    It is halfway between two trials, so that neither is at the edge.

    Args:
        probabilities: `[trials]`.
        present: `[trials]`, whether the target is present.
        max_missed: share of the present targets, 0 to 1.

    Raises:
        InputError: there are no present targets.

    >>> round(threshold_at_miss_rate([0.1, 0.6, 0.7, 0.8, 0.9], [0, 1, 1, 1, 1], max_missed=0.25), 3)
    0.65
    """
    p, labels = checked_scores_and_labels(probabilities, present)
    present_p = np.sort(p[labels])
    if not len(present_p):
        raise InputError("a threshold needs trials with a present target, and there are none")
    num_missed = min(len(present_p) - 1, math.floor(max_missed * len(present_p) + 1e-9))
    lowest_detected = present_p[num_missed]
    below = p[p < lowest_detected]
    return float((lowest_detected + below.max()) / 2) if len(below) else float(lowest_detected)


def fit_length_correction(scores: ArrayLike, durations_s: ArrayLike) -> float:
    """Fit by how much the score of absent targets rises with each doubling of the length, in least squares.

    A score is the highest of many windows, which rises with their number: the longer a recording, the higher its score.

    Args:
        scores: `[trials]`, of absent targets.
        durations_s: `[trials]`, lengths of their recordings in seconds.

    Returns:
        0 or more; 0 where the lengths differ too little (`MIN_LENGTH_RATIO`).

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
    max_missed: float = MAX_MISSED,
    equal_priors: bool = True,
    durations_s: ArrayLike | None = None,
) -> tuple[Calibration, Reliability]:
    """Fit a calibration, and measure its reliability on the same trials.

    Args:
        scores: `[trials]`, `Presence.score` of each.
        present: `[trials]`, whether the target is present.
        max_missed: share of the present targets that the threshold may miss.
        equal_priors: as if half of the trials had an absent target.
        durations_s: `[trials]`, lengths of the recordings in seconds; `None` for recordings of one length.

    Raises:
        InputError: as `fit_platt`.
    """
    x, labels = _checked_scores(scores, present)
    lengths = np.full(len(x), REFERENCE_S) if durations_s is None else np.asarray(durations_s, dtype=np.float64)
    correction = Calibration(growth=fit_length_correction(x[~labels], lengths[~labels]))
    scale, offset = fit_platt(x - correction.length_correction(lengths), labels, equal_priors)
    scaled = replace(correction, scale=scale, offset=offset)
    p = scaled.probabilities(x, lengths)
    calibration = replace(scaled, threshold=threshold_at_miss_rate(p, labels, max_missed))
    return calibration, reliability(p, labels, calibration.threshold)


def read_presence_scores(
    folders: Sequence[str | Path], model_hash: str | None = None
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """Read scores of presence from results of `wesep evaluate`.

    The calibration that the model had when a result was made, which is in its `summary.json`, is undone.

    Args:
        folders: of finished results; failed trials and those with a silent reference are skipped.
        model_hash: of the model that the results must be of; `None`: of any.

    Returns:
        Scores, whether the target is present, and length in seconds, `[trials]` each.

    Raises:
        InputError: a file is missing or damaged; results are of another model, or have no presence, because the model
            has no presence head.
    """
    scores, labels, durations_s = [], [], []
    for folder in folders:
        path = Path(folder) / PER_TRIAL
        if not path.is_file():
            raise InputError(f"{path}: no such file; make it with `wesep evaluate`")
        rows = read_jsonl(path, "trials of `wesep evaluate`")
        applied = _read_calibration(Path(folder) / SUMMARY, model_hash)
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
    max_missed: float = MAX_MISSED,
    dry_run: bool = False,
) -> tuple[Calibration, Reliability, Reliability | None]:
    """Fit a calibration to results of `wesep evaluate`, and write it into the checkpoint.

    Results of `wesep evaluate --live` calibrate the presence head of the live mode, others that of whole recordings.

    Args:
        model: the checkpoint or experiment folder that the results are of.
        results: folders of results, with present and with absent targets.
        check: folders of other results, on which the reliability is measured too.
        max_missed: as `calibrate`.
        dry_run: write nothing.

    Returns:
        The calibration, its reliability on `results`, and on `check` if there are any.

    Raises:
        InputError, CheckpointError: as `read_presence_scores`, `fit_platt` and `save_calibration`; results of both
            modes.
    """
    if not dry_run:
        refuse_hub_name(model, "calibrating")
    model_hash, live = checkpoint.load(model).hash, _are_live([*results, *check])
    scores, labels, durations_s = read_presence_scores(results, model_hash)
    calibration, fitted = calibrate(scores, labels, max_missed, durations_s=durations_s)
    about: dict[str, Any] = {"fitted_on": shorten_paths([str(folder) for folder in results]), "there": fitted.as_dict()}
    frames = calibrate_frames(results)
    if frames is not None:
        calibration = replace(calibration, frame_scale=frames.scale, frame_offset=frames.offset)
        about["frames"] = frames.as_dict()
    checked = None
    if check:
        scores, labels, durations_s = read_presence_scores(check, model_hash)
        checked = reliability(calibration.probabilities(scores, durations_s), labels, calibration.threshold)
        about |= {"checked_on": shorten_paths([str(folder) for folder in check]), "checked": checked.as_dict()}
    if not dry_run:
        save_calibration(model, calibration, about, live)
    return calibration, fitted, checked


def _are_live(folders: Sequence[str | Path]) -> bool:
    """Return whether results are of the live mode.

    Raises:
        InputError: some are and some are not.
    """
    modes: dict[str, str | Path] = {}
    for folder in folders:
        path = Path(folder) / SUMMARY
        if path.is_file():  # the others are reported when they are read
            values = read_json(path, "a summary of results", "evaluate again").values
            check_schema(values, {"protocol": {"mode?": str}}, str(path), "evaluate again")
            modes.setdefault(values["protocol"].get("mode", "offline"), folder)
    if len(modes) > 1:
        listing = " and ".join(f"{folder} ({mode})" for mode, folder in modes.items())
        raise InputError(f"{listing}: each mode has a presence head of its own; calibrate one at a time")
    return "live" in modes


def _read_calibration(path: Path, model_hash: str | None) -> Calibration:
    """Return the calibration that a result was made with, from its `summary.json`.

    Results of versions that did not store it count as uncalibrated where their threshold is that of a model without a
    calibration.

    Raises:
        InputError: the file is missing or damaged, lacks the calibration that there was, or is of another model.
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
        result_hash, stored = protocol["model"]["hash"], protocol.get("presence_calibration")
        threshold = protocol.get("presence_threshold", UNCALIBRATED.threshold)
        names = {field.name for field in fields(Calibration)}
        values = {} if stored is None else {name: value for name, value in stored.items() if name in names}
        applied = Calibration(**values)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: is damaged ({shorten(error)}); evaluate again") from error
    if model_hash is not None and result_hash != model_hash:
        raise InputError(
            f"{path}: is of another model (hash {str(result_hash)[:12]}, this one is {model_hash[:12]}); "
            "evaluate this one"
        )
    if stored is None and threshold != UNCALIBRATED.threshold:
        raise InputError(f"{path}: does not say how the model was calibrated; evaluate again")
    return applied


def _checked_scores(scores: ArrayLike, present: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    x, labels = checked_scores_and_labels(scores, present)
    if labels.all() or not labels.any():
        raise InputError("trials with present and with absent targets are needed")
    if not np.isfinite(x).all():
        raise InputError("the scores hold values that are not finite")
    return x, labels
