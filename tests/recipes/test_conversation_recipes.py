"""recipes/real_t, ami and libricss, through all of their stages, on miniatures in the real layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.recipes.miniature import run_recipe
from tests.recipes.miniature_meetings import make_ami, make_libricss, make_real_t

RECOGNISER = "def transcribe(waveform, sample_rate):\n    return 'word1x5 word1x10'\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def recogniser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_asr.py").write_text(RECOGNISER)
    monkeypatch.chdir(tmp_path)
    return "my_asr:transcribe"


def run_stages(name: str, *arguments: object) -> None:
    ran = run_recipe(name, *arguments)
    assert ran.returncode == 0, ran.stderr
    stages = [line[:10] for line in ran.stderr.splitlines() if line.startswith("==")]
    assert stages == [f"== stage {number}" for number in (1, 2, 3)]


def summary_of(folder: Path) -> dict[str, Any]:
    assert (folder / "report.html").stat().st_size > 10_000
    return json.loads((folder / "summary.json").read_text())


def test_real_t_by_the_measures_of_the_challenge(data: Path, tmp_path: Path):
    make_real_t(data)
    run_stages("real_t", "--data", data, "--exp", tmp_path / "exp", "--smoke")
    english, mandarin = (summary_of(tmp_path / "exp/results" / language) for language in ("en", "zh"))
    assert english["counts"] == {**english["counts"], "trials": 3, "scored": 2, "absent": 1}
    assert mandarin["counts"] == {**mandarin["counts"], "trials": 2, "scored": 2, "absent": 0}
    for summary in (english, mandarin):
        assert summary["protocol"]["scoring"]["name"] == "real_tse" and 0.3 < summary["timing_f1"]["mean"] < 1
    assert list(english["breakdown"]["group_corpus"]) == ["AMI"]
    assert english["absent"]["false_alarm_rate"]["by_presence"]["count"] == 1


def test_ami_with_the_activity_of_rttm_files_and_a_recogniser(data: Path, tmp_path: Path, recogniser: str):
    make_ami(data)
    options = ("--meetings", "ES2004a", "--mic", "Array1-01", "--window", 20, "--rttm", data / "rttms")
    run_stages("ami", "--data", data, "--exp", tmp_path / "exp", "--smoke", "--recogniser", recogniser, *options)
    summary = summary_of(tmp_path / "exp/results/windows")
    assert summary["counts"]["scored"] == 2 and summary["counts"]["absent"] == 1
    assert summary["timing_f1"]["count"] == summary["wer"]["count"] == 2
    # The recogniser hears the same two words in every estimate and in every mixture.
    assert summary["wer"]["mean"] == summary["wer_mixture"]["mean"] == pytest.approx((20 + 6) / (22 + 6))
    assert "Array1-01.wav@" in (tmp_path / "exp/list/recordings.csv").read_text()


def test_libricss_by_windows_and_by_utterances(data: Path, tmp_path: Path, recogniser: str):
    make_libricss(data)
    options = ("--window", 20, "--recogniser", recogniser)
    run_stages("libricss", "--data", data, "--exp", tmp_path / "exp", "--smoke", *options)
    windows, utterances = (summary_of(tmp_path / "exp/results" / name) for name in ("windows", "utterances"))
    assert list(windows["breakdown"]["group_condition"]) == ["0S"]
    assert windows["counts"]["absent"] == 1 and utterances["counts"]["absent"] == 0
    assert utterances["counts"]["scored"] == utterances["wer"]["count"] == 3


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("real_t", "https://huggingface.co/datasets/REAL-TSE/REAL-T"),
        ("ami", "https://groups.inf.ed.ac.uk/ami/download"),
        ("libricss", "https://github.com/chenzhuo1011/libri_css"),
    ],
)
def test_missing_input_is_a_one_line_error(recipe: str, message: str, data: Path, tmp_path: Path):
    for arguments, text in (
        (["--data", data, "--exp", tmp_path / "exp"], message),
        (["--data", data, "optim.lr=1"], "nothing is trained here"),
        (["--data", data, "--set", "x", "--mic", "x"], "unknown option" if recipe != "ami" else "unknown option --set"),
    ):
        if recipe == "real_t" and "--set" in arguments:
            arguments, text = ["--data", data, "--set", "x"], "--set x: give one of dev eval1 eval2"
        ran = run_recipe(recipe, *arguments)
        lines = [line for line in ran.stderr.splitlines() if not line.startswith("==")]
        assert ran.returncode == 1 and len(lines) == 1 and text in lines[0], ran.stderr
