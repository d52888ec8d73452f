"""Download a file over HTTP so that it survives cut connections, and arrives whole or not at all.

    NAME.part          the bytes received so far
    NAME.part.json     where they come from, and the server's mark of that version (ETag or date)
    NAME               the complete file, renamed when it has the size and the SHA-256 that it should have

A later call continues a `.part` of the same version. It asks for the rest with `Range` and `If-Range`; a server that
has another version by now, or that does not serve ranges, sends the whole file, and the download starts again.
Proxies (`https_proxy`, `no_proxy`) and certificates (`SSL_CERT_FILE`) are those of the environment.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import math
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from wesep_py import __version__
from wesep_py.common.errors import InputError, WesepError, shorten
from wesep_py.common.files import write_json

BLOCK_BYTES = 2**18
MAX_FILE_BYTES = 4 * 2**30
"""A server that announces, or sends, more than this is not believed."""
SPARE_BYTES = 64 * 2**20
"""Disk space that stays free."""
TIMEOUT_S = 60.0
"""A connection that is silent for so long is cut."""
ATTEMPTS = 6
"""Attempts in a row that bring no further byte, before the download fails."""
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
"""Waits between attempts double from the first to the longest one."""
LONGEST_RETRY_AFTER_S = 120.0
"""A server that asks for a longer wait gets none: the download fails, and can be continued later."""
TEMPORARY_STATUS = (408, 429, 500, 502, 503, 504)
"""Status codes after which the same request may succeed."""
PAGE_BYTES = 2**20
"""Most of a web page that is read, where a file was to come."""

Progress = Callable[[str, int, "int | None"], None]
"""Callback `(file name, received bytes, all bytes or None)`."""


class DownloadError(WesepError):
    """A download that failed. What was received stays, and the same command continues it."""


class UnreachableError(DownloadError):
    """A host that cannot be reached: there is no network, or it is down."""


class WebPageError(DownloadError):
    """A server that sent a web page instead of a file.

    Attributes:
        page: its beginning.
    """

    def __init__(self, message: str, page: str) -> None:
        super().__init__(message)
        self.page = page


@dataclass(frozen=True)
class Request:
    """Request to a server.

    Attributes:
        url: the address.
        token: sent as a bearer token to the host of `url` alone, and not to hosts that it redirects to.
    """

    url: str
    token: str | None = field(default=None, repr=False)

    @property
    def host(self) -> str:
        """Host name, for messages."""
        return urlsplit(self.url).hostname or self.url


@dataclass
class DownloadSettings:
    """Time-outs, attempts and limits of a download; tests make them shorter.

    Attributes:
        timeout_s: seconds of silence after which a connection is cut.
        attempts: attempts in a row that bring no further byte.
        first_wait_s: wait before the second attempt; it doubles each time.
        max_bytes: largest file that is accepted.
    """

    timeout_s: float = TIMEOUT_S
    attempts: int = ATTEMPTS
    first_wait_s: float = FIRST_WAIT_S
    max_bytes: int = MAX_FILE_BYTES


def download(
    request: Request,
    target: Path,
    on_progress: Progress = lambda name, done, total: None,
    settings: DownloadSettings | None = None,
) -> Path:
    """Download a file; continue an earlier download of it.

    Args:
        request: the address.
        target: the file to write; its folder exists. If it exists and was downloaded from there, it is returned.
        on_progress: called with the file's name, the received bytes and all bytes.
        settings: how patiently.

    Returns:
        `target`.

    Raises:
        UnreachableError: the host cannot be reached.
        WebPageError: a web page came instead of the file.
        InputError: there is no such file, or access is refused.
        DownloadError: the connection broke too often, the file is too large, or the disk is full.
    """
    settings = settings or DownloadSettings()
    mark = target.with_name(f"{target.name}.part.json")
    if target.is_file() and _read_mark(mark).get("url") == request.url:
        on_progress(target.name, target.stat().st_size, target.stat().st_size)
        return target
    failures, wait = 0, settings.first_wait_s
    while True:
        part = _Part(target, request.url)
        before = part.size
        try:
            _receive(request, part, on_progress, settings)
            break
        except (_RetryError, UnreachableError) as error:
            if isinstance(error, UnreachableError) and not part.size:
                raise
            # A part without a version begins anew each time, so its bytes are no progress.
            if part.version is not None and part.size > before:
                failures, wait = 0, settings.first_wait_s
            failures += 1
            if failures >= settings.attempts:
                raise _final_error(error, request.host, part) from error
            asked = error.wait_s if isinstance(error, _RetryError) else None
            time.sleep(wait if asked is None else asked)
            wait = min(2 * wait, LONGEST_WAIT_S)
    part.path.replace(target)
    return target


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def check_free_space(folder: Path, needed_bytes: int, what: str) -> None:
    """Check that a file fits onto the disk of an existing folder, and some space stays free.

    Raises:
        WesepError: it does not fit.
    """
    free = shutil.disk_usage(folder).free
    if free < needed_bytes + SPARE_BYTES:
        raise WesepError(
            f"{folder}: {what} needs {in_mib(needed_bytes)} and {in_mib(SPARE_BYTES)} to spare; {in_mib(free)} are "
            "free; make room, or name another folder by WESEP_HOME"
        )


def in_mib(num_bytes: float) -> str:
    """Return a size in MiB, for people.

    >>> in_mib(16 * 2**20)
    '16.0 MiB'
    """
    return f"{num_bytes / 2**20:.1f} MiB"


class _RetryError(Exception):
    """An attempt that failed, and may succeed when it is repeated."""

    def __init__(self, problem: str, wait_s: float | None = None) -> None:
        super().__init__(problem)
        self.wait_s = wait_s


def _final_error(error: Exception, host: str, part: _Part) -> DownloadError:
    """Return the error of the download after the last attempt."""
    kept = f"; {in_mib(part.size)} are kept, and the same command continues" if part.size and part.version else ""
    if isinstance(error, UnreachableError):
        return UnreachableError(f"{error}{kept}")
    return DownloadError(f"{host}: {error}, several times in a row{kept}; try again later")


class _Part:
    """The bytes of a file that were received so far, and the version of the file that they belong to."""

    def __init__(self, target: Path, url: str) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self._mark = target.with_name(f"{target.name}.part.json")
        self._url = url
        mark = _read_mark(self._mark)
        version = mark.get("version")
        self.version = version if mark.get("url") == url and isinstance(version, str) else None
        if self.version is None:
            self.path.unlink(missing_ok=True)

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def begin(self, version: str | None) -> None:
        """Begin with an empty file of a version; `None` cannot be continued later."""
        try:
            self.path.write_bytes(b"")
        except OSError as error:
            raise _disk_error(self.path, error) from error
        write_json(self._mark, {"url": self._url, "version": version})
        self.version = version


def _read_mark(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _receive(request: Request, part: _Part, on_progress: Progress, settings: DownloadSettings) -> None:
    """Receive the rest of a file.

    Raises:
        _RetryError: the attempt failed, and may succeed when it is repeated.
    """
    headers = {"User-Agent": f"wesep-py/{__version__}", "Accept-Encoding": "identity"}
    if part.size:
        headers |= {"Range": f"bytes={part.size}-", "If-Range": str(part.version)}
    with _opened(request, headers, part, settings) as response:
        kind = response.headers.get_content_type()
        if kind in ("text/html", "application/xhtml+xml"):
            page = response.read(PAGE_BYTES).decode("utf-8", errors="replace")
            raise WebPageError(f"{request.url}: the server sent a web page instead of the file", page)
        start = _start_of(response)
        if response.status == 206 and start != part.size:
            part.path.unlink(missing_ok=True)
            raise _RetryError("the server sent another part of the file than was asked for")
        if response.status != 206:
            start = 0
            part.begin(_version_of(response.headers))
        length = response.headers.get("Content-Length")
        total = start + int(length) if length is not None and length.isdigit() else None
        name = part.path.name.removesuffix(".part")
        if total is not None:
            if total > settings.max_bytes:
                raise DownloadError(
                    f"{request.url}: has {in_mib(total)}; at most {in_mib(settings.max_bytes)} are taken"
                )
            check_free_space(part.path.parent, total - start, name)
        _copy(response, part, start, total, lambda done: on_progress(name, done, total), request, settings)


def _copy(
    response: Any,
    part: _Part,
    done: int,
    total: int | None,
    on_progress: Callable[[int], None],
    request: Request,
    settings: DownloadSettings,
) -> None:
    """Append the body of a response to the file."""
    with part.path.open("ab") as file:
        while True:
            on_progress(done)
            try:
                block = response.read1(BLOCK_BYTES)  # what has arrived, not a whole block
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, http.client.IncompleteRead):
                    file.write(error.partial)
                raise _RetryError(_cut(done, total)) from error
            if not block:
                break
            done += len(block)
            if done > settings.max_bytes:
                raise DownloadError(f"{request.url}: sends more than {in_mib(settings.max_bytes)}, which are not taken")
            try:
                file.write(block)
                file.flush()
            except OSError as error:
                raise _disk_error(part.path, error) from error
    if total is not None and done != total:
        raise _RetryError(_cut(done, total))


def _cut(done: int, total: int | None) -> str:
    return f"the connection was cut after {in_mib(done)}{f' of {in_mib(total)}' if total else ''}"


def _disk_error(path: Path, error: OSError) -> WesepError:
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return WesepError(
            f"{path.parent}: the disk is full; make room, or name another folder by WESEP_HOME; what was received "
            "stays, and the same command continues"
        )
    return WesepError(f"{path}: writing failed ({error.strerror or error})")


def _opened(request: Request, headers: Mapping[str, str], part: _Part, settings: DownloadSettings) -> Any:
    """Send the request, and return the response."""
    asked = urllib.request.Request(request.url, headers=dict(headers))
    if request.token:
        asked.add_header("Authorization", f"Bearer {request.token}")
    opener = urllib.request.build_opener(_Redirects())
    try:
        return opener.open(asked, timeout=settings.timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            raise _of_status(request, error, part) from error
    except urllib.error.URLError as error:
        raise _of_connection(request, error.reason) from error
    except (ValueError, http.client.InvalidURL) as error:  # an address with spaces, an impossible port
        raise InputError(f"{shorten(request.url)}: is no address that can be asked for ({shorten(error)})") from error
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise _RetryError(f"the server does not answer ({_words(error)})") from error


def _of_status(request: Request, error: urllib.error.HTTPError, part: _Part) -> Exception:
    """Return the exception for a status code that is no success."""
    if error.code == 416:  # what is there is longer than the file, or belongs to another version
        part.path.unlink(missing_ok=True)
        return _RetryError("the server does not have the rest of the file")
    if error.code in (404, 410):
        return InputError(f"{request.url}: the server has no such file ({error.code}); its place may have changed")
    if error.code in (401, 403):
        hint = "the token is not accepted" if request.token else "a model that asks for consent needs HF_TOKEN"
        return InputError(f"{request.url}: access is refused ({error.code}); {hint}")
    if error.code in TEMPORARY_STATUS:
        wait = _retry_after(error.headers.get("Retry-After"))
        problem = f"the server answers {error.code} ({shorten(error.reason, 60)})"
        if wait is not None and wait > LONGEST_RETRY_AFTER_S:
            return DownloadError(f"{request.host}: {problem}, and asks to wait {wait:.0f} s; try again after that")
        return _RetryError(problem, wait)
    return DownloadError(f"{request.url}: the server answers {error.code} ({shorten(error.reason, 60)})")


def _of_connection(request: Request, cause: object) -> Exception:
    """Return the exception for a connection that could not be made."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return DownloadError(
            f"{request.host}: its certificate cannot be verified ({shorten(cause.verify_message, 80)}); behind a proxy "
            "that inspects connections, name its certificate by SSL_CERT_FILE"
        )
    broken = isinstance(cause, ConnectionError) and not isinstance(cause, ConnectionRefusedError)
    if broken or isinstance(cause, (TimeoutError, ssl.SSLError)):
        return _RetryError(f"the connection failed ({_words(cause)})")
    if isinstance(cause, OSError):
        return UnreachableError(
            f"{request.host}: cannot be reached ({_words(cause)}); check the network or the proxy, or download the "
            "file on another machine and pass it by --from"
        )
    return DownloadError(f"{request.host}: {shorten(cause)}")


def _words(error: object) -> str:
    return shorten(getattr(error, "strerror", None) or error, 80) or type(error).__name__


def _retry_after(value: str | None) -> float | None:
    """Return the seconds that a server asks to wait, from a number or a date; `None` if it asks for none."""
    if value is None:
        return None
    with suppress(ValueError):
        seconds = float(value)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    with suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return None


def _version_of(headers: Any) -> str | None:
    """Return the mark of a file's version for `If-Range`: a strong ETag, or the date of its last change."""
    etag = headers.get("ETag")
    if etag and not etag.startswith("W/"):
        return str(etag)
    date = headers.get("Last-Modified")
    return str(date) if date and not etag else None


def _start_of(response: Any) -> int | None:
    """Return the first byte of a partial response, from `Content-Range: bytes 100-199/200`."""
    text = response.headers.get("Content-Range") or ""
    first = text.removeprefix("bytes ").partition("-")[0]
    return int(first) if text.startswith("bytes ") and first.isdigit() else None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects, without the token where they lead to another host, and never from https to http."""

    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302  # Python 3.10 does not know it

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        before, after = urlsplit(req.full_url), urlsplit(newurl)
        if before.scheme == "https" and after.scheme != "https":
            raise DownloadError(f"{before.hostname}: redirects to an address that is not encrypted; nothing was loaded")
        redirected = super().redirect_request(req, fp, 302 if code == 308 else code, msg, headers, newurl)
        if redirected is not None and _origin(before) != _origin(after):
            redirected.remove_header("Authorization")
        return redirected


def _origin(address: Any) -> tuple[str, str | None, int | None]:
    return address.scheme, address.hostname, address.port
