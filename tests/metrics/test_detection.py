from __future__ import annotations

import doctest
import math
from statistics import NormalDist

import numpy as np
import pytest

from wesep_py.common.errors import InputError
from wesep_py.metrics import MetricError
from wesep_py.metrics import detection as verification
from wesep_py.metrics.detection import as_norm, cosine_scores, det_curve, equal_error_rate, min_dcf, speaker_similarity

NORMAL = NormalDist()


def gaussians(d_prime: float, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Return scores at the quantiles of N(d', 1) for targets and N(0, 1) for non-targets: their shares are exact."""
    quantiles = np.array([NORMAL.inv_cdf((i + 0.5) / count) for i in range(count)])
    return np.concatenate([quantiles + d_prime, quantiles]), np.repeat([1, 0], count)


def trials(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    is_target = rng.permutation(np.repeat([True, False], [rng.integers(1, 15), rng.integers(1, 40)]))
    scores = rng.standard_normal(len(is_target)) + 1.2 * is_target
    return (np.round(scores) if ties else scores), is_target


def operating_points(scores: np.ndarray, is_target: np.ndarray) -> list[tuple[float, float, float]]:
    """Return (threshold, false alarms, misses) by counting at every distinct score, from the highest down."""
    points = []
    for threshold in [math.inf, *sorted(set(scores.tolist()), reverse=True)]:
        misses = sum(s < threshold for s, t in zip(scores, is_target, strict=True) if t)
        alarms = sum(s >= threshold for s, t in zip(scores, is_target, strict=True) if not t)
        points.append((threshold, alarms / sum(~is_target), misses / sum(is_target)))
    return points


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_everything_by_counting(seed, ties):
    scores, is_target = trials(seed, ties)
    points = operating_points(scores, is_target)
    curve = det_curve(scores, is_target)
    assert curve.thresholds.tolist() == [p[0] for p in points]
    np.testing.assert_allclose(curve.false_alarm, [p[1] for p in points], atol=1e-12)
    np.testing.assert_allclose(curve.miss, [p[2] for p in points], atol=1e-12)
    for p_target, cost_miss, cost_alarm in ((0.01, 1, 1), (0.05, 10, 1), (0.5, 1, 3)):
        best = min(cost_miss * p_target * m + cost_alarm * (1 - p_target) * a for _, a, m in points)
        got = min_dcf(scores, is_target, p_target, cost_miss, cost_alarm)
        assert got.value == pytest.approx(best / min(cost_miss * p_target, cost_alarm * (1 - p_target)))
        assert 0 <= got.value <= 1
    # The crossing of the broken line with the diagonal, by bisection on its parameter.
    line = np.array([p[1:] for p in points])

    def on_line(where: float) -> np.ndarray:
        index = min(int(where), len(line) - 2)
        return line[index] + (where - index) * (line[index + 1] - line[index])

    low, high = 0.0, len(line) - 1.0
    for _ in range(60):
        middle = (low + high) / 2
        alarm, miss = on_line(middle)
        low, high = (middle, high) if miss > alarm else (low, middle)
    assert equal_error_rate(scores, is_target).value == pytest.approx(on_line(high)[0], abs=1e-9)


@pytest.mark.parametrize("d_prime", [0.0, 1.0, 2.0, 4.0])
def test_eer_of_two_gaussians(d_prime):
    """Φ(−d'/2), at the threshold d'/2."""
    eer = equal_error_rate(*gaussians(d_prime))
    assert eer.value == pytest.approx(NORMAL.cdf(-d_prime / 2), abs=1e-4)
    assert eer.threshold == pytest.approx(d_prime / 2, abs=1e-3)


@pytest.mark.parametrize(("d_prime", "p_target"), [(2.0, 0.5), (3.0, 0.1), (4.0, 0.01)])
def test_min_dcf_of_two_gaussians(d_prime, p_target):
    """The best threshold is where the likelihood ratio is (1 − p) / p: d'/2 + ln((1 − p) / p) / d'."""
    threshold = d_prime / 2 + math.log((1 - p_target) / p_target) / d_prime
    cost = p_target * NORMAL.cdf(threshold - d_prime) + (1 - p_target) * NORMAL.cdf(-threshold)
    got = min_dcf(*gaussians(d_prime), p_target)
    assert got.value == pytest.approx(
        cost / min(p_target, 1 - p_target), abs=6e-3
    )  # one false alarm in 20,000 costs 0.005
    assert got.threshold == pytest.approx(threshold, abs=0.1)


def test_known_answers():
    perfect = np.array([3.0, 2.0, 1.0, 0.0]), np.array([1, 1, 0, 0])
    assert equal_error_rate(*perfect).value == 0 and min_dcf(*perfect).value == 0
    assert min_dcf(*perfect).threshold == 2.0
    reverse = np.array([0.0, 1.0, 2.0, 3.0]), np.array([1, 1, 0, 0])
    assert equal_error_rate(*reverse).value == 1 and min_dcf(*reverse) == (1.0, math.inf)
    blind = np.zeros(10), np.arange(10) < 3
    assert equal_error_rate(*blind) == (0.5, 0.0) and min_dcf(*blind).value == 1
    # Accepting what scores 1 leads from (0, 1/2) to (1, 1/2): half of the way, in thresholds from 3 to 1.
    half = np.array([3.0, 1.0, 1.0, 0.0]), np.array([1, 0, 0, 1])
    assert equal_error_rate(*half) == (0.5, 2.0)
    # One of four targets below one of two others: from (0, 1/4) up to (1/2, 1/4), crossing at 1/4.
    scores, labels = np.array([5.0, 4.0, 3.0, 1.0, 2.0, 0.0]), np.array([1, 1, 1, 1, 0, 0])
    assert equal_error_rate(scores, labels).value == 0.25


def test_scores_may_be_stretched_and_shuffled():
    scores, is_target = trials(3, ties=False)
    order = np.random.default_rng(0).permutation(len(scores))
    eer, cost = equal_error_rate(scores, is_target).value, min_dcf(scores, is_target).value
    assert equal_error_rate(np.exp(scores)[order], is_target[order]).value == pytest.approx(eer)
    assert min_dcf(7 * scores[order] - 2, is_target[order]).value == pytest.approx(cost)


@pytest.mark.parametrize("figure", [det_curve, equal_error_rate, min_dcf])
def test_trials_that_cannot_be_judged(figure):
    with pytest.raises(MetricError, match="2 trials hold no target trial"):
        figure(np.array([0.1, 0.2]), np.array([0, 0]))
    with pytest.raises(MetricError, match="hold no non-target trial"):
        figure(np.array([0.1, 0.2]), np.array([True, True]))
    with pytest.raises(MetricError, match="not finite"):
        figure(np.array([0.1, np.nan]), np.array([0, 1]))
    with pytest.raises(MetricError, match="0 trials"):
        figure(np.array([]), np.array([]))
    with pytest.raises(InputError, match="one length"):
        figure(np.array([0.1, 0.2]), np.array([0, 1, 1]))
    with pytest.raises(InputError, match="other than true and false"):
        figure(np.array([0.1, 0.2]), np.array([1, 2]))


def test_impossible_costs():
    with pytest.raises(InputError, match="p_target is 1"):
        min_dcf(np.array([0.1, 0.2]), np.array([0, 1]), p_target=1.0)
    with pytest.raises(InputError, match="cost_miss"):
        min_dcf(np.array([0.1, 0.2]), np.array([0, 1]), cost_miss=0.0)


def test_cosine_scores():
    rng = np.random.default_rng(0)
    enrollments, tests = rng.standard_normal((3, 5)), 10 * rng.standard_normal((4, 5)).astype(np.float32)
    scores = cosine_scores(enrollments, tests)
    for i, j in np.ndindex(3, 4):
        dot = sum(a * b for a, b in zip(enrollments[i], tests[j].astype(float), strict=True))
        assert scores[i, j] == pytest.approx(dot / math.hypot(*enrollments[i]) / math.hypot(*tests[j]))
    assert cosine_scores(tests, tests).max() <= 1
    with pytest.raises(MetricError, match="test 1 has an embedding that is zero"):
        cosine_scores(enrollments, np.vstack([tests[:1], np.zeros((1, 5))]))
    with pytest.raises(MetricError, match="enrollment 0 has an embedding"):
        cosine_scores(np.full((1, 5), np.nan), tests)
    with pytest.raises(InputError, match="one embedding_dim"):
        cosine_scores(enrollments, tests[:, :4])


@pytest.mark.parametrize("top_n", [2, 5, 20])
def test_as_norm_by_loops(top_n):
    rng = np.random.default_rng(0)
    scores, of_enrollment, of_test = rng.normal(size=(3, 4)), rng.normal(size=(3, 20)), rng.normal(size=(4, 25))
    normed = as_norm(scores, of_enrollment, of_test, top_n)
    for i, j in np.ndindex(3, 4):
        total = 0.0
        for cohort in (of_enrollment[i], of_test[j]):
            top = sorted(cohort, reverse=True)[:top_n]
            mean = sum(top) / top_n
            total += (scores[i, j] - mean) / math.sqrt(sum((t - mean) ** 2 for t in top) / top_n)
        assert normed[i, j] == pytest.approx(total / 2)


def test_as_norm_takes_away_shift_and_scale_of_each_side():
    """Shift and scale of all scores of a side do not change the normalised score."""
    rng = np.random.default_rng(0)
    trial, cohort = rng.normal(size=(1, 1)), rng.normal(size=(1, 50))
    moved = as_norm(0.2 * trial + 0.4, 0.2 * cohort + 0.4, 0.2 * cohort + 0.4, 10)
    np.testing.assert_allclose(moved, as_norm(trial, cohort, cohort, 10))


def test_as_norm_lowers_the_eer_where_enrollments_are_shifted():
    rng = np.random.default_rng(0)
    shifts = rng.normal(scale=3.0, size=(40, 1))
    is_target = np.eye(40, dtype=bool)
    scores = rng.normal(size=(40, 40)) + 4 * is_target + shifts
    normed = as_norm(scores, rng.normal(size=(40, 100)) + shifts, rng.normal(size=(40, 100)), 50)
    raw = equal_error_rate(scores.ravel(), is_target.ravel()).value
    assert equal_error_rate(normed.ravel(), is_target.ravel()).value < raw / 2


def test_as_norm_that_cannot_be():
    scores, cohort = np.zeros((1, 1)), np.arange(5.0)[None]
    with pytest.raises(InputError, match="top_n is 6; 2 to 5"):
        as_norm(scores, cohort, cohort, 6)
    with pytest.raises(InputError, match="top_n is 1"):
        as_norm(scores, cohort, cohort, 1)
    with pytest.raises(InputError, match="cohort] are needed"):
        as_norm(np.zeros((2, 1)), cohort, cohort, 2)
    with pytest.raises(MetricError, match="enrollment 0 are all equal"):
        as_norm(scores, np.full((1, 5), 0.1), cohort, 3)
    with pytest.raises(MetricError, match="not finite"):
        as_norm(scores, cohort, np.full((1, 5), np.inf), 3)


def test_examples():
    result = doctest.testmod(verification)
    assert result.attempted > 5 and result.failed == 0


def test_cosine_whatever_the_lengths_of_the_vectors():
    first, second = np.array([3.0, 0.0]), np.array([1.0, 1.0])
    assert speaker_similarity(first, second) == pytest.approx(np.sqrt(0.5))
    assert speaker_similarity(5 * first, -second) == pytest.approx(-np.sqrt(0.5))


@pytest.mark.parametrize(
    ("second", "reason"), [(np.zeros(2), "zero"), (np.full(2, np.nan), "not finite"), (np.ones(3), "2 and 3 numbers")]
)
def test_reasons(second, reason):
    with pytest.raises(MetricError, match=reason):
        speaker_similarity(np.ones(2), second)
