from __future__ import annotations

import numpy as np
import pytest

from wesep_py.metrics import MetricError
from wesep_py.metrics.detection import speaker_similarity


def test_cosine_whatever_the_lengths_of_the_vectors():
    first, second = np.array([3.0, 0.0]), np.array([1.0, 1.0])
    assert speaker_similarity(first, second) == pytest.approx(np.sqrt(0.5))
    assert speaker_similarity(5 * first, -second) == pytest.approx(-np.sqrt(0.5))


@pytest.mark.parametrize(
    ("second", "reason"), [(np.zeros(2), "zero"), (np.full(2, np.nan), "not finite"), (np.ones(3), "2 and 3 numbers")]
)
def test_reasons(second, reason):
    with pytest.raises(MetricError, match=reason):
        speaker_similarity(np.ones(2), second)
