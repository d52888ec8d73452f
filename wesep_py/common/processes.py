"""A function on many items in several processes, of this machine or of a Ray cluster; they end soon after Ctrl-C."""

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

# ----------------------------------------
# Processes that work for this one, end with it, however it ends, and import nothing from the current folder.
#
# Python puts the current folder first on the path of the processes that it starts (`python -c`), so that a file
# `socket.py` beside somebody's recordings would run. Here they get the path of this process, without the current folder.

_launching = threading.RLock()


def worker_processes(count: int) -> ProcessPoolExecutor:
    """So many processes, each on one thread, deaf to Ctrl-C, which is for the parent, and ending when that ends."""
    return WorkerPool(count, worker_context(), _prepare_worker)


class WorkerPool(ProcessPoolExecutor):
    """A pool that ends when one of its processes has died, on Python 3.10 too.

    There the thread that hands out work waits for ever to write to a process that is gone, since this process keeps the
    other end of the pipe open (https://github.com/python/cpython/issues/94777; mended in 3.11.5 and 3.12).
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
    """How worker processes are started: afresh, and without the current folder on their path.

    Spawned, not forked: a fork of a process that runs torch's threads can hang.
    """
    if os.name == "posix":
        with _without_current_folder():
            resource_tracker.ensure_running()  # a process of its own, which locks and queues start
    return _Context()


def python_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this package as a program, without the current folder on its path."""
    run = f"import runpy; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return [sys.executable, "-c", _set_path() + run, *arguments]


def _set_path() -> str:
    # Before anything is imported; sys is part of the interpreter.
    return f"import sys; sys.path[:] = {safe_path()!a}; "


class _Process(SpawnProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        with _without_current_folder():
            return SpawnProcess._Popen(process_obj)  # type: ignore[attr-defined]


class _Context(SpawnContext):
    Process = _Process  # type: ignore[assignment]


@contextmanager
def _without_current_folder() -> Iterator[None]:
    """Within it, processes that multiprocessing starts never have the current folder on their path.

    Their program is `python -c "from multiprocessing…"`, which would look for that module in the current folder first;
    `-P` is for Python 3.11 and later, and `-I` would ignore the user's environment. So the program begins with what
    `-P` does, and the path that this process hands over is `safe_path`.
    """
    start, describe = util.spawnv_passfds, spawn.get_preparation_data

    def start_safely(path: Any, arguments: Any, descriptors: Any) -> Any:
        arguments = list(arguments)
        if "-c" in arguments:
            place = arguments.index("-c") + 1
            arguments[place] = _set_path() + arguments[place]
        return start(path, arguments, descriptors)

    def describe_safely(name: str) -> dict[str, Any]:
        return {**describe(name), "sys_path": safe_path()}

    with _launching:
        try:
            util.spawnv_passfds, spawn.get_preparation_data = start_safely, describe_safely
            yield
        finally:
            util.spawnv_passfds, spawn.get_preparation_data = start, describe


def _prepare_worker() -> None:
    """Leave Ctrl-C to the parent, and the cores to the other workers; end when the parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


def end_with_parent() -> None:
    """A parent that is killed cannot tell its workers; without this they would wait for jobs for ever."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def most_workers() -> int:
    """So many threads or processes are started at most: more only slow a machine down, until it can start no more."""
    return max(64, 16 * (os.cpu_count() or 1))


class _Ended(BaseException):
    """SIGTERM reached a worker while it was at work."""


_at_work = False


def end_on_sigterm() -> None:
    """In a worker: let SIGTERM end it, without a word, after what it is at has removed its temporary files."""
    signal.signal(signal.SIGTERM, _end)


@contextmanager
def at_work() -> Iterator[None]:
    """Around what a worker does: SIGTERM unwinds the block, and then ends the process."""
    global _at_work
    _at_work = True
    try:
        yield
    except _Ended:
        os._exit(128 + signal.SIGTERM)
    finally:
        _at_work = False


def _end(signum: int, frame: FrameType | None) -> None:
    if _at_work:
        raise _Ended
    os._exit(128 + signum)


# ----------------------------------------
# `processes.map_processes` through Ray: on the cluster that `RAY_ADDRESS` names, else in processes that Ray starts.
#
# Every machine of a cluster has to see the recordings and the output folder under the same paths, and have the package
# installed. Results are the same as without Ray.
#
# Ray puts the current folder on the path of its processes, which nothing here can prevent: other than the processes of
# `--executor local`, they import what lies in it. So start them in a folder that holds your own files only.

Item = TypeVar("Item")
Result = TypeVar("Result")


def import_ray() -> Any:
    """The module `ray`.

    Raises:
        InputError: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError(
            f"--executor ray: Ray is not installed ({error}); pip install 'wesep-py[ray]', or use --executor local"
        ) from error
    return ray


def map_ray(work: Callable[[Item], Result], items: Sequence[Item], jobs: int) -> Iterator[tuple[int, Result]]:
    """`work` on every item; position and result as they are done.

    Args:
        work: is sent to the cluster once.
        items: each is one task, of one core.
        jobs: tasks that are waited for at a time; without a cluster, processes too.

    Raises:
        InputError: Ray is not installed, or the cluster cannot be reached.
    """
    ray = import_ray()
    is_ours = not ray.is_initialized()
    if is_ours:
        _begin(ray, jobs)
    try:
        yield from _map(ray, work, items, jobs)
    finally:
        if is_ours:
            ray.shutdown()


def _begin(ray: Any, jobs: int) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = os.environ.get("RAY_ADDRESS")
    try:
        if address:
            ray.init(**quiet)
        else:
            ray.init(num_cpus=jobs, include_dashboard=False, **quiet)
    except Exception as error:  # the errors of a cluster that cannot be reached have no class in common
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        where = f"RAY_ADDRESS={address}" if address else "this machine"
        raise InputError(f"--executor ray: Ray cannot be started on {where} ({reason})") from error


def _map(ray: Any, work: Callable[[Item], Result], items: Sequence[Item], jobs: int) -> Iterator[tuple[int, Result]]:
    task = ray.remote(num_cpus=1)(_do_in_ray)
    sent = ray.put(work)
    waiting = iter(enumerate(items))
    running: dict[Any, int] = {}
    try:
        while True:
            while len(running) < jobs and (more := next(waiting, None)) is not None:
                running[task.remote(sent, more[1])] = more[0]
            if not running:
                return
            (done,), _ = ray.wait(list(running), num_returns=1)
            yield running.pop(done), _result(ray, done)
    finally:
        for reference in running:
            ray.cancel(reference)


def _do_in_ray(work: Callable[[Any], Any], item: Any) -> Any:
    return work(item)


def _result(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None  # as it was raised, without the lines that Ray adds


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
        pass

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
        pass

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
