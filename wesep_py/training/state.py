"""A run's adversaries (`losses.Adversary`) in its training state: what all ranks share, and what each has alone."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from wesep_py.common.errors import CheckpointError, WesepError, quoted, shorten
from wesep_py.common.files import atomic_path
from wesep_py.common.torchfiles import read_torch
from wesep_py.training.losses import Adversary

# ----------------------------------------
# The training state on disk: whole or not at all, the one before kept, nothing unpickled.

FORMAT_VERSION = 1
STATE_NAMES = ("next.pt", "last.pt", "previous.pt")
"""Files that may hold a state, newest first."""
MOST = {"step": 10**12, "position": 10**15, "elapsed_s": 10**9}
"""Upper bounds that no run reaches (30 years of training, for example): more is damage, not progress."""


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

    @classmethod
    def from_dict(cls, values: object) -> Progress:
        """Return the progress of a training state; keys that this version does not know are left out.

        Raises:
            ValueError: it is no mapping, or a value is none that a run has.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"progress is {quoted(values)}")
        known = {each.name: values[each.name] for each in fields(cls) if each.name in values}
        for name, value in known.items():
            kinds = (int, float) if name in ("elapsed_s", "best") else int
            if not isinstance(value, kinds) or isinstance(value, bool) or math.isnan(value):
                raise ValueError(f"progress.{name} is {quoted(value)}")
            least = -math.inf if name == "best" else -1 if name in ("best_step", "validated_step") else 0
            most = MOST.get(name, math.inf if name == "best" else known.get("step", 0))
            if not least <= value <= most:
                raise ValueError(f"progress.{name} is {quoted(value)}")
        return cls(**known)


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
    last, previous = folder / "last.pt", folder / "previous.pt"
    content = {
        "format_version": FORMAT_VERSION,
        "progress": asdict(state.progress),
        "model": state.model,
        "optimizer": state.optimizer,
        "average": state.average,
        **({"adversaries": state.adversaries} if state.adversaries else {}),
    }
    again = "the last one is still there: make room, and the same command goes on from it"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / "next.pt") as temporary:
            try:
                torch.save(content, temporary)
            except (RuntimeError, OSError) as error:  # torch makes the first of a full disk, here and there
                raise WesepError(
                    f"{folder}: the training state cannot be written (is the disk full?); {again}"
                ) from error
        if last.exists():
            last.replace(previous)
        (folder / "next.pt").replace(last)
    except OSError as error:
        raise WesepError(
            f"{folder}: the training state cannot be written ({error.strerror or error}); {again}"
        ) from error


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


def check_optimizer_state(optimizer: torch.optim.Optimizer, saved: object) -> None:
    """Refuse a state that an optimiser of these parameters cannot have; torch would read past its end.

    Args:
        optimizer: the one that is to take it, before its first step.
        saved: what an optimiser's `state_dict` gave.

    Raises:
        ValueError: naming what differs.
    """
    if not isinstance(saved, Mapping) or not isinstance(saved.get("state"), Mapping):
        raise ValueError("the optimiser's state is no mapping")
    wanted = _state_after_a_step(optimizer)
    groups = saved.get("param_groups")
    if not isinstance(groups, (list, tuple)) or len(groups) != len(wanted["param_groups"]):
        raise ValueError("the optimiser's state has other groups of parameters")
    for group, own in zip(groups, wanted["param_groups"], strict=True):
        if not isinstance(group, Mapping) or not all(key in group and _alike(group[key], own[key]) for key in own):
            raise ValueError("a group of the optimiser's state has other settings")
    known = {key: values for key, values in saved["state"].items() if values}
    for key, values in known.items():
        own = wanted["state"].get(key)
        if own is None or not isinstance(values, Mapping) or set(values) != set(own):
            raise ValueError(f"the optimiser's state of parameter {quoted(key)} has other parts")
        for name, value in values.items():
            if not _alike(value, own[name]):
                raise ValueError(f"the optimiser's state of parameter {key} has another {name}")


def _state_after_a_step(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the `state_dict` of a copy after a step in which every parameter had a gradient."""
    other = copy.deepcopy(optimizer)
    for group in other.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    other.step()
    return other.state_dict()


def _alike(value: object, own: object) -> bool:
    """Return whether two values of a state have one type, and tensors one shape."""
    if isinstance(own, torch.Tensor):
        is_tensor = isinstance(value, torch.Tensor) and value.shape == own.shape
        return is_tensor and value.is_floating_point() == own.is_floating_point()
    if isinstance(own, (list, tuple)):
        is_list = isinstance(value, (list, tuple)) and len(value) == len(own)
        return is_list and all(map(_alike, value, own))
    if own is None or isinstance(own, (bool, str)):
        return type(value) is type(own) or (own is None and isinstance(value, torch.Tensor))
    return isinstance(value, (int, float, torch.Tensor)) and not isinstance(value, bool)


def _read(path: Path) -> TrainingState:
    try:
        content = read_torch(path, "a training state")
    except CheckpointError as error:
        told = str(error).removeprefix(f"{path}: ").removeprefix("is damaged, or not a training state ")
        raise CheckpointError(f"{path}: is damaged ({shorten(told, 120).strip('()')})") from error
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{path}: has format version {quoted(version)}; this version reads {FORMAT_VERSION}")
    parts: dict[str, Any] = {"average": {}, "adversaries": {}, **content}
    try:
        progress = Progress.from_dict(parts.get("progress"))
        for name in ("model", "optimizer", "average", "adversaries"):
            if not isinstance(parts.get(name), dict):
                raise ValueError(f"{name} is {quoted(parts.get(name), 40)}")
        for name in ("model", "average"):
            if not all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in parts[name].items()):
                raise ValueError(f"{name} holds something else than tensors")
    except ValueError as error:
        raise CheckpointError(f"{path}: is damaged ({error})") from error
    return TrainingState(progress, parts["model"], parts["optimizer"], parts["average"], parts["adversaries"])


def adversary_states(adversaries: Mapping[str, Adversary], fabric: Fabric) -> dict[str, Any]:
    """What a state holds of each, under its name; empty without any. Called on every rank."""
    return {
        name: {"network": adversary.state_dict(), "memories": _of_all_ranks(adversary.memory(), fabric)}
        for name, adversary in adversaries.items()
    }


def load_adversaries(adversaries: Mapping[str, Adversary], states: Mapping[str, Any], fabric: Fabric) -> None:
    """Go on from what `adversary_states` gave; with another number of ranks, those too many begin without memory.

    Raises:
        KeyError, ValueError, RuntimeError: it is of others.
    """
    for name, adversary in adversaries.items():
        optimizer = getattr(adversary, "optimizer", None)
        if isinstance(optimizer, torch.optim.Optimizer):
            check_optimizer_state(optimizer, states[name]["network"]["optimizer"])
        adversary.load_state_dict(states[name]["network"])
        memories = states[name]["memories"]
        if fabric.global_rank < len(memories):
            adversary.load_memory(memories[fabric.global_rank])


def _of_all_ranks(memory: dict[str, Any], fabric: Fabric) -> list[dict[str, Any]]:
    if fabric.world_size == 1:
        return [memory]
    gathered: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(gathered, memory)
    return gathered
