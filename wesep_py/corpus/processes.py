"""A function on many items in several processes, of this machine or of a Ray cluster; they end soon after Ctrl-C."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, Literal, TypeVar, get_args

from wesep_py.errors import InputError, nearest

Item = TypeVar("Item")
Result = TypeVar("Result")
Executor = Literal["local", "ray"]

_stop: Any = None
# What a process works with: sent once, not with every item.
_work: Callable[[Any], Any] | None = None


def map_processes(
    work: Callable[[Item], Result], items: Sequence[Item], jobs: int, executor: Executor = "local"
) -> Iterator[tuple[int, Result]]:
    """`work` on every item; position and result as they are done.

    Args:
        work: can be sent to another process; where it takes long, it should look at `stopped` now and then.
        items: each sent to one process.
        jobs: processes, at least 1; with 1 all is done in this one. With `ray`, items at work at a time.
        executor: `local`: processes of this machine; `ray`: see `ray_processes`.

    Raises:
        InputError: `ray`, and Ray is not installed, or cannot be reached.
    """
    check_executor(executor)
    if executor == "ray":
        from wesep_py.corpus.ray_processes import map_ray

        yield from map_ray(work, items, jobs)
        return
    if jobs == 1 or len(items) < 2:
        for position, item in enumerate(items):
            yield position, work(item)
        return
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with ProcessPoolExecutor(min(jobs, len(items)), context, _start, (work, stop)) as pool:
        futures = {pool.submit(_do, item): position for position, item in enumerate(items)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
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


def _start(work: Callable[[Any], Any], stop: Any) -> None:
    global _stop, _work
    _stop, _work = stop, work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then sets `stop`


def _do(item: Any) -> Any:
    assert _work is not None
    return _work(item)
