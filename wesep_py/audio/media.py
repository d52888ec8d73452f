"""Recordings that libsndfile cannot read: m4a, mp4, mov, webm, mkv, aac, wma, amr, … , decoded by FFmpeg's libraries.

The package PyAV (extra `media`) carries these libraries; it is imported here only, when such a file is read. Of a file
with several audio tracks the first is read, or the one that `audio_track` chooses.

    file ─► demux ─► packets of one track ─► decode ─► frames with times ─► placed ─► blocks [samples, channels]

Decoders remove the delay of the encoder, as the container states it. `FramePlacement` puts each frame where its time
stamp says: silence fills a gap (a paused or disturbed recording, a track that begins later than the pictures).
"""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from wesep_py.audio.containers import ByteSource
from wesep_py.audio.containers.mp4 import is_mp4, mp4_boxes
from wesep_py.audio.sample_blocks import Samples, resampled, with_channels
from wesep_py.common.errors import AudioError, InputError, reason, shorten

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

INSTALL = "pip install 'wesep-py[media]'"
TRACK_VARIABLE = "WESEP_AUDIO_TRACK"
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".au", ".w64", ".rf64", ".caf")
"""Suffixes of recordings that are read without PyAV."""
MEDIA_SUFFIXES = (
    ".m4a", ".mp4", ".m4v", ".m4b", ".mov", ".3gp", ".3g2", ".webm", ".mkv", ".mka", ".aac", ".wma", ".wmv", ".asf",
    ".amr", ".avi", ".flv", ".ts", ".mts", ".ac3", ".wv", ".ape",
)  # fmt: skip
"""Suffixes of recordings that need PyAV."""
GAP_S = Fraction(1, 50)
"""Shortest gap that is filled with silence; shorter differences are due to rounded time stamps."""
DRIFT_S = Fraction(1, 10)
"""Difference between time stamps and samples, in seconds, that is removed also where it grew without a gap."""
LONGEST_GAP_S = 3600
"""Longest gap that is filled; a longer one is due to a wrong time stamp."""
# Demuxers that may be used. Not among them: playlists and lists of other files, devices, pictures.
_FORMATS = (
    "mov,matroska,asf,aac,amr,amrnb,amrwb,caf,avi,flv,mpegts,mpeg,ogg,wav,aiff,ac3,eac3,dts,dtshd,ape,wv,tta,rm,gsm,"
    "mxf,truehd,loas,oma,xwma,nut,shorten,tak,wtv,dsf,iff,mpc,mpc8,voc"
)
# FFmpeg's names for several suffixes at once.
_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2": "MP4", "matroska,webm": "MATROSKA"}
_BEGINNINGS = (
    b"\x1a\x45\xdf\xa3",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
    b"#!AMR",
    b"FLV\x01",
    b"wvpk",
    b"MAC ",
    b"\x0bw",
)
_CUT_S = 0.5


def is_installed() -> bool:
    """Return whether PyAV is installed."""
    return find_spec("av") is not None


def is_recording_name(path: str | PathLike[str]) -> bool:
    """Return whether a file of a folder counts as a recording that can be read here, by its suffix.

    >>> is_recording_name("a.FLAC"), is_recording_name("a.txt")
    (True, False)
    """
    suffix = Path(path).suffix.lower()
    return suffix in AUDIO_SUFFIXES or (suffix in MEDIA_SUFFIXES and is_installed())


def import_av() -> Any:
    """Return the module `av`.

    Raises:
        InputError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise InputError(f"this needs the package av: {INSTALL}") from error
    return av


def is_media(source: ByteSource) -> bool:
    """Return whether a file begins like a format that libsndfile does not read; the suffix does not count.

    >>> is_media(ByteSource("x.wav", data=b"\\x00\\x00\\x00\\x18ftypM4A "))
    True
    """
    head = source.at(0, 16)
    if head.startswith(_BEGINNINGS) or is_mp4(source):
        return True
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return True
    # MPEG transport stream: a packet of 188 bytes begins with 0x47.
    if head[:1] == b"G" and source.at(188, 1) == b"G" and source.at(376, 1) in (b"G", b""):
        return True
    # ADTS: twelve bits 1, one bit for the version, two bits 0 where MPEG audio has its layer.
    return len(head) >= 2 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0


# The track.


def chosen_track() -> int | None:
    """Return the audio track to read, counted from 1; `None` for the first."""
    text = os.environ.get(TRACK_VARIABLE, "")
    return int(text) if text.isdecimal() and int(text) else None


@contextmanager
def audio_track(number: int | None) -> Iterator[None]:
    """Read a chosen audio track inside the block, also in processes that it starts; `None` keeps the current choice.

    Files with one audio track are read as they are.

    Args:
        number: counted from 1.

    >>> with audio_track(2):
    ...     chosen_track()
    2
    """
    if number is None:
        yield
        return
    if number < 1:
        raise InputError(f"the audio track is {number}; tracks are counted from 1")
    before = os.environ.get(TRACK_VARIABLE)
    os.environ[TRACK_VARIABLE] = str(number)
    try:
        yield
    finally:
        if before is None:
            del os.environ[TRACK_VARIABLE]
        else:
            os.environ[TRACK_VARIABLE] = before


# Opening.


class SourceFile(io.RawIOBase):
    """File object over a `ByteSource`, for FFmpeg: it opens no other file and interprets no name.

    >>> SourceFile(ByteSource("x", data=b"abc")).read(2)
    b'ab'
    """

    def __init__(self, source: ByteSource) -> None:
        super().__init__()
        self._source, self._position = source, 0

    def readable(self) -> bool:
        """Return true."""
        return True

    def seekable(self) -> bool:
        """Return true."""
        return True

    def read(self, count: int = -1) -> bytes:
        """Return the next bytes; fewer at the end."""
        count = self._source.size - self._position if count < 0 else count
        data = self._source.read(self._position, count)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position, and return it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._source.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position


@contextmanager
def open_media(source: ByteSource) -> Iterator[InputContainer]:
    """Open a recording with FFmpeg's libraries.

    Raises:
        AudioError: it is no recording of a known format; or PyAV is not installed.
    """
    try:
        av = import_av()
    except InputError as error:
        raise AudioError(f"{source.name}: {'this format needs' + str(error).removeprefix('this needs')}") from error
    options = {"format_whitelist": _FORMATS, "protocol_whitelist": "none"}
    try:
        container = av.open(SourceFile(source), container_options=options, metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise AudioError(
            f"{source.name}: is not audio that can be read ({_cause(error)}); get a whole copy of it"
        ) from error
    try:
        yield container
    finally:
        container.close()


def picture_streams(container: InputContainer) -> list[Any]:
    """Return the video streams of a container; pictures of a cover are not counted."""
    attached = import_av().stream.Disposition.attached_pic
    return [stream for stream in container.streams.video if not stream.disposition & attached]


def sound_stream(container: InputContainer, name: str) -> Any:
    """Return the audio stream to read.

    Raises:
        AudioError: there is none, or it has no decoder.
    """
    streams = container.streams.audio
    if not len(streams):
        others = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise AudioError(f"{name}: has no audio track (it holds {others}); name a recording with sound")
    number = chosen_track() or 1
    if number > len(streams) and len(streams) > 1:
        raise AudioError(f"{name}: audio track {number} was requested; it has {len(streams)}, counted from 1")
    stream = streams[min(number, len(streams)) - 1]
    if stream.codec_context is None:
        raise AudioError(f"{name}: its sound has a codec that cannot be decoded; convert it to wav or m4a")
    return stream


# Times.


@dataclass
class FramePlacement:
    """Position of decoded frames on the time axis of a recording.

    Attributes:
        origin: time of the first sample, in seconds of the container's clock; `None` before the first frame.
        elapsed: time of the samples that were placed, in seconds.
        filled: seconds of silence.
    """

    origin: Fraction | None = None
    elapsed: Fraction = Fraction(0)
    filled: Fraction = Fraction(0)
    _shift: Fraction = field(default=Fraction(0), repr=False)
    _previous_end: Fraction | None = field(default=None, repr=False)

    def place(self, time_s: Fraction | None, num_samples: int, rate: int, start_s: Fraction | None = None) -> int:
        """Place a frame, and return the number of samples of silence in front of it.

        Args:
            time_s: its time stamp in seconds; `None` if it has none, and follows the frame before.
            num_samples, rate: its length, and its sample rate in Hz.
            start_s: of the first frame, the beginning of the recording, which may be earlier.

        >>> placement = FramePlacement()
        >>> placement.place(Fraction(0), 100, 1000), placement.place(Fraction(1, 2), 100, 1000)
        (0, 400)
        """
        silence = 0
        if self.origin is None:
            late = Fraction(0) if time_s is None or start_s is None else time_s - start_s
            late = late if 0 < late <= LONGEST_GAP_S else Fraction(0)
            self.origin = (time_s or Fraction(0)) - late
            silence = round(late * rate)
        elif time_s is not None:
            #   placed samples  |~~~~~~~~~~~~~~~~|      lead: how far the time stamp is ahead of the samples
            #   time stamps     |~~~~~~~~|       |----| jump: from the end of the frame before
            lead = time_s - self.origin - self._shift - self.elapsed
            jump = lead if self._previous_end is None else time_s - self._previous_end
            if lead > LONGEST_GAP_S or lead < -DRIFT_S:
                self._shift += lead  # a clock that was set anew: the samples are kept, and follow each other
            elif (lead > GAP_S and jump > GAP_S) or lead > DRIFT_S:
                silence = round(lead * rate)
        if time_s is not None:
            self._previous_end = time_s + Fraction(num_samples, rate)
        self.filled += Fraction(silence, rate)
        self.elapsed += Fraction(silence + num_samples, rate)
        return silence


# Decoding.


@dataclass(frozen=True)
class MediaFormat:
    """Format and length of a recording.

    Attributes:
        container, codec: FFmpeg's names, in capitals: `MP4`, `AAC`.
        sample_rate, num_channels, num_samples: of the decoded track.
        has_pictures: whether it has a video track.
        start_s: time of the first sample on the container's clock, in seconds.
        faults: each as a predicate.
    """

    container: str
    codec: str
    sample_rate: int
    num_channels: int
    num_samples: int
    has_pictures: bool
    start_s: Fraction
    faults: tuple[str, ...]


class _Piece(NamedTuple):
    """Decoded samples of one rate."""

    samples: Samples
    rate: int


@dataclass
class _Progress:
    """State of a pass over a recording.

    Attributes:
        placement: of the frames.
        num_damaged: packets that could not be decoded.
        last_end: latest end of a packet of any track, in seconds of the container's clock.
    """

    placement: FramePlacement = field(default_factory=FramePlacement)
    num_damaged: int = 0
    last_end: Fraction = Fraction(0)


def media_blocks(source: ByteSource) -> Iterator[Samples]:
    """Decode a recording from its beginning; a change of rate or channels is converted to those of the first frame.

    Yields:
        float32 `[samples, channels]`.

    Raises:
        AudioError: as `open_media` and `sound_stream`.
    """
    with open_media(source) as container:
        stream = sound_stream(container, source.name)
        yield from _uniform(_pieces(container, stream, _Progress(), source.name))


def examine_media(source: ByteSource) -> MediaFormat:
    """Return format and length of a recording; without decoding it, where the packets state the length exactly.

    Raises:
        AudioError: as `open_media` and `sound_stream`; also for encrypted, empty and cut files without any sample.
    """
    faults = _check_boxes(source) if is_mp4(source) else []
    with open_media(source) as container:
        stream = sound_stream(container, source.name)
        progress, count = _Progress(), 0
        pieces = _pieces(container, stream, progress, source.name)
        first = next(pieces, None)
        if first is None:
            why = f"none of its {progress.num_damaged} packets can be decoded" if progress.num_damaged else "no samples"
            raise AudioError(f"{source.name}: its audio track holds {why}; get a whole copy of it, or leave it out")
        for block in _uniform(itertools.chain([first], pieces)):
            count += len(block)
        placement = progress.placement
        if progress.num_damaged:
            faults.append(f"has {progress.num_damaged} damaged packets, which are silent or left out")
        stated_s, reached_s = _stated(container, stream), placement.elapsed
        if stream.duration is None:
            reached_s = max(reached_s, progress.last_end - placement.origin)
        if not faults and stated_s is not None and reached_s < stated_s - Fraction(_CUT_S):
            faults.append(
                f"is cut short: it should last {float(stated_s):.3f} s, and {float(reached_s):.3f} s are there"
            )
        name = container.format.name
        return MediaFormat(
            _CONTAINERS.get(name, name.split(",")[0].upper()),
            stream.codec_context.codec.canonical_name.upper(),
            first.rate,
            first.samples.shape[1],
            count,
            bool(picture_streams(container)),
            placement.origin or Fraction(0),
            tuple(faults),
        )


def _check_boxes(source: ByteSource) -> list[str]:
    """Return the faults that the boxes of an mp4 show.

    Raises:
        AudioError: it cannot be decoded at all.
    """
    boxes = mp4_boxes(source)
    if not boxes.has_index:
        raise AudioError(
            f"{source.name}: is cut short: the index (moov), which its recorder writes last, is missing; "
            "get a whole copy of it"
        )
    if boxes.is_encrypted:
        raise AudioError(f"{source.name}: its sound is encrypted (DRM); get a copy without copy protection")
    return [f"is cut short: its last {boxes.missing_bytes} bytes are missing"] if boxes.missing_bytes else []


def _stated(container: InputContainer, stream: Any) -> Fraction | None:
    """Return the duration that the headers state, in seconds."""
    if stream.duration is not None:
        # Of raw streams (aac, amr) it is an estimate from the bit rate.
        is_raw = container.format.name in ("aac", "amr", "ac3", "eac3", "dts")
        return None if is_raw else stream.duration * stream.time_base
    return None if container.duration is None else Fraction(container.duration, 1_000_000)


def recording_start(container: InputContainer, stream: Any) -> Fraction | None:
    """Return the beginning of a recording with pictures, in seconds; `None` if the sound alone says it."""
    others = picture_streams(container)
    starts = [s.start_time * s.time_base for s in (stream, *others) if s.start_time is not None]
    return min(starts) if others and starts else None


def _pieces(container: InputContainer, stream: Any, progress: _Progress, name: str) -> Iterator[_Piece]:
    """Decode a stream; yield its frames, and silence where time stamps leave gaps."""
    placement, start_s = progress.placement, recording_start(container, stream)
    frames = _frames(container, stream, progress)
    for samples, rate, time_s in _trimmed(frames, container, stream):
        silence = placement.place(time_s, len(samples), rate, start_s)
        for begin in range(0, silence, 1 << 16):
            yield _Piece(np.zeros((min(1 << 16, silence - begin), samples.shape[1]), np.float32), rate)
        yield _Piece(samples, rate)


class _Frame(NamedTuple):
    """Decoded frame `[samples, channels]` with its time, and the end of its packets; in seconds."""

    samples: Samples
    rate: int
    time_s: Fraction | None
    packet_end_s: Fraction | None


def _frames(container: InputContainer, stream: Any, progress: _Progress) -> Iterator[_Frame]:
    """Demux and decode; packets that cannot be decoded are counted."""
    error_types = import_av().error.FFmpegError
    # Without a stated duration, the end of the other tracks tells whether the file is whole.
    selected = [stream] if stream.duration is not None else list(container.streams)
    packets = container.demux(selected)
    packet_end: Fraction | None = None
    while True:
        try:
            packet = next(packets, None)
        except error_types:  # the file ends inside a packet
            packet = None
        if packet is None:
            return
        if packet.pts is not None:
            end = (packet.pts + (packet.duration or 0)) * packet.time_base
            progress.last_end = max(progress.last_end, end)
            packet_end = end if packet.stream_index == stream.index else packet_end
        if packet.stream_index != stream.index:
            continue
        try:
            decoded = packet.decode()
        except error_types:
            progress.num_damaged += 1
            continue
        for frame in decoded:
            if frame.samples:
                time_s = None if frame.pts is None else frame.pts * frame.time_base
                yield _Frame(as_floats(frame), frame.sample_rate, time_s, packet_end)


def _trimmed(
    frames: Iterator[_Frame], container: InputContainer, stream: Any
) -> Iterator[tuple[Samples, int, Fraction | None]]:
    """Yield frames, the last of an mp4 cut where the duration of its packet, or the edit list, ends.

    frames   |------1024------|------1024------|
    packets  |------1024------|----300----|
    """
    if not container.format.name.startswith("mov"):
        yield from (frame[:3] for frame in frames)
        return
    # An edit list ends in units of the movie, often milliseconds; within two of them the packet is more precise.
    edit_end = None
    if stream.duration is not None:
        edit_end = ((stream.start_time or 0) + stream.duration) * stream.time_base
    held: list[_Frame] = []
    for frame in frames:
        held.append(frame)
        # An edit list may end one or two packets before the last one.
        while len(held) > 4:
            yield held.pop(0)[:3]
    end = held[-1].packet_end_s if held else None
    if end is not None and edit_end is not None and end - edit_end > Fraction(2, 1000):
        end = edit_end
    for samples, rate, time_s, _ in held:
        if end is not None and time_s is not None:
            samples = samples[: max(0, round((end - time_s) * rate))]
        if len(samples):
            yield samples, rate, time_s


def _uniform(pieces: Iterator[_Piece]) -> Iterator[Samples]:
    """Yield blocks at the rate and with the channels of the first piece."""
    first: _Piece | None = None
    for (rate, channels), group in itertools.groupby(pieces, key=lambda piece: (piece.rate, piece.samples.shape[1])):
        blocks = (piece.samples for piece in group)
        if first is None:
            head = next(blocks)
            first, blocks = _Piece(head, rate), itertools.chain([head], blocks)
        if channels != first.samples.shape[1]:
            count = first.samples.shape[1]
            blocks = (with_channels(block, count) for block in blocks)
        if rate != first.rate:
            blocks = resampled(blocks, rate, first.rate, first.samples.shape[1])
        yield from blocks


def as_floats(frame: av.AudioFrame) -> Samples:
    """Return a decoded frame as float32 `[samples, channels]`, integers divided by their full scale."""
    array = frame.to_ndarray()
    array = array.T if frame.format.is_planar else array.reshape(frame.samples, -1)
    if array.dtype.kind == "u":
        return (array.astype(np.float32) - 128.0) / np.float32(128.0)
    if array.dtype.kind == "i":
        full_scale = 2.0 ** (8 * array.dtype.itemsize - 1)
        return (array / full_scale).astype(np.float32)
    return array.astype(np.float32)


def _cause(error: Exception) -> str:
    """Return an error of FFmpeg without the number and the name of the file."""
    return shorten(getattr(error, "strerror", None) or reason(error), 80)
