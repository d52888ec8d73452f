"""The stream of batches of a run: it names what is wrong with one, and outlives a data worker that dies."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch

from wesep_py.errors import InputError, WesepError
from wesep_py.training.data import FAILURE, FLAW

MAX_RESTARTS = 3
_TORCH_HANDLER = "torch.utils.data._utils.signal_handling"
"""The module of torch's handler of SIGCHLD."""
_DIED = "DataLoader worker (pid"
"""How torch's error begins when a worker process has ended; those of code in a worker begin otherwise."""


class Batches:
    """The batches of a loader; when a worker process dies, of a new loader that goes on with the batch that is missing.

    Args:
        open_from: gives the iterator of a loader that begins so many batches after the first.
        say: is told a line for people.
        finish: makes of what the loader gives what is learned from; `None`: it is that already.
        restarts: so many are made at most.
    """

    def __init__(
        self,
        open_from: Callable[[int], Iterator[dict[str, Any]]],
        say: Callable[[str], None],
        finish: Callable[[dict[str, Any]], dict[str, torch.Tensor]] | None = None,
        restarts: int = MAX_RESTARTS,
    ) -> None:
        self._open_from = open_from
        self._say = say
        self._finish = finish
        self._restarts = restarts
        self._given = 0
        self._batches: Iterator[dict[str, Any]] | None = None

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> dict[str, torch.Tensor]:
        """The next batch.

        Raises:
            InputError: a mixture of it cannot be made; the message says which, and why.
            WesepError: workers die again and again.
        """
        batch = self._read()
        if FAILURE in batch:
            raise InputError(batch[FAILURE][0])
        for flaw in batch.pop(FLAW, []):
            self._say(flaw)
        self._given += 1
        return batch if self._finish is None else self._finish(batch)

    def _read(self) -> dict[str, Any]:
        while True:
            try:
                with _children_may_die():
                    if self._batches is None:
                        self._batches = self._open_from(self._given)
                    return next(self._batches)
            except (RuntimeError, OSError, EOFError) as error:
                if not _is_death(error):
                    raise
                self._batches = None
                self._restarts -= 1
                reason = " ".join(str(error).split()) or type(error).__name__
                if self._restarts < 0:
                    raise WesepError(
                        f"data workers die again and again ({reason}); if memory runs out, lower data.workers or "
                        "data.prefetch"
                    ) from error
                self._say(f"a data worker died, its work is done again by a new one ({reason})")


def _is_death(error: BaseException) -> bool:
    """Whether an error is that of a worker's death: torch's word for it, or a connection to it that is cut."""
    if str(error).startswith("Caught "):  # how torch hands on an error of code in a worker
        return False
    is_gone = isinstance(error, FileNotFoundError) and error.filename is None  # the socket, which has no name here
    return str(error).startswith(_DIED) or is_gone or isinstance(error, (ConnectionError, EOFError))


@contextmanager
def _children_may_die() -> Iterator[None]:
    """Remove torch's handler of SIGCHLD when the block ends, whether a loader sets it here or did so earlier.

    That handler raises wherever the main thread happens to be, and a step that it ended half-way could not be repeated.
    The loader finds dead workers by itself when it waits for them.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    # A loader outside of this class sets the handler for good: it may stand here already.
    restored = signal.SIG_DFL if before is None or getattr(before, "__module__", None) == _TORCH_HANDLER else before
    try:
        yield
    finally:
        while signal.getsignal(signal.SIGCHLD) is not restored:
            # A worker may die in the very moment in which the handler is removed: the loader reports it later.
            with suppress(RuntimeError):
                signal.signal(signal.SIGCHLD, restored)


def describe_batch(batch: Mapping[str, torch.Tensor], sample_rate: int) -> str:
    """How large a batch is, in words.

    >>> describe_batch({"mixture": torch.zeros(4, 48000)}, 16000)
    'a batch of 4 items of 3 s'
    """
    items, samples = batch["mixture"].shape[0], batch["mixture"].shape[-1]
    return f"a batch of {items} items of {samples / sample_rate:.3g} s"
