"""SNR, clipping, second voices and outliers, on signals and embeddings whose answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wesep_py import audio
from wesep_py.inference.enrolling.enrollment_quality import (
    SNR_RANGE_DB,
    WADA_STATISTICS,
    clipped_share,
    coherence,
    compare_recordings,
    estimate_snr_db,
    recording_weights,
    segment_similarity,
    suspect_second_voice,
)
from wesep_py.inference.enrolling.speech_activity import speech_mask

RATE = 16000
GAMMA_SHAPE = 0.4  # that WADA supposes of the amplitudes of clean speech
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def fresh_rng(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every test the same numbers, whichever tests ran before it."""
    monkeypatch.setitem(globals(), "RNG", np.random.default_rng(0))


def gamma_speech(num_samples: int) -> np.ndarray:
    """Samples with the amplitudes that WADA supposes of speech, at a mean square of 1."""
    speech = RNG.gamma(0.4, 1.0, num_samples) * RNG.choice([-1.0, 1.0], num_samples)
    return speech / np.sqrt(0.4 * 1.4)


def wada_table() -> tuple[np.ndarray, np.ndarray]:
    """Return SNRs in dB and their statistics by the formula beside `WADA_STATISTICS`."""
    from scipy.special import gamma, gammaincinv, hyp1f1

    levels = np.arange(SNR_RANGE_DB[0], SNR_RANGE_DB[1] + 1, 2)
    share = (np.arange(200) + 0.5) / 200
    # Quantiles of the Gamma distribution, divided by its RMS, which is sqrt(shape · (shape + 1)).
    speech = gammaincinv(GAMMA_SHAPE, share) / np.sqrt(GAMMA_SHAPE * (GAMMA_SHAPE + 1))
    scaled = speech * 10 ** (levels[:, None] / 20)

    def moment(order: float) -> np.ndarray:
        """Far above the noise it is that of the speech alone."""
        far = scaled > 30
        near = np.where(far, 0.0, scaled)
        value = 2 ** (order / 2) * gamma((1 + order) / 2) / np.sqrt(np.pi) * hyp1f1(-order / 2, 0.5, -(near**2) / 2)
        return np.where(far, scaled**order, value).mean(axis=1)

    step = 1e-3
    return levels, np.log(moment(1.0)) - (moment(step) - moment(-step)) / (2 * step)


def test_the_wada_table_is_that_of_its_formula():
    np.testing.assert_allclose(wada_table()[1], WADA_STATISTICS, atol=1e-6)


def test_wada_table_equals_drawn_samples():
    levels, statistics = wada_table()
    assert (np.diff(statistics) > 0).all()
    for snr_db in (0.0, 10.0, 20.0):
        mixed = np.abs(10 ** (snr_db / 20) * gamma_speech(10**6) + RNG.standard_normal(10**6))
        drawn = np.log(mixed.mean()) - np.log(mixed).mean()
        assert np.interp(snr_db, levels, statistics) == pytest.approx(drawn, abs=0.01)


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 5.0, 10.0, 20.0, 30.0])
@pytest.mark.parametrize("level", [1e-3, 0.3])
def test_known_snr_is_estimated_at_any_level(snr_db: float, level: float):
    mixed = level * (gamma_speech(40 * RATE) + 10 ** (-snr_db / 20) * RNG.standard_normal(40 * RATE))
    assert estimate_snr_db(mixed, np.ones(len(mixed), bool), RATE) == pytest.approx(snr_db, abs=0.8)


def test_long_pauses_do_not_lower_the_snr():
    speech = np.concatenate([gamma_speech(4 * RATE), np.zeros(12 * RATE)])
    mixed = speech + 10 ** (-10 / 20) * RNG.standard_normal(len(speech))
    mask = speech != 0
    assert estimate_snr_db(mixed, mask, RATE) == pytest.approx(10.0, abs=1.0)
    assert estimate_snr_db(mixed, np.ones_like(mask), RATE) < 7.0


def test_snr_without_speech_is_none():
    assert estimate_snr_db(np.zeros(100), np.zeros(100, bool), RATE) is None
    assert estimate_snr_db(np.zeros(100), np.ones(100, bool), RATE) is None


@pytest.mark.parametrize("snr_db", [0.0, 5.0, 10.0, 15.0])
def test_snr_of_real_speech_in_noise_of_known_level(shared_data: Path, snr_db: float):
    estimates = []
    for path in sorted((shared_data / "speech" / "dev_ls").rglob("*.opus"))[:6]:
        speech, rate = audio.read(path)
        speech = speech[0].astype(np.float64)
        gain = 10 ** ((audio.active_level_db(speech, rate) - snr_db) / 20)
        mixed = (speech + gain * RNG.standard_normal(len(speech))).astype(np.float32)
        estimates.append(estimate_snr_db(mixed, speech_mask(mixed, rate), rate))
    assert np.median(estimates) == pytest.approx(snr_db, abs=2.0)
    assert np.abs(np.array(estimates) - snr_db).mean() < 3.0


def speechlike(num_samples: int) -> np.ndarray:
    return (RNG.standard_normal(num_samples) * 0.1).astype(np.float32)


def test_unclipped_signals_have_no_clipped_samples():
    assert clipped_share(speechlike(RATE)) == 0.0
    one_peak = speechlike(RATE)
    one_peak[100] = 1.0
    assert clipped_share(one_peak) == 0.0
    assert clipped_share(np.zeros(RATE, np.float32)) == 0.0
    assert clipped_share(np.zeros(0, np.float32)) == 0.0


@pytest.mark.parametrize("gain_afterwards", [1.0, 0.3, 0.01])
def test_share_of_clipped_samples_after_a_gain(gain_afterwards: float):
    sine = np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE)
    loud = (np.clip(2.0 * sine, -1.0, 1.0) * gain_afterwards).astype(np.float32)
    assert clipped_share(loud) == pytest.approx((np.abs(2.0 * sine) >= 1.0).mean(), abs=0.005)


def test_clipping_on_one_side_is_found():
    sine = np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE)
    assert clipped_share(np.minimum(sine, 0.5)) == pytest.approx(1 / 3, abs=0.01)
    assert clipped_share(np.maximum(sine, -0.5)) == pytest.approx(1 / 3, abs=0.01)


def test_flat_samples_below_the_peak_are_not_clipped():
    waveform = speechlike(RATE)
    waveform[200:400] = 0.01
    assert clipped_share(waveform) == 0.0


def test_clipped_integers_at_full_scale():
    samples = (np.clip(speechlike(RATE) * 10, -1, 32767 / 32768) * 32768).round() / 32768
    expected = (np.abs(samples) >= 32767 / 32768).mean()
    assert 0.1 < clipped_share(samples.astype(np.float32)) <= expected


DIM = 192


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    vectors = rng.standard_normal((*shape, DIM))
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def voice(rng: np.random.Generator, centre: np.ndarray, count: int, cosine: float = 0.7) -> np.ndarray:
    """Return windows of a voice, each at about that cosine to its centre, of random norms."""
    windows = cosine * centre + np.sqrt(1 - cosine**2) * unit(rng, count)
    return windows * rng.uniform(0.5, 20, (count, 1))


def near(rng: np.random.Generator, centre: np.ndarray, cosine: float) -> np.ndarray:
    other = unit(rng)
    other -= (other @ centre) * centre
    return cosine * centre + np.sqrt(1 - cosine**2) * other / np.linalg.norm(other)


@pytest.mark.parametrize("count", [4, 5, 8, 30])
@pytest.mark.parametrize("cosine", [0.5, 0.7, 0.9])
def test_windows_of_one_voice_are_not_suspected(count: int, cosine: float):
    rng = np.random.default_rng(count)
    for _ in range(20):
        assert suspect_second_voice(voice(rng, unit(rng), count, cosine)) is False


@pytest.mark.parametrize("turns", [(3, 3), (8, 4), (2, 20), (4, 3, 9)])
@pytest.mark.parametrize("similarity", [-0.3, 0.0])
def test_windows_of_two_voices_in_turn_are_suspected(turns: tuple[int, ...], similarity: float):
    rng = np.random.default_rng(sum(turns))
    for _ in range(10):
        centre = unit(rng)
        pair = (centre, near(rng, centre, similarity))
        windows = np.concatenate([voice(rng, pair[turn % 2], count, 0.9) for turn, count in enumerate(turns)])
        assert suspect_second_voice(windows) is True
        assert segment_similarity(windows) == pytest.approx(similarity, abs=0.2)


def test_segment_similarity_equals_its_definition():
    """Compare with the definition, segment by segment."""
    rng = np.random.default_rng(3)
    windows = unit(rng, 7)
    lowest = 1.0
    for first in range(7):
        for last in range(first + 2, 8):
            rest = np.delete(windows, np.s_[first:last], axis=0).sum(axis=0)
            if last - first <= 5:
                segment = windows[first:last].sum(axis=0)
                lowest = min(lowest, segment @ rest / np.linalg.norm(segment) / np.linalg.norm(rest))
    assert segment_similarity(windows * 3) == pytest.approx(lowest, abs=1e-5)


def test_threshold_is_an_argument():
    rng = np.random.default_rng(0)
    centre = unit(rng)
    both = np.concatenate([voice(rng, centre, 6), voice(rng, near(rng, centre, 0.6), 6)])
    assert suspect_second_voice(both) is False
    assert suspect_second_voice(both, threshold=0.8) is True


def test_three_windows_are_too_few():
    rng = np.random.default_rng(0)
    assert suspect_second_voice(voice(rng, unit(rng), 3)) is None


def test_single_odd_window_is_not_suspected():
    rng = np.random.default_rng(0)
    odd = np.concatenate([voice(rng, unit(rng), 10, 0.9), unit(rng, 1)])
    assert suspect_second_voice(odd) is False


def test_equal_windows_are_one_voice():
    assert segment_similarity(np.ones((6, 4))) == 1.0
    assert coherence(np.ones((6, 4))) == pytest.approx(1.0)


def test_coherence_falls_with_spread():
    rng = np.random.default_rng(0)
    centre = unit(rng)
    spread = [coherence(voice(rng, centre, 50, cosine)) for cosine in (0.9, 0.6, 0.3)]
    assert spread[0] > spread[1] > spread[2]
    assert spread[0] == pytest.approx(0.9, abs=0.02)


def test_outlier_among_recordings_is_found():
    rng = np.random.default_rng(0)
    centre = unit(rng)
    recordings = np.concatenate([voice(rng, centre, 4, 0.9), voice(rng, near(rng, centre, 0.1), 1, 0.9)])[
        [0, 1, 4, 2, 3]
    ]
    agreement = compare_recordings(recordings, [3.0, 4.0, 60.0, 5.0, 2.0])
    assert agreement.outliers == (2,)
    assert agreement.cosines[2] < 0.3 and agreement.others[2] > 0.8
    assert min(agreement.cosines[i] for i in (0, 1, 3, 4)) > 0.8


def test_two_outliers_are_both_found():
    rng = np.random.default_rng(1)
    voices = np.concatenate([voice(rng, unit(rng), count, 0.9) for count in (4, 1, 1)])
    assert sorted(compare_recordings(voices, [1.0] * 6).outliers) == [4, 5]


def test_recordings_of_one_voice_have_no_outlier():
    rng = np.random.default_rng(2)
    for count in (1, 2, 3, 7):
        agreement = compare_recordings(voice(rng, unit(rng), count, 0.7), [1.0] * count)
        assert agreement.outliers == () and len(agreement.cosines) == count


def test_of_two_recordings_neither_is_an_outlier():
    agreement = compare_recordings(np.eye(2), [1.0, 9.0])
    assert agreement.outliers == () and agreement.cosines == (0.0, 0.0) and agreement.others == (None, None)


def test_weights_are_shares_of_speech():
    assert recording_weights([6.0, 2.0], []) == [0.75, 0.25]
    assert recording_weights([5.0, 5.0, 10.0], [2]) == pytest.approx([5 / 11, 5 / 11, 1 / 11])
