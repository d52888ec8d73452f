"""Training from tar files without an index."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wesep_py import checkpoint
from wesep_py.common.errors import ConfigError, InputError
from wesep_py.data import read_speech, write_shards
from wesep_py.training import train
from wesep_py.training.batches import PositionSampler, SimulatedMixtures, make_loader
from wesep_py.training.data_config import DataConfig
from wesep_py.training.extraction_task import collate_targets, target_items
from wesep_py.training.provenance import data_hashes
from wesep_py.training.training_config import load_config
from wesep_py.training.training_data import UnknownSpeakerLabels, find_stream_shards, make_stream_simulator

WINDOWS = {"min_speakers": 3, "mixtures_per_window": 4, "shards_per_window": 3, "lanes": 2, "block": 2}
EPOCH_SIZE, BATCH = 10, 2


@pytest.fixture(scope="module")
def stream(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a few tar files and no index."""
    folder = tmp_path_factory.mktemp("stream") / "shards"
    write_shards(read_speech(["train.jsonl"], corpus), folder, root=corpus, size_mib=0.2)
    for file in folder.glob("*.json*"):
        file.unlink()
    assert len(list(folder.glob("*.tar"))) >= 3
    return folder


@pytest.fixture
def run(settings, stream: Path):
    """Return a function that makes the mapping of a small run on the stream."""

    def make(**replaced: Any) -> dict[str, Any]:
        data = {"root": str(stream), "train": ["*.tar"], "workers": 0, "stream": WINDOWS}
        changes = {"data": data, "train__batch_size": BATCH, "train__epoch_size": EPOCH_SIZE} | replaced
        return settings(**changes)

    return make


def hashes(mapping: dict[str, Any], workers: int = 0, ranks: int = 1, batch: int = BATCH, start: int = 0) -> list[str]:
    """Return a hash of each mixture of two epochs, in the order of their positions."""
    config = load_config(write_yaml(mapping))
    shards = find_stream_shards(config.data)
    found: dict[int, list[str]] = {}
    total = 2 * EPOCH_SIZE - start
    for rank in range(ranks):
        dataset = SimulatedMixtures(
            make_stream_simulator(config, shards, [], 16000), UnknownSpeakerLabels(), target_items
        )
        sampler = PositionSampler(start, total // (batch * ranks), batch, EPOCH_SIZE, rank, ranks)
        for number, got in enumerate(make_loader(dataset, sampler, collate_targets, workers, 2)):
            assert "failure" not in got, got
            rows = [hashlib.sha256(got["mixture"][row].numpy().tobytes()).hexdigest() for row in range(batch)]
            found[number * ranks + rank] = rows
    return [one for number in sorted(found) for one in found[number]]


def write_yaml(mapping: dict[str, Any]) -> Path:
    path = Path(mapping["experiment"]).with_suffix(".yaml")
    path.write_text(json.dumps(mapping), encoding="utf-8")
    return path


def test_epochs_are_the_same_for_any_number_of_workers_and_ranks(run):
    alone = hashes(run())
    assert len(alone) == len(set(alone)) == 2 * EPOCH_SIZE
    assert hashes(run(), workers=2) == alone
    assert hashes(run(), ranks=2) == alone
    assert hashes(run(), ranks=2, batch=1, workers=1) == alone
    assert hashes(run(), start=6) == alone[6:]
    assert hashes(run(seed=2)) != alone


def test_resuming_in_an_epoch_ends_with_the_same_weights(run, tmp_path: Path):
    train(run(experiment=str(tmp_path / "unbroken"), train__steps=3, schedule={"name": "constant"}))
    train(run(experiment=str(tmp_path / "parts"), train__steps=1, schedule={"name": "constant"}))
    train(run(experiment=str(tmp_path / "parts"), train__steps=3, schedule={"name": "constant"}))
    left, right = (
        checkpoint.load(tmp_path / name / "checkpoints" / "last").state_dict for name in ("parts", "unbroken")
    )
    assert all(np.array_equal(left[key], right[key]) for key in left)
    card = (tmp_path / "parts" / "checkpoints" / "last" / "card.md").read_text(encoding="utf-8")
    assert "from a stream of shards (*.tar)" in card


def test_skipped_recordings_are_named(run, stream: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    import io
    import tarfile

    bad = tmp_path / "bad.tar"
    with tarfile.open(bad, "w") as tar:
        member = tarfile.TarInfo("zoe-1.flac")
        member.size = 5
        tar.addfile(member, io.BytesIO(b"noise"))
    windows = WINDOWS | {"shards_per_window": 9, "lanes": 1}
    config = load_config(write_yaml(run(data__train=["*.tar", str(bad)], data__stream=windows)))
    with caplog.at_level(logging.WARNING):
        make_stream_simulator(config, find_stream_shards(config.data), [], 16000).sample(0, 0)
    assert "1 utterances are left out, the first" in caplog.text and "zoe-1" in caplog.text


def test_a_device_renders_what_is_drawn_from_a_stream(run):
    plain, dry = (load_config(write_yaml(run(data__render=where))) for where in ("workers", "device"))
    shards = find_stream_shards(plain.data)
    assert (
        make_stream_simulator(dry, shards, [], 16000).dry(0, 3).plan.sources[0].speaker_id
        == make_stream_simulator(plain, shards, [], 16000).sample(0, 3).recipe.sources[0].speaker_id
    )
    with pytest.raises(TypeError, match="DrySimulator"):
        make_stream_simulator(plain, shards, [], 16000).dry(0, 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"train": ["a.tar", "train.jsonl"]}, r"data\.train: names tar files and train\.jsonl"),
        ({"train": ["*.tar"], "packed": "p"}, r"data\.packed: is for recordings that are known"),
        ({"train": ["no.tar"]}, r"no\.tar: no such file"),
    ],
)
def test_impossible_streams_are_refused(stream: Path, data: dict[str, Any], message: str):
    with pytest.raises((ConfigError, InputError), match=message):
        find_stream_shards(DataConfig(root=str(stream), **data))


def test_a_window_with_too_few_speakers_is_a_one_line_error(run):
    config = load_config(write_yaml(run(data__stream=WINDOWS | {"min_speakers": 1, "shards_per_window": 1})))
    stream = make_stream_simulator(config, find_stream_shards(config.data), [], 16000)
    with pytest.raises(InputError, match=r"speakers with enough audio.*or raise the stream.s min_speakers"):
        for index in range(40):
            stream.sample(0, index)


def test_a_loss_over_all_speakers_needs_an_index(run):
    loss = [{"name": "si_sdr"}, {"name": "speaker_cross_entropy"}]
    with pytest.raises(ConfigError, match=r"data\.train: names tar files, whose speakers are not known"):
        train(run(loss=loss))


def test_hashes_depend_on_the_files(stream: Path, tmp_path: Path):
    (tmp_path / "one.tar").write_bytes(b"1")
    config = DataConfig(root=str(tmp_path), train=["*.tar"])
    before = data_hashes(config)
    (tmp_path / "two.tar").write_bytes(b"1")
    assert set(before) == {"*.tar"} and data_hashes(config) != before
    assert find_stream_shards(DataConfig(root=str(stream), train=["train.jsonl"])) == []
