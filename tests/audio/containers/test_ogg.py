"""Ogg: concatenated recordings, and incomplete, lost or damaged pages."""

from __future__ import annotations

import io
import struct
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py import audio
from wesep_py.audio import decoding
from wesep_py.audio.containers import ogg
from wesep_py.audio.containers.ogg import page_checksum
from wesep_py.audio.reading import decode_audio, probe_audio

NOISE = np.random.default_rng(0).uniform(-0.4, 0.4, 96000).astype(np.float32)
SUBTYPES = ["VORBIS", "OPUS"]


@cache
def _encoded(subtype: str, num_samples: int = 32000, rate: int = 16000, channels: int = 1, seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    samples = np.stack([np.roll(NOISE, seed)[:num_samples]] * channels, axis=1)
    soundfile.write(buffer, samples, rate, format="OGG", subtype=subtype)
    return buffer.getvalue()


def _pages(data: bytes) -> list[bytes]:
    pages, position = [], 0
    while position < len(data):
        segments = data[position + 26]
        size = 27 + segments + sum(data[position + 27 : position + 27 + segments])
        pages.append(data[position : position + size])
        position += size
    return pages


@pytest.mark.parametrize("subtype", SUBTYPES)
def test_page_checksums_agree_with_libsndfile(subtype: str):
    for page in _pages(_encoded(subtype)):
        assert page_checksum(page[:22] + bytes(4) + page[26:]) == struct.unpack("<I", page[22:26])[0]


@pytest.mark.parametrize("subtype", SUBTYPES)
def test_all_concatenated_recordings_are_read(subtype: str, tmp_path: Path, caplog):
    links = [_encoded(subtype), _encoded(subtype, 96000, seed=7), _encoded(subtype, 5000, seed=9)]
    path = tmp_path / "chained.ogg"
    path.write_bytes(b"".join(links))
    expected = np.concatenate([decode_audio(link, "link")[0] for link in links], axis=1)
    assert audio.info(path).num_samples == expected.shape[1] == 133000
    np.testing.assert_array_equal(audio.read(path)[0], expected)
    np.testing.assert_array_equal(audio.read(path, 31000, 34000)[0], expected[:, 31000:34000])
    blocks = list(audio.read_blocks(path, 10007))
    assert {block.shape[1] for block in blocks[:-1]} == {10007}
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), expected)
    assert caplog.messages == []


def test_links_are_converted_to_the_format_of_the_first(caplog):
    joined = _encoded("VORBIS") + _encoded("VORBIS", 8000, 8000) + _encoded("OPUS", 16000, channels=2)
    waveform, rate = decode_audio(joined, "mixed")
    assert (waveform.shape, rate) == ((1, 32000 + 16000 + 16000), 16000)
    again = audio.resample(decode_audio(_encoded("VORBIS", 8000, 8000), "slow")[0], 8000, 16000)
    np.testing.assert_allclose(waveform[:, 32000:48000], again, atol=1e-6)
    both = decode_audio(_encoded("OPUS", 16000, channels=2), "last")[0]
    np.testing.assert_allclose(waveform[:, 48000:], both.mean(axis=0, keepdims=True), atol=1e-6)
    (message,) = caplog.messages
    assert "mixed: holds recordings of" in message and "8000 Hz with 1 channels" in message


@pytest.mark.parametrize("subtype", SUBTYPES)
@pytest.mark.parametrize("missing", [1, 100, 2000, 9000])
def test_a_cut_page_gives_its_complete_packets(subtype: str, missing: int, caplog):
    whole = _encoded(subtype, 96000)
    decoded, expected = decode_audio(whole[:-missing], "cut")[0], decode_audio(whole, "whole")[0]
    assert probe_audio(whole[:-missing], "cut") == (16000, decoded.shape[1])
    assert 96000 * (1 - missing / len(whole)) - 8000 < decoded.shape[1] <= 96000
    np.testing.assert_array_equal(decoded, expected[:, : decoded.shape[1]])
    (message,) = caplog.messages
    assert message.startswith("cut: is cut short: of its last page")


@pytest.mark.parametrize("subtype", SUBTYPES)
def test_a_long_cut_file_is_not_decoded_for_its_length(subtype: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ogg, "_MOST_COUNTED_PACKETS", 50)
    monkeypatch.setattr(decoding, "_count_samples", None)
    cut = _encoded(subtype, 96000)[:-2000]
    assert probe_audio(cut, "cut") == (16000, decode_audio(cut, "cut")[0].shape[1])


@pytest.mark.parametrize("subtype", SUBTYPES)
def test_a_missing_end_mark_is_reported(subtype: str, caplog):
    pages = _pages(_encoded(subtype, 96000))
    decoded = decode_audio(b"".join(pages[:-1]), "cut")[0]
    np.testing.assert_array_equal(decoded, decode_audio(_encoded(subtype, 96000), "whole")[0][:, : decoded.shape[1]])
    (message,) = caplog.messages
    assert message.startswith("cut: is cut short: its end is not marked")


@pytest.mark.parametrize("junk", [bytes(5000), b"OggS" * 1000, b"OggS\0\0" * 1000])
def test_bytes_between_pages_are_skipped(junk: bytes, caplog):
    pages = _pages(_encoded("VORBIS"))
    data = b"".join(pages[:4]) + junk + b"".join(pages[4:]) + junk
    np.testing.assert_array_equal(decode_audio(data, "junk")[0], decode_audio(_encoded("VORBIS"), "whole")[0])
    (message,) = caplog.messages
    assert message.startswith(f"junk: holds {2 * len(junk)} bytes that are no Ogg pages")


def test_a_tag_at_the_end_is_not_a_fault(caplog):
    assert probe_audio(_encoded("VORBIS") + b"TAG" + bytes(125), "tagged") == (16000, 32000)
    assert caplog.messages == []


def test_lost_pages_are_reported(caplog):
    pages = _pages(_encoded("VORBIS", 96000))
    decode_audio(b"".join(pages[:4] + pages[6:]), "holes")
    assert caplog.messages[0].startswith("holes: is damaged: 2 of its pages are missing")


def test_a_damaged_page_is_reported(caplog):
    pages = _pages(_encoded("VORBIS", 96000))
    damaged = pages[5][:200] + b"\0\0\0\0" + pages[5][204:]
    decoded = decode_audio(b"".join([*pages[:5], damaged, *pages[6:]]), "damaged")[0]
    assert 60000 < decoded.shape[1] < 96000
    assert caplog.messages[0].startswith("damaged: is damaged: 1 of its pages are missing or damaged")


def test_an_impossible_length_is_ignored():
    *others, last = _pages(_encoded("VORBIS"))
    forged = bytearray(last)
    forged[6:14] = struct.pack("<q", 2**60)
    forged[22:26] = bytes(4)
    forged[22:26] = struct.pack("<I", page_checksum(forged))
    rate, num_samples = probe_audio(b"".join([*others, forged]), "forged")
    assert rate == 16000 and 32000 <= num_samples < 64000
