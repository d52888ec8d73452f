"""Segments of files: `FILE@START-STOP`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py import audio
from wesep_py.audio.reading import FileSegment, read_file_segment, read_mono_segment
from wesep_py.common.errors import AudioError, InputError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.wav@12.3-17.8", ("a.wav", 12.3, 17.8)),
        ("b@home/a b.wav@0-1:02.5", ("b@home/a b.wav", 0.0, 62.5)),
        ("a.wav@1:00:00-1:00:05", ("a.wav", 3600.0, 3605.0)),
        ("a.wav", None),
        ("a.wav@3", None),
        ("@1-2", None),
        ("a.wav@-1-2", None),
    ],
)
def test_segments_are_parsed(text: str, expected):
    assert FileSegment.parse(text) == (None if expected is None else FileSegment(*expected))


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_a_segment_is_that_part_of_the_file(tmp_path: Path, suffix: str):
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal((300000, 2)), 44100)
    whole, rate = audio.read(path)
    part, part_rate = read_file_segment(FileSegment(str(path), 1.5, 6.25))
    assert part_rate == rate
    np.testing.assert_array_equal(part, whole[:, 66150:275625])


def test_impossible_segments_are_refused(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", np.ones(16000) / 2, 16000)
    with pytest.raises(InputError, match="ends at 1 s and begins at 2 s"):
        FileSegment.parse("a.wav@2-1")
    with pytest.raises(AudioError, match=r"0\.5 to 1\.5 s were requested; it lasts 1\.000 s"):
        read_file_segment(FileSegment(str(tmp_path / "a.wav"), 0.5, 1.5))


def test_the_first_channel_of_a_segment_is_read_at_another_rate(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "a@1-2.wav"
    audio.write(path, 0.1 * rng.standard_normal((2, 16000), np.float32), 8000)
    whole, part = read_mono_segment(path, 8000), read_mono_segment(f"{path}@0.5-1.25", 8000)
    assert np.array_equal(part, whole[4000:10000]) and np.array_equal(whole, audio.read(path)[0][0])
    assert len(read_mono_segment(f"{path}@0.5-1.25", 16000)) == 12000
    with pytest.raises(AudioError, match=r"0\.5 to 3 s were requested"):
        read_mono_segment(f"{path}@0.5-3", 8000)
