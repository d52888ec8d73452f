"""Voice activity, and the best segments of long enrollments, on recordings whose speech is known."""

from __future__ import annotations

import logging
import sys
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch

from tests.inference.networks import BandNetwork
from wesep_py.common.errors import AudioError, InputError
from wesep_py.inference import Extractor
from wesep_py.inference.enrolling.enrollment import load_enrollments
from wesep_py.inference.enrolling.speech_activity import (
    cut_segments,
    open_enrollment,
    remove_low_frequencies,
    scan_speech,
    select_segments,
    share_limit,
    speech_mask,
)

RATE = 16000
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def fresh_rng(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every test the same numbers, whichever tests ran before it."""
    monkeypatch.setitem(globals(), "RNG", np.random.default_rng(0))


def bursts(pause_s: float, noise: float) -> np.ndarray:
    """Two bursts of 0.5 s, `pause_s` apart, 1 s of pause around them; a noise beneath."""
    burst = 0.1 * RNG.standard_normal(RATE // 2)
    parts = [np.zeros(RATE), burst, np.zeros(round(pause_s * RATE)), burst, np.zeros(RATE)]
    speech = np.concatenate(parts)
    return (speech + noise * RNG.standard_normal(len(speech))).astype(np.float32)


@pytest.mark.parametrize("noise", [0.0, 1e-3, 0.02])
def test_bursts_are_found_in_silence_and_in_noise(noise: float):
    mask = speech_mask(bursts(0.5, noise), RATE)
    assert mask.sum() / RATE == pytest.approx(1.0, abs=0.05)
    assert mask[int(1.2 * RATE)] and not mask[int(1.75 * RATE)] and mask[int(2.2 * RATE)]


def test_short_gaps_count_as_speech():
    assert speech_mask(bursts(0.08, 1e-3), RATE).sum() / RATE == pytest.approx(1.08, abs=0.03)
    assert speech_mask(bursts(0.2, 1e-3), RATE).sum() / RATE == pytest.approx(1.0, abs=0.05)


def test_constant_level_is_all_speech_and_silence_is_none():
    assert speech_mask(np.full(RATE, 0.1, np.float32), RATE).all()
    assert not speech_mask(np.zeros(RATE, np.float32), RATE).any()
    assert speech_mask(np.zeros(0, np.float32), RATE).shape == (0,)
    assert speech_mask(np.full(5, 0.1, np.float32), RATE).all()


def test_unknown_vad_is_refused():
    with pytest.raises(InputError, match="'webrtc'; energy or silero"):
        speech_mask(np.ones(100, np.float32), RATE, "webrtc")


def test_missing_silero_is_named_in_the_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    with pytest.raises(InputError, match=r"silero-vad, which is not installed; pip install 'wesep-py\[vad\]'"):
        speech_mask(np.ones(100, np.float32), RATE, "silero")


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_silero_gets_16_khz_and_its_segments_are_at_the_input_rate(monkeypatch: pytest.MonkeyPatch, rate: int):
    package, received = ModuleType("silero_vad"), {}

    def timestamps(waveform: torch.Tensor, model: str, sampling_rate: int) -> list[dict[str, int]]:
        received.update(size=waveform.shape, model=model, rate=sampling_rate)
        return [{"start": 1600, "end": 4800}, {"start": 8000, "end": 9600}]

    package.load_silero_vad = lambda: "the model"
    package.get_speech_timestamps = timestamps
    monkeypatch.setitem(sys.modules, "silero_vad", package)
    mask = speech_mask(RNG.standard_normal(rate).astype(np.float32), rate, "silero")
    assert received == {"size": (16000,), "model": "the model", "rate": 16000}
    assert mask.shape == (rate,) and mask.sum() == pytest.approx(0.3 * rate, abs=2)
    assert mask[int(0.2 * rate)] and not mask[int(0.4 * rate)] and mask[int(0.55 * rate)]


def test_silero_does_not_change_the_number_of_threads(monkeypatch: pytest.MonkeyPatch, tmp_path):
    # The package sets it to 1 when it is imported.
    (tmp_path / "silero_vad.py").write_text(
        "import torch\ntorch.set_num_threads(1)\nload_silero_vad = lambda: None\n"
        "get_speech_timestamps = lambda *_, **__: []\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "silero_vad", raising=False)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert not speech_mask(np.ones(1600, np.float32), RATE, "silero").any()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
        sys.modules.pop("silero_vad", None)


def test_quiet_recording_has_as_much_speech_as_a_loud_one():
    recording = bursts(0.5, 1e-4)
    assert np.array_equal(speech_mask(recording, RATE), speech_mask(1e-2 * recording, RATE))
    dither = RNG.uniform(-1, 1, RATE).astype(np.float32) / 32768
    assert not speech_mask(dither, RATE).any()


@pytest.mark.parametrize("shape", [(16000,), (2, 16000)])
def test_low_frequencies_are_removed(shape: tuple[int, ...]):
    time_s = np.arange(16000) / RATE
    voice = np.broadcast_to(0.1 * np.sin(2 * np.pi * 200 * time_s), shape).astype(np.float32)
    filtered = remove_low_frequencies(voice + np.float32(0.3), RATE)
    np.testing.assert_allclose(filtered[..., 1600:-1600], voice[..., 1600:-1600], atol=1e-4)
    assert not remove_low_frequencies(np.full(shape, 0.3, np.float32), RATE).any()
    assert remove_low_frequencies(voice, 100).shape == shape  # a rate at which nothing of a voice is left


LOW_RATE = 8000


def long_recording(*speech_at_s: tuple[int, int], duration_s: int = 60, offset: float = 0.0) -> np.ndarray:
    """Noise, modulated at 4 Hz, at these seconds; elsewhere nearly nothing."""
    rng = np.random.default_rng(0)
    waveform = 1e-5 * rng.standard_normal(duration_s * LOW_RATE)
    for start, stop in speech_at_s:
        time_s = np.arange((stop - start) * LOW_RATE) / LOW_RATE
        waveform[start * LOW_RATE : stop * LOW_RATE] += (
            0.05 * (1 + np.sin(8 * np.pi * time_s)) * rng.standard_normal(len(time_s))
        )
    return (waveform + offset).astype(np.float32)


def chosen_s(waveform: np.ndarray, share_s: float, vad: str = "energy") -> list[tuple[float, float]]:
    scan = scan_speech(open_enrollment((waveform, LOW_RATE), 1), vad)
    return [(start / LOW_RATE, stop / LOW_RATE) for start, stop in select_segments(scan, share_s)]


@pytest.mark.parametrize("offset", [0.0, 0.3])
def test_segments_with_most_speech_are_selected_in_order(offset: float):
    assert chosen_s(long_recording((9, 15), (30, 33), (45, 48), offset=offset), 12) == [
        (9.0, 15.0),
        (30.0, 33.0),
        (45.0, 48.0),
    ]


def test_of_equal_segments_the_earlier_are_selected():
    waveform = long_recording((0, 60))
    assert chosen_s(waveform, 9) == [(0.0, 9.0)] == chosen_s(waveform, 9)


def test_selection_does_not_depend_on_the_level():
    waveform = long_recording((9, 15), (45, 48))
    assert chosen_s(1e-3 * waveform, 9) == chosen_s(waveform, 9) == [(9.0, 15.0), (45.0, 48.0)]


def test_recordings_share_the_limit():
    def scans(*lasting_s: float):
        return [
            scan_speech(open_enrollment((long_recording((0, int(s)), duration_s=int(s)), LOW_RATE), 1))
            for s in lasting_s
        ]

    assert share_limit(scans(60, 60), 30) == [15, 15]
    assert share_limit(scans(60, 4, 60), 30) == [13, 4, 13]
    assert sum(share_limit(scans(40, 5, 7, 3), 30)) == 30
    # More than there are 2 s for: those with the most speech.
    assert share_limit(scans(3, 6, 3, 5), 4) == [0, 2, 0, 2]


@pytest.mark.parametrize(("name", "subtype"), [("a.wav", "PCM_16"), ("a.flac", "PCM_16"), ("a.ogg", "VORBIS")])
def test_file_read_in_blocks_equals_the_array(tmp_path, name: str, subtype: str, monkeypatch):
    from wesep_py.inference.enrolling import speech_activity

    waveform = long_recording((9, 15), (30, 33), (45, 48))
    soundfile.write(tmp_path / name, np.stack([0.01 * waveform, waveform], axis=1), LOW_RATE, subtype=subtype)
    stored = soundfile.read(tmp_path / name, dtype="float32")[0].T
    (of_array,) = load_enrollments([(stored, LOW_RATE)], 16000, max_s=12)
    monkeypatch.setattr(speech_activity, "BLOCK_S", 7.0)
    monkeypatch.setattr(speech_activity.audio, "read", lambda *a: pytest.fail("was read whole"))
    (of_file,) = load_enrollments([tmp_path / name], 16000, max_s=12)
    assert of_file.duration_s == 12 and of_file.full_duration_s == 60 and of_file.name == str(tmp_path / name)
    assert len(of_file.waveform) == 12 * 16000
    np.testing.assert_allclose(of_file.waveform, of_array.waveform, atol=1e-6)
    assert of_file.speech_s > 10  # the loud channel


def test_segment_of_a_file_and_several_files(tmp_path):
    soundfile.write(tmp_path / "a.wav", long_recording((9, 15), (40, 58)), LOW_RATE)
    soundfile.write(tmp_path / "b.wav", long_recording((1, 3), duration_s=4), LOW_RATE)
    (stretch,) = load_enrollments([f"{tmp_path}/a.wav@5-35"], 16000, max_s=6)
    assert stretch.duration_s == 6 and stretch.full_duration_s == 30 and stretch.speech_s > 5
    first, second = load_enrollments([tmp_path / "a.wav", tmp_path / "b.wav"], 16000, max_s=10)
    assert (first.duration_s, first.full_duration_s) == (6, 60) and (second.duration_s, second.full_duration_s) == (
        4,
        None,
    )


def test_recording_within_the_limit_is_not_cut(tmp_path):
    waveform = long_recording((0, 8), duration_s=8)
    (enrollment,) = load_enrollments([(waveform, LOW_RATE)], LOW_RATE, max_s=8)
    assert np.array_equal(enrollment.waveform, waveform) and enrollment.full_duration_s is None


def test_cut_ends_fade_and_the_recordings_own_ends_do_not():
    waveform = np.full(60 * LOW_RATE, 0.1, np.float32) * np.resize([1, -1], 60 * LOW_RATE).astype(np.float32)
    scan = scan_speech(open_enrollment((waveform, LOW_RATE), 1))
    first, middle = cut_segments(scan, [(0, 3 * LOW_RATE), (30 * LOW_RATE, 33 * LOW_RATE)])
    assert abs(first[0]) == pytest.approx(0.1) and abs(first[-1]) < 1e-3 and abs(middle[0]) < 1e-3 > abs(middle[-1])
    assert abs(middle[400]) == pytest.approx(0.1)


def test_cut_of_a_long_enrollment_is_logged_once(caplog):
    extractor = Extractor(BandNetwork(), "cpu", "tiny", "hash")
    with caplog.at_level(logging.INFO, "wesep_py"):
        voice = extractor.enroll((long_recording((0, 50)), LOW_RATE))
    assert voice.enrolled_s == 30 and voice.quality.duration_s == 30
    records = [record for record in caplog.records if "most speech" in record.message]
    assert [record.levelno for record in records] == [logging.WARNING]
    assert records[0].message == (
        "recording 1: the 30.0 s of 60.0 s with the most speech are enrolled; "
        "--enroll-max (max_enrollment_s) changes how many"
    )
    assert extractor.enroll((long_recording((0, 50)), LOW_RATE), max_enrollment_s=9).enrolled_s == 9
    assert Extractor(BandNetwork(), max_enrollment_s=60).enroll((long_recording((0, 50)), LOW_RATE)).enrolled_s == 60
    caplog.clear()
    with caplog.at_level(logging.WARNING, "wesep_py"):
        extractor.enroll((long_recording((0, 50)), LOW_RATE))
    assert not caplog.records


@pytest.mark.parametrize("value", [0.5, 0, -1, float("nan"), "30", None])
def test_invalid_limit_is_refused(value):
    with pytest.raises(InputError, match=r"max_enrollment_s: is .*; 1 s or more of the enrollment is needed"):
        Extractor(BandNetwork(), max_enrollment_s=value)


def test_scan_uses_the_chosen_vad(monkeypatch):
    from wesep_py.inference.enrolling import speech_activity

    # It hears a block at a time, and takes the louder half of each for speech.
    monkeypatch.setattr(
        speech_activity, "speech_mask", lambda waveform, rate, vad: np.arange(len(waveform)) >= len(waveform) / 2
    )
    assert chosen_s(long_recording((0, 9)), 6, "silero") == [(30.0, 36.0)]


def test_constant_is_refused_as_silent():
    with pytest.raises(AudioError, match="recording 1: is silent"):
        load_enrollments([(np.full(50 * LOW_RATE, 0.1, np.float32), LOW_RATE)], LOW_RATE, max_s=30)


def test_header_that_announces_less_than_there_is(monkeypatch):
    from dataclasses import replace

    from wesep_py.inference.enrolling import enrollment

    monkeypatch.setattr(
        enrollment, "open_enrollment", lambda source, number: replace(open_enrollment(source, number), duration_s=1.0)
    )
    (loaded,) = load_enrollments([(long_recording((9, 15)), LOW_RATE)], LOW_RATE, max_s=6)
    assert loaded.duration_s == 6 and loaded.full_duration_s == 60 and loaded.speech_s > 5


def test_command_line_has_the_same_default_limit():
    from wesep_py.cli.options import ENROLL_MAX_S
    from wesep_py.inference import MAX_ENROLLMENT_S

    assert ENROLL_MAX_S == MAX_ENROLLMENT_S
