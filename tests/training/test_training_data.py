"""Readers of recordings, stores, and lists of existing mixtures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.conftest import SAMPLE_RATE, VOICES, make_voice
from wesep_py.common.errors import ConfigError
from wesep_py.data import FileReader, PackedReader, RoutedReader, find_noises, read_speech, write_lmdb, write_shards
from wesep_py.data.recordings import store_fingerprint
from wesep_py.training import load_config, train
from wesep_py.training.data_config import DataConfig, MixturesConfig
from wesep_py.training.devices import make_fabric
from wesep_py.training.training_data import make_reader, read_listed_mixtures, read_training_data

NOISE = {"probability": 0.5, "kinds": {"recording": 1.0}}


def test_packed_and_unpacked_readers_return_the_same(corpus: Path, tmp_path: Path):
    plain = DataConfig(str(corpus), ["train.jsonl"])
    utterances = read_speech(["train.jsonl"], corpus)
    packed = DataConfig(str(corpus), ["train.jsonl"], packed=str(tmp_path / "deep" / "packed"))
    calls: list[tuple[int, int]] = []
    reader = make_reader(packed, utterances, 8000, on_progress=lambda done, total: calls.append((done, total)))
    assert isinstance(reader, PackedReader) and calls[-1] == (16, 16)
    again = make_reader(packed, utterances, 8000, may_pack=False)
    files = make_reader(plain, utterances, 8000)
    assert isinstance(files, FileReader)
    for utterance in utterances[:3]:
        np.testing.assert_array_equal(again.read(utterance), files.read(utterance))


def test_a_store_reads_like_its_manifest(corpus: Path, tmp_path: Path):
    speech = read_speech(["train.jsonl"], corpus)
    write_shards(speech, tmp_path / "shards", root=corpus)
    stored = read_speech([str(tmp_path / "shards")], corpus)
    assert sorted(u.utterance_id for u in stored) == sorted(u.utterance_id for u in speech)
    reader = make_reader(DataConfig(str(corpus), [str(tmp_path / "shards")]), stored, 8000)
    files = make_reader(DataConfig(str(corpus), ["train.jsonl"]), speech, 8000)
    assert isinstance(reader, RoutedReader)
    for utterance in speech:
        np.testing.assert_array_equal(reader.read(utterance), files.read(utterance))


def test_noise_in_an_lmdb(corpus: Path, tmp_path: Path):
    pytest.importorskip("lmdb")
    noises = read_speech(["train.jsonl"], corpus)[:2]
    write_lmdb(noises, tmp_path / "noise.lmdb", root=corpus)
    assert {u.utterance_id for u in find_noises([str(tmp_path / "noise.lmdb")], corpus)} == {
        u.utterance_id for u in noises
    }


def test_a_run_on_shards_gives_the_weights_of_a_run_on_files(settings, corpus: Path, tmp_path: Path):
    from wesep_py import checkpoint

    write_shards(read_speech(["train.jsonl"], corpus), tmp_path / "shards", root=corpus)
    train(settings(experiment=str(tmp_path / "files"), train__steps=2))
    train(settings(experiment=str(tmp_path / "stored"), train__steps=2, data__train=[str(tmp_path / "shards")]))
    left, right = (checkpoint.load(tmp_path / name / "checkpoints" / "last").state_dict for name in ("files", "stored"))
    assert all(np.array_equal(left[key], right[key]) for key in left)
    provenance = (tmp_path / "stored" / "provenance.json").read_text()
    assert store_fingerprint(tmp_path / "shards") in provenance and "not a file" not in provenance


@pytest.fixture(scope="module")
def mixture_lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`speech/*.wav`, `noise/hiss.wav`, `lists/list.csv` with paths relative to these two."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("speech", "noise", "lists"):
        (folder / name).mkdir()
    for voice in ("anna", "bert"):
        for take in range(2):
            samples = make_voice(*VOICES[voice], 1.5, seed=take)
            soundfile.write(folder / f"speech/{voice}-{take}.wav", samples, SAMPLE_RATE, subtype="PCM_16")
    soundfile.write(folder / "noise/hiss.wav", 0.1 * make_voice(*VOICES["carl"], 0.5, seed=0), SAMPLE_RATE)
    rows = [f"anna-{n}_bert-{n},anna-{n}.wav,0.5,bert-{n}.wav,0.4,hiss.wav,1.0" for n in range(2)]
    head = "mixture_ID,source_1_path,source_1_gain,source_2_path,source_2_gain,noise_path,noise_gain"
    (folder / "lists/list.csv").write_text("\n".join([head, *rows]) + "\n")
    return folder


def test_names_of_lists_are_relative_to_the_root(mixture_lists: Path):
    chosen = MixturesConfig(["lists/list.csv"], "noisy", root="speech", noise_root="noise")
    corpus = read_listed_mixtures(DataConfig(str(mixture_lists), mixtures=chosen))
    assert corpus is not None and len(corpus.mixtures) == 2 and len(corpus.speech) == 4
    assert corpus.noises[0].path == mixture_lists / "noise/hiss.wav"
    assert read_listed_mixtures(DataConfig(str(mixture_lists), ["train.jsonl"])) is None


def test_impossible_lists_are_refused(mixture_lists: Path):
    chosen = MixturesConfig(["lists/list.csv"], root="speech")
    with pytest.raises(ConfigError, match=r"data\.speeds: is for mixtures that are drawn"):
        read_listed_mixtures(DataConfig(str(mixture_lists), speeds=[0.9, 1.0], mixtures=chosen))
    with pytest.raises(ValueError, match=r"leave data\.mixtures out"):
        MixturesConfig([])
    with pytest.raises(ValueError, match="name at least one manifest"):
        DataConfig(str(mixture_lists))


def test_a_run_learns_from_listed_mixtures(mixture_lists: Path, settings):
    mixtures = {"lists": ["lists/list.csv"], "condition": "noisy", "root": "speech", "noise_root": "noise"}
    mapping = settings(
        data={
            "root": str(mixture_lists),
            "workers": 0,
            "packed": str(mixture_lists / "packed"),
            "mixtures": mixtures,
        }
    )
    mapping["simulation"] = {"duration_s": 1.0, "enrollment": {"duration_s": [0.5, 1.0]}}
    mapping["train"] |= {"steps": 2, "targets_per_mixture": "all"}
    result = train(mapping)
    assert result.step == 2
    assert "lists/list.csv" in (result.experiment / "checkpoints/last/card.md").read_text()
    assert "lists/list.csv" in (result.experiment / "provenance.json").read_text()
    assert load_config(result.experiment / "config.yaml").data.mixtures.condition == "noisy"
    assert (mixture_lists / "packed").is_dir()


@pytest.mark.parametrize("place, used", [(None, False), ("mixture", True), ("enrollment", True)])
def test_noise_that_nothing_uses_is_said(corpus: Path, settings, tmp_path: Path, caplog, place: str, used: bool):
    soundfile.write(tmp_path / "hum.wav", make_voice(*VOICES["anna"], 1.0, seed=1), SAMPLE_RATE)
    mapping = settings(data__noise=[str(tmp_path)])
    mapping["simulation"] |= {"noise": NOISE if place == "mixture" else None}
    if place == "enrollment":
        mapping["simulation"]["enrollment"] = mapping["simulation"].get("enrollment", {}) | {"noise": NOISE}
    config = load_config(mapping)
    caplog.set_level("INFO", "wesep_py")
    read_training_data(config, make_fabric(config.train))
    assert ("data.noise: 1 recordings are not used" in caplog.text) == (not used)


def test_noise_that_mixtures_of_lists_cannot_use_is_a_warning(mixture_lists: Path, settings, caplog):
    mixtures = {"lists": ["lists/list.csv"], "condition": "noisy", "root": "speech", "noise_root": "noise"}
    mapping = settings(data={"root": str(mixture_lists), "workers": 0, "mixtures": mixtures, "noise": ["noise"]})
    mapping["simulation"] = {"duration_s": 1.0, "enrollment": {"duration_s": [0.5, 1.0]}}
    config = load_config(mapping)
    read_training_data(config, make_fabric(config.train))
    assert "mixtures of lists keep their own noise" in caplog.text
