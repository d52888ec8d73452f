"""One run at a time in a folder."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wesep_py.errors import WesepError
from wesep_py.files import open_regular

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
