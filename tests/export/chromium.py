"""A page in headless Chromium with onnxruntime-web and `stream.js`, which runs pieces of JavaScript for tests."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / "build" / "web" / "node_modules" / "onnxruntime-web" / "dist"
"""Where `make test-browser` installs onnxruntime-web."""
SCRIPTS = ROOT / "wesep_py" / "export" / "web"
TIMEOUT_S = 90
NUM_WARM_UP = 50
"""Hops that are not timed."""
TYPES = {".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}
# Takes one piece of JavaScript after another, and returns the value of each, or its error.
PAGE = """<!doctype html><meta charset="utf-8"><script type="module">
import * as ort from "/ort/ort.wasm.min.mjs";
import { TargetSpeakerStream } from "/scripts/stream.js";
ort.env.wasm.numThreads = 1;
const AsyncFunction = (async () => {}).constructor;
for (;;) {
  const { code, values } = await (await fetch("/next", { method: "POST" })).json();
  let answer;
  try {
    answer = { value: await new AsyncFunction("ort", "TargetSpeakerStream", ...Object.keys(values), code)(
      ort, TargetSpeakerStream, ...Object.values(values)) };
  } catch (error) {
    answer = { error: String(error) };
  }
  const plain = (key, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value);
  await fetch("/answer", { method: "POST", body: JSON.stringify(answer, plain) });
}
</script>"""


# Times hops: one call of `process` each, so also what it takes to copy samples and to wait for a promise.
TIME_HOPS = """
const began = performance.now();
const stream = await TargetSpeakerStream.load(`/models/${name}`, ort);
const loaded = performance.now();
stream.setVoice(await stream.enroll(Float32Array.from(enrollment)));
const enrolled = performance.now();
const samples = Float32Array.from(mixture), hop = stream.hopLength;
const hops = [], parts = [];
for (let start = 0; start + hop <= samples.length; start += hop) {
  const before = performance.now();
  const finished = await stream.process(samples.subarray(start, start + hop));
  hops.push(performance.now() - before);
  parts.push(...finished);
}
return { load: loaded - began, enroll: enrolled - loaded, hops, parts, isolated: crossOriginIsolated };
"""


class BrowserTimes(NamedTuple):
    """Times of a stream in the browser, in milliseconds.

    Attributes:
        load: to fetch and load the graphs.
        enroll: to enroll the voice.
        hops: of each call of `process` with one hop, from the first of a recording on.
        samples: that these calls returned.
    """

    load: float
    enroll: float
    hops: NDArray[np.float64]
    samples: NDArray[np.float32]

    def percentiles(self) -> tuple[float, float, float]:
        """Return p50, p95 and p99 of a hop, without the first hops, while the browser still compiles."""
        p50, p95, p99 = (float(value) for value in np.percentile(self.hops[NUM_WARM_UP:], [50, 95, 99]))
        return p50, p95, p99


def chromium() -> str | None:
    """Return the path of Chromium or Chrome; `None` if there is none."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def missing() -> str | None:
    """Return what is missing for these tests."""
    if chromium() is None:
        return "Chromium is not installed"
    return None if RUNTIME.is_dir() else "onnxruntime-web is not installed; `make test-browser` installs it"


class ScriptError(Exception):
    """An error that a piece of JavaScript threw."""


class Page:
    """A page that runs JavaScript.

    Args:
        folder: holds the exported models; the page finds them under `/models/`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs: queue.Queue[bytes] = queue.Queue()
        self.answers: queue.Queue[bytes] = queue.Queue()

    def run(self, code: str, **values: Any) -> Any:
        """Run the body of an async function, and return what it returns.

        Args:
            code: may use `ort`, `TargetSpeakerStream` and the names of `values`.
            values: plain values.

        Raises:
            ScriptError: the code threw an error.
        """
        self.jobs.put(json.dumps({"code": code, "values": values}).encode())
        try:
            answer = json.loads(self.answers.get(timeout=TIMEOUT_S))
        except queue.Empty:
            raise TimeoutError(f"the page did not answer within {TIMEOUT_S} s") from None
        if "error" in answer:
            raise ScriptError(answer["error"])
        return answer.get("value")

    def time_hops(self, name: str, mixture: NDArray[np.float32], enrollment: NDArray[np.float32]) -> BrowserTimes:
        """Stream a mixture hop by hop.

        Args:
            name: of the exported folder, below the folder of the page.
            mixture, enrollment: `[samples]`, at the model's rate.
        """
        times = self.run(TIME_HOPS, name=name, mixture=mixture.tolist(), enrollment=enrollment.tolist())
        assert times["isolated"], "the clock of the page is too coarse"
        samples = np.asarray(times["parts"], np.float32)
        return BrowserTimes(times["load"], times["enroll"], np.asarray(times["hops"]), samples)


@contextlib.contextmanager
def open_page(folder: Path, profile: Path) -> Iterator[Page]:
    """Open a page in Chromium; both end with the context.

    Args:
        folder: of the exported models.
        profile: empty folder for Chromium's own files.
    """
    page = Page(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(page))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    program = chromium()
    assert program is not None
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    command = [program, *options, f"--user-data-dir={profile}", f"http://127.0.0.1:{server.server_port}/"]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield page
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
        process.wait(timeout=10)
        server.shutdown()
        server.server_close()


def _handler(page: Page) -> type[BaseHTTPRequestHandler]:
    folders = {"ort": RUNTIME, "scripts": SCRIPTS, "models": page.folder}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, first, *rest = self.path.split("/", 2)
            path = folders[first] / rest[0] if first in folders and rest else None
            if self.path == "/":
                self._send(PAGE.encode(), TYPES[".html"])
            elif path is not None and path.is_file():
                self._send(path.read_bytes(), TYPES.get(path.suffix, "application/octet-stream"))
            else:
                self.send_error(404)

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path == "/next":
                self._send(page.jobs.get(), "application/json")
            else:
                page.answers.put(content)
                self._send(b"", "text/plain")

        def _send(self, content: bytes, kind: str) -> None:
            with contextlib.suppress(ConnectionError):  # the browser has ended
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Cache-Control", "no-store")
                # Isolated from other origins, a page has a clock of 5 µs instead of 100 µs.
                self.send_header("Cross-Origin-Opener-Policy", "same-origin")
                self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    return Handler
