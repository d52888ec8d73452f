"""One run at a time in a folder: its lock, and removal of the temporary files that killed runs have left."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from wesep_py.common.errors import WesepError
from wesep_py.common.files import open_regular
from wesep_py.common.names import is_hidden

LOCK_NAME = ".lock"
_HOLDER_LINE = re.compile(r"(process \d+ on [^\n]*\n)?")
"""Content of a lock file that this package wrote; a file of another program is locked, but not written to."""
_LOCK_TRIES = 5
# The names that `files.atomic_path` gives to unfinished files: `.STEM.RANDOM` with the suffix of the target.
_TEMPORARY = re.compile(r"\.(.+)\.[a-z0-9_]{6,8}", re.DOTALL)


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
