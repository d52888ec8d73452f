"""The result has the sample rate, channels, length and sample format of the input, whatever those of the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import wesep_py
from tests.inference.networks import BandNetwork, tone
from wesep_py.inference import Extractor


@pytest.mark.parametrize("sample_rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000])
@pytest.mark.parametrize(("channels", "subtype"), [(1, "PCM_16"), (2, "PCM_24"), (6, "FLOAT"), (1, "PCM_U8")])
def test_rate_channels_and_format_are_those_of_the_input(
    tiny_model: Path, tmp_path: Path, sample_rate: int, channels: int, subtype: str
):
    extractor = wesep_py.load(tiny_model, device="cpu")
    assert extractor.sample_rate == 16000
    rng = np.random.default_rng(sample_rate + channels)
    mixture = 0.1 * rng.standard_normal((sample_rate // 2 + 7, channels))
    soundfile.write(tmp_path / "mixture.wav", mixture, sample_rate, subtype=subtype)
    soundfile.write(tmp_path / "alice.wav", mixture[:, 0], sample_rate)
    result = extractor.extract(tmp_path / "mixture.wav", extractor.enroll(tmp_path / "alice.wav"))
    result.save(tmp_path / "out.wav")
    expected, actual = soundfile.info(tmp_path / "mixture.wav"), soundfile.info(tmp_path / "out.wav")
    for attribute in ("samplerate", "channels", "frames", "subtype"):
        assert getattr(actual, attribute) == getattr(expected, attribute), attribute


@pytest.mark.parametrize("num_samples", [1, 2, 3, 127, 128, 129, 511, 512, 513, 1000, 16001])
@pytest.mark.parametrize("sample_rate", [8000, 16000, 48000])
def test_the_length_is_that_of_the_input(tiny_model: Path, num_samples: int, sample_rate: int):
    extractor = wesep_py.load(tiny_model, device="cpu")
    rng = np.random.default_rng(num_samples)
    voice = extractor.enroll((rng.standard_normal(16000), 16000))
    result = extractor.extract((rng.standard_normal(num_samples), sample_rate), voice)
    assert result.waveform.shape == (num_samples,) and np.isfinite(result.waveform).all()


@pytest.mark.parametrize("sample_rate", [8000, 16000, 44100, 48000])
def test_the_level_is_that_of_the_voice_in_the_mixture(tmp_path: Path, sample_rate: int):
    # A network that returns the voice 10 times too loud and inverted; two channels of different level.
    extractor = Extractor(BandNetwork(gain=-10.0))
    voice, other = tone(400, 1.0, sample_rate), tone(2500, 1.0, sample_rate, amplitude=0.3)
    mixture = torch.stack([voice + other, 0.5 * voice - other])
    soundfile.write(tmp_path / "mixture.wav", mixture.T.numpy(), sample_rate, subtype="FLOAT")
    result = extractor.extract(tmp_path / "mixture.wav", extractor.enroll((voice, sample_rate)))
    level_db = 10 * np.log10((result.waveform**2).sum(axis=1) / (voice.numpy() ** 2).sum())
    np.testing.assert_allclose(level_db, [0.0, 20 * np.log10(0.5)], atol=0.02)
    np.testing.assert_allclose(result.waveform[0], voice.numpy(), atol=2e-4)


@pytest.mark.parametrize("suffix", [".flac", ".ogg", ".opus", ".mp3"])
def test_compressed_files_keep_their_container(tiny_model: Path, tmp_path: Path, wesep, suffix: str):
    mixture = tmp_path / f"mixture{suffix}"
    rng = np.random.default_rng(0)
    container = {".flac": "FLAC", ".mp3": "MP3"}.get(suffix, "OGG")
    subtype = {".opus": "OPUS", ".ogg": "VORBIS", ".flac": "PCM_16", ".mp3": "MPEG_LAYER_III"}[suffix]
    soundfile.write(mixture, 0.1 * rng.standard_normal((24000, 2)), 48000, format=container, subtype=subtype)
    expected = soundfile.info(mixture)
    ran = wesep("extract", mixture, "--enroll", mixture, "--model", tiny_model, "--device", "cpu")
    assert ran.status == 0, ran.err
    actual = soundfile.info(ran.out.strip())
    for attribute in ("format", "subtype", "samplerate", "channels"):
        assert getattr(actual, attribute) == getattr(expected, attribute), attribute
    slack = 4 * 1152 if suffix == ".mp3" else 0  # the length of an mp3 is a number of frames
    assert abs(actual.frames - expected.frames) <= slack
