"""WeSep's shards of fixed mixtures, unpacked as a tree with a list of mixtures.

A mixture of such a shard (https://github.com/wenet-e2e/wesep) is `KEY.wav`, its sources are `KEY_spk1.wav`,
`KEY_spk2.wav`, …, and the names of their speakers, as text, `KEY.spk1`, `KEY.spk2`, ….

    DIR/mix_clean/KEY.wav (mix_both with noise)   the mixture, byte by byte
    DIR/s1/KEY.wav, s2/KEY.wav, …                 its sources, likewise
    DIR/noise/KEY.wav                             what the mixture holds besides them, if anything
    DIR/mixture_premixed.csv                      LibriMix's columns, utterances and speakers; written last
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from wesep_py.audio.reading import decode
from wesep_py.audio.writing import write
from wesep_py.common.errors import AudioError, InputError, OutputExistsError
from wesep_py.common.files import atomic_path, write_text
from wesep_py.common.folders import one_run_in, visible_names
from wesep_py.common.names import canonical, file_name
from wesep_py.data.corpora import AUDIO_SUFFIXES
from wesep_py.data.mixture_lists import MIXTURE_FOLDERS, source_ids
from wesep_py.data.shard_stream import open_shard
from wesep_py.data.webdataset import ShardMember, is_premixed, read_shard_members

PREMIXED_LIST_NAME = "mixture_premixed.csv"
NOISE_PEAK = 4e-4
"""Largest sample that rounding to 16 bits leaves between a mixture and the sum of some sources."""
_SOURCE = re.compile(r"(?P<key>.+)_spk(?P<number>\d+)")
_PARTS = re.compile(r"s\d+|noise|mix_clean|mix_both")


@dataclass(frozen=True)
class PremixedResult:
    """What `unpack_premixed` did.

    Attributes:
        num_mixtures: in the list.
        num_speakers: in the list.
        left_out: a line for each mixture that cannot be used.
    """

    num_mixtures: int
    num_speakers: int
    left_out: tuple[str, ...]


@dataclass
class _Mixture:
    """A mixture as far as its files have come."""

    shard: str
    mixture: ShardMember | None = None
    sources: dict[int, ShardMember] = field(default_factory=dict)
    speakers: dict[int, str] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return self.mixture is not None and bool(self.speakers) and self.speakers.keys() == self.sources.keys()


def unpack_premixed(
    shards: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> PremixedResult:
    """Unpack WeSep's shards of fixed mixtures as a tree with a list that `data.mixtures` and `evaluate` take.

    Args:
        shards: the tar files, at least one.
        folder: made if need be; its parent must exist. What an interrupted run unpacked stays.
        overwrite: write over what an earlier run unpacked.
        on_progress: called with the number of shards done and of all.

    Raises:
        InputError: no mixture in the shards, a key that comes twice, or a folder that holds something else.
        OutputExistsError: the folder has its list, and `overwrite` is false.
        AudioError: a shard that is missing, no tar file, or cut short.
    """
    folder = Path(folder)
    _check_folder(folder, overwrite)
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    names: dict[str, str] = {}
    with _removed_if_empty(folder), one_run_in(folder, "unpacking mixtures"):
        for done, shard in enumerate(map(os.fspath, shards), start=1):
            for key, mixture in _read(shard, left_out):
                name = file_name(key)
                if name in names:
                    raise InputError(f"{shard}: mixture {key!r} is in {names[name]} already; it must be unique")
                names[name] = shard
                try:
                    rows.append(_unpack(key, name, mixture, folder, overwrite))
                except AudioError as error:
                    left_out.append(str(error))
            if on_progress is not None:
                on_progress(done, len(shards))
        if not rows:
            first = f"; the first: {left_out[0]}" if left_out else ""
            raise InputError(
                f"{folder}: the shards hold no mixture of WeSep's (KEY.spk1, KEY_spk1.wav, KEY.wav){first}"
            )
        write_text(folder / PREMIXED_LIST_NAME, _csv(rows), overwrite=True)
    speakers = {value for row in rows for name, value in row.items() if name.endswith("_speaker_id")}
    return PremixedResult(len(rows), len(speakers), tuple(left_out))


@contextmanager
def _removed_if_empty(folder: Path) -> Iterator[None]:
    """Leave no empty folder behind where nothing could be unpacked."""
    was_there = folder.is_dir()
    try:
        yield
    finally:
        if not was_there:
            with suppress(OSError):
                folder.rmdir()


def _check_folder(folder: Path, overwrite: bool) -> None:
    if folder.is_file():
        raise InputError(f"{folder}: is a file; name a folder")
    if not folder.parent.is_dir():
        raise InputError(f"{folder}: the folder {folder.parent} does not exist; create it first")
    if strange := [name for name in visible_names(folder) if name != PREMIXED_LIST_NAME and not _PARTS.fullmatch(name)]:
        raise InputError(f"{folder}: holds {strange[0]!r}, which is of no unpacked mixtures; name an empty folder")
    if (folder / PREMIXED_LIST_NAME).exists() and not overwrite:
        raise OutputExistsError(
            f"{folder / PREMIXED_LIST_NAME}: exists already; name another folder, or pass --overwrite"
        )


def _read(shard: str, left_out: list[str]) -> Iterator[tuple[str, _Mixture]]:
    """The mixtures of a shard, each as soon as all of its files have come; what is not whole is named at the end."""
    begun: dict[str, _Mixture] = {}
    with open_shard(shard) as file:
        for found in read_shard_members(file, shard):
            path = PurePosixPath(found.name)
            is_audio = path.suffix.lower() in AUDIO_SUFFIXES
            source = _SOURCE.fullmatch(path.stem) if is_audio else None
            if not is_audio and not is_premixed(found.name):
                continue
            stem = source["key"] if source else path.stem
            key = canonical(str(path.with_name(stem)))
            mixture = begun.setdefault(key, _Mixture(shard))
            if source is not None:
                mixture.sources[int(source["number"])] = found
            elif is_audio:
                mixture.mixture = found
            else:
                name = "_".join(found.data.decode(errors="replace").split())
                mixture.speakers[int(path.suffix.removeprefix(".spk"))] = name
            if mixture.is_complete:
                yield key, begun.pop(key)
    for key, mixture in begun.items():
        missing = "no mixture" if mixture.mixture is None else "not the same speakers as sources"
        left_out.append(f"{shard}: {key!r}: has {missing} (KEY.wav, KEY.spk1, KEY_spk1.wav, …)")


def _unpack(key: str, name: str, parts: _Mixture, folder: Path, overwrite: bool) -> dict[str, Any]:
    """Write the files of a mixture; its row of the list.

    Raises:
        AudioError: audio that cannot be decoded, or two sources of one speaker.
    """
    assert parts.mixture is not None
    where = f"{parts.shard}: {key!r}"
    numbers = sorted(parts.speakers)
    speakers = [parts.speakers[number] for number in numbers]
    if "" in speakers or len(set(speakers)) < len(speakers):
        raise AudioError(
            f"{where}: its speakers are {', '.join(map(repr, speakers))}; they have to have names and differ"
        )
    decoded = [decode(file.data, where) for file in (parts.mixture, *(parts.sources[number] for number in numbers))]
    if len({rate for _, rate in decoded}) > 1:
        raise AudioError(f"{where}: its files have different sample rates")
    mixture, *sources = [waveform[0] for waveform, _ in decoded]
    shortest = min(map(len, (mixture, *sources)))
    rest = mixture[:shortest] - np.sum([source[:shortest] for source in sources], axis=0)
    has_noise = float(np.abs(rest).max(initial=0.0)) > NOISE_PEAK
    files = {MIXTURE_FOLDERS["noisy" if has_noise else "clean"]: parts.mixture}
    files |= {f"s{k}": parts.sources[number] for k, number in enumerate(numbers, start=1)}
    paths = {part: f"{part}/{name}{PurePosixPath(file.name).suffix.lower()}" for part, file in files.items()}
    for part, file in files.items():
        _write(folder / paths[part], file.data, overwrite)
    mixed, *images = paths.values()
    row: dict[str, Any] = {"mixture_ID": key, "mixture_path": mixed, "length": len(mixture)}
    if has_noise:
        row["noise_path"] = f"noise/{name}.wav"
        noise = folder / row["noise_path"]
        if overwrite or not noise.exists():
            noise.parent.mkdir(exist_ok=True)
            write(noise, rest.astype(np.float32), decoded[0][1], "FLOAT", overwrite=True)
    ids = source_ids(key, [Path(key)] * len(images))
    if len(set(ids)) < len(ids):  # the key is not made of the utterances' names
        ids = [f"{key}-s{k}" for k in range(1, len(images) + 1)]
    for k, (image, utterance_id, speaker_id) in enumerate(zip(images, ids, speakers, strict=True), start=1):
        row |= {
            f"source_{k}_path": image,
            f"source_{k}_utterance_id": utterance_id,
            f"source_{k}_speaker_id": speaker_id,
        }
    return row


def _write(path: Path, data: bytes, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        return
    path.parent.mkdir(exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    most = max(sum(name.endswith("_speaker_id") for name in row) for row in rows)
    numbers = range(1, most + 1)
    columns = ["mixture_ID", "mixture_path", *(f"source_{k}_path" for k in numbers), "noise_path", "length"]
    columns += [f"source_{k}_{what}" for what in ("utterance_id", "speaker_id") for k in numbers]
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()
