from __future__ import annotations

import numpy as np
import pytest

from wesep_py.evaluation import Interval, bootstrap_mean


def test_interval_of_normal_values_is_that_of_theory():
    values = np.random.default_rng(0).normal(5.0, 2.0, 400)
    interval = bootstrap_mean(list(values))
    half_width = 1.96 * values.std() / np.sqrt(400)
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half_width, abs=0.03)
    assert interval.high == pytest.approx(values.mean() + half_width, abs=0.03)
    assert interval.count == 400


def test_it_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    intervals = [bootstrap_mean(list(rng.normal(0, 1, 50)), resamples=400) for _ in range(300)]
    covered = np.mean([interval.low <= 0 <= interval.high for interval in intervals])
    assert 0.90 <= covered <= 0.98


def test_trials_of_one_mixture_are_not_independent():
    """Every value twice under one name says no more than once: the interval must not shrink."""
    values = list(np.random.default_rng(2).normal(0, 1, 100))
    once = bootstrap_mean(values)
    grouped = bootstrap_mean(values * 2, list(range(100)) * 2)
    single = bootstrap_mean(values * 2)
    assert grouped.high - grouped.low == pytest.approx(once.high - once.low, rel=1e-9)
    assert single.high - single.low < 0.8 * (once.high - once.low)


def test_groups_of_different_sizes_weigh_by_their_trials():
    interval = bootstrap_mean([0.0, 0.0, 0.0, 1.0], ["a", "a", "a", "b"])
    assert interval.mean == 0.25
    assert (interval.low, interval.high) == (0.0, 1.0)


def test_same_values_same_interval_whatever_the_global_state():
    values = list(np.random.default_rng(3).normal(0, 1, 30))
    np.random.seed(1)
    first = bootstrap_mean(values)
    np.random.seed(2)
    assert bootstrap_mean(values) == first
    assert bootstrap_mean(values, seed=1) != first


def test_too_few_values_have_no_interval():
    assert bootstrap_mean([]) == Interval(None, None, None, 0)
    assert bootstrap_mean([3.0]) == Interval(3.0, None, None, 1)
    assert bootstrap_mean([3.0, 4.0], ["a", "a"]) == Interval(3.5, None, None, 2)
    with pytest.raises(ValueError, match="1 groups for 2 values"):
        bootstrap_mean([3.0, 4.0], ["a"])


def test_weights_make_it_a_ratio_of_sums():
    """Errors over words of each trial, weighted by its words: all errors over all words."""
    errors, words = np.array([1, 0, 6, 2]), np.array([10, 5, 8, 40])
    interval = bootstrap_mean(list(errors / words), weights=list(words))
    assert interval.mean == pytest.approx(errors.sum() / words.sum())
    assert 0 < interval.low < interval.mean < interval.high < 0.75
    assert bootstrap_mean([1.0, 2.0], weights=[3.0, 3.0]) == bootstrap_mean([1.0, 2.0])
    with pytest.raises(ValueError, match="1 weights for 2 values"):
        bootstrap_mean([1.0, 2.0], weights=[1.0])
