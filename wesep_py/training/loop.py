"""`train`: from a configuration to a trained model, or on from where the run was."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from wesep_py.corpus import Utterance, find_noises, read_speech
from wesep_py.errors import CheckpointError
from wesep_py.extractor import TargetSpeakerExtractor, build_network
from wesep_py.simulation import Simulator
from wesep_py.training.average import Snapshots
from wesep_py.training.config import TrainConfig, load_config
from wesep_py.training.criterion import Criterion, TrainingStep
from wesep_py.training.data import PositionSampler, SimulatedMixtures, make_loader
from wesep_py.training.devices import make_fabric
from wesep_py.training.experiment import Experiment
from wesep_py.training.interrupt import StopRequest, catch_signals
from wesep_py.training.logs import RunLog
from wesep_py.training.optim import build_optimizer
from wesep_py.training.progress import TrainingBar
from wesep_py.training.results import CorpusSummary, Results
from wesep_py.training.sources import make_reader
from wesep_py.training.state import Progress, TrainingState, load_state
from wesep_py.training.step import Stepper
from wesep_py.training.trainer import Parts, Trainer
from wesep_py.training.validate import Validation


@dataclass(frozen=True)
class TrainResult:
    """What a run gave.

    Args:
        experiment: its folder, which `wesep_py.load` takes.
        step: optimiser steps done.
        skipped: of these, skipped because they were not finite.
        best_si_sdri: of the best validation in dB, or none.
        was_finished: whether the run was finished before.
    """

    experiment: Path
    step: int
    skipped: int
    best_si_sdri: float | None
    was_finished: bool


def train(config: TrainConfig | Mapping[str, Any] | str | Path, overrides: Sequence[str] = ()) -> TrainResult:
    """Train a model, or go on with a run that was stopped.

    A run is resumed when its experiment's folder holds a state; it must then be the same configuration, except for
    keys that change no step (`experiment.CHANGEABLE`). On the CPU a resumed run ends with the same weights, to the
    bit, as one that was never stopped (without `train.max_minutes`, and with as many threads).

    Args:
        config: path of a YAML file, or a mapping of the same form.
        overrides: `key=value`, for a YAML file.

    Returns:
        Where the model is and how it went.

    Raises:
        ConfigError: an unknown key, a wrong type or value, another configuration than the run's before.
        InputError: recordings or trial lists that are missing or malformed.
        TrainingInterrupted: Ctrl-C or SIGTERM; the state is saved.
        WesepError: no finite loss for `train.max_nonfinite` steps in a row.

    Example:
        >>> train("recipes/speechocean762/train.yaml", ["data.root=data", "optim.lr=0.0005"])  # doctest: +SKIP
    """
    if not isinstance(config, TrainConfig):
        config = load_config(config, overrides)
    with catch_signals() as stop:
        fabric = make_fabric(config.train)
        fabric.launch()
        return _train(config, fabric, stop)


def _train(config: TrainConfig, fabric: Fabric, stop: StopRequest) -> TrainResult:
    experiment = Experiment(config.experiment)
    experiment.check(config)
    torch.manual_seed(config.seed)
    network = build_network(config.model)
    criterion = Criterion(config.loss)
    root = Path(config.data.root)
    speech, noises = read_speech(config.data.train, root), find_noises(config.data.noise, root)
    results = Results(experiment, config, network.config, CorpusSummary.of(speech))
    state = load_state(experiment.state)
    trainer_progress = state.progress if state else Progress()
    validation = _validation(config, network.sample_rate, fabric)
    bar = TrainingBar(enabled=fabric.is_global_zero)
    dataset = _dataset(config, network.sample_rate, speech, noises, fabric, bar)
    fabric.barrier()
    if fabric.is_global_zero:
        experiment.write_config(config)
        Snapshots(experiment.snapshots, config.checkpoint.keep).drop_after(trainer_progress.step)
    module = TrainingStep(network, criterion)
    plain_optimizer = build_optimizer(config.optim, network)
    wrapped, optimizer = fabric.setup(module, plain_optimizer)
    _restore(state, network, plain_optimizer, experiment)
    wrapped.train()
    main = fabric.is_global_zero
    log = RunLog(experiment.log_file, experiment.tensorboard, trainer_progress.step) if main else None
    stepper = Stepper(fabric, config, wrapped, optimizer)
    parts = Parts(fabric, config, experiment, network, stepper, plain_optimizer, validation, results, bar, log, stop)
    trainer = Trainer(parts, trainer_progress)
    bar.begin(trainer.done)
    if trainer.done >= 1.0 and results.is_final(trainer_progress):
        bar.say(
            f"{experiment.folder}: is finished, after {trainer_progress.step} steps; "
            "for more, raise train.steps or train.max_minutes"
        )
        return _result(experiment, trainer_progress, was_finished=True)
    try:
        with bar:
            _greet(config, experiment, results, network, trainer_progress, bar)
            trainer.run(iter(_loader(config, dataset, trainer_progress, fabric)))
    finally:
        if log:
            log.close()
    return _result(experiment, trainer_progress, was_finished=False)


def _validation(config: TrainConfig, sample_rate: int, fabric: Fabric) -> Validation | None:
    if config.validation is None:
        return None
    return Validation(config.validation, config.data.root, sample_rate, fabric.global_rank, fabric.world_size)


def _dataset(
    config: TrainConfig,
    sample_rate: int,
    speech: list[Utterance],
    noises: list[Utterance],
    fabric: Fabric,
    bar: TrainingBar,
) -> SimulatedMixtures:
    """The mixtures of the run; the first process packs the recordings, if asked, and the others wait for it."""
    recordings = [*speech, *noises]
    if fabric.is_global_zero:
        make_reader(config.data, recordings, sample_rate, on_progress=_packing(config, bar))
    fabric.barrier()
    reader = make_reader(config.data, recordings, sample_rate, may_pack=False)
    simulator = Simulator(config.simulation, speech, noises, reader, config.seed, sample_rate)
    labels = {speaker: label for label, speaker in enumerate(sorted({u.speaker_id for u in speech}))}
    return SimulatedMixtures(simulator, labels, config.train.targets_per_mixture)


def _packing(config: TrainConfig, bar: TrainingBar) -> Callable[[int, int], None]:
    """Says that recordings are being packed when the first is done, and then every thousand."""

    def tell(done: int, total: int) -> None:
        if done == 1 or done % 1000 == 0 or done == total:
            bar.say(f"packing recordings into {config.data.packed}: {done} of {total}")

    return tell


def _loader(config: TrainConfig, dataset: SimulatedMixtures, state: Progress, fabric: Fabric) -> Any:
    loop = config.train
    sampler = PositionSampler(
        start=state.position,
        num_batches=max(0, loop.steps - state.step) * loop.accumulate,
        batch_size=loop.batch_size,
        epoch_size=loop.epoch_size,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
    )
    on_gpu = fabric.device.type == "cuda"
    loader = make_loader(dataset, sampler, config.data.workers, config.data.prefetch, pin_memory=on_gpu)
    return fabric.setup_dataloaders(loader, use_distributed_sampler=False)


def _restore(
    state: TrainingState | None,
    network: TargetSpeakerExtractor,
    optimizer: torch.optim.Optimizer,
    experiment: Experiment,
) -> None:
    if state is None:
        return
    try:
        network.load_state_dict(state.model)
        optimizer.load_state_dict(state.optimizer)
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{experiment.state}: does not fit the configuration's network ({str(error).splitlines()[0]})"
        ) from error


def _greet(
    config: TrainConfig,
    experiment: Experiment,
    results: Results,
    network: TargetSpeakerExtractor,
    state: Progress,
    bar: TrainingBar,
) -> None:
    corpus, loop = results.corpus, config.train
    parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
    bar.say(
        f"{experiment.folder}: {'resuming at step ' + str(state.step) if state.step else 'training'} of {loop.steps}; "
        f"{parameters / 1e6:.2f} M parameters; {corpus.hours} h of {corpus.speakers} speakers; "
        f"batches of {loop.batch_size} mixtures, {loop.precision}"
    )


def _result(experiment: Experiment, state: Progress, was_finished: bool) -> TrainResult:
    best = state.best_si_sdri if state.best_step >= 0 else None
    return TrainResult(experiment.folder, state.step, state.skipped, best, was_finished)
