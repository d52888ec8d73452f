"""A run without its results: configuration, data and one step are tried, and nothing is written."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from wesep_py.common.errors import WesepError
from wesep_py.training.devices import make_fabric
from wesep_py.training.experiment import Experiment
from wesep_py.training.run_log import TrainingBar, check_trackers
from wesep_py.training.setup import assemble, check_machine, gather, make_dataset, open_batches, start_from
from wesep_py.training.state import Progress, load_state
from wesep_py.training.trainer import catch_signals, share_done
from wesep_py.training.training_config import RunConfig, load_config


@dataclass(frozen=True)
class DryRun:
    """What one step of a run was like.

    Attributes:
        experiment: the folder that the run would fill.
        step: at which it would begin or go on.
        parameters: that are trained.
        speakers, hours: of the speech that is learned from.
        losses: of the step.
        grad_norm: of the step, before clipping.
        data_s: seconds it took to make the step's data in one process.
        step_s: seconds the step took; the first is slower than those after it.
        memory_gib: the GPU's, at most; `None` on the CPU.
        initialised: what was taken over from `init.checkpoint`; `None` without one.
        finished: whether the run is done, so that nothing would be trained.
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
    """Try a run's configuration, its data and one step of it.

    Every list is read and every recording looked for; the mixtures of the first step are made, and learned from by a
    network that is then forgotten. No folder and no file is written, `data.packed` neither.

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
        materials = gather(config, fabric)
        state = load_state(experiment.state)
        at = state.progress if state else Progress()
        dataset = make_dataset(config, materials, fabric, bar, may_pack=False)
        taken = None if state else start_from(config, materials.task)
        machinery = assemble(config, materials.task, fabric)
        machinery.module.train()
        machinery.freezer.begin_step(at.step)
        materials.task.begin_step(at.step)
        first = replace(at, step=0)
        batches = open_batches(config, materials.task, dataset, first, fabric, bar.say)
        start = time.perf_counter()
        step_batches = [next(batches) for _ in range(config.train.accumulate)]
        made = time.perf_counter()
        result = machinery.stepper.step(step_batches, at.step, config.optim.lr)
        taken_s = time.perf_counter() - made
        for adversary in materials.task.adversaries.values():
            adversary.close()
    if not result.stepped:
        raise WesepError(
            f"the step's loss ({result.losses['loss']:.3g}) or gradient ({result.grad_norm:.3g}) is not finite; "
            "look at the data, or lower optim.lr"
        )
    on_gpu = fabric.device.type == "cuda"
    return DryRun(
        experiment.folder,
        at.step,
        sum(p.numel() for p in materials.task.step.parameters() if p.requires_grad),
        materials.corpus.speakers,
        materials.corpus.hours,
        result.losses,
        result.grad_norm,
        made - start,
        taken_s,
        torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None,
        None if taken is None else str(taken),
        share_done(config.train, at) >= 1.0,
    )
