"""Training with negative enrollments: items, batches, steps and a recipe that continues a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from wesep_py import checkpoint
from wesep_py.common.config import load_yaml
from wesep_py.common.errors import ConfigError
from wesep_py.data import FileReader, read_speaker_folders
from wesep_py.models import find_model
from wesep_py.network.extraction_network import build_network, load_network
from wesep_py.simulation import EnrollmentConfig, SimulationConfig, Simulator
from wesep_py.training import train
from wesep_py.training.batches import SimulatedMixtures
from wesep_py.training.extraction_task import Criterion, TrainingStep, collate_targets, target_items
from wesep_py.training.state import load_initial_weights
from wesep_py.training.training_config import InitConfig

LABELS = {"anna": 0, "bert": 1, "carl": 2, "dora": 3}
ENROLLMENT = EnrollmentConfig(duration_s=(0.5, 1.0), negative_probability=0.5)
CONFIG = SimulationConfig(duration_s=1.0, min_source_s=0.5, enrollment=ENROLLMENT)
RECIPE = Path(__file__).resolve().parents[2] / "recipes/default/train_cpu_negative.yaml"


def test_a_batch_has_the_negatives_of_the_items_that_have_one(tiny_speech: Path):
    simulator = Simulator(CONFIG, read_speaker_folders(tiny_speech), [], FileReader(16000), seed=3)
    dataset = SimulatedMixtures(simulator, LABELS, target_items)
    has = [index for index in range(12) if simulator.draw(0, index).negatives]
    lacks = [index for index in range(12) if index not in has]
    batch = collate_targets([dataset[0, has[0]], dataset[0, lacks[0]]])
    sample = simulator.sample(0, has[0])
    negative = sample.negative(sample.recipe.target)
    assert batch["negative_lengths"].tolist() == [len(negative), 0]
    np.testing.assert_array_equal(batch["negative"][0, : len(negative)], negative)
    assert not batch["negative"][1].any()
    assert "negative" not in collate_targets([dataset[0, index] for index in lacks[:2]])


def test_a_step_passes_the_negatives_to_the_network(tiny_speech: Path):
    simulator = Simulator(
        replace(CONFIG, enrollment=replace(ENROLLMENT, negative_probability=1.0)),
        read_speaker_folders(tiny_speech),
        [],
        FileReader(16000),
    )
    batch = collate_targets([SimulatedMixtures(simulator, LABELS, target_items)[0, index] for index in range(2)])
    backbone = {"name": "bsrnn", "hop_ms": 16, "bands": [[500, 4], [2000, 4]], "feature_dim": 4, "num_blocks": 1}
    network = build_network({"backbone": backbone, "cues": [{"name": "tf_map", "negative": True}]})
    step = TrainingStep(network, Criterion({"name": "si_sdr"}))
    step(batch)["loss"].backward()
    assert all(part.negative.grad.any() for part in network.backbone.split)


def test_negatives_that_no_cue_takes_are_refused(tiny_speech: Path, tmp_path: Path):
    config = {
        "experiment": str(tmp_path / "exp"),
        "model": {"backbone": {"name": "bsrnn", "feature_dim": 4, "num_blocks": 1}, "cues": [{"name": "tf_map"}]},
        "data": {"root": str(tiny_speech), "train": ["."]},
        "simulation": {"enrollment": {"negative_probability": 0.5}},
        "train": {"steps": 1, "device": "cpu"},
    }
    with pytest.raises(ConfigError, match="no cue of the model takes a negative enrollment"):
        train(config)


def test_the_recipe_continues_a_model_without_negatives_with_the_same_estimates(tmp_path: Path):
    config = load_yaml(RECIPE, ["data.root=DATA"])
    network, base, stored = (
        build_network(config["model"]).eval(),
        checkpoint.load(find_model("base")[1]),
        tmp_path / "m",
    )
    cues = [{key: value for key, value in cue.items() if key != "negative"} for cue in base.config["cues"]]
    weights = {name: value for name, value in base.state_dict.items() if "negative" not in name}
    checkpoint.save(stored, {**base.config, "cues": cues}, weights, {"step": 1})
    loaded = load_initial_weights(network, InitConfig(str(stored)))
    assert loaded.fresh and all("negative" in name for name in loaded.fresh)
    mixture, enrollment, other = (torch.randn(1, n) * 0.05 for n in (16000, 24000, 24000))
    before = load_network(stored)
    with torch.no_grad():
        expected = before(mixture, enrollment).waveforms[0]
        prepared = network.prepare(enrollment, negative=other)
        torch.testing.assert_close(network.extract(mixture, prepared).waveforms[0], expected, rtol=0, atol=0)
