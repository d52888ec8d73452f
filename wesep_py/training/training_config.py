"""Configuration of a training run: the keys of its YAML, with ranges and defaults, and `load_config`.

| key of the YAML | class |
| --- | --- |
| the whole | `TrainConfig` (`task: extraction`), `SpeakerTrainConfig` (`speaker`), `PresenceTrainConfig` (`presence`) |
| `optim`, `schedule` | `OptimConfig` with `GroupConfig`, `ScheduleConfig` |
| `train`, `checkpoint`, `log`, `init` | `TrainLoopConfig`, `CheckpointConfig`, `LogConfig`, `InitConfig` |
| `self_enrollment` | `SelfEnrollmentConfig` |

`data` and `validation` are in `wesep_py.training.data_config`, `model` and `speaker` in `wesep_py.network`,
`simulation` in `wesep_py.simulation`, losses in `wesep_py.training.losses`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from wesep_py.common.config import at_least, construct, load_yaml, positive, to_plain
from wesep_py.common.errors import ConfigError, nearest
from wesep_py.common.yamlfiles import read_yaml
from wesep_py.network.model_config import ModelConfig
from wesep_py.network.personal_vad import PersonalVADConfig
from wesep_py.network.speaker import SpeakerConfig
from wesep_py.simulation import SimulationConfig
from wesep_py.simulation.batched_effects import check_renders_on_device
from wesep_py.training.data_config import DataConfig, PresenceValidationConfig, ValidationConfig, VerificationConfig
from wesep_py.training.muon import Muon


@dataclass(frozen=True)
class InitConfig:
    """Weights of another run to start from. A run that is resumed continues from its own state.

    Args:
        checkpoint: a checkpoint folder, or an experiment folder.
        strict: every tensor of the network and of the checkpoint must fit; otherwise the tensors that fit are loaded,
            and the remaining ones of the network are freshly initialised.
        skip: patterns of names, with `*` for anything, of tensors that are not loaded even if they fit.
    """

    checkpoint: str
    strict: bool = False
    skip: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class TrainLoopConfig:
    """Length of the run, size of its steps, and device.

    Args:
        steps: number of optimiser steps of the whole run.
        max_minutes: time limit; the progress of the schedule is then `max(step / steps, elapsed / limit)`, so that it
            reaches its end either way. A run with a limit depends on the speed of the machine; only without a limit
            does a resumed run end with the same weights as an uninterrupted one.
        batch_size: number of mixtures that a device takes at once.
        accumulate: number of batches whose gradients make one step.
        targets_per_mixture: `one`: the recipe's target; `all`: each speaker of a mixture is a target in the same batch,
            which then has as many items as its mixtures have speakers.
        epoch_size: number of mixtures in an epoch; a sample is a function of (seed, epoch, index).
        precision: `bf16-mixed` computes the network's matrix products and LSTMs in bfloat16, with weights and losses in
            float32; `32-true` computes everything in float32; `auto` selects the first if the device supports it
            (`wesep_py.common.half_precision`), else the second.
        device: `auto` selects a GPU if there is one.
        threads: number of CPU threads of this process; `None`: torch's default.
        max_nonfinite: number of steps in a row without a finite loss and gradient that end the run with an error.
        patience: number of validations in a row without improvement that end the run early; `None`: never.
        compile: whether the blocks of the backbone are compiled by `torch.compile`, which needs a C++ compiler; the
            first steps take minutes.
        gradient_checkpointing: whether the blocks of the backbone keep only their inputs, and are recomputed for the
            gradients: less memory, about a third more time.
        live_probability: probability that a step trains the live mode of a network with `backbone.live` (its layers
            along time in the forward direction alone, causal high-pass and level, presence head of its own), 0 to 1. It
            is drawn from the run's seed and the step, the same for all processes.
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
    live_probability: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.live_probability <= 1:
            raise ValueError(f"live_probability: is {self.live_probability}; 0 to 1 is allowed")
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
    """Snapshots and training state: number and interval.

    Args:
        every_steps: interval in steps of training state and snapshots; both are also written at the end.
        keep: number of newest snapshots that are kept.
        keep_best: number of snapshots of the best validations that are kept too, for `wesep average --best`.
        average: number of newest snapshots that are averaged at the end of the run.
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
    """Logging, in addition to `log.jsonl`, which is always written.

    Args:
        every_steps: interval in steps.
        audio_samples: number of validation trials that are logged as audio and spectrograms.
        to: trackers: `tensorboard`; `wandb` and `trackio`, which are extras to install.
        project: name of the project, for `wandb` and `trackio`.
    """

    every_steps: int = 50
    audio_samples: int = 3
    to: list[Literal["tensorboard", "wandb", "trackio"]] = field(default_factory=lambda: ["tensorboard"])
    project: str = "wesep-py"

    def __post_init__(self) -> None:
        at_least(1, {"every_steps": self.every_steps})
        at_least(0, {"audio_samples": self.audio_samples})


_UNSUITED_OPTIMIZERS = {"lbfgs", "sparseadam", "muon"}  # need a closure, sparse gradients, two-dimensional weights only
OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    name.lower(): kind
    for name, kind in vars(torch.optim).items()
    if inspect.isclass(kind)
    and issubclass(kind, torch.optim.Optimizer)
    and kind is not torch.optim.Optimizer
    and name.lower() not in _UNSUITED_OPTIMIZERS
} | {"muon": Muon}
"""Values of `optim.name`: torch's optimisers, in lower case, and a Muon for whole networks."""


@dataclass(frozen=True)
class GroupConfig:
    """Parameters that are trained differently from the others.

    Args:
        match: pattern of their names, with `*` for anything: `encoder.*`. A parameter belongs to the first group that
            matches it; a pattern that matches none is an error.
        lr_ratio: their learning rate relative to `optim.lr`, above 0.
        weight_decay: their weight decay; `None`: `optim.weight_decay`.
        freeze_steps: number of steps at the start in which they are frozen, including the running statistics of batch
            norm; `None`: frozen for the whole run.
    """

    match: str
    lr_ratio: float = 1.0
    weight_decay: float | None = None
    freeze_steps: int | None = 0

    def __post_init__(self) -> None:
        positive({"lr_ratio": self.lr_ratio})
        if self.weight_decay is not None:
            at_least(0, {"weight_decay": self.weight_decay})
        if self.freeze_steps is not None:
            at_least(0, {"freeze_steps": self.freeze_steps})


@dataclass(frozen=True)
class OptimConfig:
    """Optimiser, learning rate, gradient clipping, parameter groups, and moving average of the weights.

    Args:
        name: an optimiser of `torch.optim`, in lower case (`adam`, `adamw`, `sgd`, `radam`, …), or `muon`
            (`wesep_py.training.muon`).
        lr: learning rate, above 0.
        betas: for the optimisers that have them.
        weight_decay: on weights with two or more dimensions only; biases and norms are not decayed.
        clip_norm: gradients are clipped to this norm over all parameters together.
        arguments: further arguments of the optimiser: `{momentum: 0.9}`.
        groups: parameters that are trained differently.
        ema_decay: decay of an exponential moving average of the weights, which is validated and saved instead of the
            weights; smaller in the first steps (`optimisation.WeightAverage`). `None`: no average.
    """

    name: str = "adamw"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    clip_norm: float = 5.0
    arguments: dict[str, Any] = field(default_factory=dict)
    groups: list[GroupConfig] = field(default_factory=list)
    ema_decay: float | None = None

    def __post_init__(self) -> None:
        if self.name not in OPTIMIZERS:
            raise ValueError(f"name is {self.name!r}; {nearest(self.name, OPTIMIZERS)}")
        positive({"lr": self.lr, "clip_norm": self.clip_norm})
        at_least(0, {"weight_decay": self.weight_decay})
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are {list(self.betas)}; both must be at least 0 and below 1")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}; it must be above 0 and below 1")


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate schedule: a linear warm-up, then a factor between 1 and `final_lr_ratio`.

    Args:
        name: `constant`; `exponential` and `cosine` fall from 1 to `final_lr_ratio` over the run; `triangular` rises
            from `final_lr_ratio` to 1 and falls back, `cycles` times; `plateau` falls by `plateau_factor` whenever
            `patience` validations in a row did not improve on the best before, down to `final_lr_ratio`.
        warmup_steps: number of steps in which the factor rises linearly to the schedule.
        final_lr_ratio: above 0, at most 1.
        cycles: of `triangular`.
        patience: number of validations, for `plateau`.
        plateau_factor: for `plateau`, above 0 and below 1.
    """

    name: Literal["constant", "exponential", "cosine", "triangular", "plateau"] = "cosine"
    warmup_steps: int = 200
    final_lr_ratio: float = 0.025
    cycles: int = 1
    patience: int = 3
    plateau_factor: float = 0.5

    def __post_init__(self) -> None:
        at_least(0, {"warmup_steps": self.warmup_steps})
        at_least(1, {"cycles": self.cycles, "patience": self.patience})
        if not 0 < self.final_lr_ratio <= 1:
            raise ValueError(f"final_lr_ratio is {self.final_lr_ratio}; it must be above 0 and at most 1")
        if not 0 < self.plateau_factor < 1:
            raise ValueError(f"plateau_factor is {self.plateau_factor}; it must be above 0 and below 1")


@dataclass(frozen=True)
class SelfEnrollmentConfig:
    """Self-estimated augmentation: the estimate of a first pass is the enrollment of the pass that has the loss.

    Li et al., "On the effectiveness of enrollment speech augmentation for target speaker extraction", SLT 2024
    (arXiv 2409.09589). An item with an absent target keeps its enrollment.

    Args:
        probability: that an item is enrolled by its estimate, above 0 and up to 1.
        from_step: number of steps before the first; the estimates of a network that does not extract yet would enroll
            wrong speakers.
        use: the estimate is `joined` to the end of the enrollment, or used `instead` of it; scaled to its level.
        loss_on: the `second` pass alone, the first being without gradient; or `both`. No gradient of the second pass
            goes through the estimate.
        weights: of the losses of the first and the second pass, for `both`; above 0.
    """

    probability: float = 0.5
    from_step: int = 0
    use: Literal["joined", "instead"] = "joined"
    loss_on: Literal["second", "both"] = "second"
    weights: tuple[float, float] = (0.4, 0.6)

    def __post_init__(self) -> None:
        if not 0 < self.probability <= 1:
            raise ValueError(f"probability is {self.probability}; it must be above 0 and at most 1")
        at_least(0, {"from_step": self.from_step})
        if not all(weight > 0 for weight in self.weights):
            raise ValueError(f"weights are {list(self.weights)}; both must be above 0")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Keys of every run: task, experiment folder, seed, data, simulation, optimisation, loop, checkpoints, log.

    Args:
        task: what is trained.
        experiment: folder that the run fills.
        data: recordings that mixtures are made of.
        seed: of the initial weights, the mixtures and the steps.
        init: weights to start from; `None`: fresh weights.
    """

    task: Literal["extraction", "speaker", "presence"]
    experiment: str
    data: DataConfig
    seed: int = 0
    init: InitConfig | None = None
    simulation: SimulationConfig = field(default_factory=SimulationConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    train: TrainLoopConfig = field(default_factory=TrainLoopConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        at_least(0, {"seed": self.seed})
        if not self.experiment.strip():
            raise ValueError("experiment is empty; name the folder that the run fills")
        if self.data.render == "device":
            check_renders_on_device(self.simulation)
        needs_validation = self.schedule.name == "plateau", self.train.patience is not None
        if any(needs_validation) and getattr(self, "validation", None) is None:
            name = "schedule.name: is 'plateau'" if needs_validation[0] else f"train.patience: is {self.train.patience}"
            raise ValueError(f"{name}, which needs a validation, and there is none; add validation")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """A run that trains an extractor.

    Args:
        model: the network.
        loss: one loss `{name, …}` or a list of them, each with a `weight` (default 1).
        validation: trials that are extracted and scored; `None`: no validation.
        self_enrollment: the network's own estimates as enrollments; `None`: never.
    """

    task: Literal["extraction"] = "extraction"
    model: ModelConfig
    loss: list[dict[str, Any]] | dict[str, Any] = field(default_factory=lambda: {"name": "si_sdr"})
    validation: ValidationConfig | None = None
    self_enrollment: SelfEnrollmentConfig | None = None


@dataclass(frozen=True, kw_only=True)
class SpeakerTrainConfig(RunConfig):
    """A run that trains a speaker encoder alone, to classify the speakers of its mixtures.

    Args:
        sample_rate: of the mixtures, in Hz.
        speaker: the encoder, as in a model; `mode: finetune` starts from its `checkpoint`.
        loss: one speaker loss `{name, …}` or a list of them, each with a `weight` (default 1).
        validation: trials of speaker verification.
        existence_weight: weight of the cross-entropy of whether a voice exists, beside the loss, for the pooling
            `recursive`; `None`: 0.1.
    """

    task: Literal["speaker"]
    speaker: SpeakerConfig
    sample_rate: int = 16000
    loss: list[dict[str, Any]] | dict[str, Any] = field(default_factory=lambda: {"name": "aam"})
    validation: VerificationConfig | None = None
    existence_weight: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.speaker.mode == "frozen":
            raise ValueError("speaker.mode is 'frozen', and there is nothing else to train; use joint or finetune")
        if self.data.embeddings is not None:
            raise ValueError("data.embeddings: is for extractors, and task is 'speaker'; remove it")


@dataclass(frozen=True, kw_only=True)
class PresenceTrainConfig(RunConfig):
    """A run that trains a personal VAD: when the enrolled person speaks, without extraction.

    Args:
        model: the network.
        silence_others_weight: weight of the pair of silence and other speakers in the weighted pairwise loss, 0 to 1.
        validation: mixtures whose frames are classified.
    """

    task: Literal["presence"]
    model: PersonalVADConfig = field(default_factory=PersonalVADConfig)
    silence_others_weight: float = 0.1
    validation: PresenceValidationConfig | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.silence_others_weight <= 1:
            raise ValueError(f"silence_others_weight is {self.silence_others_weight}; 0 to 1 is allowed")
        if self.data.embeddings is not None:
            raise ValueError("data.embeddings: is for extractors, and task is 'presence'; remove it")


CONFIGS: dict[str, type[RunConfig]] = {
    "extraction": TrainConfig,
    "speaker": SpeakerTrainConfig,
    "presence": PresenceTrainConfig,
}
"""Configuration class of each `task`."""


def load_config(
    source: Mapping[str, Any] | str | Path, overrides: Sequence[str] = (), resolved: bool = False
) -> RunConfig:
    """Load and check a configuration from a YAML file, or from a mapping of the same form.

    Args:
        source: path of the YAML file, or the mapping.
        overrides: `key.sub=value`, as on the command line; for a YAML file only.
        resolved: the file was written by a run into its folder: plain data, without includes and interpolation.

    Raises:
        ConfigError: an unknown key (the nearest one is named), a wrong type, an impossible value.

    Example:
        >>> load_config("recipes/speechocean762/train.yaml", ["optim.lr=0.0005"])  # doctest: +SKIP
    """
    if isinstance(source, Mapping):
        if overrides:
            raise ConfigError("overrides are for a YAML file; change the mapping itself")
        values = to_plain(source)
    else:
        values = read_yaml(source) if resolved else load_yaml(source, overrides)
        if missing := _first_missing(values):
            raise ConfigError(f"{source}: {missing} has no value yet; give one, as {missing}=… on the command line")
    task = str(values.get("task", "extraction"))
    if task not in CONFIGS:
        raise ConfigError(f"task: is {task!r}; {nearest(task, CONFIGS)}")
    return construct(CONFIGS[task], values)


def _first_missing(values: Mapping[str, Any], prefix: str = "") -> str:
    """Return the first key whose value is `???`, the mark of a value that the user must give; empty if none."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            if missing := _first_missing(value, f"{prefix}{key}."):
                return missing
        elif value == "???":
            return f"{prefix}{key}"
    return ""
