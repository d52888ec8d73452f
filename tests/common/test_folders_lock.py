"""One run per folder at a time, and the files that killed runs left there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from wesep_py.common.errors import WesepError
from wesep_py.common.files import atomic_path
from wesep_py.common.folders import one_run_in, remove_temporary_files, visible_names

OTHER = """
import sys
from pathlib import Path
from wesep_py.common.folders import one_run_in
from wesep_py.common.errors import WesepError
try:
    with one_run_in(Path(sys.argv[1]), "writing"):
        print("writes")
except WesepError as error:
    print(error)
"""


def test_a_second_process_in_the_folder_is_refused(tmp_path: Path):
    folder = tmp_path / "out"
    with one_run_in(folder, "writing shards"):
        said = subprocess.run([sys.executable, "-c", OTHER, str(folder)], capture_output=True, text=True, check=True)
        assert f"{folder}: another run is writing here" in said.stdout
    assert list(folder.iterdir()) == []
    said = subprocess.run([sys.executable, "-c", OTHER, str(folder)], capture_output=True, text=True, check=True)
    assert said.stdout == "writes\n" and list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    with pytest.raises(WesepError, match="none/out: cannot be written"), one_run_in(tmp_path / "none/out", "writing"):
        pass


def test_only_what_was_being_written_of_these_files_goes(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        try:
            with atomic_path(tmp_path / "a.b.wav") as temporary:
                kept = temporary.read_bytes(), temporary.name
                raise KeyboardInterrupt
        finally:
            (tmp_path / kept[1]).write_bytes(kept[0])  # as if it had been killed
    others = [".DS_Store", ".c.abcdefgh.wav", "._a.b.wav", ".a.b.wav", "a.b.wav", ".bashrc", ".a.abcdefgh.flac"]
    for name in others:
        (tmp_path / name).touch()
    (tmp_path / ".list.abcdefgh").touch()
    assert remove_temporary_files(tmp_path, {"a.b.wav", "list"}) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)
    assert visible_names(tmp_path) == ["a.b.wav"] and visible_names(tmp_path / "none") == []
    assert remove_temporary_files(tmp_path / "none", {"a.b.wav"}) == 0
