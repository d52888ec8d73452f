from __future__ import annotations

import time

import pytest

from wesep_py.corpus.processes import map_processes, stopped
from wesep_py.errors import AudioError

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
def test_every_item_is_done_once(jobs: int):
    assert sorted(map_processes(square, [3, 4, 5], jobs)) == [(0, 9), (1, 16), (2, 25)]
    assert not stopped()


def test_an_error_ends_the_other_processes_soon():
    began = time.monotonic()
    with pytest.raises(AudioError, match="the first is bad"):
        list(map_processes(work, [1, 0, 2], 2))
    assert time.monotonic() - began < PATIENCE_S / 2
