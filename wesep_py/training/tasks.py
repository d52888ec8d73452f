"""From a configuration to what it trains."""

from __future__ import annotations

from collections.abc import Callable

from lightning_fabric import Fabric

from wesep_py.training.extraction_task import ExtractionTask
from wesep_py.training.speaker_task import SpeakerTask
from wesep_py.training.task import Task
from wesep_py.training.training_config import RunConfig, SpeakerTrainConfig, TrainConfig


def make_task(config: RunConfig, fabric: Fabric, num_speakers: Callable[[], int]) -> Task:
    """What the configuration trains.

    Args:
        config: the run's.
        fabric: its processes.
        num_speakers: counts those of the training set; asked only where a network depends on it, so that a mistake in
            an extractor is found before any list is read.
    """
    if config.task == "speaker":
        assert isinstance(config, SpeakerTrainConfig)
        return SpeakerTask(config, num_speakers())
    assert isinstance(config, TrainConfig)
    return ExtractionTask(config, fabric, num_speakers)
