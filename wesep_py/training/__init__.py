"""Training: data loading, loop, optimisation, averaging, logs. `train` is the way in."""

from __future__ import annotations

from wesep_py.training.config import TrainConfig, load_config
from wesep_py.training.interrupt import TrainingInterrupted
from wesep_py.training.loop import TrainResult, train

__all__ = ["TrainConfig", "TrainResult", "TrainingInterrupted", "load_config", "train"]
