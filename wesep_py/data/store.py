"""Readers of stores: encoded audio by the id of its utterance, in tar shards, in an LMDB, or in several of them."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.reading import decode
from wesep_py.audio.resample import resample, resampled_length
from wesep_py.common.errors import AudioError, InputError
from wesep_py.common.textfiles import Row, parse_lines
from wesep_py.data.manifest import Utterance
from wesep_py.data.reader import DecodedCache, Quantised, Reader, check_span, quantise

_FIELDS = tuple(field.name for field in fields(Utterance))


class StoreEntry(NamedTuple):
    """What a store knows of an utterance before it is decoded."""

    sample_rate: int
    num_samples: int
    crc32: int

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> StoreEntry:
        """Return what the record of an index says of an utterance.

        Raises:
            KeyError: it lacks a field.
            ValueError: a field is no whole number in its range.
        """
        entry = cls(record["sample_rate"], record["num_samples"], record["crc32"])
        if any(isinstance(value, bool) or not isinstance(value, int) or value < 0 for value in entry):
            raise ValueError(f"{record.get('utterance_id')!r} has {entry}, and whole numbers of 0 or more are needed")
        if entry.sample_rate < 1:
            raise ValueError(f"{record.get('utterance_id')!r} has a sample_rate of 0 Hz")
        return entry


class Store(Protocol):
    """Encoded audio by utterance id. It can be sent to other processes, which open it for themselves."""

    name: str

    def entry(self, utterance_id: str) -> StoreEntry | None:
        """What is known of an utterance, or `None` if it is not in the store."""
        ...

    def data(self, utterance_id: str) -> bytes:
        """Its encoded audio."""
        ...

    def utterances(self, root: str | os.PathLike[str] | None = None) -> list[Utterance]:
        """The store as a manifest: the utterances that were put into it."""
        ...

    def identity(self) -> list[str]:
        """Checksums of all that it holds."""
        ...


class StoreReader:
    """Reads utterances from a store. Gives the same samples as a `FileReader` of the recordings.

    An utterance is found by its id, or, where `perturb_speed` made it, by the id of the one that was recorded. The
    latest are kept decoded.

    Args:
        store: holds the encoded audio.
        sample_rate: rate of what it gives in Hz, at least 1.
        cache_mib: how much decoded audio it keeps, in MiB, at least 0; the least recently used goes first.
    """

    def __init__(self, store: Store, sample_rate: int, cache_mib: float = 512) -> None:
        if sample_rate < 1:
            raise InputError(f"sample_rate: is {sample_rate}; at least 1 Hz is needed")
        self.store = store
        self._sample_rate = sample_rate
        self._cache = DecodedCache(cache_mib)

    @property
    def sample_rate(self) -> int:
        """The rate of everything it gives, in Hz."""
        return self._sample_rate

    def read(self, utterance: Utterance, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """The samples from `start` to `stop` of an utterance, float32 `[samples]`; a new array each time.

        Args:
            utterance: one that is in the store.
            start: first sample, at the reader's rate, counted from the utterance's beginning.
            stop: the sample to stop before; `None` for the end.

        Raises:
            AudioError: the store cannot be read there, or its content is damaged.
            InputError: the utterance is not in the store, or the positions do not lie inside it.
        """
        key = utterance.utterance_id, utterance.speed
        quantised = self._cache.get(key, lambda: self._load(utterance))
        start, stop = check_span(utterance, quantised.samples.size, start, stop)
        return quantised.waveform(start, stop)

    def length(self, utterance: Utterance) -> int:
        """How many samples the utterance has at the reader's rate. Nothing is decoded.

        Raises:
            InputError: the utterance is not in the store.
        """
        _, entry = self._find(utterance)
        return resampled_length(entry.num_samples, round(entry.sample_rate * utterance.speed), self._sample_rate)

    def holds(self, utterance: Utterance) -> bool:
        """Whether the utterance is in the store."""
        return _recorded_id(self.store, utterance) is not None

    def _find(self, utterance: Utterance) -> tuple[str, StoreEntry]:
        found = _recorded_id(self.store, utterance)
        if found is None:
            raise InputError(
                f"{self.store.name}: holds no utterance {utterance.utterance_id!r}; take the manifest that belongs to "
                "it, or make it anew"
            )
        return found

    def _load(self, utterance: Utterance) -> Quantised:
        recorded_id, entry = self._find(utterance)
        waveform, rate = decode_checked(
            self.store.data(recorded_id), entry, f"{self.store.name}: utterance {recorded_id!r}"
        )
        return quantise(resample(waveform[0], round(rate * utterance.speed), self._sample_rate))


class RoutedReader:
    """Reads each utterance from the first of several stores that holds it, and from its file if none does.

    Args:
        stores: readers of stores, all at the rate of `files`.
        files: reads what is in none of them.

    Raises:
        InputError: readers of different rates.
    """

    def __init__(self, stores: Sequence[StoreReader], files: Reader) -> None:
        rates = {reader.sample_rate for reader in (*stores, files)}
        if len(rates) > 1:
            raise InputError(f"the readers give {' and '.join(map(str, sorted(rates)))} Hz; make them equal")
        self._stores = tuple(stores)
        self._files = files

    @property
    def sample_rate(self) -> int:
        """The rate of everything it gives, in Hz."""
        return self._files.sample_rate

    def read(self, utterance: Utterance, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """The samples from `start` to `stop` of an utterance, float32 `[samples]`."""
        return self._reader(utterance).read(utterance, start, stop)

    def length(self, utterance: Utterance) -> int:
        """How many samples the utterance has at the reader's rate."""
        return self._reader(utterance).length(utterance)

    def _reader(self, utterance: Utterance) -> Reader:
        return next((reader for reader in self._stores if reader.holds(utterance)), self._files)


def _recorded_id(store: Store, utterance: Utterance) -> tuple[str, StoreEntry] | None:
    """The id under which a store holds an utterance, whatever speed it is played at, and what it knows of it."""
    names = [utterance.utterance_id]
    if utterance.speed != 1 and "@" in utterance.utterance_id:
        names.append(utterance.utterance_id.rpartition("@")[0])
    for name in names:
        entry = store.entry(name)
        if entry is not None:
            return name, entry
    return None


def decode_checked(data: bytes, entry: StoreEntry, place: str) -> tuple[NDArray[np.float32], int]:
    """The samples of stored audio, if it is what was stored.

    Args:
        data: the encoded audio.
        entry: what the index says of it.
        place: where it stands, for messages.

    Returns:
        float32 `[channels, samples]`, and the rate in Hz.

    Raises:
        AudioError: its checksum, rate or length is another, or it cannot be decoded.
    """
    if zlib.crc32(data) != entry.crc32:
        raise AudioError(f"{place}: is damaged (its checksum differs); make the store anew, or get a whole copy")
    waveform, rate = decode(data, place)
    if (rate, waveform.shape[1]) != (entry.sample_rate, entry.num_samples):
        raise AudioError(
            f"{place}: {waveform.shape[1]} samples at {rate} Hz could be decoded, and its index says "
            f"{entry.num_samples} at {entry.sample_rate} Hz; make the store anew"
        )
    return waveform, rate


def utterance_to_record(utterance: Utterance, root: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """An utterance as a line of a manifest: fields that say nothing are left out, paths below `root` are relative."""
    record = {name: getattr(utterance, name) for name in _FIELDS}
    path = utterance.path
    if root is not None and path.is_relative_to(root):
        path = path.relative_to(root)
    record["path"] = path.as_posix()
    defaults = {"speed": 1.0, "start_s": 0.0}
    return {k: v for k, v in record.items() if v is not None and defaults.get(k) != v}


def utterance_from_record(
    record: Mapping[str, Any], place: str, root: str | os.PathLike[str] | None = None
) -> Utterance:
    """The utterance of `utterance_to_record`; other fields are passed over.

    Args:
        record: the fields.
        place: where they stand, for messages.
        root: what a relative path starts from.

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
    """The JSON objects of the lines of an index.

    Raises:
        InputError: a line is not a JSON object.
    """
    return [dict(row.values) for row in parse_lines(lines, place, "make the index anew, or get a whole copy")]
