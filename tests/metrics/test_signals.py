from __future__ import annotations

import numpy as np
import pytest

from wesep_py.metrics import MetricError, attenuation_db, is_silent
from wesep_py.metrics.separation import checked_signal


def test_attenuation_counts_down_from_the_mixture():
    mixture = np.random.default_rng(0).standard_normal(1000)
    assert attenuation_db(mixture, mixture) == pytest.approx(0.0, abs=1e-9)
    assert attenuation_db(0.001 * mixture, mixture) == pytest.approx(60.0, abs=1e-3)
    assert attenuation_db(10 * mixture, mixture) == pytest.approx(-20.0, abs=1e-3)
    energy = np.square(mixture).sum()
    assert attenuation_db(np.zeros(1000), mixture) == pytest.approx(10 * np.log10(energy / 1e-8 + 1), abs=1e-6)


def test_silence_is_an_energy_of_at_most_eps_without_the_mean():
    assert is_silent(np.zeros(100))
    assert is_silent(np.full(100, 0.3, dtype=np.float32))
    assert not is_silent(np.sin(np.arange(100)) * 1e-4)


@pytest.mark.parametrize(
    ("signal", "reason"),
    [
        (np.zeros(0), r"shape \[0\]"),
        (np.zeros((1, 5)), r"shape \[1, 5\]"),
        (np.array([0, np.inf]), "not finite"),
    ],
)
def test_what_is_not_a_signal(signal, reason):
    with pytest.raises(MetricError, match=f"the mixture has .*{reason}"):
        checked_signal(signal, "mixture")
