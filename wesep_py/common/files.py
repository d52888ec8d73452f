"""Writing so that nothing is lost: temporary names beside the target, then a rename; and never over what is read.

A file appears whole or not at all (`atomic_path`), several files of one job appear together (`write_together`), and a folder
is replaced as a whole, only if it holds nothing but what this package writes (`atomic_folder`). Temporary names are
drawn at random and made exclusively, so they are never those of somebody else, and a symbolic link that was put there
is never followed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wesep_py.common.errors import InputError, OutputExistsError, WesepError

JUNK = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
"""What a file manager leaves in any folder; it is nobody's work."""
LONGEST_SUFFIX = 32
"""Bytes of a suffix that a temporary name keeps; a longer one chooses no format."""


def check_writable(path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Return the path, if it may be written: its folder exists, and it does not exist itself unless `overwrite`.

    Raises:
        OutputExistsError: `path` exists and `overwrite` is false.
        InputError: the folder does not exist, `path` is a folder, or no file can have this name.
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
    """Refuse a path whose last part no file or folder can be called.

    Raises:
        InputError: it is too long, or holds a NUL.
    """
    if "\0" in str(path):
        raise InputError(f"{str(path)!r}: holds a NUL character; name another output")
    limit = _name_limit(path.parent)
    if (size := len(os.fsencode(path.name))) > limit:
        raise InputError(f"{path}: a name of {size} bytes; {limit} are allowed here; name another output")


def check_results_folder(folder: Path, names: Iterable[str], overwrite: bool = False) -> None:
    """Refuse a folder that cannot take results, before anything is computed.

    Args:
        folder: may be new, or hold other things.
        names: what will be written there.
        overwrite: whether these may be there already.

    Raises:
        InputError: it is a file.
        OutputExistsError: one of them is there, and `overwrite` is false.
    """
    if path_exists(folder) and not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a folder for the results")
    there = [folder / name for name in names if path_exists(folder / name)]
    if there and not overwrite:
        raise OutputExistsError(f"{there[0]}: exists already; name another folder, or pass --overwrite")


def path_exists(path: Path) -> bool:
    """True if anything has this name, also a link that leads nowhere; false for a name that nothing can have."""
    return os.path.lexists(path)


def is_folder(path: Path) -> bool:
    """True if it is a folder; false, too, for a name that nothing can have (`Path.is_dir` raises there)."""
    return os.path.isdir(path)  # noqa: PTH112


# --- what is read is never written


def same_file(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> bool:
    """True if two names are of one file or folder: through links, hard links, `./` and the like."""
    try:
        if os.path.realpath(first) == os.path.realpath(second):
            return True
        a, b = os.stat(first), os.stat(second)  # noqa: PTH116
    except (OSError, ValueError):
        return False
    return (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)


def refuse_inputs(outputs: Iterable[Path], inputs: Iterable[tuple[str | os.PathLike[str] | None, str]]) -> None:
    """Refuse outputs that are inputs; call it before anything is computed, and whether or not overwriting is asked.

    Args:
        outputs: files or folders to write.
        inputs: files or folders that are read, each with what it is (`the mixture`); `None`, and what is not there,
            is passed over.

    Raises:
        InputError: an output is one of the inputs, by path or by device and inode.
    """
    inputs = [(path, what) for path, what in inputs if path is not None and path_exists(Path(path))]
    for output in outputs:
        for path, what in inputs:
            if same_file(output, path):
                raise InputError(f"{output}: is {what}, which is read; name another output")


# --- one file, or several together


@dataclass(frozen=True)
class _Ready:
    """A file that is written, and waits for its name."""

    temporary: Path
    path: Path
    overwrite: bool


class FileGroup:
    """The files of one job, which appear together: see `write_together`."""

    def __init__(self) -> None:
        self._ready: list[_Ready] = []
        self._undo: list[tuple[Path, int, Path | None]] = []

    def put(self) -> None:
        """Give all files that are written so far their names; they are taken back if the block fails later."""
        for one in self._ready:
            _check_still_free(one)
        while self._ready:
            one = self._ready[0]
            try:
                before = _kept_aside(one.path) if path_exists(one.path) else None
                self._undo.append((one.path, one.temporary.lstat().st_ino, before))
                one.temporary.replace(one.path)
            except OSError as error:
                raise _not_written(one.path, error) from error
            del self._ready[0]

    def _add(self, ready: _Ready) -> None:
        self._ready.append(ready)

    def _take_back(self) -> None:
        """What stood there before stands there again."""
        for path, inode, before in reversed(self._undo):
            with suppress(OSError):
                if before is not None:
                    before.replace(path)
                elif path.lstat().st_ino == inode:
                    path.unlink()

    def _clean(self) -> None:
        # A second name outlives `replace`, too: renaming one name of a file onto another of its names does nothing.
        for path in [one.temporary for one in self._ready] + [before for _, _, before in self._undo if before]:
            with suppress(FileNotFoundError):
                path.unlink()


_group: ContextVar[FileGroup | None] = ContextVar("group", default=None)


@contextmanager
def write_together() -> Iterator[FileGroup]:
    """Let files of `atomic_path` wait for their names while the block runs; all get them when it ends well, or none.

    Inside another such block it is a part of that one.

    Raises:
        OutputExistsError: a file appeared in the place of one that may not be overwritten; none was written.
        WesepError: one cannot be put in its place; none was.

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
        group._take_back()
        raise
    finally:
        _group.reset(token)
        group._clean()


@contextmanager
def atomic_path(path: str | os.PathLike[str], overwrite: bool = True) -> Iterator[Path]:
    """Give a temporary path in the target's folder, and rename it to `path` when the block ends well.

    If the block fails, or is interrupted, the temporary file is removed and whatever stood at `path` stays.
    The temporary name keeps the suffix, for writers that choose a format by it. Inside `write_together` the renaming waits
    for the end of that block.

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
        ready = _Ready(temporary, path, overwrite)
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
    """Write `text` as UTF-8, whole or not at all.

    What is no UTF-8 in the name of a file becomes `\\udcXX`, which JSON reads back as that name.
    """
    with atomic_path(path, overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | os.PathLike[str], value: Any, overwrite: bool = True) -> None:
    """Write `value` as indented JSON (not-a-number is refused), whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", overwrite)


def open_regular(path: Path, flags: int) -> int:
    """Open a file whose name is known beforehand (a lock, a log), and return its descriptor.

    It is made if it is not there. A symbolic link is not followed, and a pipe or device is not opened.

    Args:
        path: the file.
        flags: of `os.open`, such as `os.O_RDWR`; `os.O_CREAT` is added.

    Raises:
        InputError: a link, a folder, a pipe or a device has this name.
        OSError: the file cannot be opened.
    """
    safe = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        descriptor = os.open(path, flags | os.O_CREAT | safe, 0o666)
    except OSError as error:
        if path.is_symlink() or error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise InputError(f"{path}: is no file of its own (a link, pipe or folder); move it away") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{path}: is no file of its own (a link, pipe or folder); move it away")
    return descriptor


# --- folders


@dataclass(frozen=True)
class FolderKind:
    """A kind of folder that this package writes, by which one is recognised before it is replaced.

    Attributes:
        what: its name for messages (`a checkpoint`).
        names: the files in it.
        is_ours: whether a folder with nothing but these was written by this package.
    """

    what: str
    names: frozenset[str]
    is_ours: Callable[[Path], bool]

    def others(self, folder: Path) -> list[str]:
        """The names of what else is in the folder, sorted."""
        with os.scandir(folder) as entries:
            return sorted(
                entry.name
                for entry in entries
                if entry.name not in self.names | JUNK or entry.is_dir(follow_symlinks=False)
            )


def check_folder(folder: str | os.PathLike[str], kind: FolderKind, overwrite: bool = False) -> Path:
    """Return the folder, if it may be written: it is new or empty, or `overwrite` and it holds nothing but our own.

    Raises:
        InputError: it is a file, holds other things, or was not written by this package.
        OutputExistsError: it is one of ours, and `overwrite` is false.
        WesepError: it cannot be read.
    """
    folder = Path(folder)
    if not path_exists(folder):
        return folder
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a folder to write")
    try:
        others = kind.others(folder)
        entries = {entry.name for entry in folder.iterdir()} - JUNK
    except OSError as error:
        raise WesepError(f"{folder}: cannot be read ({error.strerror or error})") from error
    if others:
        raise InputError(
            f"{folder}: is a folder with other things than {kind.what} ({listing(others)}), which overwriting would "
            "delete; name a new one"
        )
    if entries and not kind.is_ours(folder):
        raise InputError(
            f"{folder}: is a folder with other things than {kind.what} ({listing(sorted(entries))} of another "
            "program), which overwriting would delete; name a new one"
        )
    if entries and not overwrite:
        raise OutputExistsError(f"{folder}: exists already; name another output, or pass --overwrite")
    return folder


@contextmanager
def atomic_folder(folder: str | os.PathLike[str], kind: FolderKind, keep_others: bool = False) -> Iterator[Path]:
    """Give a temporary folder, and put it in the place of `folder` when the block ends well; its parent is made.

    A folder cannot be renamed onto a full one: the old one steps aside, under a name of its own, and is removed last.
    Killed in between, `find_set_aside` finds it.

    Args:
        folder: new, empty, or one of ours.
        kind: what is written.
        keep_others: what else is in the folder moves into the new one, instead of being an error; for what a training
            replaces while it runs.

    Raises:
        InputError: it holds other things, or was not written by this package.
        OSError: the disk is full or not writable; what stood there is still there.
    """
    folder = Path(os.path.realpath(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(8)
    temporary = folder.with_name(f"{_tag_of(folder)}{token}.partial")
    temporary.mkdir()
    group = _group.set(None)  # its files are put in place with the folder, and wait for nothing else
    try:
        with _held(temporary):
            yield temporary
            if not keep_others:
                check_folder(folder, kind, overwrite=True)
            aside = folder.with_name(f"{_tag_of(folder)}{token}.old")
            if path_exists(folder):
                folder.rename(aside)
            try:
                temporary.rename(folder)
            except BaseException:
                if path_exists(aside) and not path_exists(folder):
                    aside.rename(folder)
                raise
            if path_exists(aside):
                for name in kind.others(aside):
                    (aside / name).rename(folder / name)
                remove_known(aside, kind.names)
    finally:
        _group.reset(group)
        shutil.rmtree(temporary, ignore_errors=True)
    _clear_stale(folder, kind)


def find_set_aside(folder: Path, kind: FolderKind) -> Path | None:
    """Return the folder that stood aside when a process was killed while it replaced `folder`; `None` without one.

    Nothing is moved: another process may be about to put the new one in its place.
    """
    folder = Path(os.path.realpath(folder))
    if path_exists(folder):
        return None
    places = [path for path in _tagged(folder) if path.name.endswith(".old")]
    places += [folder.with_name(f".{folder.name}.old")]  # as versions before named it
    whole = [path for path in places if path.is_dir() and not kind.others(path) and kind.is_ours(path)]
    return max(whole, key=lambda path: path.stat().st_mtime_ns, default=None)


def remove_known(folder: Path, names: Collection[str]) -> None:
    """Remove files of these names, and the folder if nothing else is in it.

    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("ours.txt", "mine.txt"):
    ...     write_text(folder / name, "")
    >>> remove_known(folder, {"ours.txt"})
    >>> [path.name for path in folder.iterdir()]
    ['mine.txt']
    """
    for name in {*names, *JUNK}:
        with suppress(OSError):
            (folder / name).unlink()
    with suppress(OSError):
        folder.rmdir()


@contextmanager
def created_folder(folder: Path) -> Iterator[None]:
    """Make a folder, and its parents; if the block fails, those that are empty still are removed again.

    Raises:
        WesepError: it cannot be made.
    """
    new = [place for place in (folder, *folder.parents) if not path_exists(place)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WesepError(f"{folder}: cannot be made ({error.strerror or error})") from error
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for place in new:
                place.rmdir()
        raise


def listing(names: Collection[str], most: int = 3) -> str:
    """List the first few names, and say how many more there are.

    >>> listing(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    shown = ", ".join(list(names)[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


# --- names


def hidden_name(name: str, tail: str, longest_tail: int | None = None, folder: Path | None = None) -> str:
    """Return `.NAME` and the tail, no longer than the file system allows; the same name gives the same one.

    Args:
        name: of the file or folder that it belongs to.
        tail: what follows.
        longest_tail: bytes to leave, where several tails follow one name.
        folder: where it will be.

    >>> hidden_name("out.wav", ".partial")
    '.out.wav.partial'
    >>> len(hidden_name("x" * 255, ".partial"))
    255
    """
    room = _name_limit(folder) - 1 - max(len(os.fsencode(tail)), longest_tail or 0)
    if len(os.fsencode(name)) > room:
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
        name = f"{_shortened(name, room - 9)}~{digest}"
    return f".{name}{tail}"


def _temporary_file(path: Path) -> Path:
    """A new empty file beside the target, hidden, with its suffix and a name that no one else has."""
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= LONGEST_SUFFIX else ""
    room = _name_limit(path.parent) - len(os.fsencode(suffix)) - len("..") - 8  # 8 random characters of `mkstemp`
    handle, name = tempfile.mkstemp(prefix=f".{_shortened(path.stem, room)}.", suffix=suffix, dir=path.parent)
    os.close(handle)
    return Path(name)


def _name_limit(folder: Path | None) -> int:
    """Bytes of the longest name that can be given in a folder."""
    try:
        return os.pathconf(folder or ".", "PC_NAME_MAX")
    except (OSError, ValueError, AttributeError):
        return 255


def _shortened(text: str, num_bytes: int) -> str:
    while len(os.fsencode(text)) > num_bytes:
        text = text[:-1]
    return text


def _tag_of(folder: Path) -> str:
    """How the names of all temporary folders for this one begin."""
    return hidden_name(folder.name, ".wesep-", longest_tail=31, folder=folder.parent)


def _tagged(folder: Path) -> list[Path]:
    """The temporary folders that are there for this one."""
    pattern = re.compile(re.escape(_tag_of(folder)) + r"[0-9a-f]{16}\.(old|partial)")
    try:
        return [path for path in folder.parent.iterdir() if pattern.fullmatch(path.name)]
    except OSError:
        return []


# --- inside


def _not_written(path: Path, error: OSError) -> WesepError:
    return WesepError(f"{path}: writing failed ({error.strerror or error}); nothing was changed")


def _check_still_free(ready: _Ready) -> None:
    if not ready.overwrite and path_exists(ready.path):
        raise OutputExistsError(f"{ready.path}: appeared while it was being written; it was left as it is")


def _kept_aside(path: Path) -> Path:
    """A second name of what is about to be replaced."""
    spare = _temporary_file(path)
    spare.unlink()
    try:
        os.link(path, spare, follow_symlinks=False)
    except (OSError, NotImplementedError):  # a file system without hard links
        path.rename(spare)
    return spare


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """While the block runs, `_clear_stale` of another process leaves the folder alone."""
    descriptor = _lock_of(folder)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _lock_of(folder: Path) -> int | None:
    """The descriptor of a lock on a folder; `None` where somebody has it, or there are no locks."""
    try:
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _clear_stale(folder: Path, kind: FolderKind) -> None:
    """Remove what killed processes left beside a folder that is there; other things in them are kept."""
    for path in _tagged(folder):
        if (descriptor := _lock_of(path)) is None:
            continue
        try:
            if path.name.endswith(".partial"):
                shutil.rmtree(path, ignore_errors=True)
            elif kind.is_ours(path):
                remove_known(path, kind.names)
        finally:
            os.close(descriptor)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
