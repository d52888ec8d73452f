"""How sure a mean is: bootstrap intervals that respect which trials belong together."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95
DEFINITION = (
    f"{CONFIDENCE:.0%} percentile bootstrap (Efron and Tibshirani, 1993) over mixtures: all trials of a mixture "
    f"are drawn together; {RESAMPLES} resamples, seed 0"
)


@dataclass(frozen=True)
class Interval:
    """A mean, the interval it lies in with 95 % confidence, and the number of values behind it.

    Attributes:
        mean: None where there is no value.
        low: lower end; None where fewer than two mixtures have a value, for then nothing is known of the spread.
        high: upper end, likewise.
        count: number of values.
    """

    mean: float | None
    low: float | None
    high: float | None
    count: int

    def to_dict(self) -> dict[str, float | int | None]:
        """`{"mean": …, "low": …, "high": …, "count": …}`."""
        return asdict(self)


def bootstrap_mean(
    values: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    weights: Sequence[float] | None = None,
) -> Interval:
    """The mean of the values with its 95 % bootstrap interval (percentile method).

    Trials of one mixture share its voices and its noise, so their values go up and down together. Drawing whole
    groups keeps that: an interval over single trials would be too narrow.

    Args:
        values: one number a trial.
        groups: the mixture of each trial; None: each value is a group of its own.
        seed: of the resampling; the same values always give the same interval.
        resamples: number of bootstrap samples.
        weights: positive, of each value in the mean; None: all alike.

    Returns:
        The interval.

    Raises:
        ValueError: `groups` or `weights` has another length than `values`.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, sections 8.3 and 13.3.

    >>> bootstrap_mean([1.0, 1.0, 1.0])
    Interval(mean=1.0, low=1.0, high=1.0, count=3)
    """
    groups = range(len(values)) if groups is None else groups
    if len(groups) != len(values):
        raise ValueError(f"there are {len(groups)} groups for {len(values)} values")
    if weights is not None and len(weights) != len(values):
        raise ValueError(f"there are {len(weights)} weights for {len(values)} values")
    if not len(values):
        return Interval(None, None, None, 0)
    mean = float(np.average(values, weights=weights))
    indices: dict[Hashable, int] = {}
    membership = np.array([indices.setdefault(group, len(indices)) for group in groups])
    num_groups = len(indices)
    if num_groups < 2:
        return Interval(mean, None, None, len(values))
    each = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    sums = np.bincount(membership, weights=each * np.asarray(values, dtype=np.float64), minlength=num_groups)
    counts = np.bincount(membership, weights=each, minlength=num_groups)
    drawn = _draw(seed, resamples, num_groups)
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(mean, float(low), float(high), len(values))


@lru_cache(maxsize=4)
def _draw(seed: int, resamples: int, num_groups: int) -> np.ndarray:
    """Which groups each resample has, `[resamples, num_groups]`; the metrics of one set of trials share it."""
    drawn = np.random.default_rng(seed).integers(num_groups, size=(resamples, num_groups))
    drawn.setflags(write=False)
    return drawn
