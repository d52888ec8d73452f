"""Boxes of MP4, M4A, MOV and 3GP files: whether the file is whole, whether its sound is encrypted.

The layout is that of ISO/IEC 14496-12 (and of QuickTime before it): a file is a sequence of boxes, each with its
size and a type of four letters.

    | size "ftyp" … | size "mdat" samples … | size "moov" … "stsd" … |

`moov` is the index, without which no sample can be found; recorders write it last.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from wesep_py.audio.containers.layout import ByteSource

FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
"""Types of the box that such a file begins with."""
# A sample description of encrypted sound: "enca" (Common Encryption, ISO/IEC 23001-7), "drms" (FairPlay).
_ENCRYPTED = re.compile(rb"enca|drms")
_MAX_INDEX_BYTES = 1 << 28


class Mp4Boxes(NamedTuple):
    """Findings about the boxes of a file.

    Attributes:
        has_index: whether there is an index (`moov`, or fragments).
        is_encrypted: whether the sound is encrypted.
        missing_bytes: number of bytes by which the file ends before its last box does.
    """

    has_index: bool
    is_encrypted: bool
    missing_bytes: int


def is_mp4(source: ByteSource) -> bool:
    """Return whether a file begins with a box of MP4 or QuickTime."""
    return source.at(4, 4) in FIRST_BOXES


def mp4_boxes(source: ByteSource) -> Mp4Boxes:
    """Examine the boxes of a file; only their headers and the index are read.

    >>> mp4_boxes(ByteSource("x", data=b"\\x00\\x00\\x00\\x08ftyp\\x00\\x00\\x00\\x20mdat1234"))
    Mp4Boxes(has_index=False, is_encrypted=False, missing_bytes=20)
    """
    has_index, is_encrypted, end = False, False, 0
    for kind, start, stop in _boxes(source, 0, source.size):
        end = stop
        if kind == b"moov":
            has_index = True
            is_encrypted |= _has_encrypted_sound(source, start, min(stop, start + _MAX_INDEX_BYTES))
        has_index |= kind == b"moof"
    return Mp4Boxes(has_index, is_encrypted, max(0, end - source.size))


def _boxes(source: ByteSource, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield type, first byte of the contents and the byte after the end of each box."""
    while start + 8 <= stop:
        head = source.at(start, 16)
        size, kind, header = int.from_bytes(head[:4], "big"), head[4:8], 8
        if size == 1 and len(head) == 16:  # a size of 64 bits follows the type
            size, header = int.from_bytes(head[8:16], "big"), 16
        elif size == 0:  # up to the end of the file
            size = stop - start
        if size < header:
            return
        yield kind, start + header, start + size
        start += size


def _has_encrypted_sound(source: ByteSource, start: int, stop: int) -> bool:
    """Return whether a sample description (`stsd`) inside an index is of encrypted sound."""
    index = source.read(start, stop - start)
    position = index.find(b"stsd")
    while position >= 0:
        size = int.from_bytes(index[position - 4 : position], "big")
        # The first entry: version and flags, number of entries, size of the entry, its type.
        if size >= 16 and _ENCRYPTED.match(index, position + 16):
            return True
        position = index.find(b"stsd", position + 4)
    return False
