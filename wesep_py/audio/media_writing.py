"""Write m4a, mp4, mov, mkv and webm by FFmpeg's libraries (PyAV), with the pictures of another recording if wanted.

The encoder's delay is stated in the file, so that a decoder returns the samples that were written, none in front and
none after them. Pictures and subtitles are copied packet by packet, without decoding:

    samples ─► (resample) ─► frames ─► encoder ──────────────────┐
                                                                 ├─► container
    recording with pictures ─► packets of all tracks but sound ──┘
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wesep_py.audio.containers import ByteSource
from wesep_py.audio.media import import_av, open_media, picture_streams, recording_start
from wesep_py.audio.resample import StreamResampler
from wesep_py.audio.sample_blocks import Samples
from wesep_py.common.errors import AudioError, InputError

log = logging.getLogger("wesep_py.audio")


class MediaKind(NamedTuple):
    """Container that is written, by FFmpeg's names, and the codec of its sound."""

    container: str
    codec: str
    may_have_pictures: bool


MEDIA_KINDS = {
    ".m4a": MediaKind("ipod", "aac", False),
    ".mp4": MediaKind("mp4", "aac", True),
    ".m4v": MediaKind("mp4", "aac", True),
    ".mov": MediaKind("mov", "aac", True),
    ".mkv": MediaKind("matroska", "flac", True),
    ".mka": MediaKind("matroska", "flac", False),
    ".webm": MediaKind("webm", "libopus", True),
}
"""Containers by suffix."""
_AAC_RATES = (7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_OPUS_RATE = 48000  # of its decoder, whatever it was given
# Layouts by number of channels: names for FFmpeg; the order of the channels is kept.
_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}
_OPUS_LAYOUTS = {**_LAYOUTS, 4: "quad", 7: "6.1"}
_FLAC_LAYOUTS = {**_LAYOUTS, 4: "quad", 7: "6.1"}
_LAYOUTS_OF = {"aac": _LAYOUTS, "libopus": _OPUS_LAYOUTS, "flac": _FLAC_LAYOUTS}
_FRAME = 1024
# Tags of the container itself, which its writer sets anew.
_OWN_TAGS = ("major_brand", "minor_version", "compatible_brands", "encoder", "creation_time")
# Suffixes to suggest for a codec of pictures that a container cannot hold.
_OTHERS = ".mkv holds pictures of any codec"


def check_media_format(path: Path, sample_rate: int, num_channels: int, pictures_of: Path | None = None) -> MediaKind:
    """Return the container for a file, if it takes rate, channels and pictures.

    Args:
        path: the file to write.
        sample_rate, num_channels: of the sound.
        pictures_of: recording whose pictures it gets.

    Raises:
        AudioError: it does not take them; or PyAV is not installed.
    """
    kind = MEDIA_KINDS[path.suffix.lower()]
    try:
        import_av()
    except InputError as error:
        raise AudioError(
            f"{path}: {'writing ' + path.suffix + ' needs' + str(error).removeprefix('this needs')}"
        ) from None
    if kind.codec == "aac" and sample_rate not in _AAC_RATES:
        raise AudioError(
            f"{path}: a sample rate of {sample_rate} Hz; AAC allows {', '.join(map(str, _AAC_RATES))} Hz; "
            "resample, or write .wav or .flac"
        )
    if num_channels not in (layouts := _LAYOUTS_OF[kind.codec]):
        raise AudioError(
            f"{path}: cannot be written with {num_channels} channels ({', '.join(map(str, layouts))} are allowed); "
            "write .wav"
        )
    if pictures_of is not None and kind.may_have_pictures:
        with open_media(ByteSource(str(pictures_of), pictures_of)) as source:
            for stream in picture_streams(source):
                if not _holds(kind.container, stream):
                    name = stream.codec_context.codec.canonical_name if stream.codec_context else "an unknown codec"
                    raise AudioError(f"{path}: {path.suffix} cannot hold pictures of {name}; {_OTHERS}")
    return kind


class MediaEncoder:
    """Encoder of a file, with the interface of `soundfile.SoundFile` that `AudioWriter` uses.

    Args:
        sink: binary file, open for writing, that can seek.
        kind: container and codec.
        sample_rate, num_channels: of the sound.
        pictures_of: recording whose pictures and subtitles are copied; `None` for none.

    Raises:
        av.error.FFmpegError: the container cannot be begun.
    """

    def __init__(
        self, sink: Any, kind: MediaKind, sample_rate: int, num_channels: int, pictures_of: Path | None = None
    ) -> None:
        av = import_av()
        self._av, self._rate = av, sample_rate
        self._resampler: StreamResampler | None = None
        if kind.codec == "libopus" and sample_rate != _OPUS_RATE:
            self._resampler, self._rate = StreamResampler(sample_rate, _OPUS_RATE, num_channels), _OPUS_RATE
        # Edit lists count in units of the movie, milliseconds by default: too coarse for the end of the sound.
        options = {} if kind.container in ("matroska", "webm") else {"movie_timescale": str(self._rate)}
        self._layout = _LAYOUTS_OF[kind.codec][num_channels]
        self._output = av.open(sink, "w", format=kind.container, container_options=options, buffer_size=1 << 18)
        self._copy: _PictureCopy | None = None
        if pictures_of is not None and kind.may_have_pictures:
            self._copy = _PictureCopy(pictures_of, self._output, kind.container)
        self._stream = self._output.add_stream(kind.codec, rate=self._rate, layout=self._layout)
        self._stream.bit_rate = min(96_000, 6 * self._rate) * num_channels  # AAC takes at most 6 bits per sample
        if kind.codec == "flac":
            self._stream.codec_context.format = "s32"  # 24 bits
        if self._copy is not None:
            self._stream.metadata.update(self._copy.sound_tags)
        self._output.start_encoding()
        context = self._stream.codec_context
        self._frame = context.frame_size or _FRAME
        self._converter = av.AudioResampler(format=context.format, layout=self._layout, rate=self._rate)
        self._held = np.zeros((0, num_channels), np.float32)
        self._position = 0

    def write(self, samples: Samples) -> None:
        """Append samples `[samples, channels]`, -1 to 1."""
        if self._resampler is not None:
            samples = self._resampler.push(np.ascontiguousarray(samples.T, dtype=np.float32)).T
        self._append(samples)

    def close(self) -> None:
        """Encode what is held, copy the remaining pictures, and complete the file."""
        try:
            if self._resampler is not None:
                self._append(self._resampler.finish().T)
            if len(self._held):
                self._encode(self._held)
            self._mux(self._stream.encode(None))
            if self._copy is not None:
                self._copy.until(None)
            self._output.close()
        finally:
            self.discard()

    def discard(self) -> None:
        """Close the recording with the pictures; the file stays incomplete if it was not closed."""
        if self._copy is not None:
            self._copy.close()

    def _append(self, samples: Samples) -> None:
        samples = np.concatenate([self._held, samples.astype(np.float32)]) if len(self._held) else samples
        whole = len(samples) // self._frame * self._frame
        for begin in range(0, whole, self._frame):
            self._encode(samples[begin : begin + self._frame])
        self._held = samples[whole:]

    def _encode(self, samples: Samples) -> None:
        planes = np.ascontiguousarray(samples.T, dtype=np.float32)
        frame = self._av.AudioFrame.from_ndarray(planes, format="fltp", layout=self._layout)
        frame.sample_rate, frame.pts, frame.time_base = self._rate, self._position, Fraction(1, self._rate)
        self._position += len(samples)
        for converted in self._converter.resample(frame):
            self._mux(self._stream.encode(converted))

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            if self._copy is not None and packet.dts is not None:
                self._copy.until(packet.dts * packet.time_base)
            self._output.mux_one(packet)


class _PictureCopy:
    """Copy of the packets of all tracks but sound from a recording into an output.

    Args:
        path: the recording.
        output: the output, before its header is written.
        container: FFmpeg's name of its format.
    """

    def __init__(self, path: Path, output: Any, container: str) -> None:
        self._source = ByteSource(str(path), path)
        self._opened = open_media(self._source)
        self._input = self._opened.__enter__()
        self._output = output
        self._streams: dict[int, Any] = {}
        left_out: list[str] = []
        sounds = self._input.streams.audio
        for stream in self._input.streams:
            if stream.type == "audio":
                continue
            if not _holds(container, stream):
                left_out.append(stream.type)
                continue
            self._streams[stream.index] = _add_copied(output, stream, self._input.format.name, container)
        left_out += ["audio track"] * (len(sounds) - 1)
        if left_out:
            kinds = ", ".join(f"{left_out.count(kind)} {kind}" for kind in sorted(set(left_out)))
            log.warning("%s: not copied to the output: %s", path, kinds)
        self.sound_tags = dict(sounds[0].metadata)
        self._start = recording_start(self._input, sounds[0]) or Fraction(0)
        output.metadata.update({key: text for key, text in self._input.metadata.items() if key not in _OWN_TAGS})
        if chapters := self._input.chapters():
            output.set_chapters(chapters)
        self._packets = self._demuxed()
        self._next: Any = None

    def _demuxed(self) -> Iterator[Any]:
        error_types = import_av().error.FFmpegError
        packets = self._input.demux([self._input.streams[index] for index in self._streams])
        while self._streams:
            try:
                packet = next(packets, None)
            except error_types:  # the recording ends inside a packet; its sound said so
                return
            if packet is None:
                return
            if packet.size and (packet.dts is not None or packet.pts is not None):
                yield packet

    def until(self, time_s: Fraction | None) -> None:
        """Copy the packets up to a time in seconds; all of them for `None`."""
        while True:
            if self._next is None:
                self._next = next(self._packets, None)
                if self._next is None:
                    return
            packet = self._next
            stamp = packet.pts if packet.dts is None else packet.dts
            if time_s is not None and stamp * packet.time_base - self._start > time_s:
                return
            self._next = None
            if self._start:
                shift = round(self._start / packet.time_base)
                packet.dts = None if packet.dts is None else packet.dts - shift
                packet.pts = None if packet.pts is None else packet.pts - shift
            packet.stream = self._streams[packet.stream_index]
            self._output.mux_one(packet)

    def close(self) -> None:
        """Close the recording."""
        self._opened.__exit__(None, None, None)
        self._source.close()


def _add_copied(output: Any, stream: Any, from_container: str, container: str) -> Any:
    """Add a stream of the same codec to an output."""
    copied = output.add_stream_from_template(stream, opaque=True)
    codec = stream.codec_context.codec.canonical_name if stream.codec_context is not None else None
    if codec == "hevc" and from_container.startswith("mov") and container in ("mp4", "mov"):
        # The tag tells players how parameters are stored ("hvc1"); the muxer's choice may be another one ("hev1").
        copied.codec_context.codec_tag = stream.codec_context.codec_tag
    copied.metadata.update(stream.metadata)
    copied.disposition = getattr(stream.disposition, "value", stream.disposition)  # PyAV 16: an enum without numbers
    return copied


def _holds(container: str, stream: Any) -> bool:
    """Return whether a container takes a stream, by writing the header of a file in memory."""
    av = import_av()
    if stream.type == "data":  # time codes and sensors of cameras: writers make or refuse them
        return False
    try:
        with av.open(io.BytesIO(), "w", format=container) as trial:
            trial.add_stream_from_template(stream, opaque=True)
            trial.start_encoding()
    except (av.error.FFmpegError, ValueError):
        return False
    return True
