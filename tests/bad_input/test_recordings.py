"""Invalid recordings, as mixture or enrollment, give one line and status 2; unusual ones give a result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

RNG = np.random.default_rng(0)
NOISE = (0.1 * RNG.standard_normal(24000)).astype(np.float32)


@pytest.fixture
def good(tiny_speech: Path) -> Path:
    return tiny_speech / "anna" / "anna-0.wav"


@pytest.fixture
def extract(wesep, tiny_model: Path, tmp_path: Path) -> Callable:
    """Extract with the tiny model to `out.wav`."""

    def run(mixture: Path, enrollment: Path, *options: str):
        common = ["--model", tiny_model, "--device", "cpu", *options]
        return wesep("extract", mixture, "--enroll", enrollment, "-o", tmp_path / "out.wav", *common)

    return run


def missing(path: Path) -> None:
    assert not path.exists()


def empty(path: Path) -> None:
    path.touch()


def text(path: Path) -> None:
    path.write_text("This is a shopping list, not a recording.\n" * 50)


def truncated(path: Path) -> None:
    soundfile.write(path, NOISE, 16000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncated_in_its_header(path: Path) -> None:
    soundfile.write(path, NOISE, 16000)
    path.write_bytes(path.read_bytes()[:20])


def zero_length(path: Path) -> None:
    soundfile.write(path, NOISE[:0], 16000)


def not_a_number(path: Path) -> None:
    samples = NOISE.copy()
    samples[1234] = np.nan
    soundfile.write(path, samples, 16000, subtype="FLOAT")


def folder(path: Path) -> None:
    path.mkdir()


UNREADABLE = {
    missing: "no such file",
    empty: "is an empty file; get a whole copy of it, or leave it out",
    text: "not audio",
    truncated_in_its_header: "bad.wav",
    zero_length: "holds no samples; get a whole copy of it, or leave it out",
    not_a_number: "not finite",
    folder: "holds no recordings",
}


@pytest.mark.parametrize(("make", "reason"), UNREADABLE.items(), ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize("role", ["mixture", "enrollment"])
def test_an_unreadable_recording_is_refused(extract, good: Path, tmp_path: Path, make, reason: str, role: str):
    bad = tmp_path / "bad.wav"
    make(bad)
    ran = extract(bad, good) if role == "mixture" else extract(good, bad)
    assert ran.status == 2, ran
    assert str(bad) in ran.message and reason in ran.message
    assert ran.out == ""
    assert not (tmp_path / "out.wav").exists()


@pytest.mark.parametrize("role", ["mixture", "enrollment"])
def test_a_recording_that_ends_early_gives_a_warning(extract, good: Path, tmp_path: Path, role: str, caplog):
    bad = tmp_path / "bad.wav"
    truncated(bad)
    mixture, enrollment = (bad, good) if role == "mixture" else (good, bad)
    refused = extract(mixture, enrollment, "--strict")
    assert refused.status == 2 and f"{bad}: is cut short" in refused.message, refused
    assert not (tmp_path / "out.wav").exists()
    ran = extract(mixture, enrollment)
    assert ran.status == 0, ran
    (warning,) = [message for message in caplog.messages if "cut short" in message]
    assert warning.startswith(f"{bad}: is cut short") and "0.751 s of 1.500 s is missing" in warning
    if role == "mixture":
        assert soundfile.info(tmp_path / "out.wav").frames == 11989


def empty_array(path: Path) -> None:
    path.touch()


def half_an_array(path: Path) -> None:
    np.save(path, np.ones(192, np.float32))
    path.write_bytes(path.read_bytes()[:400])


def array_of_a_terabyte(path: Path) -> None:
    np.save(path, np.ones(192, np.float32))
    path.write_bytes(path.read_bytes().replace(b"(192,)", b"(9" + b"9" * 11 + b",)").replace(b" " * 11 + b"\n", b"\n"))


@pytest.mark.parametrize("make", [empty_array, half_an_array, array_of_a_terabyte, text], ids=lambda m: m.__name__)
def test_an_unreadable_embedding_is_refused(extract, good: Path, tmp_path: Path, make):
    make(tmp_path / "bad.npy")
    ran = extract(good, tmp_path / "bad.npy")
    assert ran.status == 2 and "bad.npy: is no array of numbers" in ran.message, ran


def test_a_silent_enrollment_is_refused(extract, good: Path, tmp_path: Path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    ran = extract(good, tmp_path / "silent.wav")
    assert ran.status == 2 and "silent.wav: is silent" in ran.message


def test_a_silent_mixture_gives_silence(extract, good: Path, tmp_path: Path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    assert extract(tmp_path / "silent.wav", good).status == 0
    result, _ = soundfile.read(tmp_path / "out.wav")
    assert len(result) == 16000 and not result.any()


def test_an_enrollment_that_is_too_short_is_refused(extract, good: Path, tmp_path: Path):
    soundfile.write(tmp_path / "short.wav", NOISE[:400], 16000)
    ran = extract(good, tmp_path / "short.wav")
    assert ran.status == 2 and "0.025 s" in ran.message and "at least 0.1 s" in ran.message


@pytest.mark.parametrize("num_samples", [1, 100, 511])
def test_a_mixture_shorter_than_a_window_is_extracted(extract, good: Path, tmp_path: Path, num_samples: int):
    soundfile.write(tmp_path / "short.wav", NOISE[:num_samples], 16000)
    assert extract(tmp_path / "short.wav", good).status == 0
    assert soundfile.info(tmp_path / "out.wav").frames == num_samples


def test_an_enrollment_of_the_minimum_length_is_accepted(extract, good: Path, tmp_path: Path):
    soundfile.write(tmp_path / "short.wav", NOISE[:800], 8000)
    assert extract(good, tmp_path / "short.wav").status == 0


def clipped(path: Path) -> None:
    soundfile.write(path, np.clip(NOISE * 30, -1, 1), 16000)


def stereo(path: Path) -> None:
    soundfile.write(path, np.stack([NOISE, -NOISE], axis=1), 16000)


def eight_bit(path: Path) -> None:
    soundfile.write(path, NOISE, 16000, subtype="PCM_U8")


def eight_khz(path: Path) -> None:
    soundfile.write(path, NOISE, 8000)


def forty_eight_khz(path: Path) -> None:
    soundfile.write(path, NOISE, 48000)


def louder_than_full_scale(path: Path) -> None:
    soundfile.write(path, 20 * NOISE, 16000, subtype="FLOAT")


@pytest.mark.parametrize(
    "make", [clipped, stereo, eight_bit, eight_khz, forty_eight_khz, louder_than_full_scale], ids=lambda m: m.__name__
)
@pytest.mark.parametrize("role", ["mixture", "enrollment"])
def test_an_unusual_recording_is_extracted(extract, good: Path, tmp_path: Path, make, role: str):
    odd = tmp_path / "odd.wav"
    make(odd)
    ran = extract(odd, good) if role == "mixture" else extract(good, odd)
    assert ran.status == 0, ran.err
    source, result = soundfile.info(odd if role == "mixture" else good), soundfile.info(tmp_path / "out.wav")
    assert (result.samplerate, result.channels, result.frames, result.subtype) == (
        *(source.samplerate, source.channels, source.frames, source.subtype),
    )
    result, _ = soundfile.read(tmp_path / "out.wav")
    assert np.isfinite(result).all() and result.any()


def test_a_folder_without_audio_is_refused(extract, good: Path, tmp_path: Path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("nothing to hear")
    ran = extract(tmp_path / "folder", good)
    assert ran.status == 2 and "folder: holds no recordings" in ran.message
