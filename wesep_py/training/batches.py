"""Batches of a run: dataset, position sampler, data loader, and the stream of batches that survives dying workers.

Position n of a run with `epoch_size` E is sample n % E of epoch n // E. Batch k of rank r among W ranks holds the B
positions from start + (k W + r) B on:

    |start … start + B - 1|start + B … start + 2B - 1|start + 2B … start + 3B - 1| …        for W = 2
     rank 0, batch 0       rank 1, batch 0            rank 0, batch 1

So the data and their order depend neither on the number of workers nor on how a global batch is divided among ranks,
and a run resumes at its position.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from wesep_py.common.errors import InputError, WesepError
from wesep_py.common.processes import worker_context
from wesep_py.simulation import Recipe, Simulator
from wesep_py.simulation.batched_rendering import render_on_device
from wesep_py.simulation.dry_batch import DryMixture, DrySimulator, collate_dry
from wesep_py.training.task import Collate, Item, Items

FAILURE, NONFINITE = "failure", "nonfinite"
"""Keys of a worker's messages: why a mixture could not be made (instead of an item); which values are not finite."""
DRY = "dry"
"""Key of a mixture before rendering, and of a batch of such mixtures."""
ENROLLMENT_MULTIPLE = 16000
"""Enrollments of a batch are padded to a multiple of this many samples. Tensors then have few shapes, for which memory
and prepared operations are reused. With ever new shapes, freed memory falls into pieces, and CPU steps get slower."""
MAX_RESTARTS = 3
"""Maximum number of new data loaders after a worker died."""
WORKER_GRACE_S = 10
"""Time after SIGTERM in which a worker should be ended by the main process, before it ends itself."""
_SIGNAL_MODULE = "torch.utils.data._utils.signal_handling"
"""Module of torch's handler of SIGCHLD."""
_DEATH_MESSAGE = "DataLoader worker (pid"
"""Beginning of torch's error for a dead worker process; errors of code in a worker begin otherwise."""


class SimulatedMixtures(Dataset[list[Item]]):
    """Training items of the mixtures of a simulator: `dataset[epoch, index]` is a list of items.

    Args:
        simulator: makes the mixtures.
        speaker_labels: a whole number for each speaker_id.
        items: makes the items of a mixture, see `Task.items`.
    """

    def __init__(
        self,
        simulator: Simulator,
        speaker_labels: Mapping[str, int],
        items: Items,
    ) -> None:
        self.simulator = simulator
        self.speaker_labels = speaker_labels
        self.items = items

    def __getitem__(self, key: tuple[int, int]) -> list[Item]:
        try:
            sample = self.simulator.sample(*key)
            items = self.items(sample, self.speaker_labels)
        except WesepError as error:
            # Sent as an item: torch would add the worker's traceback to the message of an exception.
            return [{FAILURE: f"mixture {key[1]} of epoch {key[0]}: {error}"}]
        if message := describe_nonfinite(key, items, sample.recipe):
            items[0][NONFINITE] = message
        return items

    def loader_collate(self, collate: Collate) -> Callable[[Sequence[list[Item]]], dict[str, Any]]:
        """Return the function that makes the loader's batch of the items of several mixtures.

        Args:
            collate: of the task.
        """
        return collate

    def finish(self, batch: dict[str, Any], collate: Collate) -> dict[str, torch.Tensor]:
        """Return the training batch, on the device, from the loader's batch."""
        return batch


class DryMixtures(SimulatedMixtures):
    """Mixtures before rendering (`data.render: device`); `finish` renders a batch of them on the training device.

    Args:
        simulator: makes the mixtures.
        speaker_labels: a whole number for each speaker_id.
        items: makes the items of a mixture, see `Task.items`.
    """

    simulator: DrySimulator

    def __getitem__(self, key: tuple[int, int]) -> list[Item]:
        try:
            mixture = self.simulator.dry(*key)
        except WesepError as error:
            return [{FAILURE: f"mixture {key[1]} of epoch {key[0]}: {error}"}]
        message = describe_nonfinite(key, [mixture.waveforms()], mixture.plan)
        return [{DRY: mixture, **({NONFINITE: message} if message else {})}]

    def loader_collate(self, collate: Collate) -> Callable[[Sequence[list[Item]]], dict[str, Any]]:
        """Return a function that pads dry mixtures to tensors. The task's `collate` follows after rendering."""
        return partial(_collate_dry_items, sample_rate=self.simulator.sample_rate)

    def finish(self, batch: dict[str, Any], collate: Collate) -> dict[str, torch.Tensor]:
        """Render the batch on its device, and make the training batch of its items."""
        samples = render_on_device(batch[DRY])
        device = samples[0].mixture.device
        collated = collate([self.items(sample, self.speaker_labels) for sample in samples])
        return {name: value.to(device) for name, value in collated.items()}


def _collate_dry_items(mixtures: Sequence[list[Item]], sample_rate: int) -> dict[str, Any]:
    return {DRY: collate_dry([cast(DryMixture, items[0][DRY]) for items in mixtures], sample_rate)}


def describe_nonfinite(key: tuple[int, int], items: Sequence[Item], recipe: Recipe) -> str:
    """Return which arrays of a mixture are not finite, and its recordings; empty if all are finite.

    Args:
        key: epoch and index of the mixture.
        items: of the mixture.
        recipe: of the mixture.
    """
    names = sorted({name for item in items for name, value in item.items() if not _is_finite(value)})
    if not names:
        return ""
    segments = [segment for source in recipe.sources for segment in (source.excerpt, *source.enrollments)]
    paths = dict.fromkeys(str(segment.utterance.path) for segment in segments)
    return f"mixture {key[1]} of epoch {key[0]} has {' and '.join(names)} not finite; it is made of {', '.join(paths)}"


def _is_finite(value: Any) -> bool:
    is_floating = isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating)
    return not is_floating or bool(np.isfinite(value).all())


class PositionSampler(Sampler[list[tuple[int, int]]]):
    """The batches of one rank from a position on, as lists of (epoch, index).

    Args:
        start: position (mixtures of the whole run, over all ranks) of the first batch of rank 0.
        num_batches: number of batches.
        batch_size: number of mixtures in a batch of one rank.
        epoch_size: number of mixtures in an epoch.
        rank, world_size: of this process.

    >>> list(PositionSampler(start=0, num_batches=2, batch_size=2, epoch_size=3))
    [[(0, 0), (0, 1)], [(0, 2), (1, 0)]]
    """

    def __init__(
        self, start: int, num_batches: int, batch_size: int, epoch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.start = start
        self.num_batches = num_batches
        self.batch_size = batch_size
        self.epoch_size = epoch_size
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in range(self.num_batches):
            first = self.start + (batch * self.world_size + self.rank) * self.batch_size
            yield [divmod(position, self.epoch_size) for position in range(first, first + self.batch_size)]


class CollateWithMessages:
    """A task's `collate` that moves the workers' messages from the items to the batch."""

    def __init__(self, collate: Collate) -> None:
        self._collate = collate

    def __call__(self, mixtures: Sequence[list[Item]]) -> dict[str, Any]:
        messages = {
            kind: [item.pop(kind) for items in mixtures for item in items if kind in item]
            for kind in (FAILURE, NONFINITE)
        }
        if messages[FAILURE]:
            return {FAILURE: messages[FAILURE]}
        batch: dict[str, Any] = self._collate(mixtures)
        return {**batch, NONFINITE: messages[NONFINITE]} if messages[NONFINITE] else batch


def stack_padded(arrays: Sequence[np.ndarray | torch.Tensor], multiple: int = 1) -> torch.Tensor:
    """Stack arrays to `[batch, longest]`, float32, with zeros after the end of each.

    Tensors are stacked on their device.

    Args:
        arrays: `[samples]` each.
        multiple: the length of the stack is a multiple of this.

    >>> stack_padded([np.ones(3), np.ones(2)], multiple=4)
    tensor([[1., 1., 1., 0.],
            [1., 1., 0., 0.]])
    """
    # Allocated by torch, which aligns to 64 bytes. NumPy aligns to 16, and the last bit of MKL's sums depends on the
    # alignment: the same batch would not always give the same gradient.
    device = arrays[0].device if isinstance(arrays[0], torch.Tensor) else None
    longest = max(len(array) for array in arrays)
    stacked = torch.zeros(len(arrays), longest + -longest % multiple, device=device)
    for row, array in zip(stacked, arrays, strict=True):
        row[: len(array)] = torch.as_tensor(array)
    return stacked


def make_loader(
    dataset: SimulatedMixtures,
    sampler: PositionSampler,
    collate: Collate,
    workers: int,
    prefetch: int,
    pin_memory: bool = False,
) -> DataLoader[dict[str, torch.Tensor]]:
    """Return the data loader of a rank. Errors of a mixture are in its batch, for `Batches`.

    Workers use one CPU thread each and leave signals to the main process: Ctrl-C, and a scheduler that ends a job,
    signal every process of a run, and a worker that died of it would end the run before its state is saved. Workers end
    when the main process closes the loader, or is gone.
    """
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        multiprocessing_context=_loader_context() if workers else None,
        collate_fn=CollateWithMessages(collate),
        pin_memory=pin_memory,
        prefetch_factor=prefetch if workers else None,
        worker_init_fn=_start_worker,
    )


def _loader_context() -> Any:
    """Return how workers are started: forked if that is Python's default here, else as all other workers."""
    return None if multiprocessing.get_context().get_start_method() == "fork" else worker_context()


def _start_worker(worker: int) -> None:
    # The main process saves its state after a signal, then ends its workers. A worker that received SIGTERM and still
    # runs after WORKER_GRACE_S ends itself: the process that waits for it would otherwise wait forever.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda signum, frame: signal.alarm(WORKER_GRACE_S))
    torch.set_num_threads(1)


class Batches:
    """The batches of a loader. If a worker process dies, a new loader resumes with the missing batch.

    Args:
        open_from: returns the iterator of a loader that skips the given number of batches.
        print_line: prints a line for the user.
        finish: makes the training batch of the loader's batch; `None`: they are the same.
        restarts: maximum number of new loaders.
    """

    def __init__(
        self,
        open_from: Callable[[int], Iterator[dict[str, Any]]],
        print_line: Callable[[str], None],
        finish: Callable[[dict[str, Any]], dict[str, torch.Tensor]] | None = None,
        restarts: int = MAX_RESTARTS,
    ) -> None:
        self._open_from = open_from
        self._print_line = print_line
        self._finish = finish
        self._restarts = restarts
        self._num_returned = 0
        self._iterator: Iterator[dict[str, Any]] | None = None

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> dict[str, torch.Tensor]:
        """Return the next batch.

        Raises:
            InputError: a mixture of it cannot be made; the message says which, and why.
            WesepError: workers died more than `restarts` times.
        """
        batch = self._read()
        if FAILURE in batch:
            raise InputError(batch[FAILURE][0])
        for message in batch.pop(NONFINITE, []):
            self._print_line(message)
        self._num_returned += 1
        return batch if self._finish is None else self._finish(batch)

    def _read(self) -> dict[str, Any]:
        while True:
            try:
                with _children_may_die():
                    if self._iterator is None:
                        self._iterator = self._open_from(self._num_returned)
                    return next(self._iterator)
            except (RuntimeError, OSError, EOFError) as error:
                if not _is_worker_death(error):
                    raise
                self._iterator = None
                self._restarts -= 1
                cause = " ".join(str(error).split()) or type(error).__name__
                if self._restarts < 0:
                    raise WesepError(
                        f"data workers die again and again ({cause}); if memory runs out, lower data.workers or "
                        "data.prefetch"
                    ) from error
                self._print_line(f"a data worker died; a new one repeats its work ({cause})")


def _is_worker_death(error: BaseException) -> bool:
    """Return whether an error means that a worker died: torch's message, or a broken connection to the worker."""
    if str(error).startswith("Caught "):  # torch's prefix of errors raised by code in a worker
        return False
    is_lost_socket = isinstance(error, FileNotFoundError) and error.filename is None
    return str(error).startswith(_DEATH_MESSAGE) or is_lost_socket or isinstance(error, (ConnectionError, EOFError))


@contextmanager
def _children_may_die() -> Iterator[None]:
    """Remove torch's handler of SIGCHLD at the end of the block, whether it was set inside or before.

    That handler raises an error wherever the main thread happens to be, and a step that it interrupted could not be
    repeated. The loader finds dead workers by itself when it waits for them.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        yield
        return
    earlier = signal.getsignal(signal.SIGCHLD)
    # A loader outside of this class may have set torch's handler already, and it stays set.
    is_torchs = earlier is None or getattr(earlier, "__module__", None) == _SIGNAL_MODULE
    restored = signal.SIG_DFL if is_torchs else earlier
    try:
        yield
    finally:
        while signal.getsignal(signal.SIGCHLD) is not restored:
            # A worker may die at the very moment the handler is removed; the loader reports it later.
            with suppress(RuntimeError):
                signal.signal(signal.SIGCHLD, restored)


def describe_batch(batch: Mapping[str, torch.Tensor], sample_rate: int) -> str:
    """Return the size of a batch in words.

    >>> describe_batch({"mixture": torch.zeros(4, 48000)}, 16000)
    'a batch of 4 items of 3 s'
    """
    items, samples = batch["mixture"].shape[0], batch["mixture"].shape[-1]
    return f"a batch of {items} items of {samples / sample_rate:.3g} s"
