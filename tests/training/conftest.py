"""A corpus, a trial list and a configuration that train on one core in about a second per step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wesep_py.audio import info
from wesep_py.data import FileReader, Utterance, read_speaker_folders, write_manifest
from wesep_py.simulation import SimulationConfig, Simulator
from wesep_py.simulation.description.simulation_config import EnrollmentConfig

SPEAKERS = ("anna", "bert", "carl", "dora")


@pytest.fixture(scope="session")
def corpus(tiny_speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `train.jsonl` of the tiny speech and two trials: `trials.csv`, `trials.map`."""
    folder = tmp_path_factory.mktemp("corpus")
    files = [(speaker, file) for speaker in SPEAKERS for file in sorted((tiny_speech / speaker).glob("*.wav"))]
    utterances = [Utterance(file.stem, speaker, file, info(file).duration_s) for speaker, file in files]
    write_manifest(utterances, folder / "train.jsonl")
    anna, bert = tiny_speech / "anna", tiny_speech / "bert"
    (folder / "trials.csv").write_text(
        "mixture_ID,source_1_path,source_1_gain,source_2_path,source_2_gain\n"
        f"anna-0_bert-0,{anna / 'anna-0.wav'},0.5,{bert / 'bert-0.wav'},0.5\n"
    )
    (folder / "trials.map").write_text(
        f"anna-0_bert-0 anna-0 {anna / 'anna-1.wav'}\nanna-0_bert-0 bert-0 {bert / 'bert-1.wav'}\n"
    )
    return folder


@pytest.fixture
def settings(corpus: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that makes the mapping of a small run in `tmp_path/exp`.

    Arguments replace keys: `settings(train__steps=3)`.

    The network has batch norm and SpecAugment's random numbers, which make exact resuming hard.
    """
    base: dict[str, Any] = {
        "experiment": str(tmp_path / "exp"),
        "seed": 1,
        "model": {
            "backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1},
            "speaker": {
                "filterbank": {"num_mel_bins": 20},
                "network": {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 48, "embedding_dim": 16},
                "spec_augment": {"num_time_masks": 1, "max_time_frames": 10},
            },
            "cues": [{"name": "embedding", "fusion": "film"}],
        },
        "data": {"root": str(corpus), "train": ["train.jsonl"], "workers": 0},
        "simulation": {
            "duration_s": 1.0,
            "min_source_s": 0.5,
            "num_speakers": {1: 1, 2: 3},
            "enrollment": {"duration_s": [0.5, 1.0]},
        },
        "optim": {"lr": 0.01},
        "schedule": {"name": "cosine", "warmup_steps": 2},
        "train": {
            "steps": 6,
            "batch_size": 2,
            "epoch_size": 5,
            "device": "cpu",
            "threads": 1,
            "precision": "32-true",
        },
        "checkpoint": {"every_steps": 2, "keep": 3, "average": 2},
        "log": {"every_steps": 2, "audio_samples": 1},
    }

    def make(**replaced: Any) -> dict[str, Any]:
        mapping = copy.deepcopy(base)
        for key, value in replaced.items():
            *path, name = key.split("__")
            inner = mapping
            for part in path:
                inner = inner.setdefault(part, {})
            inner[name] = value
        return mapping

    return make


@pytest.fixture
def validation() -> dict[str, Any]:
    """Return the `validation` of a configuration over the two trials of the corpus."""
    return {"trials": "trials.csv", "enrollment": "trials.map", "every_steps": 3}


@pytest.fixture(scope="session")
def simulator(tiny_speech: Path) -> Simulator:
    """Return a simulator of mixtures of three speakers with enrollments."""
    config = SimulationConfig(
        duration_s=1.0, min_source_s=0.5, num_speakers=3, enrollment=EnrollmentConfig(duration_s=(0.5, 1.0))
    )
    return Simulator(config, read_speaker_folders(tiny_speech), [], FileReader(16000), seed=3)
