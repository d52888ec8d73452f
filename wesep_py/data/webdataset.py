"""Tar shards in the webdataset layout: the utterances of any shard, also of other programs, read from its beginning.

Neighbouring files whose names are equal up to the first dot (the key) are one utterance:

    KEY.flac   its audio: the file whose suffix is that of an audio format
    KEY.json   may hold `speaker_id` (or `speaker`, `spk`, `spk_id`) and `gender`
    KEY.spk    may hold the speaker, as text

If neither names the speaker, it is the beginning of the key (`speaker_of`). Other files are ignored.

If several recordings share a key (`spk1.utt1.wav`, `spk1.utt2.wav`) and each has its own file for the speaker
(`spk1.utt1.spk`), each is an utterance, named up to its last dot. Otherwise the recordings cannot be told apart; the
key is reported and left out. WeSep's shards of fixed mixtures hold no utterances and are refused (`premixed` reads
them).
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

from wesep_py.audio.media import AUDIO_SUFFIXES
from wesep_py.audio.reading import probe_audio
from wesep_py.common.errors import AudioError, InputError
from wesep_py.common.names import is_hidden
from wesep_py.common.textfiles import parse_json
from wesep_py.data.manifest import Utterance, speaker_of
from wesep_py.data.store import utterance_from_record

SPEAKER_NAMES = ("speaker_id", "speaker", "spk", "spk_id")
_GZIP_MAGIC = b"\x1f\x8b"
_TAR_END = bytes(2 * tarfile.BLOCKSIZE)
_MIXTURE_SPEAKER = re.compile(r"\.spk\d+")


class ShardUtterance(NamedTuple):
    """An utterance of a shard: its speaker, its encoded audio, and the position of the audio in the tar file."""

    utterance: Utterance
    data: bytes
    sample_rate: int
    num_samples: int
    member: str
    offset: int


class ShardMember(NamedTuple):
    """A file of a shard: its name, the part from its first dot on, its content, and its position in the tar file."""

    name: str
    suffix: str
    data: bytes
    offset: int


def read_shard_utterances(
    file: BinaryIO, place: str, on_skip: Callable[[str], None] | None = None
) -> Iterator[ShardUtterance]:
    """Yield the utterances of a shard, in its order.

    Args:
        file: the tar file, plain or compressed by gzip; it is read once, from its position to its end.
        place: its name, for messages; its stem is part of the ids of utterances that no JSON names.
        on_skip: called with a line for each utterance without readable audio or a speaker; the utterance is skipped.

    Raises:
        AudioError: it is no tar file, is cut short, or holds fixed mixtures; or an utterance is unusable and `on_skip`
            is `None`.
    """
    for key, group in groupby(read_shard_members(file, place), key=lambda member: _split_at_first_dot(member.name)[0]):
        members = list(group)
        if mixture_members := [member for member in members if is_premixed(member.name)]:
            raise AudioError(
                f"{place}: holds {mixture_members[0].name!r}, as WeSep's shards of fixed mixtures do, and a mixture is "
                "no utterance; `wesep prepare premixed` makes a list of mixtures of it, for data.mixtures"
            )
        for utterance_key, utterance_members in _split_into_utterances(key, members).items():
            try:
                yield _shard_utterance(utterance_key, utterance_members, place)
            except InputError as error:
                if on_skip is None:
                    raise AudioError(str(error)) from error
                on_skip(str(error))


def read_shard_members(file: BinaryIO, place: str) -> Iterator[ShardMember]:
    """Yield the files of a shard, in its order, without hidden ones.

    Args:
        file: the tar file, plain or compressed by gzip; it is read once, from its position to its end.
        place: its name, for messages.

    Raises:
        AudioError: it is not a tar file, or is cut short.
    """
    buffered = BufferedReader(file)  # type: ignore[arg-type]
    is_compressed = buffered.peek(2)[:2] == _GZIP_MAGIC
    stream = _TarStream(GzipFile(fileobj=buffered) if is_compressed else buffered)  # type: ignore[arg-type]
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:  # type: ignore[call-overload]
            yield from _visible_members(tar)
        stream.check_end()
    except (tarfile.TarError, EOFError, BadGzipFile, zlib.error) as error:
        raise AudioError(f"{place}: is not a tar file, or is cut short ({error}); get a whole copy of it") from error
    finally:
        with suppress(ValueError):  # the caller may have closed the file already
            buffered.detach()


class _TarStream:
    """The stream that a tar file is read from. It keeps the last bytes: `tarfile` accepts a file without an end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._last_bytes = b""

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._last_bytes = (self._last_bytes + data)[-len(_TAR_END) :]
        return data

    def check_end(self) -> None:
        # A tar file ends with two blocks of zeros. Without them, the file was cut between two members.
        while self.read(tarfile.RECORDSIZE):
            pass
        if self._last_bytes != _TAR_END:
            raise tarfile.ReadError("its end is missing")


def _visible_members(tar: tarfile.TarFile) -> Iterator[ShardMember]:
    for member in tar:
        if is_hidden(PurePosixPath(member.name).name):
            continue
        content = tar.extractfile(member) if member.isfile() else None
        if content is None:
            continue
        data = content.read()
        if len(data) < member.size:
            raise tarfile.ReadError(f"{member.name} has {len(data)} bytes of {member.size}")
        yield ShardMember(member.name, _split_at_first_dot(member.name)[1], data, member.offset_data)


def _split_at_first_dot(name: str) -> tuple[str, str]:
    """Split the name of a file: `a/b.c.flac` is key `a/b` and suffix `.c.flac`."""
    path = PurePosixPath(name)
    stem, dot, suffix = path.name.partition(".")
    return str(path.with_name(stem)) if stem else name, dot + suffix.lower()


def is_premixed(name: str) -> bool:
    """Return whether a file of a shard names a speaker of a fixed mixture, as WeSep writes them.

    >>> is_premixed("84-1-2_61-3-4.spk1"), is_premixed("84-1-2.spk")
    (True, False)
    """
    return _MIXTURE_SPEAKER.fullmatch(PurePosixPath(name).suffix) is not None


def _split_into_utterances(key: str, members: list[ShardMember]) -> dict[str, list[ShardMember]]:
    """Return the files of each utterance among those with one key: one utterance, unless each recording has a speaker.

    spk1.utt1.wav, spk1.utt1.spk, spk1.utt2.wav, spk1.utt2.spk   →   spk1.utt1 and spk1.utt2
    spk1.near.wav, spk1.far.wav, spk1.json                       →   spk1 (which has two recordings: unusable)
    """
    by_last_dot: dict[str, list[ShardMember]] = {}
    for member in members:
        path = PurePosixPath(member.name)
        by_last_dot.setdefault(str(path.with_suffix("")), []).append(member)
    suffixes = [{_last_suffix(member.name) for member in group} for group in by_last_dot.values()]
    num_recordings = sum(not group.isdisjoint(AUDIO_SUFFIXES) for group in suffixes)
    each_has_speaker = all(group.isdisjoint(AUDIO_SUFFIXES) or group & {".spk", ".json"} for group in suffixes)
    return by_last_dot if num_recordings > 1 and each_has_speaker else {key: members}


def _last_suffix(name: str) -> str:
    # A key of WeSpeaker's may have a suffix of its own: `00001.wav.spk` is the speaker of `00001.wav.wav`.
    return PurePosixPath(name).suffix.lower()


def _shard_utterance(key: str, members: list[ShardMember], place: str) -> ShardUtterance:
    where = f"{place}: {key!r}"
    recordings = [member for member in members if _last_suffix(member.name) in AUDIO_SUFFIXES]
    if not recordings:
        raise InputError(f"{where}: has no audio ({', '.join(member.suffix for member in members)})")
    if len(recordings) > 1:
        names = ", ".join(member.name for member in recordings[:4]) + (", …" if len(recordings) > 4 else "")
        raise InputError(
            f"{where}: is the key of {len(recordings)} recordings ({names}): a key ends at the first dot; give each "
            "a key without a dot, or a file with its speaker (NAME.spk or NAME.json)"
        )
    recording = recordings[0]
    rate, num_samples = probe_audio(recording.data, where)
    contents = {_last_suffix(member.name): member.data for member in members}
    facts = _parse_facts(contents.get(".json"), where)
    utterance = _utterance_of(key, recording, facts, contents, place, num_samples / rate)
    return ShardUtterance(utterance, recording.data, rate, num_samples, recording.name, recording.offset)


def _parse_facts(data: bytes | None, where: str) -> dict[str, Any]:
    if data is None:
        return {}
    facts = parse_json(data, f"{where}: its JSON cannot be read", "pack the shard again")
    return facts if isinstance(facts, dict) else {}


def _utterance_of(
    key: str, recording: ShardMember, facts: dict[str, Any], contents: dict[str, bytes], place: str, duration_s: float
) -> Utterance:
    where = f"{place}: {key!r}"
    if {"utterance_id", "speaker_id", "path", "duration_s"} <= facts.keys():  # `write_shards` wrote it
        return utterance_from_record(facts, where)
    speaker = next((str(facts[name]) for name in SPEAKER_NAMES if facts.get(name) not in (None, "")), "")
    speaker = speaker or contents.get(".spk", b"").decode(errors="replace").strip()
    speaker = speaker or speaker_of(PurePosixPath(key).name) or ""
    if not speaker:
        raise InputError(f"{where}: does not say who speaks ({', '.join(SPEAKER_NAMES)} in its JSON, or a file .spk)")
    stem = place.rpartition("/")[2].partition(".")[0]
    utterance_id, speaker_id = "_".join(f"{stem}/{key}".split()), "_".join(speaker.split())
    utterance = Utterance(utterance_id, speaker_id, Path(stem) / recording.name, duration_s)
    gender = facts.get("gender")
    return replace(utterance, gender=gender) if isinstance(gender, str) else utterance
