from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wesep_py.common.errors import InputError
from wesep_py.evaluation.speech_detectors import SpeechDetector, detected_timing
from wesep_py.inference.enrolling.speech_activity import speech_mask
from wesep_py.metrics import MetricError
from wesep_py.metrics.timing import frame_error, timing

RATE = 8000
NOISE = np.random.default_rng(0).standard_normal(RATE)


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_vads.py").write_text(
        "def halves(waveform, sample_rate):\n"
        "    assert waveform.dtype == 'float32' and sample_rate == 8000\n"
        "    return [(0, len(waveform) / sample_rate / 2)]\n"
        "def numbers(waveform, sample_rate):\n    return [1.0, 2.0]\n"
        "def endless(waveform, sample_rate):\n    return [(0.0, float('inf'))]\n"
    )
    return tmp_path


def test_segments_by_energy_are_those_of_the_mask():
    rng = np.random.default_rng(0)
    gains = np.repeat([0.001, 0.1, 0.001, 0.1], RATE)
    signal = gains * rng.standard_normal(len(gains))
    segments = SpeechDetector().segments(signal, RATE)
    mask = np.zeros(len(signal), dtype=bool)
    for start_s, end_s in segments:
        mask[round(start_s * RATE) : round(end_s * RATE)] = True
    assert np.array_equal(mask, speech_mask(signal.astype(np.float32), RATE)) and len(segments) == 2


def test_a_function_of_the_user_detects(user_module: Path):
    detector = SpeechDetector("my_vads:halves")
    assert detector.segments(NOISE, RATE) == ((0.0, 0.5),)
    assert detector.describe() == {"detector": "my_vads:halves"}
    assert detector.segments(np.zeros(RATE), RATE) == ()


def test_what_is_no_list_of_times_has_no_value(user_module: Path):
    with pytest.raises(MetricError, match="returned no pairs of start and end"):
        SpeechDetector("my_vads:numbers").segments(NOISE, RATE)
    with pytest.raises(MetricError, match="times that are not finite"):
        SpeechDetector("my_vads:endless").segments(NOISE, RATE)


@pytest.mark.parametrize("name", ["energi", "my_vads:", "no_such:function"])
def test_an_unknown_detector_is_refused(name: str, user_module: Path):
    with pytest.raises(InputError, match=rf"vad '{name}'"):
        SpeechDetector(name)


def test_detected_segments_are_timed_by_our_definition():
    detected, labelled = ((0.5, 2.0),), ((1.0, 3.0),)
    frames = [np.zeros(200, dtype=bool) for _ in range(2)]
    frames[0][25:100], frames[1][50:150] = True, True
    assert detected_timing(detected, labelled, 4 * RATE, RATE) == (*timing(*frames), frame_error(*frames))
    with pytest.raises(MetricError, match="does not speak"):
        detected_timing(detected, (), 4 * RATE, RATE)
