from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.conftest import VOICES, make_voice
from tests.evaluation.conftest import Oracle
from wesep_py.common.errors import InputError, OutputExistsError
from wesep_py.evaluation import ScoringOptions, evaluate
from wesep_py.evaluation.activity_labels import read_labels
from wesep_py.evaluation.score_files import find_pairs, score_files
from wesep_py.simulation.trial_audio import render_trial

RATE = 16000


def put(path: Path, waveform: np.ndarray, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform.T, rate, subtype="FLOAT")


@pytest.fixture
def voices() -> list[np.ndarray]:
    return [make_voice(*voice, 1.0, seed) for seed, voice in enumerate(VOICES.values())]


@pytest.fixture
def tree(tmp_path, voices) -> tuple[Path, Path]:
    """Return a tree of two mixtures of three speakers, and estimates with a tenth of the residual."""
    reference, estimate = tmp_path / "tree", tmp_path / "est"
    for name, shift in (("a-1_b-1_c-1", 0), ("b-2_c-2_d-2", 1)):
        sources = [voices[(shift + k) % 4] for k in range(3)]
        mixture = np.sum(sources, axis=0)
        put(reference / "mix_clean" / f"{name}.wav", mixture)
        for number, source in enumerate(sources, start=1):
            put(reference / f"s{number}" / f"{name}.wav", source)
            put(estimate / f"s{number}" / f"{name}.wav", source + 0.1 * (mixture - source))
    return reference, estimate


def test_a_tree_of_three_speakers(tree, tmp_path):
    summary = score_files(find_pairs(*tree), tmp_path / "out", ScoringOptions(metrics=("si_sdr", "timing"), jobs=0))
    assert summary["si_sdri"]["mean"] == pytest.approx(20, abs=1.0)
    assert summary["si_sdri"]["count"] == 6
    assert summary["confusion"]["mean"] == 0.0
    assert summary["breakdown"]["num_speakers"]["3"]["trials"] == 6
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["protocol"]["sample_rate"] == RATE
    assert "cut to the shortest" in summary["protocol"]["lengths"]
    assert summary["speed"]["rtf"] is None
    with pytest.raises(OutputExistsError):
        score_files(find_pairs(*tree), tmp_path / "out")


def test_the_numbers_are_those_of_evaluate(trials, tmp_path):
    """The estimates of a model, written to files, have the same scores."""
    oracle = Oracle(trials)
    expected = evaluate(oracle, trials)
    for number, trial in enumerate(trials):
        audio = render_trial(trial, "clean", RATE)
        estimate = audio.reference + np.float32(0.1) * (audio.mixture - audio.reference)
        for folder, signal in (
            ("ref", audio.reference), ("est", estimate), ("mix", audio.mixture), ("other", audio.interferers[0]),
        ):  # fmt: skip
            put(tmp_path / folder / f"{number}.wav", signal)
    folders = [tmp_path / name for name in ("ref", "est", "mix")]
    summary = score_files(find_pairs(*folders, [tmp_path / "other"]))
    for name in ("si_sdr", "si_sdri", "accuracy", "confusion"):
        assert summary[name]["mean"] == pytest.approx(expected[name]["mean"], abs=1e-4)
    assert summary["breakdown"]["sir_db"].keys() == expected["breakdown"]["sir_db"].keys()


def test_what_is_not_given_is_missing_with_its_reason(tmp_path, voices):
    put(tmp_path / "ref" / "x.wav", voices[0])
    put(tmp_path / "est" / "x.wav", voices[0] + 0.1 * voices[1])
    summary = score_files(find_pairs(tmp_path / "ref", tmp_path / "est"))
    assert summary["si_sdr"]["mean"] > 15
    assert summary["missing"]["si_sdri"] == {"no mixture was given": 1}
    assert summary["missing"]["confusion"] == {"no interferers were given": 1}
    assert "overlap" not in summary["breakdown"]


def test_a_silent_reference_is_an_absent_target(tmp_path, voices):
    put(tmp_path / "ref" / "x.wav", np.zeros_like(voices[0]))
    put(tmp_path / "est" / "x.wav", 0.01 * voices[1])
    put(tmp_path / "mix" / "x.wav", voices[1])
    summary = score_files(find_pairs(*(tmp_path / name for name in ("ref", "est", "mix"))))
    assert summary["silent_reference"]["attenuation_db"]["mean"] == pytest.approx(40.0, abs=0.01)
    assert summary["counts"]["scored"] == 0


def test_silent_references_have_false_alarms_and_the_others_retention(tmp_path, voices):
    for name, reference, loudness in (("x", 0.0, 0.01), ("y", 0.0, 0.5), ("z", 1.0, 1.0)):
        put(tmp_path / "ref" / f"{name}.wav", reference * voices[0])
        put(tmp_path / "est" / f"{name}.wav", loudness * voices[0])
        put(tmp_path / "mix" / f"{name}.wav", voices[0])
    summary = score_files(find_pairs(*(tmp_path / name for name in ("ref", "est", "mix"))))
    assert summary["silent_reference"]["false_alarm_rate"]["by_level"]["mean"] == 0.5
    assert summary["absent"]["retention"]["by_level"]["mean"] == 1.0
    alone = score_files(find_pairs(tmp_path / "ref", tmp_path / "est"))["silent_reference"]
    assert alone["count"] == 2 and alone["attenuation_db"]["count"] == 0


def test_files_that_do_not_fit_fail_alone(tmp_path, voices):
    voice = voices[0]
    for name in ("good", "short", "long", "damaged", "none", "rate"):
        put(tmp_path / "ref" / f"{name}.wav", voice)
    put(tmp_path / "est" / "good.wav", voice[:-800])
    put(tmp_path / "est" / "short.wav", voice[:-4000])
    put(tmp_path / "est" / "long.wav", np.stack([voice, 0 * voice]))
    (tmp_path / "est" / "damaged.wav").write_text("no audio")
    put(tmp_path / "est" / "rate.wav", voice[::2], 8000)
    summary = score_files(find_pairs(tmp_path / "ref", tmp_path / "est"))
    errors = {one["mixture_id"]: one["error"] for one in summary["failed"]}
    assert set(errors) == {"short", "damaged", "none"}
    assert "another signal of the trial has 0.75 s" in errors["short"]
    assert errors["none"] == "there is no estimate of this reference"
    assert summary["counts"]["scored"] == summary["si_sdr"]["count"] == 3


def test_an_interrupted_run_resumes(tree, tmp_path, monkeypatch):
    pairs, seen = find_pairs(*tree), []

    def dies(done, total):
        seen.append(done)
        if done == 3 and len(seen) <= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_files(pairs, tmp_path / "out", ScoringOptions(on_progress=dies))
    summary = score_files(pairs, tmp_path / "out", ScoringOptions(on_progress=dies))
    assert seen == [1, 2, 3, 3, 4, 5, 6]
    assert summary["si_sdr"] == score_files(pairs)["si_sdr"]


def test_a_run_does_not_resume_with_estimates_of_another_system(tree, tmp_path):
    """Estimates of two systems in one result would be a result of neither."""
    import shutil

    def dies(done, total):
        if done == 2:
            raise KeyboardInterrupt

    reference, estimate = tree
    other = shutil.copytree(estimate, tmp_path / "other")
    with pytest.raises(KeyboardInterrupt):
        score_files(find_pairs(reference, estimate), tmp_path / "out", ScoringOptions(on_progress=dies))
    with pytest.raises(InputError, match="unfinished run that differs in files; repeat"):
        score_files(find_pairs(reference, other), tmp_path / "out")
    created = estimate / "s1" / "a-1_b-1_c-1.wav"
    before = created.stat()
    put(created, np.zeros(100))
    with pytest.raises(InputError, match="differs in files"):
        score_files(find_pairs(reference, estimate), tmp_path / "out")
    shutil.copy2(other / "s1" / created.name, created)
    os.utime(created, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert score_files(find_pairs(reference, estimate), tmp_path / "out")["counts"]["scored"] == 6


def test_recordings_without_references(tmp_path, voices):
    pause = np.zeros(8000, np.float32)
    for speaker, signal in (("anna", voices[0]), ("bert", voices[1])):
        put(tmp_path / "est" / "meeting" / f"{speaker}.wav", np.concatenate([pause, signal]))
        put(tmp_path / "enrolled" / f"{speaker}.wav", signal)
    put(tmp_path / "est" / "call.wav", voices[2])
    put(tmp_path / "mix" / "meeting.wav", np.concatenate([pause, voices[0] + voices[1]]))
    (tmp_path / "l.rttm").write_text(
        "SPEAKER meeting 1 0.5 1 <NA> <NA> anna <NA>\nSPEAKER meeting 1 0 1.5 <NA> <NA> bert <NA>\n"
        "SPEAKER call 1 0 1 <NA> <NA> whoever <NA>\n"
    )
    pairs = find_pairs(None, tmp_path / "est", tmp_path / "mix", enrollment=tmp_path / "enrolled")
    assert [(pair.name, pair.target) for pair in pairs] == [("call", "call"), ("meeting", "anna"), ("meeting", "bert")]
    assert [pair.enrollment and pair.enrollment.name for pair in pairs] == [None, "anna.wav", "bert.wav"]
    assert pairs[1].mixture == pairs[2].mixture == tmp_path / "mix" / "meeting.wav"
    labels = read_labels(tmp_path / "l.rttm")
    summary = score_files(pairs, tmp_path / "out", ScoringOptions(metrics=("timing",), labels=labels))
    lines = [json.loads(line) for line in (tmp_path / "out" / "per_trial.jsonl").read_text().splitlines()]
    assert lines[0]["timing_f1"] > 0.9 and lines[1]["timing_f1"] > 0.9
    assert lines[2]["timing_precision"] == 1.0 and lines[2]["timing_recall"] < 0.75
    assert lines[1]["attenuation_db"] == pytest.approx(3.0, abs=2.0)
    assert summary["counts"]["scored"] == summary["timing_f1"]["count"] == 3
    with pytest.raises(InputError, match="metric 'si_sdr' needs references"):
        score_files(pairs, options=ScoringOptions(labels=labels))
    with pytest.raises(InputError, match="leave out --interferers"):
        find_pairs(None, tmp_path / "est", interferers=[tmp_path / "mix"])


def test_nothing_to_score_is_refused():
    with pytest.raises(InputError, match="nothing to score"):
        score_files([])
