"""The static page of `web/`: built from an exported model, served, and opened in headless Chromium by Playwright."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.export.chromium import chromium
from tests.web.javascript import WEB, missing_node

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FAKE_MICROPHONE = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
"""Options of Chromium: a microphone that needs no permission, and plays `--use-file-for-fake-audio-capture=FILE`."""
TIMEOUT_MS = 60_000
# Sends the worker one message, as the page does, and returns its answer; samples travel as base64.
ASK_WORKER = """async ({ mixture, enrollment }) => {
  const decode = ({ channels, sampleRate }) => ({ sampleRate, channels: channels.map((text) =>
    new Float32Array(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer)) });
  const encode = (samples) => { let text = ""; const bytes = new Uint8Array(Float32Array.from(samples).buffer);
    for (let n = 0; n < bytes.length; n += 32768) text += String.fromCharCode(...bytes.subarray(n, n + 32768));
    return btoa(text); };
  window.worker ??= new Worker("worker.js", { type: "module" });
  const answer = await new Promise((resolve) => {
    worker.onmessage = ({ data }) => data.type !== "progress" && resolve(data);
    worker.postMessage({ id: 1, type: "extract", mixture: decode(mixture), enrollment: decode(enrollment) });
  });
  if (answer.type === "failed") return { problem: answer.message };
  const { channels, presence, segments } = answer.value;
  const track = presence && Array.from(presence.track);
  return { channels: channels.map(encode), presence: presence && { ...presence, track }, segments };
}"""


def missing() -> str | None:
    """Return what is missing to build and open the page."""
    if find_spec("playwright") is None:
        return "the package playwright is not installed"
    if chromium() is None:
        return "Chromium is not installed"
    if (reason := missing_node()) is not None:
        return reason
    installed = (WEB / "node_modules" / "esbuild").is_dir()
    return None if installed else "the npm packages of web/ are not installed; `make test-browser` installs them"


def build_page(model: Path, folder: Path) -> Path:
    """Build the page of an exported model into a folder, and return the folder."""
    command = ["node", str(WEB / "build.js"), "--model", str(model), "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


class _Handler(http.server.SimpleHTTPRequestHandler):
    """A plain static host: no headers of isolation, no compression."""

    extensions_map = {  # noqa: RUF012
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".mjs": "text/javascript",
    }

    def __init__(self, *arguments: Any, sent: list[int], **options: Any) -> None:
        self.sent = sent
        super().__init__(*arguments, **options)

    def copyfile(self, source: Any, outputfile: Any) -> None:
        content = source.read()
        self.sent.append(len(content))
        outputfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextlib.contextmanager
def serve(folder: Path, sent: list[int] | None = None) -> Iterator[str]:
    """Serve a folder, and return its address; the server ends with the context.

    Args:
        folder: to serve.
        sent: gets the bytes of each file that is sent.
    """
    handler = functools.partial(_Handler, directory=str(folder), sent=[] if sent is None else sent)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def open_browser(*options: str) -> Iterator[Browser]:
    """Open headless Chromium; it ends with the context.

    Args:
        options: further ones of its command line.
    """
    from playwright.sync_api import sync_playwright

    program = chromium()
    assert program is not None
    arguments = ["--no-sandbox", "--disable-dev-shm-usage", *options]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which(program), args=arguments)
        try:
            yield browser
        finally:
            browser.close()


def wait_until(page: Page, expression: str, timeout_s: float = TIMEOUT_MS / 1000) -> None:
    """Wait until an expression of JavaScript is true; `wait_for_function` needs `eval`, which the page forbids.

    Raises:
        TimeoutError: it is not within the time.
    """
    end = time.monotonic() + timeout_s
    while not page.evaluate(expression):
        if time.monotonic() > end:
            raise TimeoutError(f"{expression}: is not true within {timeout_s:g} s")
        page.wait_for_timeout(50)


def choose_files(page: Page, mixture: Path, enrollment: Path) -> None:
    """Choose recording and voice, as a person does, and wait until the voice can be extracted."""
    for source, file in (("mixture", mixture), ("enrollment", enrollment)):
        choose_file(page, source, file)
    page.wait_for_selector("#extract:enabled")


def choose_file(page: Page, source: str, file: Path) -> None:
    """Choose a file for `mixture` or `enrollment`, and wait until it is decoded, or refused."""
    page.set_input_files(f'[data-source="{source}"] input', file)
    page.locator(f'[data-source="{source}"]:not([aria-busy])').wait_for(state="attached")


def extract(page: Page) -> None:
    """Press the button, and wait for the result.

    Raises:
        AssertionError: the page shows an error.
    """
    page.click("#extract")
    page.wait_for_selector("#result:not([hidden]), #error:not([hidden])", timeout=TIMEOUT_MS)
    assert not page.is_visible("#error"), page.inner_text("#error")


def download(page: Page, label: str) -> bytes:
    """Save a file of the result, by the text of its link, and return its content."""
    with page.expect_download() as waiting:
        page.click(f'#downloads a:has-text("{label}")')
    return waiting.value.path().read_bytes()


def extract_in_worker(
    page: Page, mixture: tuple[np.ndarray, int], enrollment: tuple[np.ndarray, int]
) -> dict[str, Any]:
    """Extract a voice with the worker of the page alone, in 32 bits.

    Args:
        page: that is open.
        mixture, enrollment: `[channels, samples]` and the sample rate.

    Returns:
        `channels`: `[channels, samples]`; `presence` and `segments` as in `Result` of `extractor.js`. Or `problem`.
    """

    def packed(waveform: np.ndarray, rate: int) -> dict[str, Any]:
        rows = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in np.atleast_2d(waveform)]
        return {"channels": rows, "sampleRate": rate}

    answer = page.evaluate(ASK_WORKER, {"mixture": packed(*mixture), "enrollment": packed(*enrollment)})
    if "channels" in answer:
        answer["channels"] = np.stack([np.frombuffer(base64.b64decode(text), "<f4") for text in answer["channels"]])
    return answer
