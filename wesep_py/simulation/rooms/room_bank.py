"""Bank of room impulse responses: made once, read through a memory map, drawn by reverberation time.

The folder contains `responses.float32` (little-endian samples of all responses, one after the other, each
`[microphones, taps]`) and `index.json`, which is written last: for each room its size, its microphones, and how it was
made or where it was recorded; for each response the position of its source, its direct paths, and its measures
(`acoustics`): RT60, C50, DRR. The fingerprint is a hash of all of that and of the samples. An uncompressed tar of the
two files is the same bank. `bank_making` makes banks.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wesep_py.common.errors import InputError, naming, quoted
from wesep_py.common.files import atomic_path
from wesep_py.common.textfiles import COUNT, check_schema, parse_json
from wesep_py.simulation.description.recipe import BankRoomRecipe

BANK_FORMAT = 1
INDEX_NAME = "index.json"
SAMPLES_NAME = "responses.float32"
TAR_SUFFIX = ".tar"
EARLY_BEFORE_MS = 6.0
"""The early part of a response, and each response of a bank, begins this long before the direct path."""
_RESPONSE_SCHEMA = {"offset": COUNT, "taps": COUNT, "direct_taps": [COUNT], "direct_gains": [float]}
ROOM_SCHEMA = {"rt60_s": (float, None), "responses": [_RESPONSE_SCHEMA]}
"""The fields of a room that are read from an index."""
_INDEX_SCHEMA = {
    "fingerprint": str,
    "sample_rate": range(1, 10**7),
    "direct_tap": COUNT,
    "num_samples": COUNT,
    "rooms": [ROOM_SCHEMA],
}
Waveform = NDArray[np.float32]


class RoomBank:
    """Bank of room impulse responses, to draw from and to read. It can be pickled; processes share the memory map.

    Args:
        folder: the folder, or the tar, that `make_bank` wrote.

    Raises:
        InputError: it contains no bank, an unfinished one, or one of another format.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        index, self._place = read_bank_index(self._folder)
        self.fingerprint: str = index["fingerprint"]
        self.sample_rate: int = index["sample_rate"]
        self.direct_tap: int = index["direct_tap"]
        self.rooms: list[dict[str, Any]] = index["rooms"]
        self.responses: list[dict[str, Any]] = [r for room in self.rooms for r in room["responses"]]
        counts = [len(room["responses"]) for room in self.rooms]
        self._first = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self._room_of = np.repeat(np.arange(len(counts)), counts)
        self._rt60_s = np.array([math.nan if room["rt60_s"] is None else room["rt60_s"] for room in self.rooms])
        self._samples: Waveform | None = None

    def draw(self, rng: np.random.Generator, count: int, rt60_s: tuple[float, float]) -> tuple[int, ...]:
        """Draw responses of one room, all different, for `count` sources.

        Args:
            rng: random numbers.
            count: number of sources, 1 or more.
            rt60_s: range of the measured RT60 of the room.

        Returns:
            Their indices in `responses`. Rooms are equally likely, whatever their number of responses.

        Raises:
            InputError: the bank has no such room; the message says what it has.

        >>> bank.draw(np.random.default_rng(0), 2, (0.2, 0.6))                  # doctest: +SKIP
        (130, 128)
        """
        fitting = self._fitting_rooms(count, rt60_s)
        room = int(fitting[rng.integers(fitting.size)])
        chosen = rng.permutation(int(self._first[room + 1] - self._first[room]))[:count]
        return tuple(int(self._first[room] + position) for position in chosen)

    def check(self, count: int, rt60_s: tuple[float, float], sample_rate: int) -> None:
        """Raise an error, before anything is drawn, if this bank cannot be used.

        Args:
            count, rt60_s: as for `draw`.
            sample_rate: of the mixtures, in Hz.

        Raises:
            InputError: no such room, or another sample rate.
        """
        self._fitting_rooms(count, rt60_s)
        self._check_rate(sample_rate)

    def draw_recipe(
        self, rng: np.random.Generator, count: int, rt60_s: tuple[float, float], early_ms: float = 50.0
    ) -> BankRoomRecipe:
        """Draw responses as `draw`, and one of the room's microphones, as a recipe.

        Args:
            rng, count, rt60_s: as for `draw`.
            early_ms: end of the early part, in milliseconds.

        Raises:
            InputError: as `draw`.
        """
        responses = self.draw(rng, count, rt60_s)
        channels = min(len(self.responses[index]["direct_taps"]) for index in responses)
        channel = int(rng.integers(channels))
        return BankRoomRecipe(os.fspath(self._folder), self.fingerprint, responses, channel, early_ms)

    def response(self, index: int) -> Waveform:
        """Read a response, `[microphones, taps]`; its entry has the taps of the direct paths (`direct_taps`).

        Raises:
            InputError: no such response.
        """
        entry = self._entry(index)
        if self._samples is None:
            file, offset, size = self._place
            self._samples = np.memmap(file, dtype="<f4", mode="r", offset=offset, shape=(size // 4,))
        channels, taps = len(entry["direct_taps"]), entry["taps"]
        flat = self._samples[entry["offset"] : entry["offset"] + channels * taps]
        return np.array(flat, dtype=np.float32).reshape(channels, taps)

    def read(self, recipe: BankRoomRecipe, sample_rate: int) -> tuple[Waveform, Waveform, int]:
        """Read the responses of a recipe, aligned at their direct paths.

        Args:
            recipe: drawn from this bank.
            sample_rate: of the mixture, in Hz.

        Returns:
            Responses `[sources, taps]`, amplitudes of the direct paths `[sources]`, and the tap of all direct paths.

        Raises:
            InputError: the bank has other content or another sample rate, no such response or microphone, or the
                responses are of different rooms.
        """
        if recipe.fingerprint != self.fingerprint:
            raise InputError(
                f"{self._folder}: is another bank ({self.fingerprint[:12]}) than the recipe was drawn from "
                f"({recipe.fingerprint[:12]}); give that one, or make it again from its YAML"
            )
        self._check_rate(sample_rate)
        entries = [self._entry(index) for index in recipe.responses]
        if len({int(self._room_of[index]) for index in recipe.responses}) > 1:
            raise InputError(f"{self._folder}: responses {list(recipe.responses)} are of different rooms; name one's")
        if not 0 <= recipe.channel < min(len(entry["direct_taps"]) for entry in entries):
            raise InputError(f"{self._folder}: response {recipe.responses[0]} has no microphone {recipe.channel}")
        rows = [self.response(index)[recipe.channel] for index in recipe.responses]
        taps = [entry["direct_taps"][recipe.channel] for entry in entries]
        lead = max(taps)
        full = np.zeros(
            (len(rows), max(lead - tap + row.size for row, tap in zip(rows, taps, strict=True))), np.float32
        )
        for out, row, tap in zip(full, rows, taps, strict=True):
            out[lead - tap : lead - tap + row.size] = row
        gains = np.array([entry["direct_gains"][recipe.channel] for entry in entries], dtype=np.float32)
        return full, gains, lead

    def _fitting_rooms(self, count: int, rt60_s: tuple[float, float]) -> NDArray[np.int64]:
        """Return the rooms with at least `count` responses and an RT60 in the range; there is at least one."""
        counts = np.diff(self._first)
        fitting = np.flatnonzero((counts >= count) & (self._rt60_s >= rt60_s[0]) & (self._rt60_s <= rt60_s[1]))
        if not fitting.size:
            known = self._rt60_s[np.isfinite(self._rt60_s)]
            spread = f"{known.min():.2f} to {known.max():.2f} s" if known.size else "not known"
            raise InputError(
                f"{self._folder}: has no room with {count} responses and an RT60 of {rt60_s[0]:g} to {rt60_s[1]:g} s; "
                f"its rooms have up to {counts.max()} responses and an RT60 of {spread}: widen rt60_s, or make a bank"
            )
        return fitting

    def _check_rate(self, sample_rate: int) -> None:
        if sample_rate != self.sample_rate:
            raise InputError(
                f"{self._folder}: the bank is for {self.sample_rate} Hz, the mixture has {sample_rate} Hz; "
                f"make a bank with sample_rate {sample_rate}"
            )

    def _entry(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self.responses):
            raise InputError(f"{self._folder}: has no response {index}; it has 0 to {len(self.responses) - 1}")
        return self.responses[index]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_samples": None}


def bank_fingerprint(index: dict[str, Any], samples_digest: str) -> str:
    """Return the hash of a bank's index and samples, which identifies the bank in recipes."""
    described = {key: value for key, value in index.items() if key != "fingerprint"}
    text = json.dumps([described, samples_digest], sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_bank_index(folder: Path) -> tuple[dict[str, Any], FileRange]:
    """Read and check the index of a complete bank; return it with the range of the samples.

    Raises:
        InputError: as `RoomBank`.
    """
    ranges = find_in_tar(folder) if folder.is_file() else _find_in_folder(folder)
    if INDEX_NAME not in ranges:
        raise InputError(f"{folder}: holds no finished room bank; make one with simulation/make_room_bank.py")
    place, remedy = str(folder / INDEX_NAME), "make the bank again"
    with naming(place, remedy):
        text = ranges[INDEX_NAME].read()
    index = parse_json(text, place, remedy)
    if not isinstance(index, dict) or index.get("format") != BANK_FORMAT:
        raise InputError(f"{place}: is no room bank of format {BANK_FORMAT}; {remedy}")
    check_schema(index, _INDEX_SCHEMA, place, remedy)
    samples = ranges.get(SAMPLES_NAME)
    if samples is None or samples.size != 4 * index["num_samples"]:
        raise InputError(f"{folder / SAMPLES_NAME}: is missing or cut short; make the bank again")
    for room in index["rooms"]:
        for response in room["responses"]:
            if fault := _fault_of(response, index["num_samples"]):
                raise InputError(f"{place}: {fault}; {remedy}")
    return index, samples


def _fault_of(response: dict[str, Any], num_samples: int) -> str | None:
    """Return what is wrong with an entry of the index; `None` if it can be read."""
    taps, channels = response["taps"], len(response["direct_taps"])
    if not channels or channels != len(response["direct_gains"]) or any(t >= taps for t in response["direct_taps"]):
        return f"a response has {taps} taps, direct paths at {quoted(response['direct_taps'])}"
    if response["offset"] + taps * channels > num_samples:
        return f"a response reaches to sample {response['offset'] + taps * channels}, of {num_samples}"
    return None


def _find_in_folder(folder: Path) -> dict[str, FileRange]:
    files = [folder / name for name in (INDEX_NAME, SAMPLES_NAME)]
    return {file.name: FileRange(file, 0, file.stat().st_size) for file in files if file.is_file()}


# Files of a bank: in a folder, or in a tar whose samples are read without unpacking.


class FileRange(NamedTuple):
    """Range of bytes of a file: a whole file, or a member of a tar."""

    file: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """Read the bytes."""
        with self.file.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def find_in_tar(path: Path) -> dict[str, FileRange]:
    """Return the ranges of the files of a tar by their names without folders; incomplete files are left out.

    Raises:
        InputError: it is not a tar, or it is compressed.
    """
    size = path.stat().st_size
    members = {}
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                if member.isreg() and member.offset_data + member.size <= size:
                    members[PurePosixPath(member.name).name] = FileRange(path, member.offset_data, member.size)
    except tarfile.ReadError as error:
        if not members:
            raise InputError(f"{path}: is cut short, or no uncompressed tar ({error}); make the bank again") from error
    return members


def write_tar(folder: Path, names: tuple[str, ...], path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write files of a folder as a tar, atomically; its bytes depend on theirs only (no times, no owners).

    Args:
        folder: folder of the files.
        names: their names, in the order in the tar.
        path: the tar.
        overwrite: whether to replace an existing one.

    Raises:
        OutputExistsError, WesepError: as `common.files.atomic_path`.
    """
    with atomic_path(path, overwrite) as temporary, tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT) as tar:
        for name in names:
            about = tarfile.TarInfo(name)
            about.size = (folder / name).stat().st_size
            with (folder / name).open("rb") as file:
                tar.addfile(about, file)
