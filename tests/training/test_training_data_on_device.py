"""Training on mixtures that the training device renders (data.render: device)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.runs import assert_same, lines, stop_after, weights
from wesep_py.common.config import dump_yaml
from wesep_py.common.errors import ConfigError, InputError
from wesep_py.simulation.dry_batch import DryMixture, DrySimulator
from wesep_py.training import TrainingInterrupted, load_config, train
from wesep_py.training.devices import make_fabric
from wesep_py.training.run_log import TrainingBar
from wesep_py.training.state import Progress
from wesep_py.training.training_data import make_dataset, open_batches, read_training_data

ROOMS = {"probability": 0.7, "rt60_s": [0.1, 0.2], "num_reflections": 128}
NOISE = {"probability": 0.7, "kinds": {"coloured": 1, "babble": 1}, "babble_speakers": [1, 1]}
HARD = {
    "simulation__room": ROOMS, "simulation__noise": NOISE, "simulation__target": "early",
    "simulation__absent_probability": 0.2, "train__targets_per_mixture": "all", "log__every_steps": 1,
    "train__steps": 2, "log__to": [], "log__audio_samples": 0, "simulation__mixture_effects": {"clip": {}},
}  # fmt: skip
SPEAKER = {
    "task": "speaker",
    "speaker": {
        "filterbank": {"num_mel_bins": 20},
        "network": {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 48, "embedding_dim": 16},
    },
}


def losses(experiment: Path) -> list[float]:
    return [record["loss"] for record in lines(experiment, "train")]


def speaker_settings(settings, **replaced: Any) -> dict[str, Any]:
    mapping = settings(**{"simulation__num_speakers": 1, "simulation__room": ROOMS, "simulation__noise": NOISE})
    mapping = {key: value for key, value in mapping.items() if key != "model"} | SPEAKER
    mapping["train"] |= {"steps": 2, "batch_size": 4}
    mapping["optim"] = {"lr": 1e-4}
    mapping["log"] |= {"every_steps": 1, "to": [], "audio_samples": 0}
    mapping["data"] = mapping["data"] | replaced
    return mapping


def batches_of(mapping: dict[str, Any], count: int, rank: int = 0, world_size: int = 1) -> list[dict[str, Any]]:
    """Return the first batches of a rank, without a run."""
    config = load_config(mapping)
    fabric = make_fabric(config.train)
    fabric.launch()
    task, data = read_training_data(config, fabric)
    dataset = make_dataset(config, task, data, fabric, TrainingBar(enabled=False))

    class Rank:
        device, global_rank = fabric.device, rank
        setup_dataloaders = staticmethod(fabric.setup_dataloaders)

    Rank.world_size = world_size
    batches = open_batches(config, task, dataset, Progress(), Rank, print)
    return [next(batches) for _ in range(count)]


def test_two_steps_have_the_losses_of_the_cpu_path(settings, tmp_path: Path):
    train(settings(experiment=str(tmp_path / "workers"), **HARD))
    for name, workers in (("device", 0), ("two", 2)):
        train(settings(experiment=str(tmp_path / name), data__render="device", data__workers=workers, **HARD))
    expected = losses(tmp_path / "workers")
    assert len(expected) == 2
    assert losses(tmp_path / "device") == pytest.approx(expected, rel=1e-4)
    first, second = weights(tmp_path / "device"), weights(tmp_path / "two")
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(("pooling", "count"), [("one voice", 0), ("one voice", 1), ("several voices", 0)])
def test_speaker_encoders_learn_the_same(settings, tmp_path: Path, pooling: str, count: int):
    losses_by_render = []
    for render in ("workers", "device"):
        mapping = speaker_settings(settings, render=render) | {"experiment": str(tmp_path / render)}
        mapping["simulation"] = mapping["simulation"] | {"enrollment": {"duration_s": [0.5, 1.0], "count": count}}
        if pooling == "several voices":
            network = {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 48, "embedding_dim": 16}
            mapping["speaker"] = {**SPEAKER["speaker"], "network": network | {"pooling": {"name": "recursive"}}}
            mapping["simulation"] = mapping["simulation"] | {"num_speakers": 2}
        train(mapping)
        losses_by_render.append(losses(tmp_path / render))
    assert losses_by_render[1] == pytest.approx(losses_by_render[0], rel=1e-4)


def test_batches_match_and_are_on_the_device_in_float32(settings):
    ours = batches_of(settings(data__render="device", train__precision="bf16-mixed", **HARD), 2)
    theirs = batches_of(settings(**HARD), 2)
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].dtype == other[name].dtype and one[name].shape == other[name].shape, name
            torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-5)


def test_two_ranks_take_the_mixtures_of_one(settings):
    def first(size: int, rank: int = 0, world_size: int = 1) -> dict[str, torch.Tensor]:
        mapping = settings(data__render="device", **{**HARD, "train__batch_size": size})
        return batches_of(mapping, 1, rank, world_size)[0]

    whole, halves = first(4), [first(2, rank, 2) for rank in (0, 1)]
    for name in ("mixture", "target", "speaker", "present"):
        joined = torch.cat([half[name] for half in halves])
        torch.testing.assert_close(joined, whole[name], rtol=0, atol=1e-6)


def test_resuming_after_a_stop_gives_the_same_weights(settings, tmp_path: Path, monkeypatch):
    named = {**HARD, "train__steps": 3, "data__render": "device"}
    train(settings(experiment=str(tmp_path / "unbroken"), **named))
    with monkeypatch.context() as patch, pytest.raises(TrainingInterrupted, match="stopped at step 2"):
        stop_after(patch, 2)
        train(settings(**named))
    train(settings(**named))
    assert_same(weights(tmp_path / "unbroken"), weights(tmp_path / "exp"))


@pytest.mark.slow
def test_two_ranks_by_torchrun_train_as_one(settings, tmp_path: Path):
    common = {
        **HARD, "train__steps": 1, "data__render": "device", "model__speaker": None,
        "model__cues": [{"name": "tf_map"}], "simulation__absent_probability": 0.0, "simulation__num_speakers": 2,
        "optim__name": "sgd", "optim__arguments": {"momentum": 0.0}, "model__backbone__feature_dim": 4,
    }  # fmt: skip
    del common["simulation__mixture_effects"]
    runs = {"one": (4, ["-m"]), "two": (2, ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m"])}
    for name, (batch_size, launcher) in runs.items():
        config = tmp_path / f"{name}.yaml"
        config.write_text(dump_yaml(settings(experiment=str(tmp_path / name), train__batch_size=batch_size, **common)))
        command = [sys.executable, *launcher, "wesep_py.cli.train", str(config)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
        assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)


@pytest.mark.parametrize("effect", ["codec", "resample"])
def test_effects_that_need_the_cpu_are_refused(settings, effect: str):
    effects = {"simulation__mixture_effects": {effect: {}}}
    with pytest.raises(ConfigError, match=rf"simulation\.mixture_effects\.{effect}: cannot run on a device"):
        load_config(settings(data__render="device", **effects))
    load_config(settings(**effects))
    load_config(settings(data__render="device", simulation__source_effects={effect: {}}))


def test_loudness_is_refused_too(settings):
    with pytest.raises(ConfigError, match=r"simulation\.loudness: cannot be drawn on a device"):
        load_config(settings(data__render="device", simulation__loudness={}))
    load_config(settings(simulation__loudness={}))


def test_the_way_to_render_cannot_change_on_resuming(settings):
    train(settings(train__steps=1))
    with pytest.raises(ConfigError, match=r"data\.render \(was workers, is device\)"):
        train(settings(train__steps=1, data__render="device"))


def test_a_damaged_recording_is_named(settings, corpus: Path, tmp_path: Path):
    paths = []
    for line in (corpus / "train.jsonl").read_text().splitlines():
        utterance = json.loads(line)
        utterance["path"] = str(tmp_path / Path(utterance["path"]).name)
        Path(utterance["path"]).write_bytes(b"no audio")
        paths.append(json.dumps(utterance))
    (tmp_path / "train.jsonl").write_text("\n".join(paths) + "\n")
    with pytest.raises(InputError, match=r"mixture 0 of epoch 0: .*\.wav"):
        train(settings(data__render="device", data__root=str(tmp_path), train__steps=1))


def test_a_nonfinite_mixture_is_named_and_its_step_skipped(settings, monkeypatch, capsys, tmp_path: Path):
    dry = DrySimulator.dry

    def damaged(self, epoch: int, index: int) -> DryMixture:
        mixture = dry(self, epoch, index)
        return replace(mixture, dry=mixture.dry * np.float32("nan")) if (epoch, index) == (0, 3) else mixture

    monkeypatch.setattr(DrySimulator, "dry", damaged)
    result = train(settings(data__render="device", train__steps=2))
    assert (result.step, result.skipped) == (2, 1)
    assert "mixture 3 of epoch 0 has sources not finite; it is made of" in capsys.readouterr().err
