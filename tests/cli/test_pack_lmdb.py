"""`wesep lmdb`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.conftest import Ran
from wesep_py.cli.main import run_command
from wesep_py.data import FileReader, find_noises, read_speaker_folders, write_manifest
from wesep_py.data.lmdb_store import LMDBReader, LMDBStore

pytest.importorskip("lmdb")


@pytest.fixture
def lmdb(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        status = run_command("lmdb", [str(argument) for argument in arguments])
        return Ran(status, *capsys.readouterr())

    return run


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "data/musan/noise").mkdir(parents=True)
    for name in ("one", "two three"):
        soundfile.write(tmp_path / f"data/musan/noise/{name}.wav", rng.uniform(-0.5, 0.5, (4000, 2)), 16000)
    return tmp_path / "data/musan"


def test_ids_and_samples_are_those_of_the_packed_folder(noise: Path, tmp_path: Path, lmdb: Callable):
    ran = lmdb(noise, "-o", tmp_path / "noise.lmdb", "--jobs", "1")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == f"{tmp_path}/noise.lmdb: 2 recordings, 0.0 MiB\n"
    reader, files = LMDBReader(tmp_path / "noise.lmdb", 16000), FileReader(16000)
    named = find_noises(["musan"], tmp_path / "data")
    assert [utterance.utterance_id for utterance in named] == ["noise/musan/noise/one", "noise/musan/noise/two_three"]
    assert reader.store.utterances(tmp_path / "data") == named
    for utterance in named:
        np.testing.assert_array_equal(reader.read(utterance), files.read(utterance))


def test_ids_are_relative_to_the_root(noise: Path, tmp_path: Path, lmdb: Callable):
    assert lmdb(noise, "-o", tmp_path / "n.lmdb", "--root", tmp_path).status == 0
    assert set(LMDBStore(tmp_path / "n.lmdb").records) == {f"noise/data/musan/noise/{n}" for n in ("one", "two_three")}


def test_a_manifest_is_packed(tiny_speech: Path, tmp_path: Path, lmdb: Callable):
    utterances = read_speaker_folders(tiny_speech)[:3]
    write_manifest(utterances, tmp_path / "m.jsonl", relative_to=tiny_speech)
    ran = lmdb(tmp_path / "m.jsonl", "--root", tiny_speech, "-o", tmp_path / "m.lmdb", "--json")
    assert ran.status == 0
    size = (tmp_path / "m.lmdb").stat().st_size
    assert json.loads(ran.out) == {"file": f"{tmp_path}/m.lmdb", "recordings": 3, "size": size, "left_out": []}
    assert LMDBStore(tmp_path / "m.lmdb").utterances(tiny_speech) == utterances


def test_room_responses_keep_their_channels(noise: Path, tmp_path: Path, lmdb: Callable):
    assert lmdb(noise, "-o", tmp_path / "n.lmdb", "--all-channels").status == 0
    assert LMDBStore(tmp_path / "n.lmdb").waveform("noise/musan/noise/one")[0].shape == (2, 4000)


def test_unreadable_recordings_are_named_and_left_out(noise: Path, tmp_path: Path, lmdb: Callable):
    (noise / "bad.wav").write_text("no audio")
    ran = lmdb(noise, "-o", tmp_path / "n.lmdb")
    assert ran.status == 1
    first, last = ran.err.splitlines()
    assert first.startswith(f"left out: {noise}/bad.wav: is not audio")
    assert last == f"wesep lmdb: 1 recordings were left out; {tmp_path}/n.lmdb holds the rest"
    assert len(LMDBStore(tmp_path / "n.lmdb").records) == 2


def test_wrong_usage_is_a_one_line_error(noise: Path, tmp_path: Path, lmdb: Callable):
    assert "end it in .lmdb" in lmdb(noise, "-o", tmp_path / "noise").message
    (tmp_path / "empty").mkdir()
    assert "holds no audio that can be read" in lmdb(tmp_path / "empty", "-o", tmp_path / "n.lmdb").message
    assert "no such file" in lmdb(tmp_path / "none.jsonl", "-o", tmp_path / "n.lmdb").message
    lmdb(noise, "-o", tmp_path / "n.lmdb")
    assert "exists already" in lmdb(noise, "-o", tmp_path / "n.lmdb").message
    assert lmdb(noise, "-o", tmp_path / "n.lmdb", "--overwrite").status == 0
    assert lmdb("--help").status == 0
