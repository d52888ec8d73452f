"""What a configuration may name in place of files: a folder of shards, a URL of one, an LMDB file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from wesep_py.corpus.lmdb_store import LMDBStore
from wesep_py.corpus.reader import FileReader, Reader
from wesep_py.corpus.remote import is_url
from wesep_py.corpus.shard_store import SUMMARY_NAME, ShardStore
from wesep_py.corpus.store import RoutedReader, Store, StoreReader


def is_store(name: str | os.PathLike[str]) -> bool:
    """Whether a name stands for recordings in a store: a folder with `shards.json`, a URL, or `*.lmdb`.

    >>> is_store("noise.lmdb"), is_store("s3://bucket/shards"), is_store("train.jsonl")
    (True, True, False)
    """
    path = Path(name)
    return is_url(name) or path.suffix == ".lmdb" or (path / SUMMARY_NAME).is_file()


def locate(name: str, root: str | os.PathLike[str]) -> str:
    """A name of a configuration as a path or URL: relative ones start from `root`.

    >>> locate("shards/train", "data"), locate("s3://bucket/train", "data")
    ('data/shards/train', 's3://bucket/train')
    """
    return name if is_url(name) else (Path(root) / name).as_posix()


def open_store(name: str | os.PathLike[str]) -> Store:
    """The store of a name.

    Raises:
        InputError: there is no such store, or it is damaged or incomplete.
    """
    return LMDBStore(name) if not is_url(name) and Path(name).suffix == ".lmdb" else ShardStore(name)


def reader_of(names: Iterable[str | os.PathLike[str]], sample_rate: int, cache_mib: float = 512) -> Reader:
    """A reader of what stands in stores, and of files for all else.

    Args:
        names: the stores among them are opened; other names are passed over.
        sample_rate: rate of what it gives in Hz.
        cache_mib: how much decoded audio is kept, in MiB, over all.

    Raises:
        InputError: as `open_store`.
    """
    stores = [open_store(name) for name in dict.fromkeys(map(os.fspath, names)) if is_store(name)]
    share = cache_mib / (len(stores) + 1)
    if not stores:
        return FileReader(sample_rate, cache_mib)
    return RoutedReader([StoreReader(store, sample_rate, share) for store in stores], FileReader(sample_rate, share))


def fingerprint(name: str | os.PathLike[str]) -> str:
    """A hash of what a store holds, without reading the audio: of the checksums of its shards, or of its index.

    Raises:
        InputError: as `open_store`.
    """
    store = open_store(name)
    return hashlib.sha256(json.dumps(store.identity()).encode()).hexdigest()
