"""Training a speaker encoder: learning, resuming, validation by verification, use in an extractor."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wesep_py import checkpoint, load
from wesep_py.common.errors import CheckpointError, ConfigError, InputError
from wesep_py.network.extraction_network import build_network
from wesep_py.network.speaker import load_encoder
from wesep_py.network.speaker.speaker_losses import episodes
from wesep_py.training import train
from wesep_py.training.speaker_task import collate_speakers


@pytest.fixture
def speaker_settings(settings) -> dict[str, Any]:
    """Return the run of `tests/training/conftest.py`, for an encoder instead of an extractor."""
    base = settings(train__batch_size=4, train__steps=12)
    encoder = base.pop("model")["speaker"]
    base["simulation"] = {
        "duration_s": 1.0, "min_source_s": 0.5, "num_speakers": 1, "enrollment": {"count": 0},
    }  # fmt: skip
    verification = {"manifest": "train.jsonl", "every_steps": 6}
    return {**base, "task": "speaker", "speaker": encoder, "loss": {"name": "aam"}, "validation": verification}


def log(experiment: Path, kind: str) -> list[dict]:
    records = [json.loads(line) for line in (experiment / "log.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == kind]


def test_an_encoder_learns_and_an_extractor_loads_it(speaker_settings, tmp_path):
    speaker_settings["train"] |= {"steps": 30, "batch_size": 12}
    speaker_settings["optim"]["lr"] = 0.003
    result = train(speaker_settings)
    best = min(record["eer"] for record in log(tmp_path / "exp", "validation"))
    assert (result.measure, result.best) == ("eer", best)
    logged = log(tmp_path / "exp", "train")
    # Of one batch, the accuracy is a matter of luck, and depends on the processor.
    assert logged[-1]["loss"] < 0.8 * logged[0]["loss"]
    assert sum(record["accuracy"] for record in logged[-5:]) / 5 > 0.5
    assert all(0 <= record["eer"] <= 0.5 for record in log(tmp_path / "exp", "validation"))
    saved = checkpoint.load(tmp_path / "exp")
    assert (
        saved.config["network"]["name"] == "ecapa_tdnn"
        and "mode" not in saved.config
        and not any(key.startswith("loss") for key in saved.state_dict)
    )
    assert "Speaker encoder" in (saved.folder / "card.md").read_text()
    encoder = {**copy.deepcopy(speaker_settings["speaker"]), "mode": "frozen", "checkpoint": str(tmp_path / "exp")}
    backbone = {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1}
    network = build_network({"backbone": backbone, "speaker": encoder, "cues": [{"name": "embedding"}]})
    weights = network.encoder.network.state_dict()
    alone = load_encoder(tmp_path / "exp").network.state_dict()
    for key, value in saved.state_dict.items():
        assert torch.equal(weights[key.removeprefix("network.")], value)
        assert torch.equal(alone[key.removeprefix("network.")], value)
    with pytest.raises(CheckpointError, match="is a speaker encoder, no extractor"):
        load(tmp_path / "exp")


def test_a_run_that_was_stopped_ends_with_the_same_weights(speaker_settings, tmp_path: Path):
    whole = {**speaker_settings, "experiment": str(tmp_path / "whole")}
    train(whole)
    half = copy.deepcopy(speaker_settings)
    half["train"]["steps"] = 6
    half["schedule"] = speaker_settings["schedule"] = whole["schedule"] = {"name": "constant"}
    train({**whole, "experiment": str(tmp_path / "constant")})
    train(half)
    train(speaker_settings)
    left, right = (checkpoint.load(tmp_path / name / "checkpoints" / "last").state_dict for name in ("constant", "exp"))
    assert all(torch.equal(left[key], right[key]) for key in left)


def test_each_speed_is_a_speaker_of_its_own(speaker_settings, tmp_path: Path):
    speaker_settings["data"]["speeds"] = [0.9, 1.0, 1.1]
    speaker_settings["train"]["steps"] = 2
    train(speaker_settings)
    saved = checkpoint.load(tmp_path / "exp")
    assert saved.provenance["corpus"]["speakers"] == 12 and "12 speakers" in (saved.folder / "card.md").read_text()
    state = torch.load(tmp_path / "exp" / "state" / "last.pt", weights_only=True)["model"]
    assert 12 in {value.shape[0] for key, value in state.items() if key.startswith("loss.")}


def test_enrollments_are_further_examples_for_losses_that_compare(speaker_settings, tmp_path: Path):
    speaker_settings["simulation"]["enrollment"] = {"count": 1, "duration_s": [0.5, 0.8]}
    speaker_settings["loss"] = [{"name": "aam"}, {"name": "between_speaker", "weight": 0.1}, {"name": "triplet"}]
    speaker_settings["train"]["steps"] = 2
    train(speaker_settings)
    record = log(tmp_path / "exp", "train")[-1]
    total = record["aam"] + 0.1 * record["between_speaker"] + record["triplet"]
    assert record["loss"] == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("name", ["prototypical", "angular_prototypical", "ge2e"])
def test_losses_on_episodes_train_with_unequal_speakers(speaker_settings, tmp_path: Path, name: str):
    """Four speakers in six mixtures with enrollments: some have two utterances, some more, some none."""
    speaker_settings["simulation"]["enrollment"] = {"count": 1, "duration_s": [0.5, 0.8]}
    speaker_settings["loss"] = {"name": name}
    speaker_settings["train"] |= {"steps": 3, "batch_size": 6, "epoch_size": 18}
    speaker_settings["log"]["every_steps"] = 1
    del speaker_settings["validation"]
    train(speaker_settings)
    losses = [record["loss"] for record in log(tmp_path / "exp", "train")]
    assert len(losses) == 3 and all(0 < loss < 100 for loss in losses)


def test_losses_on_episodes_need_two_utterances_of_two_speakers(speaker_settings, monkeypatch):
    monkeypatch.setattr(episodes, "MAX_BATCHES_WITHOUT_EPISODE", 2)
    speaker_settings["loss"] = {"name": "ge2e"}
    speaker_settings["train"] |= {"batch_size": 2, "steps": 3}
    with pytest.raises(InputError, match=r"(1 of 1|0 of 2)\).*enrollment\.count: 1"):
        train(speaker_settings)


def test_waveforms_of_other_lengths_are_padded():
    items = [{"mixture": np.ones(n, np.float32), "speaker": n} for n in (3, 5)]
    batch = collate_speakers([items[:1], items[1:]])
    assert batch["mixture"].sum(1).tolist() == [3, 5] and batch["lengths"].tolist() == batch["speaker"].tolist() == [
        3,
        5,
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"simulation": {"num_speakers": 2, "enrollment": {"count": 0}}}, "num_speakers: a mixture of several"),
        ({"loss": {"name": "amm"}}, "no speaker loss is called 'amm'"),
        ({"task": "speakers"}, "task: is 'speakers'"),
        ({"model": {}}, "model: unknown key"),
    ],
)
def test_impossible_configurations_are_one_line_errors(speaker_settings, change: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        train({**speaker_settings, **change})


def test_a_batch_of_one_is_refused_with_batch_norm(speaker_settings):
    speaker_settings["train"]["batch_size"] = 1
    with pytest.raises(ConfigError, match=r"train\.batch_size: is 1, .*; use 2 or more"):
        train(speaker_settings)


def test_a_frozen_encoder_cannot_be_trained(speaker_settings):
    speaker_settings["speaker"] |= {"mode": "frozen", "checkpoint": "x"}
    with pytest.raises(ConfigError, match=r"speaker.mode is 'frozen'"):
        train(speaker_settings)


def test_an_extractor_needs_enrollments(settings):
    with pytest.raises(ConfigError, match=r"enrollment.count: is 0"):
        train(settings(simulation__enrollment={"count": 0}))
