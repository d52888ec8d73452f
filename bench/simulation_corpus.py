"""Corpus of the simulation benchmarks: FLAC files of real speech, or of synthetic voices."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wesep_py.audio import write
from wesep_py.data import Utterance, find_noises, make_toy_corpus, read_speech
from wesep_py.data.reader import load_utterance
from wesep_py.simulation.noise import coloured_noise

SAMPLE_RATE = 16000
TOY_SPEAKERS, TOY_UTTERANCES = 20, 12
TOY_NOISES_DB = (0.0, -3.0, -6.0)  # white, pink, brown
TOY_NOISE_S = 60


@dataclass(frozen=True)
class BenchCorpus:
    """Speech and noise as FLAC files at 16 kHz."""

    folder: Path
    speech: list[Utterance]
    noises: list[Utterance]

    @property
    def about(self) -> str:
        """Number of files and speakers, and mean duration, in words."""
        durations_s = [utterance.duration_s for utterance in self.speech]
        return (
            f"{len(self.speech)} FLAC files of {np.mean(durations_s):.1f} s on average, "
            f"{len({utterance.speaker_id for utterance in self.speech})} speakers"
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a corpus."""
    parser.add_argument("--data", type=Path, help="folder of the lists; without it, synthetic voices are used")
    parser.add_argument("--speech", nargs="+", default=["speech/dev.csv", "speech/dev_ls.csv"], help="lists of speech")
    parser.add_argument("--noise", nargs="*", default=["noise/dev"], help="folders of noise")
    parser.add_argument("--folder", type=Path, help="folder of the FLAC files; by default a temporary folder")


def make_corpus(arguments: argparse.Namespace, folder: Path) -> BenchCorpus:
    """Write the corpus of the options as FLAC files below `folder`; existing files are kept."""
    folder.mkdir(exist_ok=True)
    if arguments.data is None:
        speech = make_toy_corpus(folder / "toy", TOY_SPEAKERS, TOY_UTTERANCES, overwrite=True)
        return BenchCorpus(folder, _as_flac(speech, folder / "speech"), _toy_noises(folder / "noise"))
    speech = read_speech(arguments.speech, arguments.data)
    noises = find_noises(arguments.noise, arguments.data)
    return BenchCorpus(folder, _as_flac(speech, folder / "speech"), _as_flac(noises, folder / "noise"))


def _as_flac(utterances: Sequence[Utterance], folder: Path) -> list[Utterance]:
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for utterance in utterances:
        path = folder / f"{utterance.utterance_id.replace('/', '_')}.flac"
        waveform = load_utterance(utterance, SAMPLE_RATE).waveform()
        if not path.exists():
            write(path, waveform, SAMPLE_RATE, "PCM_16", clip="scale")
        written.append(replace(utterance, path=path, start_s=0.0, duration_s=waveform.size / SAMPLE_RATE))
    return written


def _toy_noises(folder: Path) -> list[Utterance]:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, slope_db in enumerate(TOY_NOISES_DB):
        noise = coloured_noise(TOY_NOISE_S * SAMPLE_RATE, SAMPLE_RATE, slope_db, seed)
        write(folder / f"noise{seed}.flac", noise, SAMPLE_RATE, "PCM_16", overwrite=True, clip="scale")
    return find_noises([folder.name], folder.parent)
