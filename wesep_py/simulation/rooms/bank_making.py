"""Making of a room bank in parallel processes; the bank does not depend on their number or on interruptions.

`make_bank` goes through the simulated rooms and then the recorded ones of a `RoomBankConfig`, and appends each to a
`bank_writer.BankWriter`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from wesep_py.common.config import to_plain
from wesep_py.common.errors import InputError
from wesep_py.common.files import check_writable
from wesep_py.common.processes import worker_pool
from wesep_py.simulation.rooms.bank_writer import BankRoom, BankWriter, check_same, header_of
from wesep_py.simulation.rooms.recorded_rooms import (
    RecordedRoom,
    find_recorded_rooms,
    read_recorded_room,
    recordings_hash,
)
from wesep_py.simulation.rooms.room_bank import INDEX_NAME, SAMPLES_NAME, TAR_SUFFIX, RoomBank, write_tar
from wesep_py.simulation.rooms.simulated_rooms import SimulatedRoomsConfig, import_pyroomacoustics, simulate_room

ROOMS_AT_A_TIME = 16

Item = int | RecordedRoom


@dataclass(frozen=True)
class RecordedRoomsConfig:
    """Recorded responses for a bank.

    Args:
        folder: folder of the recordings, or an LMDB file of them (`wesep lmdb FOLDER -o NAME.lmdb --root FOLDER
            --all-channels`).
        room_pattern: regular expression whose first group is the name of the room; null: by subfolders.
        max_s: longest response in seconds; longer ones are cut.
    """

    folder: str
    room_pattern: str | None = None
    max_s: float = 3.0

    def __post_init__(self) -> None:
        if not 0.05 <= self.max_s <= 60:
            raise ValueError(f"max_s: is {self.max_s}; 0.05 to 60 seconds are allowed")


@dataclass(frozen=True)
class RoomBankConfig:
    """Configuration of a room bank.

    Args:
        sample_rate: of all responses, in Hz; that of the mixtures.
        seed: seed of the simulated rooms.
        simulated: rooms to simulate; null: none.
        recorded: folders of recorded responses, which follow the simulated ones.
    """

    sample_rate: int = 16000
    seed: int = 0
    simulated: SimulatedRoomsConfig | None = field(default_factory=SimulatedRoomsConfig)
    recorded: tuple[RecordedRoomsConfig, ...] = ()

    def __post_init__(self) -> None:
        if not 1000 <= self.sample_rate <= 192000:
            raise ValueError(f"sample_rate: is {self.sample_rate}; give 1000 to 192000 Hz")
        if self.seed < 0:
            raise ValueError(f"seed: is {self.seed}; a whole number of 0 or more is needed")


def make_bank(
    config: RoomBankConfig,
    folder: str | os.PathLike[str],
    jobs: int = 1,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> RoomBank:
    """Make a bank, resume an interrupted one, or open it if it is finished.

    Args:
        config: the rooms.
        folder: created if missing; its parent must exist. A name that ends in `.tar`: the bank is that file, and it is
            made in a folder `NAME.tar.part` beside it.
        jobs: processes, 1 or more; the bank does not depend on it.
        overwrite: replace another bank.
        on_progress: called with the number of rooms done and the total.

    Returns:
        The bank.

    Raises:
        InputError: pyroomacoustics is needed and missing, a folder without recordings, or no room at all.
        OutputExistsError: another bank exists there, and `overwrite` is false.
        WesepError: the disk is full or not writable.

    >>> bank = make_bank(RoomBankConfig(), "rooms", jobs=16)                    # doctest: +SKIP
    """
    if jobs < 1:
        raise InputError(f"jobs: is {jobs}; 1 or more are needed")
    simulated = config.simulated
    if simulated is not None and simulated.count and simulated.method != "fra":
        import_pyroomacoustics()
    items: list[Item] = [] if simulated is None else list(range(simulated.count))
    longest: dict[Path, float] = {}
    recorded = []
    for source in config.recorded:
        rooms = find_recorded_rooms(source.folder, source.room_pattern)
        longest[Path(source.folder)] = source.max_s
        recorded.append({"files": recordings_hash(rooms), "max_s": source.max_s})
        items.extend(rooms)
    described = {"seed": config.seed, "simulated": to_plain(simulated), "recorded": recorded}
    path = working_folder = Path(folder)
    if path.suffix == TAR_SUFFIX:
        if path.is_file() and not overwrite:
            check_same(path, header_of(described, config.sample_rate))
            return RoomBank(path)
        check_writable(path, overwrite)
        working_folder = path.with_name(f"{path.name}.part")
    with BankWriter(working_folder, described, config.sample_rate, overwrite) as writer:
        if not writer.finished:
            first = writer.next_index
            work = partial(_make_room, config, longest)
            for done, room in enumerate(_in_order(work, list(enumerate(items))[first:], jobs), start=first + 1):
                if room is not None:
                    writer.append(room)
                if on_progress is not None:
                    on_progress(done, len(items))
        bank = writer.finish()
    if working_folder == path:
        return bank
    write_tar(working_folder, (INDEX_NAME, SAMPLES_NAME), path, overwrite)
    for name in (INDEX_NAME, SAMPLES_NAME):
        (working_folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # it contains other files, which are kept
        working_folder.rmdir()
    return RoomBank(path)


def _make_room(config: RoomBankConfig, longest: dict[Path, float], numbered: tuple[int, Item]) -> BankRoom | None:
    index, item = numbered
    if isinstance(item, RecordedRoom):
        return read_recorded_room(item, index, config.sample_rate, longest[item.folder])
    assert config.simulated is not None
    return simulate_room(config.simulated, index, config.seed, config.sample_rate)


def _in_order(
    work: Callable[[tuple[int, Item]], BankRoom | None], items: Sequence[tuple[int, Item]], jobs: int
) -> Iterator[BankRoom | None]:
    """Call `work` on the items, and yield the results in order.

    Only some rooms at a time are given to the processes, so that results do not fill the memory if the disk is slow.
    """
    if jobs == 1 or len(items) < 2:
        yield from map(work, items)
        return
    with worker_pool(min(jobs, len(items))) as pool:
        for start in range(0, len(items), ROOMS_AT_A_TIME * jobs):
            yield from pool.map(work, items[start : start + ROOMS_AT_A_TIME * jobs], chunksize=4)
