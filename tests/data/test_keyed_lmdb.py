"""LMDB files of WeSep: recordings under their own keys; the pickled list of keys is never read."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lmdb")

from tests.data.public_layouts import RATE, make_lmdb
from wesep_py.common.errors import InputError, WesepError
from wesep_py.data import find_noises, open_reader, read_speech, write_lmdb
from wesep_py.data.keyed_lmdb import KeyedLMDB, is_keyed_lmdb
from wesep_py.simulation.rooms.recorded_rooms import find_recorded_rooms, read_recorded_room


def noises() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {f"noise/free-sound/n{k}.wav": 0.1 * rng.uniform(-1, 1, 4000 + 1000 * k) for k in range(3)}


class Explosive:
    def __reduce__(self):
        return (pytest.fail, ("__keys__ was unpickled",))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    import lmdb

    made = make_lmdb(tmp_path / "lmdb", noises())
    environment = lmdb.open(str(made))
    with environment.begin(write=True) as transaction:
        transaction.put(b"__keys__", pickle.dumps(Explosive()))
    environment.close()
    return made


def test_noises_are_listed_and_read_without_unpickling(folder: Path, tmp_path: Path):
    found = find_noises(["lmdb"], tmp_path)
    assert [u.utterance_id for u in found] == sorted(noises())
    assert [round(u.duration_s * RATE) for u in found] == [4000, 5000, 6000]
    reader = open_reader([folder], RATE)
    for utterance in found:
        expected = noises()[utterance.utterance_id]
        np.testing.assert_allclose(reader.read(utterance), expected, atol=2e-4)


def test_store_is_sent_to_other_processes(folder: Path):
    store = pickle.loads(pickle.dumps(KeyedLMDB(folder)))
    assert store.entry("noise/free-sound/n1.wav").num_samples == 5000
    assert store.identity() == KeyedLMDB(folder).identity()


def test_room_responses_are_grouped_by_their_folder(tmp_path: Path):
    taps = np.zeros(4000)
    taps[100], taps[300] = 1.0, 0.4
    keys = {f"simulated_rirs/room{room}/r{k}.wav": 0.9 * taps for room in (1, 2) for k in range(2)}
    rooms = find_recorded_rooms(make_lmdb(tmp_path / "rirs", keys))
    assert [(room.name, len(room.paths)) for room in rooms] == [
        ("simulated_rirs/room1", 2),
        ("simulated_rirs/room2", 2),
    ]
    room = read_recorded_room(rooms[0], 0, RATE, 1.0)
    assert room is not None and len(room.responses) == 2


def test_file_of_our_own_is_no_keyed_lmdb(tmp_path: Path, folder: Path):
    write_lmdb(find_utterances(tmp_path), tmp_path / "own.lmdb")
    assert is_keyed_lmdb(folder) and not is_keyed_lmdb(tmp_path / "own.lmdb") and not is_keyed_lmdb(tmp_path)


def find_utterances(tmp_path: Path):
    import soundfile

    (tmp_path / "flat").mkdir()
    soundfile.write(tmp_path / "flat/a.wav", np.zeros(1600) + 0.1, RATE)
    return find_noises(["flat"], tmp_path)


def test_keys_without_audio_are_refused(tmp_path: Path):
    import lmdb

    environment = lmdb.open(str(tmp_path / "other"))
    with environment.begin(write=True) as transaction:
        transaction.put(b"image-1", b"\x89PNG something")
    environment.close()
    with pytest.raises(InputError, match=r"its key 'image-1' holds no audio .*tools/make_lmdb\.py"):
        find_noises(["other"], tmp_path)


def test_empty_file_is_refused(tmp_path: Path):
    make_lmdb(tmp_path / "empty", {})
    with pytest.raises(InputError, match="holds no recording"):
        find_noises(["empty"], tmp_path)


def test_speech_needs_speakers(folder: Path, tmp_path: Path):
    with pytest.raises(InputError, match="names no speakers"):
        read_speech(["lmdb"], tmp_path)


@pytest.mark.parametrize("size", [0, 10, 4096, 8192, -100])
def test_cut_files_are_refused(folder: Path, tmp_path: Path, size: int):
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "data.mdb").write_bytes((folder / "data.mdb").read_bytes()[:size])
    with pytest.raises(WesepError, match="get a whole copy of it") as raised:
        KeyedLMDB(tmp_path / "cut")
    assert "\n" not in str(raised.value)
