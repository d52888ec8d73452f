"""Loudness against the figures and coefficients that ITU-R BS.1770-4 and EBU Tech 3341 print."""

from __future__ import annotations

import numpy as np
import pytest

from wesep_py import audio
from wesep_py.audio.level import k_weighting
from wesep_py.common.errors import InputError


def _sine(level_db: float, duration_s: float, sample_rate: int = 48000, frequency: float = 997.0) -> np.ndarray:
    return 10 ** (level_db / 20) * np.sin(
        2 * np.pi * frequency * np.arange(round(duration_s * sample_rate)) / sample_rate
    )


def test_filters_at_48_khz_are_the_standards():
    (shelf_b, shelf_a), (pass_b, pass_a) = k_weighting(48000)
    np.testing.assert_allclose(shelf_b, [1.53512485958697, -2.69169618940638, 1.19839281085285], atol=1e-9)
    np.testing.assert_allclose(shelf_a, [1.0, -1.69065929318241, 0.73248077421585], atol=1e-9)
    np.testing.assert_allclose(pass_b, [1.0, -2.0, 1.0])
    np.testing.assert_allclose(pass_a, [1.0, -1.99004745483398, 0.99007225036621], atol=1e-9)


@pytest.mark.parametrize("sample_rate", [16000, 44100, 48000])
def test_a_full_scale_sine_in_one_channel_is_minus_3_01(sample_rate: int):
    assert audio.loudness_lufs(_sine(0.0, 2.0, sample_rate), sample_rate) == pytest.approx(-3.01, abs=0.05)


def test_stereo_sine_of_ebu_tech_3341():
    sine = _sine(-23.0, 20.0, frequency=1000.0)
    assert audio.loudness_lufs(np.stack([sine, sine]), 48000) == pytest.approx(-23.0, abs=0.1)


@pytest.mark.parametrize("levels", [(-36.0, -23.0, -36.0), (-72.0, -36.0, -23.0, -36.0, -72.0)])
def test_gating_of_ebu_tech_3341(levels: tuple[float, ...]):
    seconds = {-36.0: 10.0, -23.0: 60.0, -72.0: 10.0}
    sine = np.concatenate([_sine(level, seconds[level], frequency=1000.0) for level in levels])
    assert audio.loudness_lufs(np.stack([sine, sine]), 48000) == pytest.approx(-23.0, abs=0.1)


def test_a_gain_in_db_is_that_in_lu():
    noise = np.random.default_rng(0).standard_normal(48000) * 0.05
    louder = audio.loudness_lufs(noise * 10 ** (6 / 20), 16000)
    assert louder - audio.loudness_lufs(noise, 16000) == pytest.approx(6.0, abs=1e-9)


def test_silence_and_shorter_than_a_block():
    assert audio.loudness_lufs(np.zeros(48000), 48000) == -np.inf
    assert audio.loudness_lufs(np.zeros(0), 48000) == -np.inf
    assert audio.loudness_lufs(_sine(-20.0, 0.2), 48000) == pytest.approx(-23.0, abs=0.2)


def test_shapes_and_rates_that_have_no_loudness():
    with pytest.raises(InputError, match="channels, samples"):
        audio.loudness_lufs(np.zeros((1, 2, 3)), 48000)
    with pytest.raises(InputError, match="4000"):
        audio.loudness_lufs(np.zeros(100), 2000)
