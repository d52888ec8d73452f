"""Training a personal VAD: classes, loss, a run that learns, its validation and its use by `wesep when`."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.conftest import VOICES, make_voice
from tests.recipes.miniature_default import make_data
from wesep_py import checkpoint
from wesep_py.common.errors import ConfigError
from wesep_py.data import FileReader, read_speaker_folders
from wesep_py.network.personal_vad import PersonalVAD
from wesep_py.simulation import EnrollmentConfig, SimulationConfig, Simulator
from wesep_py.training import train
from wesep_py.training.presence_task import (
    PairwiseLoss,
    PresenceStep,
    collate_presence,
    frame_scores,
    presence_items,
)
from wesep_py.training.training_config import load_config

RECIPE = Path(__file__).resolve().parents[2] / "recipes/presence"


def test_each_frame_is_of_the_target_of_others_or_silent(tiny_speech: Path):
    config = SimulationConfig(
        duration_s=2.0, min_source_s=0.5, overlap="partial", overlap_ratio=(0.2, 0.5), absent_probability=0.5,
        edge_s=(0.2, 0.4), enrollment=EnrollmentConfig(duration_s=(0.5, 1.0)),
    )  # fmt: skip
    simulator, absent = Simulator(config, read_speaker_folders(tiny_speech), [], FileReader(16000)), 0
    for index in range(6):
        sample = simulator.sample(0, index)
        items = presence_items(sample, {}, "all")
        absent += sample.recipe.target is None
        for source, item in enumerate(items):
            classes, activity = item["classes"], sample.activity
            assert len(classes) == 200 and (classes == 0).any()
            np.testing.assert_array_equal(classes > 0, activity.any(0))
            speaks = activity[source] if source < len(activity) else np.zeros(200, dtype=bool)
            np.testing.assert_array_equal(classes == 1, speaks)
    assert 0 < absent < 6
    batch = collate_presence([items, [{**items[0], "mixture": items[0]["mixture"][:16000], "classes": classes[:100]}]])
    assert batch["classes"].shape == (len(items) + 1, 200) and (batch["classes"][-1, 100:] == -1).all()


def test_the_pairwise_loss_is_its_formula():
    loss, logits = PairwiseLoss(0.1), torch.tensor([[[0.5, 2.0, -1.0], [1.0, 0.0, 3.0]]])
    z = logits[0].exp()

    def pair(frame: int, true: int, other: int) -> float:
        return -math.log(z[frame, true] / (z[frame, true] + z[frame, other]))

    expected = pair(0, 1, 0) + pair(0, 1, 2) + 0.1 * pair(1, 2, 0) + pair(1, 2, 1)
    assert loss(logits, torch.tensor([[1, 2]])).item() == pytest.approx(expected / 2, rel=1e-5)
    padded = torch.cat([logits, torch.randn(1, 3, 3)], dim=1)
    assert loss(padded, torch.tensor([[1, 2, -1, -1, -1]])).item() == pytest.approx(expected / 2, rel=1e-5)
    assert loss(logits, torch.tensor([[-1, -1]])).item() == 0


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, list[dict]]:
    """Train the recipe in miniature; return the experiment and its log."""
    folder = tmp_path_factory.mktemp("presence")
    make_data(folder / "DATA")
    values = [f"data.root={folder}/DATA", f"experiment={folder}/exp", "train.steps=40", "train.batch_size=4"]
    values += ["simulation.duration_s=3", "simulation.num_speakers=2", "model.hidden=16", "log.every_steps=5"]
    values += [
        "simulation.noise=null",
        "optim.lr=0.01",
        "schedule.warmup_steps=2",
        "optim.ema_decay=null",
        "data.packed=null",
    ]
    train(load_config(RECIPE / "smoke.yaml", values))
    return folder / "exp", [json.loads(line) for line in (folder / "exp/log.jsonl").read_text().splitlines()]


def test_a_run_learns_and_is_validated(run):
    folder, records = run
    logged = [record for record in records if record["kind"] == "train"]
    assert logged[-1]["loss"] < 0.8 * logged[0]["loss"]
    (validation,) = [record for record in records if record["kind"] == "validation"]
    assert 0 <= validation["f1"] <= 1 and 0 < validation["frame_error"] < 1 and validation["count"] == 2
    saved = checkpoint.load(folder)
    assert saved.config["task"] == "presence" and "Personal VAD" in (saved.folder / "card.md").read_text()


@pytest.mark.parametrize("suffix", [".srt", ".csv", ".json", ".rttm"])
def test_when_writes_the_times_of_the_model(run, wesep, tiny_speech: Path, tmp_path: Path, suffix: str):
    folder, _ = run
    arguments = ["when", tiny_speech / "bert/bert-0.wav", "--enroll", tiny_speech / "anna/anna-0.wav"]
    ran = wesep(*arguments, "--model", folder, "--device", "cpu", "-o", tmp_path / f"o{suffix}", "--json")
    assert ran.status in (0, 3), ran.err
    (target,) = json.loads(ran.out)["targets"]
    assert target["target"] == "anna-0" and target["absent"] == (ran.status == 3)
    assert (tmp_path / f"o{suffix}").exists()


def test_a_run_with_scores_stores_the_encoder_with_the_model(tmp_path: Path, wesep, tiny_speech: Path):
    make_data(tmp_path / "DATA")
    encoder = (
        "{mode: joint, checkpoint: null, network: {name: ecapa_tdnn, channels: 16, frame_dim: 12, embedding_dim: 8}}"
    )
    values = [f"data.root={tmp_path}/DATA", f"experiment={tmp_path}/exp", f"model.speaker={encoder}", "train.steps=2"]
    values += ["data={train: [speech/train.csv], noise: [noise/train], speeds: [1.0], packed: null, workers: 0}"]
    values += ["train={batch_size: 2, max_minutes: null, device: cpu}", "validation.count=2"]
    values += ["simulation={duration_s: 3, num_speakers: 2, noise: null}", "model.hidden=16"]
    train(load_config(RECIPE / "train_score.yaml", values))
    saved = checkpoint.load(tmp_path / "exp")
    assert saved.config["score"] == {"window_s": 1.5, "hop_s": 0.75}
    assert any(name.startswith("encoder.") for name in saved.state_dict)
    mixture, enrollment = (tiny_speech / f"{name}/{name}-0.wav" for name in ("bert", "anna"))
    ran = wesep("when", mixture, "--enroll", enrollment, "--model", tmp_path / "exp", "--device", "cpu", "--json")
    assert ran.status in (0, 3), ran.err
    assert json.loads(ran.out)["targets"][0]["absent"] == (ran.status == 3)


def test_wrong_configurations_are_refused(tmp_path):
    values = ["data.root=.", f"experiment={tmp_path}/exp"]
    with pytest.raises(ConfigError, match="silence_others_weight is 2"):
        load_config(RECIPE / "smoke.yaml", [*values, "silence_others_weight=2"])
    with pytest.raises(ConfigError, match=r"enrollment\.count: is 0"):
        train(
            load_config(
                RECIPE / "smoke.yaml", [*values, "simulation.enrollment.count=0", "simulation.absent_probability=0"]
            )
        )


@pytest.mark.slow
@pytest.mark.processor
def test_a_personal_vad_learns_to_tell_voices_apart(tmp_path: Path):
    """Regression: with each feature's mean removed, and no comparison of frames, it found speech but not whose."""
    for name, voice in VOICES.items():
        (tmp_path / name).mkdir()
        for take in range(8):
            samples = make_voice(*voice, 3.0, seed=7 * take + 100 * len(name))
            soundfile.write(tmp_path / name / f"{name}-{take}.wav", samples, 16000)
    config = SimulationConfig(
        duration_s=4.0,
        overlap="conversation",
        overlap_ratio=(0, 0.3),
        enrollment=EnrollmentConfig(duration_s=(1.5, 2.5)),
    )
    simulator = Simulator(config, read_speaker_folders(tmp_path), [], FileReader(16000))
    torch.manual_seed(0)
    network = PersonalVAD({"hidden": 32, "num_heads": 2})
    step, optimiser = PresenceStep(network, PairwiseLoss(0.1)), torch.optim.AdamW(network.parameters(), lr=4e-3)
    for index in range(350):
        batch = collate_presence([presence_items(simulator.sample(0, 3 * index + k), {}, "all") for k in range(3)])
        optimiser.zero_grad()
        step(batch)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5)
        optimiser.step()
    counts = np.zeros((3, 3), dtype=int)
    with torch.no_grad():
        for index in range(10):
            for item in presence_items(simulator.sample(9, index), {}, "all"):
                mixture, enrollment = (torch.from_numpy(item[name])[None] for name in ("mixture", "enrollment"))
                found = network.eval()(mixture, network.prepare(enrollment))[0].argmax(dim=-1).numpy()
                np.add.at(counts, (item["classes"], found), 1)
    assert frame_scores(counts)["f1"] > 0.85
