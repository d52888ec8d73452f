"""Raw samples through a stream: bytes from one descriptor, bytes to another, as soon as they are there.

    read what is there ─► whole frames ─► Stream.process ─► bytes ─► write at once
                              │
                              └─ bytes of an incomplete frame wait for the next read

A frame holds one sample of each channel: `L0 R0 L1 R1 …`. This module needs NumPy only.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wesep_py.common.errors import InputError, nearest
from wesep_py.inference.live_stream.stream import Stream

SAMPLE_FORMATS = {"s16le": np.dtype("<i2"), "f32le": np.dtype("<f4")}
"""Formats of raw samples, by ffmpeg's names: integers of 16 bits, and floats of 32 bits, −1 to 1."""
_FULL_SCALE = 32768


def sample_type(sample_format: str) -> np.dtype[np.generic]:
    """Return the type of the samples of a format.

    Raises:
        InputError: there is no such format.

    >>> sample_type("s16le").itemsize
    2
    """
    if sample_format not in SAMPLE_FORMATS:
        raise InputError(f"the sample format is {sample_format!r}; {nearest(sample_format, SAMPLE_FORMATS)}")
    return SAMPLE_FORMATS[sample_format]


class PcmDecoder:
    """Decoder of interleaved samples that arrive in pieces cut anywhere, also inside a sample.

    Args:
        sample_format: `s16le` or `f32le`.
        num_channels: samples in a frame.

    Raises:
        InputError: there is no such format.

    >>> decoder = PcmDecoder("s16le", num_channels=2)
    >>> decoder.push(b"\\x01\\x00\\x02"), decoder.num_waiting
    (array([], shape=(2, 0), dtype=int16), 3)
    >>> decoder.push(b"\\x00\\x03\\x00\\x04\\x00")
    array([[1, 3],
           [2, 4]], dtype=int16)
    """

    def __init__(self, sample_format: str, num_channels: int = 1) -> None:
        self.num_channels = num_channels
        self._type = sample_type(sample_format)
        self.frame_bytes = self._type.itemsize * num_channels
        self._waiting = b""

    @property
    def num_waiting(self) -> int:
        """Number of bytes of a frame that is not complete."""
        return len(self._waiting)

    def push(self, data: bytes) -> NDArray[np.generic]:
        """Return the samples `[channels, samples]` of the frames that are complete: int16 or float32."""
        data = self._waiting + data
        end = len(data) - len(data) % self.frame_bytes
        self._waiting = data[end:]
        frames = np.frombuffer(data, self._type, end // self._type.itemsize).reshape(-1, self.num_channels)
        return frames.astype(self._type.newbyteorder("="), copy=False).T


def encode(samples: NDArray[np.generic], sample_format: str) -> bytes:
    """Return samples `[samples]` or `[channels, samples]`, int16 or float, as interleaved bytes.

    Floats become integers by rounding; those beyond −1 to 1 are clipped.

    >>> encode(np.array([[0.5, -2.0], [0.0, 1.0]], np.float32), "s16le").hex(" ", 2)
    '0040 0000 0080 ff7f'
    """
    target = sample_type(sample_format)
    frames = np.atleast_2d(samples).T
    if target.kind == "i" and frames.dtype.kind == "f":
        frames = np.clip(np.rint(frames * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1)
    elif target.kind == "f" and frames.dtype.kind == "i":
        frames = frames / np.float32(_FULL_SCALE)
    return np.ascontiguousarray(frames, target).tobytes()


@dataclass
class Pumped:
    """Count the samples that went through a stream so far.

    Attributes:
        num_samples: of each channel, read and processed.
        num_dropped_bytes: at the end, of a frame that was not complete.
        computing_s: seconds spent in the stream: without reading and writing, which wait for others.
    """

    num_samples: int = 0
    num_dropped_bytes: int = 0
    computing_s: float = 0.0


def pump(
    stream: Stream,
    source: int,
    sink: int,
    sample_format: str,
    block_samples: int,
    on_block: Callable[[Pumped], None] = lambda pumped: None,
    pumped: Pumped | None = None,
) -> Pumped:
    """Read raw samples until the end, and write the voice in the same format, as many samples as were read.

    A read returns what is there, `block_samples` at most; nothing waits for a whole block.

    Args:
        stream: of one voice, not of constant delay.
        source: descriptor to read from.
        sink: descriptor to write to.
        sample_format: `s16le` or `f32le`.
        block_samples: largest number of samples of each channel to take at once.
        on_block: called after each block is written.
        pumped: updated while it runs, for a caller that is interrupted.

    Returns:
        What went through.

    Raises:
        BrokenPipeError: nobody reads the output any more.
        InputError: there is no such format.
    """
    pumped = Pumped() if pumped is None else pumped
    decoder = PcmDecoder(sample_format, stream.num_channels)
    while data := read_some(source, block_samples * decoder.frame_bytes):
        samples = decoder.push(data)
        if not samples.shape[1]:
            continue
        began = time.perf_counter()
        finished = stream.process(samples)
        pumped.computing_s += time.perf_counter() - began
        pumped.num_samples += samples.shape[1]
        write_all(sink, encode(finished, sample_format))
        on_block(pumped)
    began = time.perf_counter()
    last = stream.flush()
    pumped.computing_s += time.perf_counter() - began
    write_all(sink, encode(last, sample_format))
    pumped.num_dropped_bytes = decoder.num_waiting
    return pumped


def skip_backlog(source: int, most_bytes: int, frame_bytes: int) -> int:
    """Discard the whole frames that are there already, `most_bytes` at most; return the number of frames.

    A writer that waited for a full pipe continues meanwhile, so what it writes now is discarded, too.
    """
    num_bytes, most_bytes = 0, most_bytes - most_bytes % frame_bytes
    while num_bytes < most_bytes and (num_bytes % frame_bytes or select.select([source], [], [], 0)[0]):
        # What begins in the middle of a frame is read to its end.
        size = frame_bytes - num_bytes % frame_bytes if num_bytes % frame_bytes else min(65536, most_bytes - num_bytes)
        if not (data := read_some(source, size)):
            break
        num_bytes += len(data)
    return num_bytes // frame_bytes


def read_some(descriptor: int, size: int) -> bytes:
    """Return the bytes that are there, 1 to `size` of them; none at the end. Wait while there are none."""
    while True:
        try:
            return os.read(descriptor, size)
        except BlockingIOError:  # another process has made the pipe non-blocking
            select.select([descriptor], [], [])


def write_all(descriptor: int, data: bytes) -> None:
    """Write all bytes at once; wait while the reader is slower."""
    remaining = memoryview(data)
    while remaining:
        try:
            remaining = remaining[os.write(descriptor, remaining) :]
        except BlockingIOError:
            select.select([], [descriptor], [])
