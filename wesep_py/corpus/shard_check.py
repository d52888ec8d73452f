"""Whether a folder of shards is what was written: by the checksums."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from wesep_py.corpus.remote import Folder
from wesep_py.corpus.shard_store import INDEX_NAME, read_summary
from wesep_py.errors import InputError

_BLOCK_BYTES = 2**20


def check_shards(folder: str | os.PathLike[str], on_progress: Callable[[int, int], None] | None = None) -> list[str]:
    """What is wrong with a folder of shards: each shard against its SHA-256, and the index against its own.

    Args:
        folder: what `write_shards` wrote, or a copy of it; a URL works too, shard by shard through memory.
        on_progress: called with the number of shards done and of all.

    Returns:
        One line for each shard that is missing, cut short or damaged; none if all is well.

    Raises:
        InputError: there is no `shards.json`, or none of this format.
    """
    files = Folder(folder)
    summary = read_summary(files)
    expected = {shard["name"]: (shard["size"], shard["sha256"]) for shard in summary["shards"]}
    expected[INDEX_NAME] = (None, summary["index_sha256"])
    problems = []
    for done, (name, (size, sha256)) in enumerate(expected.items(), start=1):
        try:
            found_size, found = _digest(files, name)
        except InputError as error:
            problems.append(str(error))
        else:
            if size is not None and found_size != size:
                problems.append(f"{files.place(name)}: has {found_size} bytes; {size} were written")
            elif found != sha256:
                problems.append(f"{files.place(name)}: is damaged: its SHA-256 is not that of what was written")
        if on_progress is not None:
            on_progress(done, len(expected))
    return problems


def _digest(files: Folder, name: str) -> tuple[int, str]:
    """Size and SHA-256 of a file."""
    if files.is_remote:
        data = files.read(name)
        return len(data), hashlib.sha256(data).hexdigest()
    path = Path(files.place(name))
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is no file, but a folder, a device or a pipe")
    try:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
        return path.stat().st_size, digest.hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
