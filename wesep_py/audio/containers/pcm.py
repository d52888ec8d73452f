"""Layout of containers with contiguous samples: WAV, RF64, Wave64, AU, AIFF, CAF, NIST SPHERE.

The header of each states how many bytes of samples follow. The number is wrong if a program wrote to a pipe, crashed,
or counted modulo 2^32; the samples then end with the file, or where known chunks begin (`_end_of_samples`). The decoder
is given the same header with the right numbers.

    | head ... size | samples ......................... | chunks, tags |
                    start          start + claimed?     end            size of the file
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from wesep_py.audio.containers.layout import LARGEST_COUNT, ByteSource, Layout, Link, overlaid, seconds
from wesep_py.audio.containers.mpeg import after_tags

_MAX_CHUNKS = 4096
# Sizes that programs state when they write to a pipe and do not know the length: 0, 0x7FFFF000 (SoX), 0x80000000
# (ALSA), 0xFFFFFFFF (FFmpeg), and these minus the size of the header.
_PLACEHOLDERS = ((0, 0), (0x7FFF0000, 0x80000FFF), (0xFFFF0000, 0xFFFFFFFF))
_LARGEST_32_BIT = 0xFFFF0000
# Number of bytes after the stated end that are checked to see whether they are samples.
_CHECKED_BYTES = 1 << 12
_TEXT = frozenset(b"\t\n\r" + bytes(range(0x20, 0x7F)))
_MAX_FLOAT_SAMPLE = 1e4
# WAV's format numbers for uncompressed samples: PCM, float, A-law, mu-law.
_SAMPLE_TAGS = {1, 3, 6, 7}
# Chunks that are recognised even if the end of the file cuts them.
_KNOWN_CHUNKS = {b"LIST", b"id3 ", b"ID3 ", b"bext", b"fact", b"cue ", b"smpl", b"PEAK", b"iXML", b"axml", b"JUNK"}
_KNOWN_CHUNKS |= {b"PAD ", b"FLLR", b"DISP", b"NAME", b"ANNO", b"MARK", b"INST", b"COMT", b"AUTH", b"APPL", b"free"}
_W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")
_W64_RIFF_TAIL = bytes.fromhex("912ecf11a5d628db04c10000")
# Bytes per sample by AU's encoding number; AIFF-C's names of uncompressed encodings.
_AU_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}
_AIFC_UNPACKED = {b"NONE", b"twos", b"sowt", b"in24", b"in32", b"42ni", b"23ni", b"raw ", b"fl32", b"FL32"}
_AIFC_UNPACKED |= {b"fl64", b"FL64", b"ulaw", b"ULAW", b"alaw", b"ALAW"}


class _Chunk(NamedTuple):
    name: bytes
    start: int  # of the content
    size: int  # of the content, as the chunk says


class _Samples(NamedTuple):
    """Samples as the header describes them.

    Attributes:
        start: position of the first byte.
        claimed: number of bytes; `None` if the header does not know.
        frame_bytes: size of a frame (one sample of each channel, or a block of a codec); 0 if it varies.
        rate: frames per second.
        float_type: numpy's name of the type of floating-point samples; empty for other types.
    """

    start: int
    claimed: int | None
    frame_bytes: int
    rate: float
    float_type: str = ""


def _unknown(size: int) -> bool:
    """Return whether a stated size means that the size is unknown."""
    return any(low <= size <= high for low, high in _PLACEHOLDERS) or size < 0 or size >= LARGEST_COUNT


def _is_name(name: bytes) -> bool:
    return len(name) == 4 and all(0x20 <= byte < 0x7F for byte in name)


def _riff_chunks(source: ByteSource, position: int, order: str) -> Iterator[_Chunk]:
    """Yield the chunks of RIFF (`order` is `<`) or IFF (`>`), as far as there are chunks."""
    for _ in range(_MAX_CHUNKS):
        head = source.at(position, 8)
        if len(head) < 8 or not _is_name(head[:4]):
            return
        (size,) = struct.unpack(order + "I", head[4:])
        yield _Chunk(head[:4], position + 8, size)
        position += 8 + size + size % 2


def _w64_chunks(source: ByteSource, position: int) -> Iterator[_Chunk]:
    """Yield the chunks of Wave64, whose names have 16 bytes and whose sizes include the head of 24 bytes."""
    for _ in range(_MAX_CHUNKS):
        head = source.at(position, 24)
        if len(head) < 24 or not _is_name(head[:4]):
            return
        (size,) = struct.unpack("<q", head[16:])
        yield _Chunk(head[:16], position + 24, size - 24)
        if size < 24:
            return
        position += -(-size // 8) * 8


def _caf_chunks(source: ByteSource, position: int) -> Iterator[_Chunk]:
    """Yield the chunks of a Core Audio file."""
    for _ in range(_MAX_CHUNKS):
        head = source.at(position, 12)
        if len(head) < 12 or not _is_name(head[:4]):
            return
        (size,) = struct.unpack(">q", head[4:])
        yield _Chunk(head[:4], position + 12, size)
        if size < 0:
            return
        position += 12 + size


def _ends_in_chunks(
    source: ByteSource, position: int, chunks: Callable[[int], Iterator[_Chunk]], smallest: int, aligned: int
) -> bool:
    """Return whether only chunks and tags, or fewer bytes than `smallest`, are between a position and the end.

    Args:
        source: the file.
        position: in the file.
        chunks: yields the chunks from a position.
        smallest: size in bytes of the smallest chunk.
        aligned: chunks begin at multiples of this.
    """
    position = after_tags(source, position)
    if source.size - position < smallest:
        return True
    end = position
    for chunk in chunks(position):
        if chunk.size < 0:
            return False
        end = chunk.start + chunk.size
        if end >= source.size:
            return end - source.size <= aligned or chunk.name in _KNOWN_CHUNKS
    end = after_tags(source, -(-end // aligned) * aligned)
    return end != position and source.size - end < smallest


def _end_of_samples(
    source: ByteSource, samples: _Samples, ends: Callable[[int], bool], wraps: bool
) -> tuple[int, list[str], bool]:
    """Find the end of the samples.

    Args:
        source: the file.
        samples: samples as the header describes them.
        ends: returns whether only chunks follow a position.
        wraps: whether the stated size is modulo 2^32.

    Returns:
        The end, the faults, and whether the file ends early.
    """
    start, claimed, frame, rate, float_type = samples
    present, second = source.size - start, frame * rate  # bytes in the file; bytes per second
    if claimed is None:
        return source.size, [], False
    if claimed > present and frame and claimed // frame == present // frame:
        return source.size, [], False
    if claimed > present:
        fault = f"is cut short: its header promises {claimed} bytes of samples and {present} are there"
        if second > 0:
            fault += f" ({seconds(claimed - present, second)} of {seconds(claimed, second)} is missing)"
        return source.size, [fault], True
    stop = start + claimed
    if source.at(stop, 4) in (b"RIFF", b"RF64", b"FORM") and source.at(stop + 8, 4) in (b"WAVE", b"AIFF", b"AIFC"):
        return stop, [f"holds another recording after the first, {source.size - stop} bytes, which is not read"], False
    if ends(stop) or ends(stop + claimed % 2):
        return stop, [], False
    # A file of more than 4 GiB states its size modulo 2^32: try the largest possible size first.
    for turns in range((present - claimed) >> 32 if wraps else 0, 0, -1):
        if ends(stop + (turns << 32)):
            return stop + (turns << 32), [], False
    surplus = present - claimed
    if surplus < max(frame, 1):
        return stop, [], False
    if not frame or not _may_be_samples(source.read(stop, _CHECKED_BYTES), float_type):
        return stop, [f"holds {surplus} bytes after its samples that are no samples, and are not read"], False
    fault = f"holds more than its header says, which promises {claimed} bytes of samples, and {present} are there"
    return (
        source.size,
        [f"{fault} ({seconds(present, second)} instead of {seconds(claimed, second)}); all are read"],
        False,
    )


def _may_be_samples(data: bytes, float_type: str) -> bool:
    """Return whether bytes may be samples: not text, and not floats that are not finite or far above full scale."""
    printable = sum(byte in _TEXT for byte in data)
    if printable > 0.95 * len(data):
        return False
    if float_type and (count := len(data) // np.dtype(float_type).itemsize):
        values = np.frombuffer(data, float_type, count)
        with np.errstate(all="ignore"):
            return bool(np.isfinite(values).all() and np.abs(values).max() < _MAX_FLOAT_SAMPLE)
    return True


def wav_layout(source: ByteSource) -> Layout:
    """Return the layout of a WAV or RF64 file (RIFF, RIFX; EBU Tech 3306)."""
    order = ">" if source.at(0, 4) == b"RIFX" else "<"
    long_sizes, rate, frame, data = None, 0.0, 0, None
    tag, bits = 0, 0
    for chunk in _riff_chunks(source, 12, order):
        if chunk.name == b"ds64" and len(sizes := source.at(chunk.start, 24)) == 24:
            long_sizes = chunk.start, struct.unpack("<QQQ", sizes)[1]
        elif chunk.name == b"fmt " and len(about := source.at(chunk.start, 16)) == 16:
            tag, _, rate, byte_rate, frame, bits = struct.unpack(order + "HHIIHH", about)
            if tag == 0xFFFE and len(more := source.at(chunk.start + 24, 2)) == 2:
                (tag,) = struct.unpack(order + "H", more)
            if tag not in _SAMPLE_TAGS:
                rate = byte_rate / max(frame, 1)
        elif chunk.name == b"data":
            data = chunk
            break
    if data is None:
        return Layout()
    stated = long_sizes[1] if long_sizes is not None and data.size == 0xFFFFFFFF else data.size

    def ends(position: int) -> bool:
        return _ends_in_chunks(source, position, lambda at: _riff_chunks(source, at, order), 8, 2)

    if stated == 0 and ends(data.start):
        return Layout()
    float_type = f"{order}f{bits // 8}" if tag == 3 and bits in (32, 64) else ""
    samples = _Samples(data.start, None if _unknown(stated) else stated, frame, rate, float_type)
    end, faults, is_cut = _end_of_samples(source, samples, ends, wraps=long_sizes is None)
    if is_cut and tag not in _SAMPLE_TAGS and frame:  # an incomplete block of a codec would be decoded to noise
        end -= (end - data.start) % frame
    size = end - data.start
    is_followed = bool(faults) and end < source.size and not is_cut
    if (size == stated and not is_followed) or (is_cut and end == source.size):
        return Layout(faults=tuple(faults), is_cut=is_cut)
    if long_sizes is not None:
        patches = {long_sizes[0]: struct.pack("<QQQ", end - 8, size, size // max(frame, 1))}
        if data.size != 0xFFFFFFFF:
            patches[data.start - 4] = struct.pack("<I", 0xFFFFFFFF)
        return Layout((Link(overlaid(source, end, patches)),), tuple(faults), is_cut)
    if size < _LARGEST_32_BIT - data.start:
        patches = {4: struct.pack(order + "I", end - 8), data.start - 4: struct.pack(order + "I", size)}
        return Layout((Link(overlaid(source, end, patches)),), tuple(faults), is_cut)
    if order == ">":
        faults.append(f"holds {size} bytes of samples, more than its format has numbers for; not all of them are read")
        return Layout(faults=tuple(faults))
    # More than 4 GiB: give it the header of RF64, whose first chunk states the sizes with 64 bits.
    sizes = struct.pack("<4sIQQQI", b"ds64", 28, end + 36 - 8, size, size // max(frame, 1), 0)
    head = b"RF64\xff\xff\xff\xffWAVE" + sizes
    parts = (head, (12, data.start - 4), b"\xff\xff\xff\xff", (data.start, end))
    return Layout((Link(parts),), tuple(faults))


def w64_layout(source: ByteSource) -> Layout:
    """Return the layout of a Sony Wave64 file."""
    rate, frame, data, tag, bits = 0, 0, None, 0, 0
    for chunk in _w64_chunks(source, 40):
        if chunk.name == b"fmt " + _W64_TAIL and len(about := source.at(chunk.start, 16)) == 16:
            tag, _, rate, _, frame, bits = struct.unpack("<HHIIHH", about)
        elif chunk.name == b"data" + _W64_TAIL:
            data = chunk
            break
    if data is None:
        return Layout()

    def ends(position: int) -> bool:
        return _ends_in_chunks(source, -(-position // 8) * 8, lambda at: _w64_chunks(source, at), 8, 8)

    if data.size == 0 and ends(data.start):
        return Layout()
    float_type = f"<f{bits // 8}" if tag == 3 and bits in (32, 64) else ""
    claimed = None if data.size <= 0 or _unknown(data.size) else data.size
    samples = _Samples(data.start, claimed, frame, rate, float_type)
    end, faults, is_cut = _end_of_samples(source, samples, ends, wraps=False)
    if end == source.size and end - data.start == data.size:
        return Layout(faults=tuple(faults))
    # libsndfile reads to the end of the file, even if other chunks follow the samples.
    patches = {16: struct.pack("<q", end), data.start - 8: struct.pack("<q", end - data.start + 24)}
    return Layout((Link(overlaid(source, end, patches)),), tuple(faults), is_cut)


def au_layout(source: ByteSource) -> Layout:
    """Return the layout of a Sun AU file."""
    order = ">" if source.at(0, 4) == b".snd" else "<"
    head = source.at(4, 20)
    if len(head) < 20:
        return Layout()
    start, stated, encoding, rate, channels = struct.unpack(order + "5I", head)
    if not 24 <= start < source.size:
        return Layout()
    float_type = {6: f"{order}f4", 7: f"{order}f8"}.get(encoding, "")
    frame = _AU_WIDTHS.get(encoding, 0) * channels
    samples = _Samples(start, None if _unknown(stated) else stated, frame, rate, float_type)
    end, faults, is_cut = _end_of_samples(
        source, samples, lambda position: source.size - after_tags(source, position) < 2, wraps=True
    )
    if end - start == stated or is_cut:
        return Layout(faults=tuple(faults), is_cut=is_cut)
    known = end - start if end - start < _LARGEST_32_BIT else 0xFFFFFFFF
    return Layout((Link(overlaid(source, end, {8: struct.pack(order + "I", known)})),), tuple(faults))


def aiff_layout(source: ByteSource) -> Layout:
    """Return the layout of an AIFF or AIFF-C file."""
    common, frames, frame, rate, samples_chunk = None, 0, 0, 0.0, None
    unpacked, float_type = False, ""
    for chunk in _riff_chunks(source, 12, ">"):
        if chunk.name == b"COMM" and len(about := source.at(chunk.start, 22)) >= 18:
            channels, frames, bits = struct.unpack(">HIH", about[:8])
            common, rate = chunk, _extended(about[8:18])
            unpacked = source.at(8, 4) == b"AIFF" or about[18:22] in _AIFC_UNPACKED
            float_type = {b"fl32": ">f4", b"fl64": ">f8"}.get(about[18:22].lower(), "")
            frame = channels * -(-bits // 8) if about[18:22].lower() not in (b"ulaw", b"alaw") else channels
        elif chunk.name == b"SSND":
            samples_chunk = chunk
            if common is not None:
                break
    if samples_chunk is None or common is None or not unpacked or frame == 0:
        return Layout()
    lead = source.at(samples_chunk.start, 8)
    offset = struct.unpack(">I", lead[:4])[0] if len(lead) == 8 else 0
    start = samples_chunk.start + 8 + offset
    if start >= source.size:
        return Layout()
    stated = samples_chunk.size - 8 - offset

    def ends(position: int) -> bool:
        return _ends_in_chunks(source, position, lambda at: _riff_chunks(source, at, ">"), 8, 2)

    if stated == 0 and frames == 0 and ends(start):
        return Layout()
    is_unknown = samples_chunk.size <= 8 or _unknown(samples_chunk.size) or _unknown(stated)
    samples = _Samples(start, None if is_unknown else stated, frame, rate, float_type)
    end, faults, is_cut = _end_of_samples(source, samples, ends, wraps=True)
    size = end - start
    if size > _LARGEST_32_BIT:
        faults.append(
            f"holds {size - _LARGEST_32_BIT} bytes that are not read: AIFF has no numbers for more than 4 GiB"
        )
        size = _LARGEST_32_BIT
    if frames * frame > size and not is_cut and not is_unknown and not _unknown(frames):
        missing = frames * frame - size
        faults.append(f"is cut short: its header promises {frames} samples and {size // frame} are there "
                      f"({seconds(missing, frame * rate)} is missing)")  # fmt: skip
        is_cut = True
    elif (frames + 1) * frame + 1 < size and frames and not faults and not is_unknown and not _unknown(frames):
        faults.append(f"holds more than its header says, which promises {frames} samples, and {size // frame} are "
                      "there; all are read")  # fmt: skip
    if size == stated and frames == size // frame and not (faults and end < source.size):
        return Layout(faults=tuple(faults), is_cut=is_cut)
    patches = {
        4: struct.pack(">I", min(start + size - 8, 0xFFFFFFFF)),
        common.start + 2: struct.pack(">I", size // frame),
        samples_chunk.start - 4: struct.pack(">I", size + 8 + offset),
    }
    # A common chunk after the samples has to be kept.
    stop = source.size if common.start > samples_chunk.start else start + size
    return Layout((Link(overlaid(source, stop, patches)),), tuple(faults), is_cut)


def caf_layout(source: ByteSource) -> Layout:
    """Return the layout of a Core Audio file."""
    rate, packet, per_packet, data = 0.0, 0, 1, None
    for chunk in _caf_chunks(source, 8):
        if chunk.name == b"desc" and len(about := source.at(chunk.start, 32)) == 32:
            rate, _, _, packet, per_packet, _, _ = struct.unpack(">d4s5I", about)
        elif chunk.name == b"data":
            data = chunk
            break
    if data is None:
        return Layout()
    start, stated = data.start + 4, data.size - 4
    if start >= source.size:
        return Layout()

    def ends(position: int) -> bool:
        return _ends_in_chunks(source, position, lambda at: _caf_chunks(source, at), 4, 1)

    if stated == 0 and ends(start):
        return Layout()
    claimed = None if data.size < 4 or _unknown(stated) else stated
    samples = _Samples(start, claimed, packet, rate / max(per_packet, 1))
    end, faults, is_cut = _end_of_samples(source, samples, ends, wraps=False)
    if end - start == stated:
        return Layout(faults=tuple(faults))
    # Packets of varying size are listed after the samples, so their number in a cut file is known only by decoding.
    if packet == 0:
        return Layout((Link(is_counted=is_cut),), tuple(faults), is_cut)
    return Layout((Link(overlaid(source, end, {data.start - 8: struct.pack(">q", end - start + 4)})),),
                  tuple(faults), is_cut)  # fmt: skip


def nist_layout(source: ByteSource) -> Layout:
    """Return the layout of a NIST SPHERE file, whose header is text."""
    # Lines: magic, size of the header, then `name type value`.
    lines = source.at(0, 1024).decode("latin-1").split("\n")
    try:
        start = int(lines[1])
        fields = {words[0]: words[2] for line in lines[2:] if len(words := line.split()) >= 3}
        frame = int(fields["channel_count"]) * int(fields["sample_n_bytes"])
        claimed, rate = int(fields["sample_count"]) * frame, float(fields["sample_rate"])
    except (KeyError, ValueError, IndexError):
        return Layout()
    if not 0 < claimed < LARGEST_COUNT or start >= source.size or fields.get("sample_coding", "pcm") != "pcm":
        return Layout()

    def ends(position: int) -> bool:
        return source.size - after_tags(source, position) < max(frame, 2)

    end, faults, is_cut = _end_of_samples(source, _Samples(start, claimed, frame, rate), ends, wraps=False)
    # libsndfile reads to the end of the file, even if other chunks follow the samples.
    link = Link() if end == source.size else Link(((0, end),))
    return Layout((link,), tuple(faults), is_cut)


def _extended(data: bytes) -> float:
    """Return an 80-bit floating-point number, which AIFF has for the rate; 0 if it is out of range."""
    exponent, mantissa = struct.unpack(">HQ", data)
    power = exponent - 16383 - 63
    return float(mantissa) * 2.0**power if -200 < power < 64 else 0.0
