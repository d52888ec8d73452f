"""A live stream over a WebSocket: samples of the microphone in, samples of the voice out.

    browser                                server
    {"token", "rate"}            ─►        stream of the voice enrolled for the live tab
                                 ◄─        {"latency_ms"}
    float32 samples              ─►        Stream.process, in a thread; both sides are recorded
                                 ◄─        float32 samples that are finished
                                 ◄─        {"presence"} at most ten times per second
    {"stop"}                     ─►        Stream.flush, and the recordings are closed
                                 ◄─        {"done"}, or at any time {"error": line}

Output sample n is input sample n extracted: nothing is left out, whatever the blocks are.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np
from anyio import to_thread
from numpy.typing import NDArray
from starlette.websockets import WebSocket, WebSocketDisconnect

from wesep_py.common.errors import InputError, WesepError, reason
from wesep_py.inference.live_stream.live_session import RECORDED, Recorder

if TYPE_CHECKING:
    from wesep_py.inference import Extractor, Voice
    from wesep_py.inference.live_stream.stream import Stream
    from wesep_py.ui.sessions import Session, Sessions

log = logging.getLogger(__name__)
LIVE = "live"
"""Folder of a session with the recordings of its last live stream."""
MAX_LIVE_S = 600.0
"""A live stream ends after this time."""
MAX_BLOCK_S = 2.0
"""Longest block that a browser may send, in seconds."""
PRESENCE_EVERY_S = 0.1


class LiveRecording:
    """A stream of one session, with both sides recorded sample by sample.

    Args:
        extractor: the model.
        voice: enrolled with it.
        sample_rate: of the microphone in Hz.
        folder: for the recordings; what an earlier stream left there is replaced.

    Raises:
        ConfigError: the model cannot stream.
        InputError: a sample rate that is not allowed.
    """

    def __init__(self, extractor: Extractor, voice: Voice, sample_rate: int, folder: Path) -> None:
        self.stream: Stream = extractor.stream(voice, sample_rate)
        self.sample_rate = self.stream.sample_rate
        self.num_in = 0
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self._recorder = Recorder(folder, self.sample_rate, 1, overwrite=True)
        self._waiting = np.zeros(0, np.float32)  # samples of the microphone whose voice is not finished

    def process(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take samples `[samples]` of the microphone, and return those of the voice that are finished."""
        self.num_in += len(block)
        return self._record(block, self.stream.process(block))

    def finish(self) -> NDArray[np.float32]:
        """End the stream: return the remaining samples of the voice, and close the recordings."""
        rest = self._record(np.zeros(0, np.float32), self.stream.flush())
        self._recorder.close()
        return rest

    def _record(self, block: NDArray[np.float32], voice: NDArray[np.float32]) -> NDArray[np.float32]:
        self._waiting = np.concatenate([self._waiting, block])
        if len(voice):
            self._recorder.put(self._waiting[None, : len(voice)], voice[None])
            self._waiting = self._waiting[len(voice) :]
        return voice


def live_files(session: Session) -> list[Path]:
    """Return the recordings of the last live stream of a session: microphone and voice; none without one."""
    paths = [session.folder / LIVE / name for name in RECORDED]
    return paths if all(path.is_file() for path in paths) else []


def live_endpoint(
    sessions: Sessions, load: Callable[[str], Extractor], max_streams: int
) -> Callable[[WebSocket], object]:
    """Return the function that serves live streams.

    Args:
        sessions: of all visitors.
        load: returns a model by its name.
        max_streams: largest number of streams at once.
    """
    places = threading.BoundedSemaphore(max_streams)

    async def serve(socket: WebSocket) -> None:
        if not is_same_origin(socket):
            await socket.close(1008)
            return
        await socket.accept()
        try:
            token, rate = _hello(await socket.receive_text())
            session = sessions.by_token(token)
            if session is None or session.live_voice is None:
                raise InputError("no voice is enrolled for live use; record or drop an enrollment first")
            model, voice = session.live_voice
            with (
                _held(session.live, "this page is live already; stop that stream first"),
                _held(places, f"{max_streams} people are live already; try again later"),
            ):
                folder = session.folder / LIVE
                live = await to_thread.run_sync(lambda: LiveRecording(load(model), voice, rate, folder))
                await _stream(socket, live, session)
        except WebSocketDisconnect:
            pass
        except Exception as error:
            if not isinstance(error, WesepError):
                log.exception("a live stream failed")
            await _say(socket, {"error": reason(error)})

    return serve


def _hello(text: str) -> tuple[str, int]:
    """Return token and sample rate of the first message.

    Raises:
        InputError: it is another message.
    """
    try:
        values = json.loads(text)
        return str(values["token"]), int(values["rate"])
    except (ValueError, TypeError, KeyError) as error:
        raise InputError('the first message has to be {"token": …, "rate": …}; open the page again') from error


@contextmanager
def _held(lock: threading.Lock | threading.BoundedSemaphore, refusal: str) -> Iterator[None]:
    """Hold a lock; if it is not free, raise InputError with the refusal."""
    if not lock.acquire(blocking=False):
        raise InputError(refusal)
    try:
        yield
    finally:
        lock.release()


async def _stream(socket: WebSocket, live: LiveRecording, session: Session) -> None:
    """Extract what the browser sends until it stops, leaves, or has sent the longest recording."""
    rate = live.sample_rate
    await socket.send_text(json.dumps({"latency_ms": round(1000 * live.stream.latency / rate, 1)}))
    arrived: asyncio.Queue[bytes] = asyncio.Queue()
    receiver = asyncio.create_task(_receive(socket, arrived))
    told = 0.0
    try:
        while live.num_in < MAX_LIVE_S * rate and (data := await _next_block(arrived, rate)):
            session.last_used = time.monotonic()
            voice = await to_thread.run_sync(live.process, np.frombuffer(data, "<f4"))
            await socket.send_bytes(voice.astype("<f4").tobytes())
            if (now := time.monotonic()) - told >= PRESENCE_EVERY_S:
                told = now
                await socket.send_text(json.dumps({"presence": live.stream.presence}))
    finally:
        receiver.cancel()
        rest = await to_thread.run_sync(live.finish)
    await _say(socket, rest.astype("<f4").tobytes())
    await _say(socket, {"done": round(live.num_in / rate, 2)})


async def _receive(socket: WebSocket, arrived: asyncio.Queue[bytes]) -> None:
    """Put the blocks that arrive into a queue, and an empty one when the browser stops or leaves."""
    while True:
        message = await socket.receive()
        data = message.get("bytes") or b""
        arrived.put_nowait(data)
        if not data:
            return


async def _next_block(arrived: asyncio.Queue[bytes], rate: int) -> bytes:
    """Return the samples that have arrived, in one piece: a server that was late for a moment catches up.

    Returns:
        float32 of at most about `MAX_BLOCK_S`; empty at the end.

    Raises:
        InputError: one block is longer than that, or no float32.
    """
    blocks = [await arrived.get()]
    while blocks[-1] and not arrived.empty() and sum(map(len, blocks)) < MAX_BLOCK_S * rate:
        blocks.append(arrived.get_nowait())
    if not blocks[-1] and len(blocks) > 1:
        arrived.put_nowait(b"")  # the end comes after these samples
    for block in blocks:
        if len(block) % 4 or len(block) > 4 * MAX_BLOCK_S * rate:
            raise InputError(f"a block of {len(block)} bytes; float32 of at most {MAX_BLOCK_S:g} s is allowed")
    return b"".join(blocks)


async def _say(socket: WebSocket, content: bytes | dict[str, object]) -> None:
    """Send to a browser that may have gone."""
    try:
        if isinstance(content, bytes):
            await socket.send_bytes(content)
        else:
            await socket.send_text(json.dumps(content))
            if "error" in content or "done" in content:
                await socket.close()
    except (WebSocketDisconnect, RuntimeError):
        log.debug("a live stream ended before it could be answered")


def is_same_origin(socket: WebSocket) -> bool:
    """True if the page that opens the socket comes from this server; programs that name no origin are let in."""
    origin = socket.headers.get("origin")
    # A proxy in front of the server may put another name into `host`.
    own = (socket.headers.get("host"), socket.headers.get("x-forwarded-host"))
    return origin is None or urlsplit(origin).netloc in own
