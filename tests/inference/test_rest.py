"""The rest is what the voice leaves, in the steps of the files' format."""

from __future__ import annotations

import numpy as np
import pytest

from wesep_py.inference.rest import split


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "PCM_U8"])
def test_voice_and_rest_sum_to_the_mixture(subtype: str):
    rng = np.random.default_rng(0)
    bits = {"PCM_16": 16, "PCM_24": 24, "PCM_U8": 8, "FLOAT": 24}[subtype]
    mixture = (rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (2, 5000)) / 2 ** (bits - 1)).astype(np.float32)
    voice, rest, altered = split(mixture, rng.uniform(-1, 1, (2, 5000)).astype(np.float32), subtype)
    np.testing.assert_array_equal(voice + rest, mixture)
    if subtype == "FLOAT":
        assert altered == 0
    else:
        assert 0 < altered < 5000 and max(np.abs(voice).max(), np.abs(rest).max()) <= 1
        np.testing.assert_array_equal(rest * 2 ** (bits - 1), np.rint(rest * 2 ** (bits - 1)))
