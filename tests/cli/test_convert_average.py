"""`wesep average` at the command line. What it computes is tested in tests/training/test_snapshots.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.test_train import config  # noqa: F401
from wesep_py import checkpoint
from wesep_py.cli.main import run_command


@pytest.fixture
def experiment(wesep, config: Path) -> Path:  # noqa: F811
    assert wesep("train", config, "checkpoint.every_steps=1").status == 0
    return config.parent / "exp"


def test_the_last_two_snapshots_are_averaged(experiment: Path, tmp_path: Path, capsys):
    assert run_command("average", [str(experiment), "--last", "2", "-o", str(tmp_path / "out")]) == 0
    assert "out: the mean of 2 snapshots, of steps 1, 2" in capsys.readouterr().out
    assert checkpoint.load(tmp_path / "out").provenance["steps"] == [1, 2]
    arguments = [str(experiment), "--last", "1", "-o", str(tmp_path / "out"), "--overwrite", "--json"]
    assert run_command("average", arguments) == 0
    assert json.loads(capsys.readouterr().out) == {"folder": str(tmp_path / "out"), "steps": [2], "results": []}


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["{exp}", "-o", "{out}"], "either --last N or --best N"),
        (["{exp}", "--best", "2", "-o", "{out}"], "has 0 such snapshots; ask for fewer, or raise checkpoint.keep_best"),
        (["{exp}", "--last", "2"], "--output"),
        (["{out}", "--last", "2", "-o", "{out}"], "is no experiment folder"),
        (["{exp}", "--last", "2", "-o", "{exp}"], "exists already"),
    ],
)
def test_wrong_input_is_a_one_line_error(experiment: Path, tmp_path: Path, capsys, arguments: list[str], part: str):
    filled = [argument.format(exp=experiment, out=tmp_path / "out") for argument in arguments]
    capsys.readouterr()
    assert run_command("average", filled) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert part in line and not (tmp_path / "out").exists()
