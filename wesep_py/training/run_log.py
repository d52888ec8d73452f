"""Log of a run: `log.jsonl`, trackers such as TensorBoard with audio and spectrograms, speed, and the progress bar."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import os
import secrets
import sys
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from wesep_py.common.config import to_plain
from wesep_py.common.errors import ConfigError, InputError, WesepError, reason
from wesep_py.common.files import open_regular, write_text
from wesep_py.common.textfiles import parse_object, read_text
from wesep_py.features import STFT
from wesep_py.training.experiment import Experiment
from wesep_py.training.training_config import RunConfig

# Colours of a perceptually ordered scale from black over blue, red and yellow to white: dark is quiet.
_COLOURS = np.array(
    [[0, 0, 0], [40, 20, 110], [130, 30, 130], [215, 70, 75], [250, 160, 40], [250, 240, 150], [255, 255, 255]]
)


class RunLog:
    """The log of a run: `log.jsonl`, and trackers.

    The log of a resumed run continues at its step: lines of later steps, whose work was lost, are removed, so that the
    log reads like that of an uninterrupted run. A last line that a kill cut short is removed too; damaged lines before
    it are removed with a warning.

    Args:
        file: the JSON lines; each has `kind`, `step` and numbers. Numbers that are not finite are written as null.
        trackers: receive the numbers as curves `kind/name`, and audio.
        step: at which the run starts or resumes.

    Raises:
        WesepError: it cannot be written; the methods raise the same.
    """

    def __init__(self, file: Path, trackers: Sequence[Tracker], step: int) -> None:
        self._path = file
        with _writing(file):
            if file.exists():
                write_text(file, "".join(f"{line}\n" for line in _lines_until(step, file)))
            # Without a buffer: a full disk is reported at once, and not again when the file is closed.
            self._file = os.fdopen(open_regular(file, os.O_WRONLY | os.O_APPEND), "ab", buffering=0)
        self._trackers = trackers

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Write one line, and send its numbers to the trackers."""
        line = {"kind": kind, "step": step, **{key: _finite_or_none(value) for key, value in values.items()}}
        remaining = memoryview((json.dumps(line, ensure_ascii=False) + "\n").encode())
        with _writing(self._path):
            while remaining:
                remaining = remaining[self._file.write(remaining) :]
        numbers = {
            f"{kind}/{key}": float(value)
            for key, value in values.items()
            if isinstance(value, (int, float)) and math.isfinite(value)
        }
        with _writing(self._path.parent):
            for tracker in self._trackers:
                tracker.numbers(step, numbers)

    def audio(self, name: str, step: int, waveform: NDArray[np.float32], sample_rate: int) -> None:
        """Send a waveform `[samples]` to the trackers."""
        with _writing(self._path.parent):
            for tracker in self._trackers:
                tracker.audio(name, step, waveform, sample_rate)

    def close(self) -> None:
        """Close the file and the trackers."""
        with _writing(self._path.parent):
            self._file.close()
            for tracker in self._trackers:
                tracker.close()


def open_log(config: RunConfig, experiment: Experiment, step: int) -> RunLog:
    """Open the log of a run, with the trackers of `log.to`.

    Args:
        config: of the run.
        experiment: folder of the run.
        step: at which the run starts or resumes.
    """
    settings = to_plain(config)
    with _writing(experiment.folder):
        trackers = [make_tracker(name, experiment, config.log.project, settings, step) for name in config.log.to]
    return RunLog(experiment.log_file, trackers, step)


def _lines_until(step: int, file: Path) -> list[str]:
    """Return the lines of steps up to `step`; warn of damaged lines except the last."""
    lines = file.read_bytes().split(b"\n")
    valid, damaged = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = parse_object(line, f"{file}:{number}")
            if row.number("step") <= step:
                valid.append(line.decode())
        except InputError as error:
            if number < len(lines):  # a run that was killed may have cut the last line short
                damaged.append(error)
    if damaged:
        warnings.warn(f"{damaged[0]}; {len(damaged)} damaged lines are left out of the log", stacklevel=3)
    return valid


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn an error of a full or read-only disk into one line that says what to do."""
    try:
        yield
    except OSError as error:
        raise WesepError(
            f"{path}: the log cannot be written ({error.strerror or reason(error)}); free some space, or make it "
            "writable, and run the same command again to resume from the last state"
        ) from error


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Tracker(ABC):
    """Shows the numbers and audio of a run."""

    @abstractmethod
    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Add the numbers of a step, all finite, under names such as `train/loss`."""

    @abstractmethod
    def audio(self, name: str, step: int, waveform: NDArray[np.float32], sample_rate: int) -> None:
        """Add a waveform `[samples]` of any level."""

    @abstractmethod
    def close(self) -> None:
        """Write everything that is buffered."""


class TensorBoard(Tracker):
    """Event files in `EXP/tensorboard`. Events of steps after the saved state of a killed run are purged.

    Args:
        experiment: folder of the run.
        step: at which the run starts or resumes.
    """

    def __init__(self, experiment: Experiment, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(experiment.tensorboard), purge_step=step + 1 if step else None)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def audio(self, name: str, step: int, waveform: NDArray[np.float32], sample_rate: int) -> None:
        self._writer.add_audio(name, _at_peak(waveform), step, sample_rate=sample_rate)
        self._writer.add_image(name, spectrogram_image(waveform, sample_rate), step)

    def close(self) -> None:
        self._writer.close()


class WandB(Tracker):
    """A run of Weights & Biases, continued when training is resumed; its id is in `EXP/wandb.id`.

    Args:
        experiment: names the run, and holds its files.
        project: name of the project.
        settings: configuration of the run.
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
        self._run.log({name: self._wandb.Audio(_at_peak(waveform), sample_rate=sample_rate)}, step=step)

    def close(self) -> None:
        self._run.finish()


class Trackio(Tracker):
    """A run of Trackio, continued when training is resumed; numbers only.

    Args:
        experiment: names the run.
        project: name of the project.
        settings: configuration of the run.
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
    """Return the tracker of a name in `log.to` that `check_trackers` accepted."""
    if name == "tensorboard":
        return TensorBoard(experiment, step)
    return {"wandb": WandB, "trackio": Trackio}[name](experiment, project, settings)


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that are not installed.

    Raises:
        ConfigError: names the package to install.
    """
    for name in names:
        if name != "tensorboard" and importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"log.to: {name} is not installed; install it with pip install 'wesep-py[{name}]', or leave it out"
            )


def _at_peak(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale a waveform to a peak of 0.9; silence stays unchanged."""
    peak = float(np.abs(waveform).max(initial=0.0))
    return waveform * np.float32(0.9 / peak) if peak > 0 else waveform


def spectrogram_image(waveform: NDArray[np.float32], sample_rate: int, range_db: float = 70.0) -> NDArray[np.uint8]:
    """Return a spectrogram as an image: windows of 32 ms every 8 ms, low frequencies at the bottom.

    Args:
        waveform: `[samples]`.
        sample_rate: in Hz.
        range_db: range from white, the loudest point, down to black.

    Returns:
        An image `[3, height, width]`, 0 to 255; all black for a silent signal.

    >>> spectrogram_image(np.zeros(16000, np.float32), 16000).shape
    (3, 257, 126)
    """
    window = max(2, round(0.032 * sample_rate) // 2 * 2)
    spectrum = STFT(window, window // 4)(torch.as_tensor(np.ascontiguousarray(waveform)))
    power = spectrum.abs().square().numpy()
    peak = float(power.max())
    if peak <= 0.0:
        scaled = np.zeros(power.shape)
    else:
        scaled = np.clip(1.0 + 10.0 * np.log10(np.maximum(power / peak, 1e-12)) / range_db, 0.0, 1.0)
    positions = scaled[::-1] * (len(_COLOURS) - 1)
    channels = [np.interp(positions, np.arange(len(_COLOURS)), _COLOURS[:, c]) for c in range(3)]
    return np.stack(channels).round().astype(np.uint8)


class Throughput:
    """Measures speed between two log steps: time, the share of it spent waiting for data, and audio trained on.

    Args:
        clock: returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Start a new measurement."""
        self._start = self._clock()
        self._waited_s = 0.0
        self._audio_s = 0.0
        self._steps = 0

    def add_wait(self, seconds: float) -> None:
        """Add time that a step waited for its data."""
        self._waited_s += seconds

    def add_step(self, audio_s: float) -> None:
        """Add a step over `audio_s` seconds of mixtures on all devices together."""
        self._audio_s += audio_s
        self._steps += 1

    def rates(self) -> dict[str, float]:
        """Return `step_s` (seconds per step), `audio_s_per_s` (seconds of audio per second), `data_wait` (0 to 1)."""
        wall = max(self._clock() - self._start, 1e-9)
        return {
            "step_s": wall / max(self._steps, 1),
            "audio_s_per_s": self._audio_s / wall,
            "data_wait": min(1.0, self._waited_s / wall),
        }


class TrainingBar:
    """A progress bar on stderr; a line at each log step if stderr is not a terminal.

    Args:
        enabled: false in all processes of a run but one.
    """

    def __init__(self, enabled: bool = True) -> None:
        self._enabled = enabled
        self._done_at_start = 0.0
        self._start = time.monotonic()
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if enabled and sys.stderr.isatty():
            columns = (BarColumn(bar_width=30), TextColumn("{task.percentage:>5.1f} %  {task.description}"))
            self._bar = Progress(*columns, console=self._console)
            self._task = self._bar.add_task("starting", total=1.0)

    def begin(self, done: float) -> None:
        """Start measuring the remaining time at `done`, 0 to 1."""
        self._done_at_start, self._start = done, time.monotonic()

    def __enter__(self) -> TrainingBar:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, done: float, text: str, is_line: bool) -> None:
        """Show the progress of the run.

        Args:
            done: 0 to 1.
            text: numbers of the step.
            is_line: whether to print a line if there is no bar.
        """
        text = f"{text}  ETA {format_duration(self.remaining_s(done))}"
        if self._bar:
            self._bar.update(self._task, completed=done, description=text)
        elif is_line:
            self.print_line(f"{100 * done:5.1f} %  {text}")

    def print_line(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        if self._enabled:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def remaining_s(self, done: float) -> float:
        """Return the seconds to the end of the run at the speed of this session."""
        gained = done - self._done_at_start
        if gained <= 0:
            return float("inf")
        return (time.monotonic() - self._start) * (1.0 - done) / gained


def format_duration(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds.

    >>> format_duration(3725)
    '1:02:05'
    """
    if seconds == float("inf"):
        return "?"
    rounded = round(seconds)
    return f"{rounded // 3600}:{rounded // 60 % 60:02d}:{rounded % 60:02d}"
