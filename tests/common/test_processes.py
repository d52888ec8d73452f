"""Processes import nothing from the current folder, end with their parent, and survive a dead worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import wesep_py
from wesep_py.common.processes import python_command
from wesep_py.common.search_path import safe_path

HOSTILE = """
    socket numpy pesq wesep_py multiprocessing runpy signal select tempfile json typer contextlib torch warnings io
""".split()  # noqa: SIM905
"""Names of modules that a process of Python or of this package imports."""

POOL = """
from wesep_py.common.processes import worker_pool
with worker_pool(2) as pool:
    print(pool.submit(abs, -1).result())
"""
TRACKER = """
from wesep_py.common.processes import worker_context
worker_context().Event()
print(1)
"""
ITEMS = """
from wesep_py.common.processes import map_processes
print(len(list(map_processes(abs, [-1, 2], 2))) - 1)
"""
PESQ = """
import io, subprocess
import numpy as np
from wesep_py.metrics.perception import _pesq_in_own_process
speech = np.random.default_rng(0).standard_normal(16000) * np.hanning(16000)
print(int(_pesq_in_own_process(speech, speech, 16000) > 4))
"""
BODIES = {"pool": POOL, "tracker": TRACKER, "items": ITEMS, "pesq": PESQ}


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Return a folder whose modules create a file when they are imported."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    for name in HOSTILE:
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name + ' '!r})\n")
    return folder


def _run(command: list[str], folder: Path, path: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert not (folder.parent / "ran").exists(), (folder.parent / "ran").read_text()
    return done


HOME = str(Path(wesep_py.__file__).resolve().parents[1])


@pytest.mark.parametrize("name", BODIES)
def test_modules_in_the_current_folder_are_not_imported(hostile: Path, tmp_path: Path, name: str):
    script = tmp_path / "script.py"  # as the command `wesep`: a file elsewhere
    body = "".join(f"    {line}\n" for line in BODIES[name].splitlines())
    # As in an interactive session, the current folder comes first; what this process needs was imported before.
    first = (
        "import sys, json, signal, select, tempfile, concurrent.futures, multiprocessing.util, multiprocessing.spawn, "
        "numpy, pesq, wesep_py"
    )
    script.write_text(f"{first}\nif __name__ == '__main__':\n    sys.path.insert(1, '')\n{body}")
    done = _run([sys.executable, str(script)], hostile, HOME)
    assert done.stdout.strip() == "1", done.stderr


def test_a_command_run_as_a_module_ignores_the_current_folder(tmp_path: Path, hostile: Path):
    for name in ("contextlib", "warnings", "io", "wesep_py", "runpy"):  # which Python itself imports before
        (hostile / f"{name}.py").unlink()
    done = _run([sys.executable, "-m", "wesep_py.cli.main", "--version"], hostile, HOME)
    assert done.stdout.strip() == f"wesep {wesep_py.__version__}", done.stderr


def test_the_package_in_the_current_folder_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(HOME)
    monkeypatch.setattr(sys, "path", ["", "/elsewhere"])
    assert safe_path() == [os.path.realpath(HOME), "/elsewhere"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), HOME])
    assert safe_path() == [HOME]


def test_python_command_passes_arguments_on():
    done = subprocess.run(python_command("wesep_py.cli.main", "--version"), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"wesep {wesep_py.__version__}"


def test_all_processes_are_started_by_this_module():
    for path in sorted(Path(wesep_py.__file__).parent.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if path.name != "processes.py":
            assert 'get_context("' not in text and "multiprocessing.Process" not in text, path
            # A process of `python -m` imports from its current folder; pip runs in a folder of the store.
            assert '"-m"' not in text or path.name in ("search_path.py", "model_sources.py"), path
            assert "ProcessPoolExecutor(" not in text, path
            others = text.count("worker_context().Event") + text.count("else worker_context()")
            assert text.count("WorkerPool(") == text.count("worker_context()") - others, path


def test_a_pool_raises_when_a_process_dies_with_unread_data():
    """On Python 3.10, the thread that writes to it would wait forever."""
    code = (
        "import os, signal\n"
        "from wesep_py.common.processes import worker_pool\n"
        "if __name__ == '__main__':\n"
        "    pool = worker_pool(1)\n"
        "    futures = [pool.submit(len, bytes(10**6)) for _ in range(3)]\n"
        "    os.kill(next(iter(pool._processes)), signal.SIGKILL)\n"
        "    print(sum(future.exception() is not None for future in futures))\n"
        "    pool.shutdown()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "3", done.stderr


def test_workers_end_when_their_parent_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import multiprocessing, time\n"
        "from wesep_py.common.processes import worker_pool\n"
        "if __name__ == '__main__':\n"
        "    pool = worker_pool(1)\n"
        "    pool.submit(abs, 1).result()\n"
        "    print(multiprocessing.active_children()[0].pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = Path("/proc") / parent.stdout.readline().strip()
    if not worker.parent.is_dir():
        pytest.skip("needs /proc")
    assert worker.is_dir()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 10
    while worker.is_dir() and "\nState:\tZ" not in (worker / "status").read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not worker.is_dir() or "\nState:\tZ" in (worker / "status").read_text()
