"""`train`: from a configuration to a trained model, or on from where the run was."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning_fabric import Fabric

from wesep_py.checkpoint import misfit
from wesep_py.common.errors import CheckpointError, WesepError, reason, shorten
from wesep_py.common.folders import folder_lock
from wesep_py.training.batches import describe_batch
from wesep_py.training.devices import describe_precision, make_fabric
from wesep_py.training.experiment import Experiment, Results, ancestors, data_hashes, write_provenance
from wesep_py.training.optimisation import learning_rate_factor, progress
from wesep_py.training.run_log import RunLog, Throughput, TrainingBar, check_trackers, open_log, spell_duration
from wesep_py.training.setup import Machinery, assemble, check_machine, gather, make_dataset, open_batches, start_from
from wesep_py.training.snapshots import BestSnapshots, Snapshots, average_state_dicts
from wesep_py.training.state import (
    Progress,
    TrainingState,
    adversary_states,
    check_optimizer_state,
    load_adversaries,
    load_state,
    save_state,
)
from wesep_py.training.step import StepResult, Where, explain_faults
from wesep_py.training.task import Task
from wesep_py.training.training_config import RunConfig, TrainLoopConfig, load_config

# ----------------------------------------
# Ctrl-C and SIGTERM during training: the step is finished and the state saved before the process ends.


class TrainingInterrupted(WesepError):
    """The run was asked to stop; its state is saved. Exit status 130, as for any interrupted program."""

    exit_status = 130


class StopRequest:
    """Whether a stop was asked for."""

    def __init__(self) -> None:
        self.requested = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """The signal handler: the first signal asks, a second Ctrl-C ends the process at once."""
        if self.requested and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


@contextmanager
def catch_signals() -> Iterator[StopRequest]:
    """While the block runs, SIGINT and SIGTERM only set `requested`; a thread other than the main one sees none."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ----------------------------------------
# The loop: steps, logs, validation, saving, until the run is done or asked to stop.


@dataclass
class Parts:
    """What a trainer works with; the log is there in the first process only, the average where one is kept."""

    fabric: Fabric
    config: RunConfig
    experiment: Experiment
    task: Task
    machinery: Machinery
    results: Results
    bar: TrainingBar
    log: RunLog | None
    stop: StopRequest


class Trainer:
    """A run from where it stands to its end.

    Args:
        parts: what it works with.
        state: where it stands; changed as the run goes on.
    """

    def __init__(self, parts: Parts, state: Progress) -> None:
        self._parts = parts
        self.progress = state
        self._throughput = Throughput()
        self._sums: dict[str, float] = {}
        self._summed: Counter[str] = Counter()
        self._saved_step = state.step
        self._stop_asked = False
        self._last_batch = "no batch"
        self._elapsed_before = state.elapsed_s
        self._session_start = time.perf_counter()

    @property
    def done(self) -> float:
        """Share of the run that is done, 0 to 1; 1 too where it ends early."""
        return share_done(self._parts.config.train, self.progress)

    @property
    def ends_early(self) -> bool:
        """Whether the validation has not become better for `train.patience` times."""
        return _ends_early(self._parts.config.train, self.progress)

    def log_to(self, log: RunLog) -> None:
        """Write the run's numbers there from now on."""
        self._parts.log = log

    def run(self, batches: Iterator[dict[str, torch.Tensor]]) -> None:
        """Train until the end.

        Args:
            batches: of this rank, from `progress.position` on.

        Raises:
            TrainingInterrupted: a stop was asked for; the state is saved.
            WesepError: too many steps in a row were not finite, memory ran out, or the disk is full.
        """
        with explain_faults(self._where):
            self._run(batches)

    def _run(self, batches: Iterator[dict[str, torch.Tensor]]) -> None:
        every = self._parts.task.judge.every_steps if self._parts.task.judge else 0
        if every and self.progress.step and self.progress.step % every == 0:
            self._validate()
        self._throughput.reset()
        while self.done < 1.0:
            self._step(batches)
            step = self.progress.step
            if self._stop_asked:
                self._interrupt()
            if every and step % every == 0:
                self._validate()
            if step % self._parts.config.checkpoint.every_steps == 0:
                self._save()
        self._finish()

    def _step(self, batches: Iterator[dict[str, torch.Tensor]]) -> None:
        config, state, world = self._parts.config, self.progress, self._parts.fabric.world_size
        lr = config.optim.lr * learning_rate_factor(config.schedule, state.step, self.done, state.falls)
        self._parts.task.begin_step(state.step)
        self._parts.machinery.freezer.begin_step(state.step)
        result = self._parts.machinery.stepper.step(
            (self._next(batches) for _ in range(config.train.accumulate)), state.step, lr, self._share
        )
        stop, state.elapsed_s = result.shared
        self._stop_asked = stop > 0
        state.step += 1
        state.position += config.train.batch_size * config.train.accumulate * world
        self._count(result)
        is_log_step = state.step % config.log.every_steps == 0
        rates = self._throughput.rates()
        text = (
            f"step {state.step}/{config.train.steps}  loss {result.losses['loss']:.3f}  "
            f"{rates['audio_s_per_s']:.1f} audio s/s  data wait {100 * rates['data_wait']:.0f} %"
        )
        self._parts.bar.update(self.done, text, is_log_step)
        if is_log_step:
            self._write_log(lr, rates)

    def _next(self, batches: Iterator[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        start = time.perf_counter()
        batch = next(batches)
        self._last_batch = describe_batch(batch, self._parts.task.sample_rate)
        self._throughput.waited(time.perf_counter() - start)
        seconds = batch["mixture"].numel() / self._parts.task.sample_rate
        self._throughput.trained(seconds * self._parts.fabric.world_size)
        return batch

    def _share(self) -> list[float]:
        elapsed_s = self._elapsed_before + time.perf_counter() - self._session_start
        return [float(self._parts.stop.requested), elapsed_s]

    def _count(self, result: StepResult) -> None:
        state, limit = self.progress, self._parts.config.train.max_nonfinite
        if result.stepped:
            if self._parts.machinery.average:
                self._parts.machinery.average.update()
            state.skipped_in_a_row = 0
            for key, value in {**result.losses, "grad_norm": result.grad_norm}.items():
                self._sums[key] = self._sums.get(key, 0.0) + value
                self._summed[key] += 1
            return
        state.skipped += 1
        state.skipped_in_a_row += 1
        if state.skipped_in_a_row >= limit:
            raise WesepError(
                f"step {state.step}: loss or gradient was not finite {limit} steps in a row; lower optim.lr or "
                f"optim.clip_norm (the state of step {self._saved_step} is in {self._parts.experiment.state})"
            )

    def _write_log(self, lr: float, rates: dict[str, float]) -> None:
        state = self.progress
        values: dict[str, Any] = {key: total / self._summed[key] for key, total in self._sums.items()}
        values |= {"lr": lr, **rates, "skipped": state.skipped, "elapsed_s": round(state.elapsed_s, 2)}
        values["epoch"] = state.position / self._parts.config.train.epoch_size
        if self._parts.log:
            self._parts.log.write("train", state.step, values)
        self._sums, self._summed = {}, Counter()
        self._throughput.reset()

    def _validate(self, kind: str = "validation") -> dict[str, float] | None:
        """Validate the network as it is; keep it as the best if it is (the average is not compared)."""
        parts, state = self._parts, self.progress
        judge = parts.task.judge
        if judge is None or (kind == "validation" and state.validated_step == state.step):
            return None
        parts.bar.say(f"step {state.step}: {kind.replace('_', ' ')} …")
        asked = parts.stop
        wanted = parts.config.log.audio_samples if parts.log else 0
        alone = parts.fabric.world_size == 1
        with self._weights(kind):
            verdict = judge.judge(parts.task.network, parts.fabric, wanted, lambda: asked.requested and alone)
        if verdict is None:
            self._interrupt()
        numbers = verdict.numbers
        if parts.log:
            parts.log.write(kind, state.step, numbers)
            for example in verdict.examples:
                for name in ("mixture", "reference", "estimate"):
                    waveform = getattr(example, name)
                    parts.log.audio(f"{example.name}/{name}", state.step, waveform, parts.task.sample_rate)
        parts.bar.say(f"step {state.step}: {judge.describe(numbers)}")
        if kind == "validation":
            self._compare(numbers)
        self._throughput.reset()
        return numbers

    def _compare(self, numbers: dict[str, float]) -> None:
        """Keep the network as the best, if it is; count how long nothing has become better."""
        parts, state = self._parts, self.progress
        judge, schedule = parts.task.judge, parts.config.schedule
        assert judge is not None
        state.validated_step = state.step
        value = numbers[judge.measure]
        if math.isfinite(value) and parts.fabric.is_global_zero:
            best = BestSnapshots(parts.experiment.best, parts.config.checkpoint.keep_best, judge.lower_is_better)
            with self._weights():
                best.offer(state.step, value, parts.task.step.state_dict())
        is_better = value < state.best if judge.lower_is_better else value > state.best
        if math.isfinite(value) and (is_better or state.best_step < 0):
            state.best, state.best_step = value, state.step
            state.since_best = state.waited = 0
            if parts.fabric.is_global_zero:
                with self._weights():
                    parts.results.save("best", parts.task.step.state_dict(), state, numbers)
            return
        state.since_best += 1
        state.waited += 1
        if schedule.name == "plateau" and state.waited >= schedule.patience:
            state.falls, state.waited = state.falls + 1, 0

    def _weights(self, kind: str = "validation") -> AbstractContextManager[None]:
        """The weights that are judged and saved: their moving average, if one is kept."""
        average = self._parts.machinery.average
        return average.applied() if average is not None and kind == "validation" else nullcontext()

    def _save(self, snapshot: bool = True) -> None:
        """Write weights and state: everything a resumed run needs, the state last."""
        parts, state = self._parts, self.progress
        adversaries = adversary_states(parts.task.adversaries, parts.fabric)
        if parts.fabric.is_global_zero:
            with self._weights():
                weights = parts.task.step.state_dict()
                if snapshot:
                    Snapshots(parts.experiment.snapshots, parts.config.checkpoint.keep).save(state.step, weights)
                parts.results.save("last", weights, state)
            machinery, averaged = parts.machinery, parts.machinery.average
            average = averaged.state_dict() if averaged else {}
            weights, optimizer = parts.task.step.state_dict(), machinery.optimizer.state_dict()
            saved = TrainingState(state, weights, optimizer, average, adversaries)
            save_state(parts.experiment.state, saved)
        self._saved_step = state.step
        parts.fabric.barrier()

    def _where(self) -> Where:
        device, saves_memory = str(self._parts.fabric.device), self._parts.config.train.gradient_checkpointing
        return Where(self.progress.step, self._saved_step, device, self._last_batch, saves_memory)

    def _interrupt(self) -> None:
        config = self._parts.config
        self._save(snapshot=self.progress.step % config.checkpoint.every_steps == 0)
        steps = config.train.steps
        raise TrainingInterrupted(
            f"stopped at step {self.progress.step} of {steps}; the state is saved in "
            f"{self._parts.experiment.folder}: run the same command again to go on"
        )

    def _finish(self) -> None:
        """The end of a run: a last validation, a last checkpoint, the average of the newest snapshots."""
        parts, state = self._parts, self.progress
        numbers = self._validate()
        self._save()
        snapshots = Snapshots(parts.experiment.snapshots, parts.config.checkpoint.keep)
        count = min(parts.config.checkpoint.average, len(snapshots))
        found = snapshots.read(count)
        count = len(found)
        parts.task.step.load_state_dict(average_state_dicts(found))
        numbers = self._validate("validation_average") if count > 1 else numbers
        if parts.fabric.is_global_zero:
            parts.results.save("average", parts.task.step.state_dict(), state, numbers, averaged=count)
        parts.fabric.barrier()
        early = f" (early: {state.since_best} validations without a better one)" if self.ends_early else ""
        parts.bar.say(
            f"finished: {state.step} steps{early} in {spell_duration(state.elapsed_s)}, {state.skipped} skipped; "
            f"the model is {parts.experiment.checkpoints / 'average'}"
        )


def share_done(loop: TrainLoopConfig, state: Progress) -> float:
    """Share of a run that is done where it stands, 0 to 1; 1 too where it ends early."""
    return 1.0 if _ends_early(loop, state) else progress(state.step, loop.steps, state.elapsed_s, loop.max_minutes)


def _ends_early(loop: TrainLoopConfig, state: Progress) -> bool:
    return loop.patience is not None and state.since_best >= loop.patience


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
            held.enter_context(folder_lock(experiment.folder, "training", "experiment"))
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
