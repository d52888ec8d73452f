"""One run at a time in a folder."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wesep_py.errors import WesepError

NAME = ".lock"


@contextmanager
def locked(folder: Path, doing: str = "working", another: str = "folder") -> Iterator[None]:
    """While the block runs, no other process can lock the folder.

    The lock is the operating system's (`fcntl.lockf`), so it ends with the process, however that ends; data workers do
    not inherit it. On a system without such locks there is none.

    Args:
        folder: it exists; the file `.lock` in it stays, and says who had the lock last.
        doing: what a run does there, for the message.
        another: what to name instead, for the message.

    Raises:
        WesepError: another process has it.
        OSError: the file cannot be written.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (folder / NAME).open("a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):  # a file system without locks
                yield
                return
            file.seek(0)
            raise WesepError(
                f"{folder}: another run is {doing} here ({file.read().strip() or 'of another machine'}); wait for its "
                f"end, or name another {another}"
            ) from error
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
