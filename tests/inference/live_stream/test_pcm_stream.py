"""Raw samples: bytes cut anywhere, formats, ends, and pipes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.inference.networks import BSRNN, noise, random_extractor
from wesep_py.common.errors import InputError
from wesep_py.inference import Extractor, Voice
from wesep_py.inference.live_stream.pcm_stream import PcmDecoder, encode, pump, skip_backlog, write_all

LIVE = {"backbone": {**BSRNN, "live": True, "norm": "frame"}, "cues": [{"name": "tf_map"}]}


@pytest.fixture(scope="module")
def live() -> tuple[Extractor, Voice]:
    return random_extractor(LIVE)


@pytest.mark.parametrize("sample_format", ["s16le", "f32le"])
@pytest.mark.parametrize("num_channels", [1, 3])
def test_bytes_cut_anywhere_give_the_same_samples(sample_format: str, num_channels: int):
    samples = noise(20, num_channels)
    data = encode(samples, sample_format)
    whole = PcmDecoder(sample_format, num_channels).push(data)
    assert whole.dtype == (np.int16 if sample_format == "s16le" else np.float32)
    for size in range(1, 30):
        decoder = PcmDecoder(sample_format, num_channels)
        parts = [decoder.push(data[start : start + size]) for start in range(0, len(data), size)]
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
        assert decoder.num_waiting == 0
    assert encode(whole, sample_format) == data


def test_formats_are_little_endian_and_interleaved():
    samples = np.array([[1, 2], [-1, 256]], np.int16)
    assert encode(samples, "s16le") == b"\x01\x00\xff\xff\x02\x00\x00\x01"
    assert encode(np.array([-1.0], np.float32), "f32le") == b"\x00\x00\x80\xbf"
    np.testing.assert_array_equal(PcmDecoder("f32le").push(encode(np.array([16384], np.int16), "f32le")), [[0.5]])
    with pytest.raises(InputError, match=r"'s24le'; did you mean 's16le'\? \(allowed: f32le, s16le\)"):
        PcmDecoder("s24le")


def pumped_bytes(stream, data: bytes, sizes: list[int], sample_format: str, block: int = 320) -> tuple[bytes, int]:
    """Return what comes out of a pipe into which bytes are written in pieces, and the number of bytes left out."""
    (source, feed), (drain, sink) = os.pipe(), os.pipe()

    def write() -> None:
        start = 0
        for number in range(len(data)):
            size = sizes[number % len(sizes)]
            write_all(feed, data[start : start + size])
            start += size
            if start >= len(data):
                break
        os.close(feed)

    received = []

    def read() -> None:
        while part := os.read(drain, 65536):
            received.append(part)

    threads = [threading.Thread(target=target) for target in (write, read)]
    for thread in threads:
        thread.start()
    result = pump(stream, source, sink, sample_format, block)
    os.close(sink)
    for thread in threads:
        thread.join()
    os.close(source)
    os.close(drain)
    return b"".join(received), result.num_dropped_bytes


@pytest.mark.parametrize(("num_channels", "rate"), [(1, 16000), (2, 16000), (1, 48000)])
def test_as_many_samples_come_out_as_go_in(live: tuple[Extractor, Voice], num_channels: int, rate: int):
    extractor, voice = live
    samples = noise(8001, num_channels)
    data = encode(samples, "f32le")
    sizes = [[1, 7, 4095, 333], [len(data)], [641]]
    outputs = [pumped_bytes(extractor.stream(voice, rate, num_channels), data, pieces, "f32le") for pieces in sizes]
    expected = extractor.live().extract((samples, rate), voice).waveform if rate == 16000 else None
    for output, num_dropped in outputs:
        assert len(output) == len(data) and num_dropped == 0
        result = PcmDecoder("f32le", num_channels).push(output)
        np.testing.assert_allclose(result, PcmDecoder("f32le", num_channels).push(outputs[0][0]), atol=1e-6)
        if expected is not None:
            np.testing.assert_allclose(result, expected, atol=1e-5)


def test_an_incomplete_frame_is_left_out(live: tuple[Extractor, Voice]):
    extractor, voice = live
    data = encode(noise(1000, 2), "s16le")
    output, num_dropped = pumped_bytes(extractor.stream(voice, 16000, 2), data + b"abc", [100], "s16le")
    assert (len(output), num_dropped) == (len(data), 3)
    assert pumped_bytes(extractor.stream(voice), b"", [1], "s16le") == (b"", 0)
    assert pumped_bytes(extractor.stream(voice), b"x", [1], "s16le") == (b"", 1)


def test_a_pipe_that_does_not_block_is_waited_for(live: tuple[Extractor, Voice]):
    extractor, voice = live
    source, feed = os.pipe()
    os.set_blocking(source, False)
    with Path(os.devnull).open("wb") as nowhere:
        threading.Timer(0.1, lambda: (os.write(feed, bytes(640)), os.close(feed))).start()
        assert pump(extractor.stream(voice), source, nowhere.fileno(), "s16le", 320).num_samples == 320
    os.close(source)


def test_a_backlog_is_skipped_in_whole_frames():
    source, feed = os.pipe()
    os.write(feed, bytes(range(11)))
    assert skip_backlog(source, most_bytes=7, frame_bytes=4) == 1
    assert os.read(source, 4) == bytes([4, 5, 6, 7])
    threading.Timer(0.1, lambda: os.write(feed, b"\x0b")).start()  # the rest of the frame comes later
    assert skip_backlog(source, most_bytes=400, frame_bytes=4) == 1
    os.close(feed)
    assert skip_backlog(source, most_bytes=400, frame_bytes=4) == 0
    os.close(source)
