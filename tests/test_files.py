from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from wesep_py.errors import InputError, OutputExistsError, WesepError
from wesep_py.files import atomic_path, check_writable, write_json


def test_a_block_that_fails_changes_nothing(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("before")
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_an_existing_output_stays_unless_overwriting_is_asked(tmp_path):
    target = tmp_path / "a.json"
    write_json(target, {"a": 1}, overwrite=False)
    with pytest.raises(OutputExistsError, match="--overwrite"):
        write_json(target, {"a": 2}, overwrite=False)
    assert json.loads(target.read_text()) == {"a": 1}
    write_json(target, {"a": 2}, overwrite=True)
    assert json.loads(target.read_text()) == {"a": 2}


def test_a_file_that_appears_meanwhile_is_kept(tmp_path):
    target = tmp_path / "a.txt"
    with pytest.raises(OutputExistsError), atomic_path(target, overwrite=False) as temporary:
        temporary.write_text("ours")
        target.write_text("theirs")
    assert target.read_text() == "theirs"


def test_a_missing_folder_and_a_folder_as_output(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        check_writable(tmp_path / "none" / "a.wav")
    with pytest.raises(InputError, match="is a folder"):
        check_writable(tmp_path)


def test_a_full_disk_is_one_line_and_nothing_is_left(tmp_path):
    target = tmp_path / "a.txt"
    with pytest.raises(WesepError, match="No space left on device"), atomic_path(target) as temporary:
        temporary.write_text("x")
        with Path("/dev/full").open("w") as full:
            full.write("x" * 100_000)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named_with_what_to_do(tmp_path, monkeypatch):
    def refuse(**named):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("wesep_py.files.tempfile.mkstemp", refuse)
    message = r"a.txt: cannot be written \(Read-only file system\); name another place, or make this one writable"
    with pytest.raises(WesepError, match=message), atomic_path(tmp_path / "a.txt"):
        pass
