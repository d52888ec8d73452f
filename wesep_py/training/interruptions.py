"""Interruptions of a run: Ctrl-C and SIGTERM save the state first; full memory or disk ends with a one-line error."""

from __future__ import annotations

import errno
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import torch

from wesep_py.common.errors import WesepError


class TrainingInterrupted(WesepError):
    """The run was interrupted by a signal; its state is saved. Exit status 130, as for any interrupted program."""

    exit_status = 130


class StopRequest:
    """Signal handler that records whether a stop was requested.

    The first signal sets `requested`, and the loop stops after the current step. A second Ctrl-C ends the process at
    once.
    """

    def __init__(self) -> None:
        self.requested = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if self.requested and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


@contextmanager
def catch_signals() -> Iterator[StopRequest]:
    """Let SIGINT and SIGTERM only set `requested` while the block runs.

    Signals can only be caught in the main thread; in another thread nothing changes.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    earlier = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class RunPosition:
    """Position of a run at the time of an error, for its message.

    Attributes:
        step: number of optimiser steps done.
        saved_step: step of the last saved state.
        device: on which the run computes.
        batch: description of the current batch (`describe_batch`).
        saves_memory: whether `train.gradient_checkpointing` is on.
    """

    step: int
    saved_step: int
    device: str
    batch: str
    saves_memory: bool


@contextmanager
def explain_faults(position: Callable[[], RunPosition]) -> Iterator[None]:
    """Turn out-of-memory and disk-full errors of the block into one line that says what to do.

    Args:
        position: returns the position of the run; called when an error occurs.

    Raises:
        WesepError: memory ran out, or the disk is full.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise WesepError(_memory_hint(position())) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        at = position()
        raise WesepError(
            f"step {at.step}: the disk is full ({error.strerror}); free some space and run the same command again: it "
            f"resumes from step {at.saved_step}"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out. Torch has an error class for GPUs, but only a message for the CPU."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error)


def _memory_hint(at: RunPosition) -> str:
    checkpointing = (
        ", or set train.gradient_checkpointing=true and run the same command again: it resumes from step "
        f"{at.saved_step}"
    )
    return (
        f"step {at.step}: out of memory on {at.device} with {at.batch}; in a new experiment, lower train.batch_size "
        f"(and raise train.accumulate) or simulation.duration_s{'' if at.saves_memory else checkpointing}"
    )
