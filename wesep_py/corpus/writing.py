"""A folder that one run writes at a time: its lock, and what runs that were killed have left in it."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from wesep_py.errors import WesepError
from wesep_py.lock import NAME as LOCK_NAME
from wesep_py.lock import locked
from wesep_py.names import is_hidden

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
