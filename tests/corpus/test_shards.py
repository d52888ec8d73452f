from __future__ import annotations

import hashlib
import json
import os
import pickle
import tarfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.corpus import FileReader, Reader, Utterance, perturb_speed, read_speaker_folders
from wesep_py.corpus import remote as remote_module
from wesep_py.corpus.shard_check import check_shards
from wesep_py.corpus.shard_index import index_shards
from wesep_py.corpus.shard_store import ShardReader, ShardStore
from wesep_py.corpus.shards import member_key, write_shards
from wesep_py.errors import AudioError, InputError, OutputExistsError

RATE = 16000
SIZE_MIB = 0.2


@pytest.fixture(scope="module")
def utterances(tiny_speech: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    """Whole recordings, a segment, one beyond full scale, one of 24 bits and two at other rates in lossy formats."""
    folder = tmp_path_factory.mktemp("more")
    sound = np.sin(np.arange(22050) / 9)
    soundfile.write(folder / "loud.wav", 1.9 * sound, RATE, subtype="FLOAT")
    soundfile.write(folder / "fine.wav", 0.3 * sound, 44100, subtype="PCM_24")
    soundfile.write(folder / "other.ogg", 0.3 * sound, 22050)
    soundfile.write(folder / "other.mp3", 0.3 * sound, 22050)
    whole = read_speaker_folders(tiny_speech)
    more = [
        Utterance(f"x/{name}", f"x{number}", folder / name, soundfile.info(folder / name).duration, gender="f")
        for number, name in enumerate(["loud.wav", "fine.wav", "other.ogg", "other.mp3"])
    ]
    return [*whole[::2], Utterance("cut", "anna", whole[0].path, 0.7, start_s=0.9), *more]


@pytest.fixture(scope="module")
def shards(utterances: list[Utterance], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "shards"
    write_shards(utterances, folder, size_mib=SIZE_MIB)
    return folder


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


def test_the_index_is_the_manifest_that_was_packed(utterances: list[Utterance], shards: Path, tiny_speech: Path):
    by_id = {utterance.utterance_id: utterance for utterance in utterances}
    assert {u.utterance_id: u for u in ShardStore(shards).utterances()} == by_id
    assert len(json.loads((shards / "shards.json").read_text())["shards"]) > 2


def test_paths_below_the_root_are_written_relative_to_it(tiny_speech: Path, tmp_path: Path):
    utterances = read_speaker_folders(tiny_speech)[:2]
    write_shards(utterances, tmp_path / "s", root=tiny_speech)
    assert {u.path for u in ShardStore(tmp_path / "s").utterances()} == {
        Path("anna/anna-0.wav"),
        Path("anna/anna-1.wav"),
    }
    assert {u.path for u in ShardStore(tmp_path / "s").utterances(tiny_speech)} == {u.path for u in utterances}


def test_the_layout_is_webdatasets(utterances: list[Utterance], shards: Path):
    found = {}
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as tar:
            names = tar.getnames()
            assert [name.partition(".")[0] for name in names[::2]] == [name.partition(".")[0] for name in names[1::2]]
            for name in names[::2]:
                found |= {name: json.load(tar.extractfile(name))}
    assert {about["utterance_id"] for about in found.values()} == {u.utterance_id for u in utterances}
    assert found[f"{member_key('x/loud.wav')}.json"]["num_samples"] == 22050
    assert member_key("x/loud.wav").count(".") == 0


def test_each_shard_holds_many_speakers_unless_the_order_is_kept(tiny_speech: Path, tmp_path: Path):
    utterances = read_speaker_folders(tiny_speech)
    write_shards(utterances, tmp_path / "mixed", size_mib=SIZE_MIB)
    write_shards(utterances, tmp_path / "kept", size_mib=SIZE_MIB, shuffle=False)
    assert [u.utterance_id for u in ShardStore(tmp_path / "kept").utterances()] == [u.utterance_id for u in utterances]
    first = [json.loads((tmp_path / name / "000000.json").read_text())["utterances"] for name in ("mixed", "kept")]
    mixed, kept = [{utterance["speaker_id"] for utterance in some} for some in first]
    assert len(mixed) > len(kept)


def test_the_bytes_depend_on_neither_processes_nor_the_order_given(
    utterances: list[Utterance], shards: Path, tmp_path: Path
):
    write_shards(list(reversed(utterances)), tmp_path / "s", size_mib=SIZE_MIB, jobs=2)
    assert contents(tmp_path / "s") == contents(shards)


def test_whole_shards_are_kept_and_an_interrupted_run_is_completed(
    utterances: list[Utterance], shards: Path, tmp_path: Path
):
    folder = tmp_path / "s"
    count = write_shards(utterances, folder, size_mib=SIZE_MIB).num_shards
    assert write_shards(utterances, folder, size_mib=SIZE_MIB).num_kept == count
    expected = contents(folder)
    (folder / "shards.json").unlink()
    (folder / "000001.json").unlink()  # killed between the two files of a shard
    (folder / "000002.tar").write_bytes((folder / "000002.tar").read_bytes()[:-1000])
    (folder / ".000003.abcd12.tar").write_bytes(b"left behind by a run that was killed")
    with pytest.raises(InputError, match=r"shards\.json: cannot be read"):
        ShardReader(folder, RATE)
    times = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    done: list[tuple[int, int]] = []
    result = write_shards(utterances, folder, size_mib=SIZE_MIB, on_progress=lambda *now: done.append(now))
    assert (result.num_kept, result.num_shards) == (count - 2, count)
    assert done[-1] == (len(utterances), len(utterances)) and len(done) == 2
    assert contents(folder) == expected
    now = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    assert {name for name in now if now[name] != times[name]} == {"000001.tar", "000002.tar"}


def test_shards_of_another_corpus_are_replaced_only_when_asked(tiny_speech: Path, tmp_path: Path):
    utterances = read_speaker_folders(tiny_speech)
    write_shards(utterances, tmp_path / "s", size_mib=SIZE_MIB)
    before = contents(tmp_path / "s")
    with pytest.raises(OutputExistsError, match="holds shards of another corpus, or of one that has changed"):
        write_shards(utterances[:3], tmp_path / "s", size_mib=SIZE_MIB)
    assert contents(tmp_path / "s") == before
    result = write_shards(utterances[:3], tmp_path / "s", size_mib=100, overwrite=True)
    assert (result.num_shards, result.num_utterances) == (1, 3)
    assert sorted(contents(tmp_path / "s")) == ["000000.json", "000000.tar", "index.jsonl", "shards.json"]


def test_a_recording_that_has_changed_is_packed_anew(tmp_path: Path):
    utterances = [Utterance(name, "a", tmp_path / f"{name}.wav", 0.5) for name in ("one", "two")]
    for utterance in utterances:
        soundfile.write(utterance.path, np.full(8000, 0.25), RATE)
    write_shards(utterances, tmp_path / "s")
    soundfile.write(utterances[0].path, np.full(8000, 0.5), RATE)  # as large as before
    os.utime(utterances[0].path, ns=(1, 1))
    with pytest.raises(OutputExistsError, match="or of one that has changed"):
        write_shards(utterances, tmp_path / "s")
    assert write_shards(utterances, tmp_path / "s", overwrite=True).num_kept == 0
    assert ShardReader(tmp_path / "s", RATE).read(utterances[0]).max() == 0.5


def test_broken_recordings_are_left_out_and_named(tiny_speech: Path, tmp_path: Path):
    good = read_speaker_folders(tiny_speech)[:2]
    (tmp_path / "bad.wav").write_text("no audio")
    bad = Utterance("bad", "bad", tmp_path / "bad.wav", 1.0)
    gone = Utterance("gone", "bad", tmp_path / "gone.wav", 1.0)
    short = replace(good[0], utterance_id="short", duration_s=99.0)
    result = write_shards([*good, bad, gone, short], tmp_path / "s")
    assert (result.num_utterances, result.num_speakers) == (2, 1)
    assert len(result.left_out) == 3
    for reason in ("bad.wav: is not audio", "gone.wav: no such file", "'short' is said to end at 99.000 s"):
        assert sum(reason in line for line in result.left_out) == 1
    assert json.loads((tmp_path / "s/shards.json").read_text())["left_out"] == list(result.left_out)
    assert write_shards([*good, bad, gone, short], tmp_path / "s").left_out == result.left_out
    with pytest.raises(InputError, match="none of the 2 recordings can be read; the first:"):
        write_shards([bad, gone], tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_impossible_requests_are_errors(tiny_speech: Path, tmp_path: Path):
    utterances = read_speaker_folders(tiny_speech)[:2]
    with pytest.raises(InputError, match="no utterance to put into shards"):
        write_shards([], tmp_path / "s")
    with pytest.raises(InputError, match="size_mib: is 0; MiB above 0"):
        write_shards(utterances, tmp_path / "s", size_mib=0)
    with pytest.raises(InputError, match="must be unique"):
        write_shards([utterances[0], replace(utterances[1], utterance_id=utterances[0].utterance_id)], tmp_path / "s")
    with pytest.raises(InputError, match="does not exist; create it first"):
        write_shards(utterances, tmp_path / "no/where")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years")
    with pytest.raises(InputError, match=r"holds 'thesis\.txt', which is no shard"):
        write_shards(utterances, tmp_path / "mine")
    assert (tmp_path / "mine/thesis.txt").read_text() == "years"


def test_a_shard_that_is_missing_or_cut_short_is_one_clear_line(
    utterances: list[Utterance], shards: Path, tmp_path: Path
):
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


def test_a_damaged_byte_is_found_when_read_and_when_checked(utterances: list[Utterance], shards: Path, tmp_path: Path):
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
    with pytest.raises(InputError, match="is of format 99, and 1 is read"):
        ShardReader(tmp_path, RATE)
    (tmp_path / "shards.json").write_text("{")
    with pytest.raises(InputError, match="is no summary of shards"):
        ShardReader(tmp_path, RATE)


def test_what_was_not_packed_is_an_error(utterances: list[Utterance], shards: Path):
    reader = ShardReader(shards, RATE)
    with pytest.raises(InputError, match="holds no utterance 'nobody'"):
        reader.read(replace(utterances[0], utterance_id="nobody"))
    with pytest.raises(InputError, match="it has "):
        reader.read(utterances[0], 0, 10**9)
    with pytest.raises(InputError, match="sample_rate: is 0"):
        ShardReader(shards, 0)


def test_the_cache_stays_within_its_size_and_cannot_be_spoilt(utterances: list[Utterance], shards: Path):
    reader = ShardReader(shards, RATE, cache_mib=0.15)
    for utterance in [*utterances, *utterances]:
        first = reader.read(utterance)
        expected = first.copy()
        first[:] = 7
        np.testing.assert_array_equal(reader.read(utterance), expected)
        assert (
            sum(kept.samples.nbytes for kept in reader._cache.kept.values()) == reader._cache.num_bytes <= 0.15 * 2**20
        )
    assert reader._cache.kept


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
        found = list(pool.map(read_hash, [reader] * len(utterances), utterances))
    assert found == expected
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


def test_a_reader_that_was_sent_holds_no_audio(utterances: list[Utterance], shards: Path):
    reader = ShardReader(shards, RATE)
    size = len(pickle.dumps(reader))
    for utterance in utterances:
        reader.read(utterance)
    assert len(pickle.dumps(reader)) == size < 5000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(reader)).read(utterances[0]), reader.read(utterances[0]))


def test_shards_that_came_without_an_index_get_one(tmp_path: Path, shards: Path, utterances: list[Utterance]):
    folder = tmp_path / "foreign"
    folder.mkdir()
    for path in shards.glob("*.tar"):
        (folder / path.name).write_bytes(path.read_bytes())
    result = index_shards(folder, jobs=2)
    assert (result.num_utterances, result.left_out) == (len(utterances), ())
    assert check_shards(folder) == []
    reader, files = ShardReader(folder, RATE), FileReader(RATE)
    for utterance in utterances:
        np.testing.assert_array_equal(reader.read(utterance), files.read(utterance))
    with pytest.raises(OutputExistsError, match="has an index already"):
        index_shards(folder)
    (folder / "999999.tar").write_bytes((folder / "000000.tar").read_bytes())
    with pytest.raises(InputError, match=r"999999\.tar: utterance_id .* is in 000000\.tar already"):
        index_shards(folder, overwrite=True)
    with pytest.raises(InputError, match="holds no tar file"):
        index_shards(tmp_path)


def test_a_url_of_no_known_kind_is_an_error():
    pytest.importorskip("fsspec")
    with pytest.raises(InputError, match="nonsense://x: is no URL that fsspec opens"):
        ShardReader("nonsense://x", RATE)
