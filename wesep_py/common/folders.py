"""A folder that one run writes at a time: its lock, and what runs that were killed have left in it."""

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

# ----------------------------------------
# One run at a time in a folder.

NAME = ".lock"
WRITTEN = re.compile(r"(process \d+ on [^\n]*\n)?")
"""What a lock file of ours holds; one of somebody else is locked, and not written to."""


@contextmanager
def locked(folder: Path, doing: str = "working", another: str = "folder") -> Iterator[None]:
    """While the block runs, no other process can lock the folder.

    The lock is the operating system's (`fcntl.lockf`), so it ends with the process, however that ends; data workers do
    not inherit it. On a system without such locks there is none.

    Args:
        folder: it exists; the file `.lock` in it stays, and says who had the lock last. A link of this name is refused.
        doing: what a run does there, for the message.
        another: what to name instead, for the message.

    Raises:
        WesepError: another process has it.
        InputError: `.lock` is a symbolic link, a pipe or a folder.
        OSError: the file cannot be written.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with os.fdopen(open_regular(folder / NAME, os.O_RDWR), "r+", encoding="utf-8", errors="replace") as file:
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
        if WRITTEN.fullmatch(file.read(1000)):
            file.seek(0)
            file.truncate()
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
        yield


def _holder(text: str) -> str:
    """Who has the lock, by what stands in the file."""
    return text.strip() if text and WRITTEN.fullmatch(text) else "of another machine"


LOCK_NAME = NAME
_TRIES = 5
# As `files.atomic_path` calls what is not whole yet: `.STEM.RANDOM` with the suffix of the target.
_TEMPORARY = re.compile(r"\.(.+)\.[a-z0-9_]{6,8}", re.DOTALL)


@contextmanager
def one_run_in(folder: Path, doing: str) -> Iterator[None]:
    """While the block runs, no other process writes into a folder; the folder is made if its parent exists.

    Args:
        folder: to write into; while the block runs it holds a file `.lock`.
        doing: what the run does there, for the message to another one.

    Raises:
        WesepError: another run has the folder, or it cannot be made or written.
    """
    with ExitStack() as held:
        try:
            folder.mkdir(exist_ok=True)
            for _ in range(_TRIES):
                before = _number_of(folder / LOCK_NAME)
                held.enter_context(locked(folder, doing))
                # A run that ends removes its lock; what was locked may be that one, which nobody sees any more.
                if before is None or _number_of(folder / LOCK_NAME) == before:
                    break
                held.pop_all().close()
        except OSError as error:
            raise WesepError(f"{folder}: cannot be written ({error.strerror or error}); name another folder") from error
        try:
            yield
        finally:
            with suppress(OSError):
                (folder / LOCK_NAME).unlink()


def _number_of(lock: Path) -> int | None:
    """The number of a file on its disk. (To open it again, and close it, would release the lock of this process.)"""
    try:
        return lock.stat().st_ino
    except FileNotFoundError:
        return None


def clear_left_behind(folder: Path, names: Collection[str]) -> int:
    """Remove what killed runs left of files that they were writing; call it while no other run writes there.

    Args:
        folder: where the files are; it need not exist.
        names: of the files, with suffix. What is left of others stays.

    Returns:
        How many files were removed.
    """
    count = 0
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for path in [Path(entry.path) for entry in entries if is_hidden(entry.name)]:
            parsed = [(_TEMPORARY.fullmatch(path.stem), path.suffix), (_TEMPORARY.fullmatch(path.name), "")]
            if any(begun and begun[1] + suffix in names for begun, suffix in parsed) and path.is_file():
                path.unlink(missing_ok=True)
                count += 1
    return count


def visible(folder: Path) -> list[str]:
    """Return the names in a folder that are not hidden, sorted; none where there is no folder."""
    return sorted(name for name in os.listdir(folder) if not is_hidden(name)) if folder.is_dir() else []  # noqa: PTH208
