"""One run at a time in a folder: other processes are told, and the lock goes with its process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wesep_py.common.errors import InputError, WesepError
from wesep_py.common.folders import folder_lock
from wesep_py.evaluation.results import Journal

HOLD = "import sys; from pathlib import Path; from wesep_py.common.folders import folder_lock\n"
HOLD += "with folder_lock(Path(sys.argv[1])):\n    print('locked', flush=True); sys.stdin.readline()\n"


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """While the block runs, another process holds the folder."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", HOLD, str(folder)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == "locked\n"
        yield other
    finally:
        other.kill()
        other.communicate(timeout=30)


def test_another_process_is_told_who_is_there(tmp_path: Path):
    with another_process(tmp_path) as other:
        told = rf"another run is baking here \(process {other.pid} on .*name another oven"
        with pytest.raises(WesepError, match=told), folder_lock(tmp_path, "baking", "oven"):
            pass
    with folder_lock(tmp_path):  # the lock went with the process
        pass


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


def test_a_link_is_not_written_through(tmp_path: Path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / ".lock").symlink_to("precious")
    with pytest.raises(InputError, match=r"\.lock: is no regular file"), folder_lock(tmp_path):
        pass
    assert (tmp_path / "precious").read_text() == "precious"


def test_what_another_program_keeps_under_the_name_stays(tmp_path: Path):
    (tmp_path / ".lock").write_text("a lock of the editor")
    with folder_lock(tmp_path):
        pass
    assert (tmp_path / ".lock").read_text() == "a lock of the editor"
