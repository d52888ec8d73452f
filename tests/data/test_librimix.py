from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.common.errors import AudioError, InputError
from wesep_py.data import read_librimix_metadata


def speak(path: Path, num_samples: int = 8000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(num_samples, 0.1), 16000)


def test_sources_that_are_mixed_twice_come_once(tmp_path: Path):
    speak(tmp_path / "84/84-1-1.flac", 16000)
    speak(tmp_path / "61/61-1-1.flac")
    speak(tmp_path / "61/61-1-2.flac")
    (tmp_path / "m.csv").write_text(
        "mixture_ID,source_1_path,source_1_gain,source_2_path,source_2_gain\n"
        "84-1-1_61-1-1,84/84-1-1.flac,1,61/61-1-1.flac,1\n61-1-2_84-1-1,61/61-1-2.flac,1,84/84-1-1.flac,0.5\n"
    )
    utterances = read_librimix_metadata(tmp_path / "m.csv")
    assert [(u.utterance_id, u.speaker_id, u.duration_s) for u in utterances] == [
        ("84-1-1", "84", 1.0),
        ("61-1-1", "61", 0.5),
        ("61-1-2", "61", 0.5),
    ]


def test_images_of_a_tree_are_utterances_of_their_own(tmp_path: Path):
    for folder in ("s1", "s2", "mix_clean"):
        for name in ("84-1-1_61-1-1", "61-1-2_84-1-1"):
            speak(tmp_path / folder / f"{name}.wav")
    utterances = read_librimix_metadata(tmp_path)
    assert [(u.utterance_id, u.speaker_id) for u in utterances] == [
        ("61-1-2_84-1-1-s1", "61"),
        ("61-1-2_84-1-1-s2", "84"),
        ("84-1-1_61-1-1-s1", "84"),
        ("84-1-1_61-1-1-s2", "61"),
    ]
    assert utterances[0].path == tmp_path / "s1/61-1-2_84-1-1.wav"


def test_a_missing_source_is_left_out_or_an_error(tmp_path: Path):
    speak(tmp_path / "84-1-1.flac")
    (tmp_path / "m.csv").write_text("mixture_ID,source_1_path,source_2_path\n84-1-1_61-1-1,84-1-1.flac,61-1-1.flac\n")
    with pytest.raises(AudioError, match=r"61-1-1\.flac: no such file"):
        read_librimix_metadata(tmp_path / "m.csv")
    bad: list[str] = []
    utterances = read_librimix_metadata(tmp_path / "m.csv", on_skip=lambda path, _: bad.append(path.name))
    assert [u.utterance_id for u in utterances] == ["84-1-1"]
    assert bad == ["61-1-1.flac"]


def test_one_id_for_two_recordings_or_for_no_speaker_is_named(tmp_path: Path):
    for name in ("x/1-1.wav", "y/1-1.wav", "y/2-1.wav", "anna.wav"):
        speak(tmp_path / name)
    (tmp_path / "m.csv").write_text(
        "mixture_ID,source_1_path,source_2_path\n1-1_2-1,x/1-1.wav,y/2-1.wav\n1-1,y/1-1.wav,\n"
    )
    with pytest.raises(InputError, match="'1-1' is that of"):
        read_librimix_metadata(tmp_path / "m.csv")
    (tmp_path / "m.csv").write_text("mixture_ID,source_1_path\nanna,anna.wav\n")
    with pytest.raises(InputError, match=r"m\.csv:2: utterance 'anna' does not say who speaks"):
        read_librimix_metadata(tmp_path / "m.csv")
