"""Layout of FLAC files (RFC 9639): the number of samples, from the last frame.

The header states the number of samples, or 0 if it was unknown. Each frame states the number of its first sample, or
its own number, so the last frame gives the length. It is found from the end of the file, without reading the rest.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from wesep_py.audio.containers.layout import ByteSource, Layout, Link, overlaid, seconds
from wesep_py.audio.containers.mpeg import after_tags

MAX_LINKS = 10000
_TAILS = (1 << 15, 1 << 18, 1 << 21)
_SYNC = re.compile(rb"\xff[\xf8\xf9]")
_BEGIN = re.compile(rb"fLaC\x00\x00\x00\x22")
_LONGEST_HEADER = 16
_LARGEST_FRAME = 1 << 20
_BLOCK_SIZES = {1: 192, **{code: 576 << code - 2 for code in range(2, 6)}, **{code: 1 << code for code in range(8, 16)}}
_RATES = (0, 88200, 176400, 192000, 8000, 16000, 22050, 24000, 32000, 44100, 48000, 96000)
_BITS = (0, 8, 12, 0, 16, 20, 24, 32)


def _table(polynomial: int, bits: int) -> list[int]:
    """Return the CRC of each byte."""
    top, mask = 1 << bits - 1, (1 << bits) - 1
    table = []
    for byte in range(256):
        value = byte << bits - 8
        for _ in range(8):
            value = (value << 1 ^ polynomial if value & top else value << 1) & mask
        table.append(value)
    return table


_CRC8, _CRC16 = _table(0x07, 8), _table(0x8005, 16)


class _FlacStream(NamedTuple):
    """Header of a stream (STREAMINFO), with its position and that of the first frame in the file."""

    start: int
    smallest_block: int
    largest_block: int
    sample_rate: int
    channels: int
    bits: int
    total: int
    frames_at: int
    largest_frame: int


class _FlacFrame(NamedTuple):
    """Frame: its position in the file, its first sample and its number of samples."""

    at: int
    first: int
    size: int


def flac_layout(source: ByteSource, position: int) -> Layout:
    """Return the layout of a FLAC file whose marker `fLaC` is at a position."""
    stream = _stream_at(source, position)
    if stream is None or stream.frames_at >= source.size:
        return Layout()
    last = _last_frame(source, stream, source.size)
    is_complete, more = last is not None and last.first + last.size == stream.total, _holds_more(source, stream)
    if (not is_complete or more) and (joined := _joined(source, stream)) is not None:
        return joined
    if is_complete and more:
        return Layout(faults=(f"holds at least {more} bytes after its last sample, which are not read",))
    if last is not None and is_complete and (after := _surplus(source, last)) is not None:
        return Layout(faults=(f"holds {after} bytes after its last frame, which are not read",) if after else ())
    if last is None:
        return Layout((Link(is_counted=stream.total == 0),))
    # The last frame counts only if it is complete.
    num_samples = last.first + last.size if _is_whole(source, last, source.size) else last.first
    stop = source.size if num_samples > last.first else last.at
    if num_samples == 0:
        return Layout(faults=("is cut short: not one frame of it is whole",), is_cut=True)
    faults: tuple[str, ...] = ()
    if stop < source.size:
        faults = (f"is cut short: of its last frame {source.size - stop} bytes are there",)
    if num_samples < stream.total:
        rate, missing = stream.sample_rate, stream.total - num_samples
        faults = (
            f"is cut short: its header promises {stream.total} samples and {num_samples} are there "
            f"({seconds(missing, rate)} of {seconds(stream.total, rate)} is missing)",
        )
    elif stream.total:
        faults = (
            *faults,
            f"holds more than its header says, which promises {stream.total} samples, and {num_samples} are there; "
            "all are read",
        )
    is_cut = bool(faults) and num_samples < stream.total
    return Layout((Link(_patched(source, stream, num_samples, stop)),), faults, is_cut)


def _patched(source: ByteSource, stream: _FlacStream, total: int, stop: int) -> tuple:
    """Return a stream up to a position, with another number of samples in its header, and without its MD5 sum."""
    # STREAMINFO begins after 8 bytes. Its bytes 10 to 17 end with the number of samples (36 bits); the MD5 sum follows.
    field = source.at(stream.start + 8 + 10, 8)
    value = int.from_bytes(field, "big") >> 36 << 36 | total & (1 << 36) - 1
    parts = overlaid(source, stop, {stream.start + 18: value.to_bytes(8, "big") + bytes(16)})
    if stream.start:
        (_, end), *others = parts
        return ((stream.start, end), *others)
    return parts


def _joined(source: ByteSource, stream: _FlacStream) -> Layout | None:
    """Return the layout of several streams, one after the other; `None` if there is only one."""
    starts = [stream.start]
    place: int | None = stream.frames_at
    while len(starts) < MAX_LINKS and (place := source.find(_BEGIN, place, 8)) is not None:
        if _stream_at(source, place) is not None:
            starts.append(place)
        place += 8
    if len(starts) == 1:
        return None
    links = []
    for start, stop in zip(starts, [*starts[1:], source.size], strict=True):
        next_stream = _stream_at(source, start)
        assert next_stream is not None
        last = _last_frame(source, next_stream, stop)
        num_samples = next_stream.total if last is None else last.first + last.size
        if num_samples:
            links.append(Link(_patched(source, next_stream, num_samples, stop)))
    return Layout(tuple(links))


def _stream_at(source: ByteSource, position: int) -> _FlacStream | None:
    """Return the header of the stream that begins at a position; `None` if there is none."""
    head = source.at(position, 42)
    if len(head) < 42 or head[:4] != b"fLaC" or head[4] & 0x7F or int.from_bytes(head[5:8], "big") != 34:
        return None
    smallest, largest = int.from_bytes(head[8:10], "big"), int.from_bytes(head[10:12], "big")
    value = int.from_bytes(head[18:26], "big")
    place, is_last = position + 42, head[4] & 0x80
    for _ in range(4096):
        if is_last:
            break
        block = source.at(place, 4)
        if len(block) < 4:
            return None
        is_last = block[0] & 0x80
        place += 4 + int.from_bytes(block[1:], "big")
    rate, channels, bits = value >> 44, (value >> 41 & 7) + 1, (value >> 36 & 31) + 1
    return _FlacStream(position, smallest, largest, rate, channels, bits, value & (1 << 36) - 1, place,
                   int.from_bytes(head[15:18], "big"))  # fmt: skip


def _last_frame(source: ByteSource, stream: _FlacStream, stop: int) -> _FlacFrame | None:
    """Return the last frame before a position.

    Any bytes may look like a frame, so one that ends with the last sample of the header is preferred.
    """
    for size in _TAILS:
        start = max(stream.frames_at, stop - size)
        tail = source.read(start, stop - start)
        frames = [
            frame
            for match in _SYNC.finditer(tail)
            if (frame := _frame(tail[match.start() : match.start() + _LONGEST_HEADER], start + match.start(), stream))
        ]
        for frame in reversed(frames):
            if frame.first + frame.size == stream.total:
                return frame
        if frames:
            return frames[-1]
        if start == stream.frames_at:
            break
    return None


def _frame(head: bytes, at: int, stream: _FlacStream) -> _FlacFrame | None:
    """Return the frame whose header these bytes begin with; `None` if there is none, or it is of another stream."""
    if len(head) < 6 or head[3] & 1:
        return None
    size_code, rate_code, bits_code = head[2] >> 4, head[2] & 15, head[3] >> 1 & 7
    channels = head[3] >> 4
    if size_code == 0 or rate_code == 15 or channels > 10 or bits_code == 3:
        return None
    if (channels + 1 if channels < 8 else 2) != stream.channels:
        return None
    if (bits_code and _BITS[bits_code] != stream.bits) or (
        0 < rate_code < 12 and _RATES[rate_code] != stream.sample_rate
    ):
        return None
    # The number of the frame or sample, coded like UTF-8: the leading bits of its first byte give the further bytes.
    lead = head[4]
    more = 0 if lead < 0x80 else 7 - (lead ^ 0xFF).bit_length() if lead >= 0xC0 else -1
    if more < 0 or lead == 0xFF or len(head) < 6 + more:
        return None
    number = lead if more == 0 else lead & (0x3F >> more)
    for byte in head[5 : 5 + more]:
        if byte & 0xC0 != 0x80:
            return None
        number = number << 6 | byte & 0x3F
    place = 5 + more
    size = _BLOCK_SIZES.get(size_code, 0)
    if size_code in (6, 7):
        width = size_code - 5
        size = int.from_bytes(head[place : place + width], "big") + 1
        place += width
    place += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if len(head) <= place or _crc(_CRC8, 8, head[:place]) != head[place]:
        return None
    is_variable = head[1] & 1
    return _FlacFrame(at, number if is_variable else number * stream.largest_block, size)


def _holds_more(source: ByteSource, stream: _FlacStream) -> int:
    """Return the number of bytes by which a file exceeds the size of its frames, if each had the largest size."""
    frames = -(-stream.total // max(stream.smallest_block, 1))
    most = stream.frames_at + stream.largest_frame * frames
    return source.size - most if stream.largest_frame and after_tags(source, most) < source.size else 0


def _surplus(source: ByteSource, frame: _FlacFrame) -> int | None:
    """Return the number of bytes after the last frame; `None` if its checksum shows that it is incomplete."""
    data = source.read(frame.at, min(source.size - frame.at, _LARGEST_FRAME))
    tail = source.size - frame.at - len(data)
    value, end = 0, None
    for number, byte in enumerate(data, start=1):
        value = (value << 8 & 0xFFFF) ^ _CRC16[value >> 8 ^ byte]
        if value == 0 and number > 8:  # the CRC of data that ends with its own CRC is 0
            end = number
    if end is None:
        return None
    after = frame.at + end
    return 0 if after_tags(source, after) >= source.size else len(data) - end + tail


def _is_whole(source: ByteSource, frame: _FlacFrame, stop: int) -> bool:
    """Return whether a frame that ends at a position has the checksum that it ends with."""
    data = source.read(frame.at, stop - frame.at)
    return len(data) > 8 and _crc(_CRC16, 16, data[:-2]) == int.from_bytes(data[-2:], "big")


def _crc(table: list[int], bits: int, data: bytes) -> int:
    """Return the CRC of bytes, most significant bit first, from 0."""
    value, shift, mask = 0, bits - 8, (1 << bits) - 1
    for byte in data:
        value = (value << 8 & mask) ^ table[value >> shift ^ byte]
    return value
