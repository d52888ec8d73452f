"""WeSep's shards of fixed mixtures, read in place: the mixtures of tar files, and a store of their sources.

In such a shard a mixture is `KEY.wav`, its sources are `KEY_spk1.wav`, `KEY_spk2.wav`, …, and the names of their
speakers are the texts `KEY.spk1`, `KEY.spk2`, …. The headers of a tar file are read once; the audio is read from its
position when it is needed. `premixed` unpacks the same shards as files.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from wesep_py.audio.media import AUDIO_SUFFIXES
from wesep_py.audio.reading import decode_audio, encode_audio
from wesep_py.common.errors import AudioError, InputError, quoted
from wesep_py.common.names import canonical, is_hidden
from wesep_py.data.manifest import Utterance
from wesep_py.data.premixed import SOURCE_NAME
from wesep_py.data.remote import is_url
from wesep_py.data.shard_stream import open_shard
from wesep_py.data.store import StoreEntry, probe_encoded
from wesep_py.data.webdataset import is_premixed

logger = logging.getLogger(__name__)
HEAD_BYTES = 4096
"""Bytes at the start of a recording from which its length is read, if its header is there."""


class _Member(NamedTuple):
    """A file of a shard: the shard, its name, the first byte and the number of bytes."""

    shard: str
    name: str
    offset: int
    size: int


@dataclass
class _Files:
    """The files of a mixture."""

    shard: str
    mixture: _Member | None = None
    sources: dict[int, _Member] = field(default_factory=dict)
    speakers: dict[int, str] = field(default_factory=dict)


class ShardMixture(NamedTuple):
    """A mixture of the shards: its key, its sources and their speakers, its shard, and the id of its noise."""

    mixture_id: str
    sources: tuple[Utterance, ...]
    noise_id: str
    shard: str


class MixtureShards:
    """The sources of fixed mixtures in tar files, by utterance id; a `Store`.

    A source is the utterance `KEY-s1`, `KEY-s2`, …. `KEY-noise` is the mixture without its sources, which is computed
    when it is read.

    Args:
        shards: paths of uncompressed tar files.
        name: of the whole, for messages.

    Attributes:
        mixtures: in the order of the shards.
        left_out: a line for each key that is no complete mixture; the log names the first.

    Raises:
        InputError: the shards hold single utterances, or no mixture; a key is used twice; a shard is a URL or
            compressed.
        AudioError: a shard is missing or cut short, or a source is no audio.
    """

    def __init__(self, shards: Sequence[str | os.PathLike[str]], name: str | os.PathLike[str]) -> None:
        self.name = os.fspath(name)
        self._shards = tuple(map(os.fspath, shards))
        self._members: dict[str, _Member] = {}
        self._files: dict[str, _Files] = {}
        self._entries: dict[str, StoreEntry] = {}
        self.left_out: list[str] = []
        self.mixtures = [mixture for shard in self._shards for mixture in self._read(shard)]
        if self.mixtures and self.left_out:
            logger.warning("%s: %d keys are left out, the first: %s", name, len(self.left_out), self.left_out[0])
        if not self.mixtures:
            first = f"; the first: {self.left_out[0]}" if self.left_out else ""
            raise InputError(f"{self.name}: its shards hold no mixture of WeSep's (KEY.spk1, KEY_spk1.wav){first}")

    def entry(self, utterance_id: str) -> StoreEntry | None:
        """Return rate and number of samples of a source or a noise, or `None` if it is not in the shards."""
        if utterance_id not in self._entries:
            if utterance_id in self._members:
                self._entries[utterance_id] = self._probe(self._members[utterance_id])
            elif utterance_id in self._files:
                members = self._parts(utterance_id)
                entries = [self._probe(member) for member in members]
                self._entries[utterance_id] = entries[0]._replace(num_samples=min(e.num_samples for e in entries))
            else:
                return None
        return self._entries[utterance_id]

    def data(self, utterance_id: str) -> bytes:
        """Return the encoded audio of a source or a noise.

        Raises:
            AudioError: its shard cannot be read at this position.
        """
        if utterance_id in self._members:
            return self._read_member(self._members[utterance_id])
        parts = [
            decode_audio(self._read_member(member), f"{member.shard}: {member.name}")
            for member in self._parts(utterance_id)
        ]
        length = min(waveform.shape[1] for waveform, _ in parts)
        mixture, *sources = (waveform[0, :length] for waveform, _ in parts)
        residual = mixture - np.sum(sources, axis=0, dtype=np.float32)
        return encode_audio(residual[None], parts[0][1], "wav").data

    def utterances(self, root: str | os.PathLike[str] | None = None) -> list[Utterance]:
        """Return the sources of all mixtures as utterances.

        Args:
            root: not used; the sources are no files.
        """
        return [source for mixture in self.mixtures for source in mixture.sources]

    def identity(self) -> list[str]:
        """Return a hash of the names of all members and of the sizes of the shards."""
        digest = hashlib.sha256("\n".join(f"{key} {m.name} {m.size}" for key, m in self._members.items()).encode())
        return [digest.hexdigest(), *(f"{Path(shard).name} {Path(shard).stat().st_size}" for shard in self._shards)]

    def _read(self, shard: str) -> Iterator[ShardMixture]:
        mixtures: dict[str, _Files] = {}
        for member, text in _members_of(shard, self.name):
            path = PurePosixPath(member.name)
            is_audio = path.suffix.lower() in AUDIO_SUFFIXES
            source = SOURCE_NAME.fullmatch(path.stem) if is_audio else None
            if not is_audio and not is_premixed(member.name):
                continue
            key = canonical(str(path.with_name(source["key"] if source else path.stem)))
            files = mixtures.setdefault(key, _Files(shard))
            if source is not None:
                files.sources[int(source["number"])] = member
            elif is_audio:
                files.mixture = member
            else:
                files.speakers[int(path.suffix.removeprefix(".spk"))] = "_".join(text.split())
        for key, files in mixtures.items():
            if files.mixture is None or not files.speakers or files.speakers.keys() != files.sources.keys():
                self.left_out.append(f"{shard}: {quoted(key)}: has not one mixture, and a source for each speaker")
                continue
            yield self._mixture_of(key, files)

    def _mixture_of(self, key: str, files: _Files) -> ShardMixture:
        noise_id, sources = f"{key}-noise", []
        if noise_id in self._files:
            raise InputError(
                f"{files.shard}: mixture {quoted(key)} is in {self._files[noise_id].shard} already; it must be unique"
            )
        self._files[noise_id] = files
        for number in sorted(files.sources):
            utterance_id, member = f"{key}-s{number}", files.sources[number]
            self._members[utterance_id] = member
            entry = self.entry(utterance_id)
            assert entry is not None
            if not files.speakers[number]:
                raise InputError(f"{files.shard}: {key}.spk{number} is empty; it must name the speaker")
            path = Path(member.shard) / member.name
            duration_s = entry.num_samples / entry.sample_rate
            sources.append(Utterance(utterance_id, files.speakers[number], path, duration_s))
        return ShardMixture(key, tuple(sources), noise_id, files.shard)

    def _parts(self, noise_id: str) -> list[_Member]:
        """Return the members of a mixture: itself, and its sources."""
        files = self._files[noise_id]
        assert files.mixture is not None
        return [files.mixture, *(files.sources[number] for number in sorted(files.sources))]

    def _probe(self, member: _Member) -> StoreEntry:
        head = self._read_member(member, HEAD_BYTES)
        rate, num_samples = probe_encoded(
            head, lambda: self._read_member(member), f"{member.shard}: {quoted(member.name)}"
        )
        return StoreEntry(rate, num_samples, None)

    def _read_member(self, member: _Member, most: int | None = None) -> bytes:
        size = member.size if most is None else min(most, member.size)
        try:
            with open(member.shard, "rb", buffering=0) as file:  # noqa: PTH123
                file.seek(member.offset)
                data = file.read(size)
        except OSError as error:
            raise AudioError(f"{member.shard}: cannot be read ({error.strerror or error})") from error
        if len(data) < size:
            raise AudioError(f"{member.shard}: is cut short at {quoted(member.name)}; get a whole copy of it")
        return data


def _members_of(shard: str, name: str) -> Iterator[tuple[_Member, str]]:
    """Yield the files of a shard, and the text of those that name a speaker.

    Raises:
        InputError: the shard is a URL or compressed, or holds single utterances.
        AudioError: it is missing, no tar file, or cut short.
    """
    if is_url(shard):
        raise InputError(f"{shard}: mixtures are not read from a URL; copy the shard, or unpack it (prepare premixed)")
    size = Path(shard).stat().st_size if Path(shard).is_file() else 0
    try:
        with open_shard(shard) as file, tarfile.open(fileobj=io.BufferedReader(file), mode="r:") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if not member.isfile() or is_hidden(path.name):
                    continue
                if path.suffix == ".spk":
                    raise InputError(
                        f"{shard}: holds {quoted(member.name)}: single utterances, and no mixtures; name {name} in "
                        "data.train"
                    )
                if member.offset_data + member.size > size:
                    raise AudioError(f"{shard}: is cut short at {quoted(member.name)}; get a whole copy of it")
                content = tar.extractfile(member) if is_premixed(member.name) else None
                text = content.read().decode(errors="replace") if content else ""
                yield _Member(shard, member.name, member.offset_data, member.size), text
    except tarfile.TarError as error:
        raise AudioError(
            f"{shard}: is no uncompressed tar file, or is cut short ({error}); get a whole copy, or unpack it"
        ) from error
