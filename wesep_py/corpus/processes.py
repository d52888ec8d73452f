"""A function on many items in several processes, of this machine or of a Ray cluster; they end soon after Ctrl-C."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Literal, TypeVar, get_args

from wesep_py.errors import InputError, WesepError, nearest
from wesep_py.worker_processes import WorkerPool, at_work, end_on_sigterm, end_with_parent, most_workers, worker_context

Item = TypeVar("Item")
Result = TypeVar("Result")
Executor = Literal["local", "ray"]

_stop: Any = None
# What a process works with: sent once, not with every item.
_work: Callable[[Any], Any] | None = None


def map_processes(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    jobs: int,
    executor: Executor = "local",
    lost: Callable[[Item], Result] | None = None,
) -> Iterator[tuple[int, Result]]:
    """`work` on every item; position and result as they are done.

    A process that ends unexpectedly (killed for its memory, crashed) takes with it what the others were at. With
    `lost`, each of these items is then tried in a process of its own, and the rest goes on as before.

    Args:
        work: can be sent to another process; where it takes long, it should look at `stopped` now and then.
        items: each sent to one process.
        jobs: processes, at least 1; with 1 all is done in this one. With `ray`, items at work at a time.
        executor: `local`: processes of this machine; `ray`: see `ray_processes`.
        lost: the result of an item whose own process ended unexpectedly too; for work that may be done twice.

    Raises:
        InputError: `ray`, and Ray is not installed, or cannot be reached.
        WesepError: a process of this machine ended unexpectedly, and there is no `lost`.
    """
    check_executor(executor)
    if executor == "ray":
        from wesep_py.corpus.ray_processes import map_ray

        yield from map_ray(work, items, jobs)
        return
    jobs = min(jobs, most_workers())
    if jobs == 1 or len(items) < 2:
        for position, item in enumerate(items):
            yield position, work(item)
        return
    stop = worker_context().Event()
    waiting = deque(range(len(items)))
    try:
        while waiting:
            unfinished: list[int] = []
            yield from _in_pool(work, items, waiting, min(jobs, len(waiting)), stop, unfinished)
            if unfinished and lost is None:
                raise WesepError(
                    "a process ended unexpectedly, perhaps because memory ran out; give fewer jobs, and start again"
                )
            for position in unfinished:
                yield position, _alone(work, items[position], stop, lost)
    except BaseException:
        stop.set()
        raise


def check_executor(executor: str) -> None:
    """Refuse an executor that there is not, before anything is begun.

    Raises:
        InputError: an unknown name, or `ray` where Ray is not installed.
    """
    if executor not in get_args(Executor):
        raise InputError(f"executor: is {executor!r}; {nearest(executor, get_args(Executor))}")
    if executor == "ray":
        from wesep_py.corpus.ray_processes import import_ray

        import_ray()


def stopped() -> bool:
    """Whether the process that wants the results no longer does."""
    return _stop is not None and _stop.is_set()


def _in_pool(
    work: Callable[[Any], Any], items: Sequence[Any], waiting: deque[int], jobs: int, stop: Any, unfinished: list[int]
) -> Iterator[tuple[int, Any]]:
    """Results of what is `waiting`, until nothing is, or a process dies; what was begun then is in `unfinished`."""
    pending: dict[Future[Any], int] = {}
    with _pool(jobs, work, stop) as pool:
        try:
            while pending or (waiting and not unfinished):
                try:
                    while waiting and not unfinished and len(pending) < jobs:
                        future = pool.submit(_do, items[waiting[0]])
                        pending[future] = waiting.popleft()
                except BrokenProcessPool:  # what is pending says so too
                    if not pending:
                        return
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    position = pending.pop(future)
                    try:
                        result = future.result()
                    except BrokenProcessPool:
                        unfinished.append(position)
                    else:
                        yield position, result
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _alone(work: Callable[[Any], Any], item: Any, stop: Any, lost: Callable[[Any], Any]) -> Any:
    with _pool(1, work, stop) as pool:
        try:
            return pool.submit(_do, item).result()
        except BrokenProcessPool:
            return lost(item)
        except BaseException:
            stop.set()
            raise


def _pool(count: int, work: Callable[[Any], Any], stop: Any) -> ProcessPoolExecutor:
    return WorkerPool(count, worker_context(), _start, (work, stop))


def _start(work: Callable[[Any], Any], stop: Any) -> None:
    global _stop, _work
    _stop, _work = stop, work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then sets `stop`
    end_on_sigterm()
    end_with_parent()


def _do(item: Any) -> Any:
    assert _work is not None
    with at_work():
        return _work(item)
