from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wesep_py.common.errors import InputError
from wesep_py.evaluation import TrialRecord, summarise
from wesep_py.evaluation.comparison import MAX_EXACT, PERMUTATIONS, compare, sign_flip_p_value
from wesep_py.evaluation.results import EvaluationResults, read_results

PROTOCOL = {
    "metrics": {"si_sdr": "SI-SDR", "si_sdri": "SI-SDRi", "attenuation_db": "…"},
    "threads": 1,
    "device": "cpu",
    "condition": "clean: speakers only",
    "trials": {"count": 40, "sha256": "ab"},
    "model": {"name": "m", "hash": "cd"},
    "date": "2026-01-01",
    "command": "wesep evaluate",
}


def results(gains: list[float], **changed) -> EvaluationResults:
    """Return results of two trials per mixture, whose values vary much more than the gains."""
    rng = np.random.default_rng(0)
    records = []
    for number, gain in enumerate(gains):
        value = float(rng.normal(10, 5)) + gain
        records.append(
            TrialRecord(f"mix{number // 2}", f"u{number}", "e.wav", values={"si_sdr": value, "si_sdri": value - 1})
        )
    protocol = {**PROTOCOL, **changed}
    return EvaluationResults(Path("there"), summarise(records, protocol), records)


def test_a_small_but_constant_gain_is_significant():
    gains = list(np.random.default_rng(1).normal(0.5, 0.5, 60))
    compared = compare(results([0.0] * 60), results(gains))
    row = compared["metrics"]["si_sdri"]
    assert row["difference"]["mean"] == pytest.approx(np.mean(gains))
    assert row["second"] - row["first"] == pytest.approx(np.mean(gains))
    assert 0.2 < row["difference"]["low"] < 0.5 < row["difference"]["high"] < 0.8
    assert row["p_value"] < 0.001
    assert row["pairs"] == compared["counts"]["pairs"] == 60


def test_nothing_but_chance_is_not_significant():
    gains = list(np.random.default_rng(2).normal(0.0, 1.0, 60))
    row = compare(results([0.0] * 60), results(gains))["metrics"]["si_sdr"]
    assert row["p_value"] > 0.05
    assert row["difference"]["low"] < 0 < row["difference"]["high"]


def test_p_values_are_as_rare_as_they_say():
    rng = np.random.default_rng(3)
    groups = [number // 2 for number in range(16)]
    p_values = [sign_flip_p_value(list(rng.normal(0, 1, 16)), groups) for _ in range(300)]
    assert np.mean([p <= 0.1 for p in p_values]) == pytest.approx(0.1, abs=0.05)
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.06)


def test_p_values_of_a_mixtures_trials_count_once():
    """Repeated trials of one mixture add no evidence."""
    differences = [0.5, 0.4, 0.6, 0.5]
    assert sign_flip_p_value(differences, "abcd") == 2 / 16
    assert (
        sign_flip_p_value([d for d in differences for _ in range(3)], [g for g in "abcd" for _ in range(3)]) == 2 / 16
    )


def test_random_signs_agree_with_all_of_them():
    differences = list(np.random.default_rng(4).normal(0.4, 1.0, MAX_EXACT))
    exact = sign_flip_p_value(differences, range(MAX_EXACT))
    padded = [*differences, 0.0]  # a mixture without difference changes nothing, but is one too many to try all
    assert sign_flip_p_value(padded, range(MAX_EXACT + 1)) == pytest.approx(exact, abs=0.02)
    assert sign_flip_p_value([1.0] * 40, range(40)) == pytest.approx(1 / (1 + PERMUTATIONS))
    assert sign_flip_p_value([0.0] * 40, range(40)) == 1.0
    assert sign_flip_p_value([], []) is None


def test_the_trials_that_moved_most_are_listed():
    gains = [0.0] * 10
    gains[3], gains[6], gains[7] = -4.0, 2.0, 7.0
    moved = compare(results([0.0] * 10), results(gains), num_moved=1)["moved"]
    assert moved["metric"] == "si_sdri"
    assert [move["target_utterance_id"] for move in moved["lowest"]] == ["u3"]
    assert [move["target_utterance_id"] for move in moved["highest"]] == ["u7"]
    assert moved["lowest"][0]["difference"] == pytest.approx(-4.0)


def test_different_lists_are_refused_without_common():
    first, second = results([0.0] * 8), results([1.0] * 6, trials={"count": 6, "sha256": "ef"})
    with pytest.raises(InputError, match=r"different lists of trials \(8 and 6 trials\); pass --common"):
        compare(first, second)
    compared = compare(first, second, common=True)
    assert compared["counts"] == {"pairs": 6, "only_first": 2, "only_second": 0}
    with pytest.raises(InputError, match="different conditions"):
        compare(first, results([0.0] * 8, condition="noisy: …"))
    strangers = results([0.0] * 4)
    for record in strangers.records:
        record.mixture_id += "x"
    with pytest.raises(InputError, match="no trial in common"):
        compare(first, strangers, common=True)


def test_metrics_are_compared_only_where_they_mean_the_same():
    metrics = {"si_sdr": "another definition", "si_sdri": "SI-SDRi"}
    with pytest.raises(InputError, match="si_sdr: is defined differently"):
        compare(results([0.0] * 4), results([0.0] * 4, metrics=metrics))
    only = compare(results([0.0] * 4), results([0.0] * 4, metrics={"si_sdri": "SI-SDRi"}))
    assert list(only["metrics"]) == ["si_sdri"]
    with pytest.raises(InputError, match="no metric in common"):
        compare(results([0.0] * 4), results([0.0] * 4, metrics={"pesq": "PESQ"}))
    with pytest.raises(InputError, match="metric 'pesq' is not in both"):
        compare(results([0.0] * 4), results([0.0] * 4), metric="pesq")


def test_trials_that_one_result_failed_on_are_no_pair_of_a_metric():
    first, second = results([0.0] * 6), results([1.0] * 6)
    second.records[2] = replace(second.records[2], outcome="failed", values={})
    assert compare(first, second)["metrics"]["si_sdr"]["pairs"] == 5


def test_audio_scored_elsewhere_pairs_without_enrollments():
    first, second = results([0.0] * 4), results([1.0] * 4)
    for record in second.records:
        record.enrollment = ""
    assert compare(first, second)["counts"]["pairs"] == 4


def write(folder: Path, written: EvaluationResults) -> Path:
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps(written.summary))
    (folder / "per_trial.jsonl").write_text("".join(json.dumps(r.to_dict()) + "\n" for r in written.records))
    return folder


def test_results_are_read_as_they_were_written(tmp_path):
    written = results([0.0] * 4)
    read = read_results(write(tmp_path / "out", written))
    assert [replace(record, number=None) for record in read.records] == written.records
    assert read.metrics == ["si_sdr", "si_sdri"]


def test_folders_without_whole_results_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no summary\.json; name a folder"):
        read_results(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match="repeat its command to finish it"):
        read_results(tmp_path)
    folder = write(tmp_path / "out", results([0.0] * 4))
    lines = (folder / "per_trial.jsonl").read_text().splitlines()
    (folder / "per_trial.jsonl").write_text("\n".join(lines[:3]))
    with pytest.raises(InputError, match="counts 4 trials"):
        read_results(folder)
    (folder / "per_trial.jsonl").write_text("\n".join(lines)[:-9])
    with pytest.raises(InputError, match="damaged"):
        read_results(folder)
