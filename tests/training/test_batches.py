"""A stream of batches goes on where it was when its loader's workers die."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import torch
from torch.utils.data._utils import signal_handling

from wesep_py.common.errors import WesepError
from wesep_py.training.batches import Batches

DEATH = RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")


class Source:
    """Opens iterators over the numbers from a start; the first so many of them die after two batches."""

    def __init__(self, deaths: int, error: Exception = DEATH) -> None:
        self.deaths, self.error, self.opened = deaths, error, []

    def __call__(self, start: int) -> Iterator[dict]:
        self.opened.append(start)
        for number in range(start, 8):
            if self.deaths and number == start + 2:
                self.deaths -= 1
                raise self.error
            yield {"mixture": torch.tensor(number)}


def test_nothing_is_lost_and_nothing_comes_twice():
    source, said = Source(deaths=3), []
    assert [batch["mixture"].item() for batch in Batches(source, said.append)] == list(range(8))
    assert source.opened == [0, 2, 4, 6] and len(said) == 3 and "pid(s) 7" in said[0]


def test_workers_that_always_die_end_the_run_in_one_line():
    batches = Batches(Source(deaths=9), lambda text: None, restarts=1)
    with pytest.raises(WesepError, match=r"die again and again .*lower data\.workers or data\.prefetch"):
        list(batches)


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), EOFError(), FileNotFoundError(2, "gone")])
def test_a_connection_that_a_dead_worker_cut_is_its_death(error: Exception):
    assert [batch["mixture"].item() for batch in Batches(Source(1, error), lambda text: None)] == list(range(8))


@pytest.mark.parametrize(
    "error",
    [RuntimeError("a bug"), FileNotFoundError(2, "gone", "a.wav"), ConnectionError("Caught ConnectionError in …")],
)
def test_other_errors_are_no_deaths(error: Exception):
    with pytest.raises(type(error)):
        list(Batches(Source(1, error), lambda text: None))


def test_flaws_are_said_and_taken_out_and_failures_end_the_run():
    said: list[str] = []
    batches = Batches(
        lambda start: iter([{"mixture": torch.zeros(1), "nonfinite": ["odd"]}, {"failure": ["gone"]}]), said.append
    )
    assert list(next(batches)) == ["mixture"] and said == ["odd"]
    with pytest.raises(WesepError, match="gone"):
        next(batches)


def test_the_signal_handler_of_children_is_left_as_it_was():
    """Torch sets one that raises wherever the main thread happens to be: in the middle of a step."""

    def opened(start: int) -> Iterator[dict]:
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        yield {"mixture": torch.zeros(1)}

    before = signal.getsignal(signal.SIGCHLD)
    next(Batches(opened, print))
    assert signal.getsignal(signal.SIGCHLD) == before


def test_a_handler_that_torch_set_earlier_is_removed():
    """A loader opened elsewhere in the process leaves it; a worker's death would be raised between two batches."""

    def handler(number: int, frame: object) -> None: ...

    handler.__module__ = signal_handling.__name__
    before = signal.getsignal(signal.SIGCHLD)
    try:
        signal.signal(signal.SIGCHLD, handler)
        next(Batches(lambda start: iter([{"mixture": torch.zeros(1)}]), print))
        assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_death_while_the_handler_is_removed_is_left_to_the_loader(monkeypatch):
    set_handler, calls = signal.signal, []

    def interrupted(number, handler):
        calls.append(handler)
        if len(calls) == 2:
            raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")
        return set_handler(number, handler)

    def opened(start: int) -> Iterator[dict]:
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        yield {"mixture": torch.zeros(1)}

    before = signal.getsignal(signal.SIGCHLD)
    monkeypatch.setattr(signal, "signal", interrupted)
    assert list(next(Batches(opened, print))) == ["mixture"]
    assert len(calls) == 3 and signal.getsignal(signal.SIGCHLD) == before
