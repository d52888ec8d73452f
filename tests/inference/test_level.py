"""The level of the estimate in the mixture, on signals that do not correlate."""

from __future__ import annotations

import numpy as np
import pytest

from wesep_py.inference.level import gain_onto

RNG = np.random.default_rng(0)
VOICE = RNG.standard_normal((2, 4000))
OTHER = RNG.standard_normal((2, 4000))
OTHER -= VOICE * (OTHER * VOICE).sum() / (VOICE**2).sum()  # made orthogonal: the answer is exact


@pytest.mark.parametrize("scale", [1.0, -0.25, 1e-4, 30.0])
def test_brings_the_estimate_to_the_level_it_has(scale: float):
    assert gain_onto(scale * VOICE, 0.7 * VOICE + OTHER) == pytest.approx(0.7 / scale, rel=1e-9)


def test_is_one_gain_for_all_channels():
    mixture = VOICE * np.array([[1.0], [0.2]])
    expected = (VOICE[0] @ VOICE[0] + 0.2 * VOICE[1] @ VOICE[1]) / (VOICE**2).sum()
    assert gain_onto(VOICE, mixture) == pytest.approx(expected)


def test_silence_stays_silence():
    assert gain_onto(np.zeros((1, 100), np.float32), np.ones((1, 100))) == 0.0
    assert gain_onto(np.full((1, 100), 1e-30, np.float32), np.ones((1, 100))) == 0.0
