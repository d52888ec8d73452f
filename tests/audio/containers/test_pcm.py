"""WAV, RF64, Wave64, AU, AIFF, CAF, SPHERE: all samples are read, whatever the sizes in the header."""

from __future__ import annotations

import io
import logging
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py import audio
from wesep_py.audio.containers import ByteSource, layout_of
from wesep_py.audio.reading import decode_audio, probe_audio
from wesep_py.common.errors import AudioError

RATE = 16000
TONE = (0.4 * np.sin(np.arange(8000) * 0.1) + np.random.default_rng(0).uniform(-0.1, 0.1, 8000)).astype(np.float32)


def _encoded(container: str, subtype: str = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, TONE, RATE, format=container, subtype=subtype)
    return buffer.getvalue()


def _with(data: bytes, place: int, form: str, value: int) -> bytes:
    field = struct.pack(form, value)
    return data[:place] + field + data[place + len(field) :]


# Where the size of the samples stands, how it is written, and what it is when all is well.
SIZES = {
    "WAV": (lambda data: data.index(b"data") + 4, "<I", 16000),
    "RF64": (lambda data: data.index(b"ds64") + 16, "<Q", 16000),
    "W64": (lambda data: data.index(b"data\xf3\xac") + 16, "<q", 16024),
    "AU": (lambda data: 8, ">I", 16000),
    "AIFF": (lambda data: data.index(b"SSND") + 4, ">I", 16008),
    "CAF": (lambda data: data.index(b"data") + 4, ">q", 16004),
}
UNKNOWN = {
    "WAV": [0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFDB],
    "RF64": [0, 2**64 - 1, 2**62],
    "W64": [0, -1, 2**62, 24],
    "AU": [0, 0x7FFFF000, 0xFFFFFFFF],
    "AIFF": [0, 8, 0x7FFFF000, 0xFFFFFFFF],
    "CAF": [-1, 0, 2**62, 4],
}


@pytest.mark.parametrize(("container", "size"), [(name, size) for name, sizes in UNKNOWN.items() for size in sizes])
def test_an_unknown_size_gives_all_samples_silently(container: str, size: int, tmp_path: Path, caplog):
    data = _encoded(container)
    place, form, _ = SIZES[container]
    path = tmp_path / "a.audio"
    path.write_bytes(_with(data, place(data), form, size))
    waveform, rate = audio.read(path)
    np.testing.assert_array_equal(waveform, decode_audio(data, "whole")[0])
    assert (rate, audio.info(path).num_samples) == (RATE, 8000)
    assert sum(block.shape[1] for block in audio.read_blocks(path, 999)) == 8000
    assert caplog.messages == []


@pytest.mark.parametrize("container", SIZES)
@pytest.mark.parametrize("by", [16, 8000])
def test_a_size_too_large_gives_all_samples_and_a_warning(container: str, by: int, caplog):
    data = _encoded(container)
    place, form, size = SIZES[container]
    wrong = _with(data, place(data), form, size + by)
    np.testing.assert_array_equal(decode_audio(wrong, "large")[0], decode_audio(data, "whole")[0])
    (message,) = caplog.messages
    assert message.startswith("large: is cut short") and f"{by / 32000:.3f} s of" in message


@pytest.mark.parametrize("container", SIZES)
@pytest.mark.parametrize("by", [16, 8000])
def test_a_size_too_small_gives_all_samples_and_a_warning(container: str, by: int, caplog):
    data = _encoded(container)
    place, form, size = SIZES[container]
    wrong = _with(data, place(data), form, size - by)
    assert probe_audio(wrong, "small") == (RATE, 8000)
    np.testing.assert_array_equal(decode_audio(wrong, "small")[0], decode_audio(data, "whole")[0])
    (message,) = caplog.messages
    assert message.startswith("small: holds more than its header says") and "0.500 s instead of" in message


@pytest.mark.parametrize("container", [*SIZES, "NIST"])
@pytest.mark.parametrize("share", [0.5, 0.98])
def test_a_cut_file_gives_its_remaining_samples(container: str, share: float, caplog):
    data = _encoded(container)
    cut = data[: int(share * len(data))]
    decoded, whole = decode_audio(cut, "cut")[0], decode_audio(data, "whole")[0]
    header = len(data) - 16000
    assert decoded.shape[1] == (len(cut) - header) // 2
    np.testing.assert_array_equal(decoded, whole[:, : decoded.shape[1]])
    (message,) = caplog.messages
    assert message.startswith("cut: is cut short: its header promises 16000 bytes")


def test_an_incomplete_block_of_a_codec_is_not_decoded():
    data = _encoded("WAV", "IMA_ADPCM")
    whole = decode_audio(data, "whole")[0]
    decoded = decode_audio(data[: len(data) // 2], "half")[0]
    np.testing.assert_array_equal(decoded, whole[:, : decoded.shape[1]])


@pytest.mark.parametrize("container", ["WAV", "RF64", "W64", "AIFF", "AU", "CAF"])
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_text_after_the_samples_is_not_read(container: str, subtype: str, caplog):
    data = _encoded(container, subtype)
    decoded = decode_audio(data + b"The end of a page, 404.\r\n" * 100, "page")[0]
    np.testing.assert_array_equal(decoded, decode_audio(data, "whole")[0])
    (message,) = caplog.messages
    assert "2500 bytes after its samples" in message and "not read" in message


@pytest.mark.parametrize(
    "tail",
    [
        b"LIST" + struct.pack("<I", 10) + bytes(10),
        b"LIST" + struct.pack("<I", 90) + bytes(10),
        b"TAG" + bytes(125),
        b"\0",
    ],
)
def test_chunks_and_tags_after_the_samples_are_not_read(tail: bytes, caplog):
    data = _encoded("WAV")
    assert probe_audio(data + tail, "tagged") == (RATE, 8000)
    assert decode_audio(data + tail, "tagged")[0].shape == (1, 8000)
    assert caplog.messages == []


def test_a_second_file_after_the_first_is_reported(caplog):
    data = _encoded("WAV")
    assert decode_audio(2 * data, "two")[0].shape == (1, 8000)
    (message,) = caplog.messages
    assert f"two: holds another recording after the first, {len(data)} bytes" in message


def test_a_wav_without_samples_is_refused():
    buffer = io.BytesIO()
    soundfile.write(buffer, TONE[:0], RATE, format="WAV")
    with pytest.raises(AudioError, match="holds no samples"):
        decode_audio(buffer.getvalue() + b"LIST" + struct.pack("<I", 4) + bytes(4), "nothing")


def test_a_size_modulo_two_to_the_32_is_corrected(tmp_path: Path, caplog):
    data = _encoded("WAV")
    path = tmp_path / "wrapped.wav"
    with path.open("wb") as file:
        file.write(data)
        file.truncate(len(data) + 2**32)  # a hole, which takes no place on the disk
    about = audio.info(path)
    assert (about.num_samples, about.subtype) == (8000 + 2**31, "PCM_16")
    np.testing.assert_array_equal(audio.read(path, 0, 9000)[0][:, :8000], decode_audio(data, "whole")[0])
    assert not audio.read(path, 2**31 - 100, 2**31)[0].any()
    assert audio.read(path, 2**31 + 7000)[0].shape == (1, 1000)
    assert caplog.messages == []


@pytest.mark.parametrize("filler", [bytes(8), b"abcd\0\0\0\0"])
def test_a_failed_download_is_refused_quickly(filler: bytes):
    began = time.perf_counter()
    with pytest.raises(AudioError, match="zeros: is not audio that can be read"):
        decode_audio(b"RIFF" + struct.pack("<I", 100) + b"WAVE" + filler * 1_000_000, "zeros")
    assert time.perf_counter() - began < 2


def test_many_chunks_need_little_memory(tmp_path: Path):
    path = tmp_path / "hole.wav"
    with path.open("wb") as file:
        file.write(b"RIFF" + bytes(4) + b"WAVE" + b"JUNK" + struct.pack("<I", 2**31) + b"x")
        file.truncate(2**31 + 10000)
    with ByteSource("hole", path) as source:
        assert layout_of(source).links[0].parts is None


def test_a_warning_is_given_once_per_file(tmp_path: Path, caplog):
    path = tmp_path / "a.wav"
    path.write_bytes(_encoded("WAV")[:9000])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            audio.info(path)
            audio.read(path)
    assert len(caplog.messages) == 1
