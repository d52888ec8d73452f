"""How far a model's probability that a voice is in a recording can be believed, and what makes it believable."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wesep_py.errors import InputError, WesepError
from wesep_py.inference.presence import Calibration, save_calibration, sigmoid

BINS = 10
MAX_LOST = 0.02
"""Share of present voices that the threshold may lose."""
_STEPS, _SMALLEST = 100, 1e-10


@dataclass(frozen=True)
class Bin:
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
    bins: tuple[Bin, ...]

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
    p, labels = _arrays(probabilities, present)
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
        table.append(Bin(float(edges[i]), float(edges[i + 1]), count, mean, share))
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
    p, labels = _arrays(probabilities, present)
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


def main() -> None:
    """Calibrate a checkpoint on results of `wesep evaluate`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("results", nargs="+", type=Path, help="folders of wesep evaluate, present and absent targets")
    parser.add_argument("--model", type=Path, help="the checkpoint to write the calibration into")
    parser.add_argument("--check", nargs="+", type=Path, default=[], help="other results, to see what it does there")
    parser.add_argument("--max-lost", type=float, default=MAX_LOST, help="share of present voices that may be lost")
    arguments = parser.parse_args()
    try:
        _calibrate(arguments)
    except WesepError as error:
        raise SystemExit(f"calibration: {error}") from error


def _calibrate(arguments: argparse.Namespace) -> None:
    applied = None
    if arguments.model is not None:
        from wesep_py import checkpoint
        from wesep_py.inference.presence import calibration_of

        applied = calibration_of(checkpoint.load(arguments.model).provenance)
    scores, labels = scores_of(arguments.results, applied)
    calibration, found = calibrate(scores, labels, arguments.max_lost)
    print(calibration, found.table(), sep="\n")
    about: dict[str, Any] = {"fitted_on": [str(folder) for folder in arguments.results], "there": found.as_dict()}
    if arguments.check:
        others, kinds = scores_of(arguments.check, applied)
        p = sigmoid(calibration.scale * others + calibration.offset)
        elsewhere = reliability(p, kinds, calibration.threshold)
        print(f"on {', '.join(map(str, arguments.check))}", elsewhere.table(), sep="\n")
        about |= {"checked_on": [str(folder) for folder in arguments.check], "checked": elsewhere.as_dict()}
    if arguments.model is not None:
        print(f"{save_calibration(arguments.model, calibration, about)}: written")


def _cross_entropy(
    a: float, b: float, z: NDArray[np.float64], targets: NDArray[np.float64], weights: NDArray[np.float64]
) -> float:
    logits = a * z + b
    return float((weights * (np.logaddexp(0.0, logits) - targets * logits)).sum())


def _arrays(values: ArrayLike, present: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    x, labels = np.asarray(values, dtype=np.float64), np.asarray(present).astype(bool)
    if x.ndim != 1 or x.shape != labels.shape:
        raise InputError(f"{list(x.shape)} values and {list(labels.shape)} labels; one of each a trial is needed")
    return x, labels


def _checked(scores: ArrayLike, present: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    x, labels = _arrays(scores, present)
    if labels.all() or not labels.any():
        raise InputError("trials with and without the voice are needed, to tell them apart")
    if not np.isfinite(x).all():
        raise InputError("the scores hold values that are not finite")
    return x, labels


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


if __name__ == "__main__":
    main()
