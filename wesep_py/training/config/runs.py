"""The whole of a run, for each thing that can be trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from wesep_py.extractor import ModelConfig
from wesep_py.simulation import SimulationConfig
from wesep_py.simulation.on_device.effects import check_renders_on_device
from wesep_py.speaker import SpeakerConfig
from wesep_py.training.config.data import DataConfig
from wesep_py.training.config.judges import ValidationConfig, VerificationConfig
from wesep_py.training.config.loop import CheckpointConfig, InitConfig, LogConfig, TrainLoopConfig
from wesep_py.training.config.optim import OptimConfig, ScheduleConfig
from wesep_py.training.config.ranges import at_least
from wesep_py.training.config.self_enrollment import SelfEnrollmentConfig


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
