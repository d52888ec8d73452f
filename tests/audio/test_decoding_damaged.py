"""Damaged recordings, a hundred of each format: samples, or one line that names the file, in little memory."""

from __future__ import annotations

import io
import struct
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wesep_py import audio
from wesep_py.audio.reading import decode_audio, probe_audio
from wesep_py.common.errors import AudioError

NOISE = np.random.default_rng(0).uniform(-0.4, 0.4, 12000).astype(np.float32)
FORMATS = {
    "WAV": "PCM_16", "RF64": "FLOAT", "W64": "PCM_24", "AIFF": "PCM_16", "AU": "FLOAT", "CAF": "PCM_16",
    "FLAC": "PCM_16", "OGG": "VORBIS", "MP3": "MPEG_LAYER_III", "NIST": "PCM_16",
}  # fmt: skip
SIZES = [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


@cache
def _whole(container: str, subtype: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, NOISE, 16000, format=container, subtype=subtype)
    return 2 * buffer.getvalue() if container in ("OGG", "MP3") else buffer.getvalue()


@st.composite
def damage(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes that were cut, flipped, inserted, lost, said twice, or that claim other sizes."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        # Half of it in the header, where most is at stake.
        last = len(data) - 1
        place = draw(st.integers(0, min(last, 100)) | st.integers(0, last))
        match draw(st.sampled_from(["cut", "flip", "insert", "lose", "repeat", "size32", "size64"])):
            case "cut":
                data = data[: max(1, place)]
            case "flip":
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "insert":
                data[place:place] = draw(st.binary(min_size=1, max_size=40))
            case "lose":
                del data[place : place + draw(st.sampled_from([1, 4, 700]))]
                data = data or bytearray(1)
            case "repeat":
                data += data[place:]
            case "size32":
                data[place : place + 4] = struct.pack(draw(st.sampled_from("<>")) + "I", draw(st.sampled_from(SIZES)))
            case "size64":
                data[place : place + 8] = struct.pack(">Q", draw(st.sampled_from([0, 2**62, 2**64 - 1])))
    return bytes(data)


def _is_audio_or_named(name: str, act) -> None:
    try:
        waveform = act()
    except AudioError as error:
        message = str(error)
        assert message.startswith(name) and "\n" not in message and len(message) < 500 + len(name)
    else:
        assert waveform.dtype == np.float32 and waveform.ndim == 2 and waveform.size
        assert np.isfinite(waveform).all()
        assert waveform.nbytes < 100e6  # the files have 100 kB


@pytest.mark.parametrize("container", FORMATS)
def test_damage_gives_samples_or_one_line(container: str):
    @settings(max_examples=100, derandomize=True, deadline=10_000, database=None)
    @given(damage(_whole(container, FORMATS[container])))
    def run(data: bytes) -> None:
        _is_audio_or_named("bad", lambda: decode_audio(data, "bad")[0])
        _is_audio_or_named("bad", lambda: np.zeros((1, min(1, *probe_audio(data, "bad"))), np.float32))

    run()


@pytest.mark.parametrize("container", ["FLAC", "WAV"])
def test_parts_of_damaged_files_give_samples_or_one_line(container: str, tmp_path: Path):
    path = tmp_path / "bad.audio"

    @settings(
        max_examples=100, derandomize=True, deadline=10_000, database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )  # fmt: skip
    @given(damage(_whole(container, FORMATS[container])), st.integers(0, 12000))
    def run(data: bytes, start: int) -> None:
        path.write_bytes(data)
        _is_audio_or_named(str(path), lambda: audio.read(path, start, start + 500)[0])
        _is_audio_or_named(str(path), lambda: np.concatenate(list(audio.read_blocks(path, 1000)), axis=1))

    run()
