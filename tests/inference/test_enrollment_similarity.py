"""Second voices and outliers, on embeddings whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from wesep_py.inference.enrollment_quality import (
    coherence,
    compare_recordings,
    segment_similarity,
    suspect_second_voice,
    recording_weights,
)

DIM = 192


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    vectors = rng.standard_normal((*shape, DIM))
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def voice(rng: np.random.Generator, centre: np.ndarray, count: int, cosine: float = 0.7) -> np.ndarray:
    """Windows of a voice: each at about that cosine to its centre, the rest its own; of any length."""
    windows = cosine * centre + np.sqrt(1 - cosine**2) * unit(rng, count)
    return windows * rng.uniform(0.5, 20, (count, 1))


def near(rng: np.random.Generator, centre: np.ndarray, cosine: float) -> np.ndarray:
    other = unit(rng)
    other -= (other @ centre) * centre
    return cosine * centre + np.sqrt(1 - cosine**2) * other / np.linalg.norm(other)


@pytest.mark.parametrize("count", [4, 5, 8, 30])
@pytest.mark.parametrize("cosine", [0.5, 0.7, 0.9])
def test_one_voice_is_not_two(count: int, cosine: float):
    rng = np.random.default_rng(count)
    for _ in range(20):
        assert suspect_second_voice(voice(rng, unit(rng), count, cosine)) is False


@pytest.mark.parametrize("turns", [(3, 3), (8, 4), (2, 20), (4, 3, 9)])
@pytest.mark.parametrize("likeness", [-0.3, 0.0])
def test_two_voices_in_turn_are_two(turns: tuple[int, ...], likeness: float):
    rng = np.random.default_rng(sum(turns))
    for _ in range(10):
        one = unit(rng)
        pair = (one, near(rng, one, likeness))
        windows = np.concatenate([voice(rng, pair[turn % 2], count, 0.9) for turn, count in enumerate(turns)])
        assert suspect_second_voice(windows) is True
        assert segment_similarity(windows) == pytest.approx(likeness, abs=0.2)


def test_every_stretch_is_looked_at():
    """Against the definition, stretch by stretch."""
    rng = np.random.default_rng(3)
    windows = unit(rng, 7)
    lowest = 1.0
    for first in range(7):
        for last in range(first + 2, 8):
            rest = np.delete(windows, np.s_[first:last], axis=0).sum(axis=0)
            if last - first <= 5:
                own = windows[first:last].sum(axis=0)
                lowest = min(lowest, own @ rest / np.linalg.norm(own) / np.linalg.norm(rest))
    assert segment_similarity(windows * 3) == pytest.approx(lowest, abs=1e-5)


def test_the_threshold_is_an_argument():
    rng = np.random.default_rng(0)
    one = unit(rng)
    both = np.concatenate([voice(rng, one, 6), voice(rng, near(rng, one, 0.6), 6)])
    assert suspect_second_voice(both) is False
    assert suspect_second_voice(both, threshold=0.8) is True


def test_what_cannot_be_told():
    rng = np.random.default_rng(0)
    assert suspect_second_voice(voice(rng, unit(rng), 3)) is None


def test_one_odd_window_is_no_voice():
    rng = np.random.default_rng(0)
    odd = np.concatenate([voice(rng, unit(rng), 10, 0.9), unit(rng, 1)])
    assert suspect_second_voice(odd) is False


def test_windows_that_are_the_same_are_one_voice():
    assert segment_similarity(np.ones((6, 4))) == 1.0
    assert coherence(np.ones((6, 4))) == pytest.approx(1.0)


def test_coherence_is_less_the_more_windows_spread():
    rng = np.random.default_rng(0)
    centre = unit(rng)
    spread = [coherence(voice(rng, centre, 50, cosine)) for cosine in (0.9, 0.6, 0.3)]
    assert spread[0] > spread[1] > spread[2]
    assert spread[0] == pytest.approx(0.9, abs=0.02)


def test_an_outlier_among_recordings_is_found():
    rng = np.random.default_rng(0)
    one = unit(rng)
    recordings = np.concatenate([voice(rng, one, 4, 0.9), voice(rng, near(rng, one, 0.1), 1, 0.9)])[[0, 1, 4, 2, 3]]
    found = compare_recordings(recordings, [3.0, 4.0, 60.0, 5.0, 2.0])
    assert found.outliers == (2,)
    assert found.cosines[2] < 0.3 and found.others[2] > 0.8
    assert min(found.cosines[i] for i in (0, 1, 3, 4)) > 0.8


def test_two_outliers_are_both_found():
    rng = np.random.default_rng(1)
    voices = np.concatenate([voice(rng, unit(rng), count, 0.9) for count in (4, 1, 1)])
    assert sorted(compare_recordings(voices, [1.0] * 6).outliers) == [4, 5]


def test_recordings_of_one_voice_have_no_outlier():
    rng = np.random.default_rng(2)
    for count in (1, 2, 3, 7):
        found = compare_recordings(voice(rng, unit(rng), count, 0.7), [1.0] * count)
        assert found.outliers == () and len(found.cosines) == count


def test_of_two_recordings_none_is_the_outlier():
    found = compare_recordings(np.eye(2), [1.0, 9.0])
    assert found.outliers == () and found.cosines == (0.0, 0.0) and found.others == (None, None)


def test_weights_follow_the_speech():
    assert recording_weights([6.0, 2.0], []) == [0.75, 0.25]
    assert recording_weights([5.0, 5.0, 10.0], [2]) == pytest.approx([5 / 11, 5 / 11, 1 / 11])
