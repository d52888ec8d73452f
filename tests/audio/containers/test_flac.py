"""FLAC: the number of samples is that of its frames, whatever its header says."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import pytest
import soundfile

from wesep_py import audio
from wesep_py.audio.reading import decode_audio, probe_audio
from wesep_py.common.errors import AudioError

NOISE = np.random.default_rng(0).uniform(-0.4, 0.4, 48000).astype(np.float32)


@cache
def _encoded(num_samples: int = 32000) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, NOISE[:num_samples], 16000, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def _claiming(data: bytes, num_samples: int) -> bytes:
    changed = bytearray(data)
    changed[21] = changed[21] & 0xF0 | num_samples >> 32
    changed[22:26] = (num_samples & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(changed)


def test_a_file_of_unknown_length_is_read(tmp_path, caplog):
    path = tmp_path / "a.flac"
    path.write_bytes(_claiming(_encoded(), 0))
    assert audio.info(path).duration_s == 2
    np.testing.assert_array_equal(audio.read(path)[0], decode_audio(_encoded(), "whole")[0])
    np.testing.assert_array_equal(audio.read(path, 30000)[0], decode_audio(_encoded(), "whole")[0][:, 30000:])
    assert sum(block.shape[1] for block in audio.read_blocks(path, 1000)) == 32000
    assert caplog.messages == []


@pytest.mark.parametrize(("claimed", "word"), [(2**36 - 1, "is cut short"), (40000, "is cut short"), (100, "all are")])
def test_a_wrong_length_is_corrected(claimed: int, word: str, caplog):
    data = _claiming(_encoded(), claimed)
    assert probe_audio(data, "wrong") == (16000, 32000)
    np.testing.assert_array_equal(decode_audio(data, "wrong")[0], decode_audio(_encoded(), "whole")[0])
    (message,) = caplog.messages
    assert word in message and str(claimed) in message


@pytest.mark.parametrize("missing", [1, 3, 500, 30000])
def test_a_cut_file_gives_its_complete_frames(missing: int, caplog):
    cut = _encoded()[:-missing]
    decoded = decode_audio(cut, "cut")[0]
    assert probe_audio(cut, "cut")[1] == decoded.shape[1] > 32000 - missing - 8192
    np.testing.assert_array_equal(decoded, decode_audio(_encoded(), "whole")[0][:, : decoded.shape[1]])
    (message,) = caplog.messages
    assert message.startswith("cut: is cut short: its header promises 32000 samples")


def test_a_cut_file_of_unknown_length_is_read(caplog):
    assert probe_audio(_claiming(_encoded(), 0)[:-500], "cut")[1] == 28672
    (message,) = caplog.messages
    assert message.startswith("cut: is cut short: of its last frame")


def test_damage_is_an_error_that_names_the_file():
    data = bytearray(_encoded())
    data[len(data) // 2 : len(data) // 2 + 300] = bytes(300)
    with pytest.raises(AudioError, match=r"^bad: is damaged or cut short"):
        decode_audio(bytes(data), "bad")


@pytest.mark.parametrize("num_samples", [48000, 20000])
def test_all_concatenated_recordings_are_read(num_samples: int):
    joined = _encoded() + _encoded(num_samples)
    expected = np.concatenate([decode_audio(_encoded(), "1")[0], decode_audio(_encoded(num_samples), "2")[0]], axis=1)
    np.testing.assert_array_equal(decode_audio(joined, "joined")[0], expected)


@pytest.mark.parametrize("tail", [bytes(3000), b"TAG" + bytes(125)])
def test_data_after_the_last_frame_is_not_read(tail: bytes):
    np.testing.assert_array_equal(decode_audio(_encoded() + tail, "tail")[0], decode_audio(_encoded(), "whole")[0])
