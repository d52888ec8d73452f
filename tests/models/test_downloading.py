"""Downloads over HTTP against a local server: interruptions, other versions, refusals, tokens, a full disk."""

from __future__ import annotations

import errno
import hashlib
import io
import socket
import types
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request as UrlRequest

import numpy as np
import pytest

from tests.models.model_server import ModelServer, Served, serving
from wesep_py.common.errors import InputError, WesepError
from wesep_py.models import downloading
from wesep_py.models.downloading import (
    DownloadError,
    DownloadSettings,
    Request,
    UnreachableError,
    WebPageError,
    download,
    sha256_of,
)

CONTENT = np.random.default_rng(0).bytes(1_000_000)
FAST = DownloadSettings(timeout_s=5, attempts=3, first_wait_s=0.01)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with serving() as server:
        server.files["/a.pt"] = Served(CONTENT)
        yield server


def get(server: ModelServer, folder: Path, path: str = "/a.pt", **settings: float) -> bytes:
    chosen = DownloadSettings(**{**vars(FAST), **settings})
    return download(Request(server.url(path)), folder / "a.pt", settings=chosen).read_bytes()


def test_a_file_arrives_whole_with_progress(server: ModelServer, tmp_path: Path):
    calls: list[tuple[str, int, int | None]] = []
    target = download(Request(server.url("/a.pt")), tmp_path / "a.pt", lambda *call: calls.append(call), FAST)
    assert target.read_bytes() == CONTENT and sha256_of(target) == hashlib.sha256(CONTENT).hexdigest()
    assert calls[0] == ("a.pt", 0, len(CONTENT)) and calls[-1] == ("a.pt", len(CONTENT), len(CONTENT))
    assert not (tmp_path / "a.pt.part").exists()
    download(Request(server.url("/a.pt")), target, settings=FAST)
    assert len(server.log) == 1, "what was downloaded is not asked for again"


def test_a_cut_connection_is_continued_at_its_byte(server: ModelServer, tmp_path: Path):
    server.files["/a.pt"].cuts = [300_000, 200_000]
    assert get(server, tmp_path) == CONTENT
    first, second, third = server.requests("/a.pt")
    assert "Range" not in first
    assert second["Range"] == "bytes=300000-" and second["If-Range"] == server.files["/a.pt"].version()
    assert third["Range"] == "bytes=500000-"


def test_attempts_are_counted_only_while_nothing_arrives(server: ModelServer, tmp_path: Path):
    server.files["/a.pt"].cuts = [100_000] * 7
    assert get(server, tmp_path, attempts=2) == CONTENT
    server.files["/b.pt"] = Served(CONTENT, cuts=[0] * 9)
    with pytest.raises(DownloadError, match=r"127.0.0.1: the connection was cut .* several times in a row; try again"):
        get(server, tmp_path, "/b.pt")
    assert len(server.requests("/b.pt")) == FAST.attempts


def test_a_later_call_continues_what_is_there(server: ModelServer, tmp_path: Path):
    server.files["/a.pt"].cuts = [400_000, 0, 0]
    with pytest.raises(DownloadError, match=r"0\.4 MiB are kept, and the same command continues"):
        get(server, tmp_path)
    assert (tmp_path / "a.pt.part").stat().st_size == 400_000 and not (tmp_path / "a.pt").exists()
    assert get(server, tmp_path) == CONTENT
    assert server.requests("/a.pt")[-1]["Range"] == "bytes=400000-"


def test_another_version_begins_anew(server: ModelServer, tmp_path: Path):
    server.files["/a.pt"].cuts = [400_000, 0, 0]
    with pytest.raises(DownloadError):
        get(server, tmp_path)
    changed = CONTENT[::-1]
    server.files["/a.pt"] = Served(changed)
    assert get(server, tmp_path) == changed


@pytest.mark.parametrize("served", [{"ranges": False}, {"etag": None}, {"etag": 'W/"weak"'}])
def test_a_server_without_ranges_or_versions_sends_all(server: ModelServer, tmp_path: Path, served: dict):
    server.files["/a.pt"] = Served(CONTENT, cuts=[400_000], **served)
    assert get(server, tmp_path) == CONTENT
    server.files["/b.pt"] = Served(CONTENT, cuts=[400_000] * 9, **served)
    with pytest.raises(DownloadError, match="several times in a row"):
        get(server, tmp_path, "/b.pt")


def test_a_part_longer_than_the_file_is_dropped(server: ModelServer, tmp_path: Path):
    server.files["/a.pt"].cuts = [400_000, 0, 0]
    with pytest.raises(DownloadError):
        get(server, tmp_path)
    with (tmp_path / "a.pt.part").open("ab") as part:
        part.write(bytes(len(CONTENT)))
    assert get(server, tmp_path) == CONTENT


def test_a_busy_server_is_asked_again(server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    waits: list[float] = []
    monkeypatch.setattr(downloading.time, "sleep", waits.append)
    server.files["/a.pt"].statuses = [(503, {}), (429, {"Retry-After": "7"})]
    assert get(server, tmp_path, first_wait_s=0.5) == CONTENT
    assert waits == [0.5, 7.0]
    server.files["/b.pt"] = Served(CONTENT, statuses=[(429, {"Retry-After": "3600"})])
    with pytest.raises(DownloadError, match=r"answers 429 .* asks to wait 3600 s"):
        get(server, tmp_path, "/b.pt")
    server.files["/c.pt"] = Served(CONTENT, statuses=[(503, {})] * 9)
    with pytest.raises(DownloadError, match="answers 503"):
        get(server, tmp_path, "/c.pt")


def test_retry_after_can_be_a_date():
    assert downloading._retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert downloading._retry_after("soon") is None and downloading._retry_after("nan") is None


@pytest.mark.parametrize(
    ("status", "message"),
    [(404, "no such file"), (401, "needs HF_TOKEN"), (403, "access is refused"), (400, "answers 400")],
)
def test_a_refusal_is_not_repeated(server: ModelServer, tmp_path: Path, status: int, message: str):
    server.files["/a.pt"].statuses = [(status, {})] * 5
    with pytest.raises(WesepError, match=message):
        get(server, tmp_path)
    assert len(server.log) == 1


def test_a_token_goes_to_its_host_alone(server: ModelServer, tmp_path: Path):
    server.files["/here"] = Served(redirect=server.url("/a.pt"))
    server.files["/there"] = Served(redirect=server.url("/a.pt", host="localhost"))
    for path in ("/here", "/there"):
        download(Request(server.url(path), "secret"), tmp_path / path[1:], settings=FAST)
    assert [headers.get("Authorization") for path, headers in server.log] == [
        "Bearer secret",
        "Bearer secret",  # the same host again
        "Bearer secret",
        None,
    ]
    assert "secret" not in repr(Request("https://host/a", "secret"))


def test_a_redirect_keeps_the_range(server: ModelServer, tmp_path: Path):
    server.files["/moved"] = Served(redirect=server.url("/a.pt", host="localhost"))
    server.files["/a.pt"].cuts = [400_000]
    assert get(server, tmp_path, "/moved") == CONTENT
    assert server.requests("/a.pt")[1]["Range"] == "bytes=400000-"


def test_a_redirect_from_https_to_http_is_refused():
    asked = UrlRequest("https://host/a.pt")
    with pytest.raises(DownloadError, match="not encrypted"):
        downloading._Redirects().redirect_request(asked, None, 302, "", {}, "http://host/a.pt")


def test_a_web_page_is_no_file(server: ModelServer, tmp_path: Path):
    server.files["/a.pt"] = Served(b"<html>Log in</html>", kind="text/html; charset=utf-8")
    with pytest.raises(WebPageError, match="a web page instead of the file") as caught:
        get(server, tmp_path)
    assert caught.value.page == "<html>Log in</html>" and not (tmp_path / "a.pt").exists()


def test_an_unreachable_host_is_named_in_one_line(tmp_path: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UnreachableError, match=r"127.0.0.1: cannot be reached \(.*refused\).*--from"):
        download(Request(f"http://127.0.0.1:{port}/a.pt"), tmp_path / "a.pt", settings=FAST)
    with pytest.raises(UnreachableError, match=r"nowhere.invalid: cannot be reached"):
        download(Request("http://nowhere.invalid/a.pt"), tmp_path / "a.pt", settings=FAST)


def test_a_silent_server_is_left(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        settings = DownloadSettings(timeout_s=0.1, attempts=2, first_wait_s=0.01)
        with pytest.raises(DownloadError, match="timed out"):
            download(Request(f"http://127.0.0.1:{port}/a.pt"), tmp_path / "a.pt", settings=settings)


def test_the_proxy_of_the_environment_is_used(server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", server.url())
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    server.files["http://models.invalid/a.pt"] = Served(CONTENT)
    target = download(Request("http://models.invalid/a.pt"), tmp_path / "a.pt", settings=FAST)
    assert target.read_bytes() == CONTENT
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert get(server, tmp_path / ".", "/a.pt") == CONTENT


def test_a_file_too_large_is_refused(server: ModelServer, tmp_path: Path):
    with pytest.raises(DownloadError, match=r"has 1\.0 MiB; at most 0\.5 MiB"):
        get(server, tmp_path, max_bytes=500_000)
    server.files["/b.pt"] = Served(CONTENT, announced=1000)
    with pytest.raises(WesepError):
        get(server, tmp_path, "/b.pt", max_bytes=500)


def test_free_space_is_checked_before(server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usage = types.SimpleNamespace(free=downloading.SPARE_BYTES + 500_000)
    monkeypatch.setattr(downloading.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(WesepError, match=r"a\.pt needs 1\.0 MiB .* 64\.5 MiB are free; make room"):
        get(server, tmp_path)
    usage.free = downloading.SPARE_BYTES + len(CONTENT)
    assert get(server, tmp_path) == CONTENT


class _FullDisk(io.FileIO):
    """A file on a disk that is full after half a megabyte."""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        if self.tell() + len(data) > 524_288:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def test_a_full_disk_keeps_what_was_received(server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opened = Path.open

    def open_full(self: Path, mode: str = "r", **options: object) -> object:
        return _FullDisk(self, mode) if self.suffix == ".part" and "a" in mode else opened(self, mode, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", open_full)
        with pytest.raises(WesepError, match=r"the disk is full; make room.*the same command continues"):
            get(server, tmp_path)
    received = (tmp_path / "a.pt.part").stat().st_size
    assert 0 < received <= 524_288
    assert get(server, tmp_path) == CONTENT
    assert server.requests("/a.pt")[-1]["Range"] == f"bytes={received}-"


def test_an_impossible_address_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="is no address"):
        download(Request("http://host:port/a.pt"), tmp_path / "a.pt", settings=FAST)
