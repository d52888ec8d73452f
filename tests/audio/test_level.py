"""Levels and loudness with known answers, and gains that are safe with silence."""

from __future__ import annotations

import numpy as np
import pytest

from wesep_py import audio
from wesep_py.audio.level import k_weighting
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


def test_gain_to_level_reaches_the_level():
    paused = np.concatenate([_sine(0.3), np.zeros(RATE, np.float32)])
    assert audio.rms_db(audio.gain_to_level_db(paused, -26.0) * paused) == pytest.approx(-26.0, abs=1e-6)
    scaled = audio.gain_to_level_db(paused, -26.0, RATE) * paused
    assert audio.active_level_db(scaled, RATE) == pytest.approx(-26.0, abs=1e-6)


def test_joint_gain_limits_the_peak_of_the_sum():
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


def test_active_mask_needs_one_channel():
    with pytest.raises(InputError, match="one channel"):
        audio.active_mask(np.zeros((2, 100)), RATE)
    with pytest.raises(InputError, match="positive"):
        audio.active_mask(np.zeros(100), 0)


def _sine_at(level_db: float, duration_s: float, sample_rate: int = 48000, frequency: float = 997.0) -> np.ndarray:
    return 10 ** (level_db / 20) * np.sin(
        2 * np.pi * frequency * np.arange(round(duration_s * sample_rate)) / sample_rate
    )


def test_filters_at_48_khz_are_those_of_the_standard():
    (shelf_b, shelf_a), (pass_b, pass_a) = k_weighting(48000)
    np.testing.assert_allclose(shelf_b, [1.53512485958697, -2.69169618940638, 1.19839281085285], atol=1e-9)
    np.testing.assert_allclose(shelf_a, [1.0, -1.69065929318241, 0.73248077421585], atol=1e-9)
    np.testing.assert_allclose(pass_b, [1.0, -2.0, 1.0])
    np.testing.assert_allclose(pass_a, [1.0, -1.99004745483398, 0.99007225036621], atol=1e-9)


@pytest.mark.parametrize("sample_rate", [16000, 44100, 48000])
def test_a_full_scale_sine_in_one_channel_is_minus_3_01(sample_rate: int):
    assert audio.loudness_lufs(_sine_at(0.0, 2.0, sample_rate), sample_rate) == pytest.approx(-3.01, abs=0.05)


def test_stereo_sine_of_ebu_tech_3341():
    sine = _sine_at(-23.0, 20.0, frequency=1000.0)
    assert audio.loudness_lufs(np.stack([sine, sine]), 48000) == pytest.approx(-23.0, abs=0.1)


@pytest.mark.parametrize("levels", [(-36.0, -23.0, -36.0), (-72.0, -36.0, -23.0, -36.0, -72.0)])
def test_gating_of_ebu_tech_3341(levels: tuple[float, ...]):
    seconds = {-36.0: 10.0, -23.0: 60.0, -72.0: 10.0}
    sine = np.concatenate([_sine_at(level, seconds[level], frequency=1000.0) for level in levels])
    assert audio.loudness_lufs(np.stack([sine, sine]), 48000) == pytest.approx(-23.0, abs=0.1)


def test_a_gain_in_db_changes_loudness_by_as_many_lu():
    noise = np.random.default_rng(0).standard_normal(48000) * 0.05
    louder = audio.loudness_lufs(noise * 10 ** (6 / 20), 16000)
    assert louder - audio.loudness_lufs(noise, 16000) == pytest.approx(6.0, abs=1e-9)


def test_loudness_of_silence_and_of_less_than_a_block():
    assert audio.loudness_lufs(np.zeros(48000), 48000) == -np.inf
    assert audio.loudness_lufs(np.zeros(0), 48000) == -np.inf
    assert audio.loudness_lufs(_sine_at(-20.0, 0.2), 48000) == pytest.approx(-23.0, abs=0.2)


def test_loudness_refuses_wrong_shapes_and_rates():
    with pytest.raises(InputError, match="channels, samples"):
        audio.loudness_lufs(np.zeros((1, 2, 3)), 48000)
    with pytest.raises(InputError, match="4000"):
        audio.loudness_lufs(np.zeros(100), 2000)


def test_loudness_agrees_with_pyloudnorm_for_whole_blocks():
    """For other lengths pyloudnorm rounds the number of blocks, so that its last block may be incomplete."""
    pyloudnorm = pytest.importorskip("pyloudnorm")
    rng = np.random.default_rng(0)
    for number in range(30):
        sample_rate = int(rng.choice([8000, 16000, 44100]))
        num_samples = int(rng.integers(4, 40)) * sample_rate // 10
        waveform = rng.standard_normal(num_samples) * 10 ** rng.uniform(-3, 0)
        if number % 3 == 0:
            waveform *= np.sin(2 * np.pi * np.arange(num_samples) / sample_rate) > 0
        reference = pyloudnorm.Meter(sample_rate, filter_class="DeMan").integrated_loudness(waveform.copy())
        assert audio.loudness_lufs(waveform, sample_rate) == pytest.approx(reference, abs=0.01)
