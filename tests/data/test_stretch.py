from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.common.errors import AudioError
from wesep_py.data import Utterance
from wesep_py.data.reader import cut_utterance

RATE = 16000


@pytest.mark.parametrize(("start_s", "duration_s", "span"), [(0.0, 1.0, (0, 16000)), (0.5, 0.25, (8000, 12000))])
def test_the_stretch_of_every_channel_is_where_it_should_be(
    tmp_path: Path, start_s: float, duration_s: float, span: tuple[int, int]
):
    ramp = np.arange(-8000, 8000, dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", np.stack([ramp, -ramp], axis=1), RATE)
    waveform, rate, may_copy = cut_utterance(Utterance("a", "a", tmp_path / "a.wav", duration_s, start_s))
    assert (rate, may_copy) == (RATE, False)
    np.testing.assert_array_equal(waveform * 32768, np.stack([ramp, -ramp])[:, slice(*span)])


def test_a_faster_speed_takes_more_of_the_recording(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", np.arange(16000, dtype=np.int16), RATE)
    waveform, _, _ = cut_utterance(Utterance("a", "a", tmp_path / "a.wav", 0.4, speed=1.25))
    assert waveform.shape == (1, 8000)


def test_only_a_whole_lossy_recording_may_be_copied(tmp_path: Path):
    soundfile.write(tmp_path / "a.ogg", 0.3 * np.sin(np.arange(RATE) / 9), RATE)
    whole, _, may_copy = cut_utterance(Utterance("a", "a", tmp_path / "a.ogg", 1.0))
    part, _, part_may_copy = cut_utterance(Utterance("b", "a", tmp_path / "a.ogg", 0.5, 0.25))
    assert (may_copy, part_may_copy) == (True, False)
    np.testing.assert_array_equal(part, whole[:, 4000:12000])


def test_an_end_rounded_to_milliseconds_is_the_end(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", np.full(16005, 0.1), RATE)
    assert cut_utterance(Utterance("a", "a", tmp_path / "a.wav", 1.0))[0].shape == (1, 16005)
    assert cut_utterance(Utterance("a", "a", tmp_path / "a.wav", 0.9))[0].shape == (1, 14400)


@pytest.mark.parametrize(("duration_s", "start_s"), [(1.2, 0.0), (0.5, 1.0)])
def test_a_file_that_is_shorter_than_said_is_an_error(tmp_path: Path, duration_s: float, start_s: float):
    soundfile.write(tmp_path / "a.wav", np.full(RATE, 0.1), RATE)
    with pytest.raises(AudioError, match=r"a\.wav: lasts 1\.000 s, but utterance 'a' is said to end at"):
        cut_utterance(Utterance("a", "a", tmp_path / "a.wav", duration_s, start_s))
