"""Writing shards: their content, restart and refusals; and indexing the shards of other programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.common.errors import AudioError, InputError, OutputExistsError
from wesep_py.data import FileReader, Utterance, read_speaker_folders
from wesep_py.data.shard_store import ShardReader, ShardStore
from wesep_py.data.shard_writing import check_shards, index_shards, member_key, write_shards

RATE = 16000
SIZE_MIB = 0.2


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


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


def test_the_layout_is_that_of_webdataset(utterances: list[Utterance], shards: Path):
    descriptions = {}
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as tar:
            names = tar.getnames()
            assert [name.partition(".")[0] for name in names[::2]] == [name.partition(".")[0] for name in names[1::2]]
            for name in names[::2]:
                descriptions |= {name: json.load(tar.extractfile(name))}
    assert {facts["utterance_id"] for facts in descriptions.values()} == {u.utterance_id for u in utterances}
    assert descriptions[f"{member_key('x/loud.wav')}.json"]["num_samples"] == 22050
    assert member_key("x/loud.wav").count(".") == 0


def test_shuffled_shards_hold_more_speakers_than_ordered_ones(tiny_speech: Path, tmp_path: Path):
    utterances = read_speaker_folders(tiny_speech)
    write_shards(utterances, tmp_path / "mixed", size_mib=SIZE_MIB)
    write_shards(utterances, tmp_path / "ordered", size_mib=SIZE_MIB, shuffle=False)
    assert [u.utterance_id for u in ShardStore(tmp_path / "ordered").utterances()] == [
        u.utterance_id for u in utterances
    ]
    first = [json.loads((tmp_path / name / "000000.json").read_text())["utterances"] for name in ("mixed", "ordered")]
    mixed, ordered = [{utterance["speaker_id"] for utterance in some} for some in first]
    assert len(mixed) > len(ordered)


def test_the_bytes_depend_on_neither_processes_nor_input_order(
    utterances: list[Utterance], shards: Path, tmp_path: Path
):
    write_shards(list(reversed(utterances)), tmp_path / "s", size_mib=SIZE_MIB, jobs=2)
    assert contents(tmp_path / "s") == contents(shards)


def test_an_interrupted_run_keeps_complete_shards_and_resumes(
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


def test_another_corpus_is_replaced_only_with_overwrite(tiny_speech: Path, tmp_path: Path):
    utterances = read_speaker_folders(tiny_speech)
    write_shards(utterances, tmp_path / "s", size_mib=SIZE_MIB)
    before = contents(tmp_path / "s")
    with pytest.raises(OutputExistsError, match="holds shards of another corpus, or of one that has changed"):
        write_shards(utterances[:3], tmp_path / "s", size_mib=SIZE_MIB)
    assert contents(tmp_path / "s") == before
    result = write_shards(utterances[:3], tmp_path / "s", size_mib=100, overwrite=True)
    assert (result.num_shards, result.num_utterances) == (1, 3)
    assert sorted(contents(tmp_path / "s")) == ["000000.json", "000000.tar", "index.jsonl", "shards.json"]


def test_a_changed_recording_is_packed_anew(tmp_path: Path):
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


def test_unreadable_recordings_are_left_out_and_named(tiny_speech: Path, tmp_path: Path):
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
    with pytest.raises(InputError, match=r"holds 'thesis\.txt', which is not a shard"):
        write_shards(utterances, tmp_path / "mine")
    assert (tmp_path / "mine/thesis.txt").read_text() == "years"


def test_shards_without_an_index_get_one(tmp_path: Path, shards: Path, utterances: list[Utterance]):
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


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("indexed", [False, True])
def test_tar_files_of_other_programs_are_kept(
    tiny_speech: Path, shards: Path, tmp_path: Path, indexed: bool, overwrite: bool
):
    folder = tmp_path / "theirs"
    folder.mkdir()
    for path in shards.glob("*.tar"):
        (folder / path.name).write_bytes(path.read_bytes())
    if indexed:
        index_shards(folder)
    before = contents(folder)
    with pytest.raises(
        InputError, match=r"holds '000000\.tar', and no '000000\.json' says that `wesep shard` wrote it"
    ):
        write_shards(read_speaker_folders(tiny_speech), folder, overwrite=overwrite)
    assert contents(folder) == before


@pytest.mark.parametrize("name", ["index.jsonl", "shards.json", "000000.json", "000001.json"])
def test_lists_of_other_programs_are_kept(tiny_speech: Path, tmp_path: Path, name: str):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text('{"mine": 1}')
    with pytest.raises(InputError, match=f"holds '{name}'"):
        write_shards(read_speaker_folders(tiny_speech), tmp_path / "mine", overwrite=True)
    assert contents(tmp_path / "mine") == {name: b'{"mine": 1}'}


def test_a_simultaneous_run_changes_nothing(tiny_speech: Path, tmp_path: Path):
    utterances = read_speaker_folders(tiny_speech)
    program = (
        "import sys; from pathlib import Path; from wesep_py.data import read_speaker_folders, write_shards\n"
        "write_shards(read_speaker_folders(Path(sys.argv[1])), sys.argv[2], size_mib=0.2)"
    )
    ran = []

    def another(done: int, total: int) -> None:
        if not ran:
            command = [sys.executable, "-c", program, str(tiny_speech), str(tmp_path / "s")]
            ran.append(subprocess.run(command, capture_output=True, text=True, check=False))

    write_shards(utterances, tmp_path / "s", size_mib=SIZE_MIB, on_progress=another)
    assert ran[0].returncode and "another run is writing shards here" in ran[0].stderr
    assert check_shards(tmp_path / "s") == []
    assert not list((tmp_path / "s").glob(".*"))


def test_devices_and_pipes_are_never_read(tmp_path: Path):
    (tmp_path / "000000.tar").symlink_to("/dev/zero")
    with pytest.raises(AudioError, match=r"000000\.tar: is not a file"):
        index_shards(tmp_path)
    (tmp_path / "000000.tar").unlink()
    (tmp_path / "._000000.tar").write_bytes(b"of another system")
    with pytest.raises(InputError, match="holds no tar file"):
        index_shards(tmp_path)
