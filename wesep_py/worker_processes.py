"""Processes that work for this one, and end with it, however it ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from types import FrameType


def worker_processes(count: int) -> ProcessPoolExecutor:
    """So many processes, each on one thread, deaf to Ctrl-C, which is for the parent, and ending when that ends."""
    # Spawned, not forked: a fork of a process that runs torch's threads can hang.
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _prepare_worker)


def _prepare_worker() -> None:
    """Leave Ctrl-C to the parent, and the cores to the other workers; end when the parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


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


def end_with_parent() -> None:
    """A parent that is killed cannot tell its workers; without this they would wait for jobs for ever."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
