from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from wesep_py.common.errors import InputError
from wesep_py.data import FileReader, Reader, Utterance, perturb_speed, read_speaker_folders
from wesep_py.data.lmdb_store import LMDBStore, write_lmdb
from wesep_py.data.recordings import is_store, open_reader, open_store, resolve_location, store_fingerprint
from wesep_py.data.shard_store import ShardReader, ShardStore
from wesep_py.data.shard_writing import write_shards
from wesep_py.data.store import RoutedReader, utterance_from_record, utterance_to_record
from wesep_py.simulation import SimulationConfig, Simulator
from wesep_py.simulation.description.simulation_config import EnrollmentConfig, NoiseConfig

pytest.importorskip("lmdb")

RATE = 16000
COUNT = 6
CONFIG = SimulationConfig(
    duration_s=1.0,
    min_source_s=0.5,
    noise=NoiseConfig(kinds={"recording": 1}),
    enrollment=EnrollmentConfig(duration_s=(0.5, 1.0)),
)


@pytest.fixture(scope="module")
def utterances(tiny_speech: Path) -> list[Utterance]:
    return read_speaker_folders(tiny_speech)


@pytest.fixture(scope="module")
def noises(utterances: list[Utterance]) -> list[Utterance]:
    return [
        replace(utterance, utterance_id=f"noise/{n}", speaker_id="noise") for n, utterance in enumerate(utterances[:3])
    ]


@pytest.fixture(scope="module")
def shards(utterances: list[Utterance], tmp_path_factory: pytest.TempPathFactory) -> Path:
    write_shards(utterances, folder := tmp_path_factory.mktemp("stores") / "speech", size_mib=0.2)
    return folder


@pytest.fixture(scope="module")
def lmdb_file(noises: list[Utterance], tmp_path_factory: pytest.TempPathFactory) -> Path:
    write_lmdb(noises, path := tmp_path_factory.mktemp("stores") / "noise.lmdb")
    return path


class Mixtures(Dataset[str]):
    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator

    def __getitem__(self, index: int) -> str:
        return hashlib.sha256(self.simulator.sample(0, index).mixture).hexdigest()

    def __len__(self) -> int:
        return COUNT


def test_files_and_stores_give_equal_mixtures_for_any_workers(
    utterances: list[Utterance], noises: list[Utterance], shards: Path, lmdb_file: Path
):
    speeds = [1, 1.1]
    files = Mixtures(Simulator(CONFIG, perturb_speed(utterances, speeds), noises, FileReader(RATE), seed=5))
    expected = [files[index] for index in range(COUNT)]
    assert len(set(expected)) == COUNT
    packed = perturb_speed(open_store(shards).utterances(), speeds)
    noise = open_store(lmdb_file).utterances()
    reader = open_reader([shards, lmdb_file], RATE)
    for workers in (0, 1, 2):
        stored = Mixtures(Simulator(CONFIG, packed, noise, reader, seed=5))
        loader = DataLoader(stored, batch_size=2, num_workers=workers, collate_fn=list)
        assert [sample for batch in loader for sample in batch] == expected


def test_names_in_a_configuration_open_their_stores(shards: Path, lmdb_file: Path, tiny_speech: Path):
    assert is_store(shards) and is_store(lmdb_file) and is_store("s3://bucket/shards") and not is_store(tiny_speech)
    assert isinstance(open_store(shards), ShardStore)
    assert isinstance(open_store(lmdb_file), LMDBStore)
    assert is_store(resolve_location("speech", shards.parent))
    assert isinstance(open_reader([tiny_speech], RATE), FileReader)


def test_utterances_in_no_store_are_read_from_files(
    utterances: list[Utterance], noises: list[Utterance], shards: Path, lmdb_file: Path
):
    other = replace(utterances[0], utterance_id="other", start_s=0.5, duration_s=1.0)
    reader: Reader = open_reader([shards, lmdb_file], RATE)
    files = FileReader(RATE)
    gone = [replace(utterance, path=Path("gone.wav")) for utterance in [*utterances, *noises]]
    for utterance, original in [*zip(gone, [*utterances, *noises], strict=True), (other, other)]:
        assert reader.length(utterance) == files.length(original)
        np.testing.assert_array_equal(reader.read(utterance), files.read(original))
    assert reader.sample_rate == RATE


def test_readers_of_different_rates_are_refused(shards: Path):
    with pytest.raises(InputError, match="the readers give 8000 and 16000 Hz"):
        RoutedReader([ShardReader(shards, 8000)], FileReader(RATE))


def test_the_fingerprint_depends_on_the_content_only(
    utterances: list[Utterance], shards: Path, lmdb_file: Path, tmp_path: Path
):
    write_shards(utterances, tmp_path / "same", size_mib=0.2)
    write_shards(utterances[:-1], tmp_path / "other", size_mib=0.2)
    assert store_fingerprint(shards) == store_fingerprint(tmp_path / "same") != store_fingerprint(tmp_path / "other")
    assert len({store_fingerprint(shards), store_fingerprint(lmdb_file)}) == 2


def test_records_keep_every_field():
    full = Utterance("a", "b", Path("/data/c.wav"), 2.5, 1.0, "f", 30.0, "text", 1.1)
    assert utterance_from_record(utterance_to_record(full, "/data"), "it", "/data") == full
    assert utterance_to_record(full, "/data")["path"] == "c.wav"
    assert utterance_from_record(utterance_to_record(full), "it") == full
    with pytest.raises(InputError, match=r"^it: speaker_id is missing"):
        utterance_from_record({"utterance_id": "a", "path": "c.wav", "duration_s": 1}, "it")
    with pytest.raises(InputError, match=r"^it: duration_s: is -1"):
        utterance_from_record(utterance_to_record(full) | {"duration_s": -1}, "it")
