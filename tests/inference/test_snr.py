"""SNR and clipping, on mixtures that are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wesep_py import audio
from wesep_py.inference.enrollment_quality import clipped_share, estimate_snr_db, wada_table
from wesep_py.inference.speech_activity import speech_mask

RATE = 16000
RNG = np.random.default_rng(0)


def gamma_speech(num_samples: int) -> np.ndarray:
    """Samples with the amplitudes that WADA supposes of speech, at a mean square of 1."""
    speech = RNG.gamma(0.4, 1.0, num_samples) * RNG.choice([-1.0, 1.0], num_samples)
    return speech / np.sqrt(0.4 * 1.4)


def test_the_table_is_that_of_samples():
    levels, statistics = wada_table()
    assert (np.diff(statistics) > 0).all()
    for snr_db in (0.0, 10.0, 20.0):
        mixed = np.abs(10 ** (snr_db / 20) * gamma_speech(10**6) + RNG.standard_normal(10**6))
        drawn = np.log(mixed.mean()) - np.log(mixed).mean()
        assert np.interp(snr_db, levels, statistics) == pytest.approx(drawn, abs=0.01)


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 5.0, 10.0, 20.0, 30.0])
@pytest.mark.parametrize("level", [1e-3, 0.3])
def test_a_known_snr_is_found_at_any_level(snr_db: float, level: float):
    mixed = level * (gamma_speech(5 * RATE) + 10 ** (-snr_db / 20) * RNG.standard_normal(5 * RATE))
    assert estimate_snr_db(mixed, np.ones(len(mixed), bool), RATE) == pytest.approx(snr_db, abs=0.8)


def test_long_pauses_do_not_lower_it():
    speech = np.concatenate([gamma_speech(4 * RATE), np.zeros(12 * RATE)])
    mixed = speech + 10 ** (-10 / 20) * RNG.standard_normal(len(speech))
    mask = speech != 0
    assert estimate_snr_db(mixed, mask, RATE) == pytest.approx(10.0, abs=1.0)
    assert estimate_snr_db(mixed, np.ones_like(mask), RATE) < 7.0


def test_without_speech_there_is_none():
    assert estimate_snr_db(np.zeros(100), np.zeros(100, bool), RATE) is None
    assert estimate_snr_db(np.zeros(100), np.ones(100, bool), RATE) is None


@pytest.mark.parametrize("snr_db", [0.0, 5.0, 10.0, 15.0])
def test_real_speech_in_noise_of_known_level(shared_data: Path, snr_db: float):
    found = []
    for path in sorted((shared_data / "speech" / "dev_ls").rglob("*.opus"))[:6]:
        speech, rate = audio.read(path)
        speech = speech[0].astype(np.float64)
        gain = 10 ** ((audio.active_level_db(speech, rate) - snr_db) / 20)
        mixed = (speech + gain * RNG.standard_normal(len(speech))).astype(np.float32)
        found.append(estimate_snr_db(mixed, speech_mask(mixed, rate), rate))
    assert np.median(found) == pytest.approx(snr_db, abs=2.0)
    assert np.abs(np.array(found) - snr_db).mean() < 3.0


def speechlike(num_samples: int) -> np.ndarray:
    return (RNG.standard_normal(num_samples) * 0.1).astype(np.float32)


def test_no_clipping_is_found_in_what_is_not_clipped():
    assert clipped_share(speechlike(RATE)) == 0.0
    one_peak = speechlike(RATE)
    one_peak[100] = 1.0
    assert clipped_share(one_peak) == 0.0
    assert clipped_share(np.zeros(RATE, np.float32)) == 0.0
    assert clipped_share(np.zeros(0, np.float32)) == 0.0


@pytest.mark.parametrize("gain_afterwards", [1.0, 0.3, 0.01])
def test_the_share_of_clipped_samples(gain_afterwards: float):
    sine = np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE)
    loud = (np.clip(2.0 * sine, -1.0, 1.0) * gain_afterwards).astype(np.float32)
    assert clipped_share(loud) == pytest.approx((np.abs(2.0 * sine) >= 1.0).mean(), abs=0.005)


def test_clipping_on_one_side_is_found():
    sine = np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE)
    assert clipped_share(np.minimum(sine, 0.5)) == pytest.approx(1 / 3, abs=0.01)
    assert clipped_share(np.maximum(sine, -0.5)) == pytest.approx(1 / 3, abs=0.01)


def test_what_is_flat_far_from_the_peak_is_not_clipped():
    waveform = speechlike(RATE)
    waveform[200:400] = 0.01
    assert clipped_share(waveform) == 0.0


def test_integers_at_full_scale():
    samples = (np.clip(speechlike(RATE) * 10, -1, 32767 / 32768) * 32768).round() / 32768
    expected = (np.abs(samples) >= 32767 / 32768).mean()
    assert 0.1 < clipped_share(samples.astype(np.float32)) <= expected
