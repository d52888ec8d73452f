"""Noise: looping, and the slope of coloured noise measured octave by octave."""

from __future__ import annotations

import numpy as np
import pytest

from wesep_py.simulation.noise import coloured_noise, loop_recording


def test_loop_begins_again() -> None:
    recording = np.arange(5, dtype=np.float32)
    assert loop_recording(recording, 3, 9).tolist() == [3, 4, 0, 1, 2, 3, 4, 0, 1]
    assert loop_recording(recording, 13, 2).tolist() == [3, 4]
    assert loop_recording(recording, 0, 5).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("slope_db", [-6.0, -3.0, 0.0, 3.0])
def test_coloured_noise_has_its_slope(slope_db: float) -> None:
    noise = coloured_noise(20 * 16000, 16000, slope_db, seed=1)
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(0.1, rel=0.05)
    power = np.abs(np.fft.rfft(noise)) ** 2
    hz_per_bin = 16000 / noise.size
    # Power density in octaves around 250 Hz … 4 kHz.
    densities = [
        power[int(f / 1.414 / hz_per_bin) : int(f * 1.414 / hz_per_bin)].mean() for f in (250, 500, 1000, 2000)
    ]
    per_octave = np.diff(10 * np.log10(densities))
    np.testing.assert_allclose(per_octave, slope_db, atol=0.5)


def test_coloured_noise_is_a_function_of_its_seed() -> None:
    assert np.array_equal(coloured_noise(1000, 16000, -3.0, 5), coloured_noise(1000, 16000, -3.0, 5))
    assert not np.array_equal(coloured_noise(1000, 16000, -3.0, 5), coloured_noise(1000, 16000, -3.0, 6))
