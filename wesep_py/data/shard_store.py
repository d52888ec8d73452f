"""Shards with an index: read any utterance of a folder of tar files, from disk or through a URL.

The folder, which `shard_writing` writes, holds

    000000.tar, 000001.tar, …   the shards
    index.jsonl                 a line per utterance: its line of the manifest, and the position of its audio
    shards.json                 the shards and their checksums; written last

To read an utterance, only its own bytes of the tar file are read:

    000001.tar   | header | KEY.json | header | KEY.flac        | header | …
                                              ↑ offset    ↑ offset + size
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

from wesep_py.common.errors import InputError, quoted, reason
from wesep_py.common.names import canonical
from wesep_py.common.textfiles import COUNT, check_schema, parse_object
from wesep_py.data.manifest import Utterance
from wesep_py.data.remote import StorageFolder
from wesep_py.data.store import StoreEntry, StoreReader, parse_index_lines, utterance_from_record

SHARD_FORMAT = 1
SHARD_SUMMARY_NAME = "shards.json"
SHARD_INDEX_NAME = "index.jsonl"
_SUMMARY_SCHEMA = {
    "format": COUNT,
    "index_sha256": str,
    "shards": [{"name": str, "size": COUNT, "sha256": str}],
}


class _ShardPosition(NamedTuple):
    """The number of a shard, and the first byte and number of bytes of an utterance's audio in it."""

    shard: int
    offset: int
    size: int
    entry: StoreEntry


class ShardStore:
    """The encoded audio of a folder of shards, by utterance id.

    Args:
        location: the folder, or any URL of it that fsspec opens (`s3://bucket/shards`).

    Raises:
        InputError: there is no complete folder of shards of this format, or a shard is missing or cut short.
    """

    def __init__(self, location: str | os.PathLike[str]) -> None:
        self._folder = StorageFolder(location)
        self.name = os.fspath(location)
        summary = read_shard_summary(self._folder)
        self._shards = [shard["name"] for shard in summary["shards"]]
        if not self._folder.is_remote:
            check_shard_sizes(Path(location), summary)
        numbers = {name: number for number, name in enumerate(self._shards)}
        self._positions: dict[str, _ShardPosition] = {}
        try:
            for record in self._records():
                entry = StoreEntry.of(record)
                position = _ShardPosition(numbers[record["shard"]], record["offset"], record["size"], entry)
                self._positions[canonical(record["utterance_id"])] = position
        except (KeyError, TypeError, ValueError) as error:
            place = self._folder.place(SHARD_INDEX_NAME)
            raise InputError(f"{place}: is damaged ({reason(error)}); create it again") from error

    def entry(self, utterance_id: str) -> StoreEntry | None:
        """Return rate, number of samples and checksum of an utterance, or `None` if it is not in the store."""
        position = self._positions.get(utterance_id)
        return None if position is None else position.entry

    def data(self, utterance_id: str) -> bytes:
        """Return the encoded audio of an utterance.

        Raises:
            AudioError: its shard cannot be read at this position.
        """
        position = self._positions[utterance_id]
        return self._folder.read_range(self._shards[position.shard], position.offset, position.size)

    def utterances(self, root: str | os.PathLike[str] | None = None) -> list[Utterance]:
        """Return the index as a manifest: the utterances that were put into the shards, with their original paths.

        Drawing from them therefore gives the same as drawing from the files. The files need not exist.

        Args:
            root: the folder that relative paths start from; `None` leaves them relative.
        """
        place = self._folder.place(SHARD_INDEX_NAME)
        lines = enumerate(self._records(), start=1)
        return [utterance_from_record(record, f"{place}:{number}", root) for number, record in lines]

    def identity(self) -> list[str]:
        """Return the SHA-256 of the index and of every shard, as they were written."""
        summary = read_shard_summary(self._folder)
        return [summary["index_sha256"], *(shard["sha256"] for shard in summary["shards"])]

    def _records(self) -> list[dict[str, Any]]:
        data = self._folder.read(SHARD_INDEX_NAME)
        place = self._folder.place(SHARD_INDEX_NAME)
        if hashlib.sha256(data).hexdigest() != read_shard_summary(self._folder)["index_sha256"]:
            raise InputError(f"{place}: is damaged (its checksum differs); get a whole copy, or write the shards again")
        return parse_index_lines(data.splitlines(), place)


class ShardReader(StoreReader):
    """Reads utterances of a folder of shards in any order, by its index; see `StoreReader`.

    Args:
        location: the folder, or any URL of it that fsspec opens.
        sample_rate: sample rate of the returned audio in Hz.
        cache_mib: size of the cache of decoded audio in MiB.

    Raises:
        InputError: as `ShardStore`.

    >>> reader = ShardReader("s3://bucket/train-clean-100", 16000)  # doctest: +SKIP
    >>> reader.read(reader.store.utterances()[0]).dtype             # doctest: +SKIP
    dtype('float32')
    """

    def __init__(self, location: str | os.PathLike[str], sample_rate: int, cache_mib: float = 512) -> None:
        super().__init__(ShardStore(location), sample_rate, cache_mib)


def read_shard_summary(folder: StorageFolder) -> dict[str, Any]:
    """Read and check `shards.json`.

    Raises:
        InputError: it is missing or malformed, or of another format version.
    """
    place = folder.place(SHARD_SUMMARY_NAME)
    where, remedy = f"{place}: is not a summary of shards", "`wesep shard` creates it again"
    summary = dict(parse_object(folder.read(SHARD_SUMMARY_NAME), where, remedy).values)
    check_schema(summary, {"format": COUNT}, where, remedy)
    if summary["format"] != SHARD_FORMAT:
        raise InputError(
            f"{place}: has format {summary['format']!r}; format {SHARD_FORMAT} is needed; write the shards again"
        )
    check_schema(summary, _SUMMARY_SCHEMA, where, remedy)
    # A name with a folder in it would read files from elsewhere.
    if foreign := [shard["name"] for shard in summary["shards"] if Path(shard["name"]).name != shard["name"]]:
        raise InputError(f"{where}: {quoted(foreign[0])} is not the name of a shard next to it; {remedy}")
    return summary


def check_shard_sizes(folder: Path, summary: dict[str, Any]) -> None:
    """Refuse a folder in which a shard is missing, or has another size than it was written with.

    Raises:
        InputError: naming the shard.
    """
    for shard in summary["shards"]:
        path = folder / shard["name"]
        size = path.stat().st_size if path.is_file() else None
        if size is None:
            raise InputError(f"{path}: is missing; get a whole copy, or run the same `wesep shard` again")
        if size != shard["size"]:
            raise InputError(
                f"{path}: has {size} bytes, and was written with {shard['size']}; get a whole copy of it, or remove it "
                "and run the same `wesep shard` again"
            )
