"""What a run writes down: JSON lines, and TensorBoard with audio and spectrograms."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wesep_py.files import write_text
from wesep_py.training.images import spectrogram_image


class RunLog:
    """The log of a run: `log.jsonl` and `tensorboard/`.

    A resumed run's log continues at its step: lines of later steps, of work that was lost, are removed, so that the
    log reads as that of an unbroken run.

    Args:
        file: the JSON lines; each has `kind`, `step` and numbers. What is not finite is written as null.
        tensorboard: the folder of TensorBoard's events.
        step: the step at which the run begins or resumes.
    """

    def __init__(self, file: Path, tensorboard: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if file.exists():
            kept = [line for line in file.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
            write_text(file, "".join(f"{line}\n" for line in kept))
        self._file = file.open("a", encoding="utf-8")
        self._tensorboard = SummaryWriter(str(tensorboard), purge_step=step + 1 if step else None)

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """One line, and its numbers as curves `kind/name`."""
        line = {"kind": kind, "step": step, **{key: _finite(value) for key, value in values.items()}}
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()
        for key, value in values.items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                self._tensorboard.add_scalar(f"{kind}/{key}", value, step)

    def audio(self, name: str, step: int, waveform: NDArray[np.float32], sample_rate: int) -> None:
        """A waveform `[samples]`, scaled to its peak, and its spectrogram."""
        peak = float(np.abs(waveform).max(initial=0.0))
        audible = waveform * (0.9 / peak) if peak > 0 else waveform
        self._tensorboard.add_audio(name, audible, step, sample_rate=sample_rate)
        self._tensorboard.add_image(name, spectrogram_image(waveform, sample_rate), step)

    def close(self) -> None:
        """Write out what is held back."""
        self._file.close()
        self._tensorboard.close()


def _step_of(line: str) -> float:
    """The step of a line; of a line cut short by a kill, infinity, so that it goes."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
