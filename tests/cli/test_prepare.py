"""`wesep prepare`: one corpus format per test, and errors."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.data.foreign_shards import audio, write_tar
from wesep_py.data import read_manifest


def test_one_folder_per_speaker(tiny_speech: Path, tmp_path: Path, wesep: Callable):
    ran = wesep("prepare", "folder", tiny_speech, "-o", tmp_path / "m.jsonl")
    assert (ran.status, ran.out) == (0, f"{tmp_path}/m.jsonl: 4 speakers, 16 utterances, 0.01 hours\n")
    utterances = read_manifest(tmp_path / "m.jsonl")
    assert {u.speaker_id for u in utterances} == {"anna", "bert", "carl", "dora"}
    assert [u.duration_s for u in utterances[:4]] == [2.0, 2.5, 3.0, 3.5]


def test_csv_with_a_root(tiny_speech: Path, tmp_path: Path, wesep: Callable):
    (tmp_path / "in.csv").write_text("utterance_id,speaker_id,path,duration_s,extra\na-0,anna,anna/anna-0.wav,2.0,?\n")
    ran = wesep("prepare", "csv", tmp_path / "in.csv", "--root", tiny_speech, "-o", tmp_path / "out.csv", "--json")
    assert ran.status == 0
    assert json.loads(ran.out) == {
        "manifest": f"{tmp_path}/out.csv",
        "speakers": 1,
        "utterances": 1,
        "hours": 0.001,
        "left_out": [],
    }
    assert "anna/anna-0.wav" in (tmp_path / "out.csv").read_text().split(",")
    assert read_manifest(tmp_path / "out.csv", root=tiny_speech)[0].path == tiny_speech / "anna/anna-0.wav"


def test_kaldi_folder(tiny_speech: Path, tmp_path: Path, wesep: Callable):
    (tmp_path / "wav.scp").write_text("r anna/anna-0.wav\n")
    (tmp_path / "utt2spk").write_text("u anna\n")
    (tmp_path / "segments").write_text("u r 0.5 1.5\n")
    ran = wesep("prepare", "kaldi", tmp_path, "--root", tiny_speech, "-o", tmp_path / "m.jsonl")
    assert ran.status == 0
    (utterance,) = read_manifest(tmp_path / "m.jsonl", root=tiny_speech)
    assert (utterance.utterance_id, utterance.start_s, utterance.duration_s) == ("u", 0.5, 1.0)


def test_librimix_and_librispeech(tmp_path: Path, wesep: Callable):
    speech = tmp_path / "LibriSpeech/84/1"
    speech.mkdir(parents=True)
    for number in (1, 2):
        soundfile.write(speech / f"84-1-000{number}.flac", np.full(16000, 0.1), 16000)
    (tmp_path / "m.csv").write_text("mixture_ID,source_1_path\n84-1-0001,84/1/84-1-0001.flac\n")
    root = tmp_path / "LibriSpeech"
    assert wesep("prepare", "librimix", tmp_path / "m.csv", "--root", root, "-o", tmp_path / "mix.jsonl").status == 0
    assert [u.utterance_id for u in read_manifest(tmp_path / "mix.jsonl", root=root)] == ["84-1-0001"]
    ran = wesep("prepare", "librispeech", root, "-o", tmp_path / "all.jsonl")
    assert ran.out.endswith("1 speakers, 2 utterances, 0.00 hours\n")


def test_unreadable_recordings_are_named_and_left_out(tmp_path: Path, wesep: Callable):
    (tmp_path / "alice").mkdir()
    soundfile.write(tmp_path / "alice/one.wav", np.full(16000, 0.1), 16000)
    (tmp_path / "alice/text.wav").write_text("no audio")
    (tmp_path / "alice/void.wav").touch()
    ran = wesep("prepare", "folder", tmp_path, "-o", tmp_path / "m.jsonl")
    assert ran.status == 1
    assert "1 speakers, 1 utterances" in ran.out
    left_out = [line for line in ran.err.splitlines() if line.startswith("left out: ")]
    assert ["text.wav" in left_out[0], "void.wav" in left_out[1]] == [True, True]
    assert "2 recordings were left out" in ran.err
    assert len(read_manifest(tmp_path / "m.jsonl")) == 1


def test_an_existing_manifest_needs_overwrite(tiny_speech: Path, tmp_path: Path, wesep: Callable):
    (tmp_path / "m.jsonl").write_text("mine")
    ran = wesep("prepare", "folder", tiny_speech, "-o", tmp_path / "m.jsonl")
    assert ran.status == 2
    assert "exists already; name another output, or pass --overwrite" in ran.message
    assert (tmp_path / "m.jsonl").read_text() == "mine"
    assert wesep("prepare", "folder", tiny_speech, "-o", tmp_path / "m.jsonl", "--overwrite").status == 0
    assert len(read_manifest(tmp_path / "m.jsonl")) == 16


@pytest.mark.parametrize(
    ("source", "output", "message"),
    [
        ("nowhere", "m.jsonl", "is not a folder"),
        ("empty", "m.jsonl", "none of its folders holds a recording"),
        ("speech", "m.txt", r".txt'; end it in .jsonl or .csv"),
        ("speech", "no/m.jsonl", "does not exist; create it first"),
    ],
)
def test_wrong_usage_is_a_one_line_error(tmp_path: Path, wesep: Callable, source: str, output: str, message: str):
    (tmp_path / "empty").mkdir()
    (tmp_path / "speech/alice").mkdir(parents=True)
    soundfile.write(tmp_path / "speech/alice/one.wav", np.full(1600, 0.1), 16000)
    ran = wesep("prepare", "folder", tmp_path / source, "-o", tmp_path / output)
    assert ran.status == 2
    assert message in ran.message
    assert not (tmp_path / output).exists()


def test_a_missing_recording_is_a_one_line_error(tmp_path: Path, wesep: Callable):
    (tmp_path / "in.csv").write_text("utterance_id,speaker_id,path,duration_s\na-0,anna,anna/0.wav,2.0\n")
    ran = wesep("prepare", "csv", tmp_path / "in.csv", "-o", tmp_path / "m.jsonl")
    assert ran.status == 2
    assert "in.csv:2: path" in ran.message
    assert "--root" in ran.message


@pytest.mark.parametrize("kind", ["folder", "csv", "kaldi", "librimix", "librispeech"])
def test_help_shows_an_example(kind: str, wesep: Callable):
    ran = wesep("prepare", kind, "--help")
    assert ran.status == 0
    assert f"Example: wesep prepare {kind}" in " ".join(ran.out.split())


def test_a_name_that_is_not_utf8_is_left_out(tiny_speech: Path, tmp_path: Path, wesep: Callable):
    (tmp_path / "speech/anna").mkdir(parents=True)
    good = (tiny_speech / "anna/anna-0.wav").read_bytes()
    for name in (b"good.wav", b"caf\xe9.wav", b"._good.wav", b".DS_Store"):
        with (tmp_path / "speech/anna" / os.fsdecode(name)).open("wb") as file:
            file.write(good)
    ran = wesep("prepare", "folder", tmp_path / "speech", "-o", tmp_path / "m.jsonl", "--json")
    assert ran.status == 1
    (left_out,) = json.loads(ran.out)["left_out"]
    assert r"anna/caf\udce9.wav: its name is not UTF-8" in left_out and left_out in ran.err
    assert [utterance.utterance_id for utterance in read_manifest(tmp_path / "m.jsonl")] == ["anna-good"]


def test_premixed_shards_of_wesep_become_a_list(tmp_path: Path, wesep: Callable):
    files = {"m.spk1": b"a", "m.spk2": b"b", "m.wav": audio(0.2, "wav")}
    files |= {"m_spk1.wav": audio(0.1, "wav"), "m_spk2.wav": audio(0.3, "wav")}
    write_tar(tmp_path / "s.tar", files)
    assert "`wesep prepare premixed` makes a list" in wesep("shard", "--index", tmp_path).message
    ran = wesep("prepare", "premixed", tmp_path / "*.tar", "-o", tmp_path / "mixtures")
    assert (ran.status, ran.out) == (0, f"{tmp_path}/mixtures/mixture_premixed.csv: 1 mixtures, 2 speakers\n")
    ran = wesep("prepare", "librimix", tmp_path / "mixtures", "-o", tmp_path / "m.jsonl")
    assert ran.status == 0 and {u.speaker_id for u in read_manifest(tmp_path / "m.jsonl")} == {"a", "b"}
