"""Recordings without references, from the lists that `wesep prepare` writes to the summary."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.conftest import lines_of
from tests.recipes.miniature_meetings import TURNS, make_libricss
from wesep_py.data import read_trials
from wesep_py.evaluation import EvaluationOptions, evaluate
from wesep_py.evaluation.activity_labels import read_labels
from wesep_py.evaluation.evaluator import ScoringOptions
from wesep_py.evaluation.metric_backends import WordErrorRate, read_transcripts
from wesep_py.evaluation.real_tse_measures import challenge_timing
from wesep_py.evaluation.results import read_results
from wesep_py.evaluation.score_files import find_pairs, score_files
from wesep_py.evaluation.speech_detectors import SpeechDetector
from wesep_py.evaluation.summary import trials_fingerprint
from wesep_py.inference import Result
from wesep_py.inference.presence_decision.presence import UNCALIBRATED

RATE = 16000


class Copy:
    """A model that returns the mixture, and notes what it was given."""

    sample_rate, name, model_hash, device = RATE, "copy", "0" * 64, "cpu"
    calibration, embedding_dim = UNCALIBRATED, None

    def __init__(self) -> None:
        self.enrollments: list[np.ndarray] = []
        self.mixtures: list[np.ndarray] = []

    def enroll(self, *sources):
        self.enrollments.append(sources[0][0])
        return sources

    def extract(self, mixture, voice):
        self.mixtures.append(mixture[0])
        return Result(mixture[0], mixture[1])


class NumSamples:
    """A backend whose value is the length of the signal that it is given."""

    name = "similarity"

    def describe(self):
        return {}

    def measure(self, record, estimate, reference, enrollment, sample_rate):
        return float(np.abs(estimate).sum()), 1.0


@pytest.fixture
def lists(tmp_path: Path, wesep) -> Path:
    assert wesep("prepare", "libricss", make_libricss(tmp_path), "--window", 20, "-o", tmp_path / "l").status == 0
    return tmp_path / "l"


@pytest.fixture
def trials(lists: Path):
    return read_trials(lists / "recordings.csv", lists / "map_mixture2enrollment", recordings=True)


def test_segments_of_recordings_are_extracted(trials, lists: Path, tmp_path: Path):
    from wesep_py.audio import read

    model = Copy()
    labels = read_labels(lists / "labels.rttm")
    evaluate(model, trials, None, EvaluationOptions(metrics=("timing",), labels=labels))
    (recording,) = (tmp_path / "for_release/0S").rglob("raw_recording.wav")
    whole = read(recording)[0][0]
    assert np.array_equal(model.mixtures[0], whole[: round(18.5 * RATE)])  # the first window, of the first channel
    assert np.array_equal(model.enrollments[0], whole[round(33.5 * RATE) : round(37.5 * RATE)])


def test_results_are_broken_down_by_the_groups_of_the_list(trials, lists: Path, tmp_path: Path):
    options = EvaluationOptions(metrics=("timing",), labels=read_labels(lists / "labels.rttm"))
    summary = evaluate(Copy(), trials, tmp_path / "out", options)
    tables = summary["breakdown"]
    assert {name: list(tables[name]) for name in ("group_condition", "group_speakers")} == {
        "group_condition": ["0S", "OV20"], "group_speakers": ["2", "3"],
    }  # fmt: skip
    rows = [row for row in lines_of(tmp_path / "out") if row["outcome"] == "scored"]
    for condition, table in tables["group_condition"].items():
        values = [row["timing_f1"] for row in rows if row["groups"]["condition"] == condition]
        assert table["trials"] == len(values) and table["timing_f1"]["mean"] == pytest.approx(np.mean(values))
    assert read_results(tmp_path / "out").records[0].groups == {"condition": "0S", "speakers": "2"}


def test_transcripts_are_found_by_mixture_and_target(trials, lists: Path, tmp_path: Path):
    transcripts = read_transcripts(lists / "transcripts.txt")
    heard = iter(["word1x5 word1x10", "word1x335", "WORD2x300 x word2x310"] * 2)
    backend = WordErrorRate(lambda waveform, rate: next(heard), transcripts)
    summary = evaluate(Copy(), trials, tmp_path / "out", EvaluationOptions(metrics=("wer",), backends=[backend]))
    rows = {(row["mixture_id"], row["target_utterance_id"]): row for row in lines_of(tmp_path / "out") if "wer" in row}
    assert rows["0S_session0_0.00_18.50", "1001"]["wer"] == pytest.approx(20 / 22)
    assert rows["0S_session0_25.50_38.00", "1002"]["wer"] == pytest.approx(4 / 6)
    assert summary["wer"]["count"] == 6 and summary["counts"]["absent"] == 2


def test_timing_by_the_challenge_and_by_a_named_detector(trials, lists: Path, tmp_path: Path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "thirds.py").write_text(
        "peaks = []\n"
        "def detect(waveform, rate):\n"
        "    peaks.append(float(abs(waveform).max()))\n"
        "    return [(0.0, len(waveform) / rate / 3)]\n"
    )
    labels, detector = read_labels(lists / "labels.rttm"), SpeechDetector("thirds:detect")
    options = EvaluationOptions(metrics=("timing",), labels=labels, detector=detector, protocol="real_tse")
    summary = evaluate(Copy(), trials, tmp_path / "out", options)
    import thirds

    assert thirds.peaks == pytest.approx(6 * [0.9])
    assert summary["protocol"]["vad"] == {"detector": "thirds:detect"}
    assert "labels widened by 0.05 s" in summary["protocol"]["metrics"]["timing_f1"]
    first = lines_of(tmp_path / "out")[0]
    turns = [(start, end) for speaker, start, end in TURNS if speaker == 1 and end < 18.5]
    expected = challenge_timing([(0.0, 18.5 / 3)], turns, 18.5)
    assert [first[f"timing_{name}"] for name in expected._fields] == pytest.approx(list(expected))
    ours = evaluate(Copy(), trials, None, EvaluationOptions(metrics=("timing",), labels=labels, detector=detector))
    assert "activity of the estimate by thirds:detect" in ours["protocol"]["metrics"]["timing_recall"]
    assert ours["timing_f1"]["mean"] != summary["timing_f1"]["mean"]


def test_a_target_that_the_labels_do_not_name_is_missed_wholly(trials, tmp_path: Path):
    names = {trial.mixture_id for trial in trials}
    rttm = "".join(f"SPEAKER {name} 1 0 9 <NA> <NA> somebody <NA> <NA>\n" for name in names)
    (tmp_path / "other.rttm").write_text(rttm)
    labels = read_labels(tmp_path / "other.rttm")
    options = EvaluationOptions(metrics=("timing",), labels=labels, protocol="real_tse")
    assert evaluate(Copy(), trials, None, options)["timing_f1"] == {"mean": 0.0, "low": 0.0, "high": 0.0, "count": 6}
    ours = evaluate(Copy(), trials, None, EvaluationOptions(metrics=("timing",), labels=labels))
    assert ours["timing_f1"]["count"] == 0


def test_a_detector_that_fails_costs_the_timing_alone(trials, lists: Path, tmp_path: Path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken.py").write_text("def detect(waveform, rate):\n    raise RuntimeError('no GPU')\n")
    options = EvaluationOptions(
        metrics=("timing", "similarity"),
        backends=[NumSamples()],
        labels=read_labels(lists / "labels.rttm"),
        detector=SpeechDetector("broken:detect"),
    )
    summary = evaluate(Copy(), trials, None, options)
    assert summary["missing"]["timing_f1"] == {"RuntimeError: no GPU": 6} and summary["similarity"]["count"] == 6


def test_values_of_the_unprocessed_mixture(trials, lists: Path, tmp_path: Path):
    class Half(Copy):
        def extract(self, mixture, voice):
            return Result(0.5 * mixture[0], mixture[1])

    options = EvaluationOptions(metrics=("similarity",), backends=[NumSamples()], baseline=True)
    summary = evaluate(Half(), trials, tmp_path / "out", options)
    assert summary["similarity_mixture"]["mean"] == pytest.approx(2 * summary["similarity"]["mean"])
    assert summary["protocol"]["metrics"]["similarity_mixture"].startswith("similarity of the unprocessed mixture")
    without = evaluate(Half(), trials, None, EvaluationOptions(metrics=("similarity",), backends=[NumSamples()]))
    assert "similarity_mixture" not in without


def test_files_made_elsewhere_are_timed_by_a_detector(lists: Path, tmp_path: Path):
    import soundfile

    for folder in ("estimates/m/anna", "references/m/anna"):
        (tmp_path / folder).parent.mkdir(parents=True)
    signal = np.concatenate([np.zeros(RATE), np.random.default_rng(0).standard_normal(RATE) * 0.1, np.zeros(RATE)])
    soundfile.write(tmp_path / "estimates/m/anna.wav", signal, RATE)
    soundfile.write(tmp_path / "references/m/anna.wav", np.roll(signal, RATE // 2), RATE)
    pairs = find_pairs(tmp_path / "references", tmp_path / "estimates")
    options = ScoringOptions(metrics=("timing",), detector=SpeechDetector(), protocol="real_tse")
    summary = score_files(pairs, None, options)
    assert summary["timing_precision"]["mean"] == pytest.approx(0.55, abs=0.01)  # half a second, and the collar


def test_lists_with_other_segments_are_other_lists(trials, lists: Path):
    path = lists / "recordings.csv"
    path.write_text(path.read_text().replace("@0.000-18.500", "@0.000-18.400", 1))
    other = read_trials(path, lists / "map_mixture2enrollment", recordings=True)
    assert trials_fingerprint(trials) != trials_fingerprint(other)


def test_the_command_names_what_is_missing(lists: Path, tmp_path: Path, wesep):
    arguments = ["evaluate", "--trials", lists / "recordings.csv", "--enrollment", lists / "map_mixture2enrollment"]
    ran = wesep(*arguments, "--metrics", "si_sdr", "--vad", "energy", "-o", tmp_path / "out")
    assert ran.status == 2 and "--vad is for the metric timing" in ran.message
    ran = wesep(*arguments, "--labels", lists / "labels.rttm", "--vad", "energie", "-o", tmp_path / "out")
    assert ran.status == 2 and "vad 'energie'" in ran.message
    ran = wesep(*arguments, "--metrics", "timing", "--labels", lists / "labels.rttm", "--protocol", "real_tse",
                "--limit", 2, "--jobs", 0, "-o", tmp_path / "out")  # fmt: skip
    assert ran.status == 0 and "scored as by the REAL-TSE challenge" in ran.out, ran.err
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["timing_f1"]["count"] == 1 and summary["protocol"]["scoring"]["name"] == "real_tse"


def test_a_segment_past_the_end_fails_its_trial_alone(trials, lists: Path, tmp_path: Path):
    path = lists / "recordings.csv"
    path.write_text(path.read_text().replace("@0.000-18.500", "@0.000-99.000", 1))
    read = read_trials(path, lists / "map_mixture2enrollment", recordings=True)
    labels = read_labels(lists / "labels.rttm")
    summary = evaluate(Copy(), read, None, EvaluationOptions(metrics=("timing",), labels=labels))
    assert summary["counts"]["failed"] == 2 and "0 to 99 s were requested" in summary["failed"][0]["error"]
