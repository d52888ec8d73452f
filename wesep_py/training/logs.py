"""What a run writes down: JSON lines, and the trackers that are asked for."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wesep_py.config import to_plain
from wesep_py.files import write_text
from wesep_py.training.config import RunConfig
from wesep_py.training.experiment import Experiment
from wesep_py.training.trackers import Tracker, make_tracker


class RunLog:
    """The log of a run: `log.jsonl`, and trackers.

    A resumed run's log continues at its step: lines of later steps, of work that was lost, are removed, so that the
    log reads as that of an unbroken run.

    Args:
        file: the JSON lines; each has `kind`, `step` and numbers. What is not finite is written as null.
        trackers: get the numbers as curves `kind/name`, and audio.
        step: the step at which the run begins or resumes.
    """

    def __init__(self, file: Path, trackers: Sequence[Tracker], step: int) -> None:
        if file.exists():
            kept = [line for line in file.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
            write_text(file, "".join(f"{line}\n" for line in kept))
        self._file = file.open("a", encoding="utf-8")
        self._trackers = trackers

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """One line, and its numbers as curves."""
        line = {"kind": kind, "step": step, **{key: _finite(value) for key, value in values.items()}}
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()
        numbers = {
            f"{kind}/{key}": float(value)
            for key, value in values.items()
            if isinstance(value, (int, float)) and math.isfinite(value)
        }
        for tracker in self._trackers:
            tracker.numbers(step, numbers)

    def audio(self, name: str, step: int, waveform: NDArray[np.float32], sample_rate: int) -> None:
        """A waveform `[samples]`, scaled to its peak, and its spectrogram."""
        for tracker in self._trackers:
            tracker.audio(name, step, waveform, sample_rate)

    def close(self) -> None:
        """Write out what is held back."""
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
    trackers = [make_tracker(name, experiment, config.log.project, settings, step) for name in config.log.to]
    return RunLog(experiment.log_file, trackers, step)


def _step_of(line: str) -> float:
    """The step of a line; of a line cut short by a kill, infinity, so that it goes."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
