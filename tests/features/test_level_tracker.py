"""The causal level: right from the first sample on, slow, the same in blocks, and without look-ahead."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wesep_py.features import LevelTracker
from wesep_py.features.level_tracker import MIN_LEVEL


def test_the_level_equals_its_recursion():
    waveform, share = 0.1 * torch.randn(2, 20000), 1 - np.exp(-1 / (0.05 * 16000))
    power, weight, expected = np.zeros(2), 0.0, np.empty((2, 20000))
    for n, sample in enumerate(waveform.double().numpy().T):
        power, weight = power + share * (sample**2 - power), weight + share * (1 - weight)
        expected[:, n] = np.sqrt(power / weight)
    level, _ = LevelTracker(16000, time_constant_s=0.05)(waveform)
    np.testing.assert_allclose(level.numpy(), np.maximum(expected, MIN_LEVEL), rtol=1e-4)


def test_a_steady_signal_has_its_level_from_the_first_sample_on():
    level, _ = LevelTracker(16000)(0.3 * torch.ones(1, 40000))
    torch.testing.assert_close(level, torch.full((1, 40000), 0.3))


def test_levels_of_blocks_equal_those_of_the_whole():
    tracker, waveform, state, levels = LevelTracker(8000, 0.1), torch.randn(2, 30000), None, []
    for block in waveform.split([1, 7, 2000, 0, 12345, 30000 - 14353], dim=1):
        level, state = tracker(block, state)
        levels.append(level)
    torch.testing.assert_close(torch.cat(levels, dim=1), tracker(waveform)[0], atol=1e-6, rtol=1e-4)


def test_later_samples_change_no_earlier_level():
    tracker, waveform = LevelTracker(16000, 0.1), torch.randn(1, 9000)
    later = torch.cat([waveform[:, :5000], 10 * torch.randn(1, 4000)], dim=1)
    assert torch.equal(tracker(waveform)[0][:, :5000], tracker(later)[0][:, :5000])


def test_silence_has_the_lowest_level():
    assert (LevelTracker(16000)(torch.zeros(1, 5000))[0] == MIN_LEVEL).all()


def test_a_time_constant_of_zero_is_refused():
    with pytest.raises(ValueError, match="time_constant_s: is 0; above 0 s is allowed"):
        LevelTracker(16000, 0)
