"""Positions, items, data loader, and the stream of batches when workers die."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import pytest
import torch
from torch.utils.data._utils import signal_handling

from wesep_py.common.errors import WesepError
from wesep_py.simulation import Simulator
from wesep_py.training import batches as data
from wesep_py.training.batches import Batches, PositionSampler, SimulatedMixtures, make_loader
from wesep_py.training.extraction_task import collate_targets, target_items

all_target_items = partial(target_items, targets="all")
LABELS = {"anna": 0, "bert": 1, "carl": 2, "dora": 3}


def test_positions_continue_over_epochs_and_are_divided_among_ranks():
    ranks = [list(PositionSampler(6, 2, 2, 5, rank, world_size=2)) for rank in (0, 1)]
    assert ranks[0] == [[(1, 1), (1, 2)], [(2, 0), (2, 1)]]
    assert ranks[1] == [[(1, 3), (1, 4)], [(2, 2), (2, 3)]]
    assert len(PositionSampler(6, 2, 2, 5)) == 2


def test_batches_are_aligned_in_memory(simulator: Simulator):
    """Sums over differently aligned memory differ in the last bit: resumed runs would drift."""
    batch = collate_targets([SimulatedMixtures(simulator, LABELS, all_target_items)[0, 0]])
    assert all(batch[key].data_ptr() % 64 == 0 for key in ("mixture", "target", "enrollment"))


def test_an_error_in_a_worker_reaches_the_run(simulator: Simulator):
    """A speaker without a label must be an error."""
    dataset = SimulatedMixtures(simulator, {}, all_target_items)
    with pytest.raises(KeyError, match=r"anna|bert|carl|dora"):
        next(iter(make_loader(dataset, PositionSampler(0, 1, 1, 5), collate_targets, workers=1, prefetch=1)))
    gc.collect()  # ends the worker, which the error's traceback keeps alive


def test_a_worker_ends_in_time_after_sigterm(simulator: Simulator, monkeypatch):
    """Regression: workers ignored SIGTERM, and a process that left one behind could not end."""
    monkeypatch.setattr(data, "WORKER_GRACE_S", 1)
    loader = make_loader(
        SimulatedMixtures(simulator, LABELS, target_items),
        PositionSampler(0, 99, 1, 5),
        collate_targets,
        workers=1,
        prefetch=1,
    )
    batches = iter(loader)
    next(batches)
    (worker,) = batches._workers
    worker.terminate()
    with suppress(RuntimeError):  # torch's word that a worker died, if it hears of it first
        worker.join(timeout=20)
    assert not worker.is_alive()


DEATH_ERROR = RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")


class FailingLoader:
    """Opens iterators over the numbers from a start; the first ones die after two batches."""

    def __init__(self, deaths: int, error: Exception = DEATH_ERROR) -> None:
        self.deaths, self.error, self.opened = deaths, error, []

    def __call__(self, start: int) -> Iterator[dict]:
        self.opened.append(start)
        for number in range(start, 8):
            if self.deaths and number == start + 2:
                self.deaths -= 1
                raise self.error
            yield {"mixture": torch.tensor(number)}


def test_each_batch_comes_exactly_once():
    source, printed = FailingLoader(deaths=3), []
    assert [batch["mixture"].item() for batch in Batches(source, printed.append)] == list(range(8))
    assert source.opened == [0, 2, 4, 6] and len(printed) == 3 and "pid(s) 7" in printed[0]


def test_workers_that_always_die_end_the_run():
    batches = Batches(FailingLoader(deaths=9), lambda text: None, restarts=1)
    with pytest.raises(WesepError, match=r"die again and again .*lower data\.workers or data\.prefetch"):
        list(batches)


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), EOFError(), FileNotFoundError(2, "gone")])
def test_a_broken_connection_means_a_dead_worker(error: Exception):
    assert [batch["mixture"].item() for batch in Batches(FailingLoader(1, error), lambda text: None)] == list(range(8))


@pytest.mark.parametrize(
    "error",
    [RuntimeError("a bug"), FileNotFoundError(2, "gone", "a.wav"), ConnectionError("Caught ConnectionError in …")],
)
def test_other_errors_are_raised(error: Exception):
    with pytest.raises(type(error)):
        list(Batches(FailingLoader(1, error), lambda text: None))


def test_messages_are_printed_and_failures_end_the_run():
    printed: list[str] = []
    batches = Batches(
        lambda start: iter([{"mixture": torch.zeros(1), "nonfinite": ["odd"]}, {"failure": ["gone"]}]), printed.append
    )
    assert list(next(batches)) == ["mixture"] and printed == ["odd"]
    with pytest.raises(WesepError, match="gone"):
        next(batches)


def test_the_handler_of_sigchld_is_restored():
    """Torch sets a handler that raises wherever the main thread is, for example in the middle of a step."""

    def opened(start: int) -> Iterator[dict]:
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        yield {"mixture": torch.zeros(1)}

    before = signal.getsignal(signal.SIGCHLD)
    next(Batches(opened, print))
    assert signal.getsignal(signal.SIGCHLD) == before


def test_a_handler_that_torch_set_earlier_is_removed():
    """A loader opened elsewhere in the process leaves it; a dead worker would raise between two batches."""

    def handler(number: int, frame: object) -> None: ...

    handler.__module__ = signal_handling.__name__
    before = signal.getsignal(signal.SIGCHLD)
    try:
        signal.signal(signal.SIGCHLD, handler)
        next(Batches(lambda start: iter([{"mixture": torch.zeros(1)}]), print))
        assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_death_while_the_handler_is_removed_is_ignored(monkeypatch):
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
