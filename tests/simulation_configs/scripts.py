"""Running of the scripts of simulation/ and recipes/, as a user does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.forked_commands import search_path

FOLDER = Path(__file__).resolve().parents[2] / "simulation"


def run_script(*command: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command with the `wesep` and the `python` of these tests first on the path, one thread each."""
    environment = {**os.environ, "PATH": search_path(), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        list(map(str, command)), env=environment, cwd=cwd, capture_output=True, text=True, check=False
    )
