"""Ctrl-C and SIGTERM during training: the step is finished and the state saved before the process ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from wesep_py.errors import WesepError


class TrainingInterrupted(WesepError):
    """The run was asked to stop; its state is saved. Exit status 130, as for any interrupted program."""

    exit_status = 130


class StopRequest:
    """Whether a stop was asked for."""

    def __init__(self) -> None:
        self.requested = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """The signal handler: the first signal asks, a second Ctrl-C ends the process at once."""
        if self.requested and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


@contextmanager
def catch_signals() -> Iterator[StopRequest]:
    """While the block runs, SIGINT and SIGTERM only set `requested`; a thread other than the main one sees none."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
