"""Only one run at a time writes results into a folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.common.test_folders import HOLD, another_process
from wesep_py.common.errors import WesepError
from wesep_py.evaluation.results import Journal


@pytest.mark.parametrize("overwrite", [False, True])
def test_two_runs_do_not_write_results_into_one_folder(tmp_path: Path, overwrite: bool):
    out = tmp_path / "out"
    begun = Journal(out, {"condition": "clean"})
    begun.close()
    before = (out / "run.json").read_bytes()
    with another_process(out), pytest.raises(WesepError, match="out: another run is writing its results here"):
        Journal(out, {"condition": "clean"}, overwrite)
    assert (out / "run.json").read_bytes() == before
    Journal(out, {"condition": "clean"}, overwrite).close()


def test_a_run_holds_its_folder_until_it_is_closed(tmp_path: Path):
    out = tmp_path / "out"
    journal = Journal(out, {"condition": "clean"})
    command = [sys.executable, "-c", HOLD, str(out)]
    refused = subprocess.run(command, capture_output=True, text=True, check=False, input="\n")
    assert refused.returncode and "another run is working here" in refused.stderr
    journal.close()
    assert subprocess.run(command, capture_output=True, check=False, input=b"\n").returncode == 0
