"""Is a recording as long as its own header says? Found by reading headers, before decoding."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

from wesep_py.errors import AudioError

# A data size of 0 or of all ones is what a program writes that streams to a pipe and never learns the length.
_UNKNOWN_SIZES = (0, 0xFFFFFFFF)
# The largest Ogg page: 27 bytes of header, 255 segment lengths, 255 segments of 255 bytes (RFC 3533, section
# 6).
_LARGEST_OGG_PAGE = 27 + 255 + 255 * 255


def check_complete(path: Path) -> None:
    """Raise an error if a wav or Ogg file stops before its header says it does.

    Args:
        path: an existing file of any format; other formats than RIFF/RF64 wav and Ogg pass (FLAC and MP3 show
            it when they are decoded).

    Raises:
        AudioError: naming how much is promised and how much is there.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        magic = file.read(12)
        if magic[:4] in (b"RIFF", b"RF64") and magic[8:12] == b"WAVE":
            promised, present = _wav_data_bytes(file, size)
            what = "bytes of samples"
        elif magic[:4] == b"OggS":
            promised, present = _last_ogg_page_bytes(file, size)
            what = "bytes in its last page"
        else:
            return
    if present < promised:
        raise AudioError(
            f"{path}: is cut short: its header promises {promised} {what} and {present} are there; "
            "get a whole copy of the file"
        )


def _wav_data_bytes(file: BinaryIO, size: int) -> tuple[int, int]:
    """Bytes of samples that the header promises, and that are there."""
    position, long_size = 12, None
    while position + 8 <= size:
        file.seek(position)
        name, length = struct.unpack("<4sI", file.read(8))
        if name == b"ds64" and (sizes := file.read(16)) and len(sizes) == 16:
            long_size = struct.unpack("<QQ", sizes)[1]
        if name == b"data":
            present = size - position - 8
            if length == 0xFFFFFFFF and long_size is not None:
                return long_size, present
            return (present if length in _UNKNOWN_SIZES else length), present
        position += 8 + length + length % 2
    return 0, 0


def _last_ogg_page_bytes(file: BinaryIO, size: int) -> tuple[int, int]:
    """Bytes that the header of the last page promises, and that are there."""
    tail_start = max(0, size - _LARGEST_OGG_PAGE)
    file.seek(tail_start, os.SEEK_SET)
    tail = file.read()
    start = tail.rfind(b"OggS")
    present = len(tail) - start
    if start < 0:
        return 0, 0
    if present < 27:
        return 27, present
    num_segments = tail[start + 26]
    lengths = tail[start + 27 : start + 27 + num_segments]
    return 27 + num_segments + sum(lengths), present
