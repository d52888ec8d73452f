"""Where the curves of a run can be looked at: TensorBoard, Weights & Biases, Trackio."""

from __future__ import annotations

import importlib
import importlib.util
import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wesep_py.errors import ConfigError
from wesep_py.files import write_text
from wesep_py.textfiles import read_text
from wesep_py.training.experiment import Experiment
from wesep_py.training.images import spectrogram_image


class Tracker(ABC):
    """A place for numbers and audio."""

    @abstractmethod
    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step, all finite, under names such as `train/loss`."""

    @abstractmethod
    def audio(self, name: str, step: int, waveform: NDArray[np.float32], sample_rate: int) -> None:
        """A waveform `[samples]` at any level."""

    @abstractmethod
    def close(self) -> None:
        """Write out what is held back."""


class TensorBoard(Tracker):
    """Event files in `EXP/tensorboard`; what a run that was killed wrote past its state is struck out.

    Args:
        experiment: whose folder is written to.
        step: the step at which the run begins or resumes.
    """

    def __init__(self, experiment: Experiment, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(experiment.tensorboard), purge_step=step + 1 if step else None)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def audio(self, name: str, step: int, waveform: NDArray[np.float32], sample_rate: int) -> None:
        self._writer.add_audio(name, _audible(waveform), step, sample_rate=sample_rate)
        self._writer.add_image(name, spectrogram_image(waveform, sample_rate), step)

    def close(self) -> None:
        self._writer.close()


class WandB(Tracker):
    """A run of Weights & Biases, gone on with when training is resumed; its id is in `EXP/wandb.id`.

    Args:
        experiment: names the run, and holds its files.
        project: the project's name.
        settings: the configuration of the run.
    """

    def __init__(self, experiment: Experiment, project: str, settings: Mapping[str, Any]) -> None:
        self._wandb = importlib.import_module("wandb")
        file = experiment.folder / "wandb.id"
        if not file.exists():
            write_text(file, secrets.token_hex(8))
        self._run = self._wandb.init(
            project=project,
            name=experiment.folder.name,
            id=read_text(file, "the id of a run of Weights & Biases").strip(),
            resume="allow",
            dir=str(experiment.folder),
            config=dict(settings),
        )

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def audio(self, name: str, step: int, waveform: NDArray[np.float32], sample_rate: int) -> None:
        self._run.log({name: self._wandb.Audio(_audible(waveform), sample_rate=sample_rate)}, step=step)

    def close(self) -> None:
        self._run.finish()


class Trackio(Tracker):
    """A run of Trackio, gone on with when training is resumed; numbers only.

    Args:
        experiment: names the run.
        project: the project's name.
        settings: the configuration of the run.
    """

    def __init__(self, experiment: Experiment, project: str, settings: Mapping[str, Any]) -> None:
        self._trackio = importlib.import_module("trackio")
        name = experiment.folder.name
        self._trackio.init(project=project, name=name, config=dict(settings), resume="allow")

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        self._trackio.log(dict(values), step=step)

    def audio(self, name: str, step: int, waveform: NDArray[np.float32], sample_rate: int) -> None:
        return

    def close(self) -> None:
        self._trackio.finish()


def make_tracker(name: str, experiment: Experiment, project: str, settings: Mapping[str, Any], step: int) -> Tracker:
    """The tracker of a name in `log.to`, which `check_trackers` has seen."""
    if name == "tensorboard":
        return TensorBoard(experiment, step)
    return {"wandb": WandB, "trackio": Trackio}[name](experiment, project, settings)


def check_trackers(names: Sequence[str]) -> None:
    """Refuse what is not installed, before anything is written.

    Raises:
        ConfigError: with what to install.
    """
    for name in names:
        if name != "tensorboard" and importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"log.to: {name} is not installed; install it with pip install 'wesep-py[{name}]', or leave it out"
            )


def _audible(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """The waveform, scaled to a peak of 0.9; silence as it is."""
    peak = float(np.abs(waveform).max(initial=0.0))
    return waveform * np.float32(0.9 / peak) if peak > 0 else waveform
