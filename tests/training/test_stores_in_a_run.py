"""Shards and LMDB stores stand wherever a manifest or a folder does, and give the same samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wesep_py.data import RoutedReader, find_noises, read_speech, write_lmdb, write_shards
from wesep_py.data.recordings import store_fingerprint
from wesep_py.training import train
from wesep_py.training.training_config import DataConfig
from wesep_py.training.training_data import make_reader


def test_a_store_is_read_like_the_manifest_it_was_made_of(corpus: Path, tmp_path: Path):
    speech = read_speech(["train.jsonl"], corpus)
    write_shards(speech, tmp_path / "shards", root=corpus)
    stored = read_speech([str(tmp_path / "shards")], corpus)
    assert sorted(u.utterance_id for u in stored) == sorted(u.utterance_id for u in speech)
    reader = make_reader(DataConfig(str(corpus), [str(tmp_path / "shards")]), stored, 8000)
    files = make_reader(DataConfig(str(corpus), ["train.jsonl"]), speech, 8000)
    assert isinstance(reader, RoutedReader)
    for utterance in speech:
        np.testing.assert_array_equal(reader.read(utterance), files.read(utterance))


def test_noise_in_an_lmdb(corpus: Path, tmp_path: Path):
    pytest.importorskip("lmdb")
    noises = read_speech(["train.jsonl"], corpus)[:2]
    write_lmdb(noises, tmp_path / "noise.lmdb", root=corpus)
    assert {u.utterance_id for u in find_noises([str(tmp_path / "noise.lmdb")], corpus)} == {
        u.utterance_id for u in noises
    }


def test_a_run_on_shards_gives_the_weights_of_a_run_on_files(settings, corpus: Path, tmp_path: Path):
    from wesep_py import checkpoint

    write_shards(read_speech(["train.jsonl"], corpus), tmp_path / "shards", root=corpus)
    train(settings(experiment=str(tmp_path / "files"), train__steps=2))
    train(settings(experiment=str(tmp_path / "stored"), train__steps=2, data__train=[str(tmp_path / "shards")]))
    left, right = (checkpoint.load(tmp_path / name / "checkpoints" / "last").state_dict for name in ("files", "stored"))
    assert all(np.array_equal(left[key], right[key]) for key in left)
    provenance = (tmp_path / "stored" / "provenance.json").read_text()
    assert store_fingerprint(tmp_path / "shards") in provenance and "not a file" not in provenance
