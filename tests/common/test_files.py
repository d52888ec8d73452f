"""Files appear whole or not at all, alone or together, and never replace an input."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from wesep_py.common.errors import InputError, OutputExistsError, WesepError
from wesep_py.common.files import (
    atomic_path,
    check_writable,
    open_regular,
    refuse_inputs,
    remove_temporary_files,
    write_json,
    write_text,
    write_together,
)


def test_a_block_that_fails_changes_nothing(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("before")
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_an_existing_output_is_kept_unless_overwritten(tmp_path):
    target = tmp_path / "a.json"
    write_json(target, {"a": 1}, overwrite=False)
    with pytest.raises(OutputExistsError, match="--overwrite"):
        write_json(target, {"a": 2}, overwrite=False)
    assert json.loads(target.read_text()) == {"a": 1}
    write_json(target, {"a": 2}, overwrite=True)
    assert json.loads(target.read_text()) == {"a": 2}


def test_a_file_that_appears_during_writing_is_kept(tmp_path):
    target = tmp_path / "a.txt"
    with pytest.raises(OutputExistsError), atomic_path(target, overwrite=False) as temporary:
        temporary.write_text("ours")
        target.write_text("theirs")
    assert target.read_text() == "theirs"


def test_missing_folders_and_folders_as_outputs_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        check_writable(tmp_path / "none" / "a.wav")
    with pytest.raises(InputError, match="is a folder"):
        check_writable(tmp_path)


def test_a_full_disk_leaves_no_file(tmp_path):
    target = tmp_path / "a.txt"
    with pytest.raises(WesepError, match="No space left on device"), atomic_path(target) as temporary:
        temporary.write_text("x")
        with Path("/dev/full").open("w") as full:
            full.write("x" * 100_000)
    assert list(tmp_path.iterdir()) == []


def test_errors_name_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    def refuse(**keywords):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("wesep_py.common.files.tempfile.mkstemp", refuse)
    message = r"a.txt: cannot be written \(Read-only file system\); name another place, or make this one writable"
    with pytest.raises(WesepError, match=message), atomic_path(tmp_path / "a.txt"):
        pass


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_files_of_a_group_appear_together(tmp_path):
    with write_together():
        write_text(tmp_path / "a.txt", "a")
        write_text(tmp_path / "b.txt", "b")
        assert not (tmp_path / "a.txt").exists() and not (tmp_path / "b.txt").exists()
    assert names(tmp_path) == ["a.txt", "b.txt"]


def write_two_and_fail(folder: Path, error: BaseException, put: bool = False) -> None:
    with write_together() as group:
        write_text(folder / "a.txt", "new")
        write_text(folder / "c.txt", "new")
        if put:
            group.put()
            assert (folder / "a.txt").read_text() == "new"
        raise error


@pytest.mark.parametrize("put", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), WesepError("no")])
def test_a_failing_group_restores_the_previous_files(tmp_path, error: BaseException, put: bool):
    (tmp_path / "a.txt").write_text("before")
    with pytest.raises(type(error)):
        write_two_and_fail(tmp_path, error, put)
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "before"


def test_a_group_is_undone_if_one_rename_fails(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("before")
    replace = Path.replace

    def refuse(self, target):
        if Path(target).name == "b.txt":
            raise OSError(errno.EIO, "Input/output error")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with (
        pytest.raises(WesepError, match=r"b.txt: writing failed \(Input/output error\); nothing was changed"),
        write_together(),
    ):
        write_text(tmp_path / "a.txt", "new")
        write_text(tmp_path / "b.txt", "new")
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "before"


def test_a_group_is_not_written_if_a_file_appears(tmp_path):
    with pytest.raises(OutputExistsError, match=r"b\.txt: appeared"), write_together():
        write_text(tmp_path / "a.txt", "ours", overwrite=False)
        write_text(tmp_path / "b.txt", "ours", overwrite=False)
        (tmp_path / "b.txt").write_text("theirs")
    assert names(tmp_path) == ["b.txt"] and (tmp_path / "b.txt").read_text() == "theirs"


def test_a_group_is_undone_without_hard_links(tmp_path, monkeypatch):
    def refuse(*arguments, **keywords):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    (tmp_path / "a.txt").write_text("before")
    with pytest.raises(KeyboardInterrupt):
        write_two_and_fail(tmp_path, KeyboardInterrupt(), put=True)
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "before"


@pytest.mark.parametrize("name", ["x" * 250 + ".json", "é" * 125 + ".json", "a." + "s" * 253, "x" * 255])
def test_the_longest_names_can_be_written(tmp_path, name: str):
    write_json(tmp_path / name, 1)
    assert names(tmp_path) == [name]


@pytest.mark.parametrize(("name", "message"), [("x" * 256, "a name of 256 bytes; 255 are allowed"), ("a\0b", "NUL")])
def test_impossible_names_are_refused(tmp_path, name: str, message: str):
    with pytest.raises(InputError, match=message):
        check_writable(tmp_path / name)


def test_a_link_is_replaced_and_its_target_kept(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "a.txt").symlink_to("precious")
    (tmp_path / "b.txt").symlink_to("nowhere")
    with pytest.raises(OutputExistsError):
        write_text(tmp_path / "b.txt", "new", overwrite=False)
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "precious").read_text() == "precious" and not (tmp_path / "a.txt").is_symlink()


def test_an_output_that_is_an_input_is_refused(tmp_path):
    data, other = tmp_path / "data.wav", tmp_path / "other.wav"
    data.write_text("x")
    other.write_text("x")
    (tmp_path / "soft.wav").symlink_to(data)
    os.link(data, tmp_path / "hard.wav")
    (tmp_path / "folder").symlink_to(tmp_path)
    (tmp_path / "inner").mkdir()
    for name in ("data.wav", "soft.wav", "hard.wav", "folder/data.wav", "./inner/../data.wav"):
        with pytest.raises(InputError, match=r"is the mixture, which is read; name another output"):
            refuse_inputs([tmp_path / name], [(None, "nothing"), (data, "the mixture")])
    refuse_inputs([other, tmp_path / "new.wav"], [(data, "the mixture"), (tmp_path / "new.wav", "not there yet")])


def test_open_regular_follows_no_link(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "link").symlink_to("precious")
    (tmp_path / "dangling").symlink_to("made")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "dangling", "folder", "pipe"):
        with pytest.raises(InputError, match="is no regular file"):
            os.close(open_regular(tmp_path / name, os.O_RDWR))
    assert not (tmp_path / "made").exists() and (tmp_path / "precious").read_text() == "precious"
    os.close(open_regular(tmp_path / "new", os.O_RDWR))


def test_temporary_files_of_several_files_are_removed_in_one_pass(tmp_path, monkeypatch):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        for name in ("voice.wav", ".voice.a1b2c3_4.wav", ".when.a1b2c3_4.rttm", ".other.a1b2c3_4.wav"):
            (folder / name).touch()
    listed: list[Path] = []
    list_folder = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: listed.append(folder) or list_folder(folder))
    remove_temporary_files([*(folders[0] / name for name in ("voice.wav", "when.rttm")), folders[1] / "voice.wav"])
    assert listed == folders
    left = [sorted(path.name for path in list_folder(folder)) for folder in folders]
    assert left[0] == [".other.a1b2c3_4.wav", "voice.wav"]
    assert left[1] == [".other.a1b2c3_4.wav", ".when.a1b2c3_4.rttm", "voice.wav"]
