"""Training: data loading, loop, optimisation, averaging, logs. `train` is the way in."""

from __future__ import annotations

from wesep_py.training.trainer import TrainingInterrupted, TrainResult, train
from wesep_py.training.training_config import TrainConfig, load_config

__all__ = ["TrainConfig", "TrainResult", "TrainingInterrupted", "load_config", "train"]
