"""Stores: encoded audio by utterance id, and the readers that decode it.

- `Store`: the interface of tar shards (`shard_store`), LMDB files (`lmdb_store`) and windows of a stream
  (`shard_stream`); `StoreEntry`: the facts that a store has of an utterance before it is decoded.
- `StoreReader`: reads utterances from one store; `RoutedReader`: from several stores and from files.
- `decode_checked`, `probe_encoded`: the audio of a store, and its length.
- `utterance_to_record`, `utterance_from_record`, `parse_index_lines`: utterances in the index of a store.
"""

from __future__ import annotations

import io
import os
import wave
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.reading import decode_audio, probe_audio
from wesep_py.audio.resample import resample, resampled_length
from wesep_py.common.errors import AudioError, InputError
from wesep_py.common.textfiles import Row, parse_lines
from wesep_py.data.manifest import MANIFEST_FIELDS, Utterance
from wesep_py.data.reader import DecodedCache, Quantised, Reader, check_span, quantise


class StoreEntry(NamedTuple):
    """Sample rate in Hz, number of samples and CRC-32 of the encoded audio of an utterance in a store.

    A store of another program has no checksums: the CRC-32 is then `None`.
    """

    sample_rate: int
    num_samples: int
    crc32: int | None

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> StoreEntry:
        """Return the entry of a record of an index.

        Raises:
            KeyError: the record lacks a field.
            ValueError: a field is not an integer in its range.
        """
        entry = cls(record["sample_rate"], record["num_samples"], record["crc32"])
        if any(isinstance(value, bool) or not isinstance(value, int) or value < 0 for value in entry):
            raise ValueError(f"{record.get('utterance_id')!r} has {entry}, and whole numbers of 0 or more are needed")
        if entry.sample_rate < 1:
            raise ValueError(f"{record.get('utterance_id')!r} has a sample_rate of 0 Hz")
        return entry


class Store(Protocol):
    """Encoded audio by utterance id. A store can be sent to other processes; each opens its files anew."""

    name: str

    def entry(self, utterance_id: str) -> StoreEntry | None:
        """Return rate, number of samples and checksum of an utterance, or `None` if it is not in the store."""
        ...

    def data(self, utterance_id: str) -> bytes:
        """Return the encoded audio of an utterance."""
        ...

    def utterances(self, root: str | os.PathLike[str] | None = None) -> list[Utterance]:
        """Return the utterances that were put into the store, as a manifest lists them."""
        ...

    def identity(self) -> list[str]:
        """Return checksums of all content."""
        ...


class StoreReader:
    """Reads utterances from a store. Returns the same samples as a `FileReader` of the recordings.

    An utterance is looked up by its id or, if `perturb_speed` created it, by the id of the recorded utterance. The most
    recent utterances are cached decoded.

    Args:
        store: holds the encoded audio.
        sample_rate: sample rate of the returned audio in Hz, at least 1.
        cache_mib: size of the cache of decoded audio in MiB, at least 0; the least recently used is dropped first.
    """

    def __init__(self, store: Store, sample_rate: int, cache_mib: float = 512) -> None:
        if sample_rate < 1:
            raise InputError(f"sample_rate: is {sample_rate}; at least 1 Hz is needed")
        self.store = store
        self._sample_rate = sample_rate
        self._cache = DecodedCache(cache_mib)

    @property
    def sample_rate(self) -> int:
        """Sample rate of all returned audio, in Hz."""
        return self._sample_rate

    def read(self, utterance: Utterance, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Return the samples from `start` to `stop` of an utterance, float32 `[samples]`; a new array each time.

        Args:
            utterance: an utterance that is in the store.
            start: first sample, at the reader's rate, counted from the beginning of the utterance.
            stop: the sample to stop before; `None` for the end.

        Raises:
            AudioError: the store cannot be read at this place, or its content is damaged.
            InputError: the utterance is not in the store, or the positions are not inside it.
        """
        key = utterance.utterance_id, utterance.speed
        quantised = self._cache.get(key, lambda: self._load(utterance))
        start, stop = check_span(utterance, quantised.samples.size, start, stop)
        return quantised.waveform(start, stop)

    def length(self, utterance: Utterance) -> int:
        """Return the number of samples of an utterance at the reader's rate, without decoding it.

        Raises:
            InputError: the utterance is not in the store.
        """
        _, entry = self._find(utterance)
        return resampled_length(entry.num_samples, round(entry.sample_rate * utterance.speed), self._sample_rate)

    def holds(self, utterance: Utterance) -> bool:
        """Return whether the utterance is in the store."""
        return _find_entry(self.store, utterance) is not None

    def _find(self, utterance: Utterance) -> tuple[str, StoreEntry]:
        match = _find_entry(self.store, utterance)
        if match is None:
            raise InputError(
                f"{self.store.name}: holds no utterance {utterance.utterance_id!r}; take the manifest that belongs to "
                "it, or create it again"
            )
        return match

    def _load(self, utterance: Utterance) -> Quantised:
        recorded_id, entry = self._find(utterance)
        waveform, rate = decode_checked(
            self.store.data(recorded_id), entry, f"{self.store.name}: utterance {recorded_id!r}"
        )
        # The speed is applied as in `load_utterance`: faster playback is the same as a higher recording rate.
        return quantise(resample(waveform[0], round(rate * utterance.speed), self._sample_rate))


class RoutedReader:
    """Reads each utterance from the first of several stores that holds it, or from its file if none does.

    Args:
        stores: readers of stores, all at the sample rate of `files`.
        files: reads the utterances that are in no store.

    Raises:
        InputError: the readers have different sample rates.
    """

    def __init__(self, stores: Sequence[StoreReader], files: Reader) -> None:
        rates = {reader.sample_rate for reader in (*stores, files)}
        if len(rates) > 1:
            raise InputError(f"the readers give {' and '.join(map(str, sorted(rates)))} Hz; make them equal")
        self._stores = tuple(stores)
        self._files = files

    @property
    def sample_rate(self) -> int:
        """Sample rate of all returned audio, in Hz."""
        return self._files.sample_rate

    def read(self, utterance: Utterance, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Return the samples from `start` to `stop` of an utterance, float32 `[samples]`."""
        return self._reader_for(utterance).read(utterance, start, stop)

    def length(self, utterance: Utterance) -> int:
        """Return the number of samples of an utterance at the reader's rate."""
        return self._reader_for(utterance).length(utterance)

    def _reader_for(self, utterance: Utterance) -> Reader:
        return next((reader for reader in self._stores if reader.holds(utterance)), self._files)


def _find_entry(store: Store, utterance: Utterance) -> tuple[str, StoreEntry] | None:
    """Return the id under which a store holds an utterance at any speed, and its entry; `None` if it is not there."""
    names = [utterance.utterance_id]
    # `perturb_speed` appends the speed to the id: `a-1@1.1` is recorded as `a-1`.
    if utterance.speed != 1 and "@" in utterance.utterance_id:
        names.append(utterance.utterance_id.rpartition("@")[0])
    for name in names:
        entry = store.entry(name)
        if entry is not None:
            return name, entry
    return None


def decode_checked(data: bytes, entry: StoreEntry, place: str) -> tuple[NDArray[np.float32], int]:
    """Decode stored audio, and check that it is what was stored.

    Args:
        data: the encoded audio.
        entry: its entry in the index.
        place: the store and the utterance, for messages.

    Returns:
        float32 `[channels, samples]`, and the sample rate in Hz.

    Raises:
        AudioError: its checksum, rate or length differs from the entry, or it cannot be decoded.
    """
    if entry.crc32 is not None and zlib.crc32(data) != entry.crc32:
        raise AudioError(f"{place}: is damaged (its checksum differs); write the store again, or get a whole copy")
    waveform, rate = decode_audio(data, place)
    if (rate, waveform.shape[1]) != (entry.sample_rate, entry.num_samples):
        raise AudioError(
            f"{place}: {waveform.shape[1]} samples at {rate} Hz could be decoded, and its index says "
            f"{entry.num_samples} at {entry.sample_rate} Hz; write the store again"
        )
    return waveform, rate


def probe_encoded(head: bytes, read_all: Callable[[], bytes], place: str) -> tuple[int, int]:
    """Return sample rate in Hz and number of samples of encoded audio, from its first bytes if they tell.

    Args:
        head: the first bytes: those of a wav file with integer samples tell its length.
        read_all: returns all bytes; called for any other audio.
        place: its name, for messages.

    Raises:
        AudioError: it is not audio that can be read, or is damaged.
    """
    with suppress(wave.Error, EOFError, RuntimeError), wave.open(io.BytesIO(head)) as recording:
        if recording.getnframes() > 0:
            return recording.getframerate(), recording.getnframes()
    return probe_audio(read_all(), place)


# Utterances in the index of a store.


def utterance_to_record(utterance: Utterance, root: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """Return an utterance as a line of a manifest, without empty and default values; paths below `root` relative."""
    record = {name: getattr(utterance, name) for name in MANIFEST_FIELDS}
    path = utterance.path
    if root is not None and path.is_relative_to(root):
        path = path.relative_to(root)
    record["path"] = path.as_posix()
    defaults = {"speed": 1.0, "start_s": 0.0}
    return {name: value for name, value in record.items() if value is not None and defaults.get(name) != value}


def utterance_from_record(
    record: Mapping[str, Any], place: str, root: str | os.PathLike[str] | None = None
) -> Utterance:
    """Return the utterance of a record that `utterance_to_record` made; further fields are ignored.

    Args:
        record: the fields.
        place: the file and line of the record, for messages.
        root: the folder that a relative path starts from; `None` leaves relative paths.

    Raises:
        InputError: a field is missing or has an impossible value.
    """
    row = Row(place, record)
    path = Path(row.text("path"))
    try:
        return Utterance(
            row.text("utterance_id"),
            row.text("speaker_id"),
            path if root is None else Path(root) / path,
            row.number("duration_s"),
            row.optional_number("start_s") or 0.0,
            row.optional_text("gender"),
            row.optional_number("age"),
            row.optional_text("text"),
            row.optional_number("speed") or 1.0,
        )
    except InputError as error:
        raise InputError(str(error) if str(error).startswith(place) else f"{place}: {error}") from error


def parse_index_lines(lines: Iterable[bytes], place: str) -> list[dict[str, Any]]:
    """Parse the lines of an index as JSON objects.

    Raises:
        InputError: a line is not a JSON object.
    """
    return [dict(row.values) for row in parse_lines(lines, place, "write the index again, or get a whole copy")]
