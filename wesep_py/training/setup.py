"""What a run needs before its first step: task, data, optimiser; the same for a run and for a dry run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from wesep_py.corpus import Utterance, find_noises, perturb_speed, read_speech
from wesep_py.corpus.listed import MixtureCorpus
from wesep_py.errors import ConfigError
from wesep_py.simulation import Simulator
from wesep_py.simulation.listed import ListedMixtures
from wesep_py.simulation.on_device.draw import DrySimulator
from wesep_py.training.batches import Batches
from wesep_py.training.config import RunConfig
from wesep_py.training.data import PositionSampler, SimulatedMixtures, make_loader
from wesep_py.training.devices import require_precision
from wesep_py.training.ema import WeightAverage
from wesep_py.training.freeze import Freezer
from wesep_py.training.init import Initialised, initialise
from wesep_py.training.memory import compile_blocks, recompute_blocks
from wesep_py.training.mixtures import read_mixtures_of
from wesep_py.training.on_device import DryMixtures
from wesep_py.training.optim import build_optimizer
from wesep_py.training.progress import TrainingBar
from wesep_py.training.results import CorpusSummary
from wesep_py.training.sources import make_reader
from wesep_py.training.state import Progress
from wesep_py.training.step import Stepper
from wesep_py.training.stream import UnknownSpeakers, count_no_speakers, make_stream, shards_of
from wesep_py.training.task import Task
from wesep_py.training.tasks import make_task
from wesep_py.worker_processes import most_workers


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
        if count is not None and count > most_workers():
            raise ConfigError(f"{key}: is {count}; at most {most_workers()} are allowed on this machine")


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
