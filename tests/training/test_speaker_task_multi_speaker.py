"""Training an encoder that finds several voices in a mixture."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from wesep_py import checkpoint
from wesep_py.common.errors import ConfigError
from wesep_py.network.speaker import SpeakerConfig, SpeakerEncoder
from wesep_py.network.speaker.speaker_losses import AAMSoftmax, PermutationFreeLoss
from wesep_py.training import train
from wesep_py.training.speaker_task import MultiSpeakerStep, collate_multi_speaker, multi_speaker_items


@pytest.fixture
def voice_settings(settings) -> dict[str, Any]:
    """Return a run of a small encoder with recursive pooling, on mixtures of one and two speakers."""
    base = settings(train__batch_size=6, train__steps=4)
    encoder = base.pop("model")["speaker"]
    encoder["network"]["pooling"] = {"name": "recursive", "bottleneck": 8}
    base["simulation"] = {
        "duration_s": 1.0, "min_source_s": 0.5, "num_speakers": {1: 2, 2: 1}, "enrollment": {"count": 0},
    }  # fmt: skip
    verification = {"manifest": "train.jsonl", "every_steps": 4}
    return {**base, "task": "speaker", "speaker": encoder, "loss": {"name": "aam"}, "validation": verification}


def log(experiment: Path, kind: str) -> list[dict]:
    records = [json.loads(line) for line in (experiment / "log.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == kind]


@pytest.mark.processor
def test_it_learns_to_count_voices(voice_settings, tmp_path: Path):
    # Seeds 1 to 4 end with a count accuracy of 0.75 to 0.79 in training, and of 1.40 to 1.54 summed in validation: no
    # threshold below is near enough for rounding to matter.
    voice_settings["train"] |= {"steps": 60, "batch_size": 12, "epoch_size": 500}
    voice_settings["optim"]["lr"] = 0.01
    voice_settings["existence_weight"] = 2.0
    voice_settings["simulation"]["num_speakers"] = {1: 1, 2: 1}
    voice_settings["validation"]["every_steps"] = 60
    voice_settings["log"]["every_steps"] = 20
    train(voice_settings)
    first, *_, last = log(tmp_path / "exp", "train")
    assert last["loss"] < 0.8 * first["loss"] and last["existence"] < first["existence"]
    assert last["loss"] == pytest.approx(last["aam"] + 2 * last["existence"], rel=1e-4)
    assert 0.6 < last["count_accuracy"] <= 1 and last["accuracy"] > 0.3
    judged = log(tmp_path / "exp", "validation")[-1]
    assert (
        "count_accuracy_3" not in judged
        and judged["count_accuracy_1"] + judged["count_accuracy_2"] > 1.2
        and 0 <= judged["eer"] <= 0.5
    )
    saved = checkpoint.load(tmp_path / "exp")
    assert saved.config["network"]["pooling"] == {"name": "recursive", "bottleneck": 8}
    assert any(key.endswith("pool.coverage.weight") for key in saved.state_dict)


def test_a_run_that_was_stopped_ends_with_the_same_weights(voice_settings, tmp_path: Path):
    voice_settings["schedule"] = {"name": "constant"}
    train({**voice_settings, "experiment": str(tmp_path / "whole")})
    half = copy.deepcopy(voice_settings)
    half["train"]["steps"] = 2
    train(half)
    train(voice_settings)
    left, right = (checkpoint.load(tmp_path / name / "checkpoints" / "last").state_dict for name in ("whole", "exp"))
    assert all(torch.equal(left[key], right[key]) for key in left)
    whole, exp = (log(tmp_path / name, "validation")[-1] for name in ("whole", "exp"))
    assert whole["count_accuracy_2"] == exp["count_accuracy_2"]


def test_each_speaker_has_a_label_and_each_enrollment_its_own():
    sources = [SimpleNamespace(speaker_id=name) for name in ("anna", "bert")]
    sample: Any = SimpleNamespace(
        recipe=SimpleNamespace(sources=sources),
        mixture=np.ones(5, np.float32),
        enrollments=(np.ones(3, np.float32), np.zeros(0, np.float32)),
    )
    items = multi_speaker_items(sample, {"anna": 4, "bert": 7})
    assert [(len(item["mixture"]), item["speakers"]) for item in items] == [(5, [4, 7]), (3, [4])]
    batch = collate_multi_speaker([items])
    assert batch["speakers"].tolist() == [[4, 7], [4, -1]] and batch["lengths"].tolist() == [5, 3]


def test_as_many_voices_are_counted_as_training_has(voice_settings, tmp_path: Path):
    voice_settings["speaker"]["network"]["pooling"]["max_voices"] = 3
    voice_settings["simulation"]["num_speakers"] = {1: 1, 3: 1}
    voice_settings["train"]["steps"] = 1
    train(voice_settings)
    judged = log(tmp_path / "exp", "validation")[-1]
    assert all(0 <= judged[f"count_accuracy_{number}"] <= 1 for number in (1, 2, 3))


def test_the_loss_covers_all_voices_and_one_more_existence():
    network = {"name": "ecapa_tdnn", "channels": 8, "frame_dim": 16, "embedding_dim": 4}
    network["pooling"] = {"name": "recursive", "bottleneck": 4, "max_voices": 3}
    encoder = SpeakerEncoder(SpeakerConfig(network, filterbank={"num_mel_bins": 20}), 16000)
    step = MultiSpeakerStep(encoder, PermutationFreeLoss(AAMSoftmax(embedding_dim=4, num_speakers=6)))
    seen = []
    step.loss.register_forward_pre_hook(lambda module, given: seen.extend(given))
    batch = {
        "mixture": torch.randn(3, 8000),
        "lengths": torch.tensor([8000, 8000, 6000]),
        "speakers": torch.tensor([[0, 3], [5, -1], [1, -1]]),
    }
    values = step(batch)
    embeddings, logits, labels = seen
    assert labels.tolist() == [[0, 3, -1], [5, -1, -1], [1, -1, -1]] and logits.shape == (3, 3)
    assert ((embeddings != 0).any(dim=2) == (labels >= 0)).all()
    assert values["count_accuracy"] in (0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1)
    values["loss"].backward()
    assert all(parameter.grad is not None for parameter in step.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_speakers": {1: 1, 3: 1}}, r"up to 3, and the network's pooling looks for 2; .*max_voices: 3"),
        ({"loss": {"name": "triplet"}}, "loss: has no classification loss"),
        ({"existence_weight": -1.0}, "existence_weight: is -1.0; 0 or more"),
    ],
)
def test_impossible_configurations_are_one_line_errors(voice_settings, change: dict, message: str):
    if "num_speakers" in change:
        voice_settings["simulation"] |= change
        change = {}
    with pytest.raises(ConfigError, match=message):
        train({**voice_settings, **change})


def test_an_encoder_that_does_not_count_takes_no_weight_for_it(voice_settings):
    voice_settings["speaker"]["network"]["pooling"] = "astp"
    with pytest.raises(ConfigError, match="a mixture of several speakers has no single label; give 1, or let"):
        train(voice_settings)
    voice_settings["simulation"]["num_speakers"] = 1
    with pytest.raises(ConfigError, match="existence_weight: is for an encoder that counts"):
        train({**voice_settings, "existence_weight": 0.5})
