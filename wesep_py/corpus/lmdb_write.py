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
from typing import Any

from wesep_py.audio.encoded import Encoded
from wesep_py.corpus.durations import OnBad, OnProgress
from wesep_py.corpus.encoded import StoredFormat, encode_utterance
from wesep_py.corpus.lmdb_store import FORMAT, INDEX_KEY, audio_key, import_lmdb
from wesep_py.corpus.manifest import check_unique
from wesep_py.corpus.store import to_record
from wesep_py.corpus.utterance import Utterance
from wesep_py.errors import AudioError, InputError, WesepError
from wesep_py.files import atomic_path

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
    on_bad: OnBad | None = None,
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
        on_bad: called with each recording that cannot be read, which is then left out.
        on_progress: called with the number of recordings done and of all.

    Returns:
        How many recordings it holds.

    Raises:
        AudioError: a bad recording, and there is no `on_bad`.
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
                    elif on_bad is None:
                        raise loaded
                    else:
                        on_bad(utterance.path, str(loaded))
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
            index = json.dumps({"format": FORMAT, "utterances": records}, ensure_ascii=False, allow_nan=False)
            _put(environment, [(INDEX_KEY, index.encode())], lmdb.MapFullError)
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
    return dict(item.extra) | to_record(item.utterance, root) | facts | {"crc32": zlib.crc32(encoded.data)}
