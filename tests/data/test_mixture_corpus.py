"""Mixtures of lists in LibriMix's form as training data, with enrollments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.common.errors import InputError
from wesep_py.data import Utterance
from wesep_py.data.mixture_corpus import read_mixture_corpus


def _write(path: Path, seconds: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(round(16000 * seconds), 0.1), 16000)
    return path


@pytest.fixture
def metadata(tmp_path: Path) -> Path:
    for name, seconds in (("1-1-0001", 2.0), ("2-1-0001", 3.0), ("2-1-0002", 1.5)):
        _write(tmp_path / f"LibriSpeech/{name}.flac", seconds)
    _write(tmp_path / "wham_noise/tr/hiss.wav", 2.0)
    rows = "1-1-0001_2-1-0001,1-1-0001.flac,0.5,2-1-0001.flac,0.25,tr/hisssp08.wav,2.0\n"
    rows += "1-1-0001_2-1-0002,1-1-0001.flac,0.4,2-1-0002.flac,0.3,tr/hiss.wav,1.0\n"
    head = "mixture_ID,source_1_path,source_1_gain,source_2_path,source_2_gain,noise_path,noise_gain\n"
    path = tmp_path / "libri2mix_train-clean-100.csv"
    path.write_text(head + rows)
    return path


def test_metadata_with_gains_names_the_recordings_themselves(metadata: Path, tmp_path: Path):
    corpus = read_mixture_corpus([metadata], "noisy", tmp_path / "LibriSpeech", tmp_path / "wham_noise")
    first, second = corpus.mixtures
    assert [(s.utterance.utterance_id, s.utterance.speaker_id, s.gain) for s in first.sources] == [
        ("1-1-0001", "1", 0.5),
        ("2-1-0001", "2", 0.25),
    ]
    assert [utterance.utterance_id for utterance in corpus.speech] == ["1-1-0001", "2-1-0001", "2-1-0002"]
    assert (first.noise_utterance.speed, first.noise_utterance.duration_s) == (0.8, 2.5)
    assert (first.noise.gain, second.noise_utterance.speed) == (2.0, 1.0)
    assert len(corpus.noises) == 2


def test_a_rendered_source_keeps_the_id_of_its_recording(tmp_path: Path):
    for mixture in ("1-1-0001_2-1-0001", "1-1-0001_2-1-0002"):
        for k in (1, 2):
            _write(tmp_path / f"tree/s{k}/{mixture}.wav", 1.5)
    corpus = read_mixture_corpus([tmp_path / "tree"])
    assert [utterance.utterance_id for utterance in corpus.speech][:2] == [
        "1-1-0001_2-1-0001-s1",
        "1-1-0001_2-1-0001-s2",
    ]
    assert [corpus.recording_ids[utterance.utterance_id] for utterance in corpus.speech][::2] == ["1-1-0001"] * 2
    assert corpus.mixtures[0].noise is None and corpus.noises == []


def test_further_speech_adds_enrollments_without_duplicates(metadata: Path, tmp_path: Path):
    manifest = [
        Utterance("1-9-0000", "1", _write(tmp_path / "9.wav", 1.0), 1.0),
        Utterance("1-1-0001", "1", tmp_path / "LibriSpeech/1-1-0001.flac", 2.0),
    ]
    corpus = read_mixture_corpus([metadata], "clean", tmp_path / "LibriSpeech", speech=manifest)
    assert sorted(u.utterance_id for u in corpus.speech) == ["1-1-0001", "1-9-0000", "2-1-0001", "2-1-0002"]


def test_errors_name_the_fault(metadata: Path, tmp_path: Path):
    speech = tmp_path / "LibriSpeech"
    with pytest.raises(InputError, match="already; name it once"):
        read_mixture_corpus([metadata, metadata], root=speech)
    for k in (1, 2):
        _write(tmp_path / f"tree/s{k}/a_b.wav", 1.5)
    with pytest.raises(InputError, match="has no noise; learn from it with condition clean"):
        read_mixture_corpus([tmp_path / "tree"], "noisy")
    with pytest.raises(InputError, match="'a' does not say who speaks"):
        read_mixture_corpus([tmp_path / "tree"])
