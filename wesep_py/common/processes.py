"""Run a function on many items in several processes, of this machine or of a Ray cluster.

| to … | use |
| --- | --- |
| run a function on each item of a list | `map_processes` |
| keep a pool of workers | `worker_pool` |
| start processes in another way (data loaders) | `worker_context` |
| run a module of this package as a program | `python_command` |

The pools are those of `concurrent.futures`. What this module adds to them, and what its tests prove:

- workers end with their parent, however it ends, and soon after Ctrl-C;
- they never import from the current folder, where anybody's files may lie (`search_path`);
- an item whose process crashes does not lose the results of the others;
- a pool whose worker dies raises an error on Python 3.10 too, instead of waiting forever;
- the same call runs on a Ray cluster.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker, spawn, util
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.queues import Queue
from types import FrameType
from typing import Any, Literal, TypeVar, get_args

from wesep_py.common.errors import InputError, WesepError, nearest
from wesep_py.common.search_path import safe_path

Item = TypeVar("Item")
Result = TypeVar("Result")
Executor = Literal["local", "ray"]

# Starting processes.


def worker_pool(count: int) -> ProcessPoolExecutor:
    """Return a pool of processes with one thread each, which ignore Ctrl-C and end when this process ends."""
    return WorkerPool(count, worker_context(), _prepare_worker)


class WorkerPool(ProcessPoolExecutor):
    """Process pool that ends when one of its processes has died, on Python 3.10 too.

    In Python before 3.11.5, the thread that hands out work waits forever to write to a dead process, because this
    process keeps the other end of the pipe open (https://github.com/python/cpython/issues/94777).
    """

    def _start_executor_manager_thread(self) -> None:
        is_new = self._executor_manager_thread is None
        super()._start_executor_manager_thread()  # type: ignore[misc]
        if not is_new or hasattr(Queue, "_terminate_broken"):
            return
        manager: Any = self._executor_manager_thread
        terminate = manager.terminate_broken

        def terminate_broken(cause: Any) -> None:
            manager.call_queue._reader.close()
            terminate(cause)

        manager.terminate_broken = terminate_broken


def worker_context() -> SpawnContext:
    """Return the multiprocessing context of all workers: spawned, and without the current folder on their path.

    They are not forked, because the fork of a process that runs torch's threads can hang.
    """
    if os.name == "posix":
        with _without_current_folder():
            resource_tracker.ensure_running()  # the helper process that locks and queues would start later
    return _Context()


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this package as a program, without the current folder on its path."""
    run = f"import runpy; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return [sys.executable, "-c", _set_path() + run, *arguments]


def max_workers() -> int:
    """Return the allowed number of threads or processes: more only slow a machine down, until it can start no more."""
    return max(64, 16 * (os.cpu_count() or 1))


def _set_path() -> str:
    """Return the beginning of a program that sets the path before anything is imported (`sys` is built in)."""
    return f"import sys; sys.path[:] = {safe_path()!a}; "


class _Process(SpawnProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        with _without_current_folder():
            return SpawnProcess._Popen(process_obj)  # type: ignore[attr-defined]


class _Context(SpawnContext):
    Process = _Process  # type: ignore[assignment]


_launching = threading.RLock()


@contextmanager
def _without_current_folder() -> Iterator[None]:
    """Keep the current folder off the path of the processes that multiprocessing starts inside the block.

    Their program is `python -c "from multiprocessing…"`, for which Python puts the current folder first on the path.
    The option `-P` exists only since Python 3.11, and `-I` would ignore the user's environment. So the program is made
    to begin with `_set_path`, and the path that this process hands over to it is `safe_path`.
    """
    start, describe = util.spawnv_passfds, spawn.get_preparation_data

    def start_safely(path: Any, arguments: Any, descriptors: Any) -> Any:
        arguments = list(arguments)
        if "-c" in arguments:
            position = arguments.index("-c") + 1
            arguments[position] = _set_path() + arguments[position]
        return start(path, arguments, descriptors)

    def describe_safely(name: str) -> dict[str, Any]:
        return {**describe(name), "sys_path": safe_path()}

    with _launching:
        try:
            util.spawnv_passfds, spawn.get_preparation_data = start_safely, describe_safely
            yield
        finally:
            util.spawnv_passfds, spawn.get_preparation_data = start, describe


# Inside a worker.


def _prepare_worker() -> None:
    """Set up a worker of `worker_pool`: leave Ctrl-C to the parent and the other cores to the other workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


def _end_with_parent() -> None:
    """End this process as soon as its parent has ended; a killed parent cannot tell its workers to stop."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class _TerminatedError(BaseException):
    """SIGTERM arrived while a worker computed an item."""


# State of a worker of `map_processes`: the function, which is sent once and not with every item; the event that tells
# it to stop; and whether it is computing an item.
_work: Callable[[Any], Any] | None = None
_stop: Any = None
_is_computing = False


def _start_worker(work: Callable[[Any], Any], stop: Any) -> None:
    """Set up a worker of `map_processes`."""
    global _stop, _work
    _stop, _work = stop, work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then sets `stop`
    signal.signal(signal.SIGTERM, _on_sigterm)
    _end_with_parent()


def _compute(item: Any) -> Any:
    """Apply the worker's function to an item; SIGTERM unwinds it, so that it removes its temporary files."""
    global _is_computing
    assert _work is not None
    _is_computing = True
    try:
        return _work(item)
    except _TerminatedError:
        os._exit(128 + signal.SIGTERM)
    finally:
        _is_computing = False


def _on_sigterm(signum: int, frame: FrameType | None) -> None:
    if _is_computing:
        raise _TerminatedError
    os._exit(128 + signum)


def stopped() -> bool:
    """True in a worker whose results are no longer needed; long work should ask now and then, and return early."""
    return _stop is not None and _stop.is_set()


# Many items.


def map_processes(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    jobs: int,
    executor: Executor = "local",
    lost: Callable[[Item], Result] | None = None,
) -> Iterator[tuple[int, Result]]:
    """Apply a function to each item in several processes, and yield position and result as they are done.

    A process that ends unexpectedly (out of memory, crashed) breaks its pool, so the items that the other processes
    were computing are lost too. With `lost`, each of these items is tried again in a process of its own, and the rest
    continues in a new pool.

    Args:
        work: function that can be pickled; if it takes long, it should check `stopped` now and then.
        items: each is sent to one process.
        jobs: number of processes, at least 1; with 1, this process does the work. With `ray`, number of concurrent
            tasks.
        executor: `local`: processes of this machine; `ray`: a Ray cluster (see `_map_ray`).
        lost: returns the result for an item whose own process ended unexpectedly too; only for work that may be done
            twice.

    Raises:
        InputError: `ray`, and Ray is not installed or cannot be reached.
        WesepError: a process of this machine ended unexpectedly, and `lost` is `None`.
    """
    check_executor(executor)
    if executor == "ray":
        yield from _map_ray(work, items, jobs)
        return
    jobs = min(jobs, max_workers())
    if jobs == 1 or len(items) < 2:
        for position, item in enumerate(items):
            yield position, work(item)
        return
    stop = worker_context().Event()
    pending = deque(range(len(items)))
    try:
        while pending:
            interrupted: list[int] = []
            yield from _map_in_pool(work, items, pending, min(jobs, len(pending)), stop, interrupted)
            if interrupted and lost is None:
                raise WesepError(
                    "a process ended unexpectedly, perhaps because memory ran out; give fewer jobs, and start again"
                )
            for position in interrupted:
                yield position, _compute_alone(work, items[position], stop, lost)
    except BaseException:
        stop.set()
        raise


def check_executor(executor: str) -> None:
    """Check that an executor is available; call it before the work.

    Raises:
        InputError: an unknown name, or `ray` where Ray is not installed.
    """
    if executor not in get_args(Executor):
        raise InputError(f"executor: is {executor!r}; {nearest(executor, get_args(Executor))}")
    if executor == "ray":
        _import_ray()


def _map_in_pool(
    work: Callable[[Any], Any], items: Sequence[Any], pending: deque[int], jobs: int, stop: Any, interrupted: list[int]
) -> Iterator[tuple[int, Any]]:
    """Yield results of the pending items until all are done or a process dies.

    Args:
        work: the function.
        items: all items.
        pending: positions of items to compute; those that are begun are removed.
        jobs: number of processes. No more items than that are submitted at a time, so few are lost with a process.
        stop: event that tells the workers to stop.
        interrupted: receives the positions of items that were begun when a process died.
    """
    running: dict[Future[Any], int] = {}
    with _pool(jobs, work, stop) as pool:
        try:
            while running or (pending and not interrupted):
                try:
                    while pending and not interrupted and len(running) < jobs:
                        future = pool.submit(_compute, items[pending[0]])
                        running[future] = pending.popleft()
                except BrokenProcessPool:  # the running futures raise it as well, and are handled below
                    if not running:
                        return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    position = running.pop(future)
                    try:
                        result = future.result()
                    except BrokenProcessPool:
                        interrupted.append(position)
                    else:
                        yield position, result
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _compute_alone(work: Callable[[Any], Any], item: Any, stop: Any, lost: Callable[[Any], Any]) -> Any:
    """Compute an item in a process of its own."""
    with _pool(1, work, stop) as pool:
        try:
            return pool.submit(_compute, item).result()
        except BrokenProcessPool:
            return lost(item)
        except BaseException:
            stop.set()
            raise


def _pool(count: int, work: Callable[[Any], Any], stop: Any) -> ProcessPoolExecutor:
    return WorkerPool(count, worker_context(), _start_worker, (work, stop))


# Ray.


def _map_ray(work: Callable[[Item], Result], items: Sequence[Item], jobs: int) -> Iterator[tuple[int, Result]]:
    """Apply a function to each item on the cluster of `RAY_ADDRESS`, or in processes that Ray starts on this machine.

    Every machine of the cluster needs this package, and the recordings and the output folder under the same paths.
    Results are the same as without Ray. Unlike local workers, Ray's processes import modules from the current folder,
    which cannot be prevented from here: start them in a folder that holds only your own files.

    Args:
        work: is sent to the cluster once.
        items: each is one task, of one core.
        jobs: number of concurrent tasks; without a cluster, number of processes too.

    Raises:
        InputError: Ray is not installed, or the cluster cannot be reached.
    """
    ray = _import_ray()
    is_started_here = not ray.is_initialized()
    if is_started_here:
        _start_ray(ray, jobs)
    try:
        yield from _map_tasks(ray, work, items, jobs)
    finally:
        if is_started_here:
            ray.shutdown()


def _import_ray() -> Any:
    """Import the module `ray`, or raise an `InputError`."""
    try:
        import ray
    except ImportError as error:
        raise InputError(
            f"--executor ray: Ray is not installed ({error}); pip install 'wesep-py[ray]', or use --executor local"
        ) from error
    return ray


def _start_ray(ray: Any, jobs: int) -> None:
    """Connect to the cluster of `RAY_ADDRESS`, or start Ray on this machine."""
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = os.environ.get("RAY_ADDRESS")
    try:
        if address:
            ray.init(**quiet)
        else:
            ray.init(num_cpus=jobs, include_dashboard=False, **quiet)
    except Exception as error:  # the errors of a cluster that cannot be reached have no common class
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        where = f"RAY_ADDRESS={address}" if address else "this machine"
        raise InputError(f"--executor ray: Ray cannot be started on {where} ({reason})") from error


def _map_tasks(
    ray: Any, work: Callable[[Item], Result], items: Sequence[Item], jobs: int
) -> Iterator[tuple[int, Result]]:
    """Yield position and result of each item; at most `jobs` tasks wait or run at a time."""
    task = ray.remote(num_cpus=1)(_apply)
    shared_work = ray.put(work)
    pending = iter(enumerate(items))
    running: dict[Any, int] = {}
    try:
        while True:
            while len(running) < jobs and (task_item := next(pending, None)) is not None:
                position, item = task_item
                running[task.remote(shared_work, item)] = position
            if not running:
                return
            (done,), _ = ray.wait(list(running), num_returns=1)
            yield running.pop(done), _result(ray, done)
    finally:
        for reference in running:
            ray.cancel(reference)


def _apply(work: Callable[[Any], Any], item: Any) -> Any:
    return work(item)


def _result(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None  # the original error, without the lines that Ray adds
