"""Provenance of a run: commands, versions, code and data it was made with, and the weights that it started from."""

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
from wesep_py.common.errors import InputError
from wesep_py.common.files import write_json
from wesep_py.common.textfiles import Row, read_json
from wesep_py.data.recordings import is_store, resolve_location, store_fingerprint
from wesep_py.data.shard_stream import is_stream, stream_identity
from wesep_py.training.data_config import DataConfig

PACKAGE_CHECKOUT = Path(__file__).resolve().parents[2]
"""The folder that contains the package: its git checkout, unless it was installed from a wheel."""
LINEAGE_KEYS = ("made_by", "step", "steps", "mixtures", "hours_trained", "snapshots_averaged", "mixed_in", "corpus")
"""Keys of a checkpoint's provenance that a run which starts from its weights keeps."""


def write_provenance(
    file: Path, step: int, hashes: dict[str, str], went_on_from: Sequence[Mapping[str, Any]] = ()
) -> list[str]:
    """Write a run's `provenance.json`, or add this session to it.

    Args:
        file: the JSON file.
        step: number of steps done when the session begins; entries of sessions from later steps stay too.
        hashes: from `data_hashes`.
        went_on_from: the `lineage` of the initial weights.

    Returns:
        The manifests whose content differs from that at the start of the run.
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
    sessions = [*_read_sessions(file), session] if step else [session]
    write_json(file, {"sessions": sessions})
    first = sessions[0]["data"]
    return [name for name, value in hashes.items() if first.get(name, value) != value]


def lineage(saved: Checkpoint) -> list[dict[str, Any]]:
    """Return how a checkpoint was made: one entry for it and for each checkpoint it started from, the oldest first."""
    entry = {key: saved.provenance[key] for key in LINEAGE_KEYS if key in saved.provenance}
    provenance = Row(str(saved.folder), saved.provenance)
    earlier: list[dict[str, Any]] = []
    if provenance.values.get("went_on_from"):
        earlier = [row.values for row in provenance.rows("went_on_from")]
    return [*earlier, {"hash": saved.hash, **entry}]


def ancestors(file: Path) -> list[dict[str, Any]]:
    """Return the `lineage` of a run's initial weights from its `provenance.json`."""
    return next((session.get("went_on_from") or [] for session in _read_sessions(file)), [])


def _read_sessions(file: Path) -> list[dict[str, Any]]:
    """Return the sessions of a run; with a warning an empty list if the file is damaged."""
    if not file.exists():
        return []
    try:
        rows = read_json(file, "the provenance of a run").rows("sessions")
        for row in rows:
            row.row("data")
            if row.values.get("went_on_from"):
                row.rows("went_on_from")
    except InputError as error:
        warnings.warn(f"{error}; a new provenance file is started", stacklevel=3)
        return []
    return [dict(row.values) for row in rows]


def data_hashes(config: DataConfig) -> dict[str, str]:
    """Return a SHA-256 for each source of training data.

    Of a manifest it is that of the file; of a folder, over the names and sizes of its files; of a store, of its
    checksums; of tar files without an index, over their names and sizes.

    Args:
        config: names the sources, relative to `root`.
    """
    return {name: _source_hash(name, config.root) for name in [*config.sources, *config.noise]}


def _source_hash(name: str, root: str) -> str:
    if is_stream(name, root):
        return hashlib.sha256("\n".join(stream_identity(name, root)).encode()).hexdigest()
    location = resolve_location(name, root)
    if is_store(location):
        return store_fingerprint(location)
    under_root = Path(root) / name
    return _path_hash(under_root if under_root.exists() else Path(name))


def _path_hash(path: Path) -> str:
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


def git_state(folder: Path = PACKAGE_CHECKOUT) -> dict[str, Any] | None:
    """Return commit and changed files of a git checkout; `None` if the folder is none, or git is not installed.

    A repository's own configuration may name programs that git runs (`core.fsmonitor`, hooks). Therefore only the
    checkout of this package is asked about, never the user's working folder, and git is configured to run none.

    Args:
        folder: root of the checkout.

    Returns:
        `commit`, `branch`, `changed` (at most fifty files that differ from the commit) and `changed_count`.
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
    safe_options = ["-c", "core.fsmonitor=", "-c", f"core.hooksPath={os.devnull}", "-c", "core.pager=cat"]

    def run_git(*arguments: str) -> str:
        finished = subprocess.run(
            [git, *safe_options, *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=20,
            check=True,
        )
        return finished.stdout.decode("utf-8", errors="replace").rstrip("\n")

    try:
        commit, branch = run_git("rev-parse", "HEAD"), run_git("rev-parse", "--abbrev-ref", "HEAD")
        changed = [line[3:] for line in run_git("status", "--porcelain", "--ignore-submodules=all").splitlines()]
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "branch": branch, "changed": changed[:50], "changed_count": len(changed)}
