"""Levels with known answers, and gains that are safe with silence."""

from __future__ import annotations

import numpy as np
import pytest

from wesep_py import audio
from wesep_py.common.errors import InputError

RATE = 16000


def _sine(amplitude: float, duration_s: float = 1.0) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * 500 * np.arange(round(duration_s * RATE)) / RATE)).astype(np.float32)


def test_rms_of_known_signals():
    assert audio.rms(_sine(1.0)) == pytest.approx(np.sqrt(0.5), rel=1e-6)
    assert audio.rms_db(_sine(1.0)) == pytest.approx(-3.0103, abs=1e-4)
    assert isinstance(audio.rms(_sine(1.0)), float)
    np.testing.assert_allclose(audio.rms(np.array([[3.0, -3.0], [0.0, 0.0]])), [3.0, 0.0])
    np.testing.assert_array_equal(audio.rms_db(np.array([[1.0, -1.0], [0.0, 0.0]])), [0.0, -np.inf])


def test_silence_is_minus_infinity_and_no_warning(recwarn: pytest.WarningsRecorder):
    for silent in (np.zeros(100), np.zeros(0)):
        assert audio.rms(silent) == 0.0
        assert audio.rms_db(silent) == -np.inf
        assert audio.active_level_db(silent, RATE) == -np.inf
        assert not audio.active_mask(silent, RATE).any()
        assert audio.gain_to_level_db(silent, -20.0) == 1.0
        assert audio.gain_to_level_db(silent, -20.0, RATE) == 1.0
        assert audio.joint_peak_gain([silent, silent]) == 1.0
    assert not recwarn.list


def test_db_and_gain_are_inverse():
    for db in (-60.0, -20.0, 0.0, 6.0):
        assert audio.gain_to_db(audio.db_to_gain(db)) == pytest.approx(db, abs=1e-9)
    assert audio.db_to_gain(-np.inf) == 0.0
    assert audio.gain_to_db(-0.1) == pytest.approx(-20.0)
    np.testing.assert_allclose(audio.db_to_gain(np.array([0.0, 20.0])), [1.0, 10.0])


def test_active_mask_finds_speech_between_pauses():
    waveform = np.concatenate([np.zeros(8000), _sine(0.1), np.zeros(4000), _sine(0.1), np.zeros(100)])
    active = audio.active_mask(waveform, RATE)
    assert active.shape == waveform.shape and active.dtype == bool
    np.testing.assert_array_equal(active, np.abs(np.sign(waveform)) + (waveform == 0) * active > 0)
    assert active[8000:24000].all() and active[28000:44000].all()
    assert not active[:8000].any() and not active[24000 + 320 : 28000 - 320].any()


def test_active_mask_does_not_depend_on_level():
    rng = np.random.default_rng(0)
    waveform = rng.standard_normal(RATE) * 0.1 * np.repeat(rng.uniform(0, 1, 50) ** 4, RATE // 50)
    for gain in (0.5, 2.0, 8.0):
        np.testing.assert_array_equal(audio.active_mask(gain * waveform, RATE), audio.active_mask(waveform, RATE))


def test_quiet_noise_and_dither_are_not_active():
    rng = np.random.default_rng(0)
    loud, quiet = rng.standard_normal(RATE) * 0.1, rng.standard_normal(RATE) * 0.1 * 10 ** (-45 / 20)
    active = audio.active_mask(np.concatenate([loud, quiet]), RATE)
    assert active[:RATE].all() and not active[RATE:].any()
    dither = rng.integers(-1, 2, RATE) / 32768
    assert audio.active_level_db(dither, RATE) == -np.inf


def test_a_short_last_frame_counts_by_its_own_length():
    waveform = np.concatenate([np.zeros(320), np.ones(3)])
    np.testing.assert_array_equal(audio.active_mask(waveform, RATE), waveform > 0)
    assert audio.active_level_db(waveform, RATE) == pytest.approx(0.0)


def test_pauses_do_not_lower_the_active_level():
    speech = _sine(0.1)
    paused = np.concatenate([speech, np.zeros(3 * RATE, np.float32)])
    assert audio.active_level_db(paused, RATE) == pytest.approx(float(audio.rms_db(speech)), abs=1e-6)
    assert audio.rms_db(paused) == pytest.approx(float(audio.rms_db(speech)) - 6.0206, abs=1e-3)


def test_gain_to_level_reaches_it():
    paused = np.concatenate([_sine(0.3), np.zeros(RATE, np.float32)])
    assert audio.rms_db(audio.gain_to_level_db(paused, -26.0) * paused) == pytest.approx(-26.0, abs=1e-6)
    scaled = audio.gain_to_level_db(paused, -26.0, RATE) * paused
    assert audio.active_level_db(scaled, RATE) == pytest.approx(-26.0, abs=1e-6)


def test_joint_gain_keeps_the_sum_below_the_peak_and_nothing_in_place():
    rng = np.random.default_rng(0)
    parts = rng.standard_normal((3, 1000)).astype(np.float32)
    before = parts.copy()
    gain = audio.joint_peak_gain(parts, peak=0.9)
    assert 0 < gain < 1
    assert np.abs((gain * parts.astype(np.float64)).sum(axis=0)).max() == pytest.approx(0.9)
    np.testing.assert_array_equal(parts, before)
    assert audio.joint_peak_gain(list(0.01 * parts)) == 1.0


def test_joint_gain_needs_a_positive_peak():
    with pytest.raises(InputError, match="peak"):
        audio.joint_peak_gain([np.ones(3)], peak=0.0)


def test_levels_of_one_channel_only():
    with pytest.raises(InputError, match="one channel"):
        audio.active_mask(np.zeros((2, 100)), RATE)
    with pytest.raises(InputError, match="positive"):
        audio.active_mask(np.zeros(100), 0)
