"""Training state: progress, weights and optimiser on disk, and restoring them; initial weights of another run.

A run resumes exactly from `last.pt`. The file is written under a temporary name and renamed, the previous file is kept
as `previous.pt`, and nothing is ever unpickled.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from wesep_py import checkpoint
from wesep_py.common.errors import CheckpointError, WesepError, quoted, reason, shorten
from wesep_py.common.files import atomic_path
from wesep_py.common.torchfiles import read_torch
from wesep_py.network.extraction_network import TargetSpeakerExtractor
from wesep_py.network.live_mode import begin_live_layers
from wesep_py.training.losses import Adversary
from wesep_py.training.provenance import lineage
from wesep_py.training.step import Optimisation
from wesep_py.training.task import Task
from wesep_py.training.training_config import InitConfig

STATE_VERSION = 1
STATE_FILES = ("next.pt", "last.pt", "previous.pt")
"""Files that may hold a state, newest first.

`save_state` writes next.pt, renames last.pt to previous.pt, then next.pt to last.pt. After a kill between any two of
these, at least one file is whole, and the first readable one in this order is the newest state."""
PROGRESS_LIMITS = {"step": 10**12, "position": 10**15, "elapsed_s": 10**9}
"""Upper bounds that no run reaches (30 years of training, for example): a higher value means damage."""


@dataclass
class Progress:
    """Progress of a run.

    Args:
        step: number of optimiser steps done, skipped ones included.
        position: number of mixtures taken, over all ranks.
        elapsed_s: training time in seconds, over all sessions.
        skipped: number of steps skipped because loss or gradient was not finite.
        skipped_in_a_row: number of steps skipped since the last good step.
        best_step: step of the best validation, -1 before the first.
        best: its result, the task's `Validator.measure`.
        validated_step: step of the last validation, -1 before the first.
        since_best: number of validations after the best.
        waited: of these, the number since the learning rate last fell on a plateau.
        falls: number of times that it fell on a plateau.
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
        """Return the progress in a training state; keys that this version does not know are ignored.

        Raises:
            ValueError: it is not a mapping, or a value is outside of what a run can have.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"progress is {quoted(values)}")
        known = {each.name: values[each.name] for each in fields(cls) if each.name in values}
        for name, value in known.items():
            kinds = (int, float) if name in ("elapsed_s", "best") else int
            if not isinstance(value, kinds) or isinstance(value, bool) or math.isnan(value):
                raise ValueError(f"progress.{name} is {quoted(value)}")
            lowest = -math.inf if name == "best" else -1 if name in ("best_step", "validated_step") else 0
            highest = PROGRESS_LIMITS.get(name, math.inf if name == "best" else known.get("step", 0))
            if not lowest <= value <= highest:
                raise ValueError(f"progress.{name} is {quoted(value)}")
        return cls(**known)


@dataclass
class TrainingState:
    """Everything that resuming exactly needs.

    The random state is not part of it, because it is a function of (seed, step, batch, rank), as the data is of its
    position, and the learning rate of step and progress.

    Args:
        progress: of the run.
        model: `state_dict` of the training step (`Task.step`).
        optimizer: `state_dict` of the optimiser.
        average: moving average of the weights; empty if none is used.
        adversaries: networks that learn against the trained one (`adversary_states`); empty if there are none.
    """

    progress: Progress
    model: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    average: dict[str, torch.Tensor] = field(default_factory=dict)
    adversaries: dict[str, Any] = field(default_factory=dict)


def save_state(folder: Path, state: TrainingState) -> None:
    """Write `folder/last.pt`; the previous `last.pt` becomes `previous.pt`.

    Raises:
        WesepError: the disk is full or not writable; the previous state is still there.
    """
    last, previous = folder / "last.pt", folder / "previous.pt"
    content = {
        "format_version": STATE_VERSION,
        "progress": asdict(state.progress),
        "model": state.model,
        "optimizer": state.optimizer,
        "average": state.average,
        **({"adversaries": state.adversaries} if state.adversaries else {}),
    }
    hint = "the last state is still there: free some space, and run the same command again to resume from it"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / "next.pt") as temporary:
            try:
                torch.save(content, temporary)
            except (RuntimeError, OSError) as error:  # torch may raise RuntimeError for a full disk
                raise WesepError(
                    f"{folder}: the training state cannot be written (is the disk full?); {hint}"
                ) from error
        if last.exists():
            last.replace(previous)
        (folder / "next.pt").replace(last)
    except OSError as error:
        raise WesepError(
            f"{folder}: the training state cannot be written ({error.strerror or error}); {hint}"
        ) from error


def has_state(folder: Path) -> bool:
    """Return whether the folder holds a state."""
    return any((folder / name).exists() for name in STATE_FILES)


def load_state(folder: Path) -> TrainingState | None:
    """Return the newest readable state, or `None` if there is no state.

    Raises:
        CheckpointError: there are states, and none of them can be read.
    """
    problems: list[str] = []
    for path in (folder / name for name in STATE_FILES):
        if not path.exists():
            continue
        try:
            state = _read_state(path)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            warnings.warn(f"{problem}; went back to {path.name}", stacklevel=2)
        return state
    if problems:
        raise CheckpointError(f"{'; '.join(problems)}; delete {folder} to start from the beginning")
    return None


def _read_state(path: Path) -> TrainingState:
    try:
        content = read_torch(path, "a training state")
    except CheckpointError as error:
        cause = str(error).removeprefix(f"{path}: ").removeprefix("is damaged, or not a training state ")
        raise CheckpointError(f"{path}: is damaged ({shorten(cause, 120).strip('()')})") from error
    version = content.get("format_version")
    if version != STATE_VERSION:
        raise CheckpointError(f"{path}: has format version {quoted(version)}; this version reads {STATE_VERSION}")
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


def capture_state(task: Task, optimisation: Optimisation, progress: Progress, fabric: Fabric) -> TrainingState:
    """Return the state of a run, to be saved. Called on every rank, because adversaries gather from all."""
    return TrainingState(
        progress,
        task.step.state_dict(),
        optimisation.optimizer.state_dict(),
        optimisation.average.state_dict() if optimisation.average else {},
        adversary_states(task.adversaries, fabric),
    )


def restore_state(state: TrainingState, task: Task, optimisation: Optimisation, fabric: Fabric, folder: Path) -> None:
    """Load a state into the task's network and losses, the optimiser, the moving average and the adversaries.

    Args:
        state: from `load_state`.
        task: changed in place.
        optimisation: changed in place.
        fabric: of the run.
        folder: of the state, for errors.

    Raises:
        CheckpointError: the state belongs to another network or optimiser.
    """
    try:
        if lines := checkpoint.weight_mismatches(task.step.state_dict(), state.model):
            raise ValueError(lines[0])
        task.step.load_state_dict(state.model)
        check_optimizer_state(optimisation.optimizer, state.optimizer)
        optimisation.optimizer.load_state_dict(state.optimizer)
        if optimisation.average:
            if lines := checkpoint.weight_mismatches(optimisation.average.state_dict(), state.average):
                raise ValueError(f"average: {lines[0]}")
            optimisation.average.load_state_dict(state.average)
        load_adversaries(task.adversaries, state.adversaries, fabric)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(
            f"{folder}: does not fit the configuration's network ({shorten(reason(error))}); name another "
            "experiment, or delete this folder to start from the beginning"
        ) from error


def check_optimizer_state(optimizer: torch.optim.Optimizer, saved: object) -> None:
    """Refuse a state that an optimiser of these parameters cannot have. Fused kernels would read past its end.

    Args:
        optimizer: the optimiser that will load the state, before its first step.
        saved: the `state_dict` of an optimiser.

    Raises:
        ValueError: names what differs.
    """
    if not isinstance(saved, Mapping) or not isinstance(saved.get("state"), Mapping):
        raise ValueError("the optimiser's state is no mapping")
    expected = _state_after_a_step(optimizer)
    groups = saved.get("param_groups")
    if not isinstance(groups, (list, tuple)) or len(groups) != len(expected["param_groups"]):
        raise ValueError("the optimiser's state has other groups of parameters")
    for group, like in zip(groups, expected["param_groups"], strict=True):
        if not isinstance(group, Mapping) or not all(
            key in group and _same_kind(group[key], like[key]) for key in like
        ):
            raise ValueError("a group of the optimiser's state has other settings")
    # A parameter that never had a gradient has no state.
    states = {key: values for key, values in saved["state"].items() if values}
    for key, values in states.items():
        like = expected["state"].get(key)
        if like is None or not isinstance(values, Mapping) or set(values) != set(like):
            raise ValueError(f"the optimiser's state of parameter {quoted(key)} has other parts")
        for name, value in values.items():
            if not _same_kind(value, like[name]):
                raise ValueError(f"the optimiser's state of parameter {key} has another {name}")


def _state_after_a_step(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the `state_dict` of a copy of an optimiser after a step in which every parameter had a gradient."""
    other = copy.deepcopy(optimizer)
    for group in other.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    other.step()
    return other.state_dict()


def _same_kind(value: object, like: object) -> bool:
    """Return whether two values of a state have the same type, and tensors the same shape."""
    if isinstance(like, torch.Tensor):
        is_tensor = isinstance(value, torch.Tensor) and value.shape == like.shape
        return is_tensor and value.is_floating_point() == like.is_floating_point()
    if isinstance(like, (list, tuple)):
        is_list = isinstance(value, (list, tuple)) and len(value) == len(like)
        return is_list and all(map(_same_kind, value, like))
    if like is None or isinstance(like, (bool, str)):
        return type(value) is type(like) or (like is None and isinstance(value, torch.Tensor))
    return isinstance(value, (int, float, torch.Tensor)) and not isinstance(value, bool)


def adversary_states(adversaries: Mapping[str, Adversary], fabric: Fabric) -> dict[str, Any]:
    """Return the state of each adversary by name: its network, and the memories of all ranks. Called on every rank."""
    return {
        name: {"network": adversary.state_dict(), "memories": _gather(adversary.memory(), fabric)}
        for name, adversary in adversaries.items()
    }


def load_adversaries(adversaries: Mapping[str, Adversary], states: Mapping[str, Any], fabric: Fabric) -> None:
    """Restore what `adversary_states` returned. If there are more ranks now, the additional ones have no memory.

    Raises:
        KeyError, ValueError, RuntimeError: the states belong to other adversaries.
    """
    for name, adversary in adversaries.items():
        optimizer = getattr(adversary, "optimizer", None)
        if isinstance(optimizer, torch.optim.Optimizer):
            check_optimizer_state(optimizer, states[name]["network"]["optimizer"])
        adversary.load_state_dict(states[name]["network"])
        memories = states[name]["memories"]
        if fabric.global_rank < len(memories):
            adversary.load_memory(memories[fabric.global_rank])


def _gather(memory: dict[str, Any], fabric: Fabric) -> list[dict[str, Any]]:
    """Return the memories of all ranks, in their order."""
    if fabric.world_size == 1:
        return [memory]
    gathered: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(gathered, memory)
    return gathered


@dataclass(frozen=True)
class InitialWeights:
    """Weights that a network took over from a checkpoint.

    Attributes:
        source: folder of the checkpoint.
        hash: of its weights and configuration.
        num_loaded: number of tensors that were loaded.
        fresh: names of the network's tensors that were not loaded.
        derived: names of those among them that were computed from loaded ones, not drawn.
        unused: names of the checkpoint's tensors that were not loaded.
        lineage: how the checkpoint was made, and the checkpoints that it started from.
    """

    source: str
    hash: str
    num_loaded: int
    fresh: list[str]
    unused: list[str]
    lineage: list[dict[str, Any]]
    derived: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        text = f"{self.num_loaded} of {self.num_loaded + len(self.fresh)} tensors are those of {self.source}"
        if self.derived:
            text += f"; computed from them: {', '.join(self.derived)}"
        if drawn := [name for name in self.fresh if name not in self.derived]:
            text += f"; freshly initialised: {', '.join(drawn)}"
        return text + (f"; not used: {', '.join(self.unused)}" if self.unused else "")


def load_initial_weights(network: nn.Module, config: InitConfig) -> InitialWeights:
    """Load the tensors of a checkpoint whose name and shape fit a network.

    Args:
        network: changed in place.
        config: names the checkpoint, and what of it is used.

    Raises:
        CheckpointError: it is missing or damaged; no tensor fits, or with `strict` not every tensor.

    Example: `init: {checkpoint: exp/base, skip: ["encoder.*"]}`
    """
    saved = checkpoint.load(config.checkpoint)
    tensors = network.state_dict()
    offered = {
        name: tensor
        for name, tensor in saved.state_dict.items()
        if not any(fnmatchcase(name, pattern) for pattern in config.skip)
    }
    if config.strict and (lines := checkpoint.weight_mismatches(tensors, offered)):
        more = f" and {len(lines) - 5} more" if len(lines) > 5 else ""
        raise CheckpointError(
            f"init.checkpoint: {saved.folder} does not fit the network: {'; '.join(lines[:5])}{more}; with "
            "init.strict=false what fits is taken"
        )
    fits = {name: tensor for name, tensor in offered.items() if name in tensors and tensors[name].shape == tensor.shape}
    if not fits:
        raise CheckpointError(f"init.checkpoint: nothing of {saved.folder} fits the network; give a model of its kind")
    with torch.no_grad():
        for name, tensor in fits.items():
            tensors[name].copy_(tensor)
    missing = [name for name in tensors if name not in fits]
    derived = begin_live_layers(network, missing) if isinstance(network, TargetSpeakerExtractor) else []
    return InitialWeights(
        str(saved.folder),
        saved.hash,
        len(fits),
        missing,
        [name for name in saved.state_dict if name not in fits],
        lineage(saved),
        derived,
    )
