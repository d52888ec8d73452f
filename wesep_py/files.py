"""Writing files so that nothing is lost: a temporary name beside the target, then a rename."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from wesep_py.errors import InputError, OutputExistsError, WesepError


def check_writable(path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """The path, if it may be written: its folder exists, and it does not exist itself unless `overwrite`.

    Raises:
        OutputExistsError: `path` exists and `overwrite` is false.
        InputError: the folder does not exist, or `path` is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file to write")
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path}: exists already; name another output, or pass --overwrite")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it first")
    return path


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
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a folder for the results")
    there = [folder / name for name in names if (folder / name).exists()]
    if there and not overwrite:
        raise OutputExistsError(f"{there[0]}: exists already; name another folder, or pass --overwrite")


@contextmanager
def atomic_path(path: str | os.PathLike[str], overwrite: bool = True) -> Iterator[Path]:
    """A temporary path in the target's folder, renamed to `path` when the block ends well.

    If the block fails, or is interrupted, the temporary file is removed and whatever stood at `path` stays.
    The temporary name keeps the suffix, for writers that choose a format by it.

    Raises:
        OutputExistsError, InputError: as `check_writable`.
        WesepError: the disk is full or not writable.

    >>> with atomic_path("/tmp/doctest.txt") as temporary:
    ...     _ = temporary.write_text("whole or not at all")
    """
    path = check_writable(path, overwrite)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise WesepError(
            f"{path}: cannot be written ({error.strerror or error}); name another place, or make this one writable"
        ) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        if not overwrite and path.exists():
            raise OutputExistsError(f"{path}: appeared while it was being written; it was left as it is")
        temporary.replace(path)
    except OSError as error:
        raise WesepError(f"{path}: writing failed ({error.strerror or error}); nothing was changed") from error
    finally:
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


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
