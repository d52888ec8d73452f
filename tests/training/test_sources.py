"""From names in the configuration to recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wesep_py.corpus import FileReader, PackedReader
from wesep_py.errors import InputError
from wesep_py.training.config import DataConfig
from wesep_py.training.sources import make_reader, read_noises, read_speech


def test_speech_of_manifests_under_the_root(corpus: Path):
    utterances = read_speech(DataConfig(str(corpus), ["train.jsonl"]))
    assert len(utterances) == 16 and {u.speaker_id for u in utterances} == {"anna", "bert", "carl", "dora"}


def test_an_utterance_of_two_manifests_is_refused(corpus: Path):
    with pytest.raises(InputError, match="'anna-0' is in two manifests"):
        read_speech(DataConfig(str(corpus), ["train.jsonl", "train.jsonl"]))


def test_noise_of_a_folder_a_file_and_a_manifest(corpus: Path, tiny_speech: Path):
    names = [str(tiny_speech / "anna"), str(tiny_speech / "bert" / "bert-0.wav"), "train.jsonl"]
    noises = read_noises(DataConfig(str(corpus), ["train.jsonl"], names))
    assert len(noises) == 4 + 1 + 16 and len({n.utterance_id for n in noises}) == len(noises)
    assert noises[0].path.name == "anna-0.wav" and noises[0].duration_s == pytest.approx(2.0)


@pytest.mark.parametrize("name", ["no_such_folder", "."])
def test_noise_that_is_not_there(tmp_path: Path, name: str):
    with pytest.raises(InputError, match=r"data\.noise: .* is no manifest, no audio file and no folder"):
        read_noises(DataConfig(str(tmp_path), ["train.jsonl"], [name]))


def test_readers_with_and_without_packing_give_the_same(corpus: Path, tmp_path: Path):
    plain = DataConfig(str(corpus), ["train.jsonl"])
    utterances = read_speech(plain)
    packed = DataConfig(str(corpus), ["train.jsonl"], packed=str(tmp_path / "deep" / "packed"))
    told: list[tuple[int, int]] = []
    made = make_reader(packed, utterances, 8000, on_progress=lambda done, total: told.append((done, total)))
    assert isinstance(made, PackedReader) and told[-1] == (16, 16)
    again = make_reader(packed, utterances, 8000, may_pack=False)
    files = make_reader(plain, utterances, 8000)
    assert isinstance(files, FileReader)
    for utterance in utterances[:3]:
        np.testing.assert_array_equal(again.read(utterance), files.read(utterance))
