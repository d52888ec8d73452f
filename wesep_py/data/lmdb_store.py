"""Recordings into one LMDB file, whole or not at all; see `lmdb_store` for what stands in it."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.reading import Encoded
from wesep_py.common.errors import AudioError, InputError, WesepError, reason
from wesep_py.common.files import atomic_path
from wesep_py.common.names import canonical
from wesep_py.common.textfiles import parse_object
from wesep_py.data.manifest import Utterance, check_unique
from wesep_py.data.reader import OnProgress, OnSkip, StoredFormat, encode_utterance
from wesep_py.data.store import StoreEntry, StoreReader, decode_checked, utterance_from_record, utterance_to_record

# ----------------------------------------
# Encoded audio in one LMDB file: noise, room responses, or any recordings; read by many processes at once.
#
# The file holds the audio of an utterance under `audio/<utterance_id>`, and under `index.json` a JSON object: the format
# version, and a record for each utterance (its line of the manifest, rate, number of samples, checksum, and what else
# was said of it). Nothing in it is ever unpickled.

LMDB_FORMAT = 1
LMDB_INDEX_KEY = b"index.json"
_MISSING = "lmdb is not installed; pip install lmdb"


class LMDBStore:
    """The encoded audio of an LMDB file, by utterance id; read-only, without locks, a view for each process.

    Args:
        path: what `write_lmdb` or `write_lmdb_items` wrote.

    Attributes:
        records: of each utterance by its id: its line of the manifest, rate, samples, and what else was said of it.

    Raises:
        InputError: no such file, not an LMDB of this format, damaged, or lmdb is not installed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fspath(path)
        self._view: _View | None = None
        index = self._index()
        try:
            self.records = {canonical(record["utterance_id"]): record for record in index["utterances"]}
            self._entries = {name: StoreEntry.of(record) for name, record in self.records.items()}
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{self.name}: its index is damaged ({reason(error)}); get a whole copy of it") from error

    def entry(self, utterance_id: str) -> StoreEntry | None:
        """Rate, number of samples and checksum of an utterance, or `None` if it is not there."""
        return self._entries.get(utterance_id)

    def data(self, utterance_id: str) -> bytes:
        """The encoded audio of an utterance.

        Raises:
            AudioError: the file is damaged.
        """
        data = self._get(audio_key(self.records[utterance_id]["utterance_id"]))
        if data is None:
            raise AudioError(f"{self.name}: {utterance_id!r} stands in its index only; `wesep lmdb` makes it anew")
        return data

    def waveform(self, utterance_id: str) -> tuple[NDArray[np.float32], int]:
        """All channels of a recording, float32 `[channels, samples]`, and its rate in Hz: as a room response is read.

        Raises:
            AudioError: the content is damaged.
            InputError: it is not in the file.
        """
        entry = self.entry(utterance_id)
        if entry is None:
            raise InputError(f"{self.name}: holds no {utterance_id!r}")
        return decode_checked(self.data(utterance_id), entry, f"{self.name}: {utterance_id!r}")

    def utterances(self, root: str | os.PathLike[str] | None = None) -> list[Utterance]:
        """The index as a manifest: the very utterances that were put in. The files need not exist.

        Args:
            root: what relative paths start from; `None` leaves them.
        """
        return [utterance_from_record(record, f"{self.name}: {name!r}", root) for name, record in self.records.items()]

    def identity(self) -> list[str]:
        """The record of each recording, its checksum included, as text."""
        return [json.dumps(record, sort_keys=True) for record in self.records.values()]

    def _index(self) -> dict[str, Any]:
        data = self._get(LMDB_INDEX_KEY)
        try:
            index = parse_object(data or b"", self.name).values
            found = index["format"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{self.name}: holds no index; `wesep lmdb` writes one") from error
        if found != LMDB_FORMAT:
            raise InputError(f"{self.name}: is of format {found!r}, and {LMDB_FORMAT} is read; make it anew")
        return dict(index)

    def _get(self, key: bytes) -> bytes | None:
        if self._view is None or self._view.pid != os.getpid():
            self._view = _view(self.name)
        return self._view.get(key)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_view": None}


class LMDBReader(StoreReader):
    """Reads utterances from an LMDB file; see `StoreReader`.

    Args:
        path: what `write_lmdb` wrote.
        sample_rate: rate of what it gives in Hz.
        cache_mib: how much decoded audio it keeps, in MiB.

    Raises:
        InputError: as `LMDBStore`.
    """

    def __init__(self, path: str | os.PathLike[str], sample_rate: int, cache_mib: float = 512) -> None:
        super().__init__(LMDBStore(path), sample_rate, cache_mib)


class _View:
    """An LMDB file, opened by one process."""

    def __init__(self, path: str) -> None:
        lmdb = import_lmdb()
        self.path, self.pid = path, os.getpid()
        if not Path(path).is_file():
            raise InputError(f"{path}: no such file; `wesep lmdb` writes one")
        try:
            self.environment = lmdb.open(
                path, subdir=False, readonly=True, lock=False, readahead=False, create=False, max_spare_txns=1
            )
            self.size = _check_length(path, self.environment)
        except lmdb.Error as error:
            raise InputError(f"{path}: cannot be read as an LMDB ({error}); get a whole copy of it") from error

    def get(self, key: bytes) -> bytes | None:
        import lmdb

        try:
            with self.environment.begin(buffers=True) as transaction:
                value = transaction.get(key)
                # A damaged length is not to be read: beyond the end of the file that would end the process.
                if value is not None and len(value) > self.size:
                    raise AudioError(f"{self.path}: is damaged (a value of {len(value)} bytes); get a whole copy of it")
                return None if value is None else bytes(value)
        except lmdb.Error as error:
            raise AudioError(f"{self.path}: is damaged ({error}); get a whole copy of it, or make it anew") from error


# LMDB refuses to open a file twice in a process, so that all readers of a file share its view.
_views: WeakValueDictionary[str, _View] = WeakValueDictionary()


def _view(path: str) -> _View:
    real = os.path.realpath(path)
    view = _views.get(real)
    if view is not None and view.pid != os.getpid():  # inherited by a fork: this process's copy of it is closed
        view.environment.close()
        view = None
    if view is None:
        view = _View(path)
        _views[real] = view
    return view


def _check_length(path: str, environment: Any) -> int:
    """The size of the file. One that is cut short is refused: reading past its end would end the process."""
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    size = Path(path).stat().st_size
    if size < needed:
        raise InputError(f"{path}: is cut short: it has {size} bytes of {needed}; get a whole copy of it")
    return size


def audio_key(utterance_id: str) -> bytes:
    """Under which an utterance's audio stands."""
    return b"audio/" + utterance_id.encode()


def import_lmdb() -> Any:
    """The package lmdb, which only those need who use such a file.

    Raises:
        InputError: it is not installed.
    """
    try:
        import lmdb
    except ImportError as error:
        raise InputError("lmdb is not installed; pip install lmdb") from error
    return lmdb


MAX_ID_BYTES = 500  # LMDB's keys have at most 511 bytes
_FIRST_MAP_BYTES = 2**28
_BATCH = 64


@dataclass(frozen=True)
class StoredAudio:
    """One recording for an LMDB.

    Args:
        utterance: its id is the key.
        encoded: its audio.
        extra: further fields of its record: JSON values, such as the RT60 of a room response.
    """

    utterance: Utterance
    encoded: Encoded
    extra: Mapping[str, Any] = field(default_factory=dict)


def write_lmdb(
    utterances: Sequence[Utterance],
    path: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    form: StoredFormat = "flac",
    all_channels: bool = False,
    threads: int = 1,
    overwrite: bool = False,
    on_skip: OnSkip | None = None,
    on_progress: OnProgress | None = None,
) -> int:
    """Write recordings as an LMDB file, whole or not at all.

    Args:
        utterances: at least one, with ids that differ.
        path: the file, `NAME.lmdb`.
        root: paths below it are written relative to it.
        form, all_channels: see `encode_utterance`.
        threads: how many recordings are encoded at once, at least 1.
        overwrite: whether an existing file is replaced.
        on_skip: called with each recording that cannot be read, which is then left out.
        on_progress: called with the number of recordings done and of all.

    Returns:
        How many recordings it holds.

    Raises:
        AudioError: a bad recording, and there is no `on_skip`.
        InputError: no recording that can be read, an id that comes twice or is longer than 500 bytes, or lmdb is not
            installed.
        OutputExistsError: the file exists, and `overwrite` is false.
    """
    check_unique(utterances)

    def load(utterance: Utterance) -> StoredAudio | AudioError:
        try:
            return StoredAudio(utterance, encode_utterance(utterance, form, all_channels))
        except AudioError as error:
            return error

    def encoded() -> Iterator[StoredAudio]:
        with ThreadPoolExecutor(threads) as pool:
            for first in range(0, len(utterances), _BATCH):
                some = utterances[first : first + _BATCH]
                for number, (utterance, loaded) in enumerate(zip(some, pool.map(load, some), strict=True), first + 1):
                    if isinstance(loaded, StoredAudio):
                        yield loaded
                    elif on_skip is None:
                        raise loaded
                    else:
                        on_skip(utterance.path, str(loaded))
                    if on_progress is not None:
                        on_progress(number, len(utterances))

    return write_lmdb_items(encoded(), path, root, overwrite)


def write_lmdb_items(
    items: Iterable[StoredAudio],
    path: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> int:
    """Write audio that is encoded already, such as room responses that were made, as an LMDB file.

    Args:
        items: at least one, with ids that differ; taken a few at a time.
        path, root, overwrite: as `write_lmdb`.

    Returns:
        How many it holds.

    Raises:
        InputError, OutputExistsError: as `write_lmdb`.
    """
    lmdb = import_lmdb()
    records: list[dict[str, Any]] = []
    seen: set[str] = set()
    iterator = iter(items)
    with _said_in_one_line(path, lmdb.Error), atomic_path(path, overwrite) as temporary:
        environment = lmdb.open(
            os.fspath(temporary), subdir=False, lock=False, map_size=_FIRST_MAP_BYTES, sync=False, metasync=False
        )
        try:
            while batch := list(islice(iterator, _BATCH)):
                for item in batch:
                    records.append(_record(item, root, seen, path))
                pairs = [(audio_key(item.utterance.utterance_id), item.encoded.data) for item in batch]
                _put(environment, pairs, lmdb.MapFullError)
            if not records:
                raise InputError(f"{path}: there is no recording that can be written")
            index = json.dumps({"format": LMDB_FORMAT, "utterances": records}, ensure_ascii=False, allow_nan=False)
            _put(environment, [(LMDB_INDEX_KEY, index.encode())], lmdb.MapFullError)
        finally:
            environment.close()
    return len(records)


@contextmanager
def _said_in_one_line(path: str | os.PathLike[str], kind: type[Exception]) -> Iterator[None]:
    """Turn an error of LMDB, such as of a full disk, into one that names the file that was to be written."""
    try:
        yield
    except kind as error:
        raise WesepError(f"{path}: writing failed ({error}); nothing was changed; make room on the disk") from error


def _put(environment: Any, pairs: list[tuple[bytes, bytes]], full: type[Exception]) -> None:
    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, value in pairs:
                    transaction.put(key, value)
            return
        except full:
            environment.set_mapsize(2 * environment.info()["map_size"])


def _record(
    item: StoredAudio, root: str | os.PathLike[str] | None, seen: set[str], path: str | os.PathLike[str]
) -> dict[str, Any]:
    name, encoded = item.utterance.utterance_id, item.encoded
    if name in seen:
        raise InputError(f"{path}: utterance_id {name!r} comes twice; it must be unique")
    if len(name.encode()) > MAX_ID_BYTES:
        raise InputError(f"{path}: utterance_id {name[:40]!r}… has {len(name.encode())} bytes; {MAX_ID_BYTES} fit")
    seen.add(name)
    facts = {"sample_rate": encoded.sample_rate, "num_samples": encoded.num_samples}
    return dict(item.extra) | utterance_to_record(item.utterance, root) | facts | {"crc32": zlib.crc32(encoded.data)}
