"""Synthetic speech and noise for the tests of the simulation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.data import FileReader, Utterance, read_speaker_folders

SAMPLE_RATE = 16000


@pytest.fixture(scope="session")
def utterances(tiny_speech: Path) -> list[Utterance]:
    return read_speaker_folders(tiny_speech)


@pytest.fixture(scope="session")
def reader() -> FileReader:
    return FileReader(SAMPLE_RATE)


@pytest.fixture(scope="session")
def noises(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    """One second of noise: shorter than any mixture, so it is looped."""
    path = tmp_path_factory.mktemp("noise") / "hiss.wav"
    hiss = 0.1 * np.random.default_rng(0).standard_normal(SAMPLE_RATE)
    soundfile.write(path, hiss.astype(np.float32), SAMPLE_RATE, subtype="PCM_16")
    return [Utterance("noise/hiss", "noise", path, 1.0)]
