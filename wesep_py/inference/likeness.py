"""Whether embeddings are of one voice: those of an enrollment's windows, and those of several recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

SECOND_VOICE = 0.5
"""A second voice is suspected where two groups of windows are less alike than this, in parts of their own likeness."""
UNLIKE = 0.5
"""A recording is an outlier where it is less like the others than this, in parts of their own agreement."""
OUTLIER_WEIGHT = 0.1
"""What is left of an outlier's weight."""
MIN_WINDOWS = 4
MIN_GROUP = 2
MIN_GROUP_SHARE = 0.15


@dataclass(frozen=True)
class Agreement:
    """How alike several recordings of one voice are.

    Attributes:
        cosines: of each recording to the weighted mean of the others that are no outliers.
        others: mean of those others' own cosines, each to the rest of them; `None` where there are not two of them.
        outliers: indices of the recordings that are unlike the others, the most unlike first.
    """

    cosines: tuple[float, ...]
    others: tuple[float | None, ...]
    outliers: tuple[int, ...]


def coherence(embeddings: ArrayLike) -> float:
    """The mean cosine of embeddings `[windows, dim]` to their mean: 1 where all are alike, less the more they spread.

    >>> coherence([[1.0, 0.0], [2.0, 0.0]]), round(coherence([[1.0, 0.0], [0.0, 1.0]]), 3)
    (1.0, 0.707)
    """
    unit = _unit(embeddings)
    return float((unit @ _unit(unit.mean(axis=0))).mean())


def group_likeness(embeddings: ArrayLike) -> float | None:
    """How alike the two groups are into which the windows of a recording fall, 1 for one voice.

    The windows are parted by spherical 2-means, begun at the sign of their first principal component. Then the mean
    cosine of pairs across the groups is divided by that of pairs within them: a window's embedding is its voice's and
    something of its own, which lowers both alike, so that what is left is the cosine of the two voices.

    Args:
        embeddings: `[windows, dim]`, of stretches of about equal length.

    Returns:
        The quotient; `None` where there are fewer than four windows, or no likeness within the groups either. It is 1
        where a group has less than two windows, or less than 15 %: an odd window is no voice.

    >>> group_likeness([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8], [0.6, 0.8]])
    0.6
    """
    unit = _unit(embeddings)
    count = len(unit)
    if count < MIN_WINDOWS:
        return None
    second = _two_groups(unit)
    if min(second.sum(), (~second).sum()) < max(MIN_GROUP, MIN_GROUP_SHARE * count):
        return 1.0
    cosines = unit @ unit.T
    same = (second[:, None] == second[None]) & ~np.eye(count, dtype=bool)
    within = float(cosines[same].mean())
    if within <= 0.05:
        return None
    return round(float(cosines[np.ix_(second, ~second)].mean()) / within, 6)


def suspect_second_voice(embeddings: ArrayLike, threshold: float = SECOND_VOICE) -> bool | None:
    """Whether the windows of a recording seem to be of two voices; `None` where they do not tell.

    Args:
        embeddings: `[windows, dim]`.
        threshold: two voices are suspected where `group_likeness` is below, from 0 (never) to 1. It depends on the
            encoder: how like each other it makes two people.

    >>> suspect_second_voice([[1.0, 0.0]] * 4), suspect_second_voice([[1.0, 0.0]] * 2 + [[0.0, 1.0]] * 2)
    (False, True)
    """
    likeness = group_likeness(embeddings)
    return None if likeness is None else likeness < threshold


def agreement(embeddings: ArrayLike, durations_s: Sequence[float], threshold: float = UNLIKE) -> Agreement:
    """How alike recordings of one voice are, and which of three or more are unlike the others.

    The one that is least like the others, in parts of their own agreement, is an outlier where that is below the
    threshold; then the same among the rest, down to two. Of two recordings alone none is the outlier.

    Args:
        embeddings: `[recordings, dim]`.
        durations_s: seconds of speech of each.
        threshold: from 0 (none is ever an outlier) to 1.
    """
    unit = _unit(embeddings)
    weights = np.maximum(np.asarray(durations_s, dtype=np.float64), 1e-3)
    kept, outliers = list(range(len(unit))), []
    while len(kept) > 2:
        parts = {}
        for index in kept:
            own, others = _compared(unit, weights, index, kept)
            if others is not None and others > 0:
                parts[index] = own / others
        if not parts or min(parts.values()) >= threshold:
            break
        worst = min(parts, key=lambda index: parts[index])
        kept.remove(worst)
        outliers.append(worst)
    compared = [_compared(unit, weights, index, kept) for index in range(len(unit))]
    return Agreement(tuple(c for c, _ in compared), tuple(o for _, o in compared), tuple(outliers))


def weights_of(durations_s: Sequence[float], outliers: Sequence[int]) -> list[float]:
    """The share of each recording in the voice: as its seconds of speech, an outlier's a tenth; they sum to 1.

    >>> weights_of([3.0, 1.0], []), weights_of([0.0, 0.0], [])
    ([0.75, 0.25], [0.5, 0.5])
    """
    weights = np.maximum(np.asarray(durations_s, dtype=np.float64), 1e-3)
    weights[list(outliers)] *= OUTLIER_WEIGHT
    return [float(weight) for weight in weights / weights.sum()]


def _compared(
    unit: NDArray[np.float64], weights: NDArray[np.float64], index: int, kept: Sequence[int]
) -> tuple[float, float | None]:
    """A recording's cosine to the mean of the kept others, and the mean of theirs to one another."""

    def to_mean(one: int, others: list[int]) -> float:
        return float(unit[one] @ _unit((unit[others] * weights[others, None]).sum(axis=0)))

    others = [other for other in kept if other != index]
    if not others:
        return 1.0, None
    theirs = [to_mean(one, [other for other in others if other != one]) for one in others] if len(others) > 1 else []
    return to_mean(index, others), float(np.mean(theirs)) if theirs else None


def _two_groups(unit: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Spherical 2-means: true for the rows of the second group, which may come out empty."""
    centred = unit - unit.mean(axis=0)
    _, vectors = np.linalg.eigh(centred @ centred.T)
    second = vectors[:, -1] > 0
    for _ in range(20):
        if second.all() or not second.any():
            break
        nearer = unit @ _unit(unit[second].mean(axis=0)) > unit @ _unit(unit[~second].mean(axis=0))
        if (nearer == second).all():
            break
        second = nearer
    return second


def _unit(vectors: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(vectors, dtype=np.float64)
    return array / np.maximum(np.linalg.norm(array, axis=-1, keepdims=True), 1e-12)
