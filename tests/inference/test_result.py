"""Saving what was extracted."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.common.errors import InputError, OutputExistsError
from wesep_py.inference import Result

WAVEFORM = np.linspace(-0.5, 0.5, 800, dtype=np.float32)[None].repeat(2, axis=0)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT"])
def test_the_sample_format_of_the_recording_is_kept(tmp_path: Path, subtype: str):
    Result(WAVEFORM, 16000, file_format="WAV", subtype=subtype).save(tmp_path / "a.wav")
    about = soundfile.info(tmp_path / "a.wav")
    assert (about.subtype, about.samplerate, about.channels, about.frames) == (subtype, 16000, 2, 800)
    read, _ = soundfile.read(tmp_path / "a.wav", always_2d=True)
    np.testing.assert_allclose(read.T, WAVEFORM, atol=1 / 128)


def test_another_container_has_its_own_sample_format(tmp_path: Path):
    Result(WAVEFORM, 16000, file_format="WAV", subtype="FLOAT").save(tmp_path / "a.flac")
    assert soundfile.info(tmp_path / "a.flac").subtype == "PCM_24"
    Result(WAVEFORM, 16000).save(tmp_path / "array.wav")
    assert soundfile.info(tmp_path / "array.wav").subtype == "FLOAT"


def test_full_scale_is_kept_by_scaling_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        Result(4 * WAVEFORM, 16000, file_format="WAV", subtype="PCM_16").save(tmp_path / "a.wav")
    assert "scaled down to full scale" in caplog.text
    read, _ = soundfile.read(tmp_path / "a.wav", always_2d=True)
    np.testing.assert_allclose(read.T, 2 * WAVEFORM, atol=1e-4)
    Result(4 * WAVEFORM, 16000, file_format="WAV", subtype="FLOAT").save(tmp_path / "float.wav")
    read, _ = soundfile.read(tmp_path / "float.wav", always_2d=True)
    np.testing.assert_array_equal(read.T, 4 * WAVEFORM)


def test_refusals(tmp_path: Path):
    result = Result(WAVEFORM, 16000)
    assert result.save(tmp_path / "a.wav") == tmp_path / "a.wav"
    with pytest.raises(OutputExistsError):
        result.save(tmp_path / "a.wav")
    with pytest.raises(InputError, match="does not exist"):
        result.save(tmp_path / "nowhere" / "a.wav")
    with pytest.raises(InputError, match="not a format to write"):
        result.save(tmp_path / "a.docx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav"]
