"""Training with precomputed embeddings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.conftest import SPEAKERS
from tests.training.runs import assert_same, lines, weights
from wesep_py import load
from wesep_py.audio import read
from wesep_py.cli.main import main
from wesep_py.common.config import load_yaml
from wesep_py.common.errors import ConfigError, InputError
from wesep_py.data import FileReader, Utterance, read_speech, read_trials
from wesep_py.data.embedding_files import Embeddings
from wesep_py.evaluation import EvaluationOptions, evaluate
from wesep_py.inference import Extractor
from wesep_py.network.extraction_network import build_network, load_network
from wesep_py.simulation import EnrollmentConfig, SimulationConfig, Simulator
from wesep_py.training import train
from wesep_py.training.dry_run import dry_run
from wesep_py.training.extraction_task import collate_targets, target_items

DIM = 6
CUE = {"name": "embedding", "fusion": "film", "embedding_dim": DIM}


def vector(speaker: str, number: int) -> np.ndarray:
    """Return a vector along the axis of its speaker; a small part along another axis differs by utterance."""
    values = np.zeros(DIM, np.float32)
    values[SPEAKERS.index(speaker)], values[4] = 3.0, 0.1 * number
    return values


@pytest.fixture
def embeddings(tiny_speech: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "vectors"
    folder.mkdir()
    for file in tiny_speech.glob("*/*.wav"):
        speaker, number = file.stem.split("-")
        np.save(folder / f"{file.stem}.npy", vector(speaker, int(number)))
    return folder


@pytest.fixture
def embedding_settings(settings: Callable[..., dict[str, Any]], embeddings: Path) -> Callable[..., dict[str, Any]]:
    def make(**replaced: Any) -> dict[str, Any]:
        changed = {"model__speaker": None, "model__cues": [CUE], "data__embeddings": str(embeddings), **replaced}
        return settings(**changed)

    return make


def test_train_validate_evaluate_and_extract(
    embedding_settings, validation, corpus: Path, embeddings: Path, tiny_speech: Path, tmp_path: Path, capsys
):
    report = dry_run(embedding_settings(validation=validation))
    train(embedding_settings(validation=validation, train__steps=4, log__every_steps=1))
    experiment = tmp_path / "exp"
    assert lines(experiment, "train")[0]["loss"] == report.losses["loss"]
    assert lines(experiment, "validation")[-1]["count"] == 2

    # FiLM starts at zero: what the embeddings steer has been learned from them, of each speaker's axis.
    model = experiment / "checkpoints" / "last"
    network = load_network(model)
    assert network.config["cues"] == [CUE] and load_yaml(experiment / "config.yaml")["model"]["cues"] == [CUE]
    assert all(layer.shift.weight[:, :4].abs().sum(dim=0).min() > 0 for layer in network.cues[0].fusion.layers)
    assert not any(layer.shift.weight[:, 5].any() for layer in network.cues[0].fusion.layers)

    lists = ["--trials", str(corpus / "trials.csv"), "--enrollment", str(corpus / "trials.map")]
    command = ["evaluate", "--model", str(model), *lists, "-o", str(tmp_path / "out")]
    assert main([*command, "--embeddings", str(embeddings), "--save-audio", "1"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["counts"]["scored"] == 2 and summary["protocol"]["embeddings"]["path"] == str(embeddings)
    validated = lines(experiment, "validation")[-1]["si_sdri"]
    assert summary["si_sdri"]["mean"] == pytest.approx(validated, abs=1e-4)

    # The first trial's enrollment is anna-1: extracted by its vector alone, it comes out the same.
    (saved,) = (tmp_path / "out" / "audio").rglob("mixture.wav")
    extract = ["extract", str(saved), "--model", str(model), "-o", str(tmp_path / "anna.wav")]
    assert main([*extract, "--enroll", str(embeddings / "anna-1.npy")]) == 0
    estimate = read(saved.with_name("estimate.wav"))[0]
    assert np.abs(read(tmp_path / "anna.wav")[0] - estimate).max() < 1e-4

    extractor = load(model)
    enroll = ["enroll", str(embeddings / "anna-1.npy"), "-o", str(tmp_path / "enrolled.voice"), "--model", str(model)]
    assert main(enroll) == 0 and "of 1 embedding(s), for" in capsys.readouterr().out
    voice = extractor.enroll(embeddings / "anna-1.npy")
    assert torch.equal(voice.tensors["0.embedding"], torch.from_numpy(vector("anna", 1))[None])
    assert voice.quality is None and voice.enrolled_s == 0
    voice.save(tmp_path / "anna.voice")
    assert main([*extract, "--overwrite", "--enroll", str(tmp_path / "anna.voice")]) == 0
    assert np.abs(read(tmp_path / "anna.wav")[0] - estimate).max() < 1e-4
    assert main([*extract, "--overwrite", "--enroll", str(embeddings / "bert-1.npy")]) == 0
    assert np.abs(read(tmp_path / "anna.wav")[0] - estimate).max() > 3e-4
    mean = extractor.enroll(embeddings / "anna-1.npy", torch.from_numpy(vector("anna", 2)))
    utterances = [u for u in train_utterances(corpus) if u.utterance_id in ("anna-1", "anna-2")]
    np.testing.assert_allclose(mean.tensors["0.embedding"][0], Embeddings(embeddings).of(utterances), rtol=1e-5)

    capsys.readouterr()
    refused = [
        ([*command, "--overwrite"], "takes precomputed embeddings of 6 numbers; give --embeddings"),
        ([*extract, "--overwrite", "--enroll", str(tiny_speech / "anna" / "anna-1.wav")], "takes an embedding of 6"),
    ]
    for arguments, message in refused:
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    np.save(tmp_path / "wide.npy", np.ones(7))
    with pytest.raises(InputError, match="the embedding has 7 numbers, and this model takes 6"):
        extractor.enroll(tmp_path / "wide.npy")


def train_utterances(corpus: Path) -> list[Utterance]:
    return read_speech(["train.jsonl"], corpus)


def test_a_second_cue_uses_the_recording(
    embedding_settings, validation, embeddings: Path, tiny_speech: Path, tmp_path: Path
):
    train(embedding_settings(model__cues=[CUE, {"name": "tf_map"}], validation=validation, train__steps=2))
    assert lines(tmp_path / "exp", "validation")[-1]["count"] == 2
    extractor = load(tmp_path / "exp")
    recordings, anna = [tiny_speech / "anna" / f"anna-{i}.wav" for i in (1, 2)], embeddings / "anna-1.npy"
    voice = extractor.enroll(*recordings, anna)
    np.testing.assert_allclose(voice.tensors["0.embedding"][0], vector("anna", 1), rtol=1e-5)
    alone = [extractor.enroll(recording, anna) for recording in recordings]
    for key in (key for key in voice.tensors if key.startswith("1.")):
        assert not torch.equal(alone[0].tensors[key], alone[1].tensors[key])
    assert len(voice.quality.recordings) == 2
    with pytest.raises(InputError, match="its cue 'tf_map' needs a recording of the voice; give one as well"):
        extractor.enroll(anna)
    with pytest.raises(InputError, match="given 2 embeddings beside recordings; one is allowed"):
        extractor.enroll(recordings[0], anna, anna)


def test_speaker_vectors_with_workers_and_listed_mixtures(
    embedding_settings, corpus: Path, embeddings: Path, tmp_path: Path
):
    """Workers read the same as the main process; the embedding of a speaker is used for all their utterances."""
    train(embedding_settings(experiment=str(tmp_path / "here"), train__steps=2))
    train(embedding_settings(experiment=str(tmp_path / "there"), train__steps=2, data__workers=2))
    assert_same(weights(tmp_path / "here"), weights(tmp_path / "there"))

    by_speaker = tmp_path / "speakers"
    by_speaker.mkdir()
    for speaker in SPEAKERS:
        np.save(by_speaker / f"{speaker}.npy", vector(speaker, 0))
    listed = {"lists": [str(corpus / "trials.csv")]}
    validation = {"trials": "trials.csv", "enrollment": "trials.map", "embeddings": str(embeddings)}
    changed = {"data__embeddings": str(by_speaker), "data__mixtures": listed, "validation": validation}
    simulation = {"duration_s": 1.0, "enrollment": {"duration_s": [0.5, 1.0]}}
    train(embedding_settings(**changed, simulation=simulation, train__steps=1))
    assert lines(tmp_path / "exp", "validation")[-1]["count"] == 2


def test_each_item_has_the_vector_of_its_speaker(corpus: Path, embeddings: Path):
    labels = {speaker: number for number, speaker in enumerate(SPEAKERS)}
    utterances = train_utterances(corpus)
    config = SimulationConfig(
        duration_s=0.6, min_source_s=0.5, absent_probability=0.5, enrollment=EnrollmentConfig(duration_s=(0.5, 0.6))
    )
    simulator = Simulator(config, utterances, [], FileReader(16000), embeddings=Embeddings(embeddings, DIM))
    items = [target_items(simulator.sample(0, index), labels, "all") for index in range(4)]
    batch = collate_targets(items)
    assert batch["embedding"].shape == (len(batch["speaker"]), DIM)
    assert batch["embedding"].argmax(dim=1).tolist() == batch["speaker"].tolist()
    assert set(batch["present"].tolist()) == {0, 1}


ENCODER = {"network": {"name": "ecapa_tdnn", "channels": 8, "frame_dim": 16, "embedding_dim": 4}}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data__embeddings": None}, "data.embeddings: is missing, and a cue takes embeddings of 6 numbers"),
        ({"model__speaker": ENCODER, "model__cues": [{"name": "embedding"}]}, "no cue of the model takes them"),
        ({"model__cues": [{"name": "tf_map"}]}, "no cue of the model takes them"),
        ({"data__render": "device"}, "embeddings: are read by the workers"),
        ({"data__train": ["a.tar"]}, "embeddings: are of utterances that are known"),
        ({"self_enrollment": {"probability": 0.4}}, "self_enrollment: estimates have no precomputed embeddings"),
    ],
)
def test_impossible_combinations_are_refused(embedding_settings, changed: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        dry_run(embedding_settings(**changed))


def test_a_speaker_encoder_is_trained_from_recordings(embedding_settings):
    mapping = embedding_settings(task="speaker", speaker=ENCODER)
    del mapping["model"]
    with pytest.raises(ConfigError, match=r"data\.embeddings: is for extractors"):
        dry_run(mapping)


def test_wrong_embeddings_are_named(embedding_settings, validation, embeddings: Path, tmp_path: Path):
    other = {"data__embeddings": None, "model__cues": [{"name": "tf_map"}]}
    with pytest.raises(ConfigError, match=r"validation\.embeddings: is of use with data\.embeddings only"):
        dry_run(embedding_settings(**other, validation={**validation, "embeddings": str(embeddings)}))
    only_anna = tmp_path / "anna"
    only_anna.mkdir()
    np.save(only_anna / "anna.npy", vector("anna", 0))
    with pytest.raises(InputError, match=r"no embedding of .*bert-1\.wav; it would be called 'bert-1'"):
        dry_run(embedding_settings(validation={**validation, "embeddings": str(only_anna)}))
    (embeddings / "carl-0.npy").unlink()
    with pytest.raises(InputError, match=r"no embedding of 1 of \d+ utterances, such as 'carl-0', nor of its speaker"):
        dry_run(embedding_settings())
    np.save(embeddings / "carl-0.npy", np.ones(7))
    for speaker in SPEAKERS:
        for file in embeddings.glob(f"{speaker}-*.npy"):
            np.save(file, np.ones(7))
    with pytest.raises(InputError, match=r"embedding '\w+-\d' has 7 numbers; the model takes 6"):
        dry_run(embedding_settings())


def test_a_model_for_recordings_refuses_vectors(embeddings: Path, corpus: Path):
    backbone = {"name": "bsrnn", "feature_dim": 4, "num_blocks": 1}
    extractor = Extractor(build_network({"backbone": backbone, "cues": [{"name": "tf_map"}]}), name="mine")
    for source in (embeddings / "anna-1.npy", vector("anna", 1)):
        with pytest.raises(InputError, match="mine: takes recordings of a voice, no embedding"):
            extractor.enroll(source)
    trials = read_trials(corpus / "trials.csv", corpus / "trials.map")
    with pytest.raises(InputError, match="mine: takes no precomputed embeddings; leave out"):
        evaluate(extractor, trials, options=EvaluationOptions(embeddings=Embeddings(embeddings)))
