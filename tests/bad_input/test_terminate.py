"""SIGTERM gives one line and status 143, and leaves no temporary files and no processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wesep_py import audio
from wesep_py.cli.main import main

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")

WORKERS = """
import os, sys, time
from pathlib import Path
from wesep_py.common.processes import map_processes
from wesep_py.common.files import atomic_path

def work(folder):
    with atomic_path(folder / f"{os.getpid()}.txt") as temporary:
        temporary.write_text("half of it")
        time.sleep(60)

def run():
    for _ in map_processes(work, [Path(sys.argv[1])] * 4, 2):
        pass

if __name__ == "__main__":
    from wesep_py.cli import main as command
    with command._termination.caught():
        sys.exit(command._guard(run, "wesep test", []))
"""


def terminate_while_it_writes() -> None:
    def write(self, waveform) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(9)

    audio.AudioWriter.write = write  # type: ignore[method-assign]


@pytest.fixture
def arguments(tiny_speech: Path, tiny_model: Path) -> list[str]:
    recording = str(tiny_speech / "anna" / "anna-0.wav")
    return ["extract", recording, "--enroll", recording, "--model", str(tiny_model), "--device", "cpu", "-o"]


def test_sigterm_gives_one_line_and_leaves_no_files(arguments: list[str], tmp_path: Path):
    (tmp_path / "out").mkdir()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(tmp_path / "err", os.O_WRONLY | os.O_CREAT), 2)
            sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
            terminate_while_it_writes()
            status = main([*arguments, str(tmp_path / "out" / "o.wav")])
            sys.stderr.flush()
            os._exit(status)
        finally:
            os._exit(99)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    err = (tmp_path / "err").read_text()
    assert status == 143, err
    assert err.count("\n") == 1 and err.startswith("wesep extract: "), err
    assert list((tmp_path / "out").iterdir()) == []


IN_EXEC = """
import sys
from wesep_py.cli import main as command
run = lambda: exec("import os, signal, time; os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)")
with command._termination.caught():
    status = command._guard(run, "wesep test", [])
sys.exit(status)
"""


def test_sigterm_while_exec_creates_a_module():
    """A plain `KeyboardInterrupt` that has passed through `exec` makes Python end by SIGINT, whatever its status."""
    done = subprocess.run([sys.executable, "-c", IN_EXEC], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (143, "wesep test: terminated\n")


def test_the_handler_of_the_caller_is_restored(wesep):
    before = signal.getsignal(signal.SIGTERM)
    assert wesep("--version").status == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_ignored_signal_stays_ignored(monkeypatch):
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        monkeypatch.setattr("wesep_py.cli.main._guard", lambda *given: os.kill(os.getpid(), signal.SIGTERM) or 0)
        assert main(["--version"]) == 0
    finally:
        signal.signal(signal.SIGTERM, before)


def children_of(process: subprocess.Popen[str]) -> list[int]:
    """Return the child processes of a process; an empty list if the system does not tell."""
    children = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if f"\nPPid:\t{process.pid}\n" in status.read_text():
                children.append(int(status.parent.name))
        except OSError:
            continue
    return children


def is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc")
def test_sigterm_ends_the_workers_too(tmp_path: Path):
    (tmp_path / "script.py").write_text(WORKERS)
    (tmp_path / "out").mkdir()
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "out").iterdir())) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    workers = children_of(process)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (143, "wesep test: terminated\n")
    assert len(workers) >= 2
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(is_running, workers))
    assert list((tmp_path / "out").iterdir()) == []
