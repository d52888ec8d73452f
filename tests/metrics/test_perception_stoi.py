from __future__ import annotations

import numpy as np
import pytest

from wesep_py.metrics import MetricError, estoi, stoi


def modulated(seconds: float = 2.0, sample_rate: int = 16000, seed: int = 0) -> np.ndarray:
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    noise = np.random.default_rng(seed).standard_normal(len(time))
    return noise * (1.1 + np.sin(2 * np.pi * 4 * time))


@pytest.mark.parametrize("metric", [stoi, estoi])
def test_from_one_for_the_reference_down_with_noise(metric):
    speech, noise = modulated(), np.random.default_rng(1).standard_normal(32000)
    scores = [metric(speech + gain * noise, speech, 16000) for gain in (0.0, 1.0, 10.0)]
    assert scores[0] == pytest.approx(1.0, abs=1e-6)
    assert scores[0] > scores[1] > scores[2] > -0.2


def test_the_reference_comes_second():
    """pystoi takes the reference first; frames are chosen by the reference, so the order shows."""
    package = pytest.importorskip("pystoi")
    speech = modulated()
    estimate = speech + np.random.default_rng(1).standard_normal(32000)
    speech[8000:16000] = 0
    assert stoi(estimate, speech, 16000) == pytest.approx(package.stoi(speech, estimate, 16000), abs=1e-9)
    assert stoi(estimate, speech, 16000) != pytest.approx(package.stoi(estimate, speech, 16000), abs=1e-3)
    assert estoi(estimate, speech, 16000) == pytest.approx(
        package.stoi(speech, estimate, 16000, extended=True), abs=1e-6
    )


@pytest.mark.parametrize("metric", [stoi, estoi])
def test_same_value_every_time_and_global_random_state_is_left_alone(metric):
    speech = modulated()
    estimate = speech.copy()
    estimate[8000:24000] = 0  # frames of zeros, where pystoi's own dither decides
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    first = metric(estimate, speech, 16000)
    assert (np.random.get_state()[1] == before).all()
    np.random.seed(6)
    assert metric(estimate, speech, 16000) == first


@pytest.mark.parametrize("metric", [stoi, estoi])
def test_silent_estimate_is_zero(metric):
    assert metric(np.zeros(32000), modulated(), 16000) == 0.0


@pytest.mark.parametrize("metric", [stoi, estoi])
def test_too_little_speech_is_a_reason_not_a_number(metric):
    with pytest.raises(MetricError, match=r"STOI needs 0\.4 s"):
        metric(modulated(0.3), modulated(0.3), 16000)
    mostly_silent = modulated()
    mostly_silent[3000:] = 0
    with pytest.raises(MetricError, match="once its pauses are left out"):
        metric(mostly_silent, mostly_silent, 16000)
    with pytest.raises(MetricError, match="the reference is silent"):
        metric(modulated(), np.zeros(32000), 16000)
