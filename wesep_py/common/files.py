"""Write files so that nothing is lost: under a temporary name beside the target, then renamed.

A file appears whole or not at all (`atomic_path`), and several files of one job appear together (`write_together`).
Outputs are checked before anything is computed: they may not exist (`check_writable`), and may not be inputs
(`refuse_inputs`). Temporary names are random and created exclusively, so they never belong to another program, and a
symbolic link of that name is never followed. `common.folders` does the same for whole folders.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wesep_py.common.errors import InputError, OutputExistsError, WesepError

LONGEST_SUFFIX = 32
"""Longest suffix, in bytes, that a temporary name keeps; no file format has a longer one."""

# Checks of outputs, before the work.


def check_writable(path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Return the path if it may be written: its folder exists, and it does not exist itself unless `overwrite`.

    Args:
        path: the file to write.
        overwrite: allow an existing file.

    Raises:
        OutputExistsError: `path` exists and `overwrite` is false.
        InputError: the folder does not exist, `path` is a folder, or the name is not possible.
    """
    path = Path(path)
    check_name(path)
    if is_folder(path):
        raise InputError(f"{path}: is a folder; name a file to write")
    if path_exists(path) and not overwrite:
        raise OutputExistsError(f"{path}: exists already; name another output, or pass --overwrite")
    if not is_folder(path.parent):
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it first")
    return path


def check_name(path: Path) -> None:
    """Check that a file or folder can have the name of a path.

    Raises:
        InputError: the name is too long, or contains a NUL character.
    """
    if "\0" in str(path):
        raise InputError(f"{str(path)!r}: holds a NUL character; name another output")
    limit = _name_limit(path.parent)
    if (size := len(os.fsencode(path.name))) > limit:
        raise InputError(f"{path}: a name of {size} bytes; {limit} are allowed here; name another output")


def path_exists(path: Path) -> bool:
    """True if anything has this name, also a broken link; false for an impossible name."""
    return os.path.lexists(path)


def is_folder(path: Path) -> bool:
    """True if the path is a folder; false for an impossible name, for which `Path.is_dir` raises."""
    return os.path.isdir(path)  # noqa: PTH112


def same_file(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> bool:
    """True if two paths lead to the same file or folder, also through links, hard links, `./` and the like."""
    try:
        if os.path.realpath(first) == os.path.realpath(second):
            return True
        return os.path.samefile(first, second)  # noqa: PTH121
    except (OSError, ValueError):
        return False


def refuse_inputs(outputs: Iterable[Path], inputs: Iterable[tuple[str | os.PathLike[str] | None, str]]) -> None:
    """Refuse outputs that are inputs as well; call it before the work, also if overwriting is allowed.

    Args:
        outputs: files or folders to write.
        inputs: files or folders to read, each with its role for the message ("the mixture"). `None` and paths that do
            not exist are ignored.

    Raises:
        InputError: an output is one of the inputs, by path or by device and inode.
    """
    inputs = [(path, what) for path, what in inputs if path is not None and path_exists(Path(path))]
    for output in outputs:
        for path, what in inputs:
            if same_file(output, path):
                raise InputError(f"{output}: is {what}, which is read; name another output")


# Atomic writing.


@contextmanager
def atomic_path(path: str | os.PathLike[str], overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`, and rename it to `path` when the block succeeds.

    If the block fails or is interrupted, the temporary file is removed and an existing file at `path` stays. The
    temporary name keeps the suffix, for writers that choose a format by it. Inside `write_together` the file is renamed
    at the end of that block.

    Args:
        path: the file to write.
        overwrite: replace an existing file.

    Raises:
        OutputExistsError, InputError: as `check_writable`.
        WesepError: the disk is full or not writable.

    >>> with atomic_path("/tmp/doctest.txt") as temporary:
    ...     _ = temporary.write_text("whole or not at all")
    """
    path = check_writable(path, overwrite)
    group = _group.get()
    try:
        temporary = _temporary_file(path)
    except OSError as error:
        raise WesepError(
            f"{path}: cannot be written ({error.strerror or error}); name another place, or make this one writable"
        ) from error
    waits = False
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        ready = _ReadyFile(temporary, path, overwrite)
        if group is None:
            _check_still_free(ready)
            temporary.replace(path)
        else:
            group._add(ready)
            waits = True
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        if not waits:
            with suppress(FileNotFoundError):
                temporary.unlink()


def write_text(path: str | os.PathLike[str], text: str, overwrite: bool = True) -> None:
    """Write a text as UTF-8, atomically.

    Bytes of a file name that are not UTF-8 become `\\udcXX`, which JSON reads back as the same name.
    """
    with atomic_path(path, overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | os.PathLike[str], value: Any, overwrite: bool = True) -> None:
    """Write a value as indented JSON, atomically; NaN and infinity raise `ValueError`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", overwrite)


@contextmanager
def write_together() -> Iterator[FileGroup]:
    """Rename all files that the block writes with `atomic_path` when the block succeeds, or none of them.

    A block inside another such block becomes part of the outer one.

    Raises:
        OutputExistsError: a file appeared where overwriting is not allowed; no file was written.
        WesepError: a file cannot be renamed; no file was written.

    >>> folder = Path(tempfile.mkdtemp())
    >>> with write_together():
    ...     write_text(folder / "a.txt", "first")
    ...     write_text(folder / "b.txt", "second")
    ...     assert not (folder / "a.txt").exists()
    >>> sorted(path.name for path in folder.iterdir())
    ['a.txt', 'b.txt']
    """
    if (outer := _group.get()) is not None:
        yield outer
        return
    group = FileGroup()
    token = _group.set(group)
    try:
        yield group
        group.put()
    except BaseException:
        group._restore()
        raise
    finally:
        _group.reset(token)
        group._clean()


@contextmanager
def separate_from_group() -> Iterator[None]:
    """Let files inside the block appear at once, even inside a block of `write_together`."""
    token = _group.set(None)
    try:
        yield
    finally:
        _group.reset(token)


class FileGroup:
    """Files of one job that are renamed together; see `write_together`."""

    def __init__(self) -> None:
        self._ready: list[_ReadyFile] = []
        # For each renamed file: its path, the inode of the new file, and a second name of the file it replaced.
        self._undo: list[tuple[Path, int, Path | None]] = []

    def put(self) -> None:
        """Rename all files written until now; they are removed again if the block fails later."""
        for file in self._ready:
            _check_still_free(file)
        while self._ready:
            file = self._ready[0]
            try:
                previous = _second_name(file.path) if path_exists(file.path) else None
                self._undo.append((file.path, file.temporary.lstat().st_ino, previous))
                file.temporary.replace(file.path)
            except OSError as error:
                raise _not_written(file.path, error) from error
            del self._ready[0]

    def _add(self, file: _ReadyFile) -> None:
        self._ready.append(file)

    def _restore(self) -> None:
        """Put the replaced files back, and remove the new ones."""
        for path, inode, previous in reversed(self._undo):
            with suppress(OSError):
                if previous is not None:
                    previous.replace(path)
                elif path.lstat().st_ino == inode:  # not a file that another process has put there since
                    path.unlink()

    def _clean(self) -> None:
        """Remove temporary files and second names."""
        # `_restore` leaves a second name if the path still has the old file: renaming one hard link of a file onto
        # another one does nothing.
        for path in [file.temporary for file in self._ready] + [name for _, _, name in self._undo if name]:
            with suppress(FileNotFoundError):
                path.unlink()


@dataclass(frozen=True)
class _ReadyFile:
    """A complete file that waits for its name."""

    temporary: Path
    path: Path
    overwrite: bool


_group: ContextVar[FileGroup | None] = ContextVar("group", default=None)


def open_regular(path: Path, flags: int) -> int:
    """Open a regular file whose name is fixed (a lock, a log), and return its descriptor; create it if necessary.

    Another program may have put something else under that name, so a symbolic link is not followed, and a pipe or
    device is not opened.

    Args:
        path: the file.
        flags: flags of `os.open`, such as `os.O_RDWR`; `os.O_CREAT` is added.

    Raises:
        InputError: a link, a folder, a pipe or a device has this name.
        OSError: the file cannot be opened.
    """
    safe = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        descriptor = os.open(path, flags | os.O_CREAT | safe, 0o666)
    except OSError as error:
        if path.is_symlink() or error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise InputError(f"{path}: is no regular file (but a link, pipe or folder); move it away") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{path}: is no regular file (but a link, pipe or folder); move it away")
    return descriptor


# Names of temporary files.


def hidden_name(name: str, tail: str, longest_tail: int | None = None, folder: Path | None = None) -> str:
    """Return `.NAME` + `tail`, no longer than the file system allows; a long name is cut and marked with its hash.

    Args:
        name: name of the file or folder that the hidden one belongs to.
        tail: end of the hidden name.
        longest_tail: bytes to reserve, where tails of several lengths are used with one name.
        folder: folder of the hidden name, whose file system sets the limit.

    >>> hidden_name("out.wav", ".partial")
    '.out.wav.partial'
    >>> len(hidden_name("x" * 255, ".partial"))
    255
    """
    limit = _name_limit(folder) - 1 - max(len(os.fsencode(tail)), longest_tail or 0)
    if len(os.fsencode(name)) > limit:
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
        name = f"{_cut(name, limit - 9)}~{digest}"
    return f".{name}{tail}"


def remove_temporary_files(paths: Iterable[Path]) -> None:
    """Remove what a killed process left of its attempts to write files; the files themselves stay.

    Call it only while no other process can be writing the files. Each folder is listed once.

    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / ".voice.a1b2c3_4.wav").write_text("half")
    >>> _ = (folder / ".voice.old.wav").write_text("of somebody else")
    >>> remove_temporary_files([folder / "voice.wav"])
    >>> [path.name for path in folder.iterdir()]
    ['.voice.old.wav']
    """
    patterns: dict[Path, list[str]] = {}
    for path in paths:
        prefix, suffix = _temporary_affixes(path)
        patterns.setdefault(path.parent, []).append(re.escape(prefix) + "[a-z0-9_]{8}" + re.escape(suffix))
    for folder, of_folder in patterns.items():
        pattern = re.compile("|".join(of_folder))
        for other in folder.iterdir() if folder.is_dir() else ():
            if pattern.fullmatch(other.name) and other.is_file() and not other.is_symlink():
                with suppress(OSError):
                    other.unlink()


def _name_limit(folder: Path | None) -> int:
    """Return the length in bytes of the longest name in a folder."""
    try:
        return os.pathconf(folder or ".", "PC_NAME_MAX")
    except (OSError, ValueError, AttributeError):
        return 255


def _cut(text: str, num_bytes: int) -> str:
    """Cut a text to at most `num_bytes` as a file name."""
    while len(os.fsencode(text)) > num_bytes:
        text = text[:-1]
    return text


def _temporary_file(path: Path) -> Path:
    """Create an empty hidden file beside the target, with its suffix and a random name."""
    prefix, suffix = _temporary_affixes(path)
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=path.parent)
    os.close(handle)
    return Path(name)


def _temporary_affixes(path: Path) -> tuple[str, str]:
    """Return what precedes and follows the random characters in the names of temporary files of a target."""
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= LONGEST_SUFFIX else ""
    limit = _name_limit(path.parent) - len(os.fsencode(suffix)) - len("..") - 8  # 8 random characters of `mkstemp`
    return f".{_cut(path.stem, limit)}.", suffix


# Helpers.


def _second_name(path: Path) -> Path:
    """Give the file that is about to be replaced a second name (a hard link), and return that name."""
    spare = _temporary_file(path)
    spare.unlink()
    try:
        os.link(path, spare, follow_symlinks=False)
    except (OSError, NotImplementedError):  # a file system without hard links
        path.rename(spare)
    return spare


def _check_still_free(file: _ReadyFile) -> None:
    if not file.overwrite and path_exists(file.path):
        raise OutputExistsError(f"{file.path}: appeared while it was being written; it was left as it is")


def _not_written(path: Path, error: OSError) -> WesepError:
    return WesepError(f"{path}: writing failed ({error.strerror or error}); nothing was changed")


def _umask() -> int:
    """Return the process's umask, which can only be read by setting it."""
    current = os.umask(0)
    os.umask(current)
    return current
