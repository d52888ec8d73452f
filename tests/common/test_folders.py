"""Folders: one run at a time, replaced as a whole, and only if this package wrote them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wesep_py.common.errors import InputError, OutputExistsError, WesepError
from wesep_py.common.files import write_text, write_together
from wesep_py.common.folders import FolderKind, atomic_folder, check_folder, find_set_aside, folder_lock

HOLD = "import sys; from pathlib import Path; from wesep_py.common.folders import folder_lock\n"
HOLD += "with folder_lock(Path(sys.argv[1])):\n    print('locked', flush=True); sys.stdin.readline()\n"


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold the lock of a folder while the block runs."""
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


def test_the_error_names_the_process_with_the_lock(tmp_path: Path):
    with another_process(tmp_path) as other:
        message = rf"another run is baking here \(process {other.pid} on .*name another oven"
        with pytest.raises(WesepError, match=message), folder_lock(tmp_path, "baking", "oven"):
            pass
    with folder_lock(tmp_path):  # the lock ended with the process
        pass


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / ".lock").symlink_to("precious")
    with pytest.raises(InputError, match=r"\.lock: is no regular file"), folder_lock(tmp_path):
        pass
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_lock_file_of_another_program_is_not_changed(tmp_path: Path):
    (tmp_path / ".lock").write_text("a lock of the editor")
    with folder_lock(tmp_path):
        pass
    assert (tmp_path / ".lock").read_text() == "a lock of the editor"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


KIND = FolderKind("a nest", frozenset({"egg", "straw"}), lambda folder: (folder / "egg").exists())


def write_nest(folder: Path, text: str, **keywords) -> None:
    with atomic_folder(folder, KIND, **keywords) as temporary:
        for name in KIND.names:
            (temporary / name).write_text(text)


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    nest = tmp_path / "deep" / "nest"
    write_nest(nest, "one")
    (nest / ".DS_Store").touch()
    write_nest(nest, "two")
    assert names(nest) == ["egg", "straw"] and (nest / "egg").read_text() == "two"
    assert names(nest.parent) == ["nest"]
    (tmp_path / "link").symlink_to(nest)
    write_nest(tmp_path / "link", "three")
    assert (tmp_path / "link").is_symlink() and (nest / "egg").read_text() == "three"


@pytest.mark.parametrize("content", [{"egg", "letter"}, {"straw"}, {"letter"}])
def test_a_folder_with_other_files_is_refused(tmp_path, content: set[str]):
    for name in content:
        (tmp_path / name).write_text("mine")
    for _ in range(2):
        with pytest.raises(InputError, match=r"other things than a nest \(.*(letter|straw)"):
            check_folder(tmp_path, KIND, overwrite=True)
        with pytest.raises(InputError, match="other things than a nest"):
            write_nest(tmp_path, "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(content, "mine")
    assert names(tmp_path.parent).count(tmp_path.name) == 1


def test_only_an_existing_folder_of_ours_needs_overwrite(tmp_path):
    (tmp_path / "empty").mkdir()
    write_nest(tmp_path / "nest", "one")
    for name in ("empty", "new"):
        assert check_folder(tmp_path / name, KIND) == tmp_path / name
    with pytest.raises(OutputExistsError, match="--overwrite"):
        check_folder(tmp_path / "nest", KIND)
    check_folder(tmp_path / "nest", KIND, overwrite=True)
    with pytest.raises(InputError, match="is a file"):
        check_folder(tmp_path / "nest" / "egg", KIND, overwrite=True)


def test_other_files_in_a_folder_can_be_kept(tmp_path):
    write_nest(tmp_path / "nest", "one")
    (tmp_path / "nest" / "letter").write_text("mine")
    (tmp_path / "nest" / "box").mkdir()
    write_nest(tmp_path / "nest", "two", keep_others=True)
    assert names(tmp_path / "nest") == ["box", "egg", "letter", "straw"] and names(tmp_path) == ["nest"]
    assert (tmp_path / "nest" / "egg").read_text() == "two"


def test_similar_folders_of_other_programs_are_kept(tmp_path):
    for name in (".nest.partial", ".nest.old", ".nest.wesep-0123456789abcdef.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "letter").write_text("mine")
    write_nest(tmp_path / "nest", "one")
    write_nest(tmp_path / "nest", "two")
    assert len(names(tmp_path)) == 4 and all((tmp_path / name / "letter").exists() for name in names(tmp_path)[:3])


def in_child(run: Callable[[], None]) -> int:
    """Run a function in a forked process, and return its exit status."""
    child = os.fork()
    if child == 0:
        try:
            run()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_at_rename(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """End the process before its rename with this number, without any clean-up."""
    rename, calls = Path.rename, []

    def counted(self, target):
        calls.append(target)
        if len(calls) == number:
            os._exit(9)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", counted)


@pytest.mark.parametrize("number", [1, 2])
def test_after_a_kill_the_old_folder_is_found(tmp_path, monkeypatch, number: int):
    nest = tmp_path / "nest"
    write_nest(nest, "one")

    def killed() -> None:
        die_at_rename(monkeypatch, number)
        write_nest(nest, "two")

    assert in_child(killed) == 9
    remaining = nest if nest.exists() else find_set_aside(nest, KIND)
    assert remaining is not None and (remaining / "egg").read_text() == "one" and nest.exists() == (number == 1)
    assert names(tmp_path) != ["nest"]  # the temporary one
    write_nest(nest, "three")
    assert names(tmp_path) == ["nest"] and find_set_aside(nest, KIND) is None


def test_a_temporary_folder_in_use_is_kept(tmp_path):
    with atomic_folder(tmp_path / "nest", KIND) as temporary:
        (temporary / "egg").write_text("of the first")
        in_child(lambda: write_nest(tmp_path / "nest", "of the second"))
        assert temporary.is_dir()
    assert (tmp_path / "nest" / "egg").read_text() == "of the first" and names(tmp_path) == ["nest"]


def test_a_folder_with_the_longest_name_is_replaced(tmp_path):
    write_nest(tmp_path / ("x" * 255), "one")
    write_nest(tmp_path / ("x" * 255), "two")
    assert names(tmp_path) == ["x" * 255]


def test_a_folder_inside_a_group_appears_at_once(tmp_path):
    with write_together():
        with atomic_folder(tmp_path / "nest", KIND) as temporary:
            write_text(temporary / "egg", "whole")
        assert (tmp_path / "nest" / "egg").read_text() == "whole"
        write_text(tmp_path / "a.txt", "waits")
        assert not (tmp_path / "a.txt").exists()
    assert names(tmp_path) == ["a.txt", "nest"]
