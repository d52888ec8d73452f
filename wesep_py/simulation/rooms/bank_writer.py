"""Writing of a room bank, room by room: an interrupted bank is resumed, and a finished one is complete.

While a bank is made, its folder contains the samples and `progress.jsonl`: one line that describes the bank, and one
line per room. `index.json` is written last, and the progress is removed. The files do not depend on interruptions.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wesep_py.common.errors import InputError, OutputExistsError, WesepError
from wesep_py.common.files import write_json
from wesep_py.common.folders import one_run_in, visible_names
from wesep_py.common.textfiles import COUNT, check_schema, parse_json, parse_object
from wesep_py.simulation.rooms.acoustics import measure_acoustics
from wesep_py.simulation.rooms.room_bank import (
    BANK_FORMAT,
    EARLY_BEFORE_MS,
    INDEX_NAME,
    ROOM_SCHEMA,
    SAMPLES_NAME,
    RoomBank,
    bank_fingerprint,
    read_bank_index,
)

PROGRESS_NAME = "progress.jsonl"
REMEDY = "pass --overwrite to make the bank again"


@dataclass(frozen=True)
class BankResponse:
    """Response to be written to a bank.

    Attributes:
        samples: float32 `[microphones, taps]`; the direct path to the first is at tap `lead_of(sample_rate)`.
        direct_taps: tap of the direct path to each microphone.
        direct_gains: amplitude of the direct path at each microphone.
        about: further values for the index.
    """

    samples: NDArray[np.float32]
    direct_taps: tuple[int, ...]
    direct_gains: tuple[float, ...]
    about: Mapping[str, Any]


@dataclass(frozen=True)
class BankRoom:
    """Room to be written to a bank: values for the index (with the key `index`), and its responses."""

    about: Mapping[str, Any]
    responses: tuple[BankResponse, ...]


def lead_of(sample_rate: int) -> int:
    """Return the tap of the direct path in the responses of a bank: 6 ms."""
    return round(EARLY_BEFORE_MS * sample_rate / 1000)


def header_of(described: Mapping[str, Any], sample_rate: int) -> dict[str, Any]:
    """Return the part of an index that describes what its bank is made from."""
    return {"format": BANK_FORMAT, "sample_rate": sample_rate, "made_from": dict(described)}


def check_same(path: Path, header: Mapping[str, Any]) -> dict[str, Any]:
    """Return the index of a finished bank, if its header is that of `header_of`.

    Raises:
        InputError: the bank is not complete.
        OutputExistsError: it is another bank.
    """
    index, _ = read_bank_index(path)
    if {key: index.get(key) for key in header} != dict(header):
        raise OutputExistsError(f"{path}: holds another bank; name another output, or pass --overwrite")
    return index


class BankWriter:
    """Appends rooms to a bank; a context manager, which closes the files in any case.

    Args:
        folder: created if missing; its parent must exist.
        described: description of the bank, plain values; a folder with another unfinished bank is refused.
        sample_rate: of the responses, in Hz.
        overwrite: replace any bank in the folder.

    Raises:
        OutputExistsError: the folder contains another bank, finished or not, and `overwrite` is false.
        InputError: the folder contains anything else, or its parent does not exist.
    """

    def __init__(
        self, folder: str | os.PathLike[str], described: Mapping[str, Any], sample_rate: int, overwrite: bool = False
    ) -> None:
        self._folder = Path(folder)
        self._header = header_of(described, sample_rate)
        self._rate = sample_rate
        _claim(self._folder)
        self._lock = ExitStack()
        self._lock.enter_context(one_run_in(self._folder, "making a bank"))
        try:
            self._begin(overwrite)
        except BaseException:
            self._lock.close()
            raise

    def _begin(self, overwrite: bool) -> None:
        _claim(self._folder)
        if overwrite:
            for name in (INDEX_NAME, PROGRESS_NAME, SAMPLES_NAME):
                with suppress(FileNotFoundError):
                    (self._folder / name).unlink()
        self._rooms: list[dict[str, Any]] = []
        self._digest = hashlib.sha256()
        self._num_samples = 0
        self.finished = (self._folder / INDEX_NAME).exists()
        if self.finished:
            self._check_finished()
        else:
            self._resume()

    @property
    def next_index(self) -> int:
        """The `index` of the last room in the bank, plus 1."""
        return self._rooms[-1]["index"] + 1 if self._rooms else 0

    def append(self, room: BankRoom) -> None:
        """Measure the responses of a room and append them.

        Raises:
            WesepError: the disk is full or not writable; the rooms written before are not damaged.
        """
        entries, chunks, offset = [], [], self._num_samples
        for response in room.responses:
            samples = np.ascontiguousarray(response.samples, dtype="<f4")
            measured = measure_acoustics(samples[0], self._rate, response.direct_taps[0])
            entries.append(
                {
                    **response.about,
                    "offset": offset,
                    "taps": samples.shape[1],
                    "direct_taps": list(response.direct_taps),
                    "direct_gains": [round(float(gain), 6) for gain in response.direct_gains],
                    "rt60_s": _rounded(measured.rt60_s),
                    "c50_db": _rounded(measured.c50_db),
                    "drr_db": _rounded(measured.drr_db),
                }
            )
            chunks.append(samples.tobytes())
            offset += samples.size
        known = [entry["rt60_s"] for entry in entries if entry["rt60_s"] is not None]
        about = {**room.about, "rt60_s": _rounded(float(np.median(known))) if known else None, "responses": entries}
        try:
            for chunk in chunks:
                self._samples.write(chunk)
                self._digest.update(chunk)
            self._samples.flush()
            self._progress.write((json.dumps(about, allow_nan=False) + "\n").encode())
            self._progress.flush()
        except OSError as error:
            raise WesepError(
                f"{self._folder}: writing failed ({error.strerror or error}); free disk space and run it again"
            ) from error
        self._num_samples = offset
        self._rooms.append(about)

    def finish(self) -> RoomBank:
        """Write the index, which completes the bank, and open the bank.

        Raises:
            InputError: no room was added.
        """
        if not self.finished:
            if not self._rooms:
                raise InputError(f"{self._folder}: has no room; a bank needs at least one")
            os.fsync(self._samples.fileno())
            index = {
                **self._header,
                "direct_tap": lead_of(self._rate),
                "num_samples": self._num_samples,
                "rooms": self._rooms,
            }
            digest = self._digest.hexdigest()
            write_json(self._folder / INDEX_NAME, {"fingerprint": bank_fingerprint(index, digest), **index})
            self._samples.close()
            self._progress.close()
            (self._folder / PROGRESS_NAME).unlink()
            self.finished = True
        return RoomBank(self._folder)

    def close(self) -> None:
        """Close the files; an unfinished bank can be resumed."""
        if not self.finished:
            self._samples.close()
            self._progress.close()
        self._lock.close()

    def __enter__(self) -> BankWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_finished(self) -> None:
        self._rooms = check_same(self._folder, self._header)["rooms"]
        with suppress(FileNotFoundError):  # left by a run that was killed between the last two steps
            (self._folder / PROGRESS_NAME).unlink()

    def _resume(self) -> None:
        """Read the complete rooms of an unfinished bank, and cut both files after the last of them.

        A run that was killed may have left half a line, or a line whose samples are not complete.
        """
        path, samples = self._folder / PROGRESS_NAME, self._folder / SAMPLES_NAME
        header = (json.dumps(self._header, allow_nan=False) + "\n").encode()
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        old_header = parse_json(lines[0], f"{path}:1", REMEDY) if lines and lines[0].endswith(b"\n") else None
        if old_header is not None and old_header != json.loads(header):
            raise OutputExistsError(
                f"{self._folder}: another bank was begun here; name another folder, or pass --overwrite"
            )
        available = samples.stat().st_size // 4 if samples.exists() else 0
        complete_bytes = len(header) if lines else 0
        for number, line in enumerate(lines[1:], start=2):
            if not line.endswith(b"\n"):
                break
            room = dict(parse_object(line, f"{path}:{number}", REMEDY).values)
            check_schema(room, {**ROOM_SCHEMA, "index": COUNT}, f"{path}:{number}", REMEDY)
            stop = max((r["offset"] + r["taps"] * len(r["direct_taps"]) for r in room["responses"]), default=0)
            if stop > available:
                break
            self._rooms.append(room)
            self._num_samples = stop
            complete_bytes += len(line)
        self._samples = samples.open("ab")
        self._samples.truncate(4 * self._num_samples)
        with samples.open("rb") as written:
            while chunk := written.read(1 << 20):
                self._digest.update(chunk)
        self._progress = path.open("ab")
        self._progress.truncate(complete_bytes)
        if not lines or not lines[0].endswith(b"\n"):
            self._progress.truncate(0)
            self._progress.write(header)
            self._progress.flush()


def _claim(folder: Path) -> None:
    """Create the folder, or raise an error if it contains anything but a bank."""
    if folder.is_file():
        raise InputError(f"{folder}: is a file; name a folder")
    if not folder.parent.is_dir():
        raise InputError(f"{folder}: the folder {folder.parent} does not exist; create it first")
    names = visible_names(folder)
    strange = [name for name in names if name not in (INDEX_NAME, SAMPLES_NAME, PROGRESS_NAME)]
    descriptions = [name for name in (INDEX_NAME, PROGRESS_NAME) if name in names]
    strange += [name for name in descriptions if not _is_of_bank(folder / name)]
    if SAMPLES_NAME in names and not descriptions and (folder / SAMPLES_NAME).stat().st_size:
        strange.append(SAMPLES_NAME)
    if strange:
        raise InputError(f"{folder}: holds {strange[0]!r}, which is no room bank; name an empty folder")


def _is_of_bank(path: Path) -> bool:
    """Return whether a file is the index or the progress of a bank that this module wrote."""
    try:
        with path.open("rb") as file:
            text = file.read() if path.name == INDEX_NAME else file.readline()
        if path.name == PROGRESS_NAME and not text.endswith(b"\n"):
            return True  # killed while it wrote the first line
        about = json.loads(text)
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(about, dict) and {"format", "sample_rate", "made_from"} <= about.keys()


def _rounded(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None
