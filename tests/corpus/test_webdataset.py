"""What a shard of another toolkit says of its utterances."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.corpus.foreign_shards import audio, write_tar
from wesep_py.corpus import Utterance
from wesep_py.corpus.webdataset import read_shard


@pytest.mark.parametrize(
    ("files", "speaker"),
    [
        ({"a.json": b'{"speaker_id": "anna"}'}, "anna"),
        ({"a.json": b'{"spk": 17}'}, "17"),
        ({"a.spk": b"bert\n"}, "bert"),
        ({"a.json": b"[]", "a.spk": b"carl"}, "carl"),
    ],
)
def test_who_speaks_is_found(tmp_path: Path, files: dict[str, bytes], speaker: str):
    path = write_tar(tmp_path / "x.tar", {"a.flac": audio(0.2)} | files)
    with path.open("rb") as file:
        (item,) = read_shard(file, str(path))
    assert (item.utterance.speaker_id, item.utterance.utterance_id) == (speaker, "x/a")
    assert item.utterance.duration_s == item.num_samples / item.sample_rate == 0.05


def test_keys_may_stand_in_folders_and_suffixes_be_double(tmp_path: Path):
    path = write_tar(tmp_path / "x.tar", {"d.1/b-1.close.wav": audio(0.2, "wav"), "d.1/b-1.json": b'{"gender": "f"}'})
    with path.open("rb") as file:
        (item,) = read_shard(file, str(path))
    assert item.utterance == Utterance("x/d.1/b-1", "b", Path("x/d.1/b-1.close.wav"), 0.05, gender="f")


def test_keys_may_have_a_suffix_of_their_own_as_wespeakers_do(tmp_path: Path):
    files = {"id1/v/01.wav.spk": b"id1", "id1/v/01.wav.wav": audio(0.2, "wav"), "id1/v/02.wav.spk": b"id2"}
    path = write_tar(tmp_path / "x.tar", files | {"id1/v/02.wav.wav": audio(0.1, "wav")})
    with path.open("rb") as file:
        items = list(read_shard(file, str(path)))
    assert [(item.utterance.utterance_id, item.utterance.speaker_id) for item in items] == [
        ("x/id1/v/01", "id1"),
        ("x/id1/v/02", "id2"),
    ]
