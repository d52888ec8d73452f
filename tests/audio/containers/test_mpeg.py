"""MP3: all frames of a file are read, whatever number its first one states."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py import audio
from wesep_py.audio.containers import ByteSource
from wesep_py.audio.containers.mpeg import frame_at
from wesep_py.audio.reading import decode_audio, probe_audio

NOISE = np.random.default_rng(0).uniform(-0.4, 0.4, 48000).astype(np.float32)


@cache
def _encoded(num_samples: int = 32000, rate: int = 16000, channels: int = 1, gain: float = 1.0, level: float = 0.5):
    buffer = io.BytesIO()
    samples = np.stack([gain * NOISE[:num_samples]] * channels, axis=1)
    kind = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "CONSTANT", "compression_level": level}
    soundfile.write(buffer, samples, rate, **kind)
    return buffer.getvalue()


def _frames(data: bytes) -> list[bytes]:
    source, frames, position = ByteSource("x", data=data), [], 0
    while (kind := frame_at(source, position)) is not None:
        frames.append(data[position : position + kind.length])
        position += kind.length
    return frames


def test_all_concatenated_recordings_are_read(tmp_path: Path, caplog):
    first, second = _encoded(), _encoded(48000, gain=0.5)
    path = tmp_path / "joined.mp3"
    path.write_bytes(first + second)
    expected = np.concatenate([decode_audio(first, "1")[0], decode_audio(second, "2")[0]], axis=1)
    assert audio.info(path).num_samples == expected.shape[1] == 80000
    np.testing.assert_array_equal(audio.read(path)[0], expected)
    np.testing.assert_array_equal(np.concatenate(list(audio.read_blocks(path, 7000)), axis=1), expected)
    assert caplog.messages == []


@pytest.mark.parametrize("rate", [8000, 16000, 32000, 44100, 48000])
@pytest.mark.parametrize("quiet_first", [True, False])
def test_frames_of_varying_bit_rate_without_a_count(rate: int, quiet_first: bool, caplog):
    # libsndfile takes the length from the first frame's bit rate: too short, or far too long.
    quiet = _frames(_encoded(24000, rate, gain=1e-4, level=0.99))[1:]
    loud = _frames(_encoded(24000, rate, level=0.0))[1:]
    frames = quiet + loud if quiet_first else loud + quiet
    expected = len(frames) * (1152 if rate >= 32000 else 576)
    assert probe_audio(b"".join(frames), "vbr") == (rate, expected)
    waveform, _ = decode_audio(b"".join(frames), "vbr")
    assert waveform.shape == (1, expected)
    half = len(quiet if quiet_first else loud) * expected // len(frames)
    levels = [audio.rms_db(waveform[0, part]) for part in (slice(0, half - 2000), slice(half + 2000, None))]
    assert (levels[0] < levels[1] - 30) == quiet_first
    assert caplog.messages == []


def test_frames_without_a_count_keep_their_first_samples(caplog):
    frames = b"".join(_frames(_encoded())[1:])
    with soundfile.SoundFile(io.BytesIO(frames)) as file:
        native = file.read(5000, dtype="float32")
    np.testing.assert_array_equal(decode_audio(frames, "plain")[0][0, :5000], native)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_cut_file_gives_its_remaining_samples(share: float, caplog):
    whole = _encoded(48000)
    cut = whole[: int(share * len(whole))]
    decoded, expected = decode_audio(cut, "cut")[0], decode_audio(whole, "whole")[0]
    assert decoded.shape[1] == pytest.approx(share * 48000, abs=2000)
    assert probe_audio(cut, "cut")[1] == decoded.shape[1]
    np.testing.assert_array_equal(decoded, expected[:, : decoded.shape[1]])
    (message,) = caplog.messages
    assert message.startswith("cut: is cut short: its header promises") and "is missing" in message


def test_more_frames_than_promised_are_read(caplog):
    decoded = decode_audio(_encoded() + b"".join(_frames(_encoded())[20:]), "more")[0]
    assert decoded.shape[1] > 32000 + 0.5 * 32000
    np.testing.assert_array_equal(decoded[:, :30000], decode_audio(_encoded(), "whole")[0][:, :30000])


@pytest.mark.parametrize("junk", [b"\xff" * 3000, bytes(3000), b"\xff\xfb\x90\x00" * 800])
def test_bytes_between_frames_are_skipped(junk: bytes, caplog):
    frames = _frames(_encoded())
    data = b"".join(frames[:20]) + junk + b"".join(frames[20:])
    np.testing.assert_array_equal(decode_audio(data, "junk")[0], decode_audio(_encoded(), "whole")[0])
    (message,) = caplog.messages
    assert "bytes that are no MPEG frames" in message


def test_tags_are_not_a_fault(caplog):
    tag = b"ID3\x04\0\0\0\0\x02\x01" + bytes(257)
    data = tag + _encoded() + tag + _encoded() + b"TAG" + bytes(125)
    assert probe_audio(data, "tagged") == (16000, 64000)
    assert decode_audio(data, "tagged")[0].shape == (1, 64000)
    assert caplog.messages == []


def test_links_are_converted_to_the_format_of_the_first(caplog):
    waveform, rate = decode_audio(_encoded() + _encoded(8000, 8000) + _encoded(16000, channels=2), "mixed")
    assert (waveform.shape, rate) == ((1, 64000), 16000)
    (message,) = caplog.messages
    assert "mixed: holds recordings of" in message
