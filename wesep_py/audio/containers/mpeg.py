"""Layout of MPEG audio files (MP3): frames, recordings one after the other, and tags.

A frame begins with a header of 4 bytes that gives its length. The first frame may hold, instead of audio, the number of
frames that follow (Xing, Info), and the number of samples that the encoder added at both ends (LAME). Without that
number libsndfile guesses it from the first frame's bit rate, and it reads no further than the number or the guess. So
all frames are counted, and the decoder is given the right number where it is wrong, and a larger guess where there is
none.

    | ID3 | Xing: n frames | frame | frame | ... | Xing | frame | ... | TAG |
            link ......................................  link ........
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from wesep_py.audio.containers.layout import ByteSource, Layout, Link, Part, seconds

# Tags before and after the audio: ID3, APE, lyrics.


def tag_at(source: ByteSource, position: int) -> int:
    """Return the size in bytes of the tag that begins at a position; 0 if there is none.

    >>> tag_at(ByteSource("a.mp3", data=b"ID3\\x04\\x00\\x00\\x00\\x00\\x00\\x05hello"), 0)
    15
    """
    head = source.at(position, 32)
    if head[:3] == b"ID3" and len(head) >= 10 and max(head[6:10]) < 0x80 and head[3] < 0xFF:
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        return 10 + size + (10 if head[5] & 0x10 else 0)
    if head[:3] == b"TAG" and source.size - position in (128, 227 + 128):
        return source.size - position
    if head[:8] == b"APETAGEX" and len(head) == 32:
        size = int.from_bytes(head[12:16], "little")
        has_header = head[23] & 0x20
        return 32 + size if has_header else 32
    if head[:11] == b"LYRICSBEGIN" and source.size - position < 1 << 16:
        end = source.at(position, 1 << 16).find(b"LYRICS200")
        return end + 9 if end >= 0 else 0
    return 0


def after_tags(source: ByteSource, position: int = 0) -> int:
    """Return the position after the tags that begin at a position."""
    for _ in range(64):
        size = tag_at(source, position)
        if not size or position + size > source.size:
            break
        position += size
    return position


# Frames.

MAX_LINKS = 10000
# Maximum number of positions that are tried where a frame does not follow the one before.
_MAX_TRIED = 100_000
_SYNC = re.compile(rb"\xff[\xe2-\xe7\xf2-\xff][\x10-\xef]", re.DOTALL)
# Bit rates in kbit/s by version (1, or 2 and 2.5) and layer; sample rates in Hz by the two bits of the version.
_BIT_RATES = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_SAMPLE_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


@dataclass(frozen=True)
class _FrameKind:
    """Properties of a frame that the second and third byte of its header give: length in bytes, layer, rate in Hz, …"""

    length: int
    layer: int
    sample_rate: int
    samples: int
    version: int


def _frame_kinds() -> dict[int, _FrameKind]:
    """Return all kinds of frames by the second and third byte of their header."""
    kinds = {}
    for second in range(0xE0, 0x100):
        version_bits, layer = second >> 3 & 3, 4 - (second >> 1 & 3)
        if version_bits == 1 or layer == 4:
            continue
        version = 1 if version_bits == 3 else 2
        for third in range(0x10, 0xF0):
            if third >> 2 & 3 == 3:
                continue
            rate = _SAMPLE_RATES[version_bits][third >> 2 & 3]
            bits, padding = 1000 * _BIT_RATES[version, layer][(third >> 4) - 1], third >> 1 & 1
            if layer == 1:
                length, samples = 4 * (12 * bits // rate + padding), 384
            else:
                samples = 576 if layer == 3 and version == 2 else 1152
                length = samples // 8 * bits // rate + padding
            kinds[second << 8 | third] = _FrameKind(length, layer, rate, samples, version)
    return kinds


_FRAME_KINDS = _frame_kinds()


@dataclass
class _MpegTrack:
    """Link whose frames are being found.

    Attributes:
        header: header of its first frame.
        kind: kind of its first frame.
        parts: byte ranges of its frames.
        frames: number of frames with audio.
        xing: position of the frame that states the number of frames, and the offset of `Xing` in it.
        promised: number of frames that it states.
    """

    header: bytes
    kind: _FrameKind
    parts: list[Part] = field(default_factory=list)
    frames: int = 0
    xing: tuple[int, int] | None = None
    promised: int | None = None

    @property
    def key(self) -> tuple[int, int, int]:
        """See `_key`."""
        return _key(self.header)

    def add(self, start: int, stop: int) -> None:
        """Add a byte range; it is merged with the one before if they are adjacent."""
        if self.parts and isinstance(last := self.parts[-1], tuple) and last[1] == start:
            self.parts[-1] = (last[0], stop)
        else:
            self.parts.append((start, stop))


def _key(header: bytes) -> tuple[int, int, int]:
    """Return the bits of a header that are constant in a recording: version and layer, sample rate, mono or not."""
    return header[1] & 0xFE, header[2] & 0x0C, int(header[3] >> 6 == 3)


def frame_at(source: ByteSource, position: int) -> _FrameKind | None:
    """Return the kind of the frame that begins at a position; `None` if there is none."""
    header = source.at(position, 4)
    return _FRAME_KINDS.get(header[1] << 8 | header[2]) if len(header) == 4 and header[0] == 0xFF else None


def is_mpeg(source: ByteSource, position: int, count: int = 2) -> bool:
    """True if `count` consecutive frames of one kind, or fewer up to the end of the file, begin at a position."""
    key = None
    for _ in range(count):
        header = source.at(position, 4)
        kind = frame_at(source, position)
        if kind is None or (key is not None and key != _key(header)[:2]):
            return False
        key = _key(header)[:2]
        position += kind.length
        if position >= source.size or after_tags(source, position) >= source.size:
            return True
        if tag_at(source, position):
            return True
    return True


def mpeg_layout(source: ByteSource, position: int) -> Layout:
    """Return the layout of a file whose first MPEG audio frame begins at a position: a link for each recording."""
    tracks: list[_MpegTrack] = []
    faults: list[str] = []
    first, left_out, tried, lost_bytes = position, 0, 0, 0
    # While it is locked, each frame follows the one before, and its header is trusted. After a gap, three frames of one
    # kind have to follow each other, because any bytes may look like a header.
    is_locked = True
    while position + 4 <= source.size:
        header = source.at(position, 4)
        kind = _FRAME_KINDS.get(header[1] << 8 | header[2]) if header[0] == 0xFF else None
        is_expected = is_locked and (not tracks or tracks[-1].key == _key(header))
        if kind is None or not (is_expected or is_mpeg(source, position, 3)):
            after = after_tags(source, position)
            if after == position:
                tried += 1
                sync = source.find(_SYNC, position + 1, 3) if tried < _MAX_TRIED else None
                after = source.size if sync is None else sync
                left_out += after - position
            position, is_locked = after, False
            continue
        is_locked = True
        stop = position + kind.length
        if stop > source.size:
            lost_bytes = stop - source.size
            break
        xing = _xing_at(source, position, header, kind)
        if xing or not tracks or tracks[-1].key != _key(header):
            if len(tracks) == MAX_LINKS:
                faults.append(f"holds more than {MAX_LINKS} recordings; {source.size - position} bytes are not read")
                break
            tracks.append(_MpegTrack(header, kind))
        track = tracks[-1]
        track.add(position, stop)
        if xing:
            track.xing = position, xing
            about = source.at(position + xing + 4, 8)
            if len(about) == 8 and about[3] & 1:
                track.promised = int.from_bytes(about[4:], "big")
        else:
            track.frames += 1
        position = stop
    tracks = [track for track in tracks if track.frames]
    if not tracks:
        return Layout(faults=("is cut short: not one frame of it is whole",), is_cut=True)
    is_cut = False
    for track in tracks:
        missing = 0 if track.promised is None else track.promised - track.frames
        if missing > 1:
            samples, rate = track.kind.samples, track.kind.sample_rate
            faults.append(
                f"is cut short: its header promises {track.promised} frames and {track.frames} are there "
                f"({seconds(missing * samples, rate)} of {seconds(track.frames * samples + missing * samples, rate)} "
                "is missing)"
            )
            is_cut = True
    if lost_bytes and not is_cut:
        faults.append(f"is cut short: {lost_bytes} bytes of its last frame are missing")
        is_cut = True
    if left_out > 4:
        faults.append(f"holds {left_out} bytes that are no MPEG frames, which are left out")
    only = tracks[0]
    is_whole = only.parts == [(first, source.size)] or after_tags(source, _last(only.parts)) >= source.size
    if len(tracks) == 1 and is_whole and len(only.parts) == 1 and only.promised == only.frames:
        return Layout((Link(None, only.frames * only.kind.samples),), tuple(faults), is_cut)
    return Layout(tuple(_link(source, track) for track in tracks), tuple(faults), is_cut)


def _last(parts: list[Part]) -> int:
    """Return the end of the last range."""
    last = parts[-1]
    assert isinstance(last, tuple)
    return last[1]


def _xing_at(source: ByteSource, position: int, header: bytes, kind: _FrameKind) -> int:
    """Return the offset of `Xing` or `Info` in a frame, which the number of frames follows; 0 if there is none."""
    if kind.layer != 3:
        return 0
    is_mono = header[3] >> 6 == 3
    place = 4 + ((17 if is_mono else 32) if kind.version == 1 else (9 if is_mono else 17))
    return place if source.at(position + place, 4) in (b"Xing", b"Info") else 0


def _link(source: ByteSource, track: _MpegTrack) -> Link:
    """Return a recording as the decoder has to see it in order to decode all of it."""
    most = track.frames * track.kind.samples
    if track.xing is None or track.promised is None:
        # The decoder guesses the length from the size of the file and of the first frame, so a large stated size makes
        # the guess large enough. (An added Xing frame would make mpg123 drop 529 samples.)
        return Link(tuple(track.parts), most, num_samples=most, stated_size=2 * track.frames * (track.kind.length + 1))
    if track.promised == track.frames:
        return Link(tuple(track.parts), most)
    position, place = track.xing
    kind = frame_at(source, position)
    assert kind is not None
    frame = source.read(position, kind.length)
    (begin, end), *others = (part for part in track.parts if isinstance(part, tuple))
    # The first part begins with the Xing frame, which is replaced.
    remainder = ((begin + len(frame), end),) if end > begin + len(frame) else ()
    size = sum(part[1] - part[0] for part in track.parts if isinstance(part, tuple))
    return Link((_recounted(frame, place, track.frames, size), *remainder, *others), most)


def _recounted(frame: bytes, place: int, num_frames: int, size: int) -> bytes:
    """Return a Xing frame with other numbers of frames and bytes, and without padding samples at the end.

    From `place`: `Xing`, flags, frames, bytes (flag 2), each of 4 bytes; a table of 100 bytes (flag 4); quality of 4
    bytes (flag 8); LAME tag.
    """
    changed, flags = bytearray(frame), frame[place + 7]
    changed[place + 8 : place + 12] = num_frames.to_bytes(4, "big")
    position = place + 12
    if flags & 2:
        changed[position : position + 4] = (size & 0xFFFFFFFF).to_bytes(4, "big")
        position += 4
    position += (100 if flags & 4 else 0) + (4 if flags & 8 else 0)
    if position + 24 <= len(changed):  # the padding at the end is the last 12 bits of bytes 21 to 23 of the LAME tag
        changed[position + 22] &= 0xF0
        changed[position + 23] = 0
    return bytes(changed)
