"""Training data of a run: from the configuration's `data` to its task, recordings, dataset and batches.

Mixtures come from one of three kinds of data:

| configuration | mixtures |
| --- | --- |
| `data.train` names manifests or stores | drawn from their utterances (`Simulator`) |
| `data.train` names tar files without an index | drawn from windows of a stream (`StreamSimulator`) |
| `data.mixtures` names lists | those of the lists (`ListedMixtures`) |
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from wesep_py.common.errors import ConfigError, InputError
from wesep_py.data import PackedReader, Reader, Utterance, find_noises, pack, perturb_speed, read_speech
from wesep_py.data.mixture_corpus import MixtureCorpus, read_mixture_corpus
from wesep_py.data.recordings import open_reader, resolve_location
from wesep_py.data.remote import is_url
from wesep_py.data.shard_stream import is_stream, stream_shards
from wesep_py.data.store import Store
from wesep_py.simulation import Simulator
from wesep_py.simulation.dry_batch import DrySimulator
from wesep_py.simulation.listed_mixtures import ListedMixtures
from wesep_py.simulation.mixture_stream import StreamSimulator, WindowSimulator
from wesep_py.training.batches import Batches, DryMixtures, PositionSampler, SimulatedMixtures, make_loader
from wesep_py.training.data_config import DataConfig
from wesep_py.training.devices import convolve_in_float32, require_precision
from wesep_py.training.experiment import CorpusSummary
from wesep_py.training.extraction_task import ExtractionTask
from wesep_py.training.presence_task import PresenceTask
from wesep_py.training.run_log import TrainingBar
from wesep_py.training.speaker_task import SpeakerTask
from wesep_py.training.state import Progress
from wesep_py.training.task import Task
from wesep_py.training.training_config import PresenceTrainConfig, RunConfig, SpeakerTrainConfig, TrainConfig

logger = logging.getLogger(__name__)

UNKNOWN_SPEAKER = -1


@dataclass(frozen=True)
class TrainingData:
    """Recordings and mixtures of a run. No audio is read yet.

    Attributes:
        speech: utterances that are mixed, or that speakers are enrolled from.
        noises: noise recordings.
        mixtures: listed mixtures, or `None`.
        shards: tar files of a stream.
    """

    speech: list[Utterance]
    noises: list[Utterance]
    mixtures: MixtureCorpus | None = None
    shards: tuple[str, ...] = ()

    @property
    def corpus(self) -> CorpusSummary:
        """Amount of speech."""
        return CorpusSummary.of(self.speech)


def read_training_data(config: RunConfig, fabric: Fabric) -> tuple[Task, TrainingData]:
    """Read the lists of a configuration, and build its task.

    The task is built first: a mistake in the model is found before long lists are read, unless the network needs the
    number of training speakers.

    Raises:
        ConfigError: a part of the model or a loss is wrong.
        InputError: recordings or trial lists are missing or malformed; or `train.precision` is `bf16-mixed` and the
            device cannot run the network in it.
    """
    torch.manual_seed(config.seed)
    root = Path(config.data.root)
    shards = find_stream_shards(config.data)
    mixtures = None if shards else read_listed_mixtures(config.data)

    @cache
    def read_utterances() -> list[Utterance]:
        if mixtures is not None:
            return list(mixtures.speech)
        return perturb_speed(read_speech(config.data.train, root), config.data.speeds)

    def count_speakers() -> int:
        if shards:
            raise ConfigError(
                "data.train: names tar files, whose speakers are not known before they are read, and something to be "
                "trained needs to know them; `wesep shard --index` makes an index"
            )
        return len({utterance.speaker_id for utterance in read_utterances()})

    task = make_task(config, fabric, count_speakers)
    require_precision(task.step, config.train.precision, fabric.device.type)
    num_convolutions = convolve_in_float32(task.step, config.train.precision, fabric.device.type)
    if num_convolutions and fabric.is_global_zero:
        logger.info("%d convolutions compute in float32: with AMX, bfloat16 is wrong for some shapes", num_convolutions)
    speech = [] if shards else read_utterances()
    noises = find_noises(config.data.noise, root)
    if noises and not config.simulation.uses_noise_recordings and fabric.is_global_zero:
        # Mixtures that are drawn say themselves whether they have noise; those of lists are often believed to take it.
        logger.log(
            logging.WARNING if config.data.mixtures else logging.INFO,
            "data.noise: %d recordings are not used; set noise of kind recording in simulation.enrollment.noise%s",
            len(noises),
            "; mixtures of lists keep their own noise" if config.data.mixtures else ", or in simulation.noise",
        )
    return task, TrainingData(speech, noises, mixtures, tuple(shards))


def make_task(config: RunConfig, fabric: Fabric, num_speakers: Callable[[], int]) -> Task:
    """Build what the configuration trains.

    Args:
        config: of the run.
        fabric: of the run.
        num_speakers: returns the number of speakers of the training set; called only if the task needs it.
    """
    if config.task == "speaker":
        assert isinstance(config, SpeakerTrainConfig)
        return SpeakerTask(config, num_speakers())
    if config.task == "presence":
        assert isinstance(config, PresenceTrainConfig)
        return PresenceTask(config)
    assert isinstance(config, TrainConfig)
    return ExtractionTask(config, fabric, num_speakers)


def make_dataset(
    config: RunConfig, task: Task, data: TrainingData, fabric: Fabric, bar: TrainingBar, may_pack: bool = True
) -> SimulatedMixtures:
    """Return the mixtures of the run. If `data.packed` is set, the first process packs and the others wait for it.

    Args:
        config: of the run.
        task: makes the items of the mixtures.
        data: from `read_training_data`.
        fabric: of the run.
        bar: prints the progress of packing.
        may_pack: false: recordings are read from their files even if `data.packed` is set.
    """
    sample_rate, on_device = task.sample_rate, config.data.render == "device"
    dataset_class = DryMixtures if on_device else SimulatedMixtures
    if data.shards:
        stream = make_stream_simulator(config, data.shards, data.noises, sample_rate)
        return dataset_class(stream, UnknownSpeakerLabels(), task.items)
    if task.embeddings is not None:
        task.embeddings.require(data.speech)
    recordings = [*data.speech, *data.noises, *(data.mixtures.noises if data.mixtures else [])]
    data_config = config.data if may_pack else replace(config.data, packed=None)
    if may_pack and fabric.is_global_zero:
        make_reader(data_config, recordings, sample_rate, on_progress=_print_packing(config, bar))
    fabric.barrier()
    stores = data.mixtures.stores if data.mixtures else ()
    reader = make_reader(data_config, recordings, sample_rate, may_pack=False, stores=stores)
    simulator_class = DrySimulator if on_device else Simulator
    simulator = (
        simulator_class(config.simulation, data.speech, data.noises, reader, config.seed, sample_rate, task.embeddings)
        if data.mixtures is None
        else ListedMixtures(config.simulation, data.mixtures, data.noises, reader, config.seed, task.embeddings)
    )
    speaker_ids = sorted({utterance.speaker_id for utterance in data.speech})
    labels = {speaker_id: label for label, speaker_id in enumerate(speaker_ids)}
    return dataset_class(simulator, labels, task.items)


def open_batches(
    config: RunConfig,
    task: Task,
    dataset: SimulatedMixtures,
    progress: Progress,
    fabric: Fabric,
    print_line: Callable[[str], None],
) -> Batches:
    """Return the batches of this rank from the run's progress to its end."""
    loop, on_gpu = config.train, fabric.device.type == "cuda"
    num_batches = max(0, loop.steps - progress.step) * loop.accumulate
    position = progress.position  # a copy: progress moves on while the batches are read

    def open_from(skipped: int) -> Iterator[dict[str, Any]]:
        sampler = PositionSampler(
            # A batch of all ranks together takes batch_size × world_size positions.
            start=position + skipped * loop.batch_size * fabric.world_size,
            num_batches=num_batches - skipped,
            batch_size=loop.batch_size,
            epoch_size=loop.epoch_size,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
        )
        collate = dataset.loader_collate(task.collate)
        loader = make_loader(dataset, sampler, collate, config.data.workers, config.data.prefetch, on_gpu)
        return iter(fabric.setup_dataloaders(loader, use_distributed_sampler=False))

    return Batches(open_from, print_line, partial(dataset.finish, collate=task.collate))


def make_reader(
    config: DataConfig,
    recordings: list[Utterance],
    sample_rate: int,
    may_pack: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
    stores: Sequence[Store] = (),
) -> Reader:
    """Return a reader of the recordings: of the memory map `data.packed`, created if missing, or of the files.

    Args:
        config: the configuration's `data`.
        recordings: all recordings that will be read.
        sample_rate: of the model, in Hz.
        may_pack: whether this process creates the memory map (one process of a run does, the others wait).
        on_progress: called with the number of recordings packed, and of all.
        stores: hold the recordings of listed mixtures that are in tar files.
    """
    if config.packed is None:
        locations = [resolve_location(name, config.root) for name in (*config.train, *config.noise)]
        return open_reader(locations, sample_rate, further=stores)
    if may_pack:
        Path(config.packed).parent.mkdir(parents=True, exist_ok=True)
        pack(recordings, config.packed, sample_rate, os.cpu_count() or 1, on_progress)
    return PackedReader(config.packed)


def _print_packing(config: RunConfig, bar: TrainingBar) -> Callable[[int, int], None]:
    """Return a callback that prints the number of packed recordings after the first and after each thousand."""

    def on_progress(done: int, total: int) -> None:
        if done == 1 or done % 1000 == 0 or done == total:
            bar.print_line(f"packing recordings into {config.data.packed}: {done} of {total}")

    return on_progress


def read_listed_mixtures(data: DataConfig) -> MixtureCorpus | None:
    """Read the lists of `data.mixtures`, or return `None` if mixtures are drawn.

    Raises:
        ConfigError: `data.speeds` is set too; listed mixtures are used at their own speed.
        InputError, AudioError: as `read_mixture_corpus`.
    """
    if data.mixtures is None:
        return None
    if data.speeds != [1.0]:
        raise ConfigError("data.speeds: is for mixtures that are drawn, and data.mixtures gives them as they are")
    root, lists = Path(data.root), data.mixtures
    corpus = read_mixture_corpus(
        [root / name for name in lists.lists],
        lists.condition,
        None if lists.root is None else root / lists.root,
        None if lists.noise_root is None else root / lists.noise_root,
        read_speech(data.train, root),
    )
    if corpus.stores and data.packed is not None:
        raise ConfigError("data.packed: is for recordings that are files, and data.mixtures names tar files; remove it")
    return corpus


def find_stream_shards(data: DataConfig) -> list[str]:
    """Return the tar files without an index that `data.train` names; empty if it names manifests or stores.

    Raises:
        ConfigError: both are named, or the stream is combined with `data.packed` or `data.mixtures`.
        InputError: a pattern matches no file, or a tar file is missing.
    """
    streams = [name for name in data.train if is_stream(name, data.root)]
    if not streams:
        return []
    if others := [name for name in data.train if name not in streams]:
        raise ConfigError(f"data.train: names tar files and {others[0]}; name either, or index the tar files")
    if data.packed is not None:
        raise ConfigError("data.packed: is for recordings that are known, and data.train names tar files; remove it")
    if data.mixtures is not None:
        raise ConfigError("data.mixtures: finds voices by their names, and data.train names tar files; index them")
    shards = stream_shards(streams, data.root)
    if missing := next((shard for shard in shards if not is_url(shard) and not Path(shard).is_file()), None):
        raise InputError(f"{missing}: no such file; name the tar files of the stream")
    return shards


class UnknownSpeakerLabels(dict[str, int]):
    """Labels of the speakers of a stream, who are not known before it is read: -1 for each."""

    def __missing__(self, speaker_id: str) -> int:
        return UNKNOWN_SPEAKER


def make_stream_simulator(
    config: RunConfig, shards: Sequence[str], noises: Sequence[Utterance], sample_rate: int
) -> StreamSimulator:
    """Return the simulator that draws mixtures from a stream of shards.

    Args:
        config: of the run.
        shards: from `find_stream_shards`.
        noises: noise recordings.
        sample_rate: of the model, in Hz.
    """
    data, stream = config.data, config.data.stream
    reader = open_reader([resolve_location(name, data.root) for name in data.noise], sample_rate)
    simulator_class = DrySimulator if data.render == "device" else Simulator
    build = WindowSimulator(config.simulation, tuple(noises), reader, config.seed, tuple(data.speeds), simulator_class)
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
