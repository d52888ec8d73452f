"""How far a model's probability that a voice is in a recording can be believed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wesep_py.errors import InputError

BINS = 10


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
    p, labels = of_one_shape(probabilities, present)
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


def of_one_shape(values: ArrayLike, present: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
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
