"""From a position in the run to a batch: the dataset, the sampler and the loader.

Position n of a run with `epoch_size` E is sample n % E of epoch n // E. Batch k of rank r among W holds the positions
(k W + r) B … (k W + r + 1) B - 1, so what is learned from, and in which order, depends on neither the number of workers
nor on how the same global batch is spread over ranks; and a run resumes at its position.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from wesep_py.errors import WesepError
from wesep_py.simulation import Recipe, Simulator
from wesep_py.training.task import Collate, Item, Items
from wesep_py.worker_processes import worker_context

WORKER_GRACE_S = 10
FAILURE, FLAW = "failure", "flaw"
"""Keys of what a worker says instead of an item, or of one: why there is none; what is wrong with it."""


class SimulatedMixtures(Dataset[list[Item]]):
    """What is learned from the mixtures of a simulator: `dataset[epoch, index]` is a list of items.

    Args:
        simulator: gives the mixtures.
        speaker_labels: a whole number for each speaker_id.
        items: makes the items of a mixture; see `Task.items`.
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
            return [{FAILURE: f"mixture {key[1]} of epoch {key[0]}: {error}"}]
        if flaw := flaw_of(key, items, sample.recipe):
            items[0][FLAW] = flaw
        return items

    def collated(self, collate: Collate) -> Callable[[Sequence[list[Item]]], dict[str, Any]]:
        """What the loader makes of the items of several mixtures, given the task's `collate`."""
        return collate

    def finish(self, batch: dict[str, Any], collate: Collate) -> dict[str, torch.Tensor]:
        """From what the loader gives to the batch that is learned from, on the device."""
        return batch


class PositionSampler(Sampler[list[tuple[int, int]]]):
    """The batches of one rank, from a position on: lists of (epoch, index).

    Args:
        start: position (mixtures of the whole run, over all ranks) at which to begin.
        num_batches: batches to give.
        batch_size: mixtures in a batch of one rank.
        epoch_size: mixtures in an epoch.
        rank, world_size: which of how many.

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


class Collating:
    """A task's `collate`, with what is to be said about the mixtures of the batch under `FAILURE` and `FLAW`."""

    def __init__(self, collate: Collate) -> None:
        self._collate = collate

    def __call__(self, mixtures: Sequence[list[Item]]) -> dict[str, Any]:
        said = {
            kind: [item.pop(kind) for items in mixtures for item in items if kind in item] for kind in (FAILURE, FLAW)
        }
        if said[FAILURE]:
            return {FAILURE: said[FAILURE]}
        batch: dict[str, Any] = self._collate(mixtures)
        return {**batch, FLAW: said[FLAW]} if said[FLAW] else batch


def make_loader(
    dataset: SimulatedMixtures,
    sampler: PositionSampler,
    collate: Collate,
    workers: int,
    prefetch: int,
    pin_memory: bool = False,
) -> DataLoader[dict[str, torch.Tensor]]:
    """The loader of a rank; what goes wrong in a mixture is in its batch (`batches.Batches`).

    Workers use one CPU thread each and leave signals to the main process.

    Ctrl-C, and a scheduler that ends a job, signal every process of a run; a worker that died of it would take the run
    down before its state is saved. Workers end when the main process closes the loader, or is gone.
    """
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        multiprocessing_context=_context() if workers else None,
        collate_fn=Collating(collate),
        pin_memory=pin_memory,
        prefetch_factor=prefetch if workers else None,
        worker_init_fn=_start_worker,
    )


def _context() -> Any:
    """How workers are started: forked, where Python does so here, else as all others (`worker_context`)."""
    return None if multiprocessing.get_context().get_start_method() == "fork" else worker_context()


def _start_worker(worker: int) -> None:
    # A signal to the whole group is for the main process, which saves its state and then ends its workers. One that
    # is told to end and is still there after a while ends by itself: whoever waits for it would wait for ever.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda signum, frame: signal.alarm(WORKER_GRACE_S))
    torch.set_num_threads(1)


def stack_padded(arrays: Sequence[np.ndarray | torch.Tensor]) -> torch.Tensor:
    """`[batch, longest]`, float32, zeros past each end; where the arrays are, if they are tensors."""
    # Allocated by torch, which aligns to 64 bytes. NumPy aligns to 16, and MKL's sums depend on the alignment in their
    # last bit: the same batch would not always give the same gradient.
    device = arrays[0].device if isinstance(arrays[0], torch.Tensor) else None
    stacked = torch.zeros(len(arrays), max(len(array) for array in arrays), device=device)
    for row, array in zip(stacked, arrays, strict=True):
        row[: len(array)] = torch.as_tensor(array)
    return stacked


def flaw_of(key: tuple[int, int], items: Sequence[Item], recipe: Recipe) -> str:
    """What is not finite in the items of a mixture, and what that is made of; empty where all is well."""
    unfit = _not_finite(items)
    return f"mixture {key[1]} of epoch {key[0]} has {unfit} not finite; {_made_of(recipe)}" if unfit else ""


def _not_finite(items: Sequence[Item]) -> str:
    """The names of the arrays that are not finite throughout, as a text; empty where all are."""
    names = {name for item in items for name, value in item.items() if not _is_finite(value)}
    return " and ".join(sorted(names))


def _is_finite(value: Any) -> bool:
    is_floating = isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating)
    return not is_floating or bool(np.isfinite(value).all())


def _made_of(recipe: Recipe) -> str:
    """The recordings of a mixture."""
    stretches = [stretch for source in recipe.sources for stretch in (source.excerpt, *source.enrollments)]
    paths = dict.fromkeys(str(stretch.utterance.path) for stretch in stretches)
    return f"it is made of {', '.join(paths)}"
