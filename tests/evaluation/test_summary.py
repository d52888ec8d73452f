from __future__ import annotations

import numpy as np
import pytest

from wesep_py.evaluation import Interval, TrialRecord, bootstrap_mean, summarise
from wesep_py.evaluation.summary import sir_bin

PROTOCOL = {"metrics": {"si_sdr": "…", "pesq": "…", "attenuation_db": "…"}, "threads": 2, "device": "cpu"}


def record(mixture: str, si_sdr: float, **more) -> TrialRecord:
    return TrialRecord(mixture, "u", "e.wav", num_speakers=2, values={"si_sdr": si_sdr}, **more)


def test_means_counts_and_reasons():
    records = [
        record("a", 10.0, missing={"pesq": "too short"}),
        record("b", 20.0, missing={"pesq": "too short"}),
        TrialRecord("c", "u", "e.wav", values={"si_sdr": 0.0, "pesq": 2.0}, silent_estimate=True),
        TrialRecord("d", "-", "e.wav", "absent", attenuation_db=30.0),
        TrialRecord("e", "-", "e.wav", "absent", attenuation_db=10.0),
        TrialRecord("f", "u", "e.wav", "silent_reference", attenuation_db=5.0),
        TrialRecord("g", "u", "e.wav", "failed", error="no such file"),
    ]
    summary = summarise(records, PROTOCOL)
    assert summary["si_sdr"]["mean"] == pytest.approx(10.0)
    assert summary["si_sdr"]["count"] == 3
    assert summary["si_sdr"]["low"] < 10.0 < summary["si_sdr"]["high"]
    assert summary["pesq"] == {"mean": 2.0, "low": None, "high": None, "count": 1}
    assert summary["missing"] == {"pesq": {"too short": 2}}
    assert summary["counts"] == {
        "trials": 7, "scored": 3, "silent_reference": 1, "absent": 2, "failed": 1, "silent_estimate": 1,
    }  # fmt: skip
    assert summary["absent"]["attenuation_db"]["mean"] == 20.0
    silent = summary["silent_reference"]
    assert silent["count"] == 1
    assert silent["attenuation_db"] == {"mean": 5.0, "low": None, "high": None, "count": 1}
    assert silent["false_alarm_rate"]["by_level"]["mean"] == 1.0
    assert silent["false_alarm_rate"]["by_presence"]["count"] == 0
    assert summary["failed"] == [{"mixture_id": "g", "target_utterance_id": "u", "error": "no such file"}]
    assert "attenuation_db" not in summary


def test_breakdowns_are_in_order_and_add_up():
    records = [record(str(i), float(i), sir_db=sir) for i, sir in enumerate((-30, -7, -0.1, 0, 4.9, 5, 10, None))]
    for i, pair in enumerate(("f-m", "f-f", "m-m", "f-m", "f-m", "unknown", "f-f", "m-m")):
        records[i].gender_pair = pair
    breakdown = summarise(records, PROTOCOL)["breakdown"]
    bins = breakdown["sir_db"]
    assert list(bins) == ["under -10", "-10 to -5", "-5 to 0", "0 to 5", "5 to 10", "from 10", "unknown"]
    assert [members["trials"] for members in bins.values()] == [1, 1, 1, 2, 1, 1, 1]
    assert bins["0 to 5"]["si_sdr"]["mean"] == 3.5
    assert list(breakdown["gender_pair"]) == ["f-f", "f-m", "m-m", "unknown"]
    assert breakdown["gender_pair"]["f-m"]["si_sdr"]["mean"] == pytest.approx((0 + 3 + 4) / 3)
    assert sum(members["trials"] for members in breakdown["gender_pair"].values()) == 8
    assert breakdown["num_speakers"]["2"]["trials"] == 8
    assert "age_group" not in breakdown


def test_sir_bins_hold_their_lower_edge():
    assert [sir_bin(sir) for sir in (-10.1, -10.0, 9.99, 10.0)] == ["under -10", "-10 to -5", "5 to 10", "from 10"]


def test_speed_is_time_over_audio():
    records = [record(m, 0.0, duration_s=d, extraction_s=t) for m, d, t in (("a", 4.0, 1.0), ("b", 6.0, 1.0))]
    speed = summarise(records, PROTOCOL)["speed"]
    assert speed == {"rtf": pytest.approx(0.2), "audio_s": 10.0, "threads": 2, "device": "cpu"}


def test_nothing_scored_is_no_number_and_no_crash():
    summary = summarise([TrialRecord("g", "u", "e.wav", "failed", error="x")], PROTOCOL)
    assert summary["si_sdr"] == {"mean": None, "low": None, "high": None, "count": 0}
    assert summary["speed"]["rtf"] is None
    assert summary["breakdown"] == {"sir_db": {}}


def test_a_weighted_metric_is_all_errors_over_all_words():
    records = [
        TrialRecord("a", "u", "e", values={"wer": 0.5}, weights={"wer": 2.0}),
        TrialRecord("b", "u", "e", values={"wer": 0.1}, weights={"wer": 10.0}),
    ]
    summary = summarise(records, {**PROTOCOL, "metrics": {"wer": "…"}})
    assert summary["wer"]["mean"] == pytest.approx(2 / 12)


def test_records_survive_their_lines():
    first = record("a", 1.5, sir_db=-3.0, number=4, missing={"pesq": "too short"}, weights={"wer": 3.0})
    assert TrialRecord.from_dict(first.to_dict()) == first


def test_every_condition_has_its_table_in_order():
    records = [
        record(str(i), 1.0, overlap=o, enrollment_s=e) for i, (o, e) in enumerate(((0.9, 1), (0.1, 30), (0.5, 7)))
    ]
    breakdown = summarise([*records, record("x", 1.0)], PROTOCOL)["breakdown"]
    assert list(breakdown["overlap"]) == ["under 0.2", "0.4 to 0.6", "from 0.8", "unknown"]
    assert list(breakdown["enrollment_s"]) == ["under 2", "5 to 10", "from 10", "unknown"]
    assert "level_db" not in breakdown


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
    """Repeated values of one mixture add no evidence: the interval must not shrink."""
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
    """Error rates of trials, weighted by their words, give all errors over all words."""
    errors, words = np.array([1, 0, 6, 2]), np.array([10, 5, 8, 40])
    interval = bootstrap_mean(list(errors / words), weights=list(words))
    assert interval.mean == pytest.approx(errors.sum() / words.sum())
    assert 0 < interval.low < interval.mean < interval.high < 0.75
    assert bootstrap_mean([1.0, 2.0], weights=[3.0, 3.0]) == bootstrap_mean([1.0, 2.0])
    with pytest.raises(ValueError, match="1 weights for 2 values"):
        bootstrap_mean([1.0, 2.0], weights=[1.0])
