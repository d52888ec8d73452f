"""A miniature of speechocean762 in its real layout, with made-up voices, and noises beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from tests.recipes.miniature_voxceleb import SAMPLE_RATE, make_voice

SETS = {"train": ("0001", "0003", "0005", "0007"), "test": ("0002", "0004", "0006")}


def make_speechocean762(folder: Path) -> Path:
    """`WAVE/SPEAKER0001/000010011.WAV`, and for each set `wav.scp`, `utt2spk`, `spk2gender`, `spk2age`, `text`."""
    for name, speakers in SETS.items():
        (folder / name).mkdir(parents=True)
        tables: dict[str, list[str]] = {table: [] for table in ("wav.scp", "utt2spk", "spk2gender", "spk2age", "text")}
        for number, speaker in enumerate(speakers):
            (folder / "WAVE" / f"SPEAKER{speaker}").mkdir(parents=True)
            for take in range(3):
                utterance, path = f"0{speaker}00{take}{number}", f"WAVE/SPEAKER{speaker}/0{speaker}00{take}{number}.WAV"
                voice = make_voice(int(speaker), 2.5 + 0.5 * take, take)
                soundfile.write(folder / path, voice, SAMPLE_RATE, subtype="PCM_16")
                tables["wav.scp"].append(f"{utterance}\t{path}")
                tables["utt2spk"].append(f"{utterance}\t{speaker}")
                tables["text"].append(f"{utterance}\tWE CALL IT BEAR")
            tables["spk2gender"].append(f"{speaker}\t{'mf'[number % 2]}")
            tables["spk2age"].append(f"{speaker}\t{6 + number}")
        for table, lines in tables.items():
            (folder / name / table).write_text("\n".join(lines) + "\n")
    return folder


def make_noise(folder: Path) -> Path:
    """`train/` and `dev/` with a noise of four seconds each."""
    for seed, name in enumerate(("train", "dev")):
        (folder / name).mkdir(parents=True)
        hiss = 0.05 * np.random.default_rng(seed).standard_normal(4 * SAMPLE_RATE)
        soundfile.write(folder / name / "hiss.wav", hiss, SAMPLE_RATE, subtype="PCM_16")
    return folder
