"""What a run needs before its first step: task, data, optimiser; the same for a run and for a dry run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from wesep_py import checkpoint
from wesep_py.common.errors import CheckpointError, ConfigError
from wesep_py.common.processes import max_workers
from wesep_py.data import Utterance, find_noises, perturb_speed, read_speech
from wesep_py.data.mixture_corpus import MixtureCorpus
from wesep_py.simulation import Simulator
from wesep_py.simulation.dry_batch import DrySimulator
from wesep_py.simulation.listed_mixtures import ListedMixtures
from wesep_py.training.batches import (
    Batches,
    DryMixtures,
    PositionSampler,
    SimulatedMixtures,
    UnknownSpeakers,
    count_no_speakers,
    make_loader,
    make_reader,
    make_stream,
    read_mixtures_of,
    shards_of,
)
from wesep_py.training.devices import compile_blocks, recompute_blocks, require_precision
from wesep_py.training.experiment import CorpusSummary, lineage
from wesep_py.training.optimisation import Freezer, WeightAverage, build_optimizer
from wesep_py.training.run_log import TrainingBar
from wesep_py.training.state import Progress
from wesep_py.training.step import Stepper
from wesep_py.training.task import Task
from wesep_py.training.tasks import make_task
from wesep_py.training.training_config import InitConfig, RunConfig

# ----------------------------------------
# Starting from the weights of another run, whose network may be another in parts.


@dataclass(frozen=True)
class Initialised:
    """What was taken over.

    Attributes:
        source: the checkpoint's folder.
        hash: of its weights and configuration.
        taken: how many tensors.
        fresh: names of the network's tensors that were not.
        unused: names of the checkpoint's tensors that were not.
        lineage: how the checkpoint was made, and before it those that it went on from itself.
    """

    source: str
    hash: str
    taken: int
    fresh: list[str]
    unused: list[str]
    lineage: list[dict[str, Any]]

    def __str__(self) -> str:
        text = f"{self.taken} of {self.taken + len(self.fresh)} tensors are those of {self.source}"
        if self.fresh:
            text += f"; freshly initialised: {', '.join(self.fresh)}"
        return text + (f"; not used: {', '.join(self.unused)}" if self.unused else "")


def initialise(network: nn.Module, config: InitConfig) -> Initialised:
    """Give a network the weights of a checkpoint, where name and shape are the same.

    Args:
        network: changed in place.
        config: which checkpoint, and what of it.

    Raises:
        CheckpointError: it is missing or damaged; nothing of it fits, or with `strict` not everything.

    Example: `init: {checkpoint: exp/base, skip: ["encoder.*"]}`
    """
    saved = checkpoint.load(config.checkpoint)
    own = network.state_dict()
    given = {
        name: tensor
        for name, tensor in saved.state_dict.items()
        if not any(fnmatchcase(name, pattern) for pattern in config.skip)
    }
    if config.strict and (lines := checkpoint.misfit(own, given)):
        more = f" and {len(lines) - 5} more" if len(lines) > 5 else ""
        raise CheckpointError(
            f"init.checkpoint: {saved.folder} does not fit the network: {'; '.join(lines[:5])}{more}; with "
            "init.strict=false what fits is taken"
        )
    fits = {name: tensor for name, tensor in given.items() if name in own and own[name].shape == tensor.shape}
    if not fits:
        raise CheckpointError(f"init.checkpoint: nothing of {saved.folder} fits the network; give a model of its kind")
    with torch.no_grad():
        for name, tensor in fits.items():
            own[name].copy_(tensor)
    return Initialised(
        str(saved.folder),
        saved.hash,
        len(fits),
        [name for name in own if name not in fits],
        [name for name in saved.state_dict if name not in fits],
        lineage(saved),
    )


@dataclass(frozen=True)
class Materials:
    """What is trained, and what is learned from."""

    task: Task
    speech: list[Utterance]
    noises: list[Utterance]
    mixtures: MixtureCorpus | None = None
    shards: tuple[str, ...] = ()

    @property
    def corpus(self) -> CorpusSummary:
        """How much speech there is."""
        return CorpusSummary.of(self.speech)


@dataclass(frozen=True)
class Machinery:
    """What takes the steps: the wrapped module's stepper and optimiser, what is frozen, the average of the weights."""

    stepper: Stepper
    module: nn.Module
    optimizer: torch.optim.Optimizer
    freezer: Freezer
    average: WeightAverage | None


def check_machine(config: RunConfig) -> None:
    """Refuse more threads or processes than this machine can start.

    Raises:
        ConfigError: naming the key.
    """
    for key, count in (("train.threads", config.train.threads), ("data.workers", config.data.workers)):
        if count is not None and count > max_workers():
            raise ConfigError(f"{key}: is {count}; at most {max_workers()} are allowed on this machine")


def gather(config: RunConfig, fabric: Fabric) -> Materials:
    """The task and the recordings of a configuration; no audio is read yet.

    Raises:
        ConfigError: a part of the model or a loss is wrong.
        InputError: recordings or trial lists that are missing or malformed; `train.precision` is `bf16-mixed` and the
            device cannot run the network in it.
    """
    torch.manual_seed(config.seed)
    root = Path(config.data.root)

    shards = shards_of(config.data)
    if shards:
        task = make_task(config, fabric, count_no_speakers)
        require_precision(task.step, config.train.precision, fabric.device.type)
        return Materials(task, [], find_noises(config.data.noise, root), shards=tuple(shards))
    mixtures = read_mixtures_of(config.data)

    @cache
    def read() -> list[Utterance]:
        if mixtures is not None:
            return list(mixtures.speech)
        return perturb_speed(read_speech(config.data.train, root), config.data.speeds)

    task = make_task(config, fabric, num_speakers=lambda: len({utterance.speaker_id for utterance in read()}))
    require_precision(task.step, config.train.precision, fabric.device.type)
    return Materials(task, read(), find_noises(config.data.noise, root), mixtures)


def assemble(config: RunConfig, task: Task, fabric: Fabric) -> Machinery:
    """Optimiser and module, set up for the devices.

    Raises:
        ConfigError: nothing is left to train, or a key of `optim` or `train` does not suit the network.
    """
    if config.train.gradient_checkpointing:
        recompute_blocks(task.network)
    if config.train.compile:
        compile_blocks(task.network)
    optimizer = build_optimizer(config.optim, task.step)
    freezer = Freezer(config.optim, task.step)
    wrapped, wrapped_optimizer = fabric.setup(task.step, optimizer)
    decay = config.optim.ema_decay
    average = None if decay is None else WeightAverage(task.step, decay)
    stepper = Stepper(fabric, config, wrapped, wrapped_optimizer, task.adversaries)
    return Machinery(stepper, wrapped, optimizer, freezer, average)


def start_from(config: RunConfig, task: Task) -> Initialised | None:
    """Give the task's network the weights that `init` names; nothing where it names none."""
    return None if config.init is None else initialise(task.network, config.init)


def make_dataset(
    config: RunConfig, materials: Materials, fabric: Fabric, bar: TrainingBar, may_pack: bool = True
) -> SimulatedMixtures:
    """The mixtures of the run; the first process packs the recordings, if asked, and the others wait for it."""
    data, speech, noises = config.data, materials.speech, materials.noises
    listed = materials.mixtures
    kind = DryMixtures if data.render == "device" else SimulatedMixtures
    if materials.shards:
        stream = make_stream(config, materials.shards, noises, materials.task.sample_rate)
        return kind(stream, UnknownSpeakers(), materials.task.items)
    embeddings = materials.task.embeddings
    if embeddings is not None:
        embeddings.require(speech)
    recordings = [*speech, *noises, *(listed.noises if listed else [])]
    sample_rate = materials.task.sample_rate
    if not may_pack:
        data = replace(data, packed=None)
    elif fabric.is_global_zero:
        make_reader(data, recordings, sample_rate, on_progress=_packing(config, bar))
    fabric.barrier()
    reader = make_reader(data, recordings, sample_rate, may_pack=False)
    drawn = DrySimulator if data.render == "device" else Simulator
    simulator = (
        drawn(config.simulation, speech, noises, reader, config.seed, sample_rate, embeddings)
        if listed is None
        else ListedMixtures(config.simulation, listed, noises, reader, config.seed, embeddings)
    )
    labels = {speaker: label for label, speaker in enumerate(sorted({u.speaker_id for u in speech}))}
    return kind(simulator, labels, materials.task.items)


def open_batches(
    config: RunConfig,
    task: Task,
    dataset: SimulatedMixtures,
    state: Progress,
    fabric: Fabric,
    say: Callable[[str], None],
) -> Batches:
    """The batches of this rank from where the run stands."""
    loop, on_gpu = config.train, fabric.device.type == "cuda"
    total = max(0, loop.steps - state.step) * loop.accumulate
    position = state.position

    def open_from(batch: int) -> Iterator[dict[str, Any]]:
        sampler = PositionSampler(
            start=position + batch * loop.batch_size * fabric.world_size,
            num_batches=total - batch,
            batch_size=loop.batch_size,
            epoch_size=loop.epoch_size,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
        )
        collate = dataset.collated(task.collate)
        loader = make_loader(dataset, sampler, collate, config.data.workers, config.data.prefetch, on_gpu)
        return iter(fabric.setup_dataloaders(loader, use_distributed_sampler=False))

    return Batches(open_from, say, partial(dataset.finish, collate=task.collate))


def _packing(config: RunConfig, bar: TrainingBar) -> Callable[[int, int], None]:
    """Says that recordings are being packed when the first is done, and then every thousand."""

    def tell(done: int, total: int) -> None:
        if done == 1 or done % 1000 == 0 or done == total:
            bar.say(f"packing recordings into {config.data.packed}: {done} of {total}")

    return tell
