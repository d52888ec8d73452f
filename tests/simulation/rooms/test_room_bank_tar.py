"""Room bank as a tar: the same samples as in the folder; damaged files are refused."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from wesep_py.common.errors import InputError, OutputExistsError
from wesep_py.data import FileReader, Utterance
from wesep_py.simulation import EnrollmentConfig, RoomConfig, SimulationConfig, Simulator
from wesep_py.simulation.rooms.bank_making import RoomBankConfig, make_bank
from wesep_py.simulation.rooms.bank_opening import open_bank
from wesep_py.simulation.rooms.room_bank import RoomBank
from wesep_py.simulation.rooms.simulated_rooms import SimulatedRoomsConfig

ROOMS = SimulatedRoomsConfig(count=4, method="fra", rt60_s=(0.1, 0.4), num_reflections=256, num_sources=2)
CONFIG = RoomBankConfig(sample_rate=8000, simulated=ROOMS)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder and the tar of one bank."""
    folder = tmp_path_factory.mktemp("banks")
    make_bank(CONFIG, folder / "rooms")
    make_bank(CONFIG, folder / "rooms.tar")
    return folder / "rooms", folder / "rooms.tar"


def test_tar_has_the_samples_of_the_folder(both: tuple[Path, Path]) -> None:
    one, other = map(RoomBank, both)
    assert one.fingerprint == other.fingerprint and one.rooms == other.rooms
    for index in range(len(one.responses)):
        assert np.array_equal(one.response(index), other.response(index))
    sent = pickle.loads(pickle.dumps(other))
    assert np.array_equal(sent.response(5), one.response(5))
    assert sorted(path.name for path in both[1].parent.iterdir()) == ["rooms", "rooms.tar"]


def test_tar_is_compatible_with_other_programs(both: tuple[Path, Path], tmp_path: Path) -> None:
    with tarfile.open(both[1], "r:") as tar:
        assert tar.getnames() == ["index.json", "responses.float32"]
        tar.extractall(tmp_path / "rooms", filter="data")
    assert {p.name: p.read_bytes() for p in (tmp_path / "rooms").iterdir()} == {
        p.name: p.read_bytes() for p in both[0].iterdir()
    }
    with tarfile.open(tmp_path / "mine.tar", "w") as tar:
        tar.add(tmp_path / "rooms", "rooms")
    assert np.array_equal(RoomBank(tmp_path / "mine.tar").response(3), RoomBank(both[0]).response(3))


def test_mixtures_from_tar_equal_those_from_folder(both: tuple[Path, Path], utterances: list[Utterance]) -> None:
    def sample(bank: Path):
        rooms = RoomConfig(rt60_s=(0.05, 2.0), bank=str(bank))
        config = SimulationConfig(duration_s=1.0, room=rooms, enrollment=EnrollmentConfig(duration_s=(1.0, 1.5)))
        return Simulator(config, utterances, [], FileReader(8000)).sample(0, 0)

    one, other = map(sample, both)
    assert np.array_equal(one.mixture, other.mixture) and other.recipe.room.path == str(both[1])


def test_damaged_or_foreign_tar_is_refused(both: tuple[Path, Path], tmp_path: Path) -> None:
    whole = both[1].read_bytes()
    path = tmp_path / "rooms.tar"
    with tarfile.open(both[1], "r:") as tar:
        samples = tar.getmember("responses.float32")
    for length in (samples.offset_data + samples.size - 1, samples.offset_data + 1000, samples.offset_data):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"responses\.float32: is missing or cut short; make the bank again"):
            RoomBank(path)
    path.write_bytes(whole[:600])
    with pytest.raises(InputError, match=r"rooms\.tar: is cut short, or no uncompressed tar"):
        RoomBank(path)
    path.write_bytes(b"not a tar at all" * 100)
    with pytest.raises(InputError, match=r"rooms\.tar: is cut short, or no uncompressed tar"):
        open_bank(path)
    with tarfile.open(path, "w:gz") as tar:
        tar.add(both[0], "rooms")
    with pytest.raises(InputError, match=r"rooms\.tar: is cut short, or no uncompressed tar"):
        open_bank(path)
    with pytest.raises(InputError, match="holds no finished room bank"):
        open_bank(tmp_path / "none.tar")


def test_interrupted_tar_is_resumed_and_another_kept(both: tuple[Path, Path], tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(done: int, _: int) -> None:
        if done == 2:
            raise Killed

    path = tmp_path / "rooms.tar"
    with pytest.raises(Killed):
        make_bank(CONFIG, path, on_progress=kill)
    assert not path.exists() and (tmp_path / "rooms.tar.part").is_dir()
    seen: list[int] = []
    make_bank(CONFIG, path, on_progress=lambda done, _: seen.append(done))
    assert seen == [3, 4] and path.read_bytes() == both[1].read_bytes()
    assert [entry.name for entry in tmp_path.iterdir()] == ["rooms.tar"]
    before = path.stat().st_mtime_ns
    assert make_bank(CONFIG, path).fingerprint == RoomBank(both[0]).fingerprint
    assert path.stat().st_mtime_ns == before
    other = dataclasses.replace(CONFIG, seed=7, simulated=dataclasses.replace(ROOMS, count=1))
    with pytest.raises(OutputExistsError, match=r"rooms\.tar: holds another bank; name another output, or pass --over"):
        make_bank(other, path)
    replaced = make_bank(other, path, overwrite=True)
    assert open_bank(path).fingerprint == replaced.fingerprint and len(replaced.rooms) == 1


def test_script_writes_a_tar(tmp_path: Path) -> None:
    folder = Path(__file__).parents[3] / "simulation"
    changes = ["simulated.count=1", "simulated.method=fra", "sample_rate=8000"]
    command = [sys.executable, folder / "make_room_bank.py", folder / "room_bank.yaml", *changes, "-o", "rooms.tar"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(RoomBank(tmp_path / "rooms.tar").rooms) == 1
