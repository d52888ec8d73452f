"""LMDB files: encoded audio in one file (noise, room responses, or any recordings) that many processes read at once.

    audio/<utterance_id>   the encoded audio of an utterance
    index.json             format version, and a record per utterance: its line of the manifest, sample rate, number of
                           samples, checksum, and further values that were given

Nothing in the file is ever unpickled.

- `LMDBStore`, `LMDBReader`: read such a file.
- `write_lmdb`, `write_lmdb_items`: write one, from recordings or from audio that is encoded already.
"""

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

from wesep_py.audio.reading import EncodedAudio
from wesep_py.common.errors import AudioError, InputError, WesepError, reason
from wesep_py.common.files import atomic_path
from wesep_py.common.names import canonical
from wesep_py.common.textfiles import parse_object
from wesep_py.data.manifest import Utterance, check_unique
from wesep_py.data.reader import OnProgress, OnSkip, StoredFormat, encode_utterance
from wesep_py.data.store import (
    StoreEntry,
    StoreReader,
    decode_checked,
    utterance_from_record,
    utterance_to_record,
)

LMDB_FORMAT = 1
LMDB_INDEX_KEY = b"index.json"
_MISSING = "lmdb is not installed; pip install lmdb"


class LMDBStore:
    """The encoded audio of an LMDB file, by utterance id. Opened read-only and without locks, once per process.

    Args:
        path: a file that `write_lmdb` or `write_lmdb_items` wrote.

    Attributes:
        records: by utterance id: the line of the manifest, sample rate, number of samples, and further values.

    Raises:
        InputError: no such file, not an LMDB file of this format, a damaged one, or lmdb is not installed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fspath(path)
        self._environment: LMDBEnvironment | None = None
        index = self._read_index()
        try:
            self.records = {canonical(record["utterance_id"]): record for record in index["utterances"]}
            self._entries = {name: StoreEntry.of(record) for name, record in self.records.items()}
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{self.name}: its index is damaged ({reason(error)}); get a whole copy of it") from error

    def entry(self, utterance_id: str) -> StoreEntry | None:
        """Return rate, number of samples and checksum of an utterance, or `None` if it is not in the store."""
        return self._entries.get(utterance_id)

    def data(self, utterance_id: str) -> bytes:
        """Return the encoded audio of an utterance.

        Raises:
            AudioError: the file is damaged.
        """
        # Looked up by the id as it was written: `records` has its Unicode spelling normalised.
        data = self._get(audio_key(self.records[utterance_id]["utterance_id"]))
        if data is None:
            raise AudioError(f"{self.name}: {utterance_id!r} is in its index only; `wesep lmdb` creates it again")
        return data

    def waveform(self, utterance_id: str) -> tuple[NDArray[np.float32], int]:
        """Return all channels of a recording, such as a room response, and its sample rate.

        Returns:
            float32 `[channels, samples]`, and the sample rate in Hz.

        Raises:
            AudioError: the content is damaged.
            InputError: the recording is not in the file.
        """
        entry = self.entry(utterance_id)
        if entry is None:
            raise InputError(f"{self.name}: holds no {utterance_id!r}")
        return decode_checked(self.data(utterance_id), entry, f"{self.name}: {utterance_id!r}")

    def utterances(self, root: str | os.PathLike[str] | None = None) -> list[Utterance]:
        """Return the index as a manifest: the utterances that were put into the file. Their files need not exist.

        Args:
            root: the folder that relative paths start from; `None` leaves them relative.
        """
        return [utterance_from_record(record, f"{self.name}: {name!r}", root) for name, record in self.records.items()]

    def identity(self) -> list[str]:
        """Return the record of each recording, including its checksum, as text."""
        return [json.dumps(record, sort_keys=True) for record in self.records.values()]

    def _read_index(self) -> dict[str, Any]:
        data = self._get(LMDB_INDEX_KEY)
        try:
            index = parse_object(data or b"", self.name).values
            version = index["format"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{self.name}: holds no index; `wesep lmdb` writes one") from error
        if version != LMDB_FORMAT:
            raise InputError(f"{self.name}: has format {version!r}; format {LMDB_FORMAT} is needed; create it again")
        return dict(index)

    def _get(self, key: bytes) -> bytes | None:
        if self._environment is None or self._environment.pid != os.getpid():
            self._environment = open_environment(self.name)
        return self._environment.get(key)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_environment": None}


class LMDBReader(StoreReader):
    """Reads utterances from an LMDB file; see `StoreReader`.

    Args:
        path: a file that `write_lmdb` wrote.
        sample_rate: sample rate of the returned audio in Hz.
        cache_mib: size of the cache of decoded audio in MiB.

    Raises:
        InputError: as `LMDBStore`.
    """

    def __init__(self, path: str | os.PathLike[str], sample_rate: int, cache_mib: float = 512) -> None:
        super().__init__(LMDBStore(path), sample_rate, cache_mib)


class LMDBEnvironment:
    """An LMDB file, opened by one process.

    Raises:
        InputError: there is no such file, it is damaged, or lmdb is not installed.
    """

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
        """Return the value of a key, or `None`.

        Raises:
            AudioError: the file is damaged.
        """
        return self.head(key, self.size)

    def head(self, key: bytes, count: int) -> bytes | None:
        """Return the first `count` bytes of the value of a key (all, if it has fewer), or `None`.

        Raises:
            AudioError: the file is damaged.
        """
        import lmdb

        try:
            with self.environment.begin(buffers=True) as transaction:
                value = transaction.get(key)
                # A damaged length must not be read: reading beyond the end of the mapped file kills the process.
                if value is not None and len(value) > self.size:
                    raise AudioError(f"{self.path}: is damaged (a value of {len(value)} bytes); get a whole copy of it")
                return None if value is None else bytes(value[:count])
        except lmdb.Error as error:
            raise AudioError(f"{self.path}: is damaged ({error}); get a whole copy, or create it again") from error

    def keys(self) -> list[bytes]:
        """Return all keys, sorted by their bytes.

        Raises:
            AudioError: the file is damaged.
        """
        import lmdb

        try:
            with self.environment.begin(buffers=True) as transaction, transaction.cursor() as cursor:
                return [bytes(key) for key in cursor.iternext(keys=True, values=False)]
        except lmdb.Error as error:
            raise AudioError(f"{self.path}: is damaged ({error}); get a whole copy, or create it again") from error


# LMDB refuses to open a file twice in a process, so that all stores of a file share its environment.
_environments: WeakValueDictionary[str, LMDBEnvironment] = WeakValueDictionary()


def open_environment(path: str) -> LMDBEnvironment:
    """Return the environment of an LMDB file; the users of a file in a process share it.

    Raises:
        InputError: as `LMDBEnvironment`.
    """
    real_path = os.path.realpath(path)
    environment = _environments.get(real_path)
    if environment is not None and environment.pid != os.getpid():  # inherited by a fork: close this process's copy
        environment.environment.close()
        environment = None
    if environment is None:
        environment = LMDBEnvironment(path)
        _environments[real_path] = environment
    return environment


def _check_length(path: str, environment: Any) -> int:
    """Return the size of the file. Refuse one that is cut short: reading beyond its end would kill the process."""
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    size = Path(path).stat().st_size
    if size < needed:
        raise InputError(f"{path}: is cut short: it has {size} bytes of {needed}; get a whole copy of it")
    return size


def audio_key(utterance_id: str) -> bytes:
    """Return the key under which an utterance's audio is stored."""
    return b"audio/" + utterance_id.encode()


def import_lmdb() -> Any:
    """Import and return the package lmdb, which only users of such files need.

    Raises:
        InputError: it is not installed.
    """
    try:
        import lmdb
    except ImportError as error:
        raise InputError(_MISSING) from error
    return lmdb


# Writing.

MAX_ID_BYTES = 500  # a key in LMDB has at most 511 bytes
# LMDB needs to know in advance how large a file may become; the limit is doubled whenever it is reached.
_FIRST_MAP_BYTES = 2**28
_BATCH_SIZE = 64


@dataclass(frozen=True)
class StoredAudio:
    """One recording for an LMDB file.

    Args:
        utterance: its id is the key.
        encoded: its audio.
        extra: further fields of its record: JSON values, such as the RT60 of a room response.
    """

    utterance: Utterance
    encoded: EncodedAudio
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
    """Write recordings as an LMDB file. The file appears complete or not at all.

    Args:
        utterances: at least one, with ids that differ.
        path: the file, `NAME.lmdb`.
        root: paths below it are written relative to it.
        form, all_channels: see `encode_utterance`.
        threads: number of recordings that are encoded at once, at least 1.
        overwrite: replace an existing file.
        on_skip: called with each recording that cannot be read; the recording is skipped.
        on_progress: called with the number of recordings done and the total number.

    Returns:
        The number of recordings in the file.

    Raises:
        AudioError: a recording cannot be read, and `on_skip` is `None`.
        InputError: no recording can be read, an id is used twice or is longer than 500 bytes, or lmdb is not installed.
        OutputExistsError: the file exists, and `overwrite` is false.
    """
    check_unique(utterances)

    def load(utterance: Utterance) -> StoredAudio | AudioError:
        try:
            return StoredAudio(utterance, encode_utterance(utterance, form, all_channels))
        except AudioError as error:
            return error

    def encoded_items() -> Iterator[StoredAudio]:
        with ThreadPoolExecutor(threads) as pool:
            for first in range(0, len(utterances), _BATCH_SIZE):
                batch = utterances[first : first + _BATCH_SIZE]
                for number, (utterance, loaded) in enumerate(zip(batch, pool.map(load, batch), strict=True), first + 1):
                    if isinstance(loaded, StoredAudio):
                        yield loaded
                    elif on_skip is None:
                        raise loaded
                    else:
                        on_skip(utterance.path, str(loaded))
                    if on_progress is not None:
                        on_progress(number, len(utterances))

    return write_lmdb_items(encoded_items(), path, root, overwrite)


def write_lmdb_items(
    items: Iterable[StoredAudio],
    path: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> int:
    """Write audio that is encoded already, such as computed room responses, as an LMDB file.

    Args:
        items: at least one, with ids that differ; taken a few at a time.
        path, root, overwrite: as `write_lmdb`.

    Returns:
        The number of items in the file.

    Raises:
        InputError, OutputExistsError: as `write_lmdb`.
    """
    lmdb = import_lmdb()
    records: list[dict[str, Any]] = []
    utterance_ids: set[str] = set()
    iterator = iter(items)
    with _naming_lmdb_errors(path, lmdb.Error), atomic_path(path, overwrite) as temporary:
        environment = lmdb.open(
            os.fspath(temporary), subdir=False, lock=False, map_size=_FIRST_MAP_BYTES, sync=False, metasync=False
        )
        try:
            while batch := list(islice(iterator, _BATCH_SIZE)):
                for item in batch:
                    records.append(_record_of(item, root, utterance_ids, path))
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
def _naming_lmdb_errors(path: str | os.PathLike[str], error_class: type[Exception]) -> Iterator[None]:
    """Turn an error of LMDB, such as a full disk, into one line that names the file to be written."""
    try:
        yield
    except error_class as error:
        raise WesepError(f"{path}: writing failed ({error}); nothing was changed; make room on the disk") from error


def _put(environment: Any, pairs: list[tuple[bytes, bytes]], map_full_error: type[Exception]) -> None:
    """Write keys and values in one transaction, and repeat it with a larger map if the map is full."""
    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, value in pairs:
                    transaction.put(key, value)
            return
        except map_full_error:
            environment.set_mapsize(2 * environment.info()["map_size"])


def _record_of(
    item: StoredAudio, root: str | os.PathLike[str] | None, utterance_ids: set[str], path: str | os.PathLike[str]
) -> dict[str, Any]:
    """Return the record of an item, and add its id to those that are used."""
    utterance_id, encoded = item.utterance.utterance_id, item.encoded
    if utterance_id in utterance_ids:
        raise InputError(f"{path}: utterance_id {utterance_id!r} comes twice; it must be unique")
    num_bytes = len(utterance_id.encode())
    if num_bytes > MAX_ID_BYTES:
        raise InputError(f"{path}: utterance_id {utterance_id[:40]!r}… has {num_bytes} bytes; {MAX_ID_BYTES} fit")
    utterance_ids.add(utterance_id)
    facts = {"sample_rate": encoded.sample_rate, "num_samples": encoded.num_samples}
    return dict(item.extra) | utterance_to_record(item.utterance, root) | facts | {"crc32": zlib.crc32(encoded.data)}
