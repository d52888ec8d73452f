"""Writing of a room bank: interrupted ones are resumed, finished ones kept, damaged ones refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wesep_py.common.errors import InputError, OutputExistsError
from wesep_py.simulation.rooms.bank_making import RoomBankConfig, make_bank
from wesep_py.simulation.rooms.bank_opening import open_bank
from wesep_py.simulation.rooms.room_bank import RoomBank
from wesep_py.simulation.rooms.simulated_rooms import SimulatedRoomsConfig

RATE = 8000
ROOMS = SimulatedRoomsConfig(
    count=6, method="fra", rt60_s=(0.1, 0.4), num_reflections=256, num_sources=3, num_microphones=2
)
CONFIG = RoomBankConfig(sample_rate=RATE, simulated=ROOMS)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> RoomBank:
    return make_bank(CONFIG, tmp_path_factory.mktemp("banks") / "rooms")


def _folder(bank: RoomBank) -> Path:
    return Path(bank.draw_recipe(np.random.default_rng(0), 1, (0.0, 9.0)).path)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class _Killed(Exception):
    pass


def _kill_after(rooms: int) -> Callable[[int, int], None]:
    def stop(done: int, _: int) -> None:
        if done == rooms:
            raise _Killed

    return stop


@pytest.mark.parametrize("damage", ["none", "half a line", "half a room", "header only"])
def test_interrupted_bank_is_resumed(bank: RoomBank, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "rooms"
    with pytest.raises(_Killed):
        make_bank(CONFIG, folder, on_progress=_kill_after(3))
    with pytest.raises(InputError, match="holds no finished room bank"):
        RoomBank(folder)
    progress, samples = folder / "progress.jsonl", folder / "responses.float32"
    if damage == "half a line":
        progress.write_bytes(progress.read_bytes()[:-20])
    elif damage == "half a room":
        samples.write_bytes(samples.read_bytes()[:-1000])
    elif damage == "header only":
        progress.write_bytes(progress.read_bytes()[:30])
    seen: list[int] = []
    make_bank(CONFIG, folder, on_progress=lambda done, _: seen.append(done))
    assert seen[0] == {"none": 4, "header only": 1}.get(damage, 3)
    assert _files(folder) == _files(_folder(bank))


def test_bank_is_resumed_after_every_interruption(bank: RoomBank, tmp_path: Path) -> None:
    folder = tmp_path / "rooms"
    for rooms in (2, 4):
        with pytest.raises(_Killed):
            make_bank(CONFIG, folder, on_progress=_kill_after(rooms))
        progress = folder / "progress.jsonl"
        progress.write_bytes(progress.read_bytes()[:-20])
    seen: list[int] = []
    make_bank(CONFIG, folder, on_progress=lambda done, _: seen.append(done))
    assert seen[0] == 4
    assert _files(folder) == _files(_folder(bank))


def test_finished_bank_is_opened_or_kept(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, simulated=dataclasses.replace(ROOMS, count=2))
    first = make_bank(config, tmp_path / "rooms")
    before = (tmp_path / "rooms" / "responses.float32").stat().st_mtime_ns
    assert make_bank(config, tmp_path / "rooms").fingerprint == first.fingerprint
    assert (tmp_path / "rooms" / "responses.float32").stat().st_mtime_ns == before
    other = dataclasses.replace(config, seed=7)
    with pytest.raises(OutputExistsError, match="holds another bank; name another output, or pass --overwrite"):
        make_bank(other, tmp_path / "rooms")
    assert open_bank(tmp_path / "rooms").fingerprint == first.fingerprint
    replaced = make_bank(other, tmp_path / "rooms", overwrite=True)
    assert open_bank(tmp_path / "rooms").fingerprint == replaced.fingerprint != first.fingerprint


def test_other_unfinished_bank_is_kept(tmp_path: Path) -> None:
    with pytest.raises(_Killed):
        make_bank(CONFIG, tmp_path / "rooms", on_progress=_kill_after(1))
    with pytest.raises(OutputExistsError, match="another bank was begun here"):
        make_bank(dataclasses.replace(CONFIG, seed=3), tmp_path / "rooms")


def test_damaged_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, simulated=dataclasses.replace(ROOMS, count=1))
    make_bank(config, tmp_path / "rooms")
    samples = tmp_path / "rooms" / "responses.float32"
    samples.write_bytes(samples.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"responses\.float32: is missing or cut short; make the bank again"):
        open_bank(tmp_path / "rooms")
    (tmp_path / "rooms" / "index.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match="is no room bank of format 1"):
        RoomBank(tmp_path / "rooms")
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds 'thesis\.txt', which is no room bank"):
        make_bank(config, tmp_path / "strange", overwrite=True)
    assert (tmp_path / "strange" / "thesis.txt").read_text() == "mine"
    with pytest.raises(InputError, match="create it first"):
        make_bank(config, tmp_path / "no" / "rooms")
    with pytest.raises(InputError, match="has no room"):
        make_bank(dataclasses.replace(CONFIG, simulated=None), tmp_path / "empty")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["index.json", "progress.jsonl", "responses.float32"])
def test_foreign_files_are_not_replaced(tmp_path: Path, name: str, overwrite: bool) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text('{"mine": 1}\n')
    with pytest.raises(InputError, match=f"holds '{name}', which is no room bank"):
        make_bank(CONFIG, tmp_path / "mine", overwrite=overwrite)
    assert _files(tmp_path / "mine") == {name: b'{"mine": 1}\n'}
