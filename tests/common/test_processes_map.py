"""`map_processes`: each item once, errors, crashed processes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from wesep_py.common.errors import AudioError, WesepError
from wesep_py.common.processes import map_processes, stopped

PATIENCE_S = 20


def work(item: int) -> int:
    if item == 0:
        raise AudioError("the first is bad")
    deadline = time.monotonic() + PATIENCE_S
    while not stopped() and time.monotonic() < deadline:
        time.sleep(0.01)
    return item


def square(item: int) -> int:
    return item * item


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_item_is_computed_once(jobs: int):
    assert sorted(map_processes(square, [3, 4, 5], jobs)) == [(0, 9), (1, 16), (2, 25)]
    assert not stopped()


def test_an_error_stops_the_other_processes():
    began = time.monotonic()
    with pytest.raises(AudioError, match="the first is bad"):
        list(map_processes(work, [1, 0, 2], 2))
    assert time.monotonic() - began < PATIENCE_S / 2


def fragile(item: int) -> int:
    if item == 2:
        os._exit(9)
    return square(item)


def dies_once(item: tuple[Path, int]) -> int:
    marker, value = item
    if value == 1 and not marker.exists():
        marker.touch()
        os._exit(9)
    return value


def test_a_crash_loses_one_item_only():
    got = sorted(map_processes(fragile, [0, 1, 2, 3, 4], 2, lost=lambda item: -item))
    assert got == [(0, 0), (1, 1), (2, -2), (3, 9), (4, 16)]


def test_interrupted_items_are_tried_again(tmp_path: Path):
    items = [(tmp_path / "died", value) for value in range(4)]
    assert sorted(map_processes(dies_once, items, 2, lost=lambda item: -1)) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert (tmp_path / "died").exists()


def test_a_crash_without_lost_is_an_error_of_one_line():
    with pytest.raises(WesepError, match=r"ended unexpectedly.*give fewer jobs"):
        list(map_processes(fragile, [2, 1], 2))
