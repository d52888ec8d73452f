"""Metrics of speaker verification: cosine scores, score normalisation, DET curve, EER and minDCF."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from wesep_py.common.errors import InputError
from wesep_py.metrics.separation import MetricError


def speaker_similarity(estimate: np.ndarray, enrollment: np.ndarray) -> float:
    """Return the cosine similarity of two embeddings, −1 to 1.

    Args:
        estimate: `[dim]`, embedding of the estimate.
        enrollment: `[dim]`, embedding of the enrollment, by the same encoder.

    Raises:
        MetricError: the sizes differ, or an embedding is zero or not finite.

    >>> speaker_similarity(np.array([1.0, 0.0]), np.array([3.0, 4.0]))
    0.6
    """
    first, second = (np.asarray(embedding, dtype=np.float64).ravel() for embedding in (estimate, enrollment))
    if first.shape != second.shape:
        raise MetricError(f"embeddings of {len(first)} and {len(second)} numbers cannot be compared")
    norms = float(np.linalg.norm(first) * np.linalg.norm(second))
    if not np.isfinite(norms) or norms == 0.0:
        raise MetricError("an embedding is zero or not finite")
    return float(first @ second / norms)


class DETCurve(NamedTuple):
    """The operating points of a detector, which accepts a trial if its score is at least the threshold.

    Attributes:
        thresholds: `[points]`, falling: +inf (no trial is accepted), then every distinct score.
        false_alarm: `[points]`, share of the non-target trials that are accepted, from 0 to 1.
        miss: `[points]`, share of the target trials that are rejected, from 1 to 0.
    """

    thresholds: np.ndarray
    false_alarm: np.ndarray
    miss: np.ndarray


class OperatingPoint(NamedTuple):
    """An error figure, and the threshold at which it is reached (+inf: accept no trial)."""

    value: float
    threshold: float


def det_curve(scores: np.ndarray, is_target: np.ndarray) -> DETCurve:
    """Return miss and false alarm rates at every threshold; trials of equal score are accepted together.

    Args:
        scores: `[trials]`, higher for the same speaker, in any order.
        is_target: `[trials]`, true or 1 where both sides are of the same speaker, else false or 0.

    Raises:
        MetricError: there are no target trials, or no non-target trials; a score is not finite.
        InputError: the shapes differ, or `is_target` holds something other than 0 and 1.

    Source: Martin et al., "The DET curve in assessment of detection task performance", Eurospeech 1997.

    >>> curve = det_curve(np.array([0.9, 0.5, 0.5, 0.1]), np.array([1, 1, 0, 0]))
    >>> curve.miss.tolist(), curve.false_alarm.tolist()
    ([1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 1.0])
    """
    scores, targets = _checked_trials(scores, is_target)
    order = np.argsort(-scores, kind="stable")
    scores, targets = scores[order], targets[order]
    # One operating point per distinct score: the index of the last trial of each run of equal scores.
    #   scores   0.9 0.5 0.5 0.1   ->   last_of_equal  0 2 3
    last_of_equal = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    accepted_targets = np.cumsum(targets)[last_of_equal]
    accepted_nontargets = last_of_equal + 1 - accepted_targets
    num_targets = int(targets.sum())
    return DETCurve(
        thresholds=np.concatenate([[np.inf], scores[last_of_equal]]),
        false_alarm=np.concatenate([[0.0], accepted_nontargets / (len(scores) - num_targets)]),
        miss=np.concatenate([[1.0], 1.0 - accepted_targets / num_targets]),
    )


def equal_error_rate(scores: np.ndarray, is_target: np.ndarray) -> OperatingPoint:
    """Return the equal error rate: where miss and false alarm rates are equal, linearly between operating points.

    Args:
        scores, is_target: as `det_curve`.

    Returns:
        The rate, 0 to 1 (0.01 is 1 %), and the threshold, interpolated likewise.

    Raises:
        MetricError, InputError: as `det_curve`.

    >>> equal_error_rate(np.array([0.9, 0.4, 0.6, 0.1]), np.array([1, 1, 0, 0])).value
    0.5
    >>> equal_error_rate(np.array([1.0, 1.0]), np.array([1, 0])).value  # a detector without information
    0.5
    """
    curve = det_curve(scores, is_target)
    excess = curve.miss - curve.false_alarm  # from 1 down to −1
    after = int(np.argmax(excess <= 0))
    before = after - 1
    share = excess[before] / (excess[before] - excess[after])
    value = curve.miss[before] + share * (curve.miss[after] - curve.miss[before])
    upper, lower = curve.thresholds[before], curve.thresholds[after]
    threshold = lower if np.isinf(upper) else upper + share * (lower - upper)
    return OperatingPoint(float(value), float(threshold))


def min_dcf(
    scores: np.ndarray,
    is_target: np.ndarray,
    p_target: float = 0.01,
    cost_miss: float = 1.0,
    cost_false_alarm: float = 1.0,
) -> OperatingPoint:
    """Return the minimum detection cost over all thresholds; 1 is the better of accepting all and accepting none.

    `(C_miss p P_miss + C_fa (1 − p) P_fa) / min(C_miss p, C_fa (1 − p))`.

    Args:
        scores, is_target: as `det_curve`.
        p_target: prior probability p of a target trial, between 0 and 1.
        cost_miss, cost_false_alarm: C_miss and C_fa, > 0.

    Returns:
        The cost, 0 to 1, and the highest threshold that reaches it.

    Raises:
        InputError: the prior or a cost is out of range; shapes and labels as `det_curve`.
        MetricError: as `det_curve`.

    Source: NIST 2016 speaker recognition evaluation plan (the cost, and its normalisation).

    >>> min_dcf(np.array([0.9, 0.8, 0.2]), np.array([1, 0, 1]), p_target=0.5).value
    0.5
    """
    if not 0 < p_target < 1:
        raise InputError(f"p_target is {p_target}; between 0 and 1 is allowed")
    if not (cost_miss > 0 and cost_false_alarm > 0):
        raise InputError(f"cost_miss and cost_false_alarm are {cost_miss} and {cost_false_alarm}; above 0 is allowed")
    curve = det_curve(scores, is_target)
    of_misses, of_false_alarms = cost_miss * p_target, cost_false_alarm * (1.0 - p_target)
    costs = (of_misses * curve.miss + of_false_alarms * curve.false_alarm) / min(of_misses, of_false_alarms)
    best = int(np.argmin(costs))
    return OperatingPoint(float(costs[best]), float(curve.thresholds[best]))


def cosine_scores(enrollments: np.ndarray, tests: np.ndarray) -> np.ndarray:
    """Return the cosine similarity of every enrollment to every test.

    Args:
        enrollments: `[enrollments, embedding_dim]`.
        tests: `[tests, embedding_dim]`.

    Returns:
        `[enrollments, tests]`, within ±1, float64.

    Raises:
        MetricError: an embedding is zero, or not finite.
        InputError: the shapes do not fit.

    >>> cosine_scores(np.array([[2.0, 0.0]]), np.array([[3.0, 0.0], [0.0, 1.0]])).tolist()
    [[1.0, 0.0]]
    """
    pair = [np.asarray(side, dtype=np.float64) for side in (enrollments, tests)]
    if any(side.ndim != 2 for side in pair) or pair[0].shape[1] != pair[1].shape[1]:
        raise InputError(
            f"enrollments and tests have shapes {list(pair[0].shape)} and {list(pair[1].shape)}; "
            "[items, embedding_dim] of one embedding_dim is needed"
        )
    units = []
    for name, side in zip(("enrollment", "test"), pair, strict=True):
        norms = np.linalg.norm(side, axis=1, keepdims=True)
        wrong = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
        if len(wrong):
            raise MetricError(f"{name} {wrong[0]} has an embedding that is zero or not finite, so it has no cosine")
        units.append(side / norms)
    return np.clip(units[0] @ units[1].T, -1.0, 1.0)


def as_norm(
    scores: np.ndarray,
    enrollment_cohort: np.ndarray,
    test_cohort: np.ndarray,
    top_n: int = 300,
) -> np.ndarray:
    """Return scores with adaptive symmetric normalisation (AS-norm) by the nearest speakers of a cohort.

    `s' = ((s − μ_e) / σ_e + (s − μ_t) / σ_t) / 2`, μ and σ: mean and (population) standard deviation of the `top_n`
    highest scores of the enrollment, and of the test, against the cohort.

    Args:
        scores: `[enrollments, tests]`; for single trials pick from the result.
        enrollment_cohort: scores of each enrollment against the cohort, `[enrollments, cohort]`.
        test_cohort: scores of each test against the cohort, `[tests, cohort]`. The cohort has one embedding per
            speaker, none of them in the trials.
        top_n: number of highest cohort scores; 2 to the size of the cohort.

    Returns:
        `[enrollments, tests]`, float64.

    Raises:
        InputError: shapes that do not fit, or `top_n` is out of range.
        MetricError: scores that are not finite, or cohort scores that are all equal.

    Source: Matějka et al., "Analysis of score normalization in multilingual speaker recognition", Interspeech 2017
    (adaptive S-norm 1).

    >>> as_norm(np.array([[3.0]]), np.array([[1.0, -1.0, -9.0]]), np.array([[2.0, 0.0, -9.0]]), top_n=2).tolist()
    [[2.5]]
    """
    scores, of_enrollment, of_test = (np.asarray(a, dtype=np.float64) for a in (scores, enrollment_cohort, test_cohort))
    shapes = [list(a.shape) for a in (scores, of_enrollment, of_test)]
    if any(len(shape) != 2 for shape in shapes) or shapes[0] != [shapes[1][0], shapes[2][0]]:
        raise InputError(
            f"scores, enrollment_cohort and test_cohort have shapes {shapes}; [enrollments, tests], [enrollments, "
            "cohort] and [tests, cohort] are needed"
        )
    smallest = min(shapes[1][1], shapes[2][1])
    if not 2 <= top_n <= smallest:
        raise InputError(f"top_n is {top_n}; 2 to {smallest}, the size of the cohort, is allowed")
    if not all(np.isfinite(a).all() for a in (scores, of_enrollment, of_test)):
        raise MetricError("some scores are not finite")
    enrollment_mean, enrollment_std = _top_statistics(of_enrollment, top_n, "enrollment")
    test_mean, test_std = _top_statistics(of_test, top_n, "test")
    from_enrollment = (scores - enrollment_mean[:, None]) / enrollment_std[:, None]
    return 0.5 * (from_enrollment + (scores - test_mean) / test_std)


def _top_statistics(cohort_scores: np.ndarray, top_n: int, side: str) -> tuple[np.ndarray, np.ndarray]:
    top = np.partition(cohort_scores, -top_n, axis=1)[:, -top_n:]
    mean, std = top.mean(1), top.std(1)
    # Rounding leaves equal scores with a spread of about 1e-16 of their size.
    constant = np.flatnonzero(std <= 1e-12 * np.abs(top).max(1, initial=1e-300))
    if len(constant):
        raise MetricError(
            f"the {top_n} highest cohort scores of {side} {constant[0]} are all equal; they give no scale"
        )
    return mean, std


def _checked_trials(scores: np.ndarray, is_target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(is_target)
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise InputError(
            f"scores and is_target have shapes {list(scores.shape)} and {list(labels.shape)}; one axis of one length "
            "is needed"
        )
    if not np.isin(labels, (0, 1)).all():
        raise InputError("is_target holds something other than true and false (1 and 0)")
    if not np.isfinite(scores).all():
        raise MetricError("some scores are not finite")
    targets = labels.astype(bool)
    if not targets.any() or targets.all():
        present, absent = ("non-target", "target") if not targets.any() else ("target", "non-target")
        raise MetricError(f"the {len(scores)} trials hold no {absent} trial, only {present} ones; both are needed")
    return scores, targets
