"""The experiment folder: its files, whether a run may use it, and the trained models that are written to it."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wesep_py import checkpoint
from wesep_py.common.config import dump_yaml, to_plain
from wesep_py.common.errors import CheckpointError, ConfigError, WesepError
from wesep_py.common.files import path_exists, same_file, write_text
from wesep_py.common.yamlfiles import read_yaml
from wesep_py.data import Utterance
from wesep_py.training.devices import PRECISIONS, device_type_of, resolve_precision
from wesep_py.training.provenance import git_state
from wesep_py.training.state import Progress, has_state
from wesep_py.training.task import Task
from wesep_py.training.training_config import RunConfig, load_config

CHANGEABLE_KEYS = (
    "experiment", "data.root", "data.packed", "data.workers", "data.prefetch", "train.steps", "train.max_minutes",
    "train.device", "train.threads", "train.max_nonfinite", "train.patience", "train.gradient_checkpointing",
    "checkpoint", "validation", "log", "model.shifts",
)  # fmt: skip
"""Keys that may change when a run is resumed: none of them changes a step, except how far the schedule goes."""
MODEL_NAMES = ("best", "last", "average")
"""Checkpoints that a run writes."""


class Experiment:
    """Paths of an experiment folder.

    ```
    EXP/config.yaml            resolved configuration, written before the first step
    EXP/provenance.json        commands, versions and data of each session
    EXP/log.jsonl              one line per log step, one per validation
    EXP/tensorboard/
    EXP/state/                 last.pt, previous.pt: the training state; snapshots/, best/: weights
    EXP/checkpoints/{best,last,average}/
    ```
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.config_file = self.folder / "config.yaml"
        self.provenance_file = self.folder / "provenance.json"
        self.log_file = self.folder / "log.jsonl"
        self.tensorboard = self.folder / "tensorboard"
        self.state = self.folder / "state"
        self.snapshots = self.state / "snapshots"
        self.best = self.state / "best"
        self.checkpoints = self.folder / "checkpoints"

    def has_state(self) -> bool:
        """Return whether there is a training state to resume from."""
        return has_state(self.state)

    def check(self, config: RunConfig, source: Path | None = None) -> None:
        """Refuse a folder whose files the run would replace wrongly, or whose run has another configuration.

        Args:
            config: of the run.
            source: the YAML file that it was read from.

        Raises:
            ConfigError: the folder holds a run whose configuration differs in keys that change the training, or files
                that no run wrote under the names of a run's files, or is a file; or the run would replace `source`.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise ConfigError(f"experiment: {self.folder} is a file; name the folder that the run fills")
        self._check_owner(config, source)
        if not (self.has_state() and self.config_file.is_file()):
            return
        earlier = _flatten(_resolved_config(self.config_file))
        current = _flatten(to_plain(config))
        if _same_resolved_precision(earlier.get("train.precision"), config):
            earlier["train.precision"] = config.train.precision
        differing = [
            f"{key} (was {earlier.get(key, 'not set')}, is {current.get(key, 'not set')})"
            for key in sorted({*earlier, *current})
            if earlier.get(key) != current.get(key) and not _is_changeable(key)
        ]
        if differing:
            raise ConfigError(
                f"{self.folder}: holds a run with another configuration: {', '.join(differing)}; "
                "name another experiment, or set these keys back"
            )

    def _check_owner(self, config: RunConfig, source: Path | None) -> None:
        """Refuse a folder in which the run would replace files that no run wrote."""
        if self.has_state():
            return
        if source is not None and same_file(source, self.config_file):
            if _text_or_empty(source) != dump_yaml(to_plain(config)):
                raise ConfigError(
                    f"experiment: the run would replace {source}, the configuration that is read; name another folder"
                )
            return
        files = [file for file in (self.config_file, self.provenance_file, self.log_file) if path_exists(file)]
        if files and not self._holds_a_run():
            raise ConfigError(
                f"experiment: {self.folder} holds {files[0].name}, which no run of wesep wrote; name another folder"
            )
        for name in MODEL_NAMES:
            folder = self.checkpoints / name
            if path_exists(folder / checkpoint.WEIGHTS) and not checkpoint.CHECKPOINT_KIND.is_ours(folder):
                raise ConfigError(f"experiment: {folder} is no checkpoint of wesep; name another folder")

    def _holds_a_run(self) -> bool:
        """Return whether a run was started in the folder, even if it wrote no state yet."""
        try:
            if "sessions" in json.loads(_text_or_empty(self.provenance_file)):
                return True
        except (ValueError, TypeError, RecursionError):
            pass
        try:
            return dump_yaml(to_plain(load_config(self.config_file))) == _text_or_empty(self.config_file)
        except ConfigError:
            return False

    def make(self) -> None:
        """Create the folder.

        Raises:
            WesepError: it cannot be created.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WesepError(f"{self.folder}: cannot be made ({error.strerror or error})") from error

    def write_config(self, config: RunConfig) -> None:
        """Write the resolved configuration: every key, including defaults.

        Raises:
            WesepError: the folder cannot be created or written.
        """
        self.make()
        write_text(self.config_file, dump_yaml(to_plain(config)))


def _text_or_empty(file: Path) -> str:
    """Return the content of a file, or an empty string if it cannot be read."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _resolved_config(file: Path) -> dict[str, Any]:
    """Return an earlier run's configuration with the defaults of keys added since; unchanged if that fails."""
    try:
        plain: dict[str, Any] = to_plain(load_config(file, resolved=True))
    except ConfigError:
        return read_yaml(file)
    return plain


def _same_resolved_precision(precision: Any, config: RunConfig) -> bool:
    """Return whether an earlier run's precision resolves to the same as the configuration's on this machine."""
    if precision not in PRECISIONS:
        return False
    device_type = device_type_of(config.train.device)
    return resolve_precision(precision, device_type) == resolve_precision(config.train.precision, device_type)


def _is_changeable(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in CHANGEABLE_KEYS)


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return `{"a": {"b": 1}, "c": [2]}` as `{"a.b": 1, "c[0]": 2}`; an empty collection is a value."""
    if isinstance(value, Mapping) and value:
        nested = ((f"{prefix}.{key}" if prefix else str(key), item) for key, item in value.items())
    elif isinstance(value, (list, tuple)) and value:
        nested = ((f"{prefix}[{index}]", item) for index, item in enumerate(value))
    else:
        return {prefix: value}
    return {key: leaf for name, item in nested for key, leaf in _flatten(item, name).items()}


@dataclass(frozen=True)
class CorpusSummary:
    """Amount of speech in a training set.

    Attributes:
        utterances: number of utterances.
        speakers: number of speakers.
        hours: total duration.
    """

    utterances: int
    speakers: int
    hours: float

    @classmethod
    def of(cls, utterances: Sequence[Utterance]) -> CorpusSummary:
        """Return the summary of a list of utterances."""
        speakers = {utterance.speaker_id for utterance in utterances}
        return cls(len(utterances), len(speakers), round(sum(u.duration_s for u in utterances) / 3600, 3))

    def __str__(self) -> str:
        return f"{self.hours} h of {self.speakers} speakers" if self.utterances else "a stream of shards"


class TrainedModels:
    """Writes the checkpoints of a run (`best`, `last`, `average`), each with its provenance and card.

    Args:
        experiment: the folder.
        config: of the run.
        task: what is trained.
        corpus: summary of the training set.
        data: hashes of its manifests.
        went_on_from: the `lineage` of the run's initial weights.
    """

    def __init__(
        self,
        experiment: Experiment,
        config: RunConfig,
        task: Task,
        corpus: CorpusSummary,
        data: Mapping[str, str] | None = None,
        went_on_from: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self._experiment = experiment
        self._config = config
        self._task = task
        self.corpus = corpus
        self._data = dict(data or {})
        self._git = git_state()
        self._went_on_from = list(went_on_from)

    def save(
        self,
        name: str,
        state_dict: Mapping[str, torch.Tensor],
        progress: Progress,
        validation: Mapping[str, float] | None = None,
        averaged: int = 1,
    ) -> None:
        """Write `checkpoints/NAME`.

        Args:
            name: `best`, `last` or `average`.
            state_dict: of the whole training step (`Task.step`).
            progress: of the run.
            validation: numbers of these weights, if they were validated.
            averaged: number of snapshots that the weights are the mean of.
        """
        training = {key: value for key, value in to_plain(self._config).items() if key not in ("model", "speaker")}
        provenance: dict[str, Any] = {
            "made_by": "wesep train",
            "command": sys.argv,
            "step": progress.step,
            "mixtures": progress.position,
            "hours_trained": round(progress.elapsed_s / 3600, 3),
            "snapshots_averaged": averaged,
            "corpus": to_plain(self.corpus),
            "data": self._data,
            "git": self._git,
            "validation": None if validation is None else self._with_protocol(validation),
            "training": training,
            "went_on_from": self._went_on_from,
        }
        checkpoint.save(
            self._experiment.checkpoints / name,
            self._task.checkpoint_config,
            {key: tensor.detach().cpu() for key, tensor in self._task.exported(state_dict).items()},
            provenance,
            self._card(name, provenance),
            keep_others=True,
        )

    def is_final(self, progress: Progress) -> bool:
        """Return whether the checkpoint `average` belongs to the run's current step."""
        try:
            provenance = checkpoint.load(self._experiment.checkpoints / "average").provenance
        except CheckpointError:
            return False
        return bool(provenance.get("step") == progress.step)

    def _with_protocol(self, validation: Mapping[str, float]) -> dict[str, Any]:
        assert self._task.validator is not None
        numbers = {key: round(value, 4) for key, value in validation.items() if math.isfinite(value)}
        return {**numbers, "trials": self._task.validator.protocol()}

    def _card(self, name: str, provenance: Mapping[str, Any]) -> str:
        corpus, validation = self.corpus, provenance["validation"]
        lines = [
            f"# {self._experiment.folder.name} ({name})",
            "",
            self._task.title,
            "",
            f"- trained for {provenance['step']} steps ({provenance['hours_trained']} h) on mixtures simulated from "
            f"{corpus} ({', '.join(self._config.data.sources)})",
        ]
        if provenance["snapshots_averaged"] > 1:
            lines.append(f"- weights: the mean of {provenance['snapshots_averaged']} snapshots")
        if validation is not None and self._task.validator is not None:
            lines.append(f"- validation: {self._task.validator.describe(validation)}")
        return "\n".join(lines) + "\n"
