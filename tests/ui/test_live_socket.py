"""The live stream over a WebSocket, as the page uses it."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.ui.conftest import Talk
from wesep_py import audio
from wesep_py.inference import load

gradio_client = pytest.importorskip("gradio_client")
pytest.importorskip("gradio")
websocket = pytest.importorskip("websockets.sync.client")
ConnectionClosed = pytest.importorskip("websockets.exceptions").ConnectionClosed

if TYPE_CHECKING:
    from wesep_py.ui import PageServer


def enroll(server: PageServer, enrollment: Path) -> tuple[Any, str, str]:
    """Enroll a voice on the live tab; return the client, the token and the status."""
    client = gradio_client.Client(server.url, verbose=False)
    value, status = client.predict("base", gradio_client.handle_file(enrollment), api_name="/enroll_live")
    return client, (value or {}).get("token", ""), status


def connect(server: PageServer, origin: str | None = None) -> Any:
    return websocket.connect(server.url.replace("http", "ws") + "live", origin=origin, max_size=None)


def stream(socket: Any, token: str, samples: np.ndarray, rate: int, block: int) -> tuple[np.ndarray, list[dict]]:
    """Send a recording block by block; return the voice and the messages."""
    socket.send(json.dumps({"token": token, "rate": rate}))
    told = [json.loads(socket.recv(timeout=60))]
    if "error" in told[0]:
        return np.zeros(0), told
    with suppress(ConnectionClosed):  # of a stream that ended with an error
        for start in range(0, len(samples), block):
            socket.send(samples[start : start + block].astype("<f4").tobytes())
        socket.send(json.dumps({"stop": True}))
    parts = [np.zeros(0, np.float32)]
    while "done" not in told[-1] and "error" not in told[-1]:
        message = socket.recv(timeout=60)
        if isinstance(message, bytes):
            parts.append(np.frombuffer(message, "<f4"))
        else:
            told.append(json.loads(message))
    return np.concatenate(parts), told


def library_voice(talk: Talk, samples: np.ndarray, rate: int) -> tuple[np.ndarray, list[float]]:
    """Return anna's voice as the library extracts it live, and the presence after each 5 ms."""
    extractor = load(device="cpu")
    live = extractor.stream(extractor.enroll(talk.enrollments["anna"]), rate)
    parts, presences = [], []
    for start in range(0, len(samples), rate // 200):
        parts.append(live.process(samples[start : start + rate // 200]))
        if live.presence is not None:
            presences.append(live.presence)
    return np.concatenate([*parts, live.flush()]), presences


@pytest.mark.parametrize("rate", [16000, 48000])
def test_the_voice_is_that_of_the_library_and_is_recorded(server: PageServer, talk: Talk, rate: int):
    client, token, status = enroll(server, talk.enrollments["anna"])
    assert "enrolled 4.0 s" in status
    samples = audio.resample(audio.read(talk.mixture)[0], 16000, rate)[0]
    with connect(server) as socket:
        voice, told = stream(socket, token, samples, rate, rate * 64 // 1000)
    assert told[0]["latency_ms"] == pytest.approx(32 if rate == 16000 else 36, abs=1)
    assert told[-1]["done"] == pytest.approx(4.0, abs=0.01)
    expected, presences = library_voice(talk, samples, rate)
    shown = [message["presence"] for message in told if "presence" in message]
    assert shown and None not in shown  # which of them are shown depends on the speed of the machine
    assert [min(presences, key=lambda presence: abs(presence - value)) for value in shown] == pytest.approx(
        shown, abs=1e-4
    )
    assert max(presences) > 0.5
    assert len(voice) == len(samples)
    np.testing.assert_allclose(voice, expected, atol=1e-5)
    html = client.predict(api_name="/show_live")
    assert "Microphone" in html and "microphone.wav" in html
    folder = server.sessions.by_token(token).folder / "live"
    np.testing.assert_array_equal(audio.read(folder / "microphone.wav")[0][0], samples)
    np.testing.assert_array_equal(audio.read(folder / "voice.wav")[0][0], voice)
    client.close()


def test_a_stream_without_a_voice_gets_one_line(server: PageServer):
    with connect(server) as socket:
        _, told = stream(socket, "guess", np.zeros(10), 16000, 10)
    assert told == [{"error": "no voice is enrolled for live use; record or drop an enrollment first"}]


def test_a_wrong_rate_and_too_long_a_block_get_one_line(server: PageServer, talk: Talk):
    client, token, _ = enroll(server, talk.enrollments["anna"])
    with connect(server) as socket:
        _, told = stream(socket, token, np.zeros(10), 10, 10)
    assert told == [{"error": "sample_rate: is 10 Hz; 1000 to 768000 Hz is allowed"}]
    with connect(server) as socket:
        _, told = stream(socket, token, np.zeros(40000), 16000, 40000)
    assert told[-1] == {"error": "a block of 160000 bytes; float32 of at most 2 s is allowed"}
    client.close()


def test_pages_of_other_servers_cannot_use_the_microphone_stream(server: PageServer):
    with pytest.raises(Exception, match="403"), connect(server, origin="http://evil.example"):
        pass
    with connect(server, origin=server.url.rstrip("/")) as socket:
        socket.send("{}")
        assert "the first message has to be" in json.loads(socket.recv(timeout=10))["error"]


def test_more_streams_than_allowed_are_refused(server: PageServer, talk: Talk):
    visitors = [enroll(server, talk.enrollments["anna"]) for _ in range(3)]
    with connect(server) as first, connect(server) as second:
        first.send(json.dumps({"token": visitors[0][1], "rate": 16000}))
        assert "latency_ms" in json.loads(first.recv(timeout=60))
        with connect(server) as again:
            _, told = stream(again, visitors[0][1], np.zeros(10), 16000, 10)
        assert told == [{"error": "this page is live already; stop that stream first"}]
        second.send(json.dumps({"token": visitors[1][1], "rate": 16000}))
        assert "latency_ms" in json.loads(second.recv(timeout=60))
        with connect(server) as third:
            _, told = stream(third, visitors[2][1], np.zeros(10), 16000, 10)
        assert told == [{"error": "2 people are live already; try again later"}]
    for client, *_ in visitors:
        client.close()


def test_a_model_that_cannot_stream_is_named_when_a_voice_is_given(server: PageServer, talk: Talk, tiny_model: Path):
    from wesep_py.ui.page import PageHandlers

    class Request:
        session_hash = "a test"

    server.models.names.append(str(tiny_model))
    handlers = PageHandlers(server.models, server.sessions)
    value, line = handlers.enroll_live(str(tiny_model), str(talk.enrollments["anna"]), Request())
    server.models.names.remove(str(tiny_model))
    assert value is None and 'role="alert"' in line and "looks ahead" in line
