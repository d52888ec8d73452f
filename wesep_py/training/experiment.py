"""The models a run gives: checkpoints named `best`, `last` and `average`, each with its provenance and card."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from wesep_py import checkpoint
from wesep_py.checkpoint import Checkpoint, versions
from wesep_py.common.config import dump_yaml, to_plain
from wesep_py.common.errors import CheckpointError, ConfigError, InputError, WesepError
from wesep_py.common.files import path_exists, same_file, write_json, write_text
from wesep_py.common.textfiles import Row, read_json
from wesep_py.common.yamlfiles import read_yaml
from wesep_py.data import Utterance
from wesep_py.data.recordings import store_fingerprint, is_store, resolve_location
from wesep_py.data.shard_stream import is_stream, stream_identity
from wesep_py.training.devices import PRECISIONS, device_type_of, resolve_precision
from wesep_py.training.state import Progress, has_state
from wesep_py.training.task import Task
from wesep_py.training.training_config import DataConfig, RunConfig, load_config

# ----------------------------------------
# By which commands, versions, code and data a run was made.

CHECKOUT = Path(__file__).resolve().parents[2]
"""The folder that the package lies in, which is its checkout where it was not installed from a wheel."""


def git_state(folder: Path = CHECKOUT) -> dict[str, Any] | None:
    """Return commit and changes of a git checkout; `None` where the folder is none, or git is not there.

    A repository's own configuration may name programs that git runs (`core.fsmonitor`, hooks). So only this package's
    checkout is asked about, never the folder that somebody works in, and git is told to run none.

    Args:
        folder: the root of the checkout.

    Returns:
        `commit`, `branch`, and under `changed` the files that differ from the commit, fifty at most.
    """
    git = shutil.which("git", path=os.pathsep.join(filter(os.path.isabs, os.get_exec_path())))
    if git is None or not (folder / ".git").exists():
        return None
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment |= {
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CEILING_DIRECTORIES": str(folder.parent),
    }

    def ask(*arguments: str) -> str:
        command = [
            git,
            "-c",
            "core.fsmonitor=",
            "-c",
            f"core.hooksPath={os.devnull}",
            "-c",
            "core.pager=cat",
            *arguments,
        ]
        done = subprocess.run(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=True
        )
        return done.stdout.decode("utf-8", errors="replace").rstrip("\n")

    try:
        commit, branch = ask("rev-parse", "HEAD"), ask("rev-parse", "--abbrev-ref", "HEAD")
        changed = [line[3:] for line in ask("status", "--porcelain", "--ignore-submodules=all").splitlines()]
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "branch": branch, "changed": changed[:50], "changed_count": len(changed)}


def data_hashes(config: DataConfig) -> dict[str, str]:
    """SHA-256 of every manifest; of a folder, over the names and sizes of its files; of a store, of its
    checksums; of tar files without an index, over their names and sizes.

    Args:
        config: names them, relative to `root`.
    """
    return {name: _hash_of(name, config.root) for name in [*config.sources, *config.noise]}


ANCESTOR = ("made_by", "step", "steps", "mixtures", "hours_trained", "snapshots_averaged", "mixed_in", "corpus")
"""What is kept of the provenance of weights that a run went on from."""


def lineage(saved: Checkpoint) -> list[dict[str, Any]]:
    """How a checkpoint was made, and before it those that it went on from, the oldest first."""
    own = {key: saved.provenance[key] for key in ANCESTOR if key in saved.provenance}
    before = Row(str(saved.folder), saved.provenance)
    listed = [row.values for row in before.rows("went_on_from")] if before.values.get("went_on_from") else []
    return [*listed, {"hash": saved.hash, **own}]


def ancestors(file: Path) -> list[dict[str, Any]]:
    """The `lineage` of the weights that a run began with, as its `provenance.json` has it."""
    return next((session.get("went_on_from") or [] for session in _sessions(file)), [])


def write_provenance(
    file: Path, step: int, hashes: dict[str, str], went_on_from: Sequence[Mapping[str, Any]] = ()
) -> list[str]:
    """Write, or add this session to, a run's `provenance.json`.

    Args:
        file: the JSON.
        step: at which the session begins; what is noted of sessions from later steps stays too.
        hashes: from `data_hashes`.
        went_on_from: the `lineage` of the weights with which the run begins.

    Returns:
        The manifests that are others than when the run began.
    """
    session = {
        "step": step,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "folder": str(Path.cwd()),
        "host": platform.node(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "versions": versions(),
        "git": git_state(),
        "data": hashes,
        "went_on_from": list(went_on_from),
    }
    sessions = [*_sessions(file), session] if step else [session]
    write_json(file, {"sessions": sessions})
    first = sessions[0]["data"]
    return [name for name, value in hashes.items() if first.get(name, value) != value]


def _sessions(file: Path) -> list[dict[str, Any]]:
    """What is noted of a run's sessions; nothing, with a warning, where the file is damaged."""
    if not file.exists():
        return []
    try:
        rows = read_json(file, "the provenance of a run").rows("sessions")
        for row in rows:
            row.row("data")
            if row.values.get("went_on_from"):
                row.rows("went_on_from")
    except InputError as error:
        warnings.warn(f"{error}; it is begun again", stacklevel=3)
        return []
    return [dict(row.values) for row in rows]


def _hash_of(name: str, root: str) -> str:
    if is_stream(name):
        return hashlib.sha256("\n".join(stream_identity(name, root)).encode()).hexdigest()
    place = resolve_location(name, root)
    return store_fingerprint(place) if is_store(place) else _hash(_find(Path(root), name))


def _find(root: Path, name: str) -> Path:
    return root / name if (root / name).exists() else Path(name)


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            digest.update(f"{file.relative_to(path)}\0{file.stat().st_size}\n".encode())
    elif path.is_file():
        with path.open("rb") as content:
            while block := content.read(2**20):
                digest.update(block)
    else:
        return "not a file"
    return digest.hexdigest()


# ----------------------------------------
# The folder that a run fills, and whether it may be continued with the configuration at hand.

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
        files = [file for file in (self.config_file, self.provenance_file, self.log_file) if path_exists(file)]
        if files and not self._began_here():
            raise ConfigError(
                f"experiment: {self.folder} holds {files[0].name}, which no run of wesep wrote; name another folder"
            )
        for name in CHECKPOINTS:
            folder = self.checkpoints / name
            if path_exists(folder / checkpoint.WEIGHTS) and not checkpoint.KIND.is_ours(folder):
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


@dataclass(frozen=True)
class CorpusSummary:
    """How much speech a model was trained on."""

    utterances: int
    speakers: int
    hours: float

    @classmethod
    def of(cls, utterances: Sequence[Utterance]) -> CorpusSummary:
        """The summary of a list of utterances."""
        speakers = {utterance.speaker_id for utterance in utterances}
        return cls(len(utterances), len(speakers), round(sum(u.duration_s for u in utterances) / 3600, 3))

    def __str__(self) -> str:
        return f"{self.hours} h of {self.speakers} speakers" if self.utterances else "a stream of shards"


class Results:
    """Writes the checkpoints of a run.

    Args:
        experiment: where to.
        config: the run's.
        task: what is trained.
        corpus: what was trained on.
        data: hashes of its manifests.
        went_on_from: the `lineage` of the weights with which the run began.
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
        """Write `checkpoints/name`.

        Args:
            name: `best`, `last` or `average`.
            state_dict: of all that is trained.
            progress: where the run stood.
            validation: the numbers of these weights, if they were validated.
            averaged: of how many snapshots the weights are the mean.
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
            "validation": None if validation is None else self._protocol(validation),
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
        """Whether the run's `average` is of the step at which it stands."""
        try:
            provenance = checkpoint.load(self._experiment.checkpoints / "average").provenance
        except CheckpointError:
            return False
        return bool(provenance.get("step") == progress.step)

    def _protocol(self, validation: Mapping[str, float]) -> dict[str, Any]:
        assert self._task.judge is not None
        numbers = {key: round(value, 4) for key, value in validation.items() if math.isfinite(value)}
        return {**numbers, "trials": self._task.judge.protocol()}

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
        if validation is not None and self._task.judge is not None:
            lines.append(f"- validation: {self._task.judge.describe(validation)}")
        return "\n".join(lines) + "\n"
