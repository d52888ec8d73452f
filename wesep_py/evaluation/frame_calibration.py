"""Measure the reliability of probabilities, and calibrate the presence of each frame.

`reliability` compares probabilities with frequencies. `frame_histogram` counts the frames of a trial by their logits,
so that results stay small; `calibrate_frames` fits scale and offset of the logits to the histograms of many trials.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wesep_py.audio.level import active_mask
from wesep_py.common.errors import InputError
from wesep_py.common.textfiles import read_jsonl
from wesep_py.evaluation.results import PER_TRIAL, check_record
from wesep_py.inference.presence_decision.presence import Presence, sigmoid

NUM_BINS = 10
"""Number of bins of a reliability table."""
LOGIT_STEP, MAX_LOGIT = 0.5, 20.0
"""Bin width of the histogram of logits, and the range ±MAX_LOGIT that logits are clipped to."""
MAX_NEWTON_STEPS, MIN_STEP_SIZE = 100, 1e-10


@dataclass(frozen=True)
class ReliabilityBin:
    """The trials with a probability between two edges.

    Attributes:
        low, high: the edges; the bin includes the lower one.
        count: number of trials.
        mean: of their probabilities; `None` without trials.
        present: share of them with a present target; `None` without trials.
    """

    low: float
    high: float
    count: int
    mean: float | None
    present: float | None


@dataclass(frozen=True)
class Reliability:
    """Errors of a threshold, and the distance of probabilities from frequencies.

    Attributes:
        threshold: least probability at which the target counts as present.
        present, absent: number of trials of each kind.
        false_alarms: share of the absent targets that are detected.
        lost: share of the present targets that are missed.
        ece: expected calibration error (Guo et al., ICML 2017, eq. 3), 0 to 1.
        brier: mean squared error of the probabilities.
        bins: the reliability table.
    """

    threshold: float
    present: int
    absent: int
    false_alarms: float | None
    lost: float | None
    ece: float
    brier: float
    bins: tuple[ReliabilityBin, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the reliability for JSON."""
        return asdict(self)

    def table(self) -> str:
        """Return the reliability table and a line of figures as text."""
        lines = ["probability  trials   mean  present"]
        for item in self.bins:
            figures = "     -        -" if item.mean is None else f"{item.mean:6.3f}   {item.present:6.3f}"
            lines.append(f"{item.low:4.2f}-{item.high:4.2f}  {item.count:8d} {figures}")
        errors = [
            f"false alarms {_percent(self.false_alarms)} of {self.absent}",
            f"missed {_percent(self.lost)} of {self.present}",
            f"ECE {self.ece:.3f}",
            f"Brier {self.brier:.3f}",
        ]
        return "\n".join([*lines, f"at {self.threshold:.3f}: {', '.join(errors)}"])


def reliability(
    probabilities: ArrayLike, present: ArrayLike, threshold: float = 0.5, bins: int = NUM_BINS
) -> Reliability:
    """Compare probabilities of presence with the truth.

    Args:
        probabilities: `[trials]`, 0 to 1.
        present: `[trials]`, whether the target is present.
        threshold: least probability at which the target counts as present.
        bins: number of bins of equal width, over which the calibration error is taken.

    Raises:
        InputError: shapes differ, there are no trials, or a probability is out of range.

    >>> result = reliability([0.9, 0.8, 0.1, 0.2], [1, 1, 0, 1])
    >>> result.lost, result.false_alarms, round(result.ece, 3)
    (0.3333333333333333, 0.0, 0.3)
    """
    p, labels = checked_scores_and_labels(probabilities, present)
    if not len(p) or p.min() < 0 or p.max() > 1:
        raise InputError("probabilities: one or more, each 0 to 1, are needed")
    edges = np.linspace(0.0, 1.0, bins + 1)
    bin_numbers = np.minimum((p * bins).astype(int), bins - 1)
    table, ece = [], 0.0
    for i in range(bins):
        inside = bin_numbers == i
        count = int(inside.sum())
        mean, share = (float(p[inside].mean()), float(labels[inside].mean())) if count else (None, None)
        if mean is not None and share is not None:
            ece += count / len(p) * abs(mean - share)
        table.append(ReliabilityBin(float(edges[i]), float(edges[i + 1]), count, mean, share))
    detected = p >= threshold
    return Reliability(
        threshold,
        int(labels.sum()),
        int((~labels).sum()),
        float(detected[~labels].mean()) if (~labels).any() else None,
        float((~detected[labels]).mean()) if labels.any() else None,
        ece,
        float(((p - labels) ** 2).mean()),
        tuple(table),
    )


def checked_scores_and_labels(values: ArrayLike, present: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return values and labels as arrays `[trials]`.

    Raises:
        InputError: their shapes differ, or have more than one axis.
    """
    x, labels = np.asarray(values, dtype=np.float64), np.asarray(present).astype(bool)
    if x.ndim != 1 or x.shape != labels.shape:
        raise InputError(f"{list(x.shape)} values and {list(labels.shape)} labels; one of each per trial is needed")
    return x, labels


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def frame_histogram(
    presence: Presence, reference: NDArray[np.float32] | None, sample_rate: int
) -> dict[str, int | list[int]]:
    """Count the frames of a trial by their logits before calibration, where the target speaks and where not.

    The target speaks in a frame if the reference is active at its middle (`audio.level.active_mask`), as in training.

    Args:
        presence: output of the presence head for the trial.
        reference: `[samples]`, the target in the mixture; `None` if it is absent.
        sample_rate: of the reference, in Hz.

    Returns:
        `lowest`: number of the first bin, which holds the logits from `lowest · LOGIT_STEP` on; `active`, `inactive`:
        number of frames in each bin from there on.

    >>> frame_histogram(Presence(0.0, np.array([-0.6, 0.1, 0.2], np.float32), 0.02), None, 16000)
    {'lowest': -2, 'active': [0, 0, 0], 'inactive': [1, 0, 2]}
    """
    limit = round(MAX_LOGIT / LOGIT_STEP)
    bins = np.floor(np.asarray(presence.logits, dtype=np.float64) / LOGIT_STEP).clip(-limit, limit - 1).astype(int)
    active = np.zeros(len(bins), dtype=bool)
    if reference is not None and len(reference):
        middles = ((np.arange(len(bins)) + 0.5) * presence.frame_s * sample_rate).astype(int)
        active = active_mask(reference, sample_rate)[middles.clip(max=len(reference) - 1)]
    lowest = int(bins.min(initial=0))
    size = int(bins.max(initial=lowest)) - lowest + 1
    count = {
        name: np.bincount(bins[mask] - lowest, minlength=size).tolist()
        for name, mask in (("active", active), ("inactive", ~active))
    }
    return {"lowest": lowest, **count}


@dataclass(frozen=True)
class FrameCounts:
    """Number of frames of all trials, by their logits.

    Attributes:
        logits: `[bins]`, middle of each bin.
        active, inactive: `[bins]`, frames of the trials with a present target, with and without its speech.
        absent: `[bins]`, frames of the trials with an absent target.
    """

    logits: NDArray[np.float64]
    active: NDArray[np.float64]
    inactive: NDArray[np.float64]
    absent: NDArray[np.float64]

    def weighted(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the weights of frames with and without speech of the target, `[bins]` each.

        The weights are as if half of the trials had an absent target, as `calibration.calibrate` weights recordings.
        Where all trials are of one kind, they have the whole weight.
        """
        num_present, num_absent = (self.active + self.inactive).sum(), self.absent.sum()
        share = 0.5 if num_present and num_absent else 1.0
        present_weight, absent_weight = (share / max(1.0, total) for total in (num_present, num_absent))
        return self.active * present_weight, self.inactive * present_weight + self.absent * absent_weight


@dataclass(frozen=True)
class FrameCalibration:
    """Calibration of frames, and its error on the frames that it was fitted to.

    Attributes:
        scale, offset: probability of a frame = sigmoid(scale · logit + offset).
        frames: number of frames of the fit.
        ece: expected calibration error, with the weights of the fit.
        ece_before: the same without calibration.
    """

    scale: float
    offset: float
    frames: int
    ece: float
    ece_before: float

    def as_dict(self) -> dict[str, Any]:
        """Return the calibration for JSON and the provenance of a checkpoint."""
        return asdict(self)


def read_frame_counts(folders: Sequence[str | Path]) -> FrameCounts | None:
    """Read the histograms of frames from results of `wesep evaluate`; `None` where there are none.

    Args:
        folders: with `per_trial.jsonl`; failed trials and those with a silent reference are skipped.

    Raises:
        InputError: a file is missing or damaged.
    """
    limit = round(MAX_LOGIT / LOGIT_STEP)
    counts = {name: np.zeros(2 * limit) for name in ("active", "inactive", "absent")}
    for folder in folders:
        path = Path(folder) / PER_TRIAL
        if not path.is_file():
            raise InputError(f"{path}: no such file; make it with `wesep evaluate`")
        for row in read_jsonl(path, "trials of `wesep evaluate`"):
            check_record(row, "outcome")
            frames, outcome = row.values.get("presence_frames"), row.values["outcome"]
            if frames is None or outcome not in ("scored", "absent"):
                continue
            first, size = frames["lowest"] + limit, len(frames["active"])
            if size != len(frames["inactive"]) or not 0 <= first <= 2 * limit - size:
                raise InputError(
                    f"{row.place}: presence_frames has {size} and {len(frames['inactive'])} bins from "
                    f"{frames['lowest']}; as many of both, from {-limit} to {limit - 1}, are needed: evaluate again"
                )
            bins = slice(first, first + size)
            counts["active"][bins] += frames["active"]
            counts["absent" if outcome == "absent" else "inactive"][bins] += frames["inactive"]
    if not any(values.any() for values in counts.values()):
        return None
    return FrameCounts((np.arange(-limit, limit) + 0.5) * LOGIT_STEP, **counts)


def calibrate_frames(folders: Sequence[str | Path]) -> FrameCalibration | None:
    """Fit scale and offset to the frames in results of `wesep evaluate`; `None` where there are none.

    The logits are those before calibration, so the fit does not depend on how the model was calibrated.

    Args:
        folders: as `read_frame_counts`.

    Raises:
        InputError: the target speaks in no frame or in all frames, or logits fall with activity.
    """
    counts = read_frame_counts(folders)
    if counts is None:
        return None
    active, inactive = counts.weighted()
    if not active.any() or not inactive.any():
        raise InputError("frames with and without speech of the target are needed; add such results")
    num_active, num_inactive = float(counts.active.sum()), float((counts.inactive + counts.absent).sum())
    # Labels are smoothed as by `calibration.fit_platt`, so that perfectly separated frames have a finite solution.
    targets = np.repeat([(num_active + 1) / (num_active + 2), 1 / (num_inactive + 2)], len(counts.logits))
    scale, offset = fit_weighted(np.tile(counts.logits, 2), targets, np.concatenate([active, inactive]))
    if scale <= 0:
        raise InputError(f"the logits of frames do not rise with activity (the best scale is {scale:.3g})")
    errors = [_ece(sigmoid(a * counts.logits + b), active, inactive) for a, b in ((scale, offset), (1.0, 0.0))]
    return FrameCalibration(scale, offset, round(num_active + num_inactive), *errors)


def fit_weighted(x: ArrayLike, targets: ArrayLike, weights: ArrayLike) -> tuple[float, float]:
    """Fit scale and offset so that sigmoid(scale · x + offset) has the least cross-entropy with the targets.

    Newton's method on the weighted cross-entropy, with a line search (Lin, Lin and Weng, "A note on Platt's
    probabilistic outputs", Machine Learning, 2007).

    Args:
        x: `[items]`, finite.
        targets: `[items]`, probabilities between 0 and 1.
        weights: `[items]`, 0 or more, not all 0.

    Returns:
        Scale and offset.

    >>> scale, offset = fit_weighted([-1.0, -1.0, 1.0, 1.0], [0, 1, 0, 1], [3, 1, 1, 3])
    >>> round(scale, 6) == round(math.log(3), 6), round(offset, 6)
    (True, 0.0)
    """
    x, y, w = (np.asarray(array, dtype=np.float64) for array in (x, targets, weights))
    w = w / w.sum()
    # z = (x − mean) / deviation: both parameters are then of similar size, whatever the scale of x.
    centre = float((w * x).sum())
    spread = math.sqrt(float((w * (x - centre) ** 2).sum())) or 1.0
    z = (x - centre) / spread
    prior = float((w * y).sum())
    parameters = np.array([0.0, math.log(prior / (1 - prior))])
    value = _cross_entropy(parameters, z, y, w)
    for _ in range(MAX_NEWTON_STEPS):
        p = sigmoid(parameters[0] * z + parameters[1])
        error, curve = w * (p - y), w * p * (1 - p)
        gradient = np.array([(error * z).sum(), error.sum()])
        if np.abs(gradient).max() < 1e-10:
            break
        hessian = np.array([[(curve * z * z).sum(), (curve * z).sum()], [(curve * z).sum(), curve.sum()]])
        step, size = np.linalg.solve(hessian + 1e-12 * np.eye(2), gradient), 1.0
        # Halve the step until the value falls by a part of what the gradient promises (Armijo's rule).
        while size > MIN_STEP_SIZE:
            trial = _cross_entropy(parameters - size * step, z, y, w)
            if trial < value - 1e-4 * size * float(gradient @ step):
                break
            size /= 2
        else:
            break
        parameters, value = parameters - size * step, trial
    scale = float(parameters[0]) / spread
    return scale, float(parameters[1]) - scale * centre


def _cross_entropy(
    parameters: NDArray[np.float64], z: NDArray[np.float64], targets: NDArray[np.float64], weights: NDArray[np.float64]
) -> float:
    logits = parameters[0] * z + parameters[1]
    return float((weights * (np.logaddexp(0.0, logits) - targets * logits)).sum())


def _ece(p: NDArray[np.float64], active: NDArray[np.float64], inactive: NDArray[np.float64]) -> float:
    """Return the expected calibration error (Guo et al., ICML 2017, eq. 3) of weighted frames."""
    bins = np.minimum((p * NUM_BINS).astype(int), NUM_BINS - 1)
    gaps = np.bincount(bins, active - p * (active + inactive), NUM_BINS)
    return float(np.abs(gaps).sum() / (active.sum() + inactive.sum()))
