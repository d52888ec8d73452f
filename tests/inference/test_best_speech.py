"""What of a long enrollment enters the network: where most is spoken, in its order, whatever it is stored in."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import soundfile

from tests.inference.networks import BandNetwork
from wesep_py.common.errors import AudioError, InputError
from wesep_py.inference import Extractor
from wesep_py.inference.enrollment import load_enrollments
from wesep_py.inference.speech_activity import share_limit, cut_segments, open_enrollment, scan_speech, select_segments

RATE = 8000


def recording(*speech_at_s: tuple[int, int], duration_s: int = 60, offset: float = 0.0) -> np.ndarray:
    """Noise, modulated at 4 Hz, at these seconds; elsewhere nearly nothing."""
    rng = np.random.default_rng(0)
    waveform = 1e-5 * rng.standard_normal(duration_s * RATE)
    for start, stop in speech_at_s:
        time_s = np.arange((stop - start) * RATE) / RATE
        waveform[start * RATE : stop * RATE] += (
            0.05 * (1 + np.sin(8 * np.pi * time_s)) * rng.standard_normal(len(time_s))
        )
    return (waveform + offset).astype(np.float32)


def chosen_s(waveform: np.ndarray, share_s: float, vad: str = "energy") -> list[tuple[float, float]]:
    found = scan_speech(open_enrollment((waveform, RATE), 1), vad)
    return [(start / RATE, stop / RATE) for start, stop in select_segments(found, share_s)]


@pytest.mark.parametrize("offset", [0.0, 0.3])
def test_the_segments_with_the_most_speech_are_taken_in_their_order(offset: float):
    assert chosen_s(recording((9, 15), (30, 33), (45, 48), offset=offset), 12) == [
        (9.0, 15.0),
        (30.0, 33.0),
        (45.0, 48.0),
    ]


def test_of_equal_segments_the_earlier_ones_are_taken_again_and_again():
    waveform = recording((0, 60))
    assert chosen_s(waveform, 9) == [(0.0, 9.0)] == chosen_s(waveform, 9)


def test_the_level_does_not_matter():
    waveform = recording((9, 15), (45, 48))
    assert chosen_s(1e-3 * waveform, 9) == chosen_s(waveform, 9) == [(9.0, 15.0), (45.0, 48.0)]


def test_recordings_share_the_limit():
    def scans(*lasting_s: float):
        return [scan_speech(open_enrollment((recording((0, int(s)), duration_s=int(s)), RATE), 1)) for s in lasting_s]

    assert share_limit(scans(60, 60), 30) == [15, 15]
    assert share_limit(scans(60, 4, 60), 30) == [13, 4, 13]
    assert sum(share_limit(scans(40, 5, 7, 3), 30)) == 30
    # More than there are 2 s for: those with the most speech.
    assert share_limit(scans(3, 6, 3, 5), 4) == [0, 2, 0, 2]


@pytest.mark.parametrize(("name", "subtype"), [("a.wav", "PCM_16"), ("a.flac", "PCM_16"), ("a.ogg", "VORBIS")])
def test_a_file_is_read_in_blocks_and_gives_what_an_array_gives(tmp_path, name: str, subtype: str, monkeypatch):
    from wesep_py.inference import speech_activity as best_speech

    waveform = recording((9, 15), (30, 33), (45, 48))
    soundfile.write(tmp_path / name, np.stack([0.01 * waveform, waveform], axis=1), RATE, subtype=subtype)
    stored = soundfile.read(tmp_path / name, dtype="float32")[0].T
    (of_array,) = load_enrollments([(stored, RATE)], 16000, max_s=12)
    monkeypatch.setattr(best_speech, "BLOCK_S", 7.0)
    monkeypatch.setattr(best_speech.audio, "read", lambda *a: pytest.fail("was read whole"))
    (of_file,) = load_enrollments([tmp_path / name], 16000, max_s=12)
    assert of_file.duration_s == 12 and of_file.full_duration_s == 60 and of_file.name == str(tmp_path / name)
    assert len(of_file.waveform) == 12 * 16000
    np.testing.assert_allclose(of_file.waveform, of_array.waveform, atol=1e-6)
    assert of_file.speech_s > 10  # the loud channel


def test_a_stretch_of_a_file_and_several_files(tmp_path):
    soundfile.write(tmp_path / "a.wav", recording((9, 15), (40, 58)), RATE)
    soundfile.write(tmp_path / "b.wav", recording((1, 3), duration_s=4), RATE)
    (stretch,) = load_enrollments([f"{tmp_path}/a.wav@5-35"], 16000, max_s=6)
    assert stretch.duration_s == 6 and stretch.full_duration_s == 30 and stretch.speech_s > 5
    first, second = load_enrollments([tmp_path / "a.wav", tmp_path / "b.wav"], 16000, max_s=10)
    assert (first.duration_s, first.full_duration_s) == (6, 60) and (second.duration_s, second.full_duration_s) == (4, None)


def test_where_all_of_it_fits_nothing_is_cut(tmp_path):
    waveform = recording((0, 8), duration_s=8)
    (one,) = load_enrollments([(waveform, RATE)], RATE, max_s=8)
    assert np.array_equal(one.waveform, waveform) and one.full_duration_s is None


def test_a_cut_fades_and_the_ends_of_the_recording_do_not():
    waveform = np.full(60 * RATE, 0.1, np.float32) * np.resize([1, -1], 60 * RATE).astype(np.float32)
    one = scan_speech(open_enrollment((waveform, RATE), 1))
    first, middle = cut_segments(one, [(0, 3 * RATE), (30 * RATE, 33 * RATE)])
    assert abs(first[0]) == pytest.approx(0.1) and abs(first[-1]) < 1e-3 and abs(middle[0]) < 1e-3 > abs(middle[-1])
    assert abs(middle[400]) == pytest.approx(0.1)


def test_it_is_said_in_one_line_and_the_print_is_small(caplog):
    extractor = Extractor(BandNetwork(), "cpu", "tiny", "hash")
    with caplog.at_level(logging.INFO, "wesep_py"):
        voice = extractor.enroll((recording((0, 50)), RATE))
    assert voice.enrolled_s == 30 and voice.quality.duration_s == 30
    said = [record for record in caplog.records if "most speech" in record.message]
    assert [record.levelno for record in said] == [logging.WARNING]
    assert said[0].message == (
        "recording 1: the 30.0 s of 60.0 s with the most speech are enrolled; "
        "--enroll-max (max_enrollment_s) changes how many"
    )
    assert extractor.enroll((recording((0, 50)), RATE), max_enrollment_s=9).enrolled_s == 9
    assert Extractor(BandNetwork(), max_enrollment_s=60).enroll((recording((0, 50)), RATE)).enrolled_s == 60
    caplog.clear()
    with caplog.at_level(logging.WARNING, "wesep_py"):
        extractor.enroll((recording((0, 50)), RATE))
    assert not caplog.records


@pytest.mark.parametrize("value", [0.5, 0, -1, float("nan"), "30", None])
def test_a_limit_that_is_none(value):
    with pytest.raises(InputError, match=r"max_enrollment_s: is .*; 1 s or more of the enrollment is needed"):
        Extractor(BandNetwork(), max_enrollment_s=value)


def test_another_vad_says_where_speech_is(monkeypatch):
    from wesep_py.inference import speech_activity as best_speech

    # It hears a block at a time, and takes the louder half of each for speech.
    monkeypatch.setattr(
        best_speech, "speech_mask", lambda waveform, rate, vad: np.arange(len(waveform)) >= len(waveform) / 2
    )
    assert chosen_s(recording((0, 9)), 6, "silero") == [(30.0, 36.0)]


def test_a_constant_is_no_enrollment():
    with pytest.raises(AudioError, match="recording 1: is silent"):
        load_enrollments([(np.full(50 * RATE, 0.1, np.float32), RATE)], RATE, max_s=30)


def test_a_header_that_says_less_than_there_is(monkeypatch):
    from dataclasses import replace

    from wesep_py.inference import enrollment

    monkeypatch.setattr(
        enrollment, "open_enrollment", lambda source, number: replace(open_enrollment(source, number), duration_s=1.0)
    )
    (one,) = load_enrollments([(recording((9, 15)), RATE)], RATE, max_s=6)
    assert one.duration_s == 6 and one.full_duration_s == 60 and one.speech_s > 5


def test_the_command_line_has_the_same_limit():
    from wesep_py.cli.options import ENROLL_MAX_S
    from wesep_py.inference import MAX_ENROLLMENT_S

    assert ENROLL_MAX_S == MAX_ENROLLMENT_S
