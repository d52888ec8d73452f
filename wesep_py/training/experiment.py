"""The folder that a run fills, and whether it may be continued with the configuration at hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wesep_py import checkpoint
from wesep_py.config import dump_yaml, to_plain
from wesep_py.errors import ConfigError, WesepError
from wesep_py.files import is_there, same_file, write_text
from wesep_py.training.config import RunConfig, load_config
from wesep_py.training.devices import PRECISIONS, device_type_of, resolve_precision
from wesep_py.training.state import has_state
from wesep_py.yamlfiles import read_yaml

CHANGEABLE = (
    "experiment", "data.root", "data.packed", "data.workers", "data.prefetch", "train.steps", "train.max_minutes",
    "train.device", "train.threads", "train.max_nonfinite", "train.patience", "train.gradient_checkpointing",
    "checkpoint", "validation", "log",
)  # fmt: skip
"""Keys that may change when a run is resumed: none of them alters a step, except how far the schedule goes."""
CHECKPOINTS = ("best", "last", "average")


class Experiment:
    """Names of what a run writes.

    ```
    EXP/config.yaml            resolved, written before the first step
    EXP/provenance.json        by which commands, versions and data
    EXP/log.jsonl              one line a log step, one a validation
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
        """Whether there is a training state to go on from."""
        return has_state(self.state)

    def check(self, config: RunConfig, source: Path | None = None) -> None:
        """Refuse a folder in which the run would replace what is not its own; and another configuration than before.

        Args:
            config: the run's.
            source: the YAML that it was read from.

        Raises:
            ConfigError: the folder holds a run whose configuration differs in keys that change the training, or files
                of somebody else under the names of a run's, or is a file; the run would replace `source`.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise ConfigError(f"experiment: {self.folder} is a file; name the folder that the run fills")
        self._check_owner(config, source)
        if not (self.has_state() and self.config_file.is_file()):
            return
        before = _flatten(_resolved(self.config_file))
        now = _flatten(to_plain(config))
        if _computes_alike(before.get("train.precision"), config):
            before["train.precision"] = config.train.precision
        differing = [
            f"{key} (was {before.get(key, 'not set')}, is {now.get(key, 'not set')})"
            for key in sorted({*before, *now})
            if before.get(key) != now.get(key) and not _changeable(key)
        ]
        if differing:
            raise ConfigError(
                f"{self.folder}: holds a run with another configuration: {', '.join(differing)}; "
                "name another experiment, or set these keys back"
            )

    def _check_owner(self, config: RunConfig, source: Path | None) -> None:
        if self.has_state():
            return
        if source is not None and same_file(source, self.config_file):
            if _text_of(source) != dump_yaml(to_plain(config)):
                raise ConfigError(
                    f"experiment: the run would replace {source}, the configuration that is read; name another folder"
                )
            return
        files = [file for file in (self.config_file, self.provenance_file, self.log_file) if is_there(file)]
        if files and not self._began_here():
            raise ConfigError(
                f"experiment: {self.folder} holds {files[0].name}, which no run of wesep wrote; name another folder"
            )
        for name in CHECKPOINTS:
            folder = self.checkpoints / name
            if is_there(folder / checkpoint.WEIGHTS) and not checkpoint.KIND.is_ours(folder):
                raise ConfigError(f"experiment: {folder} is no checkpoint of wesep; name another folder")

    def _began_here(self) -> bool:
        """True if a run began in the folder, whether or not it came to its first state."""
        try:
            if "sessions" in json.loads(_text_of(self.provenance_file)):
                return True
        except (ValueError, TypeError, RecursionError):
            pass
        try:
            return dump_yaml(to_plain(load_config(self.config_file))) == _text_of(self.config_file)
        except ConfigError:
            return False

    def make(self) -> None:
        """Make the folder.

        Raises:
            WesepError: it cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WesepError(f"{self.folder}: cannot be made ({error.strerror or error})") from error

    def write_config(self, config: RunConfig) -> None:
        """Write the resolved configuration: every key, the defaults included.

        Raises:
            WesepError: the folder cannot be made or written.
        """
        self.make()
        write_text(self.config_file, dump_yaml(to_plain(config)))


def _text_of(file: Path) -> str:
    """The content of a file; nothing where it cannot be read."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _resolved(file: Path) -> dict[str, Any]:
    """The configuration of the run before, with the defaults of keys that have been added since; else as it stands."""
    try:
        plain: dict[str, Any] = to_plain(load_config(file, resolved=True))
    except ConfigError:
        return read_yaml(file)
    return plain


def _computes_alike(precision: Any, config: RunConfig) -> bool:
    """True if the precision of a run before is the configuration's, or what `auto` comes to here."""
    if precision not in PRECISIONS:
        return False
    device_type = device_type_of(config.train.device)
    return resolve_precision(precision, device_type) == resolve_precision(config.train.precision, device_type)


def _changeable(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in CHANGEABLE)


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}, "c": [2]}` as `{"a.b": 1, "c[0]": 2}`; an empty collection stands as itself."""
    if isinstance(value, Mapping) and value:
        nested = ((f"{prefix}.{key}" if prefix else str(key), item) for key, item in value.items())
    elif isinstance(value, (list, tuple)) and value:
        nested = ((f"{prefix}[{index}]", item) for index, item in enumerate(value))
    else:
        return {prefix: value}
    return {key: leaf for name, item in nested for key, leaf in _flatten(item, name).items()}
