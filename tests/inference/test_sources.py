"""What may be handed in: files, arrays, tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from wesep_py.errors import AudioError, InputError
from wesep_py.inference import audio_files, read_source

RAMP = np.linspace(-0.5, 0.5, 64, dtype=np.float32)


def test_a_file_says_how_it_was_stored(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", np.stack([RAMP, -RAMP], axis=1), 22050, subtype="PCM_24")
    recording = read_source(tmp_path / "a.wav")
    np.testing.assert_allclose(recording.waveform, np.stack([RAMP, -RAMP]), atol=2e-7)
    assert (recording.sample_rate, recording.file_format, recording.subtype) == (22050, "WAV", "PCM_24")
    assert recording.duration_s == pytest.approx(64 / 22050)


@pytest.mark.parametrize("waveform", [RAMP, RAMP.astype(np.float64), torch.from_numpy(RAMP).requires_grad_()])
def test_a_mono_array_becomes_one_channel(waveform):
    recording = read_source((waveform, 16000))
    np.testing.assert_array_equal(recording.waveform, RAMP[None])
    assert recording.waveform.dtype == np.float32 and recording.mono_array


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (3, InputError, "a path or a pair"),
        ((RAMP, 16000, 1), InputError, "a path or a pair"),
        ((RAMP, 0), InputError, "whole number of Hz above 0"),
        ((RAMP, 16000.5), InputError, "whole number of Hz above 0"),
        ((RAMP, "16000"), InputError, "whole number of Hz above 0"),
        (((RAMP * 32767).astype(np.int16), 16000), InputError, "divide 16-bit ones by 32768"),
        ((RAMP.reshape(2, 4, 8), 16000), InputError, r"shape \(2, 4, 8\)"),
        ((np.stack([RAMP, RAMP], axis=1), 16000), InputError, "transpose"),
        ((RAMP[:0], 16000), AudioError, "no samples"),
        ((np.append(RAMP, np.nan), 16000), AudioError, "not finite"),
        ((np.append(RAMP, -np.inf), 16000), AudioError, "not finite"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_reason(source, error, message):
    with pytest.raises(error, match=message):
        read_source(source)


def test_a_folder_lists_its_recordings_by_name(tmp_path: Path):
    for name in ("b.wav", "a.FLAC", "notes.txt", ".hidden.wav"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "c.wav").mkdir()
    assert [path.name for path in audio_files(tmp_path)] == ["a.FLAC", "b.wav"]
    with pytest.raises(AudioError, match=r"c\.wav: holds no recordings"):
        audio_files(tmp_path / "c.wav")
