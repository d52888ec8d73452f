"""The configuration of a training run: every key, its type, its range and its default.

The tree of dataclasses is the YAML file: a key that is not a field here is an error, and what a constructor refuses
is refused before any audio is read. The model, the simulation and the losses are described by their own rooms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from wesep_py.config import construct, load_yaml, to_plain
from wesep_py.errors import ConfigError, nearest
from wesep_py.extractor import ModelConfig
from wesep_py.simulation import SimulationConfig
from wesep_py.speaker import SpeakerConfig


@dataclass(frozen=True)
class DataConfig:
    """Which recordings are mixed, and how they are read.

    Args:
        root: the folder that the paths of `train` and `noise`, and those inside the manifests, are relative to.
        train: manifests (`.jsonl`) or CSV files of speech.
        noise: manifests, or folders of recordings, of noise; may be empty.
        packed: a folder for one int16 memory map of all recordings, made on the first run (fast reading);
            none reads the files themselves.
        workers: processes that simulate mixtures; 0 simulates between the steps.
        prefetch: batches that each worker keeps ready.
        speeds: every recording of `train` is there at each of these speeds; at another than 1, its speaker is another
            one (`corpus.perturb_speed`).
    """

    root: str
    train: list[str]
    noise: list[str] = field(default_factory=list)
    packed: str | None = None
    workers: int = 1
    prefetch: int = 4
    speeds: list[float] = field(default_factory=lambda: [1.0])

    def __post_init__(self) -> None:
        _at_least(1, {"train": len(self.train)}, "name at least one manifest")
        _at_least(0, {"workers": self.workers})
        _at_least(1, {"prefetch": self.prefetch})


@dataclass(frozen=True)
class OptimConfig:
    """The optimiser: `adam` or `adamw`, learning rate, betas, weight decay, global gradient norm.

    Args:
        weight_decay: on weights of two and more dimensions only; biases and norms are not decayed.
        clip_norm: the norm, over all parameters together, to which gradients are clipped.
    """

    name: Literal["adam", "adamw"] = "adamw"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    clip_norm: float = 5.0

    def __post_init__(self) -> None:
        _positive({"lr": self.lr, "clip_norm": self.clip_norm})
        _at_least(0, {"weight_decay": self.weight_decay})
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are {list(self.betas)}; both must be at least 0 and below 1")


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate goes: a linear warm-up, then from 1 to `final_lr_ratio` times `optim.lr`."""

    name: Literal["constant", "exponential", "cosine"] = "cosine"
    warmup_steps: int = 200
    final_lr_ratio: float = 0.025

    def __post_init__(self) -> None:
        _at_least(0, {"warmup_steps": self.warmup_steps})
        if not 0 < self.final_lr_ratio <= 1:
            raise ValueError(f"final_lr_ratio is {self.final_lr_ratio}; it must be above 0 and at most 1")


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
        precision: `bf16-mixed` runs the network's matrix products in bfloat16, the losses in float32.
        device: `auto` takes a GPU where there is one.
        threads: of this process on the CPU; none leaves it to torch.
        max_nonfinite: so many steps in a row without a finite loss and gradient end the run with an error.
    """

    steps: int = 100_000
    max_minutes: float | None = None
    batch_size: int = 8
    accumulate: int = 1
    targets_per_mixture: Literal["one", "all"] = "one"
    epoch_size: int = 20_000
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None
    max_nonfinite: int = 20

    def __post_init__(self) -> None:
        names = ("steps", "batch_size", "accumulate", "epoch_size", "max_nonfinite")
        _at_least(1, {name: getattr(self, name) for name in names})
        if self.max_minutes is not None:
            _positive({"max_minutes": self.max_minutes})
        if self.threads is not None:
            _at_least(1, {"threads": self.threads})


@dataclass(frozen=True)
class CheckpointConfig:
    """What is kept, and how often.

    Args:
        every_steps: the training state, and a snapshot of the weights, are written so often, and at the end.
        keep: snapshots of the weights that stay on disk.
        average: the newest so many snapshots are averaged at the end of the run.
    """

    every_steps: int = 1000
    keep: int = 5
    average: int = 5

    def __post_init__(self) -> None:
        _at_least(1, {"every_steps": self.every_steps, "average": self.average})
        _at_least(self.average, {"keep": self.keep}, "it cannot be less than checkpoint.average")


@dataclass(frozen=True)
class ValidationConfig:
    """A fixed list of trials, extracted and scored now and then.

    Args:
        trials: metadata CSV, relative to `root`, or as it stands.
        enrollment: the `map_mixture2enrollment` that goes with it, likewise.
        root: the folder that the paths in both are relative to; none: `data.root`.
        condition: `clean`, or `noisy` with the trials' noise.
        limit: so many trials, spread evenly over the list; none: all of them.
        every_steps: how often; at the end always.
    """

    trials: str
    enrollment: str
    root: str | None = None
    condition: Literal["clean", "noisy"] = "clean"
    limit: int | None = 50
    every_steps: int = 5000

    def __post_init__(self) -> None:
        _at_least(1, {"every_steps": self.every_steps})
        if self.limit is not None:
            _at_least(1, {"limit": self.limit})


@dataclass(frozen=True)
class LogConfig:
    """What is logged: numbers every `every_steps`, and so many validation trials as audio and spectrograms."""

    every_steps: int = 50
    audio_samples: int = 3

    def __post_init__(self) -> None:
        _at_least(1, {"every_steps": self.every_steps})
        _at_least(0, {"audio_samples": self.audio_samples})


@dataclass(frozen=True)
class VerificationConfig:
    """Speaker verification as validation: every pair of a manifest's utterances is a trial.

    Args:
        manifest: `.jsonl` or CSV of speech, relative to `root`; of other speakers than those of `data.train`.
        root: the folder its paths are relative to; none: `data.root`.
        limit: so many utterances, spread evenly over the manifest; none: all of them.
        every_steps: how often; at the end always.
    """

    manifest: str
    root: str | None = None
    limit: int | None = 250
    every_steps: int = 1000

    def __post_init__(self) -> None:
        _at_least(1, {"every_steps": self.every_steps})
        if self.limit is not None:
            _at_least(2, {"limit": self.limit})


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every run has: what it trains, the folder it fills (`experiment`), seed, data, mixtures, how it goes."""

    task: Literal["extraction", "speaker"]
    experiment: str
    data: DataConfig
    seed: int = 0
    simulation: SimulationConfig = field(default_factory=SimulationConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    train: TrainLoopConfig = field(default_factory=TrainLoopConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        _at_least(0, {"seed": self.seed})
        if not self.experiment.strip():
            raise ValueError("experiment is empty; name the folder that the run fills")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """A run that trains an extractor."""

    task: Literal["extraction"] = "extraction"
    model: ModelConfig
    loss: list[dict[str, Any]] | dict[str, Any] = field(default_factory=lambda: {"name": "si_sdr"})
    validation: ValidationConfig | None = None


@dataclass(frozen=True, kw_only=True)
class SpeakerTrainConfig(RunConfig):
    """A run that trains a speaker encoder alone, to tell the speakers of its mixtures.

    Args:
        sample_rate: of the mixtures, in Hz.
        speaker: the encoder, as in a model; `mode: finetune` goes on from its `checkpoint`.
        loss: one speaker loss `{name, …}` or a list of them, each with a `weight` (1 if not given).
        validation: trials of speaker verification.
        existence_weight: of the cross-entropy of whether a voice exists, beside the loss, for the pooling `recursive`;
            none: 0.1.
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


CONFIGS: dict[str, type[RunConfig]] = {"extraction": TrainConfig, "speaker": SpeakerTrainConfig}
"""What a run trains (`task`), and the keys that it then has."""


def load_config(source: Mapping[str, Any] | str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration from a YAML file, or from a mapping of the same form.

    Args:
        source: path of the YAML, or the mapping.
        overrides: `key.sub=value` (paths only), as on the command line.

    Raises:
        ConfigError: an unknown key (the nearest is named), a wrong type, an impossible value.

    Example:
        >>> load_config("recipes/speechocean762/train.yaml", ["optim.lr=0.0005"])  # doctest: +SKIP
    """
    if isinstance(source, Mapping):
        if overrides:
            raise ConfigError("overrides are for a YAML file; change the mapping itself")
        values = to_plain(source)
    else:
        values = load_yaml(source, overrides)
        if missing := _missing(values):
            raise ConfigError(f"{source}: {missing} has no value yet; give one, as {missing}=… on the command line")
    task = str(values.get("task", "extraction"))
    if task not in CONFIGS:
        raise ConfigError(f"task: is {task!r}; {nearest(task, CONFIGS)}")
    return construct(CONFIGS[task], values)


def _missing(values: Mapping[str, Any], prefix: str = "") -> str:
    """The first key whose value is `???`, YAML's mark here for what a user must give; empty if there is none."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            if found := _missing(value, f"{prefix}{key}."):
                return found
        elif value == "???":
            return f"{prefix}{key}"
    return ""


def _at_least(least: int, values: Mapping[str, float], hint: str = "") -> None:
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}{f' ({hint})' if hint else ''}")


def _positive(values: Mapping[str, float]) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} is {value}; it must be above 0")
