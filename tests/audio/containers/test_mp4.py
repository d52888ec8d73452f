"""Boxes of mp4 files: sizes of 64 bits, to the end of the file, and damaged ones."""

from __future__ import annotations

import struct

import pytest

from wesep_py.audio.containers import ByteSource
from wesep_py.audio.containers.mp4 import Mp4Boxes, is_mp4, mp4_boxes


def box(kind: bytes, content: bytes, size: int | None = None) -> bytes:
    return struct.pack(">I", len(content) + 8 if size is None else size) + kind + content


def stsd(kind: bytes) -> bytes:
    return box(b"moov", box(b"stsd", bytes(4) + struct.pack(">II", 1, 36) + kind + bytes(28)))


LARGE = struct.pack(">I", 1) + b"mdat" + struct.pack(">Q", 16 + 100) + bytes(100)


@pytest.mark.parametrize(
    ("data", "boxes"),
    [
        (box(b"ftyp", b"M4A ") + stsd(b"mp4a"), Mp4Boxes(True, False, 0)),
        (box(b"ftyp", b"M4A ") + LARGE + stsd(b"enca"), Mp4Boxes(True, True, 0)),
        (box(b"ftyp", b"") + stsd(b"drms") + box(b"mdat", bytes(50), size=0), Mp4Boxes(True, True, 0)),
        (box(b"ftyp", b"") + box(b"mdat", bytes(50), size=90), Mp4Boxes(False, False, 32)),
        (box(b"ftyp", b"") + box(b"free", b"", size=3) + stsd(b"mp4a"), Mp4Boxes(False, False, 0)),
        (box(b"ftyp", b"") + box(b"moof", bytes(8)), Mp4Boxes(True, False, 0)),
    ],
)
def test_boxes(data: bytes, boxes: Mp4Boxes):
    source = ByteSource("x", data=data)
    assert is_mp4(source) and mp4_boxes(source) == boxes
