"""From names in a configuration to recordings: speech by manifests, noise also by files and folders."""

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
from wesep_py.data.corpora import find_audio
from wesep_py.data.lmdb_store import LMDBStore
from wesep_py.data.manifest import Utterance, is_file, read_manifest
from wesep_py.data.reader import FileReader, Reader, check_utf8_name
from wesep_py.data.remote import is_url
from wesep_py.data.shard_store import SHARD_SUMMARY_NAME, ShardStore
from wesep_py.data.store import RoutedReader, Store, StoreReader

# ----------------------------------------
# What a configuration may name in place of files: a folder of shards, a URL of one, an LMDB file.


def is_store(name: str | os.PathLike[str]) -> bool:
    """Whether a name stands for recordings in a store: a folder with `shards.json`, a URL, or `*.lmdb`.

    >>> is_store("noise.lmdb"), is_store("s3://bucket/shards"), is_store("train.jsonl")
    (True, True, False)
    """
    path = Path(name)
    return is_url(name) or path.suffix == ".lmdb" or (path / SHARD_SUMMARY_NAME).is_file()


def resolve_location(name: str, root: str | os.PathLike[str]) -> str:
    """A name of a configuration as a path or URL: relative ones start from `root`.

    >>> resolve_location("shards/train", "data"), resolve_location("s3://bucket/train", "data")
    ('data/shards/train', 's3://bucket/train')
    """
    return name if is_url(name) else (Path(root) / name).as_posix()


def open_store(name: str | os.PathLike[str]) -> Store:
    """The store of a name.

    Raises:
        InputError: there is no such store, or it is damaged or incomplete.
    """
    return LMDBStore(name) if not is_url(name) and Path(name).suffix == ".lmdb" else ShardStore(name)


def open_reader(names: Iterable[str | os.PathLike[str]], sample_rate: int, cache_mib: float = 512) -> Reader:
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


def store_fingerprint(name: str | os.PathLike[str]) -> str:
    """A hash of what a store holds, without reading the audio: of the checksums of its shards, or of its index.

    Raises:
        InputError: as `open_store`.
    """
    store = open_store(name)
    return hashlib.sha256(json.dumps(store.identity()).encode()).hexdigest()


logger = logging.getLogger(__name__)
MANIFEST_SUFFIXES = (".jsonl", ".csv")


def read_speech(names: Sequence[str], root: Path | None = None) -> list[Utterance]:
    """The utterances of several manifests, or of stores.

    Args:
        names: manifests, folders of shards or LMDB files, relative to `root`, or URLs of folders of shards.
        root: a folder, from which paths inside the manifests start too; `None`: the working folder for the names, and
            each manifest's own folder for the paths inside it.

    Raises:
        InputError: a manifest is missing or malformed, or an utterance stands in two of them.
    """
    base = Path.cwd() if root is None else root
    utterances = [utterance for name in names for utterance in _read(name, base, root)]
    seen: set[str] = set()
    for utterance in utterances:
        if utterance.utterance_id in seen:
            raise InputError(f"speech: utterance {utterance.utterance_id!r} is in two manifests; name it once")
        seen.add(utterance.utterance_id)
    return utterances


def find_noises(names: Sequence[str], root: Path) -> list[Utterance]:
    """Noise recordings as utterances of a speaker `noise`.

    Args:
        names: manifests, LMDB files, folders of shards, audio files, or folders, all of whose audio files are taken
            but those that cannot be read, which the log names; relative to `root`.
        root: a folder.

    Raises:
        AudioError: an audio file that is named itself cannot be read, or none of a folder.
        InputError: a name that stands for nothing, or a folder without audio.
    """
    noises: list[Utterance] = []
    for name in names:
        path = root / name
        if path.suffix in MANIFEST_SUFFIXES or is_store(resolve_location(name, root)):
            noises.extend(_read(name, root, root))
            continue
        files = list(find_audio(path)) if path.is_dir() else [path]
        if not files or not all(map(is_file, files)):
            raise InputError(f"noise: {path} is no manifest, no audio file and no folder that holds any")
        left_out = 0
        for file in files:
            try:
                check_utf8_name(file)
                duration_s = info(file).duration_s
            except AudioError as error:
                left_out += 1
                if left_out == len(files):
                    raise
                logger.warning("noise: left out of %s (%d so far): %s", path, left_out, error)
                continue
            place = file.relative_to(root) if file.is_relative_to(root) else file
            noise_id = "noise/" + "/".join(
                "_".join(part.split()) for part in place.with_suffix("").parts if part != "/"
            )
            noises.append(Utterance(noise_id, "noise", file, duration_s))
    return noises


def _read(name: str, base: Path, root: Path | None) -> list[Utterance]:
    place = resolve_location(name, base)
    return open_store(place).utterances(root) if is_store(place) else read_manifest(base / name, root)


def perturb_speed(utterances: Sequence[Utterance], speeds: Sequence[float]) -> list[Utterance]:
    """Every utterance at every speed; at another speed than recorded, its speaker is another speaker.

    Tempo and pitch change together, as does everything that a voice is known by: Ko et al., "Audio augmentation for
    speech recognition" (Interspeech 2015); as further speakers: Yamamoto et al., "Speaker augmentation and bandwidth
    extension for deep speaker embedding" (Interspeech 2019).

    Args:
        utterances: as recorded.
        speeds: factors above 0, for example `[0.9, 1, 1.1]`, none twice.

    Raises:
        InputError: no speed, one that comes twice, or one that is not above 0.

    >>> [u.speaker_id for u in perturb_speed([Utterance("a-1", "a", Path("1.wav"), 2.2)], [1, 1.1])]
    ['a', 'a@1.1']
    """
    if not speeds or len(set(speeds)) < len(speeds) or min(speeds) <= 0:
        raise InputError(
            f"speeds: is {list(speeds)}; factors above 0, each once, are needed, for example [0.9, 1, 1.1]"
        )
    changed = []
    for speed in speeds:
        if speed == 1:
            changed.extend(utterances)
            continue
        mark = f"@{speed:g}"
        changed.extend(
            replace(
                utterance,
                utterance_id=utterance.utterance_id + mark,
                speaker_id=utterance.speaker_id + mark,
                duration_s=utterance.duration_s / speed,
                speed=utterance.speed * speed,
            )
            for utterance in utterances
        )
    return changed
