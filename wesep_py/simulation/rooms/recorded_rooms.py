"""Recorded room impulse responses as rooms of a bank: files, or an LMDB of them, grouped to rooms by folder or name."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from wesep_py.audio import read, resample
from wesep_py.common.errors import AudioError, InputError
from wesep_py.data import find_audio
from wesep_py.data.keyed_lmdb import KeyedLMDB, is_keyed_lmdb
from wesep_py.data.lmdb_store import LMDBStore
from wesep_py.simulation.rooms.acoustics import decay_end, find_direct_tap
from wesep_py.simulation.rooms.bank_writer import BankResponse, BankRoom, lead_of

logger = logging.getLogger(__name__)

FADE_MS = 5.0
# The direct path of a microphone is searched within this time of that of the first one (3.4 m).
ARRAY_MS = 10.0


@dataclass(frozen=True)
class RecordedRoom:
    """Recordings of one room: its name, the folder or LMDB file that paths are relative to, and the paths."""

    name: str
    folder: Path
    paths: tuple[Path, ...]


def find_recorded_rooms(folder: str | os.PathLike[str], room_pattern: str | None = None) -> list[RecordedRoom]:
    """Find the rooms of a folder of recorded responses, in the order of their names.

    Args:
        folder: searched at any depth; or an LMDB file (`wesep lmdb FOLDER --root FOLDER --all-channels`, or WeSep's),
            whose recordings have the paths that they had in the folder. The channels of a recording are the
            microphones of an array.
        room_pattern: regular expression, searched in the path relative to the folder; its first group is the name of
            the room. By default the files of one subfolder are one room, and each file directly in the folder is a
            room.

    Raises:
        InputError: no such folder or file, no recording in it, or a pattern that is invalid, has no group, or does not
            match a file.

    >>> find_recorded_rooms("RIRS_NOISES/real_rirs_isotropic_noises", r"_(.*room\\d)_")       # doctest: +SKIP
    """
    folder = Path(folder)
    if not (folder.is_dir() or folder.suffix == ".lmdb"):
        raise InputError(f"{folder}: is no folder; give one that holds recorded responses")
    try:
        pattern = None if room_pattern is None else re.compile(room_pattern)
    except re.error as error:
        raise InputError(f"room_pattern: {room_pattern!r} is no regular expression ({error})") from error
    if pattern is not None and pattern.groups < 1:
        raise InputError(f"room_pattern: {room_pattern!r} has no group; put what names the room in parentheses")
    rooms: dict[str, list[Path]] = {}
    paths = _stored(folder)[1] if is_stored(folder) else [path.relative_to(folder) for path in find_audio(folder)]
    for relative in paths:
        if pattern is None:
            name = relative.parent.as_posix() if len(relative.parts) > 1 else relative.as_posix()
        else:
            match = pattern.search(relative.as_posix())
            if match is None or match[1] is None:
                raise InputError(
                    f"{folder / relative}: room_pattern {room_pattern!r} finds no room in {relative.as_posix()!r}"
                )
            name = match[1]
        rooms.setdefault(name, []).append(relative)
    if not rooms:
        raise InputError(f"{folder}: holds no recording; give a folder with recorded responses")
    return [RecordedRoom(name, folder, tuple(sorted(rooms[name]))) for name in sorted(rooms)]


def recordings_hash(rooms: Sequence[RecordedRoom]) -> str:
    """Return a hash of the names of the rooms, and of the names and sizes (or checksums) of their files.

    It does not depend on the path of the folder.
    """
    digest = hashlib.sha256()
    for room in rooms:
        for path in room.paths:
            digest.update(f"{room.name}\n{path.as_posix()}\n{_size_of(room.folder, path)}\n".encode())
    return digest.hexdigest()


def read_recorded_room(room: RecordedRoom, index: int, sample_rate: int, max_s: float) -> BankRoom | None:
    """Read the responses of a room: resampled, with the direct path to the first channel at 6 ms, and without noise.

    The noise after the decay is cut. All responses of a room are scaled by one factor, so that the largest direct path
    is 1. Recordings that cannot be read, or are silent, are left out and named in a warning.

    Args:
        room: from `find_recorded_rooms`.
        index: index of the room in the bank.
        sample_rate: of the bank, in Hz.
        max_s: longest response, in seconds after the direct path; longer ones are cut.

    Returns:
        The room, or `None` if none of its recordings can be used.
    """
    responses = []
    for path in room.paths:
        try:
            waveform, rate = _read(room.folder, path)
            if not waveform[0].any():
                raise AudioError(f"{room.folder / path}: is silent")
        except AudioError as error:
            logger.warning("left out: %s", error)
            continue
        responses.append(_response(resample(waveform, rate, sample_rate), sample_rate, max_s, path))
    if not responses:
        return None
    scale = 1 / max(abs(gain) for response in responses for gain in response.direct_gains)
    scaled = tuple(
        BankResponse(
            (response.samples * scale).astype(np.float32),
            response.direct_taps,
            tuple(gain * scale for gain in response.direct_gains),
            response.about,
        )
        for response in responses
    )
    return BankRoom({"index": index, "method": "recorded", "name": room.name}, scaled)


def is_stored(folder: Path) -> bool:
    """Return whether responses are in an LMDB file, and not in a folder of recordings."""
    return not folder.is_dir() or is_keyed_lmdb(folder)


@lru_cache(maxsize=4)
def _stored(file: Path) -> tuple[LMDBStore | KeyedLMDB, dict[Path, str]]:
    """Open an LMDB of responses; return it with the ids of its recordings by their paths."""
    store = KeyedLMDB(file) if is_keyed_lmdb(file) else LMDBStore(file)
    return store, {utterance.path: utterance.utterance_id for utterance in store.utterances()}


def _read(folder: Path, path: Path) -> tuple[np.ndarray, int]:
    if not is_stored(folder):
        return read(folder / path)
    store, ids = _stored(folder)
    return store.waveform(ids[path])


def _size_of(folder: Path, path: Path) -> int:
    if not is_stored(folder):
        return (folder / path).stat().st_size
    store, ids = _stored(folder)
    entry = store.entry(ids[path])
    assert entry is not None
    return entry.num_samples if entry.crc32 is None else entry.crc32


def _response(waveform: np.ndarray, sample_rate: int, max_s: float, path: Path) -> BankResponse:
    """Align a recorded response and cut its noise.

    recorded   ···noise··│direct│decay ─────│noise···        tap `direct` becomes tap `lead`
    result           lead│direct│decay ─fade│                `decay` taps after it
    """
    lead, fade = lead_of(sample_rate), max(round(FADE_MS * sample_rate / 1000), 1)
    direct = find_direct_tap(waveform[0], sample_rate)
    decay = min(decay_end(waveform[0, direct:], sample_rate), round(max_s * sample_rate))
    padded = np.pad(waveform.astype(np.float64), ((0, 0), (lead, 0)))[:, direct : direct + lead + decay]
    # Fade out only if something was cut, and if there is enough of the response.
    if padded.shape[1] == lead + decay and direct + decay < waveform.shape[1] and decay > 2 * fade:
        padded[:, -fade:] *= np.cos(np.linspace(0, np.pi / 2, fade)) ** 2
    around = round(ARRAY_MS * sample_rate / 1000)
    taps = [lead]
    for channel in padded[1:]:
        first = max(lead - around, 0)
        nearby = channel[first : lead + around]
        taps.append(first + find_direct_tap(nearby, sample_rate) if nearby.any() else lead)
    gains = tuple(float(channel[tap]) for channel, tap in zip(padded, taps, strict=True))
    return BankResponse(padded.astype(np.float32), tuple(taps), gains, {"file": path.as_posix()})
