"""`wesep find`: lines that --enroll takes, JSON, files to listen to, and what to install."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.inference.test_single_speaker import BandExtractor, TwoBandEncoder, conversation  # noqa: F401
from wesep_py import audio
from wesep_py.inference import single_speaker


@pytest.fixture
def two_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wesep_py.inference.load", lambda *_, **__: BandExtractor())
    monkeypatch.setattr(single_speaker, "find_encoder", lambda *_: TwoBandEncoder())


def test_lines_and_files_are_enrollments(wesep, two_bands, conversation: Path, tiny_model, tmp_path: Path):  # noqa: F811
    folder = tmp_path / "solo"
    ran = wesep("find", conversation, "--segments", folder)
    lines = [line.split() for line in ran.out.splitlines()]
    assert ran.status == 0 and len(lines) >= 3 and all(line[1:2] == ["voice"] for line in lines)
    rows = json.loads(wesep("find", conversation, "--json").out)
    assert [row["enroll"] for row in rows] == [line[0] for line in lines]
    table = list(csv.DictReader((folder / "segments.csv").read_text().splitlines()))
    assert [row["start_s"] for row in table] == [f"{row['start_s']:.3f}" for row in rows]
    whole, rate = audio.read(conversation)
    for row in table:
        start = round(float(row["start_s"]) * rate)
        segment, _ = audio.read(folder / row["file"])
        np.testing.assert_array_equal(segment, whole[:, start : start + segment.shape[1]])
    again = wesep("find", conversation, "--segments", folder)
    assert again.status == 2 and "segments.csv: exists already" in again.message
    none = wesep("find", conversation, "--confidence", "1")
    assert none.status == 2 and "lower --confidence (it is 1)" in none.message


def test_a_line_of_find_enrolls(wesep, conversation: Path, tiny_model, tmp_path: Path):  # noqa: F811
    options = ["--model", tiny_model, "--device", "cpu", "-o", tmp_path / "o.wav"]
    assert wesep("extract", conversation, "--enroll", f"{conversation}@0.4-2.8", *options).status == 0


def test_without_an_encoder_one_line_says_what_to_install(wesep, tiny_speech, tmp_path, monkeypatch):
    monkeypatch.setenv("WESEP_HOME", str(tmp_path / "home"))
    recording = tiny_speech / "anna" / "anna-0.wav"
    ran = wesep("find", recording)
    assert (
        ran.status == 2 and "no speaker encoder is installed; install one by `wesep models pull dvector`" in ran.message
    )
    ran = wesep("extract", recording)
    assert ran.status == 2 and "--enroll meeting.wav@0:12-0:18 (`wesep find meeting.wav`" in ran.message
