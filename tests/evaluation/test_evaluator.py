from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from tests.evaluation.conftest import Oracle, lines_of
from wesep_py.audio import active_level_db
from wesep_py.common.errors import InputError, OutputExistsError
from wesep_py.evaluation import EvaluationOptions, evaluate
from wesep_py.inference import Extractor
from wesep_py.inference.presence_decision.presence import Calibration
from wesep_py.metrics import METRICS, si_sdr
from wesep_py.network.extraction_network import build_network
from wesep_py.simulation.trial_audio import render_trial


@pytest.mark.parametrize("condition", ["clean", "noisy"])
def test_known_improvement_in_both_conditions(trials, tmp_path, condition):
    summary = evaluate(Oracle(trials, 0.1, condition), trials, tmp_path / "out", EvaluationOptions(condition=condition))
    lines = lines_of(tmp_path / "out")
    assert [line["target_utterance_id"] for line in lines] == [trial.target_utterance_id for trial in trials]
    for line, trial in zip(lines, trials, strict=True):
        audio = render_trial(trial, condition, 16000)
        rest = audio.mixture - audio.reference
        expected = si_sdr(audio.reference + 0.1 * rest, audio.reference) - si_sdr(audio.mixture, audio.reference)
        assert line["si_sdri"] == pytest.approx(expected, abs=1e-3)
        assert line["si_sdri"] == pytest.approx(20.0, abs=1.0)
        levels = [active_level_db(x, 16000) for x in (audio.reference, audio.interferers[0])]
        assert line["sir_db"] == pytest.approx(levels[0] - levels[1])
        assert line["outcome"] == "scored"
        assert line["duration_s"] == pytest.approx(len(audio.mixture) / 16000)
    assert summary["si_sdri"]["mean"] == pytest.approx(np.mean([line["si_sdri"] for line in lines]))
    assert summary["accuracy"]["mean"] == 1.0
    assert summary["confusion"]["mean"] == 0.0
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text())


def test_an_extractor_that_does_nothing_improves_nothing(trials):
    summary = evaluate(Oracle(trials, leak=1.0), trials)
    assert summary["si_sdri"]["mean"] == pytest.approx(0.0, abs=1e-6)
    assert summary["accuracy"]["mean"] == 0.0


def test_the_wrong_voice_is_confusion(trials):
    """Every trial gets the estimate of the other target of its mixture."""
    swapped = [trials[i ^ 1] for i in range(len(trials))]
    summary = evaluate(Oracle(swapped), trials)
    assert summary["confusion"]["mean"] == 1.0
    assert summary["accuracy"]["mean"] == 0.0
    assert summary["si_sdri"]["mean"] < -10


def test_every_metric_in_processes_is_the_same_as_in_this_one(trials):
    few = trials[:2]
    here = evaluate(Oracle(few), few, options=EvaluationOptions(metrics=tuple(METRICS), jobs=0))
    there = evaluate(Oracle(few), few, options=EvaluationOptions(metrics=tuple(METRICS), jobs=2))
    for names in METRICS.values():
        for name in names:
            assert here[name]["count"] == 2
            assert here[name] == there[name]


def test_silent_absent_and_failed_trials_are_counted_apart(odd_trials, tmp_path):
    steps = []
    summary = evaluate(
        Oracle(odd_trials),
        odd_trials,
        tmp_path / "out",
        EvaluationOptions(on_progress=lambda done, total: steps.append((done, total))),
    )
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [line["outcome"] for line in lines_of(tmp_path / "out")] == [
        "scored", "silent_reference", "absent", "failed",
    ]  # fmt: skip
    counts = summary["counts"]
    assert [counts[key] for key in ("scored", "silent_reference", "absent", "failed")] == [1, 1, 1, 1]
    assert summary["si_sdr"]["count"] == 1
    assert summary["absent"]["attenuation_db"]["mean"] == pytest.approx(20.0, abs=1e-3)
    assert summary["silent_reference"]["attenuation_db"]["mean"] == pytest.approx(20.0, abs=1e-3)
    assert summary["failed"][0]["mixture_id"] == "broken"
    assert "text.wav" in summary["failed"][0]["error"]


def test_a_crash_in_one_trial_does_not_lose_the_others(trials):
    summary = evaluate(Oracle(trials, fails_at=(1, 4)), trials)
    assert summary["counts"]["scored"] == 4
    assert [failure["error"] for failure in summary["failed"]] == ["RuntimeError: out of memory"] * 2
    assert summary["si_sdr"]["count"] == 4


def test_silent_estimates_are_counted(trials):
    class Mute(Oracle):
        def extract(self, mixture, voice):
            result = super().extract(mixture, voice)
            return replace(result, waveform=np.zeros_like(result.waveform))

    summary = evaluate(Mute(trials), trials, options=EvaluationOptions(metrics=("si_sdr", "sdr"), jobs=0))
    assert summary["counts"]["silent_estimate"] == 6
    assert summary["si_sdr"]["mean"] == pytest.approx(0.0, abs=1e-6)
    assert summary["missing"]["sdr"] == {"the estimate is silent": 6}


def test_trials_are_rendered_at_the_models_rate(trials):
    summary = evaluate(
        Oracle(trials, sample_rate=8000), trials, options=EvaluationOptions(metrics=("si_sdr", "pesq"), jobs=0)
    )
    assert summary["counts"]["scored"] == 6
    assert summary["pesq"]["count"] == 6
    assert summary["protocol"]["sample_rate"] == 8000


def test_audio_of_the_first_trials_is_saved(trials, tmp_path):
    evaluate(Oracle(trials), trials, tmp_path / "out", EvaluationOptions(save_audio=2))
    folders = sorted((tmp_path / "out" / "audio").iterdir())
    assert [folder.name for folder in folders] == ["0000_mix0_anna-0", "0001_mix0_bert-0"]
    audio = render_trial(trials[1], "clean", 16000)
    signals = {path.stem: soundfile.read(path, dtype="float32")[0] for path in folders[1].iterdir()}
    assert set(signals) == {"mixture", "enrollment", "estimate", "reference"}
    np.testing.assert_array_equal(signals["mixture"], audio.mixture)
    np.testing.assert_array_equal(signals["reference"], audio.reference)
    np.testing.assert_array_equal(signals["enrollment"], audio.enrollment)


def test_breakdown_by_speakers_where_they_are_known(trials):
    speakers = {"anna": ("f", 30), "bert": ("m", 8), "carl": ("m", 40), "dora": ("f", 15)}
    breakdown = evaluate(Oracle(trials), trials, options=EvaluationOptions(speakers=speakers))["breakdown"]
    assert {key: members["trials"] for key, members in breakdown["gender_pair"].items()} == {
        "f-f": 2, "f-m": 2, "m-m": 2,
    }  # fmt: skip
    assert {key: members["trials"] for key, members in breakdown["age_group"].items()} == {
        "adult": 3, "child": 2, "teenager": 1,
    }  # fmt: skip


def test_results_are_not_replaced_without_overwrite(trials, tmp_path):
    evaluate(Oracle(trials), trials, tmp_path / "out")
    before = (tmp_path / "out" / "summary.json").read_bytes()
    again = Oracle(trials)
    with pytest.raises(OutputExistsError, match=r"per_trial\.jsonl: exists already"):
        evaluate(again, trials, tmp_path / "out")
    assert again.enrolled == []
    assert (tmp_path / "out" / "summary.json").read_bytes() == before
    evaluate(Oracle(trials, leak=0.5), trials, tmp_path / "out", EvaluationOptions(overwrite=True))
    assert (tmp_path / "out" / "summary.json").read_bytes() != before


def test_wrong_arguments(trials, tmp_path):
    oracle = Oracle(trials)
    with pytest.raises(InputError, match="condition 'nosy' is not known; did you mean 'noisy'"):
        evaluate(oracle, trials, options=EvaluationOptions(condition="nosy"))
    with pytest.raises(InputError, match="no trials to evaluate"):
        evaluate(oracle, [])
    with pytest.raises(InputError, match="metric 'pesk' is not known"):
        evaluate(oracle, trials, options=EvaluationOptions(metrics=("pesk",)))
    with pytest.raises(InputError, match="without an output folder"):
        evaluate(oracle, trials, options=EvaluationOptions(save_audio=1))
    with pytest.raises(InputError, match="jobs is -1"):
        evaluate(oracle, trials, options=EvaluationOptions(jobs=-1))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; name a folder"):
        evaluate(oracle, trials, tmp_path / "file")
    assert oracle.enrolled == []


def test_a_metric_that_breaks_is_missing_with_its_reason(trials, monkeypatch):
    def broken(*arguments):
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr("wesep_py.metrics.scores.stoi", broken)
    summary = evaluate(Oracle(trials), trials, options=EvaluationOptions(metrics=("si_sdr", "stoi"), jobs=0))
    assert summary["missing"] == {"stoi": {"ZeroDivisionError: by zero": 6}}
    assert summary["si_sdr"]["count"] == 6


def test_absent_targets_have_false_alarms_and_present_ones_are_kept(odd_trials):
    """20 dB below the mixture is no detection; a little more is a false alarm."""

    class Sure(Oracle):
        def extract(self, mixture, voice):
            return replace(super().extract(mixture, voice), presence=0.9)

    for leak, alarms in ((0.09, 0.0), (0.11, 1.0)):
        absent = evaluate(Sure(odd_trials, leak=leak), odd_trials)["absent"]
        assert absent["false_alarm_rate"]["by_level"]["mean"] == alarms
        assert absent["false_alarm_rate"]["by_presence"]["mean"] == 1.0
        assert absent["retention"]["by_level"] == {"mean": 1.0, "low": None, "high": None, "count": 1}
    absent = evaluate(Oracle(odd_trials), odd_trials)["absent"]
    assert absent["false_alarm_rate"]["by_presence"]["count"] == 0
    summary = evaluate(Sure(odd_trials, calibration=Calibration(threshold=0.95)), odd_trials)
    assert summary["protocol"]["presence_calibration"]["threshold"] == 0.95
    assert summary["absent"]["false_alarm_rate"]["by_presence"]["mean"] == 0.0


def test_conditions_stand_in_records_and_breakdowns(trials, tmp_path):
    breakdown = evaluate(Oracle(trials), trials, tmp_path / "out")["breakdown"]
    assert {"sir_db", "num_speakers", "overlap", "enrollment_s", "level_db"} == set(breakdown)
    for table in breakdown.values():
        assert sum(members["trials"] for members in table.values()) == 6
    first = lines_of(tmp_path / "out")[0]
    assert first["enrollment_s"] == 3.5
    assert 0 < first["overlap"] <= 1
    assert breakdown["enrollment_s"] == {"2 to 5": breakdown["num_speakers"]["2"]}


def test_audio_of_the_worst_and_best_is_saved(trials, tmp_path):
    """Leaks of 0.3, 0.5, 0.1, …: the worst and the best are known; the first is saved too."""

    class Uneven(Oracle):
        def extract(self, mixture, voice):
            self.leak = (0.3, 0.5, 0.1, 0.05, 0.4, 0.2)[len(self.enrolled) - 1]
            return super().extract(mixture, voice)

    evaluate(Uneven(trials), trials, tmp_path / "out", EvaluationOptions(save_audio=1, save_extremes=1))
    assert sorted(folder.name[:4] for folder in (tmp_path / "out" / "audio").iterdir()) == ["0000", "0001", "0003"]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_shifts_of_the_extractor_are_used_and_in_the_protocol(trials, batch_size):
    backbone = {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1}
    network = build_network({"backbone": backbone, "cues": [{"name": "tf_map"}], "shifts": 2})
    scores = {}
    for shifts in (None, 1, 2, 3):
        extractor = Extractor(network, "cpu", "tiny", "hash", shifts=shifts)
        summary = evaluate(extractor, trials[:2], options=EvaluationOptions(batch_size=batch_size))
        assert summary["protocol"]["shifts"] == (shifts or 2)
        scores[shifts] = summary["si_sdr"]["mean"]
    assert scores[None] == scores[2] and len(set(scores.values())) == 3
    assert evaluate(Oracle(trials), trials)["protocol"]["shifts"] == 1  # an extractor without that attribute


def test_a_real_network_is_scored_on_what_a_user_would_get(trials):
    """Evaluation has no path of its own: the numbers are those of `Extractor.extract` on the same audio."""
    network = build_network(
        {"backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1}, "cues": [{"name": "tf_map"}]}
    )
    extractor = Extractor(network, "cpu", "tiny")
    summary = evaluate(extractor, trials[:2])
    expected = []
    for trial in trials[:2]:
        audio = render_trial(trial, "clean", 16000)
        voice = extractor.enroll(trial.enrollment)
        expected.append(si_sdr(extractor.extract((audio.mixture, 16000), voice).waveform, audio.reference))
    assert summary["si_sdr"]["mean"] == pytest.approx(np.mean(expected), abs=1e-4)
    assert summary["protocol"]["model"] == {"name": "tiny", "hash": extractor.model_hash}
