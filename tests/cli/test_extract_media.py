"""`wesep extract` on videos and media: pictures, tracks, segments, folders, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py import audio

media_files = pytest.importorskip("tests.media_files")


@pytest.fixture
def meeting(tiny_speech: Path, tmp_path: Path) -> Path:
    """Video of 3 s, stereo at 44.1 kHz, in which Anna and Bert speak at once."""
    anna, bert = (audio.read_mono(tiny_speech / name / f"{name}-0.wav", 44100) for name in ("anna", "bert"))
    length = min(len(anna), len(bert))
    both = np.stack([anna[:length] + bert[:length], 0.5 * anna[:length] + bert[:length]]) / 2
    media_files.write_media(tmp_path / "meeting.mp4", "mp4", "aac", [both, both[:1]], 44100, "mpeg4")
    return tmp_path / "meeting.mp4"


@pytest.fixture
def options(tiny_speech: Path, tiny_model: Path) -> list:
    return ["--enroll", f"anna={tiny_speech / 'anna' / 'anna-1.wav'}", "--model", tiny_model, "--device", "cpu"]


@pytest.mark.parametrize("block", [[], ["--block", "2"]])
def test_a_video_gives_a_video_with_its_pictures(block, wesep, meeting, options, tmp_path):
    before, length = meeting.read_bytes(), audio.info(meeting).num_samples
    out, rest = tmp_path / "out.mp4", tmp_path / "rest.mp4"
    ran = wesep("extract", meeting, *options, "-o", out, "--residual", rest, *block)
    assert ran.status == 0, ran.err
    for path in (out, rest):
        about = audio.info(path)
        assert (about.num_samples, about.num_channels, about.sample_rate) == (length, 2, 44100) and about.has_pictures
        assert media_files.picture_packets(path) == media_files.picture_packets(meeting)
    # Voice and residual sum to the mixture, as well as AAC keeps them.
    voice, residual, mixture = (audio.read(path)[0] for path in (out, rest, meeting))
    assert np.mean((voice + residual - mixture) ** 2) < 0.01 * np.mean(mixture**2)
    assert meeting.read_bytes() == before
    again = wesep("extract", meeting, *options, "-o", out)
    assert again.status == 2 and "out.mp4: exists already" in again.message
    itself = wesep("extract", meeting, *options, "-o", meeting, "--overwrite")
    assert itself.status == 2 and "is the recording itself" in itself.message and meeting.read_bytes() == before


def test_formats_by_name_a_track_and_the_default(wesep, meeting, options, tmp_path):
    for name, channels in (("a.m4a", 2), ("a.mp3", 2), ("a.wav", 2)):
        assert wesep("extract", meeting, *options, "-o", tmp_path / name).status == 0
        assert audio.info(tmp_path / name).num_channels == channels
        assert abs(audio.info(tmp_path / name).num_samples - audio.info(meeting).num_samples) < 2
    assert wesep("extract", meeting, *options, "-o", tmp_path / "mono.m4a", "--track", "2").status == 0
    assert audio.info(tmp_path / "mono.m4a").num_channels == 1
    ran = wesep("extract", meeting, *options, "--track", "3", "-o", tmp_path / "c.wav")
    assert ran.status == 2 and "audio track 3 was requested; it has 2" in ran.message
    assert wesep("extract", meeting, *options).status == 0
    assert (tmp_path / "meeting_anna.wav").exists()  # lossless, unless the name says more
    ran = wesep("extract", meeting, *options, "-o", tmp_path / "c.webm")
    assert ran.status == 2 and "cannot hold pictures of mpeg4" in ran.message


def test_a_segment_of_a_video_is_an_enrollment_and_folders_hold_videos(wesep, meeting, tiny_model, tmp_path):
    enroll = ["--enroll", f"{meeting}@0:00.5-0:02", "--model", tiny_model, "--device", "cpu"]
    folder = tmp_path / "folder"
    folder.mkdir()
    meeting.rename(folder / "talk.mp4")
    enroll[1] = f"{folder / 'talk.mp4'}@0:00.5-0:02"
    ran = wesep("extract", folder, *enroll, "-o", tmp_path / "out")
    assert ran.status == 0 and [path.name for path in (tmp_path / "out").iterdir()] == ["talk.wav"]


@pytest.mark.parametrize("block", [[], ["--block", "2"]])
def test_segments_are_files_with_a_list(block, wesep, meeting, options, tmp_path):
    folder = tmp_path / "segments"
    common = ["extract", meeting, *options, "-o", tmp_path / "out.wav", "--segments", folder, *block]
    ran = wesep(*common, "--timeline", tmp_path / "when.csv", "--json")
    assert ran.status == 0 and json.loads(ran.out)[0]["segments"] == str(folder)
    rows = list(csv.DictReader((folder / "segments.csv").read_text().splitlines()))
    times = list(csv.DictReader((tmp_path / "when.csv").read_text().splitlines()))
    assert rows and [row["start_s"] for row in rows] == [row["start_s"] for row in times]
    voice, rate = soundfile.read(tmp_path / "out.wav")
    for row in rows:
        start = round(float(row["start_s"]) * rate)
        segment, _ = soundfile.read(folder / row["file"])
        assert abs(len(segment) - float(row["duration_s"]) * rate) <= 50
        np.testing.assert_array_equal(segment, voice[start : start + len(segment)])
    ran = wesep(*common, "--overwrite")
    assert ran.status == 0
    (folder / "mine.wav").touch()
    (folder / "segments.csv").write_text(
        (folder / "segments.csv").read_text().replace(rows[0]["file"], "anna_old.wav", 1)
    )
    (folder / "anna_old.wav").touch()
    ran = wesep(*common, "--overwrite")
    expected = sorted([*(row["file"] for row in rows), "mine.wav", "segments.csv"])
    assert ran.status == 0 and sorted(path.name for path in folder.iterdir()) == expected
    ran = wesep(*common[:4], *common[4:6], "-o", tmp_path / "new.wav", "--segments", folder)
    assert ran.status == 2 and "segments.csv: exists already" in ran.message
    several = ["extract", meeting, tmp_path / "out.wav", *options, "-o", tmp_path / "several", "--segments"]
    assert wesep(*several, tmp_path / "each").status == 0
    assert {path.parent.name for path in (tmp_path / "each").glob("*/segments.csv")} == {"meeting", "out"}
