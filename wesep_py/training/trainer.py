"""The loop: steps, logs, validation, saving, until the run is done or asked to stop."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric

from wesep_py.errors import WesepError
from wesep_py.training.adversaries import adversary_states
from wesep_py.training.average import BestSnapshots, Snapshots, average_state_dicts
from wesep_py.training.batches import describe_batch
from wesep_py.training.config import RunConfig, TrainLoopConfig
from wesep_py.training.experiment import Experiment
from wesep_py.training.faults import Where, explain_faults
from wesep_py.training.interrupt import StopRequest, TrainingInterrupted
from wesep_py.training.logs import RunLog
from wesep_py.training.progress import Throughput, TrainingBar, spell_duration
from wesep_py.training.results import Results
from wesep_py.training.schedule import learning_rate_factor, progress
from wesep_py.training.setup import Machinery
from wesep_py.training.state import Progress, TrainingState, save_state
from wesep_py.training.step import StepResult
from wesep_py.training.task import Task


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
