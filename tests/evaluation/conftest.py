"""Small lists of trials with known answers, and a stand-in for a model that gives them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.data import read_trials
from wesep_py.data.trials import Trial
from wesep_py.inference import Result
from wesep_py.inference.presence_decision.presence import UNCALIBRATED, Calibration
from wesep_py.simulation.trial_audio import render_trial

SAMPLE_RATE = 16000


@dataclass
class Oracle:
    """Return, for the trials in their order, the target plus `leak` times the residual of the mixture."""

    trials: list[Trial]
    leak: float = 0.1
    condition: str = "clean"
    fails_at: tuple[int, ...] = ()
    sample_rate: int = SAMPLE_RATE
    name: str = "oracle"
    model_hash: str = "0" * 64
    device: str = "cpu"
    calibration: Calibration = UNCALIBRATED
    embedding_dim: int | None = None
    enrolled: list[np.ndarray] = field(default_factory=list)

    def enroll(self, *sources):
        (waveform, sample_rate), *_ = sources
        assert sample_rate == self.sample_rate
        self.enrolled.append(waveform)
        return waveform

    def extract(self, mixture, voice):
        number = len(self.enrolled) - 1
        if number in self.fails_at:
            raise RuntimeError("out of\nmemory")
        assert voice is self.enrolled[-1]
        waveform, sample_rate = mixture
        audio = render_trial(self.trials[number], self.condition, self.sample_rate)
        np.testing.assert_array_equal(waveform, audio.mixture)
        wanted = np.zeros_like(waveform) if audio.reference is None else audio.reference
        return Result(wanted + np.float32(self.leak) * (waveform - wanted), sample_rate)


def lines_of(folder: Path) -> list[dict]:
    """Return the lines of `per_trial.jsonl`."""
    return [json.loads(line) for line in (folder / "per_trial.jsonl").read_text().splitlines()]


def write_lists(folder: Path, rows: list[str], lines: list[str]) -> tuple[Path, Path]:
    header = "mixture_ID,source_1_path,source_1_gain,source_2_path,source_2_gain,noise_path,noise_gain"
    metadata, enrollments = folder / "trials.csv", folder / "trials.map_mixture2enrollment"
    metadata.write_text("\n".join([header, *rows]) + "\n")
    enrollments.write_text("\n".join(lines) + "\n")
    return metadata, enrollments


@pytest.fixture
def lists(tiny_speech: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Return six trials: three mixtures of two speakers, each speaker once the target, with noise for "noisy"."""
    noise = np.random.default_rng(0).standard_normal(8000).astype(np.float32) * 0.02
    soundfile.write(tmp_path / "noise.wav", noise, SAMPLE_RATE, subtype="FLOAT")
    rows, lines = [], []
    for number, (first, second, gain) in enumerate(
        [("anna", "bert", 1.0), ("bert", "carl", 0.5), ("anna", "dora", 2.0)]
    ):
        paths = [tiny_speech / name / f"{name}-{number}.wav" for name in (first, second)]
        rows.append(f"mix{number},{paths[0]},1.0,{paths[1]},{gain},{tmp_path / 'noise.wav'},1.0")
        for path, name in zip(paths, (first, second), strict=True):
            lines.append(f"mix{number} {path.stem} {tiny_speech / name / f'{name}-3.wav'}")
    return write_lists(tmp_path, rows, lines)


@pytest.fixture
def trials(lists: tuple[Path, Path]) -> list[Trial]:
    return read_trials(*lists)


@pytest.fixture
def odd_trials(tiny_speech: Path, tmp_path: Path) -> list[Trial]:
    """Return an ordinary trial, one with a silent target, one with an absent target, one whose source is no audio."""
    soundfile.write(tmp_path / "silence.wav", np.zeros(32000), SAMPLE_RATE)
    (tmp_path / "text.wav").write_text("this is no audio")
    anna, bert, carl = (tiny_speech / name / f"{name}-0.wav" for name in ("anna", "bert", "carl"))
    rows = [
        f"fine,{anna},1.0,{bert},1.0,,",
        f"quiet,{tmp_path / 'silence.wav'},1.0,{bert},1.0,,",
        f"broken,{anna},1.0,{tmp_path / 'text.wav'},1.0,,",
    ]
    lines = [f"fine anna-0 {carl}", f"quiet silence {carl}", f"fine - {carl}", f"broken anna-0 {carl}"]
    return read_trials(*write_lists(tmp_path, rows, lines))
