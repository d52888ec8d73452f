"""`wesep score`: matching of files, absent targets, errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.conftest import VOICES, make_voice
from wesep_py.cli.main import run_command


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    anna, bert = (make_voice(*VOICES[name], 1.0, 0) for name in ("anna", "bert"))
    signals = {"ref": anna, "est": anna + 0.1 * bert, "mix": anna + bert, "other": bert}
    for name, signal in signals.items():
        (tmp_path / name).mkdir()
        for number in range(2):
            soundfile.write(tmp_path / name / f"{number}.wav", signal, 16000, subtype="FLOAT")
    return {name: tmp_path / name for name in signals}


def score(folders: dict[str, Path], *more: str) -> int:
    base = ["--reference", folders["ref"], "--estimate", folders["est"], "-o", folders["ref"].parent / "out"]
    return run_command("score", [str(word) for word in (*base, *more)])


def test_files_are_matched_by_name(folders, tmp_path, capsys):
    options = ["--mixture", str(folders["mix"]), "--interferers", str(folders["other"])]
    assert score(folders, *options) == 0
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line}
    assert float(rows["si_sdri"][1]) == pytest.approx(20.0, abs=0.5)
    assert rows["confusion"][1] == "0.000"
    assert (tmp_path / "out" / "per_trial.jsonl").exists()
    assert score(folders, *options) == 2
    assert "exists already" in capsys.readouterr().err
    assert score(folders, *options, "--overwrite", "--json", "--metrics", "all", "--jobs", "0") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["pesq"]["count"] == summary["timing_f1"]["count"] == 2


def test_missing_and_unmatched_estimates_are_named(folders, capsys):
    (folders["est"] / "1.wav").rename(folders["est"] / "stray.wav")
    assert score(folders) == 1
    captured = capsys.readouterr()
    assert "1 of 2 trials scored" in captured.out
    assert "1 estimates have no reference and are not scored: stray" in captured.err
    assert "there is no estimate of this reference" in captured.err


def test_each_source_of_a_librimix_tree_is_scored(folders, tmp_path, capsys):
    tree = tmp_path / "tree"
    tree.mkdir()
    for name, folder in (("ref", "s1"), ("other", "s2"), ("mix", "mix_clean")):
        folders[name].rename(tree / folder)
    (tmp_path / "made").mkdir()
    folders["est"].rename(tmp_path / "made" / "s1")
    (tmp_path / "made" / "s2").mkdir()
    for number in range(2):
        soundfile.write(tmp_path / "made" / "s2" / f"{number}.wav", np.zeros(16000), 16000)
    assert score({"ref": tree, "est": tmp_path / "made"}, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["counts"]["scored"] == 4
    assert summary["counts"]["silent_estimate"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"est": "nowhere"}, "nowhere: is not a folder"),
        ({"est": "."}, "no file has the name of a reference"),
    ],
)
def test_wrong_usage_is_a_one_line_error(folders, tmp_path, capsys, change, message):
    assert score({**folders, **{name: tmp_path / path for name, path in change.items()}}) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_silent_reference_needs_a_mixture_for_attenuation(folders, capsys):
    soundfile.write(folders["ref"] / "1.wav", np.zeros(16000), 16000)
    assert score(folders) == 0
    shown = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "1 of 2 trials scored" in shown[0]
    assert shown[shown.index("silent reference, attenuation in dB:") + 1] == "not known: no mixtures were given"
    assert score(folders, "--mixture", str(folders["mix"]), "--overwrite") == 0
    shown = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert shown[shown.index("silent reference, false alarm rate by level:") + 1].startswith("1.000")
    assert shown[shown.index("retention by level:") + 1].startswith("1.000")


def test_estimates_without_references_allow_timing_only(folders, tmp_path, capsys):
    labels = tmp_path / "labels.rttm"
    labels.write_text("".join(f"SPEAKER {n} 1 0 1 <NA> <NA> anna <NA> <NA>\n" for n in range(2)))
    common = ["--estimate", folders["est"], "--mixture", folders["mix"], "-o"]
    arguments = [*common, tmp_path / "out", "--labels", labels, "--metrics", "timing", "--json"]
    assert run_command("score", [str(word) for word in arguments]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["timing_f1"]["count"] == 2 and summary["protocol"]["labels"]["file"] == "labels.rttm"
    assert run_command("score", [*map(str, common), str(tmp_path / "refused")]) == 2
    assert "metric 'si_sdr' needs references, and there are none" in capsys.readouterr().err
    assert not (tmp_path / "refused").exists()


def test_help_shows_an_example(capsys):
    assert run_command("score", ["--help"]) == 0
    assert "wesep score --reference" in capsys.readouterr().out


def test_an_input_folder_is_refused_as_output(folders, tmp_path, capsys):
    folders["ref"].rename(tmp_path / "audio")
    folders["ref"] = tmp_path / "audio"
    before = sorted(path for path in tmp_path.rglob("*"))
    base = ["score", "--reference", folders["ref"], "--estimate", folders["est"], "--mixture", folders["mix"]]
    for out in (tmp_path, folders["ref"], folders["est"], folders["mix"]):
        for more in ([], ["--overwrite"]):
            assert run_command(base[0], [str(word) for word in (*base[1:], "-o", out, *more)]) == 2
            assert "which is read; name another output" in capsys.readouterr().err
    assert sorted(path for path in tmp_path.rglob("*")) == before
