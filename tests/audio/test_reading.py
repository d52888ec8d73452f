"""Reading: every format, rate and channel count gives its samples; every bad file gives one clear line."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py import audio
from wesep_py.audio.decoding import strict_reading
from wesep_py.common.errors import AudioError, InputError


def _noise(num_samples: int, num_channels: int = 1, seed: int = 0) -> np.ndarray:
    """[channels, samples], float32, below full scale."""
    return np.random.default_rng(seed).uniform(-0.9, 0.9, (num_channels, num_samples)).astype(np.float32)


def _tone(num_samples: int, sample_rate: int) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(num_samples) / sample_rate)).astype(np.float32)


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    path = tmp_path / "noise.wav"
    soundfile.write(path, _noise(4000, 2).T, 16000, subtype="FLOAT")
    return path


@pytest.mark.parametrize("sample_rate", [8000, 11025, 16000, 44100, 48000, 96000])
@pytest.mark.parametrize("num_channels", [1, 2, 5])
def test_a_float_wav_is_read_exactly(tmp_path: Path, sample_rate: int, num_channels: int):
    path, expected = tmp_path / "a.wav", _noise(1000, num_channels)
    soundfile.write(path, expected.T, sample_rate, subtype="FLOAT")
    waveform, rate = audio.read(path)
    assert rate == sample_rate
    assert waveform.dtype == np.float32 and waveform.flags.c_contiguous
    np.testing.assert_array_equal(waveform, expected)


@pytest.mark.parametrize(
    ("suffix", "subtype", "steps"),
    [("wav", "PCM_U8", 2**7), ("wav", "PCM_16", 2**15), ("wav", "PCM_24", 2**23), ("flac", "PCM_16", 2**15)],
)
def test_integer_formats_are_exact_to_one_step(tmp_path: Path, suffix: str, subtype: str, steps: int):
    path, expected = tmp_path / f"a.{suffix}", _noise(1000)
    soundfile.write(path, expected.T, 16000, subtype=subtype)
    waveform, _ = audio.read(path)
    assert np.abs(waveform - expected).max() <= 1.5 / steps


@pytest.mark.parametrize(
    ("name", "format_", "subtype"),
    [("a.ogg", "OGG", "VORBIS"), ("a.opus", "OGG", "OPUS"), ("a.mp3", "MP3", "MPEG_LAYER_III")],
)
def test_a_part_of_a_lossy_file_equals_that_of_the_whole(tmp_path, name, format_, subtype):
    path = tmp_path / name
    soundfile.write(path, _tone(20000, 16000), 16000, format=format_, subtype=subtype)
    whole, _ = audio.read(path)
    assert whole.shape == (1, 20000)
    part, _ = audio.read(path, 7001, 9002)
    np.testing.assert_array_equal(part, whole[:, 7001:9002])


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_a_part_of_a_wav_equals_that_of_the_whole(tmp_path: Path, subtype: str):
    path = tmp_path / "a.wav"
    soundfile.write(path, _noise(5000, 2).T, 16000, subtype=subtype)
    whole, _ = audio.read(path)
    np.testing.assert_array_equal(audio.read(path, 1234, 4321)[0], whole[:, 1234:4321])
    np.testing.assert_array_equal(audio.read(path, 4990, 9999)[0], whole[:, 4990:])


@pytest.mark.parametrize("name", ["a.flac", "a.wav", "a.opus", "a.mp3", "a.ogg"])
@pytest.mark.parametrize("block_samples", [100, 1000, 3333, 50000])
def test_concatenated_blocks_equal_the_whole(tmp_path: Path, name: str, block_samples: int):
    path = tmp_path / name
    audio.write(path, 0.5 * _noise(10007, 2), 16000)
    whole, _ = audio.read(path)
    blocks = list(audio.read_blocks(path, block_samples))
    assert all(block.shape[1] == block_samples for block in blocks[:-1])
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), whole)


def test_reading_a_lossy_file_twice_gives_the_same(tmp_path: Path):
    for name in ("a.opus", "a.mp3", "a.ogg"):
        audio.write(tmp_path / name, 0.5 * _noise(30000), 48000)
        first, _ = audio.read(tmp_path / name)
        np.testing.assert_array_equal(audio.read(tmp_path / name)[0], first)


def test_info_agrees_with_the_header(wav: Path):
    about = audio.info(wav)
    assert about == audio.AudioInfo(16000, 2, 4000, 0.25, "WAV", "FLOAT")


def test_read_mono_reads_a_segment_of_a_channel(wav: Path):
    whole, _ = audio.read(wav)
    part = audio.read_mono(wav, 16000, start_s=0.1, duration_s=0.05, channel=1)
    np.testing.assert_array_equal(part, whole[1, 1600:2400])


def test_read_mono_resamples(tmp_path: Path):
    path = tmp_path / "a.wav"
    soundfile.write(path, _tone(48000, 48000), 48000, subtype="FLOAT")
    waveform = audio.read_mono(path, 16000)
    assert waveform.shape == (16000,)
    np.testing.assert_allclose(waveform[500:-500], _tone(16000, 16000)[500:-500], atol=1e-4)


def _fails(path: Path, *words: str) -> None:
    """Reading, whole, by block and by header (unless a decoder is needed), raises one line with these words."""
    for act in (audio.read, lambda p: audio.read_mono(p, 16000), lambda p: list(audio.read_blocks(p, 512))):
        with pytest.raises(AudioError) as caught:
            act(path)
        message = str(caught.value)
        assert "\n" not in message
        assert str(path) in message
        for word in words:
            assert word in message


def test_a_missing_file_is_refused(tmp_path: Path):
    _fails(tmp_path / "none.wav", "none.wav: no such file")


def test_an_impossible_name_is_refused(tmp_path: Path):
    _fails(tmp_path / ("a" * 300 + ".wav"), "cannot be read")


def test_a_name_with_a_nul_is_refused(tmp_path: Path):
    _fails(tmp_path / "a\0b.wav", "no such file")


def test_a_folder_is_refused(tmp_path: Path):
    _fails(tmp_path, "folder")


@pytest.mark.parametrize("suffix", ["wav", "mp3", "raw", "opus"])
def test_an_empty_file_is_refused(tmp_path: Path, suffix: str):
    path = tmp_path / f"a.{suffix}"
    path.touch()
    _fails(path, "empty")


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "raw"])
def test_a_renamed_text_file_is_refused(tmp_path: Path, suffix: str):
    path = tmp_path / f"a.{suffix}"
    path.write_text("This is not a recording.\n" * 40)
    _fails(path, "not audio", "wav, flac, ogg, opus")


@pytest.mark.parametrize("share", [0.3, 0.99])
def test_a_truncated_wav_is_read_with_a_warning(wav: Path, share: float, caplog):
    whole, expected = wav.read_bytes(), audio.read(wav)[0]
    data = whole.index(b"data") + 8
    wav.write_bytes(whole[: int(len(whole) * share)])
    there = int(len(whole) * share) - data
    assert audio.info(wav).num_samples == there // 8
    np.testing.assert_array_equal(audio.read(wav)[0], expected[:, : there // 8])
    np.testing.assert_array_equal(np.concatenate(list(audio.read_blocks(wav, 512)), axis=1), expected[:, : there // 8])
    (message,) = caplog.messages
    missing_s = (4000 * 8 - there) / 8 / 16000
    for word in (str(wav), "cut short", str(4000 * 2 * 4), str(there), f"{missing_s:.3f} s of 0.250 s is missing"):
        assert word in message
    with strict_reading():
        _fails(wav, "cut short", str(4000 * 2 * 4), str(there))
        with pytest.raises(AudioError, match="cut short"):
            audio.info(wav)


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.opus", "a.mp3"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_compressed_file_is_read(tmp_path: Path, name: str, share: float, caplog):
    path = tmp_path / name
    audio.write(path, 0.5 * _noise(64000), 16000)
    whole, expected = path.read_bytes(), audio.read(path)[0]
    path.write_bytes(whole[: int(len(whole) * share)])
    decoded, _ = audio.read(path)
    np.testing.assert_array_equal(decoded, expected[:, : decoded.shape[1]])
    assert audio.info(path).num_samples == decoded.shape[1] > 0.8 * share * 64000
    (message,) = caplog.messages
    assert str(path) in message and "cut short" in message
    with strict_reading():
        _fails(path, "cut short")


def test_a_wav_without_a_length_is_read(wav: Path):
    whole, expected = bytearray(wav.read_bytes()), audio.read(wav)[0]
    place = whole.index(b"data") + 4
    whole[place : place + 4] = struct.pack("<I", 0xFFFFFFFF)
    whole[4:8] = struct.pack("<I", 0xFFFFFFFF)
    wav.write_bytes(whole)
    np.testing.assert_array_equal(audio.read(wav)[0], expected)


def test_a_file_without_samples_is_refused(tmp_path: Path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros((0, 1)), 16000)
    _fails(path, "no samples")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_refused(tmp_path: Path, value: float):
    path, waveform = tmp_path / "a.wav", _noise(3000, 2)
    waveform[1, 2000] = value
    soundfile.write(path, waveform.T, 16000, subtype="FLOAT")
    _fails(path, "not finite", "1 of its samples")
    # A part that is sound can be used.
    np.testing.assert_array_equal(audio.read(path, 0, 2000)[0], waveform[:, :2000])


@pytest.mark.parametrize("value", [1e30, -3e38])
def test_samples_far_above_full_scale_are_refused(tmp_path: Path, value: float):
    path, waveform = tmp_path / "a.wav", _noise(300)
    waveform[0, 200] = value
    soundfile.write(path, waveform.T, 16000, subtype="FLOAT")
    _fails(path, "has samples up to", f"{abs(value):.3g}", "full scale is 1")


def test_integers_stored_as_floats_are_read(tmp_path: Path):
    path, waveform = tmp_path / "a.wav", 2.0**31 * _noise(300)
    soundfile.write(path, waveform.T, 16000, subtype="FLOAT")
    np.testing.assert_array_equal(audio.read(path)[0], waveform)


@pytest.mark.parametrize("sample_rate", [1, 999, 2_000_000])
def test_impossible_sample_rates_are_refused(tmp_path: Path, sample_rate: int):
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), sample_rate)
    _fails(tmp_path / "a.wav", f"sample rate of {sample_rate} Hz", "1000 to 1536000 Hz")


@pytest.mark.skipif(os.name == "nt", reason="names are bytes on POSIX")
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3"])
def test_a_file_whose_name_is_not_utf8_is_read(tmp_path: Path, suffix: str):
    plain, path = tmp_path / f"a{suffix}", Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9" + suffix.encode()))
    audio.write(plain, 0.5 * _noise(8000), 16000)
    plain.rename(path)
    assert audio.info(path).num_samples == audio.read(path)[0].shape[1] == 8000
    assert sum(block.shape[1] for block in audio.read_blocks(path, 1000)) == 8000


@pytest.mark.parametrize(("start", "stop"), [(4000, None), (-1, 10), (20, 20), (30, 10), (9000, 9100)])
def test_impossible_ranges_are_refused(wav: Path, start: int, stop: int | None):
    with pytest.raises(AudioError, match="it has 4000"):
        audio.read(wav, start, stop)


def test_a_missing_channel_is_refused(wav: Path):
    with pytest.raises(AudioError, match="channel 2 was requested; it has 2"):
        audio.read_mono(wav, 16000, channel=2)


def test_empty_blocks_are_refused(wav: Path):
    with pytest.raises(InputError, match="block_samples"):
        next(audio.read_blocks(wav, 0))


def test_shared_recordings_decode_to_their_listed_duration(shared_data: Path):
    rows = (shared_data / "speech" / "dev.csv").read_text().splitlines()
    columns = rows[0].split(",")
    for row in rows[1:20]:
        values = dict(zip(columns, row.split(","), strict=False))
        path = shared_data / values["path"]
        waveform, sample_rate = audio.read(path)
        assert waveform.shape[1] / sample_rate == pytest.approx(float(values["duration_s"]), abs=0.01)
        assert audio.info(path).num_samples == waveform.shape[1]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX")
def test_a_pipe_is_refused(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(AudioError, match="pipe: is a pipe or a device"):
        audio.info(tmp_path / "pipe")
