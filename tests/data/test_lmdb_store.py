from __future__ import annotations

import hashlib
import json
import os
import pickle
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.audio.reading import encode_audio
from wesep_py.common.errors import AudioError, InputError, OutputExistsError, WesepError
from wesep_py.data import FileReader, Reader, Utterance, lmdb_store, perturb_speed, read_speaker_folders
from wesep_py.data.lmdb_store import LMDBReader, LMDBStore, StoredAudio, write_lmdb, write_lmdb_items

lmdb = pytest.importorskip("lmdb")

RATE = 16000


@pytest.fixture(scope="module")
def utterances(tiny_speech: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    folder = tmp_path_factory.mktemp("more")
    soundfile.write(folder / "loud.wav", 1.9 * np.sin(np.arange(8000) / 7), RATE, subtype="FLOAT")
    soundfile.write(folder / "other.ogg", 0.3 * np.sin(np.arange(22050) / 9), 22050)
    whole = read_speaker_folders(tiny_speech)
    return [
        *whole[:3],
        Utterance("cut", "anna", whole[0].path, 0.7, start_s=0.9),
        Utterance("noise/loud", "noise", folder / "loud.wav", 0.5),
        Utterance("noise/other", "noise", folder / "other.ogg", 1.0, gender="f"),
    ]


@pytest.fixture(scope="module")
def stored(utterances: list[Utterance], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("written") / "speech.lmdb"
    assert write_lmdb(utterances, path) == len(utterances)
    return path


def read_hash(reader: Reader, utterance: Utterance) -> str:
    return hashlib.sha256(reader.read(utterance)).hexdigest()


@pytest.mark.parametrize("rate", [RATE, 8000])
@pytest.mark.parametrize("form", ["flac", "wav", "opus-as-is"])
def test_an_lmdb_and_files_give_the_same_samples(utterances: list[Utterance], tmp_path: Path, form: str, rate: int):
    write_lmdb(utterances, tmp_path / "a.lmdb", form=form, threads=2)
    reader, files = LMDBReader(tmp_path / "a.lmdb", rate), FileReader(rate)
    assert isinstance(reader, Reader)
    for utterance in perturb_speed(utterances, [1, 0.9]):
        assert reader.length(utterance) == files.length(utterance)
        np.testing.assert_array_equal(reader.read(utterance, 100, 300), files.read(utterance, 100, 300))
        np.testing.assert_array_equal(reader.read(utterance), files.read(utterance))


def test_the_file_holds_audio_and_a_json_index(utterances: list[Utterance], stored: Path):
    assert [path.name for path in stored.parent.iterdir()] == ["speech.lmdb"]
    with lmdb.open(str(stored), subdir=False, readonly=True, lock=False) as environment, environment.begin() as inside:
        keys = {bytes(key).decode() for key, _ in inside.cursor()}
        index = json.loads(inside.get(b"index.json"))
        assert inside.get(b"audio/cut")[:4] == b"fLaC"
    assert keys == {"index.json"} | {f"audio/{utterance.utterance_id}" for utterance in utterances}
    assert index["format"] == 1 and len(index["utterances"]) == len(utterances)


def test_the_index_is_the_manifest_that_was_packed(utterances: list[Utterance], stored: Path, tiny_speech: Path):
    assert LMDBStore(stored).utterances() == utterances


def test_room_responses_keep_channels_and_extra_fields(tmp_path: Path):
    rng = np.random.default_rng(0)
    responses = {f"room-{n}": rng.standard_normal((2 + n, 400)).astype(np.float32) for n in range(3)}
    items = (
        StoredAudio(
            Utterance(name, "room", Path(f"{name}.wav"), 400 / RATE),
            encode_audio(taps, RATE),
            {"rt60_s": 0.2 + 0.1 * len(taps)},
        )
        for name, taps in responses.items()
    )
    assert write_lmdb_items(items, tmp_path / "rooms.lmdb") == 3
    store = LMDBStore(tmp_path / "rooms.lmdb")
    for name, taps in responses.items():
        waveform, rate = store.waveform(name)
        assert rate == RATE
        np.testing.assert_array_equal(waveform, taps)
        assert store.records[name]["rt60_s"] == 0.2 + 0.1 * len(taps)
    with pytest.raises(InputError, match="holds no 'room-9'"):
        store.waveform("room-9")


def test_recorded_responses_keep_all_channels(tmp_path: Path):
    taps = np.random.default_rng(0).uniform(-1, 1, (4, 300)).astype(np.float32)
    soundfile.write(tmp_path / "r.wav", taps.T, RATE, subtype="FLOAT")
    write_lmdb([Utterance("r", "room", tmp_path / "r.wav", 300 / RATE)], tmp_path / "r.lmdb", all_channels=True)
    np.testing.assert_array_equal(LMDBStore(tmp_path / "r.lmdb").waveform("r")[0], taps)


def test_the_map_grows_as_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lmdb_store, "_FIRST_MAP_BYTES", 2**16)
    waveform = np.random.default_rng(0).uniform(-1, 1, (1, 20000)).astype(np.float32)
    items = [
        StoredAudio(Utterance(f"n{n}", "noise", Path("n.wav"), 1.25), encode_audio(waveform, RATE)) for n in range(8)
    ]
    write_lmdb_items(items, tmp_path / "n.lmdb")
    store = LMDBStore(tmp_path / "n.lmdb")
    assert (tmp_path / "n.lmdb").stat().st_size > 8 * 80000
    for n in range(8):
        np.testing.assert_array_equal(store.waveform(f"n{n}")[0], waveform)


def test_one_process_can_have_two_readers_of_one_file(utterances: list[Utterance], stored: Path):
    first, other = LMDBReader(stored, RATE), LMDBReader(stored, 8000)
    assert first.read(utterances[0]).size == 2 * other.read(utterances[0]).size
    del first
    other = LMDBReader(stored, 8000, cache_mib=0)
    assert other.read(utterances[1]).size > 0


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_reader_works_in_another_process(utterances: list[Utterance], stored: Path, method: str):
    reader = LMDBReader(stored, RATE, cache_mib=0)
    expected = [read_hash(reader, utterance) for utterance in utterances]
    with ProcessPoolExecutor(2, mp_context=get_context(method)) as pool:
        assert list(pool.map(read_hash, [reader] * len(utterances), utterances)) == expected
    assert [read_hash(reader, utterance) for utterance in utterances] == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_opens_the_file_for_itself(utterances: list[Utterance], stored: Path):
    reader, second = LMDBReader(stored, RATE, cache_mib=0), LMDBStore(stored)
    expected = read_hash(reader, utterances[0])
    inherited = reader.store._environment
    child = os.fork()
    if child == 0:
        good = read_hash(reader, utterances[0]) == expected
        good = (
            good
            and second.data("cut")[:4] == b"fLaC"
            and second._environment is reader.store._environment is not inherited
        )
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert read_hash(reader, utterances[0]) == expected


def test_a_pickled_reader_holds_no_audio(utterances: list[Utterance], stored: Path):
    reader = LMDBReader(stored, RATE)
    size = len(pickle.dumps(reader))
    for utterance in utterances:
        reader.read(utterance)
    assert len(pickle.dumps(reader)) == size < 5000


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_open_files_do_not_grow(utterances: list[Utterance], stored: Path):
    def open_files() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    before = open_files()
    for _ in range(5):
        reader = LMDBReader(stored, RATE)
        reader.read(utterances[0])
        assert open_files() == before + 1
        del reader
    assert open_files() == before


def test_unreadable_recordings_are_skipped_and_named(utterances: list[Utterance], tmp_path: Path):
    (tmp_path / "bad.wav").write_text("no audio")
    bad = Utterance("bad", "noise", tmp_path / "bad.wav", 1.0)
    named: list[tuple[Path, str]] = []
    done: list[tuple[int, int]] = []
    count = write_lmdb(
        [bad, *utterances[:2]],
        tmp_path / "a.lmdb",
        on_skip=lambda *both: named.append(both),
        on_progress=lambda *now: done.append(now),
    )
    assert count == 2 and [path for path, _ in named] == [bad.path]
    assert done == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(AudioError, match=r"bad\.wav: is not audio"):
        write_lmdb([*utterances[:1], bad], tmp_path / "b.lmdb")
    with pytest.raises(InputError, match="no recording that can be written"):
        write_lmdb([bad], tmp_path / "b.lmdb", on_skip=lambda *both: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.lmdb", "bad.wav"]


def test_an_existing_file_is_kept_unless_overwritten(utterances: list[Utterance], tmp_path: Path):
    write_lmdb(utterances[:1], tmp_path / "a.lmdb")
    with pytest.raises(OutputExistsError, match="exists already"):
        write_lmdb(utterances[:2], tmp_path / "a.lmdb")
    assert len(LMDBStore(tmp_path / "a.lmdb").records) == 1
    write_lmdb(utterances[:2], tmp_path / "a.lmdb", overwrite=True)
    assert len(LMDBStore(tmp_path / "a.lmdb").records) == 2


def test_ids_that_do_not_fit_are_errors(utterances: list[Utterance], tmp_path: Path):
    with pytest.raises(InputError, match="has 501 bytes; 500 fit"):
        write_lmdb([replace(utterances[0], utterance_id="x" * 501)], tmp_path / "a.lmdb")
    with pytest.raises(InputError, match="must be unique"):
        write_lmdb(
            [utterances[0], replace(utterances[1], utterance_id=utterances[0].utterance_id)], tmp_path / "a.lmdb"
        )
    items = [StoredAudio(utterances[0], encode_audio(np.zeros((1, 5), np.float32), RATE))] * 2
    with pytest.raises(InputError, match="comes twice"):
        write_lmdb_items(items, tmp_path / "a.lmdb")
    write_lmdb([replace(utterances[0], utterance_id="x" * 500)], tmp_path / "a.lmdb")
    assert LMDBStore(tmp_path / "a.lmdb").data("x" * 500)[:4] == b"fLaC"


def test_errors_name_missing_cut_and_other_files(stored: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"none\.lmdb: no such file"):
        LMDBReader(tmp_path / "none.lmdb", RATE)
    (tmp_path / "text.lmdb").write_text("something else" * 1000)
    with pytest.raises(InputError, match=r"text\.lmdb: cannot be read as an LMDB"):
        LMDBReader(tmp_path / "text.lmdb", RATE)
    data = stored.read_bytes()
    (tmp_path / "cut.lmdb").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"cut\.lmdb: is cut short: it has \d+ bytes of \d+"):
        LMDBReader(tmp_path / "cut.lmdb", RATE)
    with lmdb.open(str(tmp_path / "other.lmdb"), subdir=False, lock=False) as other, other.begin(write=True) as inside:
        inside.put(b"key", b"value")
    with pytest.raises(InputError, match=r"other\.lmdb: holds no index"):
        LMDBReader(tmp_path / "other.lmdb", RATE)


def test_damaged_audio_is_one_error_line(utterances: list[Utterance], stored: Path, tmp_path: Path):
    data = bytearray(stored.read_bytes())
    audio = LMDBStore(stored).data("cut")
    data[data.index(audio[100:200]) + 50] ^= 1
    (tmp_path / "a.lmdb").write_bytes(data)
    with pytest.raises(AudioError, match=r"a\.lmdb: utterance 'cut': is damaged \(its checksum differs\)"):
        LMDBReader(tmp_path / "a.lmdb", RATE).read(utterances[3])


@pytest.fixture
def without_lmdb(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import sys

    monkeypatch.setitem(sys.modules, "lmdb", None)
    yield


def test_without_lmdb_the_error_says_what_to_install(stored: Path, tmp_path: Path, without_lmdb: None):
    with pytest.raises(InputError, match="lmdb is not installed; pip install lmdb"):
        write_lmdb_items([], tmp_path / "a.lmdb")
    with pytest.raises(InputError, match="lmdb is not installed; pip install lmdb"):
        LMDBReader(stored, RATE)


def _use(path: Path) -> list[str]:
    """Read everything in a file that may be damaged, and return the messages of the errors."""
    try:
        reader = LMDBReader(path, RATE)
        utterances = reader.store.utterances()
        reader.store.identity()
    except WesepError as error:
        return [str(error)]
    messages = []
    for utterance in utterances:
        try:
            reader.read(utterance)
        except WesepError as error:
            messages.append(str(error))
    return messages


def test_any_damage_is_one_error_line_with_the_path(stored: Path, tmp_path: Path) -> None:
    whole = stored.read_bytes()
    index, audio = whole.index(b'{"format"'), whole.index(b"fLaC")
    rng = np.random.default_rng(0)
    messages = []
    for number in range(120):
        damaged = bytearray(whole)
        # Of the index and of audio; what leads from page to page could end the process (a map has no bounds).
        place = index + int(rng.integers(700)) if number % 2 else audio + int(rng.integers(2000))
        damaged[place] = int(rng.choice([0, 1, 255, ord("7"), ord('"'), ord("}")]))
        path = tmp_path / f"{number}.lmdb"
        path.write_bytes(damaged)
        messages += [(path, line) for line in _use(path)]
        path.unlink()
    assert len(messages) > 20
    assert all(str(path) in line and "\n" not in line and len(line) < 500 for path, line in messages)


def test_missing_pages_are_one_error_line(stored: Path, tmp_path: Path) -> None:
    damaged = bytearray(stored.read_bytes())
    for page in (0, 4096):  # both copies of the root of the tree
        damaged[page + 128 : page + 136] = (999).to_bytes(8, "little")
    (tmp_path / "d.lmdb").write_bytes(damaged)
    with pytest.raises(WesepError, match=r"d\.lmdb: is damaged \(.*NOTFOUND"):
        LMDBStore(tmp_path / "d.lmdb")


def test_a_full_disk_is_one_error_line_and_leaves_no_file(
    utterances: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(environment: object, pairs: object, kind: object) -> None:
        raise lmdb.DiskError("mdb_txn_commit: No space left on device")

    monkeypatch.setattr(lmdb_store, "_put", full)
    with pytest.raises(WesepError, match=r"s\.lmdb: writing failed \(.*No space left.*\); nothing was changed"):
        write_lmdb(utterances, tmp_path / "s.lmdb")
    assert list(tmp_path.iterdir()) == []


def test_ids_match_in_both_spellings(utterances: list[Utterance], tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "Zoë") for form in ("NFC", "NFD")]
    for name in names:
        write_lmdb([replace(utterances[0], utterance_id=name)], tmp_path / f"{name}.lmdb")
        reader = LMDBReader(tmp_path / f"{name}.lmdb", RATE)
        assert all(reader.read(replace(utterances[0], utterance_id=other)).size for other in names)
