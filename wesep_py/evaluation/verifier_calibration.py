"""Fit the presence verifier of a model: a logistic of the evidence in results of `wesep evaluate --verify`.

`calibrate_verifier` reads results on trials with present and with absent targets, fits the weights and a threshold, and
writes them into the checkpoint. `detection_table` compares the presence head with the verifier on each list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wesep_py import checkpoint
from wesep_py.common.errors import InputError
from wesep_py.evaluation.calibration import MAX_MISSED, fit_length_correction, threshold_at_miss_rate
from wesep_py.evaluation.frame_calibration import Reliability, checked_scores_and_labels, reliability
from wesep_py.evaluation.results import EvaluationResults, read_results
from wesep_py.inference.presence_decision.presence import Calibration, read_calibration, sigmoid
from wesep_py.inference.presence_decision.presence_verifier import EVIDENCE, VerifierCalibration, save_verifier
from wesep_py.models.public_files import shorten_paths

RIDGE = 0.003
"""Weight of the squares of the weights (of standardised evidence) against the mean cross-entropy."""
MAX_STEPS, MIN_STEP = 100, 1e-9


@dataclass(frozen=True)
class Evidence:
    """Evidence of the verifier for the trials of one or more results.

    Attributes:
        values: `[trials, evidence]`, in the order of `EVIDENCE`.
        present: `[trials]`, whether the target is present.
        durations_s: `[trials]`, of the mixtures.
        head: `[trials]`, probability by the presence head as it was calibrated.
        encoder, encoder_hash: of the verifier.
    """

    values: NDArray[np.float64]
    present: NDArray[np.bool_]
    durations_s: NDArray[np.float64]
    head: NDArray[np.float64]
    encoder: str
    encoder_hash: str


@dataclass(frozen=True)
class DetectionRow:
    """Detection of absent targets by a score that misses a share of the present ones.

    Attributes:
        present, absent: number of trials.
        auc: probability that a present target has a higher score than an absent one.
        detected: share of the absent targets below the threshold that misses `MAX_MISSED` of the present ones.
    """

    present: int
    absent: int
    auc: float
    detected: float


@dataclass(frozen=True)
class ListDetection:
    """Presence head and verifier on one list.

    Attributes:
        head, verifier: with a threshold for this list.
        head_errors, verifier_errors: as they are calibrated: shares of the absent targets that are detected as absent,
            and of the present ones that are missed.
    """

    head: DetectionRow
    verifier: DetectionRow
    head_errors: tuple[float, float]
    verifier_errors: tuple[float, float]


@dataclass(frozen=True)
class FittedVerifier:
    """The calibration of a verifier, and how well it decides.

    Attributes:
        calibration: weights and threshold.
        fitted, checked: its reliability on the results that it was fitted to, and on others if there are any.
        lists: detection for each pair of a list with present and one with absent targets, by its name.
    """

    calibration: VerifierCalibration
    fitted: Reliability
    checked: Reliability | None
    lists: dict[str, ListDetection]

    def as_dict(self) -> dict[str, Any]:
        """Return the calibration and its figures for JSON."""
        from dataclasses import asdict

        return asdict(self)

    def table(self) -> str:
        """Return lines for each list as text: detected absent targets at the share missed, AUC, and as calibrated."""
        lines = [f"{'list':<22} {'':<9} {'present':>7} {'absent':>6} {'detected':>9} {'AUC':>6}   as calibrated"]
        for name, item in self.lists.items():
            for kind, row, errors in (
                ("head", item.head, item.head_errors),
                ("verifier", item.verifier, item.verifier_errors),
            ):
                counts = f"{name:<22} {kind:<9} {row.present:>7} {row.absent:>6}"
                detected = f"{row.detected:>9.1%} {row.auc:>6.3f}"
                lines.append(f"{counts} {detected}   detected {errors[0]:.1%}, missed {errors[1]:.1%}")
        return "\n".join(lines)


def fit_logistic(evidence: ArrayLike, present: ArrayLike, ridge: float = RIDGE) -> tuple[NDArray[np.float64], float]:
    """Fit weights and offset so that sigmoid(weights · evidence + offset) is the probability of presence.

    Both kinds of trials have the same weight, however many there are. The evidence is standardised, and the squares of
    the weights are penalised, so that few trials, or trials that are separated, have a finite solution.

    Args:
        evidence: `[trials, evidence]`.
        present: `[trials]`, whether the target is present.
        ridge: weight of the penalty.

    Returns:
        Weights `[evidence]` and offset, of the evidence as it is.

    Raises:
        InputError: all trials are of one kind, or a value is not finite.

    >>> weights, offset = fit_logistic([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [3.0, 0.0]], [0, 0, 1, 1])
    >>> bool(weights[0] > 1), bool(abs(weights[1]) < weights[0])
    (True, True)
    """
    x = np.asarray(evidence, dtype=np.float64)
    _, labels = checked_scores_and_labels(np.zeros(len(x)), present)
    if labels.all() or not labels.any():
        raise InputError("trials with present and with absent targets are needed")
    if not np.isfinite(x).all():
        raise InputError("the evidence holds values that are not finite")
    mean, deviation = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-9)
    design = np.column_stack([(x - mean) / deviation, np.ones(len(x))])
    importance = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum())
    penalty = ridge * np.append(np.ones(x.shape[1]), 0.0)
    weights = np.zeros(x.shape[1] + 1)
    # Newton's method; the penalised cross-entropy is convex, and a step that would raise it is halved.
    loss = _loss(weights, design, labels, importance, penalty)
    for _ in range(MAX_STEPS):
        p = sigmoid(design @ weights)
        gradient = design.T @ (importance * (p - labels)) + penalty * weights
        curvature = (design * (importance * p * (1 - p))[:, None]).T @ design + np.diag(penalty + 1e-12)
        step, size = np.linalg.solve(curvature, gradient), 1.0
        while (lower := _loss(weights - size * step, design, labels, importance, penalty)) > loss and size > MIN_STEP:
            size /= 2
        weights, loss = weights - size * step, min(loss, lower)
        if np.abs(size * step).max() < MIN_STEP:
            break
    scaled = weights[:-1] / deviation
    return scaled, float(weights[-1] - scaled @ mean)


def _loss(
    weights: NDArray[np.float64],
    design: NDArray[np.float64],
    labels: NDArray[np.bool_],
    importance: NDArray[np.float64],
    penalty: NDArray[np.float64],
) -> float:
    score = design @ weights
    entropy = np.logaddexp(0.0, np.where(labels, -score, score))
    return float(importance @ entropy + 0.5 * penalty @ weights**2)


def detection(scores: ArrayLike, present: ArrayLike, max_missed: float = MAX_MISSED) -> DetectionRow:
    """Return how many absent targets a score detects, at a threshold that misses a share of the present ones.

    >>> detection([0.1, 0.6, 0.2, 0.7, 0.8, 0.9], [0, 0, 1, 1, 1, 1], max_missed=0.25)
    DetectionRow(present=4, absent=2, auc=0.875, detected=1.0)
    """
    x, labels = checked_scores_and_labels(scores, present)
    threshold = threshold_at_miss_rate(x, labels, max_missed)
    of_present, of_absent = x[labels][:, None], x[~labels][None]
    auc = float((of_present > of_absent).mean() + 0.5 * (of_present == of_absent).mean())
    return DetectionRow(int(labels.sum()), int((~labels).sum()), auc, float((x[~labels] < threshold).mean()))


def read_evidence(folders: Sequence[str | Path], model_hash: str, encoder: str) -> Evidence:
    """Read what the verifier measured from results of `wesep evaluate --verify`.

    Args:
        folders: of finished results; failed trials and those with a silent reference are skipped.
        model_hash: of the model that the results must be of.
        encoder: name of the verifier's encoder that they must be of.

    Raises:
        InputError: a result is missing, damaged, of another model or encoder, or was made without the verifier.
    """
    values, present, durations_s, head, hashes = [], [], [], [], set()
    for folder in folders:
        result = read_results(folder)
        hashes.add(_encoder_hash(result, model_hash, encoder))
        for record in result.records:
            if record.outcome not in ("scored", "absent"):
                continue
            evidence = record.evidence
            if evidence is None or not set(EVIDENCE) <= set(evidence) or record.presence is None:
                raise InputError(
                    f"{folder}: trial {record.number} has no evidence of the verifier; evaluate again with "
                    f"--verify {encoder}"
                )
            values.append([evidence[name] for name in EVIDENCE])
            present.append(record.outcome == "scored")
            durations_s.append(record.duration_s or 0.0)
            head.append(record.presence)
    if len(hashes) > 1:
        raise InputError(f"the results are of different encoders called {encoder}; evaluate again with one of them")
    if not values:
        raise InputError("the results hold no trials with a present or an absent target")
    arrays = (np.array(values), np.array(present, dtype=bool), np.array(durations_s), np.array(head))
    return Evidence(*arrays, encoder, hashes.pop())


def _encoder_hash(result: EvaluationResults, model_hash: str, encoder: str) -> str:
    protocol = result.summary["protocol"]
    of_model = str((protocol.get("model") or {}).get("hash"))
    if of_model != model_hash:
        raise InputError(
            f"{result.folder}: is of another model (hash {of_model[:12]}, this one is {model_hash[:12]}); evaluate "
            "this one"
        )
    verifier = protocol.get("presence_verifier")
    if verifier is None or verifier["encoder"] != encoder:
        was = "no verifier" if verifier is None else f"the verifier {verifier['encoder']}"
        raise InputError(f"{result.folder}: was made with {was}; evaluate again with --verify {encoder}")
    return str(verifier["encoder_hash"])


def calibrate_verifier(
    model: str | Path,
    encoder: str,
    results: Sequence[str | Path],
    check: Sequence[str | Path] = (),
    max_missed: float = MAX_MISSED,
    dry_run: bool = False,
) -> FittedVerifier:
    """Fit the verifier to results of `wesep evaluate --verify`, and write it into the checkpoint.

    Args:
        model: the checkpoint or experiment folder that the results are of.
        encoder: name of the verifier's encoder, or its checkpoint folder.
        results: folders of results, with present and with absent targets.
        check: folders of other results, on which it is checked.
        max_missed: share of the present targets that the threshold may miss.
        dry_run: write nothing.

    Raises:
        InputError, CheckpointError: as `read_evidence`, `fit_logistic` and `save_verifier`.
    """
    saved, encoder = checkpoint.load(model), Path(encoder).name
    evidence = read_evidence(results, saved.hash, encoder)
    head = read_calibration(saved.provenance, str(saved.folder)) or Calibration()
    scores, absent = evidence.values[:, EVIDENCE.index("head")], ~evidence.present
    growth = fit_length_correction(scores[absent], evidence.durations_s[absent]) if absent.any() else 0.0
    growth = growth or head.growth
    correction = Calibration(growth=growth).length_correction(evidence.durations_s)
    corrected = evidence.values - np.outer(correction, np.array(EVIDENCE) == "head")
    weights, offset = fit_logistic(corrected, evidence.present)
    probabilities = sigmoid(corrected @ weights + offset)
    calibration = VerifierCalibration(
        encoder,
        evidence.encoder_hash,
        saved.hash,
        {name: round(float(weight), 6) for name, weight in zip(EVIDENCE, weights, strict=True)},
        round(offset, 6),
        round(threshold_at_miss_rate(probabilities, evidence.present, max_missed), 6),
        growth,
    )
    fitted, checked = _reliability(calibration, evidence), None
    about: dict[str, Any] = {"fitted_on": shorten_paths([str(folder) for folder in results]), "there": fitted.as_dict()}
    if check:
        checked = _reliability(calibration, read_evidence(check, saved.hash, encoder))
        about |= {"checked_on": shorten_paths([str(folder) for folder in check]), "checked": checked.as_dict()}
    lists = _by_list(calibration, head.threshold, [*results, *check], max_missed)
    if not dry_run:
        save_verifier(model, calibration, about)
    return FittedVerifier(calibration, fitted, checked, lists)


def _probabilities(calibration: VerifierCalibration, evidence: Evidence) -> NDArray[np.float64]:
    rows = (dict(zip(EVIDENCE, row, strict=True)) for row in evidence.values)
    return np.array(
        [calibration.probability(row, seconds) for row, seconds in zip(rows, evidence.durations_s, strict=True)]
    )


def _reliability(calibration: VerifierCalibration, evidence: Evidence) -> Reliability:
    return reliability(_probabilities(calibration, evidence), evidence.present, calibration.threshold)


def _by_list(
    calibration: VerifierCalibration, head_threshold: float, folders: Sequence[str | Path], max_missed: float
) -> dict[str, ListDetection]:
    """Return the detection on each list: results of one trial list and condition, with present and absent targets.

    The name of a list is that of its folder, and of the folder above it, without `_absent`.
    """
    groups: dict[str, list[str | Path]] = {}
    for folder in folders:
        path = Path(folder).resolve()
        name = f"{path.parent.name.removesuffix('_absent')}/{path.name.removesuffix('_absent')}"
        groups.setdefault(name, []).append(folder)
    lists = {}
    for name, members in groups.items():
        evidence = read_evidence(members, calibration.model_hash, calibration.encoder)
        present = evidence.present
        if present.all() or not present.any():
            continue
        p = _probabilities(calibration, evidence)
        rejected = evidence.head < head_threshold, p < calibration.threshold
        errors = [(float(below[~present].mean()), float(below[present].mean())) for below in rejected]
        of_head, of_verifier = (detection(scores, present, max_missed) for scores in (evidence.head, p))
        lists[name] = ListDetection(of_head, of_verifier, errors[0], errors[1])
    return lists
