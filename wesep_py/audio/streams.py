"""Recordings of any length in little memory: resampled block by block, and stretches of them."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.files import info, read
from wesep_py.audio.resample import StreamResampler
from wesep_py.errors import AudioError, InputError

_CLOCK = r"(?:\d+:){0,2}\d+(?:\.\d+)?"
_STRETCH = re.compile(rf"(?P<path>.+)@(?P<start>{_CLOCK})-(?P<stop>{_CLOCK})", re.DOTALL)


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
    return read(stretch.path, start, stop)


def _seconds(clock: str) -> float:
    """`90.5`, `1:30.5` and `0:01:30.5` as seconds."""
    total = 0.0
    for part in clock.split(":"):
        total = 60.0 * total + float(part)
    return total
