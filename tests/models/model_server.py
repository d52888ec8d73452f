"""A local HTTP server that serves files as model hosts do, with the faults that networks have."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Served:
    """A file, and how it is served.

    Attributes:
        content: its bytes.
        etag: the mark of its version; `None` for a server that sends none.
        ranges: whether requests for a part are answered with the part.
        cuts: after how many bytes the connection is cut, for the first requests; later ones are whole.
        statuses: status codes of the first requests, each with further headers; later ones succeed.
        redirect: an address to send the client to instead.
        kind: the content type.
        announced: the length that is announced, if it is not the real one.
        pause: half of the file is sent, and the rest when this is set.
    """

    content: bytes = b""
    etag: str | None = "default"
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    redirect: str | None = None
    kind: str = "application/octet-stream"
    announced: int | None = None
    pause: threading.Event | None = None

    def version(self) -> str | None:
        """Return the ETag."""
        if self.etag == "default":
            return f'"{hashlib.sha256(self.content).hexdigest()[:16]}"'
        return self.etag


@dataclass
class ModelServer:
    """The server.

    Attributes:
        port: its port on 127.0.0.1.
        files: by path.
        log: path and headers of each request, in order.
    """

    port: int
    files: dict[str, Served] = field(default_factory=dict)
    log: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def url(self, path: str = "", host: str = "127.0.0.1") -> str:
        """Return the address of a path."""
        return f"http://{host}:{self.port}{path}"

    def wait_for(self, path: str, timeout_s: float = 60.0) -> None:
        """Wait until a path was asked for."""
        end = time.monotonic() + timeout_s
        while not self.requests(path):
            assert time.monotonic() < end, f"{path} was not asked for"
            time.sleep(0.01)

    def requests(self, path: str) -> list[dict[str, str]]:
        """Return the headers of the requests for a path."""
        return [headers for requested, headers in self.log if requested == path]


@contextmanager
def serving() -> Iterator[ModelServer]:
    """Run a server while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self, server)

        def log_message(self, *arguments: Any) -> None:
            pass

    http_server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http_server.daemon_threads = True
    server = ModelServer(http_server.server_address[1])
    thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http_server.shutdown()
        http_server.server_close()
        thread.join()


def answer(handler: BaseHTTPRequestHandler, server: ModelServer) -> None:
    """Answer one request."""
    server.log.append((handler.path, dict(handler.headers.items())))
    served = server.files.get(handler.path)
    if served is None:
        _send(handler, 404, {}, b"")
    elif served.statuses:
        status, headers = served.statuses.pop(0)
        _send(handler, status, headers, b"")
    elif served.redirect is not None:
        _send(handler, 302, {"Location": served.redirect}, b"")
    else:
        _send_file(handler, served)


def _send_file(handler: BaseHTTPRequestHandler, served: Served) -> None:
    content, status, version = served.content, 200, served.version()
    headers = {"Content-Type": served.kind} | ({"ETag": version} if version else {})
    asked = handler.headers.get("Range")
    if asked and served.ranges and handler.headers.get("If-Range") == version:
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            _send(handler, 416, {"Content-Range": f"bytes */{len(content)}"}, b"")
            return
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        content, status = content[start:], 206
    if served.announced is not None:
        headers["Content-Length"] = str(served.announced)
    cut = served.cuts.pop(0) if served.cuts else None
    _send(handler, status, headers, content, cut, served.pause)


def _send(
    handler: BaseHTTPRequestHandler,
    status: int,
    headers: dict[str, str],
    content: bytes,
    cut: int | None = None,
    pause: threading.Event | None = None,
) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(content)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    if pause is not None:
        handler.wfile.write(content[: len(content) // 2])
        handler.wfile.flush()
        pause.wait(60)
        content = content[len(content) // 2 :]
    handler.wfile.write(content if cut is None else content[:cut])
    if cut is not None:
        handler.wfile.flush()
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)
