"""Recordings in media containers, made by PyAV for tests: sound, pictures, gaps, several tracks, subtitles."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

av = pytest.importorskip("av")

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def chirps(num_channels: int, duration_s: float, sample_rate: int) -> np.ndarray:
    """Return a rising tone in each channel, each of its own frequencies; float32 `[channels, samples]`."""
    time_s = np.arange(round(duration_s * sample_rate)) / sample_rate
    highest = min(2000.0, 0.2 * sample_rate)
    tones = []
    for channel in range(num_channels):
        low = 100.0 + 40.0 * channel
        phase = 2 * np.pi * (low * time_s + (highest - low) * time_s**2 / (2 * duration_s))
        tones.append(0.3 * np.sin(phase))
    return np.stack(tones).astype(np.float32)


def write_media(
    path: Path,
    container: str,
    codec: str,
    waveforms: Sequence[np.ndarray],
    sample_rate: int,
    picture_codec: str | None = None,
    sound_at_s: float = 0.0,
    pictures_at_s: float = 0.0,
    gap_s: tuple[float, float] | None = None,
    subtitles: str | None = None,
    options: dict[str, str] | None = None,
) -> None:
    """Write a recording: one audio track per waveform, pictures of noise at 25 Hz, subtitles.

    Args:
        path: the file.
        container, codec: FFmpeg's names.
        waveforms: `[channels, samples]` of each audio track.
        sample_rate: in Hz.
        picture_codec: `None` for no pictures.
        sound_at_s, pictures_at_s: beginning of the tracks.
        gap_s: packets of the sound between these times are left out.
        subtitles: text shown from 0.1 to 0.4 s; only in Matroska.
        options: of the container.
    """
    with av.open(str(path), "w", format=container, container_options=options or {}) as output:
        pictures = None
        if picture_codec:
            pictures = output.add_stream(picture_codec, rate=25, width=64, height=48)
            pictures.pix_fmt, pictures.codec_context.gop_size = "yuv420p", 8
        sounds = []
        for waveform in waveforms:
            sound = output.add_stream(codec, rate=sample_rate, layout=LAYOUTS[len(waveform)])
            sound.bit_rate = 12200 if "amr" in codec else min(96000, 6 * sample_rate) * len(waveform)
            sounds.append(sound)
        words, texts = _subtitle_packets(subtitles), None
        if words is not None:
            texts = output.add_stream_from_template(words.streams.subtitles[0], opaque=True)
        output.start_encoding()
        if pictures is not None:
            for packet in _picture_packets(pictures, waveforms[0].shape[1] / sample_rate, pictures_at_s):
                output.mux(packet)
        if texts is not None:
            for packet in words.demux():
                if packet.size:
                    packet.stream = texts
                    output.mux(packet)
        for sound, waveform in zip(sounds, waveforms, strict=True):
            for packet in _sound_packets(sound, waveform, sample_rate, sound_at_s):
                time_s = packet.pts * packet.time_base
                if gap_s is None or not gap_s[0] <= time_s < gap_s[1]:
                    output.mux(packet)


def picture_packets(path: Path) -> list[tuple[bytes, Fraction]]:
    """Return bytes and time in seconds of each packet of the pictures."""
    with av.open(str(path)) as recording:
        return [(bytes(packet), packet.pts * packet.time_base) for packet in recording.demux(video=0) if packet.size]


def caf_of_m4a(source: Path, path: Path) -> None:
    """Write the AAC packets of an m4a as a CAF (Apple, "Core Audio Format specification"); FFmpeg does not."""
    data = source.read_bytes()
    place = data.index(b"esds")
    cookie = data[place + 8 : place - 4 + int.from_bytes(data[place - 4 : place], "big")]
    with av.open(str(source)) as recording:
        sound = recording.streams.audio[0]
        rate, channels = sound.codec_context.sample_rate, sound.codec_context.channels
        packets = [bytes(packet) for packet in recording.demux(sound) if packet.size]
    description = struct.pack(">d4sIIIII", rate, b"aac ", 0, 0, 1024, channels, 0)
    # Sizes of packets in 7 bits per byte, the highest bit set in all but the last byte.
    sizes = b"".join(bytes([0x80 | len(packet) >> 7, len(packet) & 0x7F]) for packet in packets)
    table = struct.pack(">qqii", len(packets), 1024 * (len(packets) - 1), 1024, 0) + sizes
    content = bytes(4) + b"".join(packets)
    chunks = ((b"desc", description), (b"kuki", cookie), (b"pakt", table), (b"data", content))
    path.write_bytes(b"caff\0\1\0\0" + b"".join(kind + struct.pack(">q", len(chunk)) + chunk for kind, chunk in chunks))


def _sound_packets(sound: Any, waveform: np.ndarray, sample_rate: int, start_s: float) -> list[Any]:
    context = sound.codec_context
    frame_size = context.frame_size or 1024
    layout = LAYOUTS[len(waveform)]
    converter = av.AudioResampler(format=context.format, layout=layout, rate=sample_rate)
    packets = []
    for begin in range(0, waveform.shape[1], frame_size):
        planes = np.ascontiguousarray(waveform[:, begin : begin + frame_size])
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
        frame.sample_rate, frame.time_base = sample_rate, Fraction(1, sample_rate)
        frame.pts = begin + round(start_s * sample_rate)
        for converted in converter.resample(frame):
            packets += sound.encode(converted)
    return packets + sound.encode(None)


def _picture_packets(pictures: Any, duration_s: float, start_s: float) -> list[Any]:
    packets = []
    for number in range(round(duration_s * 25)):
        noise = np.random.default_rng(number).integers(0, 255, (48, 64, 3)).astype(np.uint8)
        frame = av.VideoFrame.from_ndarray(noise, format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = number + round(start_s * 25), Fraction(1, 25)
        packets += pictures.encode(frame)
    return packets + pictures.encode(None)


def _subtitle_packets(text: str | None) -> Any:
    if text is None:
        return None
    return av.open(io.BytesIO(f"1\n00:00:00,100 --> 00:00:00,400\n{text}\n\n".encode()), format="srt")
