"""Recordings of several formats and rates, and shards of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.data import Utterance, read_speaker_folders
from wesep_py.data.shard_writing import write_shards


@pytest.fixture(scope="module")
def utterances(tiny_speech: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    """Whole recordings, a segment, one beyond full scale, one of 24 bits and two at other rates in lossy formats."""
    folder = tmp_path_factory.mktemp("more")
    sound = np.sin(np.arange(22050) / 9)
    soundfile.write(folder / "loud.wav", 1.9 * sound, 16000, subtype="FLOAT")
    soundfile.write(folder / "fine.wav", 0.3 * sound, 44100, subtype="PCM_24")
    soundfile.write(folder / "other.ogg", 0.3 * sound, 22050)
    soundfile.write(folder / "other.mp3", 0.3 * sound, 22050)
    whole = read_speaker_folders(tiny_speech)
    more = [
        Utterance(f"x/{name}", f"x{number}", folder / name, soundfile.info(folder / name).duration, gender="f")
        for number, name in enumerate(["loud.wav", "fine.wav", "other.ogg", "other.mp3"])
    ]
    return [*whole[::2], Utterance("cut", "anna", whole[0].path, 0.7, start_s=0.9), *more]


@pytest.fixture(scope="module")
def shards(utterances: list[Utterance], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "shards"
    write_shards(utterances, folder, size_mib=0.2)
    return folder
