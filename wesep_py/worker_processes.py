"""Processes that work for this one, end with it, however it ends, and import nothing from the current folder.

Python puts the current folder first on the path of the processes that it starts (`python -c`), so that a file
`socket.py` beside somebody's recordings would run. Here they get the path of this process, without the current folder.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import resource_tracker, spawn, util
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.queues import Queue
from types import FrameType
from typing import Any

from wesep_py.search_path import safe_path

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
