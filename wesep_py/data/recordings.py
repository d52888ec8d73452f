"""Recordings that a configuration names: speech by manifests and stores, noise also by files and folders.

- `read_speech`, `find_noises`: the utterances and noise recordings that names stand for.
- `perturb_speed`: the same utterances at other speeds, as further speakers.
- `is_store`, `open_store`, `open_reader`, `store_fingerprint`: shards and LMDB files in place of manifests.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from wesep_py.audio.reading import info
from wesep_py.common.errors import AudioError, InputError
from wesep_py.data.corpora import find_audio, read_kaldi
from wesep_py.data.keyed_lmdb import KeyedLMDB, is_keyed_lmdb
from wesep_py.data.lmdb_store import LMDBStore
from wesep_py.data.manifest import Utterance, is_file, read_manifest
from wesep_py.data.reader import FileReader, Reader, check_utf8_name
from wesep_py.data.recipe_lists import (
    base_of,
    holds_mixtures,
    is_data_folder,
    is_list,
    read_raw_utterances,
    read_recordings,
    read_spk2enroll,
)
from wesep_py.data.remote import is_url
from wesep_py.data.shard_store import SHARD_SUMMARY_NAME, ShardStore
from wesep_py.data.store import RoutedReader, Store, StoreReader

logger = logging.getLogger(__name__)
MANIFEST_SUFFIXES = (".jsonl", ".csv")


def read_speech(names: Sequence[str], root: Path | None = None) -> list[Utterance]:
    """Return the utterances of several manifests or stores.

    Args:
        names: manifests, folders of shards or LMDB files, relative to `root`, or URLs of folders of shards; data
            folders with `wav.scp` and `utt2spk`, and `raw.list` or `spk2enroll.json` of WeSep (`recipe_lists`).
        root: the folder that the names, and the paths inside the manifests, start from. `None`: names start from the
            working folder, and the paths inside a manifest from the manifest's folder.

    Raises:
        InputError: a manifest is missing or malformed, names no speakers, or an utterance is in two of them.
    """
    base = Path.cwd() if root is None else root
    for name in names:
        if is_keyed_lmdb(base / name):
            raise InputError(f"{base / name}: an LMDB of WeSep holds noise or room responses, and names no speakers")
    utterances = [utterance for name in names for utterance in _read_list(name, base, root)]
    utterance_ids: set[str] = set()
    for utterance in utterances:
        if utterance.utterance_id in utterance_ids:
            raise InputError(f"speech: utterance {utterance.utterance_id!r} is in two manifests; name it once")
        utterance_ids.add(utterance.utterance_id)
    return utterances


def find_noises(names: Sequence[str], root: Path) -> list[Utterance]:
    """Return noise recordings as utterances of a speaker `noise`.

    Args:
        names: manifests, LMDB files, folders of shards, audio files, or folders, relative to `root`. Of a folder, all
            audio files are used except unreadable ones, which the log names.
        root: the folder that names and paths start from.

    Raises:
        AudioError: an audio file that is named itself, or every file of a folder, cannot be read.
        InputError: a name stands for nothing, or a folder has no audio.
    """
    noises: list[Utterance] = []
    for name in names:
        path = root / name
        if path.suffix in MANIFEST_SUFFIXES or is_store(resolve_location(name, root)):
            noises.extend(_read_list(name, root, root))
            continue
        files = list(find_audio(path)) if path.is_dir() else [path]
        if not files or not all(map(is_file, files)):
            raise InputError(f"noise: {path} is neither a manifest, an audio file nor a folder with audio")
        num_unreadable = 0
        for file in files:
            try:
                check_utf8_name(file)
                duration_s = info(file).duration_s
            except AudioError as error:
                num_unreadable += 1
                if num_unreadable == len(files):
                    raise
                logger.warning("noise: left out of %s (%d so far): %s", path, num_unreadable, error)
                continue
            noises.append(Utterance(_noise_id(file, root), "noise", file, duration_s))
    return noises


def _noise_id(file: Path, root: Path) -> str:
    """Return `noise/` and the path below the root, without suffix and white space."""
    place = file.relative_to(root) if file.is_relative_to(root) else file
    return "noise/" + "/".join("_".join(part.split()) for part in place.with_suffix("").parts if part != "/")


def _read_list(name: str, base: Path, root: Path | None) -> list[Utterance]:
    location = resolve_location(name, base)
    if is_store(location):
        return open_store(location).utterances(root)
    path = base / name
    if is_data_folder(path):
        return _read_data_folder(path, root)
    if is_list(path):
        return read_raw_utterances(path, root)
    return read_spk2enroll(path, root) if path.suffix == ".json" else read_manifest(path, root)


def _read_data_folder(folder: Path, root: Path | None) -> list[Utterance]:
    """Return the single utterances of a folder with `wav.scp` and `utt2spk`."""
    if holds_mixtures(folder):
        raise InputError(
            f"{folder}: lists mixtures with their sources, and no single utterances; name it in data.mixtures.lists"
        )
    return read_kaldi(folder, base_of(folder / "wav.scp", next(iter(read_recordings(folder))), root))


def perturb_speed(utterances: Sequence[Utterance], speeds: Sequence[float]) -> list[Utterance]:
    """Return every utterance at every speed. At another speed than recorded, its speaker counts as another speaker.

    Tempo and pitch change together, as does everything that a voice is known by: Ko et al., "Audio augmentation for
    speech recognition" (Interspeech 2015); as further speakers: Yamamoto et al., "Speaker augmentation and bandwidth
    extension for deep speaker embedding" (Interspeech 2019).

    Args:
        utterances: as recorded.
        speeds: factors above 0, for example `[0.9, 1, 1.1]`, each once.

    Raises:
        InputError: no speed, a speed that is given twice, or one that is not above 0.

    >>> [u.speaker_id for u in perturb_speed([Utterance("a-1", "a", Path("1.wav"), 2.2)], [1, 1.1])]
    ['a', 'a@1.1']
    """
    if not speeds or len(set(speeds)) < len(speeds) or min(speeds) <= 0:
        raise InputError(
            f"speeds: is {list(speeds)}; factors above 0, each once, are needed, for example [0.9, 1, 1.1]"
        )
    perturbed = []
    for speed in speeds:
        if speed == 1:
            perturbed.extend(utterances)
            continue
        mark = f"@{speed:g}"
        perturbed.extend(
            replace(
                utterance,
                utterance_id=utterance.utterance_id + mark,
                speaker_id=utterance.speaker_id + mark,
                duration_s=utterance.duration_s / speed,
                speed=utterance.speed * speed,
            )
            for utterance in utterances
        )
    return perturbed


# Stores: a configuration may name a folder of shards, a URL of one, or an LMDB file in place of files.


def is_store(name: str | os.PathLike[str]) -> bool:
    """Return whether a name stands for a store: a folder with `shards.json` or `data.mdb`, a URL, or `*.lmdb`.

    >>> is_store("noise.lmdb"), is_store("s3://bucket/shards"), is_store("train.jsonl")
    (True, True, False)
    """
    path = Path(name)
    is_named_lmdb = path.suffix == ".lmdb"
    return is_url(name) or is_named_lmdb or (path / SHARD_SUMMARY_NAME).is_file() or is_keyed_lmdb(path)


def resolve_location(name: str, root: str | os.PathLike[str]) -> str:
    """Return the path or URL of a name in a configuration; relative paths start from `root`.

    >>> resolve_location("shards/train", "data"), resolve_location("s3://bucket/train", "data")
    ('data/shards/train', 's3://bucket/train')
    """
    return name if is_url(name) else (Path(root) / name).as_posix()


def open_store(name: str | os.PathLike[str]) -> Store:
    """Open the store of a name.

    Raises:
        InputError: there is no such store, or it is damaged or incomplete.
    """
    if is_url(name):
        return ShardStore(name)
    if is_keyed_lmdb(name):
        return KeyedLMDB(name)
    return LMDBStore(name) if Path(name).suffix == ".lmdb" else ShardStore(name)


def open_reader(
    names: Iterable[str | os.PathLike[str]], sample_rate: int, cache_mib: float = 512, further: Sequence[Store] = ()
) -> Reader:
    """Return a reader of the utterances in stores, and of files for all other utterances.

    Args:
        names: the stores among them are opened; other names are ignored.
        sample_rate: sample rate of the returned audio in Hz.
        cache_mib: size of all caches of decoded audio together, in MiB.
        further: stores that are open already.

    Raises:
        InputError: as `open_store`.
    """
    opened = [open_store(name) for name in dict.fromkeys(map(os.fspath, names)) if is_store(name)]
    stores = [*opened, *further]
    cache_share_mib = cache_mib / (len(stores) + 1)
    files = FileReader(sample_rate, cache_share_mib)
    if not stores:
        return files
    return RoutedReader([StoreReader(store, sample_rate, cache_share_mib) for store in stores], files)


def store_fingerprint(name: str | os.PathLike[str]) -> str:
    """Return a hash of the content of a store, from the checksums of its shards or its index; no audio is read.

    Raises:
        InputError: as `open_store`.
    """
    store = open_store(name)
    return hashlib.sha256(json.dumps(store.identity()).encode()).hexdigest()
