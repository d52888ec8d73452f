"""What lies where in an audio file: recordings one after the other, and what is wrong with it."""

from __future__ import annotations

import io
import os
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

# ----------------------------------------
# The bytes of a recording, in a file or in memory: read at any place, and pieced together for a decoder.

_WINDOW = 1 << 16
_FIRST_SEARCHED, _SEARCHED = 1 << 9, 1 << 20
Part = bytes | tuple[int, int]
"""Bytes, or a range of a source: first byte, and the byte after the last."""


class ByteSource:
    """The bytes of a recording: those of a file, or given ones.

    Args:
        name: what it is called in messages.
        path: the file; `None` for `data`.
        data: the bytes; `None` for a file.

    Attributes:
        size: in bytes.
        identity: what tells it from another of the same name.
        modified_ns: when the file was last written; 0 for bytes.

    Raises:
        OSError: the file cannot be opened.

    >>> Source("a.wav", data=b"RIFF....WAVE").at(8, 4)
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
        """Return `count` bytes from `position` on; fewer at the end."""
        if self._data is not None:
            return self._data[position : position + count]
        start = position - self._start
        if start < 0 or start + count > len(self._window):
            self._start = position
            self._window = self.read(position, max(count, _WINDOW))
            start = 0
        return self._window[start : start + count]

    def read(self, position: int, count: int) -> bytes:
        """As `at`, without keeping what is read."""
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
        """Return where the pattern first matches from `start` on, `None` if nowhere.

        Args:
            pattern: what to look for.
            start: first place.
            longest: bytes of its longest match.
        """
        if self._data is not None:
            match = pattern.search(self._data, start)
            return None if match is None else match.start()
        size = _FIRST_SEARCHED
        while start < self.size:
            block = self.at(start, size) if size <= _WINDOW else self.read(start, size)
            if (match := pattern.search(block)) is not None:
                return start + match.start()
            start += max(1, len(block) - longest + 1) if start + len(block) < self.size else len(block)
            size = min(2 * size, _SEARCHED)
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
    """Parts of a source, one after the other, as a file that libsndfile reads.

    Args:
        source: where ranges are read from.
        parts: bytes, and ranges of the source.
        stated_size: with zeros behind the parts up to this size, in bytes.

    >>> Spliced(Source("x", data=b"abcdef"), [b"12", (2, 4)]).read(9)
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
        """Go to a place."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """Return the place."""
        return self._position

    def read(self, count: int = -1) -> bytes:
        """Return the next bytes; fewer at the end."""
        wanted = self.size - self._position if count < 0 else count
        found = []
        while wanted > 0 and self._position < self.size:
            if self._position >= self._end:
                found.append(bytes(min(wanted, self.size - self._position)))
                self._position += len(found[-1])
                break
            number = bisect_right(self._ends, self._position)
            part, end = self._parts[number], self._ends[number]
            size = len(part) if isinstance(part, bytes) else part[1] - part[0]
            offset, here = self._position - (end - size), min(wanted, end - self._position)
            is_bytes = isinstance(part, bytes)
            piece = part[offset : offset + here] if is_bytes else self._source.at(part[0] + offset, here)
            if not piece:  # the file became shorter meanwhile
                break
            found.append(piece)
            self._position += len(piece)
            wanted -= len(piece)
        return found[0] if len(found) == 1 else b"".join(found)

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer; the number of bytes read."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def write(self, data: bytes) -> int:
        """Refuse: libsndfile asks for it, and never calls it where it reads."""
        raise io.UnsupportedOperation("a recording that is read cannot be written to")


LARGEST_COUNT = 1 << 48
"""No recording has as many bytes or samples: a header that says so does not know."""


@dataclass(frozen=True)
class Link:
    """One recording of a file.

    Attributes:
        parts: what a decoder is given; `None`: the file as it is.
        most_samples: more samples than these cannot be in it, whatever its header says; `None`: no bound is known.
        is_counted: only decoding tells how long it is.
        num_samples: how many there are, where this is known better than by the decoder's own header.
        stated_size: up to which a decoder is given zeros behind the parts, in bytes.
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
        faults: what is wrong, each as the end of a sentence that begins with the file's name.
        is_cut: the file ends early.
    """

    links: tuple[Link, ...] = (Link(),)
    faults: tuple[str, ...] = ()
    is_cut: bool = False


def overlaid(source: ByteSource, end: int, patches: Mapping[int, bytes]) -> tuple[Part, ...]:
    """Return a source up to `end`, with other bytes at some places.

    >>> overlaid(Source("x", data=b"abcdef"), 5, {1: b"XY"})
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
    """Return `0.250 s`; nothing where the rate is unknown."""
    return f"{count / rate:.3f} s" if rate > 0 else "an unknown time"
