"""By which commands, versions, code and data a run was made."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from wesep_py.checkpoint import Checkpoint, versions
from wesep_py.corpus.stores import fingerprint, is_store, locate
from wesep_py.corpus.stream_names import is_stream, stream_identity
from wesep_py.errors import InputError
from wesep_py.files import write_json
from wesep_py.textfiles import Row, read_json
from wesep_py.training.config import DataConfig

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
    place = locate(name, root)
    return fingerprint(place) if is_store(place) else _hash(_find(Path(root), name))


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
