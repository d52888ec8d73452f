"""Slots of the three kinds of overlap, against lengths computed by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from wesep_py.simulation.speech.placement import Slot, fixed_layout, whole_layout


def test_full_fills_the_mixture() -> None:
    assert fixed_layout("full", 3, 100, 0.5, 10, np.random.default_rng(0)) == [Slot(0, 100)] * 3


def test_longest_has_one_full_slot_and_others_inside() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        slots = fixed_layout("longest", 3, 1000, 0.0, 200, rng)
        assert Slot(0, 1000) in slots
        assert all(slot.offset >= 0 and slot.offset + slot.num_samples <= 1000 for slot in slots)
        assert all(slot.num_samples >= 200 for slot in slots)


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
def test_partial_overlaps_by_its_ratio(count: int, ratio: float) -> None:
    slots = fixed_layout("partial", count, 48000, ratio, 1, np.random.default_rng(0))
    assert slots[0].offset == 0
    assert slots[-1].offset + slots[-1].num_samples == pytest.approx(48000, abs=1)
    for before, after in pairwise(slots):
        shared = before.offset + before.num_samples - after.offset
        assert shared == pytest.approx(ratio * after.num_samples, abs=2)


def test_layout_of_whole_utterances() -> None:
    assert whole_layout("full", [50, 80], 0.0) == ([Slot(0, 50), Slot(0, 50)], 50)
    assert whole_layout("longest", [50, 80], 0.0) == ([Slot(0, 50), Slot(0, 80)], 80)
    assert whole_layout("partial", [50, 80], 0.2) == ([Slot(0, 50), Slot(40, 80)], 120)
    assert whole_layout("partial", [50], 0.2) == ([Slot(0, 50)], 50)
