"""Shards that are read as a stream, window by window."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from tests.data.foreign_shards import RATE, audio, write_tar
from wesep_py.common.errors import AudioError, InputError
from wesep_py.data import FileReader, read_speaker_folders
from wesep_py.data.shard_stream import (
    StreamPool,
    StreamWindow,
    WindowId,
    expand_braces,
    is_stream,
    stream_identity,
    stream_shards,
)
from wesep_py.data.shard_writing import write_shards
from wesep_py.data.webdataset import read_shard_utterances

NUM_SHARDS, SPEAKERS_PER_SHARD = 7, 2
EPOCH_SIZE, BLOCK, LANES = 25, 2, 4


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Write shards of another program: two speakers each, two utterances each; keys begin with the speaker."""
    folder = tmp_path_factory.mktemp("foreign")
    paths = []
    for number in range(NUM_SHARDS):
        files = {}
        for speaker in range(SPEAKERS_PER_SHARD):
            for take in range(2):
                level = 0.1 + 0.1 * number + 0.03 * speaker + 0.01 * take
                files[f"spk{number}{speaker}-{take}.flac"] = audio(level)
                files[f"spk{number}{speaker}-{take}.txt"] = b"what is said"
        paths.append(str(write_tar(folder / f"{number:03d}.tar", files)))
    return paths


class Draw:
    """Stand-in for a simulator: returns the hash of an utterance of the window, drawn by epoch and index."""

    def __init__(self, window: StreamWindow) -> None:
        self.window = window

    def sample(self, epoch: int, index: int) -> str:
        rng = np.random.default_rng([epoch, index])
        utterance = self.window.utterances[rng.integers(len(self.window.utterances))]
        return hashlib.sha256(self.window.reader.read(utterance)).hexdigest()


def make_pool(shards: list[str], **changes: object) -> StreamPool[Draw]:
    settings = {"epoch_size": EPOCH_SIZE, "min_speakers": 3, "mixtures_per_window": 6, "lanes": LANES, "block": BLOCK}
    return StreamPool(shards, Draw, RATE, **(settings | changes))


class Samples(Dataset[str]):
    def __init__(self, pool: StreamPool[Draw]) -> None:
        self.pool = pool

    def __getitem__(self, position: int) -> str:
        epoch, index = divmod(position, EPOCH_SIZE)
        return self.pool.at(epoch, index).sample(epoch, index)

    def __len__(self) -> int:
        return 3 * EPOCH_SIZE


def test_samples_depend_on_neither_workers_nor_request_order(shards: list[str]):
    expected = [Samples(make_pool(shards))[position] for position in range(40)]
    assert len(set(expected)) > 15
    backwards = Samples(make_pool(list(reversed(shards))))
    assert [backwards[position] for position in reversed(range(40))] == expected[::-1]
    batches = [list(range(start, start + BLOCK)) for start in range(0, 40, BLOCK)]
    for workers in (0, 1, 2):
        loader = DataLoader(
            Samples(make_pool(shards)), batch_sampler=batches, num_workers=workers, collate_fn=lambda batch: batch
        )
        assert [sample for batch in loader for sample in batch] == expected


def test_a_run_resumes_after_reading_one_window(shards: list[str], monkeypatch: pytest.MonkeyPatch):
    running = Samples(make_pool(shards))
    expected = [running[position] for position in range(60)]
    resumed = make_pool(shards)
    windows: list[WindowId] = []
    read = resumed.window
    monkeypatch.setattr(resumed, "window", lambda window_id: windows.append(window_id) or read(window_id))
    assert Samples(resumed)[53] == expected[53]
    assert len(windows) == 1


def test_each_worker_of_each_rank_reads_shards_of_its_own(shards: list[str]):
    pool = make_pool(shards)
    ranks, workers = 2, 2
    lanes: dict[tuple[int, int], set[int]] = {}
    for batch in range(200):
        rank, worker = batch % ranks, batch // ranks % workers
        positions = range(batch * BLOCK, (batch + 1) * BLOCK)
        for window_id in (pool.window_id(*divmod(position, EPOCH_SIZE)) for position in positions):
            lanes.setdefault((rank, worker), set()).add(window_id.lane)
    assert sorted(map(sorted, lanes.values())) == [[0], [1], [2], [3]]


def test_every_shard_is_read_in_every_round_and_orders_differ(shards: list[str]):
    pool = make_pool(shards, min_speakers=1)
    for turn in (0, 1):
        windows = [
            pool.shard_order(WindowId(lane, turn, number))[0]
            for lane in range(LANES)
            for number in range(len(range(lane, NUM_SHARDS, LANES)))
        ]
        assert sorted(windows) == sorted(shards)
    orders = {
        tuple(make_pool(shards, seed=seed).shard_order(WindowId(0, turn, 0))) for seed in (0, 1) for turn in (0, 1)
    }
    assert len(orders) == 4
    assert make_pool(shards, seed=1).shard_order(WindowId(1, 2, 0)) == make_pool(shards, seed=1).shard_order(
        WindowId(1, 2, 0)
    )


def test_lanes_change_windows_at_different_times(shards: list[str]):
    pool = make_pool(shards, mixtures_per_window=8)
    changes: dict[int, int] = {}
    last: dict[int, WindowId] = {}
    for position in range(40):
        window_id = pool.window_id(*divmod(position, EPOCH_SIZE))
        if last.setdefault(window_id.lane, window_id) != window_id:
            changes.setdefault(window_id.lane, position // (BLOCK * LANES))
    assert len(set(changes.values())) > 1


@pytest.mark.parametrize(("least", "num_shards"), [(1, 1), (2, 1), (3, 2), (9, 5), (14, 7)])
def test_a_window_has_enough_speakers(shards: list[str], least: int, num_shards: int):
    window = make_pool(shards, min_speakers=least).window(WindowId(1, 0, 1))
    assert len(window.shards) == num_shards
    assert len({utterance.speaker_id for utterance in window.utterances}) == SPEAKERS_PER_SHARD * num_shards >= least


def test_too_few_speakers_are_an_error(shards: list[str]):
    with pytest.raises(InputError, match="have 14 speakers and min_speakers is 15; lower it"):
        make_pool(shards, min_speakers=15).at(0, 0)


def test_a_process_holds_one_window_per_lane(shards: list[str]):
    pool = make_pool(shards)
    for position in range(100):
        pool.at(*divmod(position, EPOCH_SIZE))
        assert len(pool._built) <= LANES
    assert pickle.loads(pickle.dumps(pool))._built == {}
    assert pool.at(0, 0) is pool.at(0, 1)


def test_shards_of_this_package_give_the_samples_of_the_files(tiny_speech: Path, tmp_path: Path):
    utterances = read_speaker_folders(tiny_speech)
    write_shards(utterances, tmp_path / "s", size_mib=0.2)
    names = [str(path) for path in (tmp_path / "s").glob("*.tar")]
    window = make_pool(names, min_speakers=4, shards_per_window=len(names), lanes=1).window(WindowId(0, 0, 0))
    assert sorted(u.utterance_id for u in window.utterances) == sorted(u.utterance_id for u in utterances)
    files = FileReader(RATE)
    for utterance in window.utterances:
        assert utterance in utterances
        np.testing.assert_array_equal(window.reader.read(utterance), files.read(utterance))


def test_mixtures_of_a_stream_are_those_of_its_windows(tiny_speech: Path, tmp_path: Path):
    from wesep_py.simulation import SimulationConfig, Simulator
    from wesep_py.simulation.description.simulation_config import EnrollmentConfig

    write_shards(read_speaker_folders(tiny_speech), tmp_path / "s", size_mib=0.2)
    config = SimulationConfig(duration_s=1.0, min_source_s=0.5, enrollment=EnrollmentConfig(duration_s=(0.5, 1.0)))
    names = [str(path) for path in (tmp_path / "s").glob("*.tar")]

    def build(window: StreamWindow) -> Simulator:
        return Simulator(config, window.utterances, [], window.reader, seed=3)

    pool = StreamPool(names, build, RATE, epoch_size=8, min_speakers=4, mixtures_per_window=3, lanes=2, block=2)
    mixtures = [pool.at(0, index).sample(0, index) for index in range(8)]
    for index, sample in enumerate(mixtures):
        files = Simulator(config, pool.window(pool.window_id(0, index)).utterances, [], FileReader(RATE), seed=3)
        np.testing.assert_array_equal(sample.mixture, files.sample(0, index).mixture)


def test_a_stream_from_urls_gives_the_same_samples(shards: list[str]):
    pytest.importorskip("fsspec")
    files, urls = make_pool(shards, lanes=1), make_pool([f"file://{shard}" for shard in shards], lanes=1)
    assert [files.at(0, n).sample(0, n) for n in (0, 9)] == [urls.at(0, n).sample(0, n) for n in (0, 9)]
    with pytest.raises(AudioError, match=r"file:///no/where\.tar: cannot be read"):
        make_pool(["file:///no/where.tar"]).at(0, 0)


def test_unusable_utterances_are_left_out_and_named(tmp_path: Path):
    good = {"a-1.flac": audio(0.1)}
    bad = {"b.flac": audio(0.2), "c-1.flac": b"no audio", "d-1.txt": b"text", "e-1.flac": audio(0.2), "e-1.json": b"{"}
    path = write_tar(tmp_path / "x.tar", bad | good)
    left_out: list[str] = []
    with path.open("rb") as file:
        assert [item.utterance.speaker_id for item in read_shard_utterances(file, str(path), left_out.append)] == ["a"]
    for line, reason in zip(
        left_out, ["does not say who speaks", "is not audio", "has no audio", "its JSON cannot be read"], strict=True
    ):
        assert line.startswith(f"{path}: '") and reason in line
    assert len(make_pool([str(path)], min_speakers=1).window(WindowId(0, 0, 0)).left_out) == 4
    with path.open("rb") as file, pytest.raises(AudioError, match="'b': does not say who speaks"):
        list(read_shard_utterances(file, str(path)))


@pytest.mark.parametrize("compressed", [False, True])
def test_errors_name_a_shard_that_is_cut_anywhere(tmp_path: Path, shards: list[str], compressed: bool):
    whole = Path(shards[0]).read_bytes()
    whole = gzip.compress(whole) if compressed else whole
    path = tmp_path / "x.tar"
    path.write_bytes(whole)
    with path.open("rb") as file:
        assert len(list(read_shard_utterances(file, str(path)))) == 4
    with tarfile.open(shards[0]) as tar:
        members = [0, 100, *(member.offset for member in tar), *(member.offset_data + 40 for member in tar)]
    for end in [end for end in members if end < len(whole)]:
        path.write_bytes(whole[:end])
        with pytest.raises(AudioError, match=r"x\.tar: is not a tar file, or is cut short"):
            make_pool([str(path)], min_speakers=1).at(0, 0)


def test_files_that_are_no_shards_are_errors(tmp_path: Path):
    (tmp_path / "x.tar").write_text("no tar file" * 200)
    with pytest.raises(AudioError, match=r"x\.tar: is not a tar file"):
        make_pool([str(tmp_path / "x.tar")]).at(0, 0)
    with pytest.raises(AudioError, match=r"y\.tar: cannot be read \(No such file"):
        make_pool([str(tmp_path / "y.tar")]).at(0, 0)


def test_repeated_ids_are_an_error(tmp_path: Path, tiny_speech: Path):
    about = {"utterance_id": "same", "speaker_id": "a", "path": "a.flac", "duration_s": 0.05}
    files = {"a.flac": audio(0.1), "a.json": json.dumps(about).encode()}
    paths = [str(write_tar(tmp_path / f"{name}.tar", files)) for name in "xy"]
    with pytest.raises(InputError, match="utterance_id 'same' comes twice"):
        make_pool(paths, shards_per_window=2, lanes=1).at(0, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch_size": 0}, "epoch_size: is 0"),
        ({"lanes": 0}, "lanes: is 0"),
        ({"block": 0}, "block: is 0"),
        ({"min_speakers": 0}, "min_speakers: is 0"),
        ({"seed": -1}, "seed: is -1"),
    ],
)
def test_impossible_settings_are_errors(shards: list[str], changes: dict[str, int], message: str):
    with pytest.raises(InputError, match=message):
        make_pool(shards, **changes)


def test_no_shard_and_repeated_shards_are_errors():
    with pytest.raises(InputError, match="shards: is empty"):
        make_pool([])
    with pytest.raises(InputError, match=r"a\.tar is listed twice"):
        make_pool(["b.tar", "a.tar", "a.tar"])


@pytest.mark.parametrize("kind", ["device", "pipe"])
def test_devices_and_pipes_are_refused_at_once(tmp_path: Path, kind: str):
    if kind == "device":
        (tmp_path / "x.tar").symlink_to("/dev/zero")
    else:
        os.mkfifo(tmp_path / "x.tar")
    with pytest.raises(AudioError, match=r"x\.tar: is not a file but a folder, a device or a pipe"):
        StreamPool([str(tmp_path / "x.tar")], Draw, RATE, epoch_size=1, min_speakers=1).at(0, 0)
    (tmp_path / "._y.tar").touch()
    with pytest.raises(InputError, match="no file matches"):
        stream_shards(["*y.tar"], tmp_path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.tar", True), ("s3://b/{0..9}.tar", True), ("a.tar.gz", True), ("shards", False), ("a.lmdb", False)],
)
def test_names_of_tar_files_are_streams(name: str, expected: bool):
    assert is_stream(name) is expected


def test_braces_keep_leading_zeros_and_combine():
    assert expand_braces("x{098..101}y{a,b}.tar") == [
        f"x{number}y{letter}.tar" for number in ("098", "099", "100", "101") for letter in "ab"
    ]
    with pytest.raises(InputError, match=r"\{3\.\.1\}.*ends before it begins"):
        expand_braces("{3..1}.tar")


def test_names_start_from_the_root_and_patterns_match_files(tmp_path: Path):
    for name in ("b.tar", "a.tar", "a.json"):
        (tmp_path / name).write_bytes(b"x" * len(name))
    both = [(tmp_path / name).as_posix() for name in ("a.tar", "b.tar")]
    assert stream_shards(["*.tar"], tmp_path) == both
    assert stream_shards(["{b,a}.tar"], tmp_path) == both[::-1]
    assert stream_shards([str(tmp_path / "?.tar")], "elsewhere") == both
    assert stream_shards(["https://host/{0..1}.tar"], tmp_path) == ["https://host/0.tar", "https://host/1.tar"]
    with pytest.raises(InputError, match=r"c\*\.tar: no file matches"):
        stream_shards(["c*.tar"], tmp_path)


def test_a_stream_is_identified_by_names_and_sizes(tmp_path: Path):
    (tmp_path / "a.tar").write_bytes(b"123")
    before = stream_identity("*.tar", tmp_path)
    assert before == [f"{tmp_path.as_posix()}/a.tar 3"]
    (tmp_path / "a.tar").write_bytes(b"1234")
    assert stream_identity("*.tar", tmp_path) != before
