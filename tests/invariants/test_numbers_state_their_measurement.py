"""Every number comes with protocol, variant of the metric, software versions and command."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py import __version__
from wesep_py.data import read_trials
from wesep_py.evaluation import EvaluationOptions, evaluate
from wesep_py.inference import Result
from wesep_py.inference.presence_decision.presence import Calibration
from wesep_py.metrics import DEFINITIONS, METRICS, score, si_sdr

NOT_METRICS = {
    "counts", "missing", "absent", "silent_reference", "speed", "failed", "breakdown", "protocol",
}  # fmt: skip


class Halver:
    """Model substitute that returns the mixture at half its level."""

    sample_rate, name, model_hash, device = 16000, "halver", "ab" * 32, "cpu"
    calibration, embedding_dim = Calibration(), None

    def enroll(self, *sources):
        return sources

    def extract(self, mixture, voice):
        return Result(mixture[0] * np.float32(0.5), mixture[1])


@pytest.fixture
def trials(tiny_speech: Path, tmp_path: Path):
    paths = [tiny_speech / name / f"{name}-0.wav" for name in ("anna", "bert", "carl")]
    metadata, enrollments = tmp_path / "trials.csv", tmp_path / "map"
    metadata.write_text(
        "mixture_ID,source_1_path,source_1_gain,source_2_path,source_2_gain,noise_path,noise_gain\n"
        f"mix,{paths[0]},1.0,{paths[1]},0.7,{paths[2]},0.1\n"
    )
    enrollments.write_text(f"mix anna-0 {paths[2]}\nmix bert-0 {paths[2]}\n")
    return read_trials(metadata, enrollments)


@pytest.fixture
def summary(trials, tmp_path):
    evaluate(
        Halver(),
        trials,
        tmp_path / "out",
        EvaluationOptions(condition="noisy", metrics=tuple(METRICS), jobs=0, command="wesep evaluate --x 'a b'"),
    )
    return json.loads((tmp_path / "out" / "summary.json").read_text())


def test_every_number_has_a_definition(summary):
    numbers = set(summary) - NOT_METRICS
    assert numbers == {name for names in METRICS.values() for name in names}
    assert numbers | {"attenuation_db"} == set(summary["protocol"]["metrics"])
    for name in numbers:
        assert set(summary[name]) == {"mean", "low", "high", "count"}
        assert summary["protocol"]["metrics"][name] == DEFINITIONS[name]
    for table in summary["breakdown"].values():
        for members in table.values():
            assert set(members) - {"trials"} == numbers


def test_the_protocol_states_model_command_and_versions(summary):
    protocol = summary["protocol"]
    assert protocol["condition"].startswith("noisy")
    assert protocol["sample_rate"] == 16000
    assert protocol["model"] == {"name": "halver", "hash": "ab" * 32}
    assert protocol["command"] == "wesep evaluate --x 'a b'"
    assert "bootstrap" in protocol["interval"] and "95%" in protocol["interval"]
    age = datetime.now(timezone.utc) - datetime.fromisoformat(protocol["date"])
    assert 0 <= age.total_seconds() < 600
    assert protocol["versions"]["wesep-py"] == __version__
    for package in ("torch", "fast_bss_eval", "pesq", "pystoi"):
        assert protocol["versions"][package] == version(package)
    assert summary["speed"]["rtf"] > 0
    assert summary["speed"]["device"] == "cpu"
    assert isinstance(summary["speed"]["threads"], int)


def test_the_default_command_is_that_of_this_process(trials, monkeypatch):
    monkeypatch.setattr("sys.argv", ["wesep", "evaluate", "--root", "my data"])
    assert evaluate(Halver(), trials)["protocol"]["command"] == "wesep evaluate --root 'my data'"


def test_a_list_of_trials_is_identified_by_its_content(trials, tiny_speech, tmp_path):
    def fingerprint_of(chosen):
        return evaluate(Halver(), chosen)["protocol"]["trials"]

    whole = fingerprint_of(trials)
    assert whole["count"] == 2
    assert re.fullmatch("[0-9a-f]{64}", whole["sha256"])
    assert fingerprint_of(trials) == whole
    assert fingerprint_of(trials[:1])["sha256"] != whole["sha256"]
    moved = tmp_path / "elsewhere"
    for source in {source.path for trial in trials for source in trial.sources}:
        (moved / source.name).parent.mkdir(exist_ok=True)
        waveform, rate = soundfile.read(source, dtype="float32")
        soundfile.write(moved / source.name, waveform, rate)
    text = (tmp_path / "trials.csv").read_text()
    for name in ("anna", "bert"):
        text = text.replace(str(tiny_speech / name), str(moved))
    (tmp_path / "moved.csv").write_text(text)
    assert fingerprint_of(read_trials(tmp_path / "moved.csv", tmp_path / "map")) == whole
    (tmp_path / "louder.csv").write_text(text.replace(",0.7,", ",0.8,"))
    louder = fingerprint_of(read_trials(tmp_path / "louder.csv", tmp_path / "map"))
    assert louder["sha256"] != whole["sha256"]


def test_the_computed_values_agree_with_the_definitions():
    """Measure the constants of the definitions from outside."""
    rng = np.random.default_rng(0)
    target, other = rng.standard_normal((2, 16000))
    assert "eps = 1e-08" in DEFINITIONS["si_sdr"]
    silence = np.zeros(16000)
    error = other - other.mean()
    assert si_sdr(error, silence) == pytest.approx(10 * np.log10(1e-8 / (1e-8 + (error**2).sum())))
    assert "SI-SDRi > 1 dB" in DEFINITIONS["accuracy"]
    for gain_db, accurate in ((0.9, 0.0), (1.1, 1.0)):
        estimate = target + 10 ** (-gain_db / 20) * other
        assert score(estimate, target, 16000, mixture=target + other).values["accuracy"] == accurate
    assert "512 taps" in DEFINITIONS["sdr"]
    burst = np.concatenate([target, silence])
    inside, outside = (score(burst + np.roll(burst, d), burst, 16000, ("sdr",)).values["sdr"] for d in (511, 512))
    assert inside > 60 > 5 > outside
