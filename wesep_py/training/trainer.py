"""The training loop: `train` sets a run up, resumes it if it has a state, and runs it to its end.

train ─► task, data, optimiser, experiment folder, saved state or initial weights
      ─► Trainer.run, until all steps are done:
             step        next batches ─► Stepper.step ─► progress
             log         every log.every_steps
             validate    every validation.every_steps; the best weights become the checkpoint "best"
             save        every checkpoint.every_steps: training state, snapshot, checkpoint "last"
         then a last validation, a last save, and the checkpoint "average"
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning_fabric import Fabric

from wesep_py.common.errors import WesepError
from wesep_py.common.folders import folder_lock
from wesep_py.training.batches import describe_batch
from wesep_py.training.devices import check_machine, describe_precision, make_fabric
from wesep_py.training.experiment import Experiment, TrainedModels
from wesep_py.training.interruptions import (
    RunPosition,
    StopRequest,
    TrainingInterrupted,
    catch_signals,
    explain_faults,
)
from wesep_py.training.optimisation import learning_rate_factor, schedule_progress
from wesep_py.training.provenance import ancestors, data_hashes, write_provenance
from wesep_py.training.run_log import RunLog, Throughput, TrainingBar, check_trackers, format_duration, open_log
from wesep_py.training.snapshots import BestSnapshots, Snapshots, average_state_dicts
from wesep_py.training.state import (
    Progress,
    capture_state,
    load_initial_weights,
    load_state,
    restore_state,
    save_state,
)
from wesep_py.training.step import Optimisation, StepResult, set_up_optimisation
from wesep_py.training.task import Task
from wesep_py.training.training_config import RunConfig, TrainLoopConfig, load_config
from wesep_py.training.training_data import make_dataset, open_batches, read_training_data


@dataclass(frozen=True)
class TrainResult:
    """Result of a run.

    Attributes:
        experiment: its folder, which `wesep_py.load` takes.
        step: number of optimiser steps done.
        skipped: number of these that were skipped because they were not finite.
        best: result of the best validation, or `None`.
        measure: name of this result (`si_sdri`, in dB); empty without a validation.
        was_finished: whether the run was finished before.
    """

    experiment: Path
    step: int
    skipped: int
    best: float | None
    measure: str
    was_finished: bool


def train(config: RunConfig | Mapping[str, Any] | str | Path, overrides: Sequence[str] = ()) -> TrainResult:
    """Train an extractor or a speaker encoder, or resume a run that was stopped.

    A run is resumed if the folder of its experiment holds a state. The configuration must then be the same, except for
    keys that change no step (`experiment.CHANGEABLE_KEYS`). On the CPU, a resumed run ends with exactly the same
    weights as an uninterrupted one (without `train.max_minutes`, and with the same number of threads).

    Args:
        config: path of a YAML file, or a mapping of the same form.
        overrides: `key=value`, for a YAML file.

    Returns:
        Folder, steps and best validation.

    Raises:
        ConfigError: an unknown key, a wrong type or value, or another configuration than the run had before.
        InputError: recordings or trial lists are missing or malformed.
        TrainingInterrupted: Ctrl-C or SIGTERM; the state is saved.
        WesepError: no finite loss for `train.max_nonfinite` steps in a row.

    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from wesep_py import audio
    >>> folder, rng = Path(tempfile.mkdtemp()), np.random.default_rng(0)
    >>> for name in ("anna/1", "anna/2", "bert/1", "bert/2"):  # noise stands for speech here
    ...     (folder / name).parent.mkdir(exist_ok=True)
    ...     audio.write(folder / f"{name}.wav", 0.1 * rng.standard_normal(32000, np.float32), 16000)
    >>> from wesep_py.data import read_speaker_folders, write_manifest
    >>> write_manifest(read_speaker_folders(folder), folder / "speech.jsonl")
    >>> config = {
    ...     "experiment": str(folder / "exp"),
    ...     "model": {"backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1}, "cues": [{"name": "tf_map"}]},
    ...     "data": {"root": str(folder), "train": ["speech.jsonl"], "workers": 0},
    ...     "simulation": {"duration_s": 1.0, "enrollment": {"duration_s": [0.5, 1.0]}},
    ...     "train": {"steps": 1, "batch_size": 1, "device": "cpu"},
    ... }
    >>> train(config).step  # or a file: train("train.yaml", ["data.root=data", "optim.lr=0.0005"])
    1
    """
    source = Path(config) if isinstance(config, (str, Path)) else None
    if not isinstance(config, RunConfig):
        config = load_config(config, overrides)
    check_machine(config)
    with catch_signals() as stop, ExitStack() as stack:
        fabric = make_fabric(config.train)
        fabric.launch()

        # Everything that can be wrong with configuration, data and network is found before anything is written.
        experiment = Experiment(config.experiment)
        experiment.check(config, source)
        check_trackers(config.log.to)
        task, data = read_training_data(config, fabric)
        bar = TrainingBar(enabled=fabric.is_global_zero)
        dataset = make_dataset(config, task, data, fabric, bar)
        hashes = data_hashes(config.data)
        initial = None
        if config.init is not None and not experiment.has_state():
            initial = load_initial_weights(task.network, config.init)
        optimisation = set_up_optimisation(config, task, fabric)

        # From here on this run owns the folder. Another run may have written to it before the lock: check again.
        if fabric.is_global_zero:
            experiment.make()
            stack.enter_context(folder_lock(experiment.folder, "training", "experiment"))
        fabric.barrier()
        experiment.check(config)
        state = load_state(experiment.state)
        progress = state.progress if state else Progress()
        went_on_from = initial.lineage if initial else ancestors(experiment.provenance_file)
        models = TrainedModels(experiment, config, task, data.corpus, hashes, went_on_from)
        if fabric.is_global_zero:
            experiment.write_config(config)
            for folder in (experiment.snapshots, experiment.best):
                Snapshots(folder, config.checkpoint.keep).drop_after(progress.step)
        for adversary in task.adversaries.values():
            stack.callback(adversary.close)
        if state is not None:
            restore_state(state, task, optimisation, fabric, experiment.state)
        optimisation.module.train()

        trainer = Trainer(config, task, optimisation, experiment, models, fabric, bar, stop, progress)
        bar.begin(trainer.done)
        was_finished = trainer.done >= 1.0 and models.is_final(progress)
        if was_finished:
            bar.print_line(
                f"{experiment.folder}: is finished, after {progress.step} steps; "
                "for more, raise train.steps or train.max_minutes"
            )
        else:
            if fabric.is_global_zero:
                for name in write_provenance(experiment.provenance_file, progress.step, hashes, went_on_from):
                    bar.print_line(f"{name}: has changed since the run started; the run can no longer be reproduced")
                trainer.log = stack.enter_context(closing(open_log(config, experiment, progress.step)))
            with bar:
                bar.print_line(_describe_run(config, task, models, progress, fabric))
                if initial is not None:
                    bar.print_line(str(initial))
                trainer.run(open_batches(config, task, dataset, progress, fabric, bar.print_line))
    best, measure = progress.best if progress.best_step >= 0 else None, task.validator.measure if task.validator else ""
    return TrainResult(experiment.folder, progress.step, progress.skipped, best, measure, was_finished)


def _describe_run(config: RunConfig, task: Task, models: TrainedModels, progress: Progress, fabric: Fabric) -> str:
    loop = config.train
    action = f"resuming at step {progress.step}" if progress.step else "training"
    num_parameters = sum(p.numel() for p in task.network.parameters() if p.requires_grad)
    return (
        f"{Path(config.experiment)}: {action} of {loop.steps}; "
        f"{num_parameters / 1e6:.2f} M parameters; {models.corpus}; "
        f"batches of {loop.batch_size} mixtures; {describe_precision(loop.precision, fabric.device.type)}"
    )


class Trainer:
    """Runs the training loop from the run's progress to its end.

    Args:
        config: of the run.
        task: what is trained.
        optimisation: takes the steps.
        experiment: folder of the run.
        models: writes the checkpoints.
        fabric: devices and processes.
        bar: progress bar.
        stop: whether a signal requested the run to stop.
        progress: of the run; changed in place.

    Attributes:
        log: where numbers are written; only the first process has one.
    """

    def __init__(
        self,
        config: RunConfig,
        task: Task,
        optimisation: Optimisation,
        experiment: Experiment,
        models: TrainedModels,
        fabric: Fabric,
        bar: TrainingBar,
        stop: StopRequest,
        progress: Progress,
    ) -> None:
        self.config = config
        self.task = task
        self.optimisation = optimisation
        self.experiment = experiment
        self.models = models
        self.fabric = fabric
        self.bar = bar
        self.stop = stop
        self.progress = progress
        self.log: RunLog | None = None
        self._throughput = Throughput()
        self._loss_sums: dict[str, float] = {}
        self._loss_counts: Counter[str] = Counter()
        self._saved_step = progress.step
        self._must_stop = False
        self._last_batch = "no batch"
        self._elapsed_before = progress.elapsed_s
        self._session_start = time.perf_counter()

    @property
    def done(self) -> float:
        """Share of the run that is done, 0 to 1; 1 if it ended early."""
        return fraction_done(self.config.train, self.progress)

    def run(self, batches: Iterator[dict[str, torch.Tensor]]) -> None:
        """Train to the end.

        Args:
            batches: of this rank, from `progress.position` on.

        Raises:
            TrainingInterrupted: a stop was requested; the state is saved.
            WesepError: too many steps in a row were not finite, memory ran out, or the disk is full.
        """
        with explain_faults(self._position):
            self._loop(batches)

    def _loop(self, batches: Iterator[dict[str, torch.Tensor]]) -> None:
        config, progress = self.config, self.progress
        validate_every = self.task.validator.every_steps if self.task.validator else 0
        # A run that was stopped at a validation step saved its state before the validation.
        if validate_every and progress.step and progress.step % validate_every == 0:
            self._validate()
        self._throughput.reset()
        while self.done < 1.0:
            self._step(batches)
            if self._must_stop:
                self._interrupt()
            if validate_every and progress.step % validate_every == 0:
                self._validate()
            if progress.step % config.checkpoint.every_steps == 0:
                self._save()
        self._finish()

    def _step(self, batches: Iterator[dict[str, torch.Tensor]]) -> None:
        config, progress = self.config, self.progress
        lr = config.optim.lr * learning_rate_factor(config.schedule, progress.step, self.done, progress.falls)
        self.task.begin_step(progress.step)
        self.optimisation.freezer.begin_step(progress.step)
        step_batches = (self._next_batch(batches) for _ in range(config.train.accumulate))
        result = self.optimisation.stepper.step(step_batches, progress.step, lr, self._shared_numbers)
        # Means over ranks, so that all ranks stop at the same step and see the same elapsed time.
        share_of_stops, progress.elapsed_s = result.shared
        self._must_stop = share_of_stops > 0
        progress.step += 1
        progress.position += config.train.batch_size * config.train.accumulate * self.fabric.world_size
        self._record(result)
        is_log_step = progress.step % config.log.every_steps == 0
        rates = self._throughput.rates()
        text = (
            f"step {progress.step}/{config.train.steps}  loss {result.losses['loss']:.3f}  "
            f"{rates['audio_s_per_s']:.1f} audio s/s  data wait {100 * rates['data_wait']:.0f} %"
        )
        self.bar.update(self.done, text, is_log_step)
        if is_log_step:
            self._write_log(lr, rates)

    def _next_batch(self, batches: Iterator[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        start = time.perf_counter()
        batch = next(batches)
        self._last_batch = describe_batch(batch, self.task.sample_rate)
        self._throughput.add_wait(time.perf_counter() - start)
        seconds = batch["mixture"].numel() / self.task.sample_rate
        self._throughput.add_step(seconds * self.fabric.world_size)
        return batch

    def _shared_numbers(self) -> list[float]:
        """Return this rank's stop request (0 or 1) and elapsed time, which are averaged over ranks."""
        elapsed_s = self._elapsed_before + time.perf_counter() - self._session_start
        return [float(self.stop.requested), elapsed_s]

    def _record(self, result: StepResult) -> None:
        """Update the moving average of the weights and the sums for the log; count skipped steps."""
        progress, limit = self.progress, self.config.train.max_nonfinite
        if result.stepped:
            if self.optimisation.average:
                self.optimisation.average.update()
            progress.skipped_in_a_row = 0
            for key, value in {**result.losses, "grad_norm": result.grad_norm}.items():
                self._loss_sums[key] = self._loss_sums.get(key, 0.0) + value
                self._loss_counts[key] += 1
            return
        progress.skipped += 1
        progress.skipped_in_a_row += 1
        if progress.skipped_in_a_row >= limit:
            raise WesepError(
                f"step {progress.step}: loss or gradient was not finite {limit} steps in a row; lower optim.lr or "
                f"optim.clip_norm (the state of step {self._saved_step} is in {self.experiment.state})"
            )

    def _write_log(self, lr: float, rates: dict[str, float]) -> None:
        progress = self.progress
        values: dict[str, Any] = {key: total / self._loss_counts[key] for key, total in self._loss_sums.items()}
        values |= {"lr": lr, **rates, "skipped": progress.skipped, "elapsed_s": round(progress.elapsed_s, 2)}
        values["epoch"] = progress.position / self.config.train.epoch_size
        if self.log:
            self.log.write("train", progress.step, values)
        self._loss_sums, self._loss_counts = {}, Counter()
        self._throughput.reset()

    def _validate(self, kind: str = "validation") -> dict[str, float] | None:
        """Validate the current weights, or their moving average; update the best checkpoint.

        Args:
            kind: `validation`, or `validation_average` for the averaged snapshots, which cannot become the best.
        """
        progress, validator = self.progress, self.task.validator
        if validator is None or (kind == "validation" and progress.validated_step == progress.step):
            return None
        self.bar.print_line(f"step {progress.step}: {kind.replace('_', ' ')} …")
        num_examples = self.config.log.audio_samples if self.log else 0
        # Only a single process may stop here: several sum their numbers up, and would wait for one that stopped.
        is_alone = self.fabric.world_size == 1
        with self._saved_weights(kind):
            result = validator.validate(
                self.task.network, self.fabric, num_examples, lambda: self.stop.requested and is_alone
            )
        if result is None:
            self._interrupt()
        if self.log:
            self.log.write(kind, progress.step, result.numbers)
            for example in result.examples:
                for name in ("mixture", "reference", "estimate"):
                    waveform = getattr(example, name)
                    self.log.audio(f"{example.name}/{name}", progress.step, waveform, self.task.sample_rate)
        self.bar.print_line(f"step {progress.step}: {validator.describe(result.numbers)}")
        if kind == "validation":
            self._update_best(result.numbers)
        self._throughput.reset()
        return result.numbers

    def _update_best(self, numbers: dict[str, float]) -> None:
        """Save the weights if they are among the best; count validations without improvement."""
        progress, validator, schedule = self.progress, self.task.validator, self.config.schedule
        assert validator is not None
        progress.validated_step = progress.step
        value = numbers[validator.measure]
        if math.isfinite(value) and self.fabric.is_global_zero:
            keep_best = self.config.checkpoint.keep_best
            snapshots = BestSnapshots(self.experiment.best, keep_best, validator.lower_is_better)
            with self._saved_weights():
                snapshots.offer(progress.step, value, self.task.step.state_dict())
        is_better = value < progress.best if validator.lower_is_better else value > progress.best
        if math.isfinite(value) and (is_better or progress.best_step < 0):
            progress.best, progress.best_step = value, progress.step
            progress.since_best = progress.waited = 0
            if self.fabric.is_global_zero:
                with self._saved_weights():
                    self.models.save("best", self.task.step.state_dict(), progress, numbers)
            return
        progress.since_best += 1
        progress.waited += 1
        if schedule.name == "plateau" and progress.waited >= schedule.patience:
            progress.falls, progress.waited = progress.falls + 1, 0

    def _saved_weights(self, kind: str = "validation") -> AbstractContextManager[None]:
        """Put the weights that are validated and saved into the network: their moving average, if there is one."""
        average = self.optimisation.average
        return average.applied() if average is not None and kind == "validation" else nullcontext()

    def _save(self, snapshot: bool = True) -> None:
        """Write snapshot, checkpoint `last` and training state; the state comes last, so it never runs ahead."""
        progress = self.progress
        state = capture_state(self.task, self.optimisation, progress, self.fabric)
        if self.fabric.is_global_zero:
            with self._saved_weights():
                weights = self.task.step.state_dict()
                if snapshot:
                    Snapshots(self.experiment.snapshots, self.config.checkpoint.keep).save(progress.step, weights)
                self.models.save("last", weights, progress)
            save_state(self.experiment.state, state)
        self._saved_step = progress.step
        self.fabric.barrier()

    def _position(self) -> RunPosition:
        device, saves_memory = str(self.fabric.device), self.config.train.gradient_checkpointing
        return RunPosition(self.progress.step, self._saved_step, device, self._last_batch, saves_memory)

    def _interrupt(self) -> NoReturn:
        """Save the state and end the run.

        Raises:
            TrainingInterrupted: always.
        """
        progress = self.progress
        self._save(snapshot=progress.step % self.config.checkpoint.every_steps == 0)
        raise TrainingInterrupted(
            f"stopped at step {progress.step} of {self.config.train.steps}; the state is saved in "
            f"{self.experiment.folder}: run the same command again to resume"
        )

    def _finish(self) -> None:
        """Validate and save once more; average the newest snapshots, validate and save the average."""
        progress, keep, step = self.progress, self.config.checkpoint.keep, self.task.step
        numbers = self._validate()
        self._save()
        snapshots = Snapshots(self.experiment.snapshots, keep)
        state_dicts = snapshots.read(min(self.config.checkpoint.average, len(snapshots)))
        step.load_state_dict(average_state_dicts(state_dicts))
        if len(state_dicts) > 1:
            numbers = self._validate("validation_average")
        if self.fabric.is_global_zero:
            self.models.save("average", step.state_dict(), progress, numbers, averaged=len(state_dicts))
        self.fabric.barrier()
        is_early = _ends_early(self.config.train, progress)
        early = f" (early: {progress.since_best} validations without a better one)" if is_early else ""
        self.bar.print_line(
            f"finished: {progress.step} steps{early} in {format_duration(progress.elapsed_s)}, {progress.skipped} "
            f"skipped; the model is {self.experiment.checkpoints / 'average'}"
        )


def fraction_done(loop: TrainLoopConfig, progress: Progress) -> float:
    """Return the share of a run that is done, 0 to 1; 1 if it ended early."""
    if _ends_early(loop, progress):
        return 1.0
    return schedule_progress(progress.step, loop.steps, progress.elapsed_s, loop.max_minutes)


def _ends_early(loop: TrainLoopConfig, progress: Progress) -> bool:
    return loop.patience is not None and progress.since_best >= loop.patience
