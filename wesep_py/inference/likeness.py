"""Whether embeddings are of one voice: those of an enrollment's windows, and those of several recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

SECOND_VOICE = 0.1
"""A second voice is suspected where a stretch of windows is less like the rest than this cosine."""
UNLIKE = 0.6
"""A recording is an outlier where it is less like the others than this, in parts of their own agreement."""
OUTLIER_WEIGHT = 0.1
"""What is left of an outlier's weight."""
MIN_STRETCH = 2
"""Windows, of a stretch and of the rest: an odd window is no voice."""


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


def stretch_likeness(embeddings: ArrayLike) -> float | None:
    """How like the rest of a recording its most unlike stretch is.

    People take turns: a second voice is a run of windows, not windows here and there. Of every run of at least two that
    leaves at least two, the mean embedding is compared with the mean of all others; the lowest cosine counts.

    Args:
        embeddings: `[windows, dim]`, of stretches of about equal length, in their order.

    Returns:
        A cosine; `None` for fewer than four windows.

    >>> stretch_likeness([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8], [0.6, 0.8]])
    0.6
    """
    unit = _unit(embeddings)
    count = len(unit)
    if count < 2 * MIN_STRETCH:
        return None
    before = np.concatenate([np.zeros((1, unit.shape[1])), np.cumsum(unit, axis=0)])
    first, last = np.triu_indices(count + 1, k=MIN_STRETCH)
    kept = last - first <= count - MIN_STRETCH
    stretches = before[last[kept]] - before[first[kept]]
    cosines = (_unit(stretches) * _unit(before[-1] - stretches)).sum(axis=1)
    return round(float(cosines.min()), 6)


def suspect_second_voice(embeddings: ArrayLike, threshold: float = SECOND_VOICE) -> bool | None:
    """Whether the windows of a recording seem to be of two voices in turn; `None` where they do not tell.

    Args:
        embeddings: `[windows, dim]`, in their order.
        threshold: two voices are suspected where `stretch_likeness` is below, from -1 (never) to 1. It depends on the
            encoder: how like each other it makes two people, and two seconds of one.

    >>> suspect_second_voice([[1.0, 0.0]] * 4), suspect_second_voice([[1.0, 0.0]] * 2 + [[0.0, 1.0]] * 2)
    (False, True)
    """
    likeness = stretch_likeness(embeddings)
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


def _unit(vectors: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(vectors, dtype=np.float64)
    return array / np.maximum(np.linalg.norm(array, axis=-1, keepdims=True), 1e-12)
