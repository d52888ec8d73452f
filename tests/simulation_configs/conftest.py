"""Miniature corpus: eight synthetic speakers with four utterances each, and two noises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.recipes.miniature_voxceleb import SAMPLE_RATE, make_voice
from wesep_py.data import read_speaker_folders, write_manifest

NUM_SPEAKERS, NUM_UTTERANCES, DURATION_S = 8, 4, 5.0


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `speech.jsonl` and `noise/`."""
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(NUM_SPEAKERS):
        (folder / "speech" / f"s{number}").mkdir(parents=True)
        for seed in range(NUM_UTTERANCES):
            voice = make_voice(number, DURATION_S, seed)
            soundfile.write(folder / "speech" / f"s{number}" / f"{seed}.wav", voice, SAMPLE_RATE, subtype="PCM_16")
    write_manifest(read_speaker_folders(folder / "speech"), folder / "speech.jsonl", relative_to=folder)
    make_noises(folder / "noise")
    return folder


def make_noises(folder: Path) -> None:
    """`hum.wav` and `hiss.wav`, three seconds each: shorter than most mixtures, so they are looped."""
    folder.mkdir(parents=True)
    hiss = 0.05 * np.random.default_rng(0).standard_normal(3 * SAMPLE_RATE)
    hum = hiss + 0.2 * np.sin(2 * np.pi * 100 * np.arange(hiss.size) / SAMPLE_RATE)
    for name, noise in (("hiss", hiss), ("hum", hum)):
        soundfile.write(folder / f"{name}.wav", noise, SAMPLE_RATE, subtype="PCM_16")
