"""A reader of the recordings, packed or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wesep_py.data import FileReader, PackedReader, read_speech
from wesep_py.training.training_config import DataConfig
from wesep_py.training.training_data import make_reader


def test_readers_with_and_without_packing_give_the_same(corpus: Path, tmp_path: Path):
    plain = DataConfig(str(corpus), ["train.jsonl"])
    utterances = read_speech(["train.jsonl"], corpus)
    packed = DataConfig(str(corpus), ["train.jsonl"], packed=str(tmp_path / "deep" / "packed"))
    told: list[tuple[int, int]] = []
    made = make_reader(packed, utterances, 8000, on_progress=lambda done, total: told.append((done, total)))
    assert isinstance(made, PackedReader) and told[-1] == (16, 16)
    again = make_reader(packed, utterances, 8000, may_pack=False)
    files = make_reader(plain, utterances, 8000)
    assert isinstance(files, FileReader)
    for utterance in utterances[:3]:
        np.testing.assert_array_equal(again.read(utterance), files.read(utterance))
