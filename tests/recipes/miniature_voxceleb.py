"""A miniature of VoxCeleb1, VoxCeleb2 and MUSAN in their real layouts, with made-up voices and noises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

SAMPLE_RATE = 16000
# Of VoxCeleb1's speakers; those from id10270 on are its test set.
DEV, TEST = ("id10001", "id10002", "id10003"), ("id10270", "id10271", "id10290", "id10291")
VOX2 = ("id00012", "id00015")
VIDEOS = ("1zcIwhmdeo4", "x6uYqmx31kE")


def make_voxceleb1(folder: Path, duration_s: float = 3.0) -> Path:
    """`wav/id10270/x6uYqmx31kE/00001.wav` and `vox1_meta.csv`, whose cells are apart by tabs."""
    rows = ["VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet"]
    for number, speaker in enumerate((*DEV, *TEST)):
        _speak(folder / "wav" / speaker, number, duration_s, ".wav")
        which = "test" if speaker in TEST else "dev"
        rows.append(f"{speaker}\tSome_Body\t{'mf'[number % 2]}\tIreland\t{which}")
    (folder / "vox1_meta.csv").write_text("\n".join(rows) + "\n")
    return folder


def make_voxceleb2(folder: Path, duration_s: float = 3.0, suffix: str = ".flac") -> Path:
    """`dev/aac/id00012/1zcIwhmdeo4/00001.flac`, as converted, and `vox2_meta.csv` (blanks before commas)."""
    rows = ["VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set"]
    for number, speaker in enumerate(VOX2):
        _speak(folder / "dev" / "aac" / speaker, 10 + number, duration_s, suffix)
        rows.append(f"{speaker} ,n000012 ,{'fm'[number % 2]} ,dev")
    (folder / "vox2_meta.csv").write_text("\n".join(rows) + "\n")
    return folder


def make_musan(folder: Path) -> Path:
    """`noise/free-sound/noise-free-sound-0000.wav`, `music/fma/…`, `speech/librivox/…`, two seconds each."""
    for number, place in enumerate(("noise/free-sound", "music/fma", "speech/librivox")):
        kind, source = place.split("/")
        (folder / place).mkdir(parents=True)
        hiss = 0.05 * np.random.default_rng(number).standard_normal(2 * SAMPLE_RATE)
        soundfile.write(folder / place / f"{kind}-{source}-0000.wav", hiss, SAMPLE_RATE, subtype="PCM_16")
    return folder


def make_libri2mix(folder: Path) -> Path:
    """`Libri2Mix/wav16k/min/test/{mix_clean,s1,s2}/MIXTURE.wav` of two speakers, and SpeakerBeam's map."""
    place, lines = folder / "Libri2Mix" / "wav16k" / "min" / "test", []
    names = ("1089-1-0000_121-1-0000", "1089-1-0001_121-1-0001")
    for seed, (mixture, other) in enumerate((names, names[::-1])):
        voices = [make_voice(number, 1.5, seed) for number in (20, 24)]
        for part, waveform in (("s1", voices[0]), ("s2", voices[1]), ("mix_clean", sum(voices))):
            (place / part).mkdir(parents=True, exist_ok=True)
            soundfile.write(place / part / f"{mixture}.wav", 0.5 * waveform, SAMPLE_RATE, subtype="PCM_16")
        lines += [f"{mixture} {target} s{k}/{other}" for k, target in enumerate(mixture.split("_"), start=1)]
    lists = folder / "speakerbeam/egs/libri2mix/data/wav8k/min/test"
    lists.mkdir(parents=True)
    (lists / "map_mixture2enrollment").write_text("\n".join(lines) + "\n")
    return folder


def make_voice(number: int, duration_s: float, seed: int) -> np.ndarray:
    """Syllables of a voice's own pitch and two formants, never silent for more than 0.15 s; float64 `[samples]`."""
    rng = np.random.default_rng([number, seed])
    pitch_hz, formants_hz = 90.0 + 23.0 * number, (400.0 + 60 * number, 1200.0 + 110 * number)
    num_samples = round(duration_s * SAMPLE_RATE)
    phase = 2 * np.pi * np.cumsum(np.full(num_samples, pitch_hz)) / SAMPLE_RATE
    voice = np.zeros(num_samples)
    for harmonic in range(1, int(3500 / pitch_hz)):
        gain = sum(np.exp(-(((harmonic * pitch_hz - formant) / 200.0) ** 2)) for formant in formants_hz)
        voice += (gain + 0.02) * np.sin(harmonic * phase)
    envelope, position = np.zeros(num_samples), 0
    while position < num_samples:
        syllable = min(int(rng.uniform(0.15, 0.3) * SAMPLE_RATE), num_samples - position)
        envelope[position : position + syllable] = np.hanning(syllable + 2)[1:-1]
        position += syllable + int(rng.uniform(0.02, 0.15) * SAMPLE_RATE)
    voice = voice * envelope + 1e-4 * rng.standard_normal(num_samples)
    return 0.4 * voice / np.abs(voice).max()


def _speak(speaker: Path, number: int, duration_s: float, suffix: str) -> None:
    for position, video in enumerate(VIDEOS):
        (speaker / video).mkdir(parents=True)
        for name in ("00001", "00002"):
            voice = make_voice(number, duration_s, 10 * position + int(name))
            soundfile.write(speaker / video / f"{name}{suffix}", voice, SAMPLE_RATE, subtype="PCM_16")
