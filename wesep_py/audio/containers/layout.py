"""Bytes of an audio file, and the layout of the recordings in it.

A layout module reads headers through `ByteSource` and returns a `Layout`: one `Link` per recording, and the faults of
the file. A link whose header is wrong is given to the decoder as a `SplicedFile`, with the right numbers in the header:

    file        | header, wrong size | samples ........... | tags |
    parts       (0, 40)  b"size"  (44, end)
"""

from __future__ import annotations

import io
import os
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

Part = bytes | tuple[int, int]
"""Bytes, or a range of a source: first byte, and the byte after the last one."""
LARGEST_COUNT = 1 << 48
"""Upper bound for the bytes or samples of a recording; a header with more does not know the number."""
_WINDOW = 1 << 16
# Size of the first block that is searched, which doubles up to the second.
_FIRST_SEARCHED, _MAX_SEARCHED = 1 << 9, 1 << 20


class ByteSource:
    """Bytes of a recording, in a file or in memory, read at any position.

    Args:
        name: its name in messages.
        path: the file; `None` for `data`.
        data: the bytes; `None` for a file.

    Attributes:
        size: in bytes.
        identity: distinguishes it from another recording of the same name.
        modified_ns: time of the last modification in ns since the epoch; 0 for bytes in memory.

    Raises:
        OSError: the file cannot be opened.

    >>> ByteSource("a.wav", data=b"RIFF....WAVE").at(8, 4)
    b'WAVE'
    """

    def __init__(self, name: str, path: Path | None = None, data: bytes | None = None) -> None:
        self.name, self.path = name, path
        self._start, self._window = 0, b""
        self._data = data
        self._file: io.FileIO | None = None
        self.modified_ns = 0
        self.identity: tuple[object, ...] = ()
        if data is not None:
            self.size = len(data)
            self.identity = (self.size,)
        else:
            assert path is not None, "a source is a file or bytes"
            self._file = io.FileIO(path)
            status = os.fstat(self._file.fileno())
            self.size = status.st_size
            self.identity = (os.fspath(path.absolute()), self.size, status.st_mtime_ns, status.st_ino)
            self.modified_ns = status.st_mtime_ns

    def at(self, position: int, count: int) -> bytes:
        """Return `count` bytes from `position`, fewer at the end; a window around them is kept."""
        if self._data is not None:
            return self._data[position : position + count]
        start = position - self._start
        if start < 0 or start + count > len(self._window):
            self._start = position
            self._window = self.read(position, max(count, _WINDOW))
            start = 0
        return self._window[start : start + count]

    def read(self, position: int, count: int) -> bytes:
        """Return `count` bytes from `position`, fewer at the end, without keeping them; for large ranges."""
        if self._data is not None:
            return self._data[position : position + count]
        assert self._file is not None
        self._file.seek(position)
        parts = []
        while count > 0 and (part := self._file.read(count)):
            parts.append(part)
            count -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def find(self, pattern: re.Pattern[bytes], start: int, longest: int) -> int | None:
        """Return the position of the first match from `start`, or `None`.

        Args:
            pattern: the pattern.
            start: first position.
            longest: length of its longest match in bytes.
        """
        if self._data is not None:
            match = pattern.search(self._data, start)
            return None if match is None else match.start()
        size = _FIRST_SEARCHED
        while start < self.size:
            block = self.at(start, size) if size <= _WINDOW else self.read(start, size)
            if (match := pattern.search(block)) is not None:
                return start + match.start()
            # The next block overlaps by `longest - 1` bytes, so that a match across the border is found.
            start += max(1, len(block) - longest + 1) if start + len(block) < self.size else len(block)
            size = min(2 * size, _MAX_SEARCHED)
        return None

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> ByteSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SplicedFile:
    """File for libsndfile that consists of parts of a source, one after the other.

    Args:
        source: the source of the ranges.
        parts: bytes, and ranges of the source.
        stated_size: size in bytes up to which zeros follow the parts.

    >>> SplicedFile(ByteSource("x", data=b"abcdef"), [b"12", (2, 4)]).read(9)
    b'12cd'
    """

    def __init__(self, source: ByteSource, parts: Sequence[Part], stated_size: int | None = None) -> None:
        self._source, self._parts = source, list(parts)
        sizes = [len(part) if isinstance(part, bytes) else part[1] - part[0] for part in self._parts]
        self._ends = list(accumulate(sizes))
        self._end = self._ends[-1] if sizes else 0
        self.size = max(stated_size or 0, self._end)
        self._position = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position, and return it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def read(self, count: int = -1) -> bytes:
        """Return the next bytes; fewer at the end."""
        remaining = self.size - self._position if count < 0 else count
        pieces = []
        while remaining > 0 and self._position < self.size:
            if self._position >= self._end:
                pieces.append(bytes(min(remaining, self.size - self._position)))
                self._position += len(pieces[-1])
                break
            # The part that contains the position, and the offset in it.
            number = bisect_right(self._ends, self._position)
            part, end = self._parts[number], self._ends[number]
            size = len(part) if isinstance(part, bytes) else part[1] - part[0]
            offset, length = self._position - (end - size), min(remaining, end - self._position)
            is_bytes = isinstance(part, bytes)
            piece = part[offset : offset + length] if is_bytes else self._source.at(part[0] + offset, length)
            if not piece:  # the file was shortened after it was opened
                break
            pieces.append(piece)
            self._position += len(piece)
            remaining -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer, and return the number of bytes read."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def write(self, data: bytes) -> int:
        """Raise an error; libsndfile needs the method, but never calls it while reading."""
        raise io.UnsupportedOperation("a recording that is read cannot be written to")


@dataclass(frozen=True)
class Link:
    """One recording of a file (the term is from chained Ogg files).

    Attributes:
        parts: the parts of the file that a decoder is given; `None` for the whole file unchanged.
        most_samples: upper bound of the number of samples, whatever the header says; `None` if unknown.
        is_counted: the length has to be determined by decoding.
        num_samples: number of samples, where it is known better than from the header that the decoder sees.
        stated_size: size in bytes up to which zeros follow the parts.
    """

    parts: tuple[Part, ...] | None = None
    most_samples: int | None = None
    is_counted: bool = False
    num_samples: int | None = None
    stated_size: int | None = None


@dataclass(frozen=True)
class Layout:
    """The recordings of a file.

    Attributes:
        links: one or more, to be decoded one after the other.
        faults: each as a predicate: "is cut short".
        is_cut: the file ends early.
    """

    links: tuple[Link, ...] = (Link(),)
    faults: tuple[str, ...] = ()
    is_cut: bool = False


def overlaid(source: ByteSource, end: int, patches: Mapping[int, bytes]) -> tuple[Part, ...]:
    """Return the parts of a source up to `end`, with the bytes at some positions replaced.

    >>> overlaid(ByteSource("x", data=b"abcdef"), 5, {1: b"XY"})
    ((0, 1), b'XY', (3, 5))
    """
    parts: list[Part] = []
    position = 0
    for place in sorted(patches):
        if place > position:
            parts.append((position, place))
        parts.append(patches[place])
        position = place + len(patches[place])
    if end > position:
        parts.append((position, end))
    return tuple(parts)


def seconds(count: float, rate: float) -> str:
    """Return a duration as `0.250 s`, or words if the rate is unknown."""
    return f"{count / rate:.3f} s" if rate > 0 else "an unknown time"
