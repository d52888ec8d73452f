"""The training state on disk: whole or not at all, the one before kept, nothing unpickled."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from wesep_py.errors import CheckpointError, WesepError
from wesep_py.files import atomic_path

FORMAT_VERSION = 1
STATE_NAMES = ("next.pt", "last.pt", "previous.pt")
"""Files that may hold a state, newest first."""


@dataclass
class Progress:
    """Where a run stands.

    Args:
        step: optimiser steps done, skipped ones included.
        position: mixtures taken so far, over all ranks.
        elapsed_s: seconds trained, over all sessions.
        skipped: steps skipped because the loss or gradient was not finite.
        skipped_in_a_row: those since the last good step.
        best_step: step of the best validation, -1 before the first.
        best: its result; what that is, the task's judge says.
        validated_step: step of the last validation, -1 before the first.
        since_best: validations after the best.
        waited: of these, those since the learning rate's last fall on a plateau.
        falls: how often it has fallen so.
    """

    step: int = 0
    position: int = 0
    elapsed_s: float = 0.0
    skipped: int = 0
    skipped_in_a_row: int = 0
    best_step: int = -1
    best: float = 0.0
    validated_step: int = -1
    since_best: int = 0
    waited: int = 0
    falls: int = 0


@dataclass
class TrainingState:
    """All that an exact resumption needs; `average` is that of the weights, empty where none is kept.

    `adversaries` is what learns against the network (`training.adversaries`), empty where nothing does.

    The random state is not in it because it is a function of (seed, step, batch, rank), as the data is of its
    position, and the learning rate of the step and the progress.
    """

    progress: Progress
    model: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    average: dict[str, torch.Tensor] = field(default_factory=dict)
    adversaries: dict[str, Any] = field(default_factory=dict)


def save_state(folder: Path, state: TrainingState) -> None:
    """Write `folder/last.pt`; what stood there becomes `previous.pt`.

    Raises:
        WesepError: the disk is full or not writable; what stood there is still there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last, previous = folder / "last.pt", folder / "previous.pt"
    content = {
        "format_version": FORMAT_VERSION,
        "progress": asdict(state.progress),
        "model": state.model,
        "optimizer": state.optimizer,
        "average": state.average,
        **({"adversaries": state.adversaries} if state.adversaries else {}),
    }
    with atomic_path(folder / "next.pt") as temporary:
        try:
            torch.save(content, temporary)
        except (RuntimeError, OSError) as error:  # torch makes the first of a full disk, here and there
            raise WesepError(
                f"{folder}: the training state cannot be written (is the disk full?); the last one is still there"
            ) from error
    if last.exists():
        last.replace(previous)
    (folder / "next.pt").replace(last)


def has_state(folder: Path) -> bool:
    """Whether a state lies in the folder."""
    return any((folder / name).exists() for name in STATE_NAMES)


def load_state(folder: Path) -> TrainingState | None:
    """The newest state that can be read; none if there is none.

    Raises:
        CheckpointError: there are states, and none of them can be read.
    """
    found = [path for name in STATE_NAMES if (path := folder / name).exists()]
    reasons: list[str] = []
    for path in found:
        try:
            state = _read(path)
        except CheckpointError as error:
            reasons.append(str(error))
            continue
        for reason in reasons:
            warnings.warn(f"{reason}; went back to {path.name}", stacklevel=2)
        return state
    if reasons:
        raise CheckpointError(f"{'; '.join(reasons)}; delete {folder} to begin again")
    return None


def _read(path: Path) -> TrainingState:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path}: is damaged ({reason[:80]})") from error
    if content.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: has format version {content.get('format_version')}; this version reads {FORMAT_VERSION}"
        )
    known = {one.name for one in fields(Progress)}
    progress = Progress(**{key: value for key, value in content["progress"].items() if key in known})
    return TrainingState(
        progress, content["model"], content["optimizer"], content.get("average", {}), content.get("adversaries", {})
    )
