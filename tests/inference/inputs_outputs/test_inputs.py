"""Input of the extractor: files, arrays, tensors, embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from wesep_py.common.errors import AudioError, InputError
from wesep_py.inference import audio_files, read_source
from wesep_py.inference.inputs_outputs.inputs import read_embedding

RAMP = np.linspace(-0.5, 0.5, 64, dtype=np.float32)


def test_file_format_of_a_recording_is_kept(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", np.stack([RAMP, -RAMP], axis=1), 22050, subtype="PCM_24")
    recording = read_source(tmp_path / "a.wav")
    np.testing.assert_allclose(recording.waveform, np.stack([RAMP, -RAMP]), atol=2e-7)
    assert (recording.sample_rate, recording.file_format, recording.subtype) == (22050, "WAV", "PCM_24")
    assert recording.duration_s == pytest.approx(64 / 22050)


@pytest.mark.parametrize("waveform", [RAMP, RAMP.astype(np.float64), torch.from_numpy(RAMP).requires_grad_()])
def test_mono_array_becomes_one_channel(waveform):
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
        ((RAMP, None), InputError, "of type NoneType; a whole number of Hz"),
        ((RAMP, float("nan")), InputError, "the sample rate is nan"),
        ((16000, RAMP), InputError, r"of type ndarray; .*second in \(waveform, sample_rate\)"),
        (("a.wav", "b.wav"), InputError, "of type str"),
        (((RAMP * 32767).astype(np.int16), 16000), InputError, "divide 16-bit ones by 32768"),
        ((RAMP.reshape(2, 4, 8), 16000), InputError, r"shape \(2, 4, 8\)"),
        ((np.stack([RAMP, RAMP], axis=1), 16000), InputError, "transpose"),
        ((RAMP[:0], 16000), AudioError, "no samples"),
        ((np.append(RAMP, np.nan), 16000), AudioError, "not finite"),
        ((np.append(RAMP, -np.inf), 16000), AudioError, "not finite"),
    ],
)
def test_invalid_source_is_refused_with_a_reason(source, error, message):
    with pytest.raises(error, match=message):
        read_source(source)


def test_half_precision_tensor_is_read():
    import torch

    recording = read_source((torch.from_numpy(RAMP).to(torch.bfloat16), 16000))
    assert recording.waveform.dtype == np.float32 and recording.waveform.shape == (1, len(RAMP))


def test_folder_lists_its_recordings_by_name(tmp_path: Path):
    for name in ("b.wav", "a.FLAC", "notes.txt", ".hidden.wav"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "c.wav").mkdir()
    assert [path.name for path in audio_files(tmp_path)] == ["a.FLAC", "b.wav"]
    with pytest.raises(AudioError, match=r"c\.wav: holds no recordings"):
        audio_files(tmp_path / "c.wav")


def test_embedding_is_a_npy_or_an_array_without_a_rate(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.array([1, 0, 2]))
    for source in (tmp_path / "a.npy", str(tmp_path / "a.npy"), np.array([1.0, 0.0, 2.0]), torch.tensor([1, 0, 2])):
        embedding = read_embedding(source)
        assert embedding is not None and embedding.dtype == np.float32 and embedding.tolist() == [1, 0, 2]
    for source in ("a.wav", "a.npy.wav@1-2", (RAMP, 16000), RAMP[None], 3):
        assert read_embedding(source) is None


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(3), r"a\.npy: has shape \[3\] of float64; finite numbers \[dim\], not all 0"),
        (np.ones((1, 3)), r"has shape \[1, 3\]"),
        (np.array([1.0, np.nan]), "finite numbers"),
        (np.array(["a"]), "of <U1"),
    ],
)
def test_invalid_embedding_is_refused(tmp_path: Path, array: np.ndarray, message: str):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=message):
        read_embedding(tmp_path / "a.npy")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:20])
    for name in ("cut.npy", "gone.npy"):
        with pytest.raises(InputError, match=f"{name}: is no array of numbers"):
            read_embedding(tmp_path / name)
