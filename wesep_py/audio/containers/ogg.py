"""Layout of Ogg files: pages of streams, and streams one after the other (RFC 3533).

A page has a header of 27 bytes, the lengths of its segments (lacing), and the segments; a segment shorter than 255
bytes ends a packet:

    | OggS … checksum, n | n lengths | segments |        0     position of the page
    0                    27          27 + n              stop  27 + n + sum(lengths)

A link ends before the next page that begins a stream after other pages. libsndfile decodes only the first link, and
nothing of a file whose last page is incomplete.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass, field

from wesep_py.audio.containers.layout import ByteSource, Layout, Link, Part
from wesep_py.audio.containers.mpeg import after_tags

MAX_LINKS = 10000
# Maximum number of positions that are tried where a page does not follow the one before.
_MAX_TRIED = 20_000
# A longer recording is not decoded for its length; see `_salvage`.
_MOST_COUNTED_PACKETS = 20_000
_PAGE = re.compile(rb"OggS\x00[\x00-\x07]")
_HEADER = struct.Struct("<4sBBqIIIB")
_CONTINUED, _BEGINS, _ENDS = 1, 2, 4
# Maximum number of samples in a packet of Vorbis, Opus or Speex, and in one of FLAC.
_PACKET_SAMPLES = 8192
_FLAC_PACKET_SAMPLES = 65535
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass
class _OggTrack:
    """Link whose pages are being found."""

    parts: list[Part] = field(default_factory=list)
    packets: int = 0
    packet_samples: int = _PACKET_SAMPLES
    has_content: bool = False
    ends: bool = False
    is_cut: bool = False
    is_counted: bool = False
    next_page: dict[int, int] = field(default_factory=dict)

    def add(self, start: int, stop: int) -> None:
        """Add a byte range; it is merged with the one before if they are adjacent."""
        if self.parts and isinstance(last := self.parts[-1], tuple) and last[1] == start:
            self.parts[-1] = (last[0], stop)
        else:
            self.parts.append((start, stop))


def ogg_layout(source: ByteSource) -> Layout:
    """Return the layout of an Ogg file: a link for each recording in it."""
    tracks: list[_OggTrack] = []
    faults: list[str] = []
    position, left_out, lost_pages, tried = 0, 0, 0, 0
    while (after := after_tags(source, position)) < source.size:
        head = source.at(position, _HEADER.size)
        is_page = head[:4] == b"OggS"[: len(head)] and (len(head) < 5 or head[4] == 0)
        lacing = source.at(position + 27, head[26]) if len(head) == _HEADER.size else b""
        is_known = len(head) == _HEADER.size and len(lacing) == head[26]
        stop = position + 27 + len(lacing) + sum(lacing)
        if not (is_page and is_known and stop <= source.size and _is_sound(source, position, stop)):
            tried += 1
            next_page = source.find(_PAGE, max(position + 1, after), 6) if tried < _MAX_TRIED else None
            if next_page is not None:
                left_out += next_page - position
                position = next_page
                continue
            if is_page and not left_out:
                whole = f" of {stop - position}" if is_known else ""
                faults.append(f"is cut short: of its last page {source.size - position}{whole} bytes are there")
                if tracks:
                    tracks[-1].is_cut = True
                    tracks[-1].is_counted = _salvage(source, position, head, lacing, tracks[-1])
            else:
                left_out += source.size - position
            break
        _, _, flags, _, serial, page, _, _ = _HEADER.unpack(head)
        if flags & _BEGINS and (not tracks or tracks[-1].has_content):
            if len(tracks) == MAX_LINKS:
                faults.append(f"holds more than {MAX_LINKS} recordings; {source.size - position} bytes are not read")
                break
            tracks.append(_OggTrack())
        if not tracks:  # the file begins in the middle of a stream
            tracks.append(_OggTrack())
        track = tracks[-1]
        if flags & _BEGINS:
            if b"FLAC" in source.at(position + 27 + len(lacing), 8):
                track.packet_samples = _FLAC_PACKET_SAMPLES
        else:
            track.has_content = True
            lost_pages += max(0, page - track.next_page.get(serial, page)) & 0xFFFF
        track.next_page[serial] = page + 1
        track.packets += len(lacing) - lacing.count(255)
        track.ends = bool(flags & _ENDS)
        track.add(position, stop)
        position = stop
    if lost_pages:
        faults.append(f"is damaged: {lost_pages} of its pages are missing or damaged, and are left out")
    elif left_out:
        faults.append(f"holds {left_out} bytes that are no Ogg pages, which are left out")
    last = tracks[-1] if tracks else None
    if last is not None and not last.ends and not last.is_cut:
        faults.append("is cut short: its end is not marked, so what came last may be missing")
    is_cut = last is not None and not last.ends
    simple = len(tracks) == 1 and tracks[0].parts == [(0, source.size)]
    links = [
        Link(None if simple else tuple(track.parts), track.packets * track.packet_samples, track.is_counted)
        for track in tracks
    ]
    return Layout(tuple(links) or (Link(),), tuple(faults), is_cut)


def _salvage(source: ByteSource, position: int, head: bytes, lacing: bytes, track: _OggTrack) -> bool:
    """Add the complete packets of an incomplete last page, as a page of their own; return whether there are any.

    Their number of samples is known only by decoding the recording. This is not worth it for a long one, to which
    nothing is added.
    """
    if track.packets > _MOST_COUNTED_PACKETS or len(head) < _HEADER.size or len(lacing) < head[26]:
        return False
    available = source.size - position - 27 - len(lacing)
    # Bytes and segments up to the end of the last complete packet.
    whole, size, count = 0, 0, 0
    for number, length in enumerate(lacing, start=1):
        size += length
        if size > available:
            break
        if length < 255:
            whole, count = size, number
    if not count:
        return False
    page = bytearray(head[:22] + bytes(4) + bytes([count]) + lacing[:count])
    page[5] &= ~_ENDS
    page += source.read(position + 27 + len(lacing), whole)
    page[22:26] = struct.pack("<I", page_checksum(page))
    track.parts.append(bytes(page))
    track.packets += count - lacing[:count].count(255)
    track.has_content = True
    return True


def _is_sound(source: ByteSource, start: int, stop: int) -> bool:
    """Return whether a page has the checksum that it states."""
    page = bytearray(source.read(start, stop - start))
    (stated,) = struct.unpack("<I", page[22:26])
    page[22:26] = bytes(4)
    return page_checksum(page) == stated


def page_checksum(page: bytes | bytearray) -> int:
    """Return the CRC of a page whose own CRC field is 0: polynomial 0x04C11DB7, from 0, most significant bit first.

    zlib's CRC has the same polynomial, but starts from the least significant bit, so each byte is reversed.
    """
    reflected = zlib.crc32(bytes(page).translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(reflected.to_bytes(4, "little").translate(_REVERSED), "big")
