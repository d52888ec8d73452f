"""From a configuration whose `data.train` names tar files to mixtures that are drawn as these are read."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from wesep_py.common.errors import ConfigError, InputError, WesepError
from wesep_py.common.processes import worker_context
from wesep_py.data import PackedReader, Reader, Utterance, pack, read_speech
from wesep_py.data.mixture_corpus import MixtureCorpus, read_mixture_corpus
from wesep_py.data.recordings import resolve_location, open_reader
from wesep_py.data.remote import is_url
from wesep_py.data.shard_stream import is_stream, stream_shards
from wesep_py.simulation import Recipe, Simulator
from wesep_py.simulation.batched_rendering import render_on_device
from wesep_py.simulation.dry_batch import DryMixture, DrySimulator, collate_dry
from wesep_py.simulation.mixture_stream import StreamSimulator, WindowSimulator
from wesep_py.training.task import Collate, Item, Items
from wesep_py.training.training_config import DataConfig, RunConfig

# ----------------------------------------
# From a position in the run to a batch: the dataset, the sampler and the loader.
#
# Position n of a run with `epoch_size` E is sample n % E of epoch n // E. Batch k of rank r among W holds the positions
# (k W + r) B … (k W + r + 1) B - 1, so what is learned from, and in which order, depends on neither the number of workers
# nor on how the same global batch is spread over ranks; and a run resumes at its position.

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


# ----------------------------------------
# The stream of batches of a run: it names what is wrong with one, and outlives a data worker that dies.

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


# ----------------------------------------
# From the configuration's `data` to a reader of its recordings.


def make_reader(
    config: DataConfig,
    recordings: list[Utterance],
    sample_rate: int,
    may_pack: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> Reader:
    """A reader of the recordings: of the memory map `data.packed`, made if it is not there, or of the files.

    Args:
        config: the `data` of the configuration.
        recordings: all that will be read.
        sample_rate: of the model, in Hz.
        may_pack: whether this process makes the memory map (one process of a run does, the others wait).
        on_progress: called with the number of recordings packed, and of all.
    """
    if config.packed is None:
        return open_reader([resolve_location(name, config.root) for name in (*config.train, *config.noise)], sample_rate)
    if may_pack:
        Path(config.packed).parent.mkdir(parents=True, exist_ok=True)
        pack(recordings, config.packed, sample_rate, os.cpu_count() or 1, on_progress)
    return PackedReader(config.packed)


# ----------------------------------------
# From the configuration's `data.mixtures` to the mixtures that are learned from.


def read_mixtures_of(data: DataConfig) -> MixtureCorpus | None:
    """The mixtures that a configuration names; none where it has them drawn.

    Raises:
        ConfigError: speeds besides: a mixture has the speeds it has.
        InputError, AudioError: as `read_mixture_corpus`.
    """
    if data.mixtures is None:
        return None
    if data.speeds != [1.0]:
        raise ConfigError("data.speeds: is for mixtures that are drawn, and data.mixtures gives them as they are")
    root, chosen = Path(data.root), data.mixtures
    return read_mixture_corpus(
        [root / name for name in chosen.lists],
        chosen.condition,
        None if chosen.root is None else root / chosen.root,
        None if chosen.noise_root is None else root / chosen.noise_root,
        read_speech(data.train, root),
    )


# ----------------------------------------
# Mixtures that workers draw and read, and the device that trains renders: `data.render: device`.

DRY = "dry"
"""The key of a mixture before rendering, and of a batch of them."""


class DryMixtures(SimulatedMixtures):
    """The mixtures of a `DrySimulator`, before rendering; `finish` renders a batch of them and makes its items.

    Args:
        simulator: gives the mixtures.
        speaker_labels: a whole number for each speaker_id.
        items: makes the items of a mixture; see `Task.items`.
    """

    simulator: DrySimulator

    def __getitem__(self, key: tuple[int, int]) -> list[Item]:
        try:
            mixture = self.simulator.dry(*key)
        except WesepError as error:
            return [{FAILURE: f"mixture {key[1]} of epoch {key[0]}: {error}"}]
        flaw = flaw_of(key, [mixture.waveforms()], mixture.plan)
        return [{DRY: mixture, **({FLAW: flaw} if flaw else {})}]

    def collated(self, collate: Collate) -> Callable[[Sequence[list[Item]]], dict[str, Any]]:
        """Padded tensors of all dry mixtures; the task's `collate` comes after rendering."""
        return partial(_collate, sample_rate=self.simulator.sample_rate)

    def finish(self, batch: dict[str, Any], collate: Collate) -> dict[str, torch.Tensor]:
        """The batch, rendered where it is."""
        samples = render_on_device(batch[DRY])
        device = samples[0].mixture.device
        made = collate([self.items(sample, self.speaker_labels) for sample in samples])
        return {name: value.to(device) for name, value in made.items()}


def _collate(mixtures: Sequence[list[Item]], sample_rate: int) -> dict[str, Any]:
    return {DRY: collate_dry([cast(DryMixture, items[0][DRY]) for items in mixtures], sample_rate)}


UNKNOWN_SPEAKER = -1


class UnknownSpeakers(dict[str, int]):
    """Labels of the speakers of a stream, who are not known before it is read: -1 for each."""

    def __missing__(self, speaker_id: str) -> int:
        return UNKNOWN_SPEAKER


def shards_of(data: DataConfig) -> list[str]:
    """The tar files that a configuration names as speech; none where it names manifests or stores.

    Raises:
        ConfigError: both are named, or the stream is to be packed or is there for lists of mixtures.
        InputError: a pattern that no file matches, or a tar file that is missing.
    """
    streams = [name for name in data.train if is_stream(name)]
    if not streams:
        return []
    if others := [name for name in data.train if not is_stream(name)]:
        raise ConfigError(f"data.train: names tar files and {others[0]}; name either, or index the tar files")
    if data.packed is not None:
        raise ConfigError("data.packed: is for recordings that are known, and data.train names tar files; remove it")
    if data.mixtures is not None:
        raise ConfigError("data.mixtures: finds voices by their names, and data.train names tar files; index them")
    shards = stream_shards(streams, data.root)
    if missing := next((shard for shard in shards if not is_url(shard) and not Path(shard).is_file()), None):
        raise InputError(f"{missing}: no such file; name the tar files of the stream")
    return shards


def count_no_speakers() -> int:
    """Stands for the count of a stream's speakers.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(
        "data.train: names tar files, whose speakers are not known before they are read, and something to be trained "
        "needs to know them; `wesep shard --index` makes an index"
    )


def make_stream(
    config: RunConfig, shards: Sequence[str], noises: Sequence[Utterance], sample_rate: int
) -> StreamSimulator:
    """What the mixtures of a run over a stream are drawn by."""
    data = config.data
    reader = open_reader([resolve_location(name, data.root) for name in data.noise], sample_rate)
    kind = DrySimulator if data.render == "device" else Simulator
    build = WindowSimulator(config.simulation, tuple(noises), reader, config.seed, tuple(data.speeds), kind)
    stream = data.stream
    return StreamSimulator(
        shards,
        build,
        config.train.epoch_size,
        min_speakers=stream.min_speakers,
        mixtures_per_window=stream.mixtures_per_window,
        shards_per_window=stream.shards_per_window,
        lanes=stream.lanes,
        block=stream.block,
        cache_mib=stream.cache_mib,
    )
