"""The server of the page: where it listens, what it allows, and its temporary files.

    UiSettings ─► PageServer.start ─► address ─► … ─► close: server ended, all files removed

Gradio stores uploads in a folder of their own (`GRADIO_TEMP_DIR`), deleted by age; the files of the sessions lie beside
it and are served by `_session_file`, under addresses that contain the token of the session.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from wesep_py.common.errors import InputError, WesepError, reason

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

INSTALL = "pip install 'wesep-py[ui]'"
LOOPBACK = "127.0.0.1"
FIRST_PORT, LAST_PORT = 7860, 7959
UPLOADS_S = 300
"""Age at which uploads are deleted; the sessions have names of their own for the files that they use."""
_TYPES = {".wav": "audio/wav", ".json": "application/json", ".csv": "text/csv", ".rttm": "text/plain"}
_TYPES |= {".srt": "text/plain", ".flac": "audio/flac", ".m4a": "audio/mp4", ".mp3": "audio/mpeg"}
_TYPES |= {".ogg": "audio/ogg", ".opus": "audio/ogg", ".mp4": "video/mp4", ".webm": "video/webm"}


@dataclass(frozen=True)
class UiSettings:
    """Settings of the page.

    Attributes:
        model: as `inference.load`; the others that are bundled or installed can be chosen, too.
        device: as `inference.load`.
        host: address to listen on: `127.0.0.1` is this machine alone, `0.0.0.0` the whole network; `None` is what
            Gradio's environment says (`GRADIO_SERVER_NAME`), else this machine alone.
        port: `None` is 7860, or the next free one.
        max_upload_mb: largest upload in MB (10⁶ bytes).
        jobs: number of extractions at a time; others wait in a queue.
        max_streams: number of live streams at a time.
        idle_s: sessions that are not used for that long are deleted.
        grace_s: sessions whose page was closed are deleted after that time.
        certificate, key: files for https, without which browsers give other machines no microphone.

    Raises:
        ValueError: a value out of range.
    """

    model: str | None = None
    device: str = "auto"
    host: str | None = LOOPBACK
    port: int | None = None
    max_upload_mb: float = 500.0
    jobs: int = 1
    max_streams: int = 2
    idle_s: float = 3600.0
    grace_s: float = 60.0
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if self.port is not None and not 0 < self.port < 65536:
            raise ValueError(f"port: is {self.port}; 1 to 65535 is allowed")
        if not 0 < self.max_upload_mb <= 1e6:
            raise ValueError(f"max_upload_mb: is {self.max_upload_mb:g}; above 0 and at most 1000000 is allowed")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key: https needs both")


class PageServer:
    """The page and its server; a context manager, which starts it.

    Args:
        settings: of the page.

    Raises:
        InputError: gradio is not installed; there is no such model; the address or the port cannot be used.

    >>> with PageServer(UiSettings(device="cpu")) as server:                                # doctest: +SKIP
    ...     print(server.url)
    """

    def __init__(self, settings: UiSettings) -> None:
        _require_gradio()
        from wesep_py.ui.model_choice import ModelChoice
        from wesep_py.ui.page import build_page
        from wesep_py.ui.sessions import Sessions

        self.settings = settings
        self.models = ModelChoice(settings.model, settings.device)
        self.models.load()  # a wrong name is an error now, and the first visitor does not wait
        self.folder = Path(tempfile.mkdtemp(prefix="wesep_ui_"))
        os.environ["GRADIO_TEMP_DIR"] = str(self.folder / "uploads")
        self.sessions = Sessions(self.folder / "sessions", settings.idle_s, settings.grace_s)
        self.blocks = build_page(self.models, self.sessions, settings.jobs, (60, UPLOADS_S))
        self.url = ""

    def start(self) -> str:
        """Start to listen, in a thread, and return the address.

        Raises:
            InputError: the address or the port cannot be used.
        """
        try:
            _, self.url, _ = self.blocks.launch(prevent_thread_lock=True, quiet=True, **self.launch_options())
        except BaseException:
            self.close()
            raise
        return self.url

    def launch_options(self) -> dict[str, Any]:
        """Return the arguments of Gradio's `launch`: nothing is loaded from elsewhere, nothing is shared.

        Raises:
            InputError: the address or the port cannot be used.
        """
        from starlette.routing import Route, WebSocketRoute

        from wesep_py.ui.live_socket import live_endpoint
        from wesep_py.ui.page import page_style

        settings = self.settings
        host = settings.host or os.environ.get("GRADIO_SERVER_NAME", LOOPBACK)
        endpoint = live_endpoint(self.sessions, self.models.load, settings.max_streams)
        return {
            "server_name": host,
            "server_port": free_port(host, settings.port),
            "share": False,
            "ssr_mode": False,
            "mcp_server": False,
            "footer_links": [],
            "max_file_size": round(settings.max_upload_mb * 1e6),
            "ssl_certfile": None if settings.certificate is None else str(settings.certificate),
            "ssl_keyfile": None if settings.key is None else str(settings.key),
            "ssl_verify": False,  # of the check whether the page answers; a certificate of one's own is usual here
            "app_kwargs": {
                "routes": [
                    Route("/session/{token}/{path:path}", self._session_file),
                    WebSocketRoute("/live", endpoint),
                ]
            },
            **page_style(),
        }

    def wait(self) -> None:
        """Wait until the process is interrupted; the server runs in threads of its own."""
        threading.Event().wait()

    def close(self) -> None:
        """End the server and remove all files."""
        self.sessions.close()
        if self.blocks.is_running:
            self.blocks.close(verbose=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> PageServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _session_file(self, request: Request) -> Response:
        """Send a file of a session."""
        from starlette.responses import FileResponse, Response

        session = self.sessions.by_token(request.path_params["token"])
        if session is None:
            return Response("these files were deleted", 404)
        path = (session.folder / request.path_params["path"]).resolve()
        if not path.is_relative_to(session.folder.resolve()) or not path.is_file():
            return Response("no such file", 404)
        headers = {"Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
        return FileResponse(
            path, headers=headers, media_type=_TYPES.get(path.suffix.lower(), "application/octet-stream")
        )


def free_port(host: str, port: int | None) -> int:
    """Return a port that is free: the given one, or the first from `FIRST_PORT` on.

    Gradio looks for one itself, but takes minutes to find out that an address is not of this machine.

    Raises:
        InputError: the address is not of this machine, or no such port is free.
    """
    problem = "no port is free"
    for candidate in range(FIRST_PORT, LAST_PORT + 1) if port is None else [port]:
        try:
            family, _, _, _, address = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, socket.SOCK_STREAM) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(address)
            return candidate
        except OSError as error:
            problem = error.strerror or reason(error)
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                break
    ports = f"{FIRST_PORT} to {LAST_PORT}" if port is None else port
    raise InputError(f"{host}, port {ports}: cannot listen there ({problem}); give another --host or --port")


def _require_gradio() -> None:
    """Check that gradio is there, and keep it from asking its makers for news.

    Raises:
        InputError: it is not installed.
        WesepError: it cannot be imported.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise WesepError(f"gradio cannot be imported ({reason(error)}); install it again: {INSTALL}") from error
        raise InputError(f"the page needs the package gradio: {INSTALL}") from error
