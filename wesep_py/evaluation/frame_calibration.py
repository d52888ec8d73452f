"""The calibration of presence over time: scale and offset of the logit of a frame, from histograms of many trials."""

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
from wesep_py.inference.presence import Presence, sigmoid

# ----------------------------------------
# How far a model's probability that a voice is in a recording can be believed.

BINS = 10


@dataclass(frozen=True)
class ReliabilityBin:
    """The trials whose probability lies between two edges.

    Attributes:
        low, high: the edges; the lower one belongs to the bin.
        count: trials.
        mean: of their probabilities; `None` for none.
        present: share of them in which the voice is there; `None` for none.
    """

    low: float
    high: float
    count: int
    mean: float | None
    present: float | None


@dataclass(frozen=True)
class Reliability:
    """What a threshold does, and how far probabilities are from frequencies.

    Attributes:
        threshold: at least this is present.
        present, absent: trials of each kind.
        false_alarms: share of the absent ones that are taken for present.
        lost: share of the present ones that are taken for absent.
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
        """For JSON."""
        return asdict(self)

    def table(self) -> str:
        """For people: the reliability table, and a line of figures."""
        lines = ["probability  trials   mean  present"]
        for one in self.bins:
            figures = "     -        -" if one.mean is None else f"{one.mean:6.3f}   {one.present:6.3f}"
            lines.append(f"{one.low:4.2f}-{one.high:4.2f}  {one.count:8d} {figures}")
        told = [
            f"false alarms {_percent(self.false_alarms)} of {self.absent}",
            f"lost {_percent(self.lost)} of {self.present}",
            f"ECE {self.ece:.3f}",
            f"Brier {self.brier:.3f}",
        ]
        return "\n".join([*lines, f"at {self.threshold:.3f}: {', '.join(told)}"])


def reliability(probabilities: ArrayLike, present: ArrayLike, threshold: float = 0.5, bins: int = BINS) -> Reliability:
    """How probabilities compare with what is there.

    Args:
        probabilities: `[trials]`, 0 to 1.
        present: `[trials]`.
        threshold: at least this is present.
        bins: of equal width, over which the calibration error is taken.

    Raises:
        InputError: shapes that differ, no trials, a probability out of range.

    >>> found = reliability([0.9, 0.8, 0.1, 0.2], [1, 1, 0, 1])
    >>> found.lost, found.false_alarms, round(found.ece, 3)
    (0.3333333333333333, 0.0, 0.3)
    """
    p, labels = checked_scores_and_labels(probabilities, present)
    if not len(p) or p.min() < 0 or p.max() > 1:
        raise InputError("probabilities: one or more, each 0 to 1, are needed")
    edges = np.linspace(0.0, 1.0, bins + 1)
    places = np.minimum((p * bins).astype(int), bins - 1)
    table, ece = [], 0.0
    for i in range(bins):
        inside = places == i
        count = int(inside.sum())
        mean, share = (float(p[inside].mean()), float(labels[inside].mean())) if count else (None, None)
        if mean is not None and share is not None:
            ece += count / len(p) * abs(mean - share)
        table.append(ReliabilityBin(float(edges[i]), float(edges[i + 1]), count, mean, share))
    said = p >= threshold
    return Reliability(
        threshold,
        int(labels.sum()),
        int((~labels).sum()),
        float(said[~labels].mean()) if (~labels).any() else None,
        float((~said[labels]).mean()) if labels.any() else None,
        ece,
        float(((p - labels) ** 2).mean()),
        tuple(table),
    )


def checked_scores_and_labels(values: ArrayLike, present: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Values and labels as arrays `[trials]`.

    Raises:
        InputError: their shapes differ, or are of another kind.
    """
    x, labels = np.asarray(values, dtype=np.float64), np.asarray(present).astype(bool)
    if x.ndim != 1 or x.shape != labels.shape:
        raise InputError(f"{list(x.shape)} values and {list(labels.shape)} labels; one of each a trial is needed")
    return x, labels


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


STEP, HIGHEST = 0.5, 20.0
"""Width of a bin of the histogram of logits; what lies beyond the highest, or its negative, counts as that."""
_STEPS, _SMALLEST = 100, 1e-10


def frame_histogram(
    presence: Presence, reference: NDArray[np.float32] | None, sample_rate: int
) -> dict[str, int | list[int]]:
    """How many frames of a trial have which logit, before calibration, where the target speaks and where not.

    A frame counts as spoken in if the reference is active at its middle (`audio.level.active_mask`), as in training.

    Args:
        presence: what the head says of the trial.
        reference: `[samples]`, the target as it is in the mixture; `None` if it is absent.
        sample_rate: of the reference, in Hz.

    Returns:
        `lowest`: the first bin, which holds the logits from `lowest · STEP` on; `active`, `inactive`: frames in each
        bin from there on.

    >>> frame_histogram(Presence(0.0, np.array([-0.6, 0.1, 0.2], np.float32), 0.02), None, 16000)
    {'lowest': -2, 'active': [0, 0, 0], 'inactive': [1, 0, 2]}
    """
    limit = round(HIGHEST / STEP)
    bins = np.floor(np.asarray(presence.logits, dtype=np.float64) / STEP).clip(-limit, limit - 1).astype(int)
    active = np.zeros(len(bins), dtype=bool)
    if reference is not None and len(reference):
        middles = ((np.arange(len(bins)) + 0.5) * presence.frame_s * sample_rate).astype(int)
        active = active_mask(reference, sample_rate)[middles.clip(max=len(reference) - 1)]
    lowest = int(bins.min(initial=0))
    size = int(bins.max(initial=lowest)) - lowest + 1
    count = {
        name: np.bincount(bins[chosen] - lowest, minlength=size).tolist()
        for name, chosen in (("active", active), ("inactive", ~active))
    }
    return {"lowest": lowest, **count}


@dataclass(frozen=True)
class FrameCounts:
    """Frames of all trials, by their logit.

    Attributes:
        logits: `[bins]`, the middle of each.
        active, inactive: `[bins]`, frames of the trials in which the voice is there.
        absent: `[bins]`, frames of those in which it is not.
    """

    logits: NDArray[np.float64]
    active: NDArray[np.float64]
    inactive: NDArray[np.float64]
    absent: NDArray[np.float64]

    def weighted(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """`[bins]` each: weights of frames with and without speech, as if half of the trials were absent ones.

        So does `calibration.calibrate` weigh recordings. Where all trials are of one kind, they count alone.
        """
        there, not_there = (self.active + self.inactive).sum(), self.absent.sum()
        share = 0.5 if there and not_there else 1.0
        here, gone = (share / max(1.0, total) for total in (there, not_there))
        return self.active * here, self.inactive * here + self.absent * gone


@dataclass(frozen=True)
class FrameCalibration:
    """What `presence.Calibration` holds of frames, and what it does on those it was fitted to.

    Attributes:
        scale, offset: probability of a frame = sigmoid(scale · logit + offset).
        frames: they were fitted to.
        ece: expected calibration error, weighted as the fit is.
        ece_before: the same with the head's own probabilities.
    """

    scale: float
    offset: float
    frames: int
    ece: float
    ece_before: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON, and a checkpoint's provenance."""
        return asdict(self)


def read_frame_counts(folders: Sequence[str | Path]) -> FrameCounts | None:
    """The frames in results of `wesep evaluate`; `None` where they hold none.

    Args:
        folders: with `per_trial.jsonl`; trials that failed, and those with a silent reference, are left out.

    Raises:
        InputError: a file that is missing or damaged.
    """
    limit = round(HIGHEST / STEP)
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
            place = slice(first, first + size)
            counts["active"][place] += frames["active"]
            counts["absent" if outcome == "absent" else "inactive"][place] += frames["inactive"]
    if not any(values.any() for values in counts.values()):
        return None
    return FrameCounts((np.arange(-limit, limit) + 0.5) * STEP, **counts)


def calibrate_frames(folders: Sequence[str | Path]) -> FrameCalibration | None:
    """Fit scale and offset to the frames in results of `wesep evaluate`; `None` where they hold none.

    The logits are those before calibration, so the same results give the same, however the model was calibrated.

    Args:
        folders: as `read_frame_counts`.

    Raises:
        InputError: no frame in which the voice speaks, or none in which it does not; logits that fall with activity.
    """
    counts = read_frame_counts(folders)
    if counts is None:
        return None
    active, inactive = counts.weighted()
    if not active.any() or not inactive.any():
        raise InputError("frames with and without the voice are needed, to tell them apart; add such results")
    spoken, unspoken = float(counts.active.sum()), float((counts.inactive + counts.absent).sum())
    # Labels drawn in as by `calibration.fit_platt`, so that frames that all tell apart have a finite solution.
    targets = np.repeat([(spoken + 1) / (spoken + 2), 1 / (unspoken + 2)], len(counts.logits))
    scale, offset = fit_weighted(np.tile(counts.logits, 2), targets, np.concatenate([active, inactive]))
    if scale <= 0:
        raise InputError(f"the logits of frames do not rise with activity (the best scale is {scale:.3g})")
    errors = [_ece(sigmoid(a * counts.logits + b), active, inactive) for a, b in ((scale, offset), (1.0, 0.0))]
    return FrameCalibration(scale, offset, round(spoken + unspoken), *errors)


def fit_weighted(x: ArrayLike, targets: ArrayLike, weights: ArrayLike) -> tuple[float, float]:
    """Scale and offset with which sigmoid(scale · x + offset) is the most likely probability of the targets.

    Newton's method on the weighted cross-entropy, with a line search (Lin, Lin and Weng, "A note on Platt's
    probabilistic outputs", Machine Learning, 2007).

    Args:
        x: `[items]`, finite.
        targets: `[items]`, between 0 and 1.
        weights: `[items]`, 0 or more, not all 0.

    >>> scale, offset = fit_weighted([-1.0, -1.0, 1.0, 1.0], [0, 1, 0, 1], [3, 1, 1, 3])
    >>> round(scale, 6) == round(math.log(3), 6), round(offset, 6)
    (True, 0.0)
    """
    x, y, w = (np.asarray(one, dtype=np.float64) for one in (x, targets, weights))
    w = w / w.sum()
    # In standard form the two parameters are of one size, whatever the scale of x.
    centre = float((w * x).sum())
    spread = math.sqrt(float((w * (x - centre) ** 2).sum())) or 1.0
    z = (x - centre) / spread
    prior = float((w * y).sum())
    parameters = np.array([0.0, math.log(prior / (1 - prior))])
    value = _cross_entropy(parameters, z, y, w)
    for _ in range(_STEPS):
        p = sigmoid(parameters[0] * z + parameters[1])
        error, curve = w * (p - y), w * p * (1 - p)
        gradient = np.array([(error * z).sum(), error.sum()])
        if np.abs(gradient).max() < 1e-10:
            break
        hessian = np.array([[(curve * z * z).sum(), (curve * z).sum()], [(curve * z).sum(), curve.sum()]])
        step, size = np.linalg.solve(hessian + 1e-12 * np.eye(2), gradient), 1.0
        while size > _SMALLEST:
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
    """Expected calibration error (Guo et al., ICML 2017, eq. 3) of weighted frames."""
    places = np.minimum((p * BINS).astype(int), BINS - 1)
    gaps = np.bincount(places, active - p * (active + inactive), BINS)
    return float(np.abs(gaps).sum() / (active.sum() + inactive.sum()))
