"""What a run writes down: JSON lines, and the trackers that are asked for."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wesep_py.config import to_plain
from wesep_py.errors import InputError, WesepError, reason
from wesep_py.files import open_regular, write_text
from wesep_py.textfiles import parse_object
from wesep_py.training.config import RunConfig
from wesep_py.training.experiment import Experiment
from wesep_py.training.trackers import Tracker, make_tracker


class RunLog:
    """The log of a run: `log.jsonl`, and trackers.

    A resumed run's log continues at its step: lines of later steps, of work that was lost, are removed, so that the
    log reads as that of an unbroken run. So is a last line that a kill cut short; damaged lines before it are removed
    with a warning.

    Args:
        file: the JSON lines; each has `kind`, `step` and numbers. What is not finite is written as null.
        trackers: get the numbers as curves `kind/name`, and audio.
        step: the step at which the run begins or resumes.

    Raises:
        WesepError: it cannot be written; so do the methods.
    """

    def __init__(self, file: Path, trackers: Sequence[Tracker], step: int) -> None:
        self._path = file
        with _writing(file):
            if file.exists():
                write_text(file, "".join(f"{line}\n" for line in _lines_until(step, file)))
            # Without a buffer: what could not be written is said at once, and not again at the end.
            self._file = os.fdopen(open_regular(file, os.O_WRONLY | os.O_APPEND), "ab", buffering=0)
        self._trackers = trackers

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """One line, and its numbers as curves."""
        line = {"kind": kind, "step": step, **{key: _finite(value) for key, value in values.items()}}
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
        """A waveform `[samples]`, scaled to its peak, and its spectrogram."""
        with _writing(self._path.parent):
            for tracker in self._trackers:
                tracker.audio(name, step, waveform, sample_rate)

    def close(self) -> None:
        """Write out what is held back."""
        with _writing(self._path.parent):
            self._file.close()
            for tracker in self._trackers:
                tracker.close()


def open_log(config: RunConfig, experiment: Experiment, step: int) -> RunLog:
    """The log that a configuration asks for.

    Args:
        config: the run's.
        experiment: where it goes.
        step: the step at which the run begins or resumes.
    """
    settings = to_plain(config)
    with _writing(experiment.folder):
        trackers = [make_tracker(name, experiment, config.log.project, settings, step) for name in config.log.to]
    return RunLog(experiment.log_file, trackers, step)


def _lines_until(step: int, file: Path) -> list[str]:
    """The lines of steps up to `step`; of damaged ones, all but the last are warned of."""
    lines = file.read_bytes().split(b"\n")
    kept, damaged = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = parse_object(line, f"{file}:{number}")
            if row.number("step") <= step:
                kept.append(line.decode())
        except InputError as error:
            if number < len(lines):  # the last line is cut short where a run was killed
                damaged.append(error)
    if damaged:
        warnings.warn(f"{damaged[0]}; {len(damaged)} damaged lines are left out of the log", stacklevel=3)
    return kept


@contextmanager
def _writing(place: Path) -> Iterator[None]:
    """Say of a disk that is full or read-only what it keeps from being written, and how to go on."""
    try:
        yield
    except OSError as error:
        raise WesepError(
            f"{place}: the log cannot be written ({error.strerror or reason(error)}); make room, or make it writable, "
            "and the same command goes on from the last state"
        ) from error


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
