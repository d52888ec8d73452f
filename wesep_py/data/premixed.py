"""WeSep's shards of fixed mixtures, unpacked as a rendered tree with a list of mixtures.

In such a shard (https://github.com/wenet-e2e/wesep) a mixture is `KEY.wav`, its sources are `KEY_spk1.wav`,
`KEY_spk2.wav`, …, and the names of their speakers are the texts `KEY.spk1`, `KEY.spk2`, …. They become

    DIR/mix_clean/KEY.wav (mix_both with noise)   the mixture, copied byte by byte
    DIR/s1/KEY.wav, s2/KEY.wav, …                 its sources, copied likewise
    DIR/noise/KEY.wav                             the residual: mixture minus sources, if it is not just rounding
    DIR/mixture_premixed.csv                      LibriMix's columns, utterances and speakers; written last
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from wesep_py.audio.media import AUDIO_SUFFIXES
from wesep_py.audio.reading import decode_audio
from wesep_py.audio.writing import write
from wesep_py.common.errors import AudioError, InputError, OutputExistsError
from wesep_py.common.files import atomic_path, write_text
from wesep_py.common.folders import one_run_in, visible_names
from wesep_py.common.names import canonical, file_name
from wesep_py.data.mixture_lists import MIXTURE_FOLDERS, source_ids
from wesep_py.data.reader import OnProgress
from wesep_py.data.shard_stream import open_shard
from wesep_py.data.webdataset import ShardMember, is_premixed, read_shard_members

PREMIXED_LIST_NAME = "mixture_premixed.csv"
ROUNDING_PEAK = 4e-4
"""Largest residual that rounding to 16 bits leaves between a mixture and the sum of some sources."""
SOURCE_NAME = re.compile(r"(?P<key>.+)_spk(?P<number>\d+)")
"""Name, without suffix, of the file of a source."""
_TREE_FOLDERS = re.compile(r"s\d+|noise|mix_clean|mix_both")


@dataclass(frozen=True)
class PremixedResult:
    """Summary of unpacked mixtures.

    Attributes:
        num_mixtures: mixtures in the list.
        num_speakers: speakers in the list.
        left_out: a line for each mixture that cannot be used.
    """

    num_mixtures: int
    num_speakers: int
    left_out: tuple[str, ...]


def unpack_premixed(
    shards: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> PremixedResult:
    """Unpack WeSep's shards of fixed mixtures as a tree with a list that `data.mixtures` and `evaluate` take.

    Args:
        shards: the tar files, at least one.
        folder: created if it does not exist; its parent must exist. Files of an interrupted run are kept.
        overwrite: write over the files of an earlier run.
        on_progress: called with the number of shards done and the total number.

    Raises:
        InputError: the shards hold no mixture, a key is used twice, or the folder holds other files.
        OutputExistsError: the folder has its list, and `overwrite` is false.
        AudioError: a shard is missing, no tar file, or cut short.
    """
    folder = Path(folder)
    _check_folder(folder, overwrite)
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    shard_of_name: dict[str, str] = {}
    with _removed_if_empty(folder), one_run_in(folder, "unpacking mixtures"):
        for done, shard in enumerate(map(os.fspath, shards), start=1):
            for key, mixture in _read_mixtures(shard, left_out):
                name = file_name(key)
                if name in shard_of_name:
                    raise InputError(f"{shard}: mixture {key!r} is in {shard_of_name[name]} already; it must be unique")
                shard_of_name[name] = shard
                try:
                    rows.append(_unpack_mixture(key, name, mixture, folder, overwrite))
                except AudioError as error:
                    left_out.append(str(error))
            if on_progress is not None:
                on_progress(done, len(shards))
        if not rows:
            first = f"; the first: {left_out[0]}" if left_out else ""
            raise InputError(
                f"{folder}: the shards hold no mixture of WeSep's (KEY.spk1, KEY_spk1.wav, KEY.wav){first}"
            )
        write_text(folder / PREMIXED_LIST_NAME, _list_as_csv(rows), overwrite=True)
    speakers = {value for row in rows for column, value in row.items() if column.endswith("_speaker_id")}
    return PremixedResult(len(rows), len(speakers), tuple(left_out))


@contextmanager
def _removed_if_empty(folder: Path) -> Iterator[None]:
    """Remove a folder that was created in vain, because nothing could be unpacked."""
    existed = folder.is_dir()
    try:
        yield
    finally:
        if not existed:
            with suppress(OSError):
                folder.rmdir()


def _check_folder(folder: Path, overwrite: bool) -> None:
    if folder.is_file():
        raise InputError(f"{folder}: is a file; name a folder")
    if not folder.parent.is_dir():
        raise InputError(f"{folder}: the folder {folder.parent} does not exist; create it first")
    names = visible_names(folder)
    if foreign := [name for name in names if name != PREMIXED_LIST_NAME and not _TREE_FOLDERS.fullmatch(name)]:
        raise InputError(
            f"{folder}: holds {foreign[0]!r}, which does not belong to unpacked mixtures; name an empty folder"
        )
    if (folder / PREMIXED_LIST_NAME).exists() and not overwrite:
        raise OutputExistsError(
            f"{folder / PREMIXED_LIST_NAME}: exists already; name another folder, or pass --overwrite"
        )


@dataclass
class _PremixedMixture:
    """The files of a mixture that have been read so far."""

    shard: str
    mixture: ShardMember | None = None
    sources: dict[int, ShardMember] = field(default_factory=dict)
    speakers: dict[int, str] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return self.mixture is not None and bool(self.speakers) and self.speakers.keys() == self.sources.keys()


def _read_mixtures(shard: str, left_out: list[str]) -> Iterator[tuple[str, _PremixedMixture]]:
    """Yield the mixtures of a shard, each as soon as all its files have been read. Incomplete ones are named last."""
    incomplete: dict[str, _PremixedMixture] = {}
    with open_shard(shard) as file:
        for member in read_shard_members(file, shard):
            path = PurePosixPath(member.name)
            is_audio = path.suffix.lower() in AUDIO_SUFFIXES
            source = SOURCE_NAME.fullmatch(path.stem) if is_audio else None
            if not is_audio and not is_premixed(member.name):
                continue
            stem = source["key"] if source else path.stem
            key = canonical(str(path.with_name(stem)))
            mixture = incomplete.setdefault(key, _PremixedMixture(shard))
            if source is not None:
                mixture.sources[int(source["number"])] = member
            elif is_audio:
                mixture.mixture = member
            else:
                name = "_".join(member.data.decode(errors="replace").split())
                mixture.speakers[int(path.suffix.removeprefix(".spk"))] = name
            if mixture.is_complete:
                yield key, incomplete.pop(key)
    for key, mixture in incomplete.items():
        missing = "no mixture" if mixture.mixture is None else "not the same speakers as sources"
        left_out.append(f"{shard}: {key!r}: has {missing} (KEY.wav, KEY.spk1, KEY_spk1.wav, …)")


def _unpack_mixture(key: str, name: str, files: _PremixedMixture, folder: Path, overwrite: bool) -> dict[str, Any]:
    """Write the files of a mixture, and return its row of the list.

    Raises:
        AudioError: audio cannot be decoded, or two sources have one speaker.
    """
    assert files.mixture is not None
    where = f"{files.shard}: {key!r}"
    numbers = sorted(files.speakers)
    speakers = [files.speakers[number] for number in numbers]
    if "" in speakers or len(set(speakers)) < len(speakers):
        raise AudioError(f"{where}: its speakers are {', '.join(map(repr, speakers))}; they must have names and differ")
    members = (files.mixture, *(files.sources[number] for number in numbers))
    decoded = [decode_audio(member.data, where) for member in members]
    if len({rate for _, rate in decoded}) > 1:
        raise AudioError(f"{where}: its files have different sample rates")
    mixture, *sources = [waveform[0] for waveform, _ in decoded]
    shortest = min(map(len, (mixture, *sources)))
    residual = mixture[:shortest] - np.sum([source[:shortest] for source in sources], axis=0)
    has_noise = float(np.abs(residual).max(initial=0.0)) > ROUNDING_PEAK
    subfolders = [MIXTURE_FOLDERS["noisy" if has_noise else "clean"], *(f"s{k}" for k in range(1, len(sources) + 1))]
    paths = [
        f"{subfolder}/{name}{PurePosixPath(member.name).suffix.lower()}"
        for subfolder, member in zip(subfolders, members, strict=True)
    ]
    for path, member in zip(paths, members, strict=True):
        _write_copy(folder / path, member.data, overwrite)
    mixture_path, *source_paths = paths
    row: dict[str, Any] = {"mixture_ID": key, "mixture_path": mixture_path, "length": len(mixture)}
    if has_noise:
        row["noise_path"] = f"noise/{name}.wav"
        noise_file = folder / row["noise_path"]
        if overwrite or not noise_file.exists():
            noise_file.parent.mkdir(exist_ok=True)
            write(noise_file, residual.astype(np.float32), decoded[0][1], "FLOAT", overwrite=True)
    utterance_ids = source_ids(key, [Path(key)] * len(source_paths))
    if len(set(utterance_ids)) < len(utterance_ids):  # the key does not consist of the utterances' ids
        utterance_ids = [f"{key}-s{k}" for k in range(1, len(source_paths) + 1)]
    sources_of_row = zip(source_paths, utterance_ids, speakers, strict=True)
    for k, (source_path, utterance_id, speaker_id) in enumerate(sources_of_row, start=1):
        row |= {
            f"source_{k}_path": source_path,
            f"source_{k}_utterance_id": utterance_id,
            f"source_{k}_speaker_id": speaker_id,
        }
    return row


def _write_copy(path: Path, data: bytes, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        return
    path.parent.mkdir(exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _list_as_csv(rows: Sequence[dict[str, Any]]) -> str:
    max_sources = max(sum(column.endswith("_speaker_id") for column in row) for row in rows)
    numbers = range(1, max_sources + 1)
    columns = ["mixture_ID", "mixture_path", *(f"source_{k}_path" for k in numbers), "noise_path", "length"]
    columns += [f"source_{k}_{what}" for what in ("utterance_id", "speaker_id") for k in numbers]
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()
