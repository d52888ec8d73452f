"""A miniature of the data of recipes/default: speech, noise, and trials with and without the target."""

from __future__ import annotations

import csv
from pathlib import Path

from tests.recipes.miniature import write_voice
from tests.recipes.miniature_speechocean762 import make_noise

DURATION_S = 2.5


def make_data(folder: Path) -> dict[str, int]:
    """`speech/{train,dev,dev_ls}.csv`, `noise/{train,dev}/`, `trials/{dev,dev_ls}_2mix{,_absent}…`.

    Returns:
        The number of trials of each list.
    """
    make_noise(folder / "noise")
    speakers = {"train": range(1, 6), "dev": range(11, 14), "dev_ls": range(21, 24)}
    for name, numbers in speakers.items():
        _make_speech(folder, name, numbers)
    counts = {}
    for name in ("dev", "dev_ls"):
        counts |= _make_trials(folder, name, speakers[name])
    return counts


def _utterance(name: str, speaker: int, take: int) -> tuple[str, str]:
    """Return the id of an utterance, and its path in the folder."""
    utterance = f"{name}{speaker}-{take}"
    return utterance, f"speech/{name}/{speaker}/{utterance}.wav"


def _make_speech(folder: Path, name: str, speakers: range) -> None:
    rows = []
    for speaker in speakers:
        for take in range(2):
            utterance, path = _utterance(name, speaker, take)
            write_voice(folder / path, speaker, DURATION_S, take)
            gender = "mf"[speaker % 2]
            rows.append([utterance, f"{name}{speaker}", gender, 30, path, DURATION_S, "SOME WORDS"])
    with (folder / "speech" / f"{name}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["utterance_id", "speaker_id", "gender", "age", "path", "duration_s", "text"])
        writer.writerows(rows)


def _make_trials(folder: Path, name: str, speakers: range) -> dict[str, int]:
    """Write a mixture of two speakers, with a trial for each of them and one for a third, absent speaker."""
    (folder / "trials").mkdir(exist_ok=True)
    first, second, absent = speakers
    (first_id, first_path), (second_id, second_path) = (_utterance(name, speaker, 0) for speaker in (first, second))
    mixture = f"{first_id}_{second_id}"
    head = "mixture_ID,source_1_path,source_1_gain,source_2_path,source_2_gain,noise_path,noise_gain,noise_offset_s"
    row = f"{mixture},{first_path},0.5,{second_path},0.4,noise/dev/hiss.wav,0.3,0.5"
    (folder / f"trials/{name}_2mix.csv").write_text(f"{head}\n{row}\n")
    enrollments = {speaker: _utterance(name, speaker, 1)[1] for speaker in speakers}
    lines = [f"{mixture} {first_id} {enrollments[first]}\n", f"{mixture} {second_id} {enrollments[second]}\n"]
    (folder / f"trials/{name}_2mix.map_mixture2enrollment").write_text("".join(lines))
    (folder / f"trials/{name}_2mix_absent.map_mixture2enrollment").write_text(f"{mixture} - {enrollments[absent]}\n")
    return {f"{name}_2mix": 2, f"{name}_2mix_absent": 1}
