"""Utterances and speakers in shards of other toolkits."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.foreign_shards import audio, write_tar
from wesep_py.common.errors import AudioError
from wesep_py.data import Utterance
from wesep_py.data.webdataset import read_shard_utterances


@pytest.mark.parametrize(
    ("files", "speaker"),
    [
        ({"a.json": b'{"speaker_id": "anna"}'}, "anna"),
        ({"a.json": b'{"spk": 17}'}, "17"),
        ({"a.spk": b"bert\n"}, "bert"),
        ({"a.json": b"[]", "a.spk": b"carl"}, "carl"),
    ],
)
def test_the_speaker_is_found(tmp_path: Path, files: dict[str, bytes], speaker: str):
    path = write_tar(tmp_path / "x.tar", {"a.flac": audio(0.2)} | files)
    with path.open("rb") as file:
        (item,) = read_shard_utterances(file, str(path))
    assert (item.utterance.speaker_id, item.utterance.utterance_id) == (speaker, "x/a")
    assert item.utterance.duration_s == item.num_samples / item.sample_rate == 0.05


def test_keys_may_have_folders_and_double_suffixes(tmp_path: Path):
    path = write_tar(tmp_path / "x.tar", {"d.1/b-1.close.wav": audio(0.2, "wav"), "d.1/b-1.json": b'{"gender": "f"}'})
    with path.open("rb") as file:
        (item,) = read_shard_utterances(file, str(path))
    assert item.utterance == Utterance("x/d.1/b-1", "b", Path("x/d.1/b-1.close.wav"), 0.05, gender="f")


def test_keys_may_have_a_suffix_of_their_own_as_wespeakers_do(tmp_path: Path):
    files = {"id1/v/01.wav.spk": b"id1", "id1/v/01.wav.wav": audio(0.2, "wav"), "id1/v/02.wav.spk": b"id2"}
    path = write_tar(tmp_path / "x.tar", files | {"id1/v/02.wav.wav": audio(0.1, "wav")})
    with path.open("rb") as file:
        items = list(read_shard_utterances(file, str(path)))
    assert [(item.utterance.utterance_id, item.utterance.speaker_id) for item in items] == [
        ("x/id1/v/01", "id1"),
        ("x/id1/v/02", "id2"),
    ]


def test_recordings_of_one_key_are_apart_if_each_has_a_speaker(tmp_path: Path):
    files = {}
    for name, level in (("spk1.utt1", 0.1), ("spk1.utt2", 0.2), ("spk2.utt1", 0.3), ("spk2.utt2", 0.4)):
        files |= {f"{name}.wav": audio(level, "wav"), f"{name}.spk": name[:4].encode()}
    path = write_tar(tmp_path / "x.tar", files)
    with path.open("rb") as file:
        items = list(read_shard_utterances(file, str(path)))
    assert [(item.utterance.utterance_id, item.utterance.speaker_id) for item in items] == [
        ("x/spk1.utt1", "spk1"), ("x/spk1.utt2", "spk1"), ("x/spk2.utt1", "spk2"), ("x/spk2.utt2", "spk2"),
    ]  # fmt: skip
    assert len({item.data for item in items}) == 4


def test_errors_name_a_key_with_several_recordings(tmp_path: Path):
    files = {"a.near.flac": audio(0.1), "a.far.flac": audio(0.2), "a.json": b'{"speaker": "a"}', "b.flac": audio(0.3)}
    path = write_tar(tmp_path / "x.tar", files | {"b.spk": b"bert", "._b.flac": b"of another system", ".DS_Store": b""})
    bad: list[str] = []
    with path.open("rb") as file:
        assert [item.utterance.utterance_id for item in read_shard_utterances(file, str(path), bad.append)] == ["x/b"]
    assert len(bad) == 1 and "'a': is the key of 2 recordings (a.near.flac, a.far.flac)" in bad[0]
    with path.open("rb") as file, pytest.raises(AudioError, match="is the key of 2 recordings"):
        list(read_shard_utterances(file, str(path)))


def test_fixed_mixtures_of_wesep_are_refused(tmp_path: Path):
    files = {"a_b.spk1": b"a", "a_b.spk2": b"b", "a_b.wav": audio(0.2, "wav"), "a_b_spk1.wav": audio(0.1, "wav")}
    path = write_tar(tmp_path / "x.tar", files)
    with path.open("rb") as file, pytest.raises(AudioError, match=r"x\.tar: holds 'a_b\.spk1', as WeSep's shards of"):
        list(read_shard_utterances(file, str(path), on_skip=lambda line: None))
