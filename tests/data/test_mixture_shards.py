"""WeSep's shards of fixed mixtures as training data, read in place."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.data.public_layouts import PAIRS, RATE, make_voxceleb, make_wesep
from wesep_py.common.errors import AudioError, InputError
from wesep_py.data import open_reader, read_librimix_metadata
from wesep_py.data.mixture_corpus import read_mixture_corpus
from wesep_py.data.mixture_shards import MixtureShards
from wesep_py.data.recipe_lists import read_shard_list
from wesep_py.simulation import SimulationConfig
from wesep_py.simulation.listed_mixtures import ListedMixtures


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_wesep(tmp_path / "recipe")


def test_mixtures_of_a_shard_list_are_those_of_the_folder(data: Path):
    listed = read_mixture_corpus([data / "train-100/shard.list"])
    files = read_mixture_corpus([data / "train-100"])
    for corpus in (listed, files):
        assert [mixture.mixture_id for mixture in corpus.mixtures] == ["_".join(pair) for pair in PAIRS["train-100"]]
    assert listed.recording_ids == files.recording_ids
    reader = open_reader([], RATE, further=pickle.loads(pickle.dumps(listed.stores)))
    for in_shard, in_file in zip(listed.mixtures, files.mixtures, strict=True):
        for a, b in zip(in_shard.sources, in_file.sources, strict=True):
            assert (a.utterance.utterance_id, a.utterance.speaker_id) == (
                b.utterance.utterance_id,
                b.utterance.speaker_id,
            )
            assert a.utterance.duration_s == b.utterance.duration_s
            np.testing.assert_array_equal(reader.read(a.utterance), open_reader([], RATE).read(b.utterance))


def test_samples_drawn_from_shards_sum_to_their_mixtures(data: Path):
    corpus = read_mixture_corpus([data / "train-100/shard.list"], "noisy")
    reader = open_reader([], RATE, further=corpus.stores)
    simulator = ListedMixtures(SimulationConfig(duration_s=1.0), corpus, [], reader)
    sample = simulator.sample(0, 0)
    assert sample.mixture.size == RATE and np.abs(sample.images).max(axis=1).min() > 0.01
    np.testing.assert_allclose(sample.mixture, sample.images.sum(0) + sample.noise, atol=1e-6)


def test_noise_is_the_mixture_without_its_sources(tmp_path: Path):
    data = make_wesep(tmp_path, "both")
    corpus = read_mixture_corpus([data / "dev/shard.list"], "noisy")
    reader = open_reader([], RATE, further=corpus.stores)
    mixture = corpus.mixtures[0]
    expected, _ = soundfile.read(tmp_path / f"Libri2Mix/wav16k/min/dev/noise/{mixture.mixture_id}.wav")
    np.testing.assert_allclose(reader.read(mixture.noise_utterance), expected, atol=2e-4)


def test_single_utterances_are_recognised(tmp_path: Path):
    folder = make_voxceleb(tmp_path)
    with pytest.raises(
        InputError, match=r"single utterances, and no mixtures; name .*shard_online\.list in data\.train"
    ):
        read_mixture_corpus([folder / "shard_online.list"])


def test_shards_of_mixtures_are_no_single_speakers(data: Path):
    from wesep_py.data.shard_stream import StreamPool

    shards = read_shard_list(data / "train-100/shard.list")
    pool = StreamPool(shards, lambda window: window, RATE, epoch_size=10, min_speakers=1)
    with pytest.raises(AudioError, match=r"fixed mixtures.*data\.mixtures"):
        pool.at(0, 0)


def test_truncated_shard_is_refused(data: Path):
    shard = data / "dev/shards/shards_000000000.tar"
    shard.write_bytes(shard.read_bytes()[:200000])
    with pytest.raises(AudioError, match="cut short"):
        MixtureShards([str(shard)], shard)


def test_key_in_two_shards_is_refused(data: Path):
    shard = data / "dev/shards/shards_000000000.tar"
    other = shard.with_name("again.tar")
    other.write_bytes(shard.read_bytes())
    with pytest.raises(InputError, match=r"is in .* already"):
        MixtureShards([str(shard), str(other)], shard)


def test_sources_of_a_folder_are_a_corpus(data: Path):
    assert len(read_librimix_metadata(data / "dev")) == 4
