"""The configuration of a training run: every key, its type, its range and its default.

The tree of dataclasses is the YAML file: a key that is not a field here is an error, and what a constructor refuses
is refused before any audio is read. The model, the simulation and the losses are described by their own rooms.
"""

from __future__ import annotations

from wesep_py.training.config.data import DataConfig
from wesep_py.training.config.judges import ValidationConfig, VerificationConfig
from wesep_py.training.config.load import CONFIGS, load_config
from wesep_py.training.config.loop import CheckpointConfig, InitConfig, LogConfig, TrainLoopConfig
from wesep_py.training.config.mixtures import MixturesConfig
from wesep_py.training.config.optim import GroupConfig, OptimConfig, ScheduleConfig
from wesep_py.training.config.runs import RunConfig, SpeakerTrainConfig, TrainConfig
from wesep_py.training.config.self_enrollment import SelfEnrollmentConfig

__all__ = [
    "CONFIGS",
    "CheckpointConfig",
    "DataConfig",
    "GroupConfig",
    "InitConfig",
    "LogConfig",
    "MixturesConfig",
    "OptimConfig",
    "RunConfig",
    "ScheduleConfig",
    "SelfEnrollmentConfig",
    "SpeakerTrainConfig",
    "TrainConfig",
    "TrainLoopConfig",
    "ValidationConfig",
    "VerificationConfig",
    "load_config",
]
