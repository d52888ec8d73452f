"""Miniatures of corpora in their real layouts, of speech-like sounds, on which a recipe runs in seconds."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tests.conftest import SAMPLE_RATE, make_voice
from tests.forked_commands import search_path

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def run_recipe(name: str, *arguments: object, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
    """Run `recipes/NAME/run.sh` with this environment's `wesep`, one thread."""
    return subprocess.run(
        ["bash", str(RECIPES / name / "run.sh"), *map(str, arguments)],
        env={**os.environ, "PATH": search_path(), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def check_results(experiment: Path, model: str, results: str, trials: int) -> dict[str, Any]:
    """Check that a model, a summary of all trials and a page exist; return the summary."""
    assert {"config.yaml", "model.safetensors"} <= {file.name for file in (experiment / model).iterdir()}
    summary = json.loads((experiment / results / "summary.json").read_text())
    assert summary["counts"]["trials"] == summary["counts"]["scored"] == trials
    assert np.isfinite(summary["si_sdri"]["mean"])
    assert (experiment / results / "report.html").stat().st_size > 10_000
    return summary


def voice_of(speaker: int) -> tuple[float, tuple[float, ...]]:
    """Return fundamental frequency and formants in Hz of a synthetic speaker, by its number."""
    rng = np.random.default_rng(speaker)
    return rng.uniform(90, 280), (rng.uniform(400, 900), rng.uniform(1100, 2300), rng.uniform(2400, 3400))


def write_voice(path: Path, speaker: int, duration_s: float, seed: int, sample_rate: int = SAMPLE_RATE) -> None:
    """Write an utterance of a synthetic speaker, 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voice = make_voice(*voice_of(speaker), duration_s, seed=1000 * speaker + seed)
    soundfile.write(path, voice[:: SAMPLE_RATE // sample_rate], sample_rate, subtype="PCM_16")


def make_librispeech(folder: Path, speakers: dict[str, Sequence[int]], utterances: int = 3) -> None:
    """`LibriSpeech/<subset>/<speaker>/<chapter>/<speaker>-<chapter>-<number>.flac`, transcripts and `SPEAKERS.TXT`.

    Args:
        folder: that holds `LibriSpeech`.
        speakers: of each subset, as numbers; all different.
        utterances: of each speaker, 1.6 s and more, in one chapter.
    """
    rows = ["; ID | SEX | SUBSET | MINUTES | NAME"]
    for subset, numbers in speakers.items():
        for speaker in numbers:
            chapter = folder / "LibriSpeech" / subset / str(speaker) / str(1000 + speaker)
            names = [f"{speaker}-{1000 + speaker}-{number:04d}" for number in range(utterances)]
            for number, name in enumerate(names):
                write_voice(chapter / f"{name}.flac", speaker, 1.6 + 0.1 * (number % 3), number)
            lines = "".join(f"{name} SOME WORDS\n" for name in names)
            (chapter / f"{speaker}-{1000 + speaker}.trans.txt").write_text(lines)
            rows.append(f"{speaker} | {'FM'[speaker % 2]} | {subset} | 25.0 | Somebody {speaker}")
    (folder / "LibriSpeech" / "SPEAKERS.TXT").write_text("\n".join(rows) + "\n")


def make_wham_noise(folder: Path) -> None:
    """`wham_noise/{tr,cv,tt}/*.wav`: two channels, 16 kHz, one file a set, named as WHAM! names them."""
    for seed, (part, name) in enumerate(WHAM_NAMES.items()):
        path = folder / "wham_noise" / part / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = 0.05 * np.random.default_rng(seed).standard_normal((round(1.2 * SAMPLE_RATE), 2))
        soundfile.write(path, noise, SAMPLE_RATE, subtype="PCM_16")


WHAM_NAMES = {
    "tr": "01ga010e_0.67686_016c020s_-0.67686",
    "cv": "20do010f_0.019173_40po030p_-0.019173",
    "tt": "441c0214_2.2927_422c0206_-2.2927",
}


def make_librimix_metadata(
    folder: Path, speakers: dict[str, Sequence[int]], num_speakers: int = 2
) -> dict[str, list[str]]:
    """`LibriMix/metadata/Libri<N>Mix/libri<N>mix_<subset>.csv`, as the LibriMix repository has them.

    Every utterance of `make_librispeech` is mixed once, with those of the next speakers of its subset.

    Returns:
        For each subset the ids of its mixtures.
    """
    where = folder / f"LibriMix/metadata/Libri{num_speakers}Mix"
    where.mkdir(parents=True, exist_ok=True)
    numbers = range(1, num_speakers + 1)
    head = [f"source_{k}_{what}" for k in numbers for what in ("path", "gain")]
    mixtures: dict[str, list[str]] = {}
    for subset, own in speakers.items():
        part = {"train": "tr", "dev": "cv", "test": "tt"}[subset.split("-")[0]]
        rows = [",".join(["mixture_ID", *head, "noise_path", "noise_gain"])]
        for number in range(3):
            for first in range(0, len(own) - num_speakers + 1, num_speakers):
                mixed = own[first : first + num_speakers]
                names = [f"{speaker}-{1000 + speaker}-{number:04d}" for speaker in mixed]
                fields = ["_".join(names)]
                for speaker, name in zip(mixed, names, strict=True):
                    fields += [f"{subset}/{speaker}/{1000 + speaker}/{name}.flac", f"{0.4 + 0.013 * number:.15f}"]
                mark = "sp08" if subset.startswith("train") and number == 1 else ""
                rows.append(",".join([*fields, f"{part}/{WHAM_NAMES[part]}{mark}.wav", "0.331982390445737"]))
                mixtures.setdefault(subset, []).append("_".join(names))
        (where / f"libri{num_speakers}mix_{subset}.csv").write_text("\n".join(rows) + "\n")
    return mixtures


def make_speakerbeam_maps(folder: Path, mixtures: dict[str, list[str]], suffix: str = "") -> dict[str, int]:
    """`speakerbeam/egs/libri2mix/data/wav8k/min/{dev,test}/map_mixture2enrollment`, as SpeakerBeam's repository.

    The enrollment of a target is the source of another mixture: `s<k>/<mixture_ID>`.

    Returns:
        The number of trials of `dev` and `test`.
    """
    counts = {}
    for part in ("dev", "test"):
        ids = mixtures[f"{part}-clean"]
        lines = []
        for mixture_id in ids:
            for target in mixture_id.split("_"):
                speaker = target.split("-")[0]
                others = [
                    (other, k)
                    for other in ids
                    for k, name in enumerate(other.split("_"), start=1)
                    if name.split("-")[0] == speaker and name != target
                ]
                other, k = others[len(lines) % len(others)]
                lines.append(f"{mixture_id} {target} s{k}/{other}\n")
        path = folder / f"speakerbeam/egs/libri2mix/data/wav8k/min/{part}/map_mixture2enrollment{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines))
        counts[part] = len(lines)
    return counts


def make_wsj0_2mix(folder: Path, speakers: dict[str, Sequence[str]]) -> dict[str, int]:
    """`wsj0/{si_tr_s,si_dt_05,si_et_05}`, `2speakers/wav8k/min/{tr,cv,tt}`, `mix_2_spk_*.txt`, SpEx's `aux.scp`.

    Args:
        folder: that holds all of them.
        speakers: of `tr`, `cv` and `tt`, two each, by three characters; those of `cv` are of `tr`, as in WSJ0-2mix.

    Returns:
        The number of trials of `cv` and `tt`.
    """
    places = {"tr": "si_tr_s", "cv": "si_tr_s", "tt": "si_et_05"}
    counts = {}
    for part, own in speakers.items():
        takes = range(3) if part != "cv" else range(3, 6)
        paths = {}
        for name in own:
            for take in takes:
                utterance = f"{name}c02{take:02d}"
                paths[utterance] = folder / "wsj0" / places[part] / name / f"{utterance}.wav"
                write_voice(paths[utterance], int(name, 36), 1.6 + 0.1 * (take % 3), take)
        lines, enrollments = [], []
        for take in takes:
            spoken = [f"{name}c02{take:02d}" for name in own]
            level = f"{0.5 + take / 8:.5g}"
            mixture = f"{spoken[0]}_{level}_{spoken[1]}_-{level}"
            lines.append(
                f"{paths[spoken[0]].relative_to(folder)} {level} {paths[spoken[1]].relative_to(folder)} -{level}\n"
            )
            _write_wsj0_mixture(
                folder / f"2speakers/wav8k/min/{part}", mixture, [paths[name] for name in spoken], level
            )
            for name in own:
                other = f"{name}c02{takes[(take + 1) % 3]:02d}"
                there = f"/home/somebody/wsj0/{places[part]}_8k/{name}/{other}.wav"
                enrollments.append(f"{mixture}_{other} {there}\n")
        (folder / f"mix_2_spk_{part}.txt").write_text("".join(lines))
        aux = folder / f"SpEx_Plus/data/wsj0_2mix/{part}/aux.scp"
        aux.parent.mkdir(parents=True)
        aux.write_text("".join(enrollments))
        counts[part] = len(enrollments)
    return counts


def _write_wsj0_mixture(folder: Path, mixture_id: str, recordings: Sequence[Path], level_db: str) -> None:
    gains = [0.5 * 10 ** (sign * float(level_db) / 20) for sign in (1, -1)]
    images = [gain * soundfile.read(path)[0][::2] for gain, path in zip(gains, recordings, strict=True)]
    shortest = min(map(len, images))
    images = [image[:shortest] for image in images]
    for part, waveform in {"mix": sum(images), "s1": images[0], "s2": images[1]}.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / part / f"{mixture_id}.wav", waveform, SAMPLE_RATE // 2, subtype="PCM_16")
