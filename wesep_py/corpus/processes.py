"""A function on many items in several processes, which end soon after Ctrl-C."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_stop: Any = None


def map_processes(work: Callable[[Item], Result], items: Sequence[Item], jobs: int) -> Iterator[tuple[int, Result]]:
    """`work` on every item; position and result as they are done.

    Args:
        work: can be sent to another process; where it takes long, it should look at `stopped` now and then.
        items: each sent to one process.
        jobs: processes, at least 1; with 1 all is done in this one.
    """
    if jobs == 1 or len(items) < 2:
        for position, item in enumerate(items):
            yield position, work(item)
        return
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with ProcessPoolExecutor(min(jobs, len(items)), context, _start, (stop,)) as pool:
        futures = {pool.submit(work, item): position for position, item in enumerate(items)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def stopped() -> bool:
    """Whether the process that wants the results no longer does."""
    return _stop is not None and _stop.is_set()


def _start(stop: Any) -> None:
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then sets `stop`
