"""`train`: from a configuration to a trained model, or on from where the run was."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from wesep_py.corpus import Utterance, find_noises, perturb_speed, read_speech
from wesep_py.errors import CheckpointError
from wesep_py.simulation import Simulator
from wesep_py.training.average import Snapshots
from wesep_py.training.config import RunConfig, load_config
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
from wesep_py.training.task import Task
from wesep_py.training.tasks import make_task
from wesep_py.training.trainer import Parts, Trainer


@dataclass(frozen=True)
class TrainResult:
    """What a run gave.

    Args:
        experiment: its folder, which `wesep_py.load` takes.
        step: optimiser steps done.
        skipped: of these, skipped because they were not finite.
        best: result of the best validation, or none.
        measure: what that is (`si_sdri`, in dB); empty without a validation.
        was_finished: whether the run was finished before.
    """

    experiment: Path
    step: int
    skipped: int
    best: float | None
    measure: str
    was_finished: bool


def train(config: RunConfig | Mapping[str, Any] | str | Path, overrides: Sequence[str] = ()) -> TrainResult:
    """Train an extractor or a speaker encoder, or go on with a run that was stopped.

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
    if not isinstance(config, RunConfig):
        config = load_config(config, overrides)
    with catch_signals() as stop:
        fabric = make_fabric(config.train)
        fabric.launch()
        return _train(config, fabric, stop)


def _train(config: RunConfig, fabric: Fabric, stop: StopRequest) -> TrainResult:
    experiment = Experiment(config.experiment)
    experiment.check(config)
    torch.manual_seed(config.seed)
    root = Path(config.data.root)

    @cache
    def read() -> list[Utterance]:
        return perturb_speed(read_speech(config.data.train, root), config.data.speeds)

    task = make_task(config, fabric, num_speakers=lambda: len({utterance.speaker_id for utterance in read()}))
    speech, noises = read(), find_noises(config.data.noise, root)
    results = Results(experiment, config, task, CorpusSummary.of(speech))
    state = load_state(experiment.state)
    trainer_progress = state.progress if state else Progress()
    bar = TrainingBar(enabled=fabric.is_global_zero)
    dataset = _dataset(config, task, speech, noises, fabric, bar)
    fabric.barrier()
    if fabric.is_global_zero:
        experiment.write_config(config)
        Snapshots(experiment.snapshots, config.checkpoint.keep).drop_after(trainer_progress.step)
    plain_optimizer = build_optimizer(config.optim, task.step)
    wrapped, optimizer = fabric.setup(task.step, plain_optimizer)
    _restore(state, task, plain_optimizer, experiment)
    wrapped.train()
    main = fabric.is_global_zero
    log = RunLog(experiment.log_file, experiment.tensorboard, trainer_progress.step) if main else None
    stepper = Stepper(fabric, config, wrapped, optimizer)
    parts = Parts(fabric, config, experiment, task, stepper, plain_optimizer, results, bar, log, stop)
    trainer = Trainer(parts, trainer_progress)
    bar.begin(trainer.done)
    if trainer.done >= 1.0 and results.is_final(trainer_progress):
        bar.say(
            f"{experiment.folder}: is finished, after {trainer_progress.step} steps; "
            "for more, raise train.steps or train.max_minutes"
        )
        return _result(experiment, trainer_progress, task, was_finished=True)
    try:
        with bar:
            _greet(config, experiment, results, task, trainer_progress, bar)
            trainer.run(iter(_loader(config, task, dataset, trainer_progress, fabric)))
    finally:
        if log:
            log.close()
    return _result(experiment, trainer_progress, task, was_finished=False)


def _dataset(
    config: RunConfig,
    task: Task,
    speech: list[Utterance],
    noises: list[Utterance],
    fabric: Fabric,
    bar: TrainingBar,
) -> SimulatedMixtures:
    """The mixtures of the run; the first process packs the recordings, if asked, and the others wait for it."""
    recordings, sample_rate = [*speech, *noises], task.sample_rate
    if fabric.is_global_zero:
        make_reader(config.data, recordings, sample_rate, on_progress=_packing(config, bar))
    fabric.barrier()
    reader = make_reader(config.data, recordings, sample_rate, may_pack=False)
    simulator = Simulator(config.simulation, speech, noises, reader, config.seed, sample_rate)
    labels = {speaker: label for label, speaker in enumerate(sorted({u.speaker_id for u in speech}))}
    return SimulatedMixtures(simulator, labels, task.items)


def _packing(config: RunConfig, bar: TrainingBar) -> Callable[[int, int], None]:
    """Says that recordings are being packed when the first is done, and then every thousand."""

    def tell(done: int, total: int) -> None:
        if done == 1 or done % 1000 == 0 or done == total:
            bar.say(f"packing recordings into {config.data.packed}: {done} of {total}")

    return tell


def _loader(config: RunConfig, task: Task, dataset: SimulatedMixtures, state: Progress, fabric: Fabric) -> Any:
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
    loader = make_loader(dataset, sampler, task.collate, config.data.workers, config.data.prefetch, pin_memory=on_gpu)
    return fabric.setup_dataloaders(loader, use_distributed_sampler=False)


def _restore(
    state: TrainingState | None,
    task: Task,
    optimizer: torch.optim.Optimizer,
    experiment: Experiment,
) -> None:
    if state is None:
        return
    try:
        task.step.load_state_dict(state.model)
        optimizer.load_state_dict(state.optimizer)
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{experiment.state}: does not fit the configuration's network ({str(error).splitlines()[0]})"
        ) from error


def _greet(
    config: RunConfig,
    experiment: Experiment,
    results: Results,
    task: Task,
    state: Progress,
    bar: TrainingBar,
) -> None:
    corpus, loop = results.corpus, config.train
    parameters = sum(p.numel() for p in task.network.parameters() if p.requires_grad)
    bar.say(
        f"{experiment.folder}: {'resuming at step ' + str(state.step) if state.step else 'training'} of {loop.steps}; "
        f"{parameters / 1e6:.2f} M parameters; {corpus.hours} h of {corpus.speakers} speakers; "
        f"batches of {loop.batch_size} mixtures, {loop.precision}"
    )


def _result(experiment: Experiment, state: Progress, task: Task, was_finished: bool) -> TrainResult:
    best, measure = state.best if state.best_step >= 0 else None, task.judge.measure if task.judge else ""
    return TrainResult(experiment.folder, state.step, state.skipped, best, measure, was_finished)
