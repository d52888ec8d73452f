"""Blocks through the resampler, and stretches of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py import audio
from wesep_py.audio.reading import FileSegment, StreamResampler, read_file_segment, resample_blocks
from wesep_py.common.errors import AudioError, InputError


@pytest.mark.parametrize(("from_rate", "to_rate"), [(44100, 16000), (16000, 44100), (8000, 16000), (16000, 16000)])
@pytest.mark.parametrize("num_samples", [1, 5, 30011])
def test_blocks_give_what_the_whole_does(from_rate: int, to_rate: int, num_samples: int):
    rng = np.random.default_rng(num_samples)
    waveform = rng.standard_normal((2, num_samples)).astype(np.float32)
    cuts = np.sort(rng.integers(0, num_samples, 6))
    joined = np.concatenate(list(resample_blocks(np.split(waveform, cuts, axis=1), from_rate, to_rate, 2)), axis=1)
    np.testing.assert_allclose(joined, audio.resample(waveform, from_rate, to_rate), atol=1e-6)


def test_what_cannot_be_resampled():
    with pytest.raises(InputError, match="have to be positive"):
        StreamResampler(0, 16000, 1)
    with pytest.raises(InputError, match=r"\[2, samples\] is needed"):
        StreamResampler(8000, 16000, 2).push(np.zeros((1, 10), np.float32))


@pytest.mark.parametrize(
    ("text", "wanted"),
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
def test_what_names_a_stretch(text: str, wanted):
    assert FileSegment.parse(text) == (None if wanted is None else FileSegment(*wanted))


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_a_stretch_is_that_part_of_the_file(tmp_path: Path, suffix: str):
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal((300000, 2)), 44100)
    whole, rate = audio.read(path)
    part, part_rate = read_file_segment(FileSegment(str(path), 1.5, 6.25))
    assert part_rate == rate
    np.testing.assert_array_equal(part, whole[:, 66150:275625])


def test_stretches_that_are_not_there(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", np.ones(16000) / 2, 16000)
    with pytest.raises(InputError, match="ends at 1 s and begins at 2 s"):
        FileSegment.parse("a.wav@2-1")
    with pytest.raises(AudioError, match=r"0\.5 to 1\.5 s were requested; it lasts 1\.000 s"):
        read_file_segment(FileSegment(str(tmp_path / "a.wav"), 0.5, 1.5))
