"""Dry run (`wesep train --dry-run`): check configuration and data, take one step, write nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from wesep_py.common.errors import WesepError
from wesep_py.training.devices import check_machine, make_fabric
from wesep_py.training.experiment import Experiment
from wesep_py.training.interruptions import catch_signals
from wesep_py.training.run_log import TrainingBar, check_trackers
from wesep_py.training.state import Progress, load_initial_weights, load_state
from wesep_py.training.step import set_up_optimisation
from wesep_py.training.trainer import fraction_done
from wesep_py.training.training_config import RunConfig, load_config
from wesep_py.training.training_data import make_dataset, open_batches, read_training_data


@dataclass(frozen=True)
class DryRun:
    """Result of a dry run.

    Attributes:
        experiment: folder that the run would fill.
        step: at which it would start or resume.
        parameters: number of trained parameters.
        speakers, hours: of the training speech.
        losses: of the step.
        grad_norm: of the step, before clipping.
        data_s: seconds that one process took to make the step's data.
        step_s: seconds that the step took; the first step is slower than the following ones.
        memory_gib: peak memory of the GPU in GiB; `None` on the CPU.
        initialised: what was loaded from `init.checkpoint`; `None` without one.
        finished: whether the run is finished, so that nothing would be trained.
    """

    experiment: Path
    step: int
    parameters: int
    speakers: int
    hours: float
    losses: dict[str, float]
    grad_norm: float
    data_s: float
    step_s: float
    memory_gib: float | None
    initialised: str | None
    finished: bool = False


def dry_run(config: RunConfig | Mapping[str, Any] | str | Path, overrides: Sequence[str] = ()) -> DryRun:
    """Check a run's configuration and data, and take one step.

    Every list is read and every recording is looked for. The mixtures of the next step are made, and a network that is
    then discarded learns from them. No folder and no file is written, not even `data.packed`.

    Args:
        config: as for `train`.
        overrides: as for `train`.

    Raises:
        ConfigError, InputError, CheckpointError: as `train`.
        WesepError: loss or gradient of the step is not finite.
    """
    source = Path(config) if isinstance(config, (str, Path)) else None
    if not isinstance(config, RunConfig):
        config = load_config(config, overrides)
    check_machine(config)
    experiment = Experiment(config.experiment)
    experiment.check(config, source)
    config = replace(config, data=replace(config.data, workers=0))
    with catch_signals():
        fabric = make_fabric(config.train)
        fabric.launch()
        bar = TrainingBar(enabled=fabric.is_global_zero)
        check_trackers(config.log.to)
        task, data = read_training_data(config, fabric)
        state = load_state(experiment.state)
        progress = state.progress if state else Progress()
        dataset = make_dataset(config, task, data, fabric, bar, may_pack=False)
        initial = None
        if config.init is not None and state is None:
            initial = load_initial_weights(task.network, config.init)
        optimisation = set_up_optimisation(config, task, fabric)
        optimisation.module.train()
        optimisation.freezer.begin_step(progress.step)
        task.begin_step(progress.step)
        # A finished run has no batches left; with its step set to 0 there are always enough for one step.
        batches = open_batches(config, task, dataset, replace(progress, step=0), fabric, bar.print_line)
        start = time.perf_counter()
        step_batches = [next(batches) for _ in range(config.train.accumulate)]
        data_ready = time.perf_counter()
        result = optimisation.stepper.step(step_batches, progress.step, config.optim.lr)
        step_done = time.perf_counter()
        for adversary in task.adversaries.values():
            adversary.close()
    if not result.stepped:
        raise WesepError(
            f"the step's loss ({result.losses['loss']:.3g}) or gradient ({result.grad_norm:.3g}) is not finite; "
            "look at the data, or lower optim.lr"
        )
    on_gpu = fabric.device.type == "cuda"
    return DryRun(
        experiment=experiment.folder,
        step=progress.step,
        parameters=sum(p.numel() for p in task.step.parameters() if p.requires_grad),
        speakers=data.corpus.speakers,
        hours=data.corpus.hours,
        losses=result.losses,
        grad_norm=result.grad_norm,
        data_s=data_ready - start,
        step_s=step_done - data_ready,
        memory_gib=torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None,
        initialised=None if initial is None else str(initial),
        finished=fraction_done(config.train, progress) >= 1.0,
    )
