"""An index for shards that came without one: after one reading, any utterance of them can be reached at once."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from wesep_py.corpus.processes import map_processes
from wesep_py.corpus.shard_store import FORMAT, INDEX_NAME, SUMMARY_NAME
from wesep_py.corpus.shards import ShardsResult, finish
from wesep_py.corpus.store import to_record
from wesep_py.corpus.webdataset import read_shard
from wesep_py.errors import AudioError, InputError, OutputExistsError
from wesep_py.names import is_hidden


def index_shards(
    folder: str | os.PathLike[str],
    jobs: int = 1,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> ShardsResult:
    """Write `index.jsonl` and `shards.json` into a folder of tar shards in the webdataset layout.

    Args:
        folder: holds `*.tar`, uncompressed; see `webdataset` for what is taken as whose utterance.
        jobs: processes, at least 1.
        overwrite: replace an index that is there.
        on_progress: called with the number of shards done and of all.

    Returns:
        What the shards hold; utterances without readable audio or a speaker are left out, and named.

    Raises:
        InputError: no tar file in the folder, or an utterance_id that comes twice.
        AudioError: a shard that is no tar file, or cut short.
        OutputExistsError: there is an index, and `overwrite` is false.
    """
    folder = Path(folder)
    paths = sorted(path for path in folder.glob("*.tar") if not is_hidden(path.name))
    if not paths:
        raise InputError(f"{folder}: holds no tar file; name a folder of shards")
    if strange := [path for path in paths if not path.is_file()]:
        raise AudioError(f"{strange[0]}: is no file; name a folder of tar files")
    if not overwrite and any((folder / name).exists() for name in (SUMMARY_NAME, INDEX_NAME)):
        raise OutputExistsError(f"{folder}: has an index already; pass --overwrite to replace it")
    abouts: dict[int, dict[str, Any]] = {}
    for position, about in map_processes(_Scan(), paths, jobs):
        abouts[position] = about
        if on_progress is not None:
            on_progress(len(abouts), len(paths))
    in_order = [abouts[position] for position in range(len(paths))]
    seen: dict[str, str] = {}
    for about in in_order:
        for entry in about["utterances"]:
            name = entry["utterance_id"]
            if name in seen:
                raise InputError(
                    f"{folder / entry['shard']}: utterance_id {name!r} is in {seen[name]} already; it must be unique"
                )
            seen[name] = entry["shard"]
    return finish(folder, in_order, "as it was")


@dataclass(frozen=True)
class _Scan:
    def __call__(self, path: Path) -> dict[str, Any]:
        left_out: list[str] = []
        entries = []
        with _HashingFile(path) as file:
            for item in read_shard(file, str(path), left_out.append):
                place = {"shard": path.name, "member": item.member, "offset": item.offset, "size": len(item.data)}
                facts = {"sample_rate": item.sample_rate, "num_samples": item.num_samples}
                entries.append(to_record(item.utterance) | facts | place | {"crc32": zlib.crc32(item.data)})
            if file.is_compressed:
                raise InputError(f"{path}: is compressed; unpack it by gunzip, for an index points into the tar itself")
            about = {"format": FORMAT, "name": path.name, "size": file.size, "sha256": file.digest.hexdigest()}
        return about | {"left_out": left_out, "utterances": entries}


class _HashingFile(FileIO):
    """A file that is read once, from beginning to end, and hashed on the way."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        self.digest = hashlib.sha256()
        self.size = 0
        self.is_compressed = False

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer) or 0
        data = memoryview(buffer)[:count]
        if self.size == 0:
            self.is_compressed = bytes(data[:2]) == b"\x1f\x8b"
        self.digest.update(data)
        self.size += count
        return count
