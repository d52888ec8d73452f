"""PESQ in the background: the same numbers as in the foreground, and what happens if it fails."""

from __future__ import annotations

import math
import os
import signal

import numpy as np
import pytest

from tests.conftest import VOICES, make_voice
from wesep_py.metrics import pesq
from wesep_py.training.losses.metric_gan import BEST_PESQ, QualityScorer, normalised_pesq


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    return make_voice(*VOICES["anna"], 1.0, seed=1)


def noisy(voice: np.ndarray, level: float) -> np.ndarray:
    return (voice + level * np.random.default_rng(0).standard_normal(len(voice))).astype(np.float32)


def test_the_scale_is_from_the_worst_to_a_signal_against_itself(voice):
    assert normalised_pesq(voice, voice, 16000) == pytest.approx(1.0, abs=1e-4)
    assert normalised_pesq(voice[::2].copy(), voice[::2].copy(), 8000) == pytest.approx(1.0, abs=1e-4)
    estimate = noisy(voice, 0.02)
    assert normalised_pesq(voice, estimate, 16000) == pytest.approx(
        (pesq(estimate, voice, 16000) - 1) / (BEST_PESQ[16000] - 1)
    )


def test_what_has_no_pesq_has_no_score(voice):
    broken = voice.copy()
    broken[3] = np.nan
    assert math.isnan(normalised_pesq(voice, broken, 16000))
    assert math.isnan(normalised_pesq(voice, np.zeros_like(voice), 16000))


def test_other_processes_give_the_same_and_one_that_dies_costs_nothing(voice):
    pairs = [(voice, noisy(voice, level)) for level in (0.001, 0.02, 0.1)]
    here, there = QualityScorer(16000, workers=0), QualityScorer(16000, workers=1)
    here.submit(pairs)
    expected = here.collect()
    assert expected[0] > expected[1] > expected[2] and here.waiting == []
    try:
        there.submit(pairs)
        assert len(there.waiting) == 3
        os.kill(next(iter(there._pool._processes)), signal.SIGKILL)
        assert there.collect() == expected
        there.submit(pairs[:1])
        assert there.collect() == expected[:1]
    finally:
        there.close()


def test_what_is_refused():
    with pytest.raises(ValueError, match="sample_rate: is 44100; PESQ is defined at 16000 and 8000 Hz"):
        QualityScorer(44100)
    with pytest.raises(ValueError, match="workers: is -1"):
        QualityScorer(16000, workers=-1)
