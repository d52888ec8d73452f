"""Timelines: segments, RTTM, JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from wesep_py.common.errors import InputError, OutputExistsError
from wesep_py.inference.inputs_outputs.timeline import (
    SpeechSegment,
    Timeline,
    find_segments,
    timeline_from_energies,
    timeline_from_presence,
    write_timeline,
)


def spans(*parts: tuple[float, float], step_s: float = 0.01) -> list[tuple[float, float]]:
    """Segments, in seconds, of a track made of (probability, seconds)."""
    track = np.concatenate([np.full(round(length / step_s), value) for value, length in parts])
    return [(round(a * step_s, 3), round(b * step_s, 3)) for a, b in find_segments(track, step_s)]


def test_hysteresis_and_minimum_durations():
    assert spans((0.1, 1), (0.9, 1), (0.1, 1)) == [(1.0, 2.0)]
    assert spans((0.4, 1), (0.9, 1), (0.4, 1), (0.3, 1)) == [(1.0, 3.0)]  # begins late, goes on
    assert spans((0.1, 1), (0.45, 1), (0.1, 1)) == []  # never reached
    assert spans((0.1, 1), (0.9, 0.15), (0.1, 1)) == []  # too short
    assert spans((0.9, 1), (0.1, 0.25), (0.9, 1)) == [(0.0, 2.25)]  # a pause too short
    assert spans((0.9, 1), (0.1, 0.35), (0.9, 1)) == [(0.0, 1.0), (1.35, 2.35)]
    assert spans((0.9, 0.15), (0.1, 0.1), (0.9, 0.15), (0.1, 1)) == [(0.0, 0.4)]  # short ones together
    assert find_segments(np.zeros(0), 0.01) == []


def test_estimate_far_below_the_mixture_is_no_speech():
    mixture = np.full(300, 0.01)
    estimate = np.concatenate([np.full(100, 1e-2), np.full(100, 1e-5), np.full(100, 1e-9)])
    (segment,) = timeline_from_energies("alice", estimate, mixture, 0.02, 6.0).segments
    assert (segment.start_s, segment.end_s) == pytest.approx((0.0, 2.0), abs=0.1)
    assert timeline_from_energies("alice", np.zeros(300), mixture, 0.02, 6.0).segments == ()
    assert timeline_from_energies("alice", np.zeros(0), np.zeros(0), 0.02, 0.0).segments == ()


def test_rttm_and_json_files(tmp_path: Path):
    track = np.repeat([0.1, 0.8, 0.1], 100)
    line = timeline_from_presence("alice", track, 0.01, 2.995)
    write_timeline(tmp_path / "a.rttm", "rooms/board room.wav", [(line, {})])
    assert (tmp_path / "a.rttm").read_text() == "SPEAKER board_room 1 1.000 1.000 <NA> <NA> alice <NA> <NA>\n"
    write_timeline(tmp_path / "a.json", "board room.wav", [(line, {"presence": 0.9})])
    (target,) = json.loads((tmp_path / "a.json").read_text())["targets"]
    assert target["segments"] == [{"start_s": 1.0, "end_s": 2.0, "probability": 0.8}]
    assert target["presence"] == 0.9 and target["source"] == "presence" and target["speech_s"] == 1.0
    assert target["track"]["step_s"] == pytest.approx(0.1) and len(target["track"]["probability"]) == 30
    with pytest.raises(OutputExistsError):
        write_timeline(tmp_path / "a.json", "x", [])
    with pytest.raises(InputError, match=r"\.rttm, \.json, \.csv"):
        write_timeline(tmp_path / "a.pdf", "x", [(line, {})])


def two_voices() -> list:
    alice = Timeline("alice", 4000.0, (SpeechSegment(1.0, 2.5, 0.75), SpeechSegment(3661.25, 3662.0, 0.5)), "presence")
    bob = Timeline("b<o>b", 4000.0, (SpeechSegment(2.0, 3.0),), "energy")
    return [(alice, {}), (bob, {})]


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (
            ".srt",
            "1\n00:00:01,000 --> 00:00:02,500\nalice\n\n2\n00:00:02,000 --> 00:00:03,000\nb<o>b\n\n"
            "3\n01:01:01,250 --> 01:01:02,000\nalice\n\n",
        ),
        (
            ".vtt",
            "WEBVTT\n\n00:00:01.000 --> 00:00:02.500\n<v alice>alice\n\n"
            "00:00:02.000 --> 00:00:03.000\n<v b&lt;o&gt;b>b&lt;o&gt;b\n\n"
            "01:01:01.250 --> 01:01:02.000\n<v alice>alice\n\n",
        ),
        (
            ".txt",
            "1.000000\t2.500000\talice\n2.000000\t3.000000\tb<o>b\n3661.250000\t3662.000000\talice\n",
        ),
        (
            ".csv",
            "target,start_s,end_s,duration_s,probability\nalice,1.000,2.500,1.500,0.7500\nb<o>b,2.000,3.000,1.000,\n"
            "alice,3661.250,3662.000,0.750,0.5000\n",
        ),
    ],
)
def test_subtitles_labels_and_csv_hold_all_voices_in_order_of_time(suffix: str, text: str, tmp_path: Path):
    path = tmp_path / f"when{suffix}"
    write_timeline(path, "meeting.wav", two_voices())
    assert path.read_text(encoding="utf-8") == text


def test_pyav_reads_the_subtitles(tmp_path: Path):
    av = pytest.importorskip("av")
    for suffix in (".srt", ".vtt"):
        write_timeline(tmp_path / f"when{suffix}", "meeting.wav", two_voices())
        with av.open(str(tmp_path / f"when{suffix}")) as file:
            times = [(float(p.pts * p.time_base), float(p.duration * p.time_base)) for p in file.demux() if p.size]
        assert times == [(1.0, 1.5), (2.0, 1.0), (3661.25, 0.75)]
