"""Write whole folders safely: one run at a time, replaced as a whole, and only if they hold this package's files.

| to … | use |
| --- | --- |
| check a folder before the work | `check_folder`, `check_results_folder` |
| replace a folder as a whole | `FolderKind`, `atomic_folder`, `find_set_aside` |
| keep other runs out of a folder | `folder_lock`, `one_run_in` |
| remove what a killed run left | `remove_temporary_files`, `remove_known` |
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import socket
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from wesep_py.common.errors import InputError, OutputExistsError, WesepError
from wesep_py.common.files import hidden_name, open_regular, path_exists, separate_from_group
from wesep_py.common.names import is_hidden, listing

JUNK = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
"""Files that file managers leave in any folder; they are removed with it."""

LOCK_NAME = ".lock"

_HOLDER_LINE = re.compile(r"(process \d+ on [^\n]*\n)?")
"""Content of a lock file that this package wrote; a file of another program is locked, but not written to."""

_LOCK_TRIES = 5

# The names that `files.atomic_path` gives to unfinished files: `.STEM.RANDOM` with the suffix of the target.
_TEMPORARY = re.compile(r"\.(.+)\.[a-z0-9_]{6,8}", re.DOTALL)

# Checks, before the work.


@dataclass(frozen=True)
class FolderKind:
    """A kind of folder that this package writes, by which such a folder is recognised before it is replaced.

    Attributes:
        what: the kind, for messages: "a checkpoint".
        names: names of the files in such a folder.
        is_ours: returns whether this package wrote a folder that holds only files of these names.
    """

    what: str
    names: frozenset[str]
    is_ours: Callable[[Path], bool]

    def others(self, folder: Path) -> list[str]:
        """Return the sorted names of other files, and of all folders, in a folder."""
        with os.scandir(folder) as entries:
            return sorted(
                entry.name
                for entry in entries
                if entry.name not in self.names | JUNK or entry.is_dir(follow_symlinks=False)
            )


def check_folder(folder: str | os.PathLike[str], kind: FolderKind, overwrite: bool = False) -> Path:
    """Return the folder if it may be written: it is new, empty, or with `overwrite` one that this package wrote.

    Raises:
        InputError: it is a file, holds other files, or was not written by this package.
        OutputExistsError: this package wrote it, and `overwrite` is false.
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


def check_results_folder(folder: Path, names: Iterable[str], overwrite: bool = False) -> None:
    """Check that results can be written into a folder; call it before the work.

    Args:
        folder: may be new, or hold other files.
        names: names of the files that will be written.
        overwrite: allow these to exist.

    Raises:
        InputError: the folder is a file.
        OutputExistsError: one of the files exists, and `overwrite` is false.
    """
    if path_exists(folder) and not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a folder for the results")
    existing = [folder / name for name in names if path_exists(folder / name)]
    if existing and not overwrite:
        raise OutputExistsError(f"{existing[0]}: exists already; name another folder, or pass --overwrite")


# A folder that is replaced as a whole.


@contextmanager
def atomic_folder(folder: str | os.PathLike[str], kind: FolderKind, keep_others: bool = False) -> Iterator[Path]:
    """Yield a temporary folder, and put it in the place of `folder` when the block succeeds; its parent is created.

    A folder cannot be renamed onto one that is not empty, so it is replaced in three steps:

        NAME ─► .NAME.wesep-…old      then  .NAME.wesep-…partial ─► NAME      then remove .old

    If the process is killed after the first one, `find_set_aside` finds the old folder.

    Args:
        folder: new, empty, or of the same kind.
        kind: the kind of folder to write.
        keep_others: move other files of the old folder into the new one, where by default they are an error; for
            folders that a training replaces while it runs.

    Raises:
        InputError: the folder holds other files, or was not written by this package.
        OSError: the disk is full or not writable; the old folder is still there.
    """
    folder = Path(os.path.realpath(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(8)
    temporary = folder.with_name(f"{_tag_of(folder)}{token}.partial")
    temporary.mkdir()
    try:
        with separate_from_group(), _held(temporary):  # its files appear with the folder, not with a group
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
        shutil.rmtree(temporary, ignore_errors=True)
    _clear_stale(folder, kind)


def find_set_aside(folder: Path, kind: FolderKind) -> Path | None:
    """Return the old folder that a process, killed in `atomic_folder`, had set aside; `None` if there is none.

    Nothing is moved, because another process may be replacing the folder at the moment.
    """
    folder = Path(os.path.realpath(folder))
    if path_exists(folder):
        return None
    candidates = [path for path in _temporary_folders(folder) if path.name.endswith(".old")]
    candidates += [folder.with_name(f".{folder.name}.old")]  # the name in earlier versions
    complete = [path for path in candidates if path.is_dir() and not kind.others(path) and kind.is_ours(path)]
    return max(complete, key=lambda path: path.stat().st_mtime_ns, default=None)


def _tag_of(folder: Path) -> str:
    """Return the beginning of the names of all temporary folders of a folder."""
    return hidden_name(folder.name, ".wesep-", longest_tail=31, folder=folder.parent)


def _temporary_folders(folder: Path) -> list[Path]:
    """Return the existing temporary folders of a folder."""
    pattern = re.compile(re.escape(_tag_of(folder)) + r"[0-9a-f]{16}\.(old|partial)")
    try:
        return [path for path in folder.parent.iterdir() if pattern.fullmatch(path.name)]
    except OSError:
        return []


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Keep `_clear_stale` of another process from removing a folder while the block runs."""
    descriptor = _lock_of(folder)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _lock_of(folder: Path) -> int | None:
    """Lock a folder and return the descriptor; `None` if another process holds it, or there are no locks."""
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
    """Remove the temporary folders that killed processes left beside a folder; files of others in them are kept."""
    for path in _temporary_folders(folder):
        if (descriptor := _lock_of(path)) is None:
            continue
        try:
            if path.name.endswith(".partial"):
                shutil.rmtree(path, ignore_errors=True)
            elif kind.is_ours(path):
                remove_known(path, kind.names)
        finally:
            os.close(descriptor)


# A folder that one run writes at a time.


@contextmanager
def folder_lock(folder: Path, doing: str = "working", another: str = "folder") -> Iterator[None]:
    """Hold the lock of a folder while the block runs.

    The lock is the operating system's (`fcntl.lockf`): it ends with the process, however the process ends, and data
    workers do not inherit it. On a system without such locks, nothing is locked.

    Args:
        folder: an existing folder. The file `.lock` in it stays, and names the process that held the lock last. A
            symbolic link of this name is refused.
        doing: the work of a run, for the message: "working", "training".
        another: the object to choose instead, for the message: "folder".

    Raises:
        WesepError: another process holds the lock.
        InputError: `.lock` is a symbolic link, a pipe or a folder.
        OSError: the file cannot be written.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with os.fdopen(open_regular(folder / LOCK_NAME, os.O_RDWR), "r+", encoding="utf-8", errors="replace") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):  # a file system without locks
                yield
                return
            raise WesepError(
                f"{folder}: another run is {doing} here ({_holder(file.read(1000))}); wait for its "
                f"end, or name another {another}"
            ) from error
        if _HOLDER_LINE.fullmatch(file.read(1000)):
            file.seek(0)
            file.truncate()
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
        yield


def _holder(text: str) -> str:
    """Return the process that holds the lock, from the content of the lock file."""
    return text.strip() if text and _HOLDER_LINE.fullmatch(text) else "of another machine"


@contextmanager
def one_run_in(folder: Path, doing: str) -> Iterator[None]:
    """Let only this process write into a folder while the block runs; create the folder if its parent exists.

    Unlike with `folder_lock`, the file `.lock` is removed at the end.

    Args:
        folder: the folder to write into.
        doing: the work of the run, for the message that another run gets.

    Raises:
        WesepError: another run has the folder, or the folder cannot be created or written.
    """
    with ExitStack() as stack:
        try:
            folder.mkdir(exist_ok=True)
            for _ in range(_LOCK_TRIES):
                before = _inode(folder / LOCK_NAME)
                stack.enter_context(folder_lock(folder, doing))
                # A run that ends removes its lock file. Between `open` and `lockf` this may have happened to the file
                # that is locked now; then the name belongs to another inode, or to none, and locking is tried again.
                if before is None or _inode(folder / LOCK_NAME) == before:
                    break
                stack.pop_all().close()
        except OSError as error:
            raise WesepError(f"{folder}: cannot be written ({error.strerror or error}); name another folder") from error
        try:
            yield
        finally:
            with suppress(OSError):
                (folder / LOCK_NAME).unlink()


def _inode(lock: Path) -> int | None:
    """Return the inode of a lock file, without opening it: closing it again would release this process's lock."""
    try:
        return lock.stat().st_ino
    except FileNotFoundError:
        return None


# Contents of a folder.


@contextmanager
def created_folder(folder: Path) -> Iterator[None]:
    """Create a folder and its parents; if the block fails, remove those that are still empty.

    Raises:
        WesepError: the folder cannot be created.
    """
    new = [place for place in (folder, *folder.parents) if not path_exists(place)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WesepError(f"{folder}: cannot be created ({error.strerror or error})") from error
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for place in new:
                place.rmdir()
        raise


def remove_known(folder: Path, names: Collection[str]) -> None:
    """Remove files of the given names from a folder, and the folder itself if it is empty then.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("ours.txt", "mine.txt"):
    ...     (folder / name).touch()
    >>> remove_known(folder, {"ours.txt"})
    >>> [path.name for path in folder.iterdir()]
    ['mine.txt']
    """
    for name in {*names, *JUNK}:
        with suppress(OSError):
            (folder / name).unlink()
    with suppress(OSError):
        folder.rmdir()


def remove_temporary_files(folder: Path, names: Collection[str]) -> int:
    """Remove the temporary files that killed runs left in a folder; call it while no other run writes there.

    Args:
        folder: need not exist.
        names: names, with suffix, of the files that the runs were writing. Temporary files of other files stay.

    Returns:
        The number of files removed.
    """
    count = 0
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for path in [Path(entry.path) for entry in entries if is_hidden(entry.name)]:
            parsed = [(_TEMPORARY.fullmatch(path.stem), path.suffix), (_TEMPORARY.fullmatch(path.name), "")]
            if any(match and match[1] + suffix in names for match, suffix in parsed) and path.is_file():
                path.unlink(missing_ok=True)
                count += 1
    return count


def visible_names(folder: Path) -> list[str]:
    """Return the sorted names in a folder that are not hidden; an empty list if there is no folder."""
    return sorted(name for name in os.listdir(folder) if not is_hidden(name)) if folder.is_dir() else []  # noqa: PTH208
