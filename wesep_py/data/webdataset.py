"""Tar shards in the webdataset layout, read from their beginning: of any origin, with or without an index.

Files that stand one after the other and share their name up to the first dot are one utterance. Its audio is the file
with the suffix of an audio format. Its speaker is `speaker_id` (or `speaker`, `spk`, `spk_id`) of `KEY.json`, or the
text of a file `KEY.spk`, or else what the key begins with (`speaker_of`). Other files are passed over.

Where several recordings share a key, as `spk1.utt1.wav` and `spk1.utt2.wav` do, and each has a speaker's file of its
own, `spk1.utt1.spk`, each is an utterance, named up to its last dot. Otherwise nobody can know which is meant, and the
key is named and left out. WeSep's shards of fixed mixtures hold no utterances and are refused (`premixed` reads them).
"""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from gzip import BadGzipFile, GzipFile
from io import BufferedReader
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from wesep_py.audio.reading import measure
from wesep_py.common.errors import AudioError, InputError
from wesep_py.common.names import is_hidden
from wesep_py.common.textfiles import parse_json
from wesep_py.data.corpora import AUDIO_SUFFIXES
from wesep_py.data.manifest import Utterance, speaker_of
from wesep_py.data.store import utterance_from_record

_GZIP = b"\x1f\x8b"
_TAR_END = bytes(2 * tarfile.BLOCKSIZE)
_SPEAKER_OF_MIXTURE = re.compile(r"\.spk\d+")
SPEAKER_NAMES = ("speaker_id", "speaker", "spk", "spk_id")


class ShardUtterance(NamedTuple):
    """An utterance of a shard: who speaks, its encoded audio, and where that lies in the tar file."""

    utterance: Utterance
    data: bytes
    sample_rate: int
    num_samples: int
    member: str
    offset: int


class ShardMember(NamedTuple):
    """A file of a shard: its name, what follows its first dot, its content, and where that lies in the tar file."""

    name: str
    suffix: str
    data: bytes
    offset: int


def read_shard_utterances(
    file: BinaryIO, place: str, on_skip: Callable[[str], None] | None = None
) -> Iterator[ShardUtterance]:
    """The utterances of a shard, in its order.

    Args:
        file: the tar file, as it is or compressed by gzip; it is read once from here to its end.
        place: its name, for messages; its stem is part of the ids of utterances that no JSON names.
        on_skip: called with a line for each utterance without readable audio or a speaker, which is then left out.

    Raises:
        AudioError: it is no tar file, is cut short, holds fixed mixtures, or an utterance is bad and there is no
            `on_skip`.
    """
    for name, group in groupby(read_shard_members(file, place), key=lambda found: _split(found.name)[0]):
        together = list(group)
        if mixed := [found for found in together if is_premixed(found.name)]:
            raise AudioError(
                f"{place}: holds {mixed[0].name!r}, as WeSep's shards of fixed mixtures do, and a mixture is no "
                "utterance; `wesep prepare premixed` makes a list of mixtures of it, for data.mixtures"
            )
        for key, files in _utterances(name, together).items():
            try:
                yield _item(key, files, place)
            except InputError as error:
                if on_skip is None:
                    raise AudioError(str(error)) from error
                on_skip(str(error))


def read_shard_members(file: BinaryIO, place: str) -> Iterator[ShardMember]:
    """Yield the files of a shard, in its order; hidden ones are passed over.

    Args:
        file: the tar file, as it is or compressed by gzip; it is read once from here to its end.
        place: its name, for messages.

    Raises:
        AudioError: it is no tar file, or is cut short.
    """
    buffered = BufferedReader(file)  # type: ignore[arg-type]
    compressed = buffered.peek(2)[:2] == _GZIP
    stream = _Stream(GzipFile(fileobj=buffered) if compressed else buffered)  # type: ignore[arg-type]
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:  # type: ignore[call-overload]
            yield from _files(tar)
        stream.check_end()
    except (tarfile.TarError, EOFError, BadGzipFile, zlib.error) as error:
        raise AudioError(f"{place}: is no tar file, or is cut short ({error}); get a whole copy of it") from error
    finally:
        with suppress(ValueError):  # whoever opened the file has closed it already
            buffered.detach()


class _Stream:
    """What a tar file is read from; it remembers the end, for tarfile itself accepts a file without one."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._end = b""

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._end = (self._end + data)[-len(_TAR_END) :]
        return data

    def check_end(self) -> None:
        while self.read(tarfile.RECORDSIZE):
            pass
        if self._end != _TAR_END:
            raise tarfile.ReadError("its end is missing")


def _files(tar: tarfile.TarFile) -> Iterator[ShardMember]:
    for member in tar:
        if is_hidden(PurePosixPath(member.name).name):
            continue
        content = tar.extractfile(member) if member.isfile() else None
        if content is None:
            continue
        data = content.read()
        if len(data) < member.size:
            raise tarfile.ReadError(f"{member.name} has {len(data)} bytes of {member.size}")
        yield ShardMember(member.name, _split(member.name)[1], data, member.offset_data)


def _split(name: str) -> tuple[str, str]:
    """`a/b.c.flac` is key `a/b` and suffix `.c.flac`."""
    path = PurePosixPath(name)
    stem, dot, suffix = path.name.partition(".")
    return str(path.with_name(stem)) if stem else name, dot + suffix.lower()


def is_premixed(name: str) -> bool:
    """True if a file of a shard names one of the speakers of a fixed mixture, as WeSep writes them.

    >>> is_premixed("84-1-2_61-3-4.spk1"), is_premixed("84-1-2.spk")
    (True, False)
    """
    return _SPEAKER_OF_MIXTURE.fullmatch(PurePosixPath(name).suffix) is not None


def _utterances(key: str, files: list[ShardMember]) -> dict[str, list[ShardMember]]:
    """The files of each utterance among those that share a key: one utterance, unless each recording has its own."""
    stems: dict[str, list[ShardMember]] = {}
    for file in files:
        path = PurePosixPath(file.name)
        stems.setdefault(str(path.with_suffix("")), []).append(file)
    suffixes = [{_last_suffix(file.name) for file in group} for group in stems.values()]
    recordings = sum(bool(found & AUDIO_SUFFIXES) for found in suffixes)
    each_told = all(not found & AUDIO_SUFFIXES or found & {".spk", ".json"} for found in suffixes)
    return stems if recordings > 1 and each_told else {key: files}


def _last_suffix(name: str) -> str:
    # A key of WeSpeaker's may have a suffix of its own: `00001.wav.spk` is the speaker of `00001.wav.wav`.
    return PurePosixPath(name).suffix.lower()


def _item(key: str, files: list[ShardMember], place: str) -> ShardUtterance:
    where = f"{place}: {key!r}"
    audio = [file for file in files if _last_suffix(file.name) in AUDIO_SUFFIXES]
    if not audio:
        raise InputError(f"{where}: has no audio ({', '.join(file.suffix for file in files)})")
    if len(audio) > 1:
        names = ", ".join(file.name for file in audio[:4]) + (", …" if len(audio) > 4 else "")
        raise InputError(
            f"{where}: is the key of {len(audio)} recordings ({names}), for a key ends at the first dot; give each a "
            "key without a dot, or a file with its speaker (NAME.spk or NAME.json)"
        )
    chosen = audio[0]
    rate, num_samples = measure(chosen.data, where)
    texts = {_last_suffix(file.name): file.data for file in files}
    facts = _facts(texts.get(".json"), where)
    utterance = _utterance(key, chosen, facts, texts, place, num_samples / rate)
    return ShardUtterance(utterance, chosen.data, rate, num_samples, chosen.name, chosen.offset)


def _facts(data: bytes | None, where: str) -> dict[str, Any]:
    if data is None:
        return {}
    facts = parse_json(data, f"{where}: its JSON cannot be read", "pack the shard anew")
    return facts if isinstance(facts, dict) else {}


def _utterance(
    key: str, audio: ShardMember, facts: dict[str, Any], texts: dict[str, bytes], place: str, duration_s: float
) -> Utterance:
    where = f"{place}: {key!r}"
    if {"utterance_id", "speaker_id", "path", "duration_s"} <= facts.keys():  # one of ours
        return utterance_from_record(facts, where)
    speaker = next((str(facts[name]) for name in SPEAKER_NAMES if facts.get(name) not in (None, "")), "")
    speaker = speaker or texts.get(".spk", b"").decode(errors="replace").strip()
    speaker = speaker or speaker_of(PurePosixPath(key).name) or ""
    if not speaker:
        raise InputError(f"{where}: does not say who speaks ({', '.join(SPEAKER_NAMES)} in its JSON, or a file .spk)")
    stem = place.rpartition("/")[2].partition(".")[0]
    named = Utterance("_".join(f"{stem}/{key}".split()), "_".join(speaker.split()), Path(stem) / audio.name, duration_s)
    gender = facts.get("gender")
    return named if not isinstance(gender, str) else replace(named, gender=gender)
