"""A small corpus of synthetic voices, spoken by espeak-ng, for demonstrations without recorded speech.

`make_toy_corpus` draws the voices (`draw_voices`) and sentences (`draw_sentence`), synthesises each voice in a process
of its own (`synthesise`, which runs `espeak.py`), sets the levels, and writes the files and their manifest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.level import gain_to_level_db, joint_peak_gain
from wesep_py.audio.resample import resample
from wesep_py.audio.writing import write
from wesep_py.common.errors import InputError, OutputExistsError, WesepError
from wesep_py.data import espeak
from wesep_py.data.manifest import Utterance, write_manifest
from wesep_py.data.reader import OnProgress

# Voice variants of espeak-ng that sound like people.
FEMALE_VARIANTS = (
    "f1", "f2", "f3", "f4", "f5", "Alicia", "Andrea", "Annie", "anika", "aunty", "belinda", "grandma",
    "linda", "steph", "steph2", "steph3",
)  # fmt: skip
MALE_VARIANTS = (
    "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "Alex", "Andy", "Denis", "Gene", "Lee", "Mario", "Reed",
    "adam",
)  # fmt: skip
# Languages by whose pronunciation rules the English sentences are spoken.
ACCENTS = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-029", "de", "nl", "sv", "it", "es")

SUBJECTS = (
    "my brother", "the old doctor", "a small child", "the teacher", "our neighbour", "the blue train",
    "her friend", "the baker", "a grey horse", "the captain", "his daughter", "every student",
    "the tired driver", "a young artist", "the farmer", "nobody here",
)  # fmt: skip
VERBS = (
    "carries", "finds", "opens", "remembers", "paints", "follows", "sells", "watches", "forgets", "brings",
    "repairs", "borrows", "hides", "describes", "wants", "counts",
)  # fmt: skip
OBJECTS = (
    "a yellow umbrella", "the broken window", "seven wooden chairs", "fresh bread", "the morning paper",
    "a very long letter", "the silver key", "some cold water", "an empty box", "the last ticket",
    "two heavy bags", "a picture of the sea", "warm soup", "the green bicycle", "an expensive watch",
    "the kitchen table",
)  # fmt: skip
PLACES = (
    "near the river", "behind the school", "before breakfast", "at the station", "on a rainy Sunday",
    "in the garden", "under the bridge", "after the concert", "every other week", "without a word",
    "for the whole family", "by the open fire", "in the middle of the night", "on the top shelf",
    "at half past nine", "across the road",
)  # fmt: skip

# Range of the active speech level of the utterances in dB.
LEVEL_DB = (-29.0, -23.0)


@dataclass(frozen=True)
class ToyVoice:
    """The parameters of a synthetic voice.

    Args:
        speaker_id: name of the speaker.
        gender: `f` or `m`.
        voice: language and variant of espeak-ng.
        pitch: 0 to 100.
        pitch_range: 0 (monotonous) to 100.
        speed: in words per minute.
        tract: factor on all frequencies; above 1 as of a shorter vocal tract, below 1 as of a longer one.
    """

    speaker_id: str
    gender: str
    voice: str
    pitch: int
    pitch_range: int
    speed: int
    tract: float


def make_toy_corpus(
    folder: str | os.PathLike[str],
    num_speakers: int = 8,
    utterances_per_speaker: int = 8,
    seed: int = 0,
    sample_rate: int = 16000,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> list[Utterance]:
    """Synthesise a corpus: `FOLDER/SPEAKER/NUMBER.wav` and `FOLDER/manifest.jsonl`.

    An utterance is a function of the seed, the number of its speaker and its own number; it does not change when there
    are more speakers or utterances. Half of the speakers are female. Utterances last about 3 to 8 s.

    Args:
        folder: created if it does not exist; its parent must exist.
        num_speakers: at least 1.
        utterances_per_speaker: at least 1.
        seed: at least 0.
        sample_rate: sample rate of the files in Hz, at least 8000.
        overwrite: replace the files of an existing corpus.
        on_progress: called with the number of speakers done and the total number.

    Returns:
        The utterances, as `read_manifest` returns them.

    Raises:
        InputError: a number is out of its range, or the parent of the folder does not exist.
        OutputExistsError: the folder holds a manifest and `overwrite` is false.
        WesepError: espeakng_loader is not installed (extra `demo`), or espeak-ng fails.
    """
    folder = Path(folder)
    for name, value, minimum in (
        ("num_speakers", num_speakers, 1),
        ("utterances_per_speaker", utterances_per_speaker, 1),
        ("seed", seed, 0),
        ("sample_rate", sample_rate, 8000),
    ):
        if value < minimum:
            raise InputError(f"{name}: is {value}; at least {minimum} is needed")
    manifest = folder / "manifest.jsonl"
    if manifest.exists() and not overwrite:
        raise OutputExistsError(f"{manifest}: exists already; name another folder, or pass --overwrite")
    if not folder.parent.is_dir():
        raise InputError(f"{folder}: the folder {folder.parent} does not exist; create it first")
    folder.mkdir(exist_ok=True)
    utterances: list[Utterance] = []
    for index, voice in enumerate(draw_voices(num_speakers, seed)):
        utterances += _write_speaker(folder, voice, index, utterances_per_speaker, seed, sample_rate)
        if on_progress is not None:
            on_progress(index + 1, num_speakers)
    write_manifest(utterances, manifest, overwrite=overwrite)
    return utterances


def draw_voices(num_speakers: int, seed: int = 0) -> list[ToyVoice]:
    """Draw voices that differ in variant, accent, pitch, range, speed and vocal tract.

    The first voices do not depend on the number of voices.

    >>> [voice.gender for voice in draw_voices(3)]
    ['f', 'm', 'f']
    """
    order = np.random.default_rng([seed, 0])
    variants = (order.permutation(FEMALE_VARIANTS), order.permutation(MALE_VARIANTS))
    voices = []
    for index in range(num_speakers):
        rng = np.random.default_rng([seed, 1, index])
        same_gender = variants[index % 2]
        variant = same_gender[index // 2 % len(same_gender)]
        tract = rng.uniform(0.96, 1.16) if index % 2 == 0 else rng.uniform(0.86, 1.04)
        voices.append(
            ToyVoice(
                speaker_id=f"toy{index:03d}",
                gender="fm"[index % 2],
                voice=f"{rng.choice(ACCENTS)}+{variant}",
                pitch=int(rng.integers(25, 76)),
                pitch_range=int(rng.integers(25, 81)),
                speed=int(rng.integers(135, 186)),
                tract=round(float(tract), 3),
            )
        )
    return voices


def draw_sentence(rng: np.random.Generator) -> str:
    """Draw one or two random sentences of the built-in words.

    >>> draw_sentence(np.random.default_rng(0))[-1]
    '.'
    """
    sentences = []
    for _ in range(int(rng.integers(1, 3))):
        words = " ".join(str(rng.choice(part)) for part in (SUBJECTS, VERBS, OBJECTS, PLACES))
        sentences.append(words[0].upper() + words[1:] + ".")
    return " ".join(sentences)


def synthesise(voice: ToyVoice, texts: Sequence[str], sample_rate: int) -> list[NDArray[np.float32]]:
    """Speak texts in a voice, and return a waveform for each, float32 `[samples]`; the same for the same arguments.

    Raises:
        WesepError: espeakng_loader is not installed, or espeak-ng fails.
    """
    request = {
        "voice": voice.voice,
        "pitch": voice.pitch,
        "range": voice.pitch_range,
        "speed": voice.speed,
        "texts": list(texts),
    }
    program = Path(espeak.__file__).resolve()
    process = subprocess.run(
        [sys.executable, str(program)], input=json.dumps(request).encode(), capture_output=True, check=False
    )
    if process.returncode != 0:
        error_lines = process.stderr.decode(errors="replace").strip().splitlines() or [f"status {process.returncode}"]
        raise WesepError(f"the synthetic voice {voice.voice!r} cannot speak: {error_lines[-1]}")
    stream = BytesIO(process.stdout)
    waveforms = []
    for _ in texts:
        rate, count = (int(field) for field in stream.readline().split())
        samples = np.frombuffer(stream.read(2 * count), np.int16).astype(np.float32) / 32768
        # Read as if recorded at another rate: formants and pitch move together, as with another length of vocal tract.
        waveforms.append(resample(samples, round(rate * voice.tract), sample_rate))
    return waveforms


def _write_speaker(
    folder: Path, voice: ToyVoice, index: int, count: int, seed: int, sample_rate: int
) -> list[Utterance]:
    rngs = [np.random.default_rng([seed, 2, index, number]) for number in range(count)]
    texts = [draw_sentence(rng) for rng in rngs]
    (folder / voice.speaker_id).mkdir(exist_ok=True)
    utterances = []
    for number, waveform in enumerate(synthesise(voice, texts, sample_rate)):
        level_db = float(rngs[number].uniform(*LEVEL_DB))
        waveform = waveform * np.float32(gain_to_level_db(waveform, level_db, sample_rate))
        waveform = waveform * np.float32(joint_peak_gain([waveform]))
        path = folder / voice.speaker_id / f"{number:03d}.wav"
        write(path, waveform, sample_rate, subtype="PCM_16", overwrite=True)
        utterances.append(
            Utterance(
                f"{voice.speaker_id}-{number:03d}",
                voice.speaker_id,
                path,
                waveform.size / sample_rate,
                gender=voice.gender,
                text=texts[number],
            )
        )
    return utterances
