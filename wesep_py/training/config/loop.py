"""How long, on what, from where, what is kept and what is logged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from wesep_py.training.config.ranges import at_least, positive


@dataclass(frozen=True)
class InitConfig:
    """Another run's weights to start from; a run that is resumed goes on from its own.

    Args:
        checkpoint: a checkpoint folder, or an experiment folder.
        strict: every tensor of the network and of the checkpoint has to fit; otherwise what fits is taken, and the rest
            of the network is freshly initialised.
        skip: patterns of names, with `*` for anything, of what is not taken although it fits.
    """

    checkpoint: str
    strict: bool = False
    skip: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class TrainLoopConfig:
    """How long, how much at once, and on what.

    Args:
        steps: optimiser steps of the whole run.
        max_minutes: a limit of time; the schedule's progress is then `max(step / steps, elapsed / limit)`, so that
            it reaches its end either way. A run with a limit depends on the machine's speed, so the law that a
            resumed run ends with the same weights as an unbroken one holds only without it.
        batch_size: mixtures a device takes at once.
        accumulate: batches whose gradients make one step.
        targets_per_mixture: `one`: the recipe's target; `all`: every speaker of a mixture is a target in the
            same batch, which then has as many items as its mixtures have speakers.
        epoch_size: mixtures in an epoch; a sample is a function of (seed, epoch, index).
        precision: `bf16-mixed` runs the network's matrix products and LSTMs in bfloat16, weights and losses stay in
            float32; `32-true` runs everything in float32; `auto` takes the first where the device supports it
            (`wesep_py.half_precision`), else the second.
        device: `auto` takes a GPU where there is one.
        threads: of this process on the CPU; none leaves it to torch.
        max_nonfinite: so many steps in a row without a finite loss and gradient end the run with an error.
        patience: so many validations in a row that are no better than the best before end the run early; none:
            it goes to its end.
        compile: the blocks of the backbone go through `torch.compile`, which needs a C++ compiler; the first steps take
            minutes.
        gradient_checkpointing: the blocks of the backbone keep their inputs only, and are computed again for the
            gradients: less memory, about a third more time.
    """

    steps: int = 100_000
    max_minutes: float | None = None
    batch_size: int = 8
    accumulate: int = 1
    targets_per_mixture: Literal["one", "all"] = "one"
    epoch_size: int = 20_000
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None
    max_nonfinite: int = 20
    patience: int | None = None
    compile: bool = False
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        names = ("steps", "batch_size", "accumulate", "epoch_size", "max_nonfinite")
        at_least(1, {name: getattr(self, name) for name in names})
        if self.max_minutes is not None:
            positive({"max_minutes": self.max_minutes})
        if self.threads is not None:
            at_least(1, {"threads": self.threads})
        if self.patience is not None:
            at_least(1, {"patience": self.patience})


@dataclass(frozen=True)
class CheckpointConfig:
    """What is kept, and how often.

    Args:
        every_steps: the training state, and a snapshot of the weights, are written so often, and at the end.
        keep: snapshots of the weights that stay on disk.
        keep_best: so many snapshots of the best validations stay too, for `wesep average --best`.
        average: the newest so many snapshots are averaged at the end of the run.
    """

    every_steps: int = 1000
    keep: int = 5
    keep_best: int = 5
    average: int = 5

    def __post_init__(self) -> None:
        at_least(1, {"every_steps": self.every_steps, "average": self.average})
        at_least(0, {"keep_best": self.keep_best})
        at_least(self.average, {"keep": self.keep}, "it cannot be less than checkpoint.average")


@dataclass(frozen=True)
class LogConfig:
    """What is logged, beside `log.jsonl`, which is always written.

    Args:
        every_steps: how often numbers are.
        audio_samples: so many validation trials as audio and spectrograms.
        to: further places: `tensorboard`; `wandb` and `trackio`, which are extras to install.
        project: the project's name, at `wandb` and `trackio`.
    """

    every_steps: int = 50
    audio_samples: int = 3
    to: list[Literal["tensorboard", "wandb", "trackio"]] = field(default_factory=lambda: ["tensorboard"])
    project: str = "wesep-py"

    def __post_init__(self) -> None:
        at_least(1, {"every_steps": self.every_steps})
        at_least(0, {"audio_samples": self.audio_samples})
