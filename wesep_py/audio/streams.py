"""Recordings of any length in little memory: resampled block by block, and stretches of them."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.files import info, read, read_blocks
from wesep_py.audio.resample import resampled_length
from wesep_py.errors import AudioError, InputError

_CLOCK = r"(?:\d+:){0,2}\d+(?:\.\d+)?"
_STRETCH = re.compile(rf"(?P<path>.+)@(?P<start>{_CLOCK})-(?P<stop>{_CLOCK})", re.DOTALL)
_BLOCK_SAMPLES = 1 << 18


class StreamResampler:
    """`resample` for a waveform that comes in blocks: joined, the results are the same samples.

    Args:
        from_rate, to_rate: in Hz, positive.
        num_channels: at least 1; each is resampled by itself.

    Raises:
        InputError: a rate or a number of channels that is not positive.

    >>> stream = StreamResampler(44100, 16000, num_channels=1)
    >>> blocks = [stream.push(np.zeros((1, 10000), np.float32)) for _ in range(5)]
    >>> sum(block.shape[1] for block in [*blocks, stream.finish()]) == resampled_length(50000, 44100, 16000)
    True
    """

    def __init__(self, from_rate: int, to_rate: int, num_channels: int) -> None:
        if min(from_rate, to_rate, num_channels) < 1:
            raise InputError(
                f"{num_channels} channels from {from_rate} Hz to {to_rate} Hz; all of these have to be positive"
            )
        self.from_rate, self.to_rate, self.num_channels = from_rate, to_rate, num_channels
        self._taken = self._given = 0
        self._streams = []
        if from_rate != to_rate:
            import soxr

            self._streams = [soxr.ResampleStream(from_rate, to_rate, 1, quality="HQ") for _ in range(num_channels)]

    def push(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """The next samples `[channels, samples]`, and what can be said of the result so far (it may be nothing)."""
        block = np.asarray(block, dtype=np.float32)
        if block.ndim != 2 or len(block) != self.num_channels:
            raise InputError(f"a block of shape {list(block.shape)}; [{self.num_channels}, samples] is needed")
        self._taken += block.shape[1]
        if not self._streams:
            return block
        return self._through(block, last=False)

    def finish(self) -> NDArray[np.float32]:
        """The rest `[channels, samples]`; nothing can be pushed after it."""
        if not self._streams:
            return np.zeros((self.num_channels, 0), np.float32)
        # The zeros that `resample` appends too, and for the same reason.
        padding = np.zeros((self.num_channels, -(-self.from_rate // self.to_rate)), np.float32)
        wanted = resampled_length(self._taken, self.from_rate, self.to_rate) - self._given
        return self._through(padding, last=True)[:, :wanted]

    def _through(self, block: NDArray[np.float32], last: bool) -> NDArray[np.float32]:
        rows = [
            stream.resample_chunk(np.ascontiguousarray(row), last)
            for stream, row in zip(self._streams, block, strict=True)
        ]
        self._given += len(rows[0])
        return np.stack(rows)


def resample_blocks(
    blocks: Iterable[NDArray[np.float32]], from_rate: int, to_rate: int, num_channels: int
) -> Iterator[NDArray[np.float32]]:
    """Blocks `[channels, samples]` at another rate; of other lengths, and none of them empty."""
    stream = StreamResampler(from_rate, to_rate, num_channels)
    for block in blocks:
        if (out := stream.push(block)).shape[1]:
            yield out
    if (out := stream.finish()).shape[1]:
        yield out


class Stretch(NamedTuple):
    """A part of a recording.

    Attributes:
        path: of the file.
        start_s, stop_s: seconds from its beginning.
    """

    path: str
    start_s: float
    stop_s: float

    @classmethod
    def parse(cls, text: str | os.PathLike[str]) -> Stretch | None:
        """What `FILE@START-STOP` means, in seconds or as `[h:]mm:ss`; `None` for a text of another form.

        Raises:
            InputError: it ends before it begins.

        >>> Stretch.parse("meeting.wav@12.3-1:17.8")
        Stretch(path='meeting.wav', start_s=12.3, stop_s=77.8)
        """
        found = _STRETCH.fullmatch(os.fspath(text))
        if found is None:
            return None
        start_s, stop_s = _seconds(found["start"]), _seconds(found["stop"])
        if stop_s <= start_s:
            raise InputError(f"{text}: ends at {stop_s:g} s and begins at {start_s:g} s; give @START-STOP in seconds")
        return cls(found["path"], start_s, stop_s)


def read_stretch(stretch: Stretch) -> tuple[NDArray[np.float32], int]:
    """Read a stretch, cut at the file's own rate to the nearest sample, whatever the length of the file.

    Returns:
        float32 `[channels, samples]`, and the sample rate in Hz.

    Raises:
        AudioError: as `read`; also a stretch that reaches past the end of the recording.
    """
    about = info(stretch.path)
    start, stop = (math.floor(at * about.sample_rate + 0.5) for at in (stretch.start_s, stretch.stop_s))
    if stop > about.num_samples or stop <= start:
        raise AudioError(
            f"{stretch.path}: {stretch.start_s:g} to {stretch.stop_s:g} s were asked for; it lasts "
            f"{about.duration_s:.3f} s"
        )
    if about.subtype.startswith("PCM") or about.subtype in ("FLOAT", "DOUBLE"):
        return read(stretch.path, start, stop)
    parts, position = [], 0
    for block in read_blocks(stretch.path, _BLOCK_SAMPLES):  # lossy formats seek inexactly
        parts.append(block[:, max(0, start - position) : max(0, stop - position)])
        position += block.shape[1]
        if position >= stop:
            break
    return np.ascontiguousarray(np.concatenate(parts, axis=1)), about.sample_rate


def _seconds(clock: str) -> float:
    """`90.5`, `1:30.5` and `0:01:30.5` as seconds."""
    total = 0.0
    for part in clock.split(":"):
        total = 60.0 * total + float(part)
    return total
