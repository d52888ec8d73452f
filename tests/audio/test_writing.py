"""Writing: samples are read back, nothing is clipped silently, and files appear whole or not at all."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from wesep_py import audio
from wesep_py.common.errors import AudioError, InputError, OutputExistsError, WesepError


def _noise(num_samples: int, num_channels: int = 1) -> np.ndarray:
    return np.random.default_rng(1).uniform(-0.9, 0.9, (num_channels, num_samples)).astype(np.float32)


def _left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("name", "subtype", "expected"),
    [
        ("a.wav", None, ("WAV", "FLOAT")),
        ("a.WAV", "pcm_16", ("WAV", "PCM_16")),
        ("a.flac", None, ("FLAC", "PCM_24")),
        ("a.ogg", None, ("OGG", "VORBIS")),
        ("a.ogg", "OPUS", ("OGG", "OPUS")),
        ("a.opus", None, ("OGG", "OPUS")),
        ("a.mp3", None, ("MP3", "MPEG_LAYER_III")),
        ("a.w64", None, ("W64", "FLOAT")),
        ("a.w64", "PCM_16", ("W64", "PCM_16")),
        ("a.rf64", "PCM_24", ("RF64", "PCM_24")),
    ],
)
def test_format_follows_the_suffix(tmp_path: Path, name: str, subtype: str | None, expected: tuple[str, str]):
    audio.write(tmp_path / name, _noise(8000, 2), 16000, subtype)
    about = audio.info(tmp_path / name)
    assert (about.format, about.subtype) == expected
    assert (about.sample_rate, about.num_channels, about.num_samples) == (16000, 2, 8000)
    assert _left_behind(tmp_path) == [name]


def test_one_axis_is_one_channel(tmp_path: Path):
    audio.write(tmp_path / "a.wav", _noise(100)[0], 8000)
    waveform, _ = audio.read(tmp_path / "a.wav")
    np.testing.assert_array_equal(waveform, _noise(100))


@pytest.mark.parametrize(
    ("name", "subtype", "bits"),
    [
        ("a.wav", "PCM_U8", 8), ("a.wav", "PCM_16", 16), ("a.wav", "PCM_24", 24), ("a.wav", "PCM_32", 32),
        ("a.flac", "PCM_S8", 8), ("a.flac", "PCM_16", 16), ("a.flac", "PCM_24", 24),
    ],
)  # fmt: skip
def test_integer_samples_are_rounded_and_read_back_exactly(tmp_path: Path, name: str, subtype: str, bits: int):
    first, second = tmp_path / f"1{name}", tmp_path / f"2{name}"
    samples = _noise(4000, 2)
    audio.write(first, samples, 16000, subtype)
    read_once, _ = audio.read(first)
    # Half a step, and for 24 and 32 bits the rounding of float32 itself.
    assert np.abs(read_once - samples).max() <= 0.5 / 2 ** (bits - 1) + 2.0**-25
    audio.write(second, read_once, 16000, subtype)
    np.testing.assert_array_equal(audio.read(second)[0], read_once)


def test_full_scale_is_exact_to_one_step(tmp_path: Path):
    audio.write(tmp_path / "a.wav", np.array([1.0, -1.0], np.float32), 16000, "PCM_16")
    np.testing.assert_array_equal(audio.read(tmp_path / "a.wav")[0], [[32767 / 32768, -1.0]])


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.opus", "a.mp3"])
def test_clipping_is_an_error_or_avoided_by_scaling(tmp_path: Path, name: str):
    loud = 2.7 * np.sin(2 * np.pi * 440 * np.arange(8000) / 16000).astype(np.float32)[None]
    with pytest.raises(AudioError, match=r"peak of 2\.7 would be clipped"):
        audio.write(tmp_path / name, loud, 16000)
    assert _left_behind(tmp_path) == []
    audio.write(tmp_path / name, loud, 16000, clip="scale")
    scaled, _ = audio.read(tmp_path / name)
    if name == "a.flac":
        np.testing.assert_allclose(scaled, loud / np.abs(loud).max(), atol=1e-6)
    assert audio.rms(scaled[0]) == pytest.approx(np.sqrt(0.5), rel=0.05)


def test_scaling_leaves_quiet_waveforms_unchanged(tmp_path: Path):
    audio.write(tmp_path / "a.wav", 0.5 * _noise(100), 16000, "PCM_32", clip="scale")
    np.testing.assert_allclose(audio.read(tmp_path / "a.wav")[0], 0.5 * _noise(100), atol=1e-7)


def test_float_wav_holds_more_than_full_scale(tmp_path: Path):
    audio.write(tmp_path / "a.wav", 5 * _noise(100), 16000)
    np.testing.assert_array_equal(audio.read(tmp_path / "a.wav")[0], 5 * _noise(100))


@pytest.mark.parametrize(
    ("name", "sample_rate", "subtype", "message"),
    [
        ("a.m4b", 16000, None, "not a format to write"),
        ("a", 16000, None, r"a: has no suffix; name one of \.flac, \.mp3"),
        ("a.flac", 16000, "FLOAT", "no subtype FLOAT"),
        ("a.wav", 16000, "PCM16", "did you mean 'PCM_16'"),
        ("a.opus", 44100, None, "44100 Hz; OPUS allows 8000"),
        ("a.mp3", 96000, None, "MPEG_LAYER_III allows"),
        ("a.wav", 0, None, "positive"),
        ("a.flac", 700000, None, "at most 655350 Hz"),
    ],
)
def test_unsupported_formats_are_refused(
    tmp_path: Path, name: str, sample_rate: int, subtype: str | None, message: str
):
    with pytest.raises(AudioError, match=message):
        audio.write(tmp_path / name, _noise(100), sample_rate, subtype)
    assert _left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (np.full(10, np.nan, np.float32), "not finite"),
        (np.zeros((1, 2, 3), np.float32), "shape"),
        (np.zeros(10, np.int16), "floating point"),
        (np.zeros((1, 0), np.float32), "no samples"),
        (np.zeros((0, 10), np.float32), "0 channels"),
    ],
)
def test_arrays_that_are_not_waveforms_are_refused(tmp_path: Path, waveform: np.ndarray, message: str):
    with pytest.raises(AudioError, match=message):
        audio.write(tmp_path / "a.wav", waveform, 16000)
    assert _left_behind(tmp_path) == []


def test_too_many_channels_are_refused(tmp_path: Path):
    with pytest.raises(AudioError, match="cannot be written as FLAC PCM_24, 9 channels"):
        audio.write(tmp_path / "a.flac", _noise(100, 9), 16000)
    assert _left_behind(tmp_path) == []


def test_an_existing_file_is_kept_unless_overwritten(tmp_path: Path):
    path = tmp_path / "a.wav"
    audio.write(path, _noise(100), 16000)
    with pytest.raises(OutputExistsError):
        audio.write(path, _noise(200), 16000)
    assert audio.info(path).num_samples == 100
    audio.write(path, _noise(200), 16000, overwrite=True)
    assert audio.info(path).num_samples == 200


def test_a_missing_folder_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="does not exist"):
        audio.write(tmp_path / "none" / "a.wav", _noise(100), 16000)


def test_writing_by_block_gives_the_same_file(tmp_path: Path):
    waveform = _noise(10007, 2)
    audio.write(tmp_path / "whole.flac", waveform, 16000)
    with audio.AudioWriter(tmp_path / "blocks.flac", 16000, 2) as writer:
        for start in range(0, 10007, 1000):
            writer.write(waveform[:, start : start + 1000])
            assert not (tmp_path / "blocks.flac").exists()
    assert writer.num_samples == 10007
    np.testing.assert_array_equal(audio.read(tmp_path / "blocks.flac")[0], audio.read(tmp_path / "whole.flac")[0])


@pytest.mark.parametrize("interruption", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_file_never_appears(tmp_path: Path, interruption: type[BaseException]):
    path = tmp_path / "a.wav"
    audio.write(path, _noise(100), 16000)
    before = path.read_bytes()
    with pytest.raises(interruption), audio.AudioWriter(path, 16000, overwrite=True) as writer:
        writer.write(_noise(500))
        raise interruption
    assert path.read_bytes() == before
    assert _left_behind(tmp_path) == ["a.wav"]


def test_a_block_with_other_channels_is_refused(tmp_path: Path):
    with pytest.raises(AudioError, match="3 channels"), audio.AudioWriter(tmp_path / "a.wav", 16000, 2) as writer:
        writer.write(_noise(10, 3))
    assert _left_behind(tmp_path) == []


def test_a_writer_works_only_inside_its_block(tmp_path: Path):
    writer = audio.AudioWriter(tmp_path / "a.wav", 16000)
    with pytest.raises(ValueError, match="with"):
        writer.write(_noise(10))


def test_a_wav_above_four_gigabytes_is_refused(tmp_path: Path):
    with pytest.raises(AudioError, match="at most 4 GiB"), audio.AudioWriter(tmp_path / "a.wav", 48000) as writer:
        writer.write(_noise(10))
        writer.num_samples = 2**30  # as if so much had been written
        writer.write(_noise(10))


@pytest.mark.parametrize(("subtype", "width"), [("PCM_16", 2), ("FLOAT", 4), ("DOUBLE", 8), (None, 4), ("ULAW", 1)])
def test_a_long_wav_becomes_rf64_with_the_same_samples(tmp_path: Path, subtype: str | None, width: int):
    most = (2**32 - 4096) // 2 // width
    assert audio.AudioWriter(tmp_path / "a.wav", 16000, 2, subtype, expected_samples=most).format == "WAV"
    writer = audio.AudioWriter(tmp_path / "a.wav", 16000, 2, subtype, expected_samples=most + 1)
    assert (writer.format, writer.subtype) == ("RF64", subtype or "FLOAT")
    with writer:
        writer.write(0.5 * _noise(1000, 2))
    about = audio.info(tmp_path / "a.wav")
    assert (about.format, about.subtype, about.num_samples) == ("RF64", subtype or "FLOAT", 1000)


@pytest.mark.parametrize(
    ("name", "channels", "subtype", "samples", "message"),
    [
        ("a.wav", 1, "IMA_ADPCM", 2**33, "holds at most 4 GiB; write .flac"),
        ("a.flac", 9, None, 10, "at most 8 channels"),
        ("a.mp3", 3, None, 10, "at most 2 channels"),
        ("a.flac", 1, None, 2**36, "a flac file holds 68719476735"),
    ],
)
def test_limits_of_a_container_are_checked_first(tmp_path: Path, name, channels, subtype, samples, message):
    with pytest.raises(AudioError, match=message):
        audio.AudioWriter(tmp_path / name, 16000, channels, subtype, expected_samples=samples)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.opus", "a.mp3", "a.w64", "a.rf64"])
@pytest.mark.parametrize("missing_bytes", [1, 1000, 4000])
def test_a_full_disk_leaves_no_file(tmp_path: Path, name: str, missing_bytes: int):
    # Also where the last bytes only do not fit, which libsndfile keeps to itself for most formats.
    path = tmp_path / name
    code = f"""
        import os, resource
        import numpy as np
        from wesep_py import audio
        from wesep_py.common.errors import WesepError
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, 48000).astype(np.float32)
        audio.write({str(path)!r}, noise, 16000)
        size = os.path.getsize({str(path)!r})
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - {missing_bytes}, resource.RLIM_INFINITY))
        try:
            audio.write({str(path)!r}, noise, 16000, overwrite=True)
        except WesepError as error:
            print(error.exit_status, error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.startswith(f"1 {path}: writing failed (File too large)")
    assert done.stdout.count("\n") == 1 and done.stderr == ""
    assert _left_behind(tmp_path) == [name]
    assert audio.read(path)[0].shape == (1, 48000)  # what was there before


def test_a_full_disk_is_not_an_input_error():
    assert not issubclass(WesepError, InputError)
