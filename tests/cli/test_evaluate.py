"""`wesep evaluate`: its table, files, exit statuses and errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.data.public_layouts import make_wesep
from wesep_py.cli.main import main
from wesep_py.inference import Result
from wesep_py.inference.presence_decision.presence import UNCALIBRATED

METADATA = "mixture_ID,source_1_path,source_1_gain,source_2_path,source_2_gain,noise_path,noise_gain\n"


class Model:
    """Stand-in for an extractor: the estimate is the mixture."""

    sample_rate, name, model_hash, device = 16000, "stand-in", "cd" * 32, "cpu"
    calibration, embedding_dim = UNCALIBRATED, None

    def enroll(self, *sources):
        return sources

    def extract(self, mixture, voice):
        return Result(mixture[0], mixture[1], repaired=self.repair != "none")


@pytest.fixture
def loaded(monkeypatch) -> list[tuple]:
    calls: list[tuple] = []

    def load(*arguments, shifts=None, live=False, verify="auto", repair="none"):
        calls.append(arguments)
        model = Model()
        model.repair = repair
        model.shifts, model.mode = shifts or 1, "live" if live else "offline"
        return model

    monkeypatch.setattr("wesep_py.inference.load", load)
    return calls


@pytest.fixture
def arguments(tiny_speech: Path, tmp_path: Path) -> list[str]:
    soundfile.write(tmp_path / "noise.wav", np.random.default_rng(0).standard_normal(16000) * 0.05, 16000)
    rows = [f"mix{i},anna/anna-{i}.wav,1.0,bert/bert-{i}.wav,1.0,noise.wav,1.0\n" for i in range(3)]
    (tmp_path / "trials.csv").write_text(METADATA + "".join(rows))
    lines = [f"mix{i} {who}-{i} {who}/{who}-3.wav\n" for i in range(3) for who in ("anna", "bert")]
    (tmp_path / "map").write_text("".join(lines))
    (tmp_path / "speakers.csv").write_text("speaker_id,gender,age\nanna,f,40\nbert,m,9\n")
    return [
        "evaluate", "--model", "exp", "--trials", str(tmp_path / "trials.csv"), "--enrollment",
        str(tmp_path / "map"), "--root", str(tiny_speech), "--noise-root", str(tmp_path),
        "-o", str(tmp_path / "out"),
    ]  # fmt: skip


def test_repaired_extractions_are_counted(arguments, loaded, tmp_path, capsys):
    assert main([*arguments, "--repair", "swap"]) == 0
    assert "6 extractions were repaired" in capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["protocol"]["repair"] == "swap" and summary["counts"]["repaired"] == 6
    records = [json.loads(line) for line in (tmp_path / "out" / "per_trial.jsonl").read_text().splitlines()]
    assert all(record["repaired"] for record in records)
    assert main([*arguments, "--overwrite"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert "repair" not in summary["protocol"] and "repaired" not in summary["counts"]


def test_table_and_files(arguments, loaded, tmp_path, capsys):
    assert main([*arguments, "--speakers", str(tmp_path / "speakers.csv")]) == 0
    assert loaded == [("exp", "auto")]
    shown = capsys.readouterr().out
    assert "6 of 6 trials scored" in shown
    assert f"written: {tmp_path / 'out'}" in shown
    rows = {line.split()[0]: line.split() for line in shown.splitlines() if line}
    assert rows["si_sdri"] == ["si_sdri", "0.000", "0.000", "to", "0.000", "6"]
    assert rows["accuracy"][1] == "0.000"
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert rows["si_sdr"][1] == f"{summary['si_sdr']['mean']:.3f}"
    assert summary["breakdown"]["gender_pair"]["f-m"]["trials"] == 6
    assert set(summary["breakdown"]["age_group"]) == {"adult", "child"}
    assert len((tmp_path / "out" / "per_trial.jsonl").read_text().splitlines()) == 6


def test_the_live_mode_is_passed_to_the_model_and_in_the_protocol(arguments, loaded, wesep, tmp_path):
    summary = json.loads(wesep(*arguments, "--live", "--limit", "1", "--json").out)
    assert summary["protocol"]["mode"] == "live"


def test_shifts_are_passed_to_the_model_and_in_the_protocol(arguments, loaded, wesep, tmp_path):
    summary = json.loads(wesep(*arguments, "--shifts", "3", "--limit", "1", "--json").out)
    assert summary["protocol"]["shifts"] == 3


def test_json_is_the_summary(arguments, loaded, tmp_path, capsys):
    assert main([*arguments, "--json", "--condition", "noisy", "--limit", "2", "--metrics", "si_sdr,stoi"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert printed["protocol"]["condition"].startswith("noisy")
    assert printed["stoi"]["count"] == printed["si_sdr"]["count"] == 2


def test_all_selects_all_metrics(arguments, loaded, capsys):
    assert main([*arguments, "--metrics", "all", "--limit", "1", "--jobs", "0", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    for name in ("si_sdr", "si_sdri", "accuracy", "confusion", "sdr", "sdri", "pesq", "stoi", "estoi"):
        assert summary[name]["count"] == 1


def test_failed_trials_are_named_with_status_1(arguments, loaded, tmp_path, capsys):
    (tmp_path / "text.wav").write_text("no audio at all")
    text = (tmp_path / "trials.csv").read_text()
    (tmp_path / "trials.csv").write_text(text.replace("bert/bert-1.wav", str(tmp_path / "text.wav")))
    (tmp_path / "map").write_text((tmp_path / "map").read_text().replace("mix1 bert-1", "mix1 text"))
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert "4 of 6 trials scored" in captured.out
    assert "mix1 anna-1: " in captured.err
    assert "mix1 text: " in captured.err
    assert "2 of 6 trials failed" in captured.err.splitlines()[-1]
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["counts"]["failed"] == 2


def test_existing_results_are_refused_before_loading_the_model(arguments, loaded, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "summary.json").write_text("kept")
    assert main(arguments) == 2
    assert "exists already" in capsys.readouterr().err
    assert loaded == []
    assert (tmp_path / "out" / "summary.json").read_text() == "kept"
    assert main([*arguments, "--overwrite"]) == 0
    assert (tmp_path / "out" / "summary.json").read_text() != "kept"


def test_the_same_command_resumes_an_interrupted_run(arguments, loaded, tmp_path, capsys, monkeypatch):
    extract, calls = Model.extract, []

    def interrupted_at_the_fourth(self, mixture, voice):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return extract(self, mixture, voice)

    monkeypatch.setattr(Model, "extract", interrupted_at_the_fourth)
    assert main(arguments) == 130
    assert "the same command again completes" in capsys.readouterr().err
    assert len((tmp_path / "out" / "per_trial.jsonl").read_text().splitlines()) == 3
    assert main([*arguments, "--condition", "noisy"]) == 2
    assert "differs in condition" in capsys.readouterr().err
    assert main(arguments) == 0
    assert len(calls) == 7
    assert "6 of 6 trials scored" in capsys.readouterr().out


def test_absent_targets_are_reported_apart(arguments, loaded, tmp_path, capsys):
    (tmp_path / "map").write_text("mix0 - carl/carl-3.wav\nmix1 - dora/dora-3.wav\nmix2 anna-2 anna/anna-3.wav\n")
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    lines = [line.strip() for line in shown.splitlines()]
    assert lines[lines.index("absent, attenuation in dB:") + 1].startswith("0.000")
    assert lines[lines.index("absent, false alarm rate by level:") + 1].startswith("1.000")
    assert lines[lines.index("retention by level:") + 1].startswith("1.000")


def test_word_error_rate_with_a_given_recogniser(arguments, loaded, tmp_path, capsys, monkeypatch):
    (tmp_path / "asr_for_cli_test.py").write_text("def f(waveform, sample_rate):\n    return 'yes no'\n")
    (tmp_path / "text").write_text("".join(f"{who}-{i} yes\n" for who in ("anna", "bert") for i in range(3)))
    monkeypatch.chdir(tmp_path)
    asked = ["--recogniser", "asr_for_cli_test:f", "--transcripts", str(tmp_path / "text"), "--json"]
    assert main([*arguments, *asked]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["wer"]["mean"] == 1.0
    assert summary["protocol"]["wer"] == {"recogniser": "asr_for_cli_test:f", "against": "transcripts"}


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--metrics", "si_sdr,pesk"], "metric 'pesk' is not known; did you mean 'pesq'"),
        (["--metrics", ","], "no metric was named"),
        (["--condition", "nosy"], "nosy"),
        (["--limit", "0"], "--limit"),
        (["--shifts", "two"], "--shifts"),
        (["--trials", "nowhere.csv"], "nowhere.csv"),
        (["--speakers", "nobody.csv"], "nobody.csv"),
        (["--metrics", "wer"], "give --recogniser"),
        (["--recogniser", "nothing"], "the form is module:function"),
        (["--transcripts", "text"], "--transcripts needs --recogniser"),
        (["--labels", "nowhere.rttm"], "nowhere.rttm: no such file; give the path of an RTTM file"),
    ],
)
def test_wrong_usage_is_a_one_line_error(arguments, loaded, tmp_path, capsys, extra, message):
    assert main([*arguments, *extra]) == 2
    assert message in capsys.readouterr().err
    assert loaded == []
    assert not (tmp_path / "out").exists()


def test_a_metric_without_its_package_is_refused_first(arguments, loaded, tmp_path, wesep, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "speechmos", None)
    ran = wesep(*arguments, "--metrics", "si_sdr,dnsmos")
    assert ran.status == 2 and "pip install 'wesep-py[mos]'" in ran.err and len(ran.err.strip().splitlines()) == 1
    assert loaded == [] and not (tmp_path / "out").exists()


def test_labels_add_the_timing_metric(arguments, loaded, tmp_path, wesep):
    (tmp_path / "l.rttm").write_text("SPEAKER mix0 1 0 9 <NA> <NA> anna-0 <NA> <NA>\n")
    summary = json.loads(wesep(*arguments, "--labels", tmp_path / "l.rttm", "--json").out)
    assert summary["timing_f1"]["count"] == 1
    assert summary["missing"]["timing_f1"] == {
        "the labels do not name the recording": 4,
        "the labels do not name the target in its recording": 1,
    }


def test_the_noisy_condition_needs_noise(arguments, loaded, tmp_path, capsys):
    header = METADATA.replace(",noise_path,noise_gain", "")
    (tmp_path / "trials.csv").write_text(header + "mix0,anna/anna-0.wav,1.0,bert/bert-0.wav,1.0\n")
    (tmp_path / "map").write_text("mix0 anna-0 anna/anna-3.wav\n")
    assert main([*arguments, "--condition", "noisy"]) == 2
    assert "none of its mixtures has noise; evaluate them with --condition clean" in capsys.readouterr().err
    assert loaded == [] and main(arguments) == 0


@pytest.mark.parametrize(("kind", "warns"), [("both", True), ("clean", False)])
def test_noise_of_a_data_folder_that_is_left_out_is_a_warning(loaded, tmp_path, wesep, caplog, kind, warns):
    data = make_wesep(tmp_path / "recipe", kind) / "dev"
    command = ["evaluate", "--model", "exp", "--trials", data, "--enrollment", data, "-o", tmp_path / "out2"]
    assert wesep(*command).status == 0
    assert ("its mixtures have noise, which is left out" in caplog.text) == warns


def test_recordings_without_references_allow_timing_only(arguments, loaded, tiny_speech, tmp_path, wesep):
    (tmp_path / "trials.csv").write_text("mixture_ID,mixture_path\nmeeting,anna/anna-0.wav\n")
    (tmp_path / "map").write_text("meeting alice anna/anna-1.wav\n")
    (tmp_path / "l.rttm").write_text("SPEAKER meeting 1 0 9 <NA> <NA> alice <NA> <NA>\n")
    ran = wesep(*arguments, "--labels", tmp_path / "l.rttm", "--metrics", "timing")
    assert ran.status == 0 and "timing_f1" in ran.out
    assert "needs references" in wesep(*arguments, "--overwrite").message


def test_help_shows_an_example(capsys):
    assert main(["evaluate", "--help"]) == 0
    assert "wesep evaluate --model exp/mine --trials dev_2mix.csv" in capsys.readouterr().out
