"""LMDB files of WeSep and WeSpeaker: noises or room responses, each under its own key.

    KEY         the encoded audio, as it was in its file (musan: `noise/free-sound/noise-free-sound-0000.wav`)
    __keys__    the list of all keys, pickled

Such a file is a folder with `data.mdb` (https://github.com/wenet-e2e/wesep, `tools/make_lmdb.py`). `__keys__` is never
read: the keys are listed by a cursor.
"""

from __future__ import annotations

import hashlib
import logging
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.media import AUDIO_SUFFIXES
from wesep_py.audio.reading import decode_audio
from wesep_py.common.errors import AudioError, InputError, quoted
from wesep_py.common.names import canonical
from wesep_py.data.lmdb_store import LMDB_INDEX_KEY, LMDBEnvironment, open_environment
from wesep_py.data.manifest import Utterance, is_file
from wesep_py.data.store import StoreEntry, probe_encoded

logger = logging.getLogger(__name__)
LIST_KEY = b"__keys__"
DATA_NAME = "data.mdb"
HEAD_BYTES = 4096
"""Bytes at the start of a recording from which its length is read, if its header is there."""
NOISE_SPEAKER = "noise"


def is_keyed_lmdb(name: str | os.PathLike[str]) -> bool:
    """Return whether a path is a folder with `data.mdb`, or a file `*.lmdb` without the index that `wesep lmdb` writes.

    >>> is_keyed_lmdb("train.jsonl")
    False
    """
    path = Path(name)
    if is_file(path / DATA_NAME):
        return True
    return path.suffix == ".lmdb" and is_file(path) and open_environment(os.fspath(path)).get(LMDB_INDEX_KEY) is None


class KeyedLMDB:
    """The encoded audio of an LMDB of WeSep, by key; a `Store`. Opened read-only and without locks.

    Args:
        path: the folder with `data.mdb`, or a single file.

    Raises:
        InputError: there is no LMDB, it is damaged, or it holds no audio under its keys; or lmdb is not installed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fspath(path)
        self._file = os.fspath(Path(path) / DATA_NAME) if Path(path).is_dir() else self.name
        self._environment: LMDBEnvironment | None = None
        if self._open().get(LMDB_INDEX_KEY) is not None:
            raise InputError(f"{self.name}: is an LMDB that `wesep lmdb` wrote; name its file")
        self._keys = {self._id_of(key): key for key in self._open().keys() if key != LIST_KEY}  # noqa: SIM118
        self._entries: dict[str, StoreEntry] = {}
        self._check_form()

    def entry(self, utterance_id: str) -> StoreEntry | None:
        """Return rate and number of samples of a recording, or `None` if it is not in the file."""
        if utterance_id not in self._keys:
            return None
        if utterance_id not in self._entries:
            self._entries[utterance_id] = self._probe(utterance_id)
        return self._entries[utterance_id]

    def data(self, utterance_id: str) -> bytes:
        """Return the encoded audio of a recording.

        Raises:
            AudioError: the file is damaged.
        """
        data = self._open().get(self._keys[utterance_id])
        if data is None:
            raise AudioError(f"{self.name}: {quoted(utterance_id)} cannot be read; get a whole copy of the file")
        return data

    def waveform(self, utterance_id: str) -> tuple[NDArray[np.float32], int]:
        """Return all channels of a recording, such as a room response, and its sample rate.

        Returns:
            float32 `[channels, samples]`, and the sample rate in Hz.

        Raises:
            AudioError: the content is damaged.
            InputError: the recording is not in the file.
        """
        if utterance_id not in self._keys:
            raise InputError(f"{self.name}: holds no {quoted(utterance_id)}")
        return decode_audio(self.data(utterance_id), f"{self.name}: {utterance_id}")

    def utterances(self, root: str | os.PathLike[str] | None = None) -> list[Utterance]:
        """Return the recordings as utterances of a speaker `noise`; the key is the path. Only headers are read.

        Recordings that cannot be read are left out, and named in the log.

        Args:
            root: not used; keys are no files.
        """
        utterances = []
        for utterance_id, key in self._keys.items():
            try:
                entry = self.entry(utterance_id)
            except AudioError as error:
                logger.warning("left out: %s", error)
                continue
            assert entry is not None
            duration_s = entry.num_samples / entry.sample_rate
            utterances.append(Utterance(utterance_id, NOISE_SPEAKER, Path(key.decode(errors="replace")), duration_s))
        return utterances

    def identity(self) -> list[str]:
        """Return the SHA-256 of all keys, and the size of the file. No audio is read."""
        digest = hashlib.sha256(b"\n".join(self._keys.values())).hexdigest()
        return [digest, str(Path(self._file).stat().st_size)]

    def _check_form(self) -> None:
        """Check that there are recordings under the keys.

        Raises:
            InputError: there is no key, or the first one holds no audio.
        """
        expected = "encoded audio under each key, as WeSep's tools/make_lmdb.py writes it, is needed"
        if not self._keys:
            raise InputError(f"{self.name}: holds no recording; {expected}")
        first = next(iter(self._keys))
        try:
            self.entry(first)
        except AudioError as error:
            hint = "" if Path(first).suffix.lower() in AUDIO_SUFFIXES else f" ({error})"
            raise InputError(f"{self.name}: its key {quoted(first)} holds no audio{hint}; {expected}") from error

    def _probe(self, utterance_id: str) -> StoreEntry:
        key = self._keys[utterance_id]
        head = self._open().head(key, HEAD_BYTES) or b""
        rate, num_samples = probe_encoded(head, lambda: self.data(utterance_id), f"{self.name}: {utterance_id}")
        return StoreEntry(rate, num_samples, None)

    @staticmethod
    def _id_of(key: bytes) -> str:
        return canonical("_".join(key.decode(errors="replace").split()))

    def _open(self) -> LMDBEnvironment:
        if self._environment is None or self._environment.pid != os.getpid():
            self._environment = open_environment(self._file)
        return self._environment

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_environment": None}


@lru_cache(maxsize=4)
def open_keyed_lmdb(path: str) -> KeyedLMDB:
    """Return the LMDB of a path, opened once per process.

    Raises:
        InputError: as `KeyedLMDB`.
    """
    return KeyedLMDB(path)
