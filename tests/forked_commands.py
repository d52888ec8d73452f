"""Command `wesep` for tests of shell scripts, without the seconds that importing torch takes in each process.

A server process imports the package once. On the PATH, `wesep` is a small client that sends its arguments, folder,
environment and open files to the server, which forks a process that runs the command.

    script ─► wesep (client) ── arguments, descriptors 0 to 2 ──► server ── fork ──► the command ─► status ─► client

`python tests/forked_commands.py serve SOCKET` is the server, `client SOCKET ARGUMENT…` the client.
"""

from __future__ import annotations

import array
import atexit
import importlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from functools import cache
from pathlib import Path

MODULES = (
    "wesep_py.cli.main",
    "wesep_py.training",
    "wesep_py.evaluation.evaluator",
    "wesep_py.simulation",
    "wesep_py.cli.train",
)


@cache
def search_path() -> str:
    """Start the server once, and return a PATH on which `wesep` is the client."""
    folder = Path(tempfile.mkdtemp(prefix="wesep"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    server, log = folder / "server", folder / "log"
    command = [sys.executable, __file__, "serve", str(server)]
    with log.open("w") as output:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
    while not server.exists():
        if process.poll() is not None:
            raise RuntimeError(f"the server of forked commands ended: {log.read_text()}")
        time.sleep(0.05)
    # Isolated and without site-packages: the client needs nothing, and starts in milliseconds.
    wesep = folder / "wesep"
    wesep.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{__file__}" client "{server}" "$@"\n')
    wesep.chmod(0o755)
    return os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])


def serve(path: str) -> None:
    """Serve clients, each in a forked process, until the process that started the server has ended."""
    import signal

    for name in MODULES:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    listener.settimeout(1.0)
    starter = os.getppid()
    while os.getppid() == starter:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            connection.settimeout(None)
            _run(connection)
        connection.close()


def _run(connection: socket.socket) -> None:
    """Run the command of a client, and end this process."""
    from wesep_py.cli.main import main

    request, descriptors = _receive(connection)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    # The streams of the server have the state of its own files.
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    if "huggingface_hub.constants" in sys.modules:  # reads the environment when it is imported
        importlib.reload(sys.modules["huggingface_hub.constants"])
    sys.argv = ["wesep", *request["arguments"]]
    status = 70  # an unexpected exception
    try:
        status = main(request["arguments"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(bytes([status]))
        os._exit(status)


def _receive(connection: socket.socket) -> tuple[dict, list[int]]:
    """Receive the request of a client, and the descriptors of its open files."""
    data, ancillary, _, _ = connection.recvmsg(1 << 16, socket.CMSG_SPACE(3 * 4))
    descriptors = array.array("i")
    descriptors.frombytes(ancillary[0][2])
    while not data.endswith(b"\n"):
        data += connection.recv(1 << 16)
    return json.loads(data), list(descriptors)


def client(path: str, arguments: list[str]) -> int:
    """Run a command through the server, and return its exit status; 1 if its process was killed."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    request = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}  # noqa: PTH109
    first, remaining = (text := (json.dumps(request) + "\n").encode())[:1024], text[1024:]
    connection.sendmsg([first], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
    connection.sendall(remaining)
    return (connection.recv(1) or b"\x01")[0]


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        sys.path.pop(0)  # the folder of the tests, whose modules would hide others of the same name
        serve(sys.argv[2])
    else:
        sys.exit(client(sys.argv[2], sys.argv[3:]))
