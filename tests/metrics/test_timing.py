from __future__ import annotations

import numpy as np
import pytest

from wesep_py.metrics import MetricError
from wesep_py.metrics.timing import close_pauses, frame_error, timing


def spoken(*spans: tuple[float, float], length_s: float = 10.0) -> np.ndarray:
    times = np.arange(round(length_s / 0.02)) * 0.02
    return np.any([(times >= start) & (times < end) for start, end in spans], axis=0)


def test_the_same_activity_is_perfect():
    assert timing(spoken((2, 4), (6, 7)), spoken((2, 4), (6, 7))) == (1.0, 1.0, 1.0)


def test_known_shares_without_collar():
    """Two of the three active seconds are right, of four seconds of speech."""
    precision, recall, f1 = timing(spoken((4, 7)), spoken((2, 6)), collar_s=0.0)
    assert precision == pytest.approx(2 / 3)
    assert recall == pytest.approx(1 / 2)
    assert f1 == pytest.approx(2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2))


def test_the_collar_forgives_a_late_onset_and_no_more():
    reference = spoken((2, 6))
    assert timing(spoken((2.08, 6.08)), reference) == (1.0, 1.0, 1.0)
    assert timing(spoken((2.08, 6.08)), reference, collar_s=0.0).recall < 1
    assert timing(spoken((2.5, 6)), reference).recall == pytest.approx((3.8 - 0.4) / 3.8, abs=0.01)


def test_the_ends_of_the_recording_are_no_boundaries():
    everywhere = np.ones(100, dtype=bool)
    assert timing(np.arange(100) >= 2, everywhere).recall == pytest.approx(0.98)


def test_short_pauses_are_closed_and_long_ones_are_not():
    assert timing(spoken((2, 3), (3.1, 4)), spoken((2, 4))) == (1.0, 1.0, 1.0)
    assert timing(spoken((2, 3), (3.4, 4)), spoken((2, 4))).recall < 0.85
    np.testing.assert_array_equal(close_pauses(np.array([1, 0, 0, 1, 0], bool), 2), [1, 0, 0, 1, 0])
    np.testing.assert_array_equal(close_pauses(np.array([1, 0, 0, 1, 0], bool), 3), [1, 1, 1, 1, 0])


def test_silence_has_no_precision_and_no_recall():
    assert timing(np.zeros(500, bool), spoken((2, 4))) == (0.0, 0.0, 0.0)


def test_a_word_shorter_than_its_collars_still_counts():
    assert timing(spoken((2, 2.12)), spoken((2, 2.12))) == (1.0, 1.0, 1.0)
    assert timing(spoken((5, 6)), spoken((2, 2.12))).recall == 0.0


def test_reasons():
    with pytest.raises(MetricError, match="never active"):
        timing(np.ones(10, bool), np.zeros(10, bool))
    with pytest.raises(MetricError, match=r"\[9\] and \[10\] frames"):
        timing(np.ones(9, bool), np.ones(10, bool))


def test_the_frame_error_counts_missed_and_false_frames():
    reference = spoken((2, 6))
    assert frame_error(reference, reference) == 0.0
    # Of 10 s, 1.5 s are missed and 1 s is false; 0.1 s before and after both boundaries do not count.
    error = frame_error(spoken((2, 4.5), (8, 9)), reference)
    assert error == pytest.approx((1.5 - 0.1 + 1.0) / (10 - 0.4), abs=0.005)
    assert frame_error(~reference, reference, collar_s=0.0) == 1.0
    with pytest.raises(MetricError):
        frame_error(np.ones(9, bool), np.ones(10, bool))
