"""Opening of the bank that a configuration names: one that `make_bank` made, or an LMDB of WeSep with room responses.

The responses of an LMDB are measured when it is opened, once per process, and written to a temporary folder. That takes
milliseconds per response; a large collection should be made a bank once (`simulation/make_room_bank.py`, `recorded`).
"""

from __future__ import annotations

import os
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from wesep_py.common.errors import InputError
from wesep_py.data.keyed_lmdb import is_keyed_lmdb, open_keyed_lmdb
from wesep_py.simulation.rooms.bank_writer import BankWriter
from wesep_py.simulation.rooms.recorded_rooms import find_recorded_rooms, read_recorded_room, recordings_hash
from wesep_py.simulation.rooms.room_bank import INDEX_NAME, RoomBank

MAX_STORED_RESPONSES = 5000
"""Largest number of responses of an LMDB that are measured when it is opened."""
MAX_RESPONSE_S = 3.0
"""Longest response, after the direct path; the default of `bank_making.RecordedConfig`."""


class StoredRoomBank(RoomBank):
    """Bank of the room responses in an LMDB of WeSep: those of one folder of keys are a room.

    Its sample rate is that of the first response; others are resampled.

    Args:
        path: the LMDB.

    Raises:
        InputError: it holds no room response, or too many to be measured each time.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        store, rooms = open_keyed_lmdb(os.fspath(path)), find_recorded_rooms(path)
        count = sum(len(room.paths) for room in rooms)
        if count > MAX_STORED_RESPONSES:
            raise InputError(
                f"{path}: has {count} room responses, and up to {MAX_STORED_RESPONSES} are measured when it is opened; "
                "make a bank of them (simulation/make_room_bank.py with recorded: [{folder: …}])"
            )
        entry = store.entry(store.utterances()[0].utterance_id)
        assert entry is not None
        described = {"recorded": recordings_hash(rooms), "max_s": MAX_RESPONSE_S}
        self._temporary = tempfile.TemporaryDirectory(prefix="wesep-rooms-")
        folder = Path(self._temporary.name) / "bank"
        with BankWriter(folder, described, entry.sample_rate) as writer:
            for index, room in enumerate(rooms):
                measured = read_recorded_room(room, index, entry.sample_rate, MAX_RESPONSE_S)
                if measured is not None:
                    writer.append(measured)
            writer.finish()
        super().__init__(folder)
        self._folder = Path(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open_bank, (os.fspath(self._folder),)


def open_bank(folder: str | os.PathLike[str]) -> RoomBank:
    """Return the bank of a folder, a tar or an LMDB; it is opened once per process, and again if it has changed.

    Raises:
        InputError: as `RoomBank` and `StoredRoomBank`.
    """
    path = Path(folder)
    try:
        changed = (path / INDEX_NAME if path.is_dir() and not is_keyed_lmdb(path) else path).stat().st_mtime_ns
    except OSError:
        changed = 0
    return _open_bank(path, changed)


@lru_cache(maxsize=8)
def _open_bank(folder: Path, changed: int) -> RoomBank:
    return StoredRoomBank(folder) if is_keyed_lmdb(folder) else RoomBank(folder)
