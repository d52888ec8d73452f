"""The high-pass in NumPy equals that in torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wesep_py.features import HighPass
from wesep_py.features.array_high_pass import ArrayHighPass


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("num_samples", [1, 2, 50, 1000, 30011])
def test_the_filter_equals_that_in_torch(rate: int, num_samples: int):
    waveform = (0.3 + 0.1 * np.random.default_rng(0).standard_normal((2, num_samples))).astype(np.float32)
    expected = HighPass(rate, 40.0)(torch.from_numpy(waveform)).numpy()
    np.testing.assert_allclose(ArrayHighPass(rate, 40.0)(waveform), expected, atol=1e-6)


def test_no_samples_remain_no_samples():
    assert ArrayHighPass(16000, 40.0)(np.zeros((2, 0), np.float32)).shape == (2, 0)


def test_a_cutoff_that_is_too_high_is_refused():
    with pytest.raises(ValueError, match="cutoff_hz"):
        ArrayHighPass(16000, 1000.0)
