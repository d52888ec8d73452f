from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from wesep_py.common.errors import AudioError, InputError
from wesep_py.data import FileReader, Reader, Utterance, read_speaker_folders
from wesep_py.data.shard_store import ShardReader
from wesep_py.data.shard_stream import StreamPool, StreamWindow
from wesep_py.data.shard_writing import check_shards, write_shards

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")

RATE = 16000
requested: list[str] = []


class WholeFiles(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


class Ranges(WholeFiles):
    """Serves ranges of bytes, and notes the requested files."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data, status = path.read_bytes(), 200
        if span := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            requested.append(path.name)
            start, last = int(span[1]), int(span[2])
            size, data, status = len(data), data[start : last + 1], 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Accept-Ranges", "bytes")
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{last}/{size}")
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture(scope="module")
def utterances(tiny_speech: Path) -> list[Utterance]:
    return read_speaker_folders(tiny_speech)


@pytest.fixture(scope="module")
def folder(utterances: list[Utterance], tmp_path_factory: pytest.TempPathFactory) -> Path:
    write_shards(utterances, path := tmp_path_factory.mktemp("served") / "s", size_mib=0.2)
    return path


@pytest.fixture
def serve(folder: Path) -> Iterator[object]:
    servers = []

    def start(handler: type[SimpleHTTPRequestHandler]) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


class Hashes(Dataset[str]):
    def __init__(self, reader: Reader, utterances: list[Utterance]) -> None:
        self.reader = reader
        self.utterances = utterances

    def __getitem__(self, index: int) -> str:
        return hashlib.sha256(self.reader.read(self.utterances[index])).hexdigest()

    def __len__(self) -> int:
        return len(self.utterances)


def test_workers_read_ranges_over_http_as_from_files(utterances: list[Utterance], serve: object):
    expected = [hashlib.sha256(FileReader(RATE).read(utterance)).hexdigest() for utterance in utterances]
    requested.clear()
    reader = ShardReader(serve(Ranges), RATE, cache_mib=0)
    data = Hashes(reader, utterances)
    assert [data[index] for index in range(3)] == expected[:3]
    assert len(requested) == 3
    for workers in (0, 1, 2):
        loader = DataLoader(data, batch_size=2, num_workers=workers, collate_fn=list)
        assert [digest for batch in loader for digest in batch] == expected
    assert len(requested) == 3 + 3 * len(utterances)


def test_checks_and_streams_work_over_http(folder: Path, serve: object):
    url = serve(Ranges)
    assert check_shards(url) == []
    names = sorted(path.name for path in folder.glob("*.tar"))

    def first(window: StreamWindow) -> str:
        return hashlib.sha256(window.reader.read(window.utterances[0])).hexdigest()

    settings = {"epoch_size": 4, "min_speakers": 2, "lanes": 1}
    remote = StreamPool([f"{url}/{name}" for name in names], first, RATE, **settings)
    assert remote.at(0, 0) == StreamPool([str(folder / name) for name in names], first, RATE, **settings).at(0, 0)


def test_errors_name_a_server_without_ranges(utterances: list[Utterance], serve: object):
    with pytest.raises(AudioError, match="sends whole files only, not ranges of bytes"):
        ShardReader(serve(WholeFiles), RATE).read(utterances[0])


def test_errors_name_a_server_without_shards(serve: object):
    with pytest.raises(InputError, match=r"http://127.*/nothing/shards\.json: cannot be read"):
        ShardReader(f"{serve(Ranges)}/nothing", RATE)
