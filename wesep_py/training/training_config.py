"""From YAML to a checked configuration."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import torch

from wesep_py.common.config import construct, load_yaml, to_plain
from wesep_py.common.errors import ConfigError, nearest
from wesep_py.common.yamlfiles import read_yaml
from wesep_py.data.shard_stream import is_stream
from wesep_py.network.extraction_network import ModelConfig
from wesep_py.network.speaker import SpeakerConfig
from wesep_py.simulation import SimulationConfig
from wesep_py.simulation.batched_effects import check_renders_on_device
from wesep_py.training.muon import Muon

# ----------------------------------------
# Checks of ranges that the configuration's parts share.


def at_least(least: int, values: Mapping[str, float], hint: str = "") -> None:
    """Refuse a value below `least`.

    Raises:
        ValueError: with the name of the first value that is.
    """
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}{f' ({hint})' if hint else ''}")


def positive(values: Mapping[str, float]) -> None:
    """Refuse a value that is not above 0.

    Raises:
        ValueError: with the name of the first value that is not.
    """
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} is {value}; it must be above 0")


# ----------------------------------------
# Mixtures that are learned from as they are.


@dataclass(frozen=True)
class MixturesConfig:
    """Lists of mixtures in LibriMix's form, instead of mixtures drawn as `simulation` says.

    Of `simulation` then only `duration_s` (mixtures are cut to it, anew in every epoch), `enrollment` and `peak` apply.
    A voice is introduced by the recordings of `data.train`, or, where these are none, by what it says in the other
    mixtures; never by what it says in the mixture itself.

    Args:
        lists: rendered trees, or metadata CSVs of what to mix or of what was rendered; relative to `data.root`.
        condition: `clean`, or `noisy` with the mixtures' noise.
        root: the folder that relative paths in CSVs start from, relative to `data.root`; none: each CSV's own.
        noise_root: the same for noise; none: `root`.
    """

    lists: list[str]
    condition: Literal["clean", "noisy"] = "clean"
    root: str | None = None
    noise_root: str | None = None

    def __post_init__(self) -> None:
        at_least(1, {"lists": len(self.lists)}, "name at least one list of mixtures, or leave data.mixtures out")


# ----------------------------------------
# How a stream of shards is read.


@dataclass(frozen=True)
class StreamConfig:
    """How tar files without an index are read; all of it decides which mixtures are drawn.

    A window is a few whole shards in memory; mixtures are drawn from the utterances of one window. Where `lanes` is a
    multiple of ranks times workers, and `block` is the batch size of a rank, each worker reads shards of its own.

    Args:
        min_speakers: in each window, at least so many; where its own shards have fewer, more are read.
        mixtures_per_window: mixtures that one window serves.
        shards_per_window: at least 1.
        lanes: windows in use at a time over all processes.
        block: neighbouring mixtures that share a window.
        cache_mib: decoded audio that is kept for a window, in MiB.
    """

    min_speakers: int = 20
    mixtures_per_window: int = 1000
    shards_per_window: int = 1
    lanes: int = 8
    block: int = 8
    cache_mib: int = 64

    def __post_init__(self) -> None:
        at_least(1, {field.name: getattr(self, field.name) for field in fields(self)})


# ----------------------------------------
# What is learned from: recordings, and how they are read.


@dataclass(frozen=True)
class DataConfig:
    """Which recordings are mixed, and how they are read.

    Args:
        root: the folder that the paths of `train` and `noise`, and those inside the manifests, are relative to.
        train: manifests (`.jsonl`) or CSV files of speech, folders of shards, LMDB files; or tar files that have no
            index, `shards/{000..127}.tar`; with `mixtures` what introduces the voices, if any.
        noise: manifests, or folders of recordings, of noise; may be empty.
        packed: a folder for one int16 memory map of all recordings, made on the first run (fast reading);
            none reads the files themselves.
        workers: processes that simulate mixtures; 0 simulates between the steps.
        prefetch: batches that each worker keeps ready.
        embeddings: of voices, computed before, for a cue `embedding` with an `embedding_dim`: a folder of `.npy`, a
            Kaldi `.scp` or `.ark`, by utterance or by speaker, relative to `root` (`corpus.embeddings`).
        speeds: every recording of `train` is there at each of these speeds; at another than 1, its speaker is another
            one (`corpus.perturb_speed`).
        mixtures: lists of mixtures to learn from as they are; none: mixtures are drawn, as `simulation` says.
        render: where mixtures are convolved, brought to their levels and added: by the `workers`, one after the other,
            or in batch on the `device` that trains, while the workers only draw and read. The mixtures are the same,
            to 1e-5 of their peak.
        stream: how tar files without an index are read.
    """

    root: str
    train: list[str] = field(default_factory=list)
    noise: list[str] = field(default_factory=list)
    packed: str | None = None
    embeddings: str | None = None
    workers: int = 1
    prefetch: int = 4
    speeds: list[float] = field(default_factory=lambda: [1.0])
    mixtures: MixturesConfig | None = None
    render: Literal["workers", "device"] = "workers"
    stream: StreamConfig = field(default_factory=StreamConfig)

    def __post_init__(self) -> None:
        if self.mixtures is None:
            at_least(1, {"train": len(self.train)}, "name at least one manifest")
        at_least(0, {"workers": self.workers})
        at_least(1, {"prefetch": self.prefetch})
        if self.render == "device" and self.mixtures is not None:
            raise ValueError("render: is 'device', which is for mixtures that are drawn; with mixtures use 'workers'")
        if self.embeddings is not None and self.render == "device":
            raise ValueError("embeddings: are read by the workers that render a mixture; with them, render: 'workers'")
        if self.embeddings is not None and any(is_stream(name) for name in self.train):
            raise ValueError("embeddings: are of utterances that are known, and train names tar files; index these")

    @property
    def sources(self) -> list[str]:
        """The names of all that is learned from."""
        lists = self.mixtures.lists if self.mixtures else []
        return [*self.train, *lists, *([self.embeddings] if self.embeddings else [])]


# ----------------------------------------
# By what a run is judged.


@dataclass(frozen=True)
class ValidationConfig:
    """A fixed list of trials, extracted and scored now and then.

    Args:
        trials: metadata CSV, relative to `root`, or as it stands.
        enrollment: the `map_mixture2enrollment` that goes with it, likewise.
        root: the folder that the paths in both are relative to; none: `data.root`.
        embeddings: of the trials' enrollments, found likewise; none: they are in `data.embeddings`, if there are any.
        condition: `clean`, or `noisy` with the trials' noise.
        limit: so many trials, spread evenly over the list; none: all of them.
        every_steps: how often; at the end always.
    """

    trials: str
    enrollment: str
    root: str | None = None
    embeddings: str | None = None
    condition: Literal["clean", "noisy"] = "clean"
    limit: int | None = 50
    every_steps: int = 5000

    def __post_init__(self) -> None:
        at_least(1, {"every_steps": self.every_steps})
        if self.limit is not None:
            at_least(1, {"limit": self.limit})


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
        at_least(1, {"every_steps": self.every_steps})
        if self.limit is not None:
            at_least(2, {"limit": self.limit})


# ----------------------------------------
# How long, on what, from where, what is kept and what is logged.


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
            (`wesep_py.common.half_precision`), else the second.
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


# ----------------------------------------
# How the weights are moved: optimiser, learning rate, groups of parameters.

_UNSUITED = {"lbfgs", "sparseadam", "muon"}  # a closure, sparse gradients, parameters of two dimensions only
OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    name.lower(): kind
    for name, kind in vars(torch.optim).items()
    if inspect.isclass(kind)
    and issubclass(kind, torch.optim.Optimizer)
    and kind is not torch.optim.Optimizer
    and name.lower() not in _UNSUITED
} | {"muon": Muon}
"""What `optim.name` can be: torch's optimisers, in lower case, and a Muon for whole networks."""


@dataclass(frozen=True)
class GroupConfig:
    """Parameters that are trained otherwise than the rest.

    Args:
        match: pattern of their names, with `*` for anything: `encoder.*`. A parameter is of the first group that
            matches it; a pattern that matches none is an error.
        lr_ratio: their learning rate is so many times the rest's, above 0.
        weight_decay: as `optim.weight_decay`, for them; none: that.
        freeze_steps: so many steps at the beginning in which they stay as they are, running statistics of batch norm
            included; none: they always do.
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
    """The optimiser, its learning rate, the gradient norm, groups of parameters, the average of the weights.

    Args:
        name: an optimiser of `torch.optim`, in lower case (`adam`, `adamw`, `sgd`, `radam`, …), or `muon`
            (`wesep_py.training.muon`).
        betas: for the optimisers that have them.
        weight_decay: on weights of two and more dimensions only; biases and norms are not decayed.
        clip_norm: the norm, over all parameters together, to which gradients are clipped.
        arguments: further arguments of the optimiser: `{momentum: 0.9}`.
        groups: parameters that are trained otherwise.
        ema_decay: an exponential moving average of the weights is what is validated and saved; at each step it keeps
            this share of itself, fewer in the first steps (`ema.WeightAverage`). None: the weights themselves.
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
    """How the learning rate goes: a linear warm-up, then within 1 and `final_lr_ratio` times `optim.lr`.

    Args:
        name: `constant`; `exponential` and `cosine` fall from 1 to `final_lr_ratio` over the run; `triangular` rises
            from `final_lr_ratio` to 1 and falls back, `cycles` times; `plateau` falls by `plateau_factor` whenever
            `patience` validations in a row were no better than the best before, down to `final_lr_ratio`.
        warmup_steps: the first so many steps rise to the schedule from nothing.
        final_lr_ratio: above 0, at most 1.
        cycles: of `triangular`.
        patience: validations, of `plateau`.
        plateau_factor: of `plateau`, above 0 and below 1.
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


# ----------------------------------------
# The network's own estimates as enrollments.


@dataclass(frozen=True)
class SelfEnrollmentConfig:
    """Self-estimated augmentation: the estimate of a first pass introduces the voice to the pass that is learned from.

    Li et al., "On the effectiveness of enrollment speech augmentation for target speaker extraction", SLT 2024
    (arXiv 2409.09589). An item whose target is absent keeps its enrollment.

    Args:
        probability: with which an item is introduced so, above 0 and up to 1.
        from_step: optimiser steps that are done before; a network that does not extract yet would introduce wrong
            voices.
        use: the estimate is `joined` to the enrollment, after it in time, or stands `instead` of it; brought to its
            level.
        loss_on: of the `second` pass alone, the first being without gradient; or of `both`. From the second no gradient
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


# ----------------------------------------
# The whole of a run, for each thing that can be trained.


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every run has: what it trains, the folder it fills (`experiment`), seed, data, mixtures, how it goes.

    Args:
        init: weights to start from; none: fresh ones.
    """

    task: Literal["extraction", "speaker"]
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
        by = self.schedule.name == "plateau", self.train.patience is not None
        if any(by) and getattr(self, "validation", None) is None:
            name = "schedule.name: is 'plateau'" if by[0] else f"train.patience: is {self.train.patience}"
            raise ValueError(f"{name}, which goes by the validation, and there is none; add validation")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """A run that trains an extractor.

    Args:
        self_enrollment: the network's own estimates as enrollments; none: never.
    """

    task: Literal["extraction"] = "extraction"
    model: ModelConfig
    loss: list[dict[str, Any]] | dict[str, Any] = field(default_factory=lambda: {"name": "si_sdr"})
    validation: ValidationConfig | None = None
    self_enrollment: SelfEnrollmentConfig | None = None


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
        if self.data.embeddings is not None:
            raise ValueError("data.embeddings: is for extractors, and task is 'speaker'; remove it")


CONFIGS: dict[str, type[RunConfig]] = {"extraction": TrainConfig, "speaker": SpeakerTrainConfig}
"""What a run trains (`task`), and the keys that it then has."""


def load_config(
    source: Mapping[str, Any] | str | Path, overrides: Sequence[str] = (), resolved: bool = False
) -> RunConfig:
    """The configuration from a YAML file, or from a mapping of the same form.

    Args:
        source: path of the YAML, or the mapping.
        overrides: `key.sub=value` (paths only), as on the command line.
        resolved: the file is what a run wrote into its folder: plain data, without includes and interpolation.

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
        values = read_yaml(source) if resolved else load_yaml(source, overrides)
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
