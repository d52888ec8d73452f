"""`train`: from a configuration to a trained model, or on from where the run was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from wesep_py.checkpoint import misfit
from wesep_py.errors import CheckpointError, reason, shorten
from wesep_py.lock import locked
from wesep_py.training.adversaries import load_adversaries
from wesep_py.training.average import Snapshots
from wesep_py.training.config import RunConfig, load_config
from wesep_py.training.devices import describe_precision, make_fabric
from wesep_py.training.experiment import Experiment
from wesep_py.training.interrupt import StopRequest, catch_signals
from wesep_py.training.logs import open_log
from wesep_py.training.progress import TrainingBar
from wesep_py.training.provenance import ancestors, data_hashes, write_provenance
from wesep_py.training.results import Results
from wesep_py.training.setup import Machinery, assemble, check_machine, gather, make_dataset, open_batches, start_from
from wesep_py.training.state import Progress, TrainingState, check_optimizer_state, load_state
from wesep_py.training.task import Task
from wesep_py.training.trackers import check_trackers
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
    source = Path(config) if isinstance(config, (str, Path)) else None
    if not isinstance(config, RunConfig):
        config = load_config(config, overrides)
    check_machine(config)
    with catch_signals() as stop:
        fabric = make_fabric(config.train)
        fabric.launch()
        return _train(config, fabric, stop, source)


def _train(config: RunConfig, fabric: Fabric, stop: StopRequest, source: Path | None = None) -> TrainResult:
    experiment = Experiment(config.experiment)
    experiment.check(config, source)
    check_trackers(config.log.to)
    materials = gather(config, fabric)
    bar = TrainingBar(enabled=fabric.is_global_zero)
    dataset = make_dataset(config, materials, fabric, bar)
    hashes = data_hashes(config.data)
    initialised = None if experiment.has_state() else start_from(config, materials.task)
    machinery = assemble(config, materials.task, fabric)
    with ExitStack() as held:
        if fabric.is_global_zero:
            experiment.make()
            held.enter_context(locked(experiment.folder, "training", "experiment"))
        fabric.barrier()
        experiment.check(config)
        state = load_state(experiment.state)
        went_on_from = initialised.lineage if initialised else ancestors(experiment.provenance_file)
        results = Results(experiment, config, materials.task, materials.corpus, hashes, went_on_from)
        trainer_progress = state.progress if state else Progress()
        if fabric.is_global_zero:
            experiment.write_config(config)
            for folder in (experiment.snapshots, experiment.best):
                Snapshots(folder, config.checkpoint.keep).drop_after(trainer_progress.step)
        for adversary in materials.task.adversaries.values():
            held.callback(adversary.close)
        _restore(state, materials.task, machinery, experiment, fabric)
        machinery.module.train()
        trainer = Trainer(
            Parts(fabric, config, experiment, materials.task, machinery, results, bar, None, stop), trainer_progress
        )
        bar.begin(trainer.done)
        if trainer.done >= 1.0 and results.is_final(trainer_progress):
            bar.say(
                f"{experiment.folder}: is finished, after {trainer_progress.step} steps; "
                "for more, raise train.steps or train.max_minutes"
            )
            return _result(experiment, trainer_progress, materials.task, was_finished=True)
        if fabric.is_global_zero:
            _note(experiment, trainer_progress, hashes, went_on_from, bar)
            log = held.enter_context(closing(open_log(config, experiment, trainer_progress.step)))
            trainer.log_to(log)
        with bar:
            _greet(config, experiment, results, materials.task, trainer_progress, bar, fabric.device.type)
            if initialised is not None:
                bar.say(str(initialised))
            trainer.run(open_batches(config, materials.task, dataset, trainer_progress, fabric, bar.say))
        return _result(experiment, trainer_progress, materials.task, was_finished=False)


def _note(
    experiment: Experiment,
    state: Progress,
    hashes: dict[str, str],
    went_on_from: list[dict[str, Any]],
    bar: TrainingBar,
) -> None:
    for name in write_provenance(experiment.provenance_file, state.step, hashes, went_on_from):
        bar.say(f"{name}: is another than when the run began; the run is no longer one that can be repeated")


def _restore(
    state: TrainingState | None, task: Task, machinery: Machinery, experiment: Experiment, fabric: Fabric
) -> None:
    if state is None:
        return
    try:
        if lines := misfit(task.step.state_dict(), state.model):
            raise ValueError(lines[0])
        task.step.load_state_dict(state.model)
        check_optimizer_state(machinery.optimizer, state.optimizer)
        machinery.optimizer.load_state_dict(state.optimizer)
        if machinery.average:
            if lines := misfit(machinery.average.state_dict(), state.average):
                raise ValueError(f"average: {lines[0]}")
            machinery.average.load_state_dict(state.average)
        load_adversaries(task.adversaries, state.adversaries, fabric)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(
            f"{experiment.state}: does not fit the configuration's network ({shorten(reason(error))}); name another "
            "experiment, or delete this folder to begin again"
        ) from error


def _greet(
    config: RunConfig,
    experiment: Experiment,
    results: Results,
    task: Task,
    state: Progress,
    bar: TrainingBar,
    device_type: str,
) -> None:
    corpus, loop = results.corpus, config.train
    parameters = sum(p.numel() for p in task.network.parameters() if p.requires_grad)
    bar.say(
        f"{experiment.folder}: {'resuming at step ' + str(state.step) if state.step else 'training'} of {loop.steps}; "
        f"{parameters / 1e6:.2f} M parameters; {corpus}; "
        f"batches of {loop.batch_size} mixtures; {describe_precision(loop.precision, device_type)}"
    )


def _result(experiment: Experiment, state: Progress, task: Task, was_finished: bool) -> TrainResult:
    best, measure = state.best if state.best_step >= 0 else None, task.judge.measure if task.judge else ""
    return TrainResult(experiment.folder, state.step, state.skipped, best, measure, was_finished)
