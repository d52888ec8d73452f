"""What the machine does to a run, in words that say what to do: memory that runs out, a disk that is full."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from wesep_py.errors import WesepError


@dataclass(frozen=True)
class Where:
    """Where a run stands when something happens to it.

    Attributes:
        step: optimiser steps done.
        saved_step: of the last saved state.
        device: on which it computes.
        batch: what it computes with, in words.
        saves_memory: whether `train.gradient_checkpointing` is on.
    """

    step: int
    saved_step: int
    device: str
    batch: str
    saves_memory: bool


@contextmanager
def explain_faults(where: Callable[[], Where]) -> Iterator[None]:
    """Turn what the machine does to the block into one line.

    Args:
        where: asked when something has happened.

    Raises:
        WesepError: memory ran out, or the disk is full.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise WesepError(_memory_hint(where())) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        at = where()
        raise WesepError(
            f"step {at.step}: the disk is full ({error.strerror}); make room and run the same command again: it goes "
            f"on from step {at.saved_step}"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: of a device, for which torch has an error; of the CPU, where it has only a text."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error)


def _memory_hint(at: Where) -> str:
    again = (
        ", or set train.gradient_checkpointing=true and run the same command again: it goes on from step "
        f"{at.saved_step}"
    )
    return (
        f"step {at.step}: out of memory on {at.device} with {at.batch}; in a new experiment, lower train.batch_size "
        f"(and raise train.accumulate) or simulation.duration_s{'' if at.saves_memory else again}"
    )
