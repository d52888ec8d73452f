"""Reading shards: equal samples as from files, few bytes, few open files, and the detection of damage."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from wesep_py.common.errors import AudioError, InputError
from wesep_py.data import FileReader, Reader, Utterance, perturb_speed
from wesep_py.data import remote as remote_module
from wesep_py.data.shard_store import ShardReader
from wesep_py.data.shard_writing import check_shards, write_shards

RATE = 16000


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("rate", [RATE, 8000])
@pytest.mark.parametrize("url", [False, True])
def test_shards_and_files_give_the_same_samples(utterances: list[Utterance], shards: Path, rate: int, url: bool):
    if url:
        pytest.importorskip("fsspec")
    reader, files = ShardReader(f"file://{shards}" if url else shards, rate), FileReader(rate)
    assert isinstance(reader, Reader)
    assert reader.sample_rate == rate
    for utterance in perturb_speed(utterances, [1, 1.1]):
        assert reader.length(utterance) == files.length(utterance)
        np.testing.assert_array_equal(reader.read(utterance, 100, 300), files.read(utterance, 100, 300))
        np.testing.assert_array_equal(reader.read(utterance), files.read(utterance))


@pytest.mark.parametrize("form", ["wav", "opus-as-is"])
def test_other_formats_give_the_same_samples(utterances: list[Utterance], tmp_path: Path, form: str):
    write_shards(utterances, tmp_path / "s", form=form)
    reader, files = ShardReader(tmp_path / "s", RATE), FileReader(RATE)
    for utterance in utterances:
        np.testing.assert_array_equal(reader.read(utterance), files.read(utterance))


def test_errors_name_a_missing_or_cut_shard(utterances: list[Utterance], shards: Path, tmp_path: Path):
    pytest.importorskip("fsspec")
    for name, data in contents(shards).items():
        (tmp_path / name).write_bytes(data)
    cut = tmp_path / "000001.tar"
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) // 4])
    with pytest.raises(
        InputError, match=rf"000001\.tar: has {len(whole) // 4} bytes, and was written with {len(whole)}"
    ):
        ShardReader(tmp_path, RATE)
    last = json.loads((tmp_path / "000001.json").read_text())["utterances"][-1]["utterance_id"]
    reader = ShardReader(f"file://{tmp_path}", RATE)  # the sizes of remote files are not looked at
    (utterance,) = [utterance for utterance in utterances if utterance.utterance_id == last]
    with pytest.raises(AudioError, match=r"000001\.tar: is cut short: bytes \d+ to \d+ were to be read"):
        reader.read(utterance)
    cut.unlink()
    with pytest.raises(InputError, match=r"000001\.tar: is missing; get a whole copy"):
        ShardReader(tmp_path, RATE)
    with pytest.raises(AudioError, match=r"000001\.tar: cannot be read"):
        reader.read(utterance)


def test_a_damaged_byte_is_found_by_reading_and_by_checking(utterances: list[Utterance], shards: Path, tmp_path: Path):
    for name, data in contents(shards).items():
        (tmp_path / name).write_bytes(data)
    assert check_shards(tmp_path) == []
    entry = json.loads((tmp_path / "000000.json").read_text())["utterances"][0]
    damaged = bytearray((tmp_path / "000000.tar").read_bytes())
    damaged[entry["offset"] + entry["size"] // 2] ^= 1
    (tmp_path / "000000.tar").write_bytes(damaged)
    (utterance,) = [utterance for utterance in utterances if utterance.utterance_id == entry["utterance_id"]]
    with pytest.raises(AudioError, match=r"utterance .* is damaged \(its checksum differs\)"):
        ShardReader(tmp_path, RATE).read(utterance)
    (tmp_path / "000001.tar").unlink()
    seen: list[tuple[int, int]] = []
    problems = check_shards(tmp_path, lambda *now: seen.append(now))
    assert [Path(line.partition(":")[0]).name for line in problems] == ["000000.tar", "000001.tar"]
    assert "is damaged: its SHA-256 is not" in problems[0] and "cannot be read" in problems[1]
    assert seen[-1][0] == seen[-1][1] == len(seen)
    (tmp_path / "000001.tar").write_bytes((shards / "000001.tar").read_bytes())
    (tmp_path / "index.jsonl").write_bytes((tmp_path / "index.jsonl").read_bytes().replace(b"anna", b"bert"))
    with pytest.raises(InputError, match=r"index\.jsonl: is damaged"):
        ShardReader(tmp_path, RATE)


def test_a_folder_without_shards_or_of_another_format_is_an_error(tmp_path: Path):
    with pytest.raises(InputError, match=r"shards\.json: cannot be read \(No such file"):
        ShardReader(tmp_path, RATE)
    (tmp_path / "shards.json").write_text('{"format": 99, "shards": []}')
    with pytest.raises(InputError, match="has format 99; format 1 is needed"):
        ShardReader(tmp_path, RATE)
    (tmp_path / "shards.json").write_text("{")
    with pytest.raises(InputError, match="is not a summary of shards"):
        ShardReader(tmp_path, RATE)


def test_utterances_that_were_not_packed_are_errors(utterances: list[Utterance], shards: Path):
    reader = ShardReader(shards, RATE)
    with pytest.raises(InputError, match="holds no utterance 'nobody'"):
        reader.read(replace(utterances[0], utterance_id="nobody"))
    with pytest.raises(InputError, match="it has "):
        reader.read(utterances[0], 0, 10**9)
    with pytest.raises(InputError, match="sample_rate: is 0"):
        ShardReader(shards, 0)


def test_the_cache_stays_within_its_size_and_is_not_modified(utterances: list[Utterance], shards: Path):
    reader = ShardReader(shards, RATE, cache_mib=0.15)
    for utterance in [*utterances, *utterances]:
        first = reader.read(utterance)
        expected = first.copy()
        first[:] = 7
        np.testing.assert_array_equal(reader.read(utterance), expected)
        assert (
            sum(entry.samples.nbytes for entry in reader._cache.entries.values())
            == reader._cache.num_bytes
            <= 0.15 * 2**20
        )
    assert reader._cache.entries


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_open_files_do_not_grow(utterances: list[Utterance], shards: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(remote_module, "MAX_OPEN_FILES", 2)
    reader = ShardReader(shards, RATE, cache_mib=0)
    before = open_files()
    for utterance in [*utterances, *utterances]:
        reader.read(utterance)
        assert open_files() <= before + 2


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_reader_works_in_another_process(utterances: list[Utterance], shards: Path, method: str):
    reader = ShardReader(shards, RATE, cache_mib=0)
    expected = [hashlib.sha256(reader.read(utterance)).hexdigest() for utterance in utterances]
    with ProcessPoolExecutor(2, mp_context=get_context(method)) as pool:
        digests = list(pool.map(read_hash, [reader] * len(utterances), utterances))
    assert digests == expected
    assert [hashlib.sha256(reader.read(utterance)).hexdigest() for utterance in utterances] == expected


def read_hash(reader: Reader, utterance: Utterance) -> str:
    return hashlib.sha256(reader.read(utterance)).hexdigest()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_does_not_move_the_position_of_its_parents_files(utterances: list[Utterance], shards: Path):
    reader = ShardReader(shards, RATE, cache_mib=0)
    reader.read(utterances[0])
    files = dict(reader.store._folder._files)
    child = os.fork()
    if child == 0:
        reader.read(utterances[1])
        os._exit(int(any(reader.store._folder._files.get(name) is file for name, file in files.items())))
    assert os.waitpid(child, 0)[1] == 0


def test_a_pickled_reader_holds_no_audio(utterances: list[Utterance], shards: Path):
    reader = ShardReader(shards, RATE)
    size = len(pickle.dumps(reader))
    for utterance in utterances:
        reader.read(utterance)
    assert len(pickle.dumps(reader)) == size < 5000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(reader)).read(utterances[0]), reader.read(utterances[0]))


def test_an_unknown_kind_of_url_is_an_error():
    pytest.importorskip("fsspec")
    with pytest.raises(InputError, match="nonsense://x: is not a URL that fsspec opens"):
        ShardReader("nonsense://x", RATE)
