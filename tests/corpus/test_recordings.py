from __future__ import annotations

from pathlib import Path

import pytest

from wesep_py.corpus import find_noises, read_speaker_folders, read_speech, write_manifest
from wesep_py.errors import InputError


@pytest.fixture
def root(tiny_speech: Path, tmp_path: Path) -> Path:
    write_manifest(read_speaker_folders(tiny_speech), tmp_path / "train.jsonl")
    return tmp_path


def test_speech_of_manifests_under_the_root(root: Path):
    utterances = read_speech(["train.jsonl"], root)
    assert len(utterances) == 16 and {u.speaker_id for u in utterances} == {"anna", "bert", "carl", "dora"}


def test_an_utterance_of_two_manifests_is_refused(root: Path):
    with pytest.raises(InputError, match="'anna-anna-0' is in two manifests; name it once"):
        read_speech(["train.jsonl", "train.jsonl"], root)


def test_noise_of_a_folder_a_file_and_a_manifest(root: Path, tiny_speech: Path):
    names = [str(tiny_speech / "anna"), str(tiny_speech / "bert" / "bert-0.wav"), "train.jsonl"]
    noises = find_noises(names, root)
    assert len(noises) == 4 + 1 + 16 and len({n.utterance_id for n in noises}) == len(noises)
    assert noises[0].path.name == "anna-0.wav" and noises[0].duration_s == pytest.approx(2.0)


@pytest.mark.parametrize("name", ["no_such_folder", "."])
def test_noise_that_is_not_there(tmp_path: Path, name: str):
    with pytest.raises(InputError, match=r"noise: .* is no manifest, no audio file and no folder"):
        find_noises([name], tmp_path)
