"""recipes/default/leg.py: a row of the table of legs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.recipes.miniature import RECIPES
from tests.recipes.miniature_default import make_data
from wesep_py import checkpoint


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, RECIPES / "default/leg.py", *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def test_four_lists_are_evaluated_and_the_model_is_stored(tiny_model: Path, tmp_path: Path):
    make_data(tmp_path / "data")
    common = ["--data", tmp_path / "data", "-o", tmp_path / "out", "--trials", 1]
    ran = run(*common, "--model", tiny_model, "--keep", tmp_path / "kept")
    assert ran.returncode == 0, ran.stderr
    heads, cells = ran.stdout.splitlines()[-2:]
    assert heads.count("clean") == heads.count("noisy") == 2 and cells.count("%") == 4
    assert len((tmp_path / "out/dev_2mix.map").read_text().splitlines()) == 1
    stored, before = checkpoint.load(tmp_path / "kept"), checkpoint.load(tiny_model)
    assert stored.config == before.config and stored.state_dict.keys() == before.state_dict.keys()
    again = run(*common, "--model", tmp_path / "kept")
    assert again.returncode == 1 and "holds results of another model" in again.stderr


@pytest.mark.parametrize("more", [["--keep", "kept"]])
def test_keep_needs_a_model(tmp_path: Path, more: list[str]):
    ran = run("--data", tmp_path, "-o", tmp_path / "out", *more)
    assert ran.returncode == 2 and "--keep stores the model that --model names" in ran.stderr
