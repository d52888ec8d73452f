"""A folder of tar shards with an index: any utterance at once, from disk or through a URL.

The folder, which `wesep_py.data.shard_writing` writes, holds `000000.tar` and so on, `index.jsonl` with a line for
each utterance (its line of the manifest, and where it lies), and `shards.json`, which is written last and says how many
shards there are, and their checksums.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

from wesep_py.common.errors import InputError, quoted, reason
from wesep_py.common.names import canonical
from wesep_py.common.textfiles import COUNT, check_shape, parse_object
from wesep_py.data.manifest import Utterance
from wesep_py.data.remote import StorageFolder
from wesep_py.data.store import StoreEntry, StoreReader, parse_index_lines, utterance_from_record

SHARD_FORMAT = 1
SHARD_SUMMARY_NAME = "shards.json"
SHARD_INDEX_NAME = "index.jsonl"
_SHAPE = {
    "format": COUNT,
    "index_sha256": str,
    "shards": [{"name": str, "size": COUNT, "sha256": str}],
}
PLACE_FIELDS = ("shard", "member", "offset", "size", "sample_rate", "num_samples", "crc32")


class _Place(NamedTuple):
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
        self._places: dict[str, _Place] = {}
        try:
            for record in self._records():
                entry = StoreEntry.of(record)
                place = _Place(numbers[record["shard"]], record["offset"], record["size"], entry)
                self._places[canonical(record["utterance_id"])] = place
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{self._folder.place(SHARD_INDEX_NAME)}: is damaged ({reason(error)}); make it anew"
            ) from error

    def entry(self, utterance_id: str) -> StoreEntry | None:
        """Rate, number of samples and checksum of an utterance, or `None` if it is not there."""
        place = self._places.get(utterance_id)
        return None if place is None else place.entry

    def data(self, utterance_id: str) -> bytes:
        """The encoded audio of an utterance.

        Raises:
            AudioError: its shard cannot be read there.
        """
        place = self._places[utterance_id]
        return self._folder.read_range(self._shards[place.shard], place.offset, place.size)

    def utterances(self, root: str | os.PathLike[str] | None = None) -> list[Utterance]:
        """The index as a manifest: the very utterances that were put into the shards, with the paths they had.

        What is drawn from them is therefore what would be drawn from the files. The files need not exist.

        Args:
            root: what relative paths start from; `None` leaves them.
        """
        place = self._folder.place(SHARD_INDEX_NAME)
        return [
            utterance_from_record(record, f"{place}:{n}", root) for n, record in enumerate(self._records(), start=1)
        ]

    def identity(self) -> list[str]:
        """The SHA-256 of the index and of every shard, as they were written."""
        summary = read_shard_summary(self._folder)
        return [summary["index_sha256"], *(shard["sha256"] for shard in summary["shards"])]

    def _records(self) -> list[dict[str, Any]]:
        data = self._folder.read(SHARD_INDEX_NAME)
        place = self._folder.place(SHARD_INDEX_NAME)
        if hashlib.sha256(data).hexdigest() != read_shard_summary(self._folder)["index_sha256"]:
            raise InputError(f"{place}: is damaged (its checksum differs); get a whole copy, or make the shards anew")
        return parse_index_lines(data.splitlines(), place)


class ShardReader(StoreReader):
    """Reads utterances from a folder of shards, at random, by its index; see `StoreReader`.

    Args:
        location: the folder, or any URL of it that fsspec opens.
        sample_rate: rate of what it gives in Hz.
        cache_mib: how much decoded audio it keeps, in MiB.

    Raises:
        InputError: as `ShardStore`.

    >>> reader = ShardReader("s3://bucket/train-clean-100", 16000)  # doctest: +SKIP
    >>> reader.read(reader.store.utterances()[0]).dtype             # doctest: +SKIP
    dtype('float32')
    """

    def __init__(self, location: str | os.PathLike[str], sample_rate: int, cache_mib: float = 512) -> None:
        super().__init__(ShardStore(location), sample_rate, cache_mib)


def read_shard_summary(folder: StorageFolder) -> dict[str, Any]:
    """`shards.json`, checked.

    Raises:
        InputError: it is missing or malformed, or of another format version.
    """
    place = folder.place(SHARD_SUMMARY_NAME)
    where, remedy = f"{place}: is no summary of shards", "`wesep shard` makes it anew"
    summary = dict(parse_object(folder.read(SHARD_SUMMARY_NAME), where, remedy).values)
    check_shape(summary, {"format": COUNT}, where, remedy)
    if summary["format"] != SHARD_FORMAT:
        raise InputError(
            f"{place}: is of format {summary['format']!r}, and {SHARD_FORMAT} is read; make the shards anew"
        )
    check_shape(summary, _SHAPE, where, remedy)
    if strange := [shard["name"] for shard in summary["shards"] if Path(shard["name"]).name != shard["name"]]:
        raise InputError(f"{where}: {quoted(strange[0])} is no name of a shard beside it; {remedy}")
    return summary


def check_shard_sizes(folder: Path, summary: dict[str, Any]) -> None:
    """Refuse a folder in which a shard is missing or has another size than it was written with.

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
