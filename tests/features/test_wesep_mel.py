from __future__ import annotations

import math

import pytest
import torch

from wesep_py.features import WesepMel


def test_one_frame_by_hand():
    """Frame 5 of a sine: 512 pre-emphasised samples around sample 640, windowed, transformed, squared, filtered."""
    mel = WesepMel(num_mel_bins=7)
    waveform = torch.sin(torch.arange(2000) * 2 * math.pi * 440 / 16000)[None]
    features = mel(waveform)
    emphasised = waveform[0].clone()
    emphasised[1:] -= 0.97 * waveform[0, :-1]
    frames = [emphasised[t * 128 - 256 : t * 128 + 256] * torch.hamming_window(512) for t in (5, 6, 7)]
    logs = [(torch.fft.rfft(frame).abs().square() @ mel.filters + 1e-8).log() for frame in frames]
    # The mean over time is subtracted: differences between frames are what is left of each.
    torch.testing.assert_close(features[0, 6] - features[0, 5], logs[1] - logs[0], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(features[0, 7] - features[0, 5], logs[2] - logs[0], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(features.mean(dim=1), torch.zeros(1, 7), atol=1e-5, rtol=0)


def test_triangles_in_mel():
    filters = WesepMel(num_mel_bins=10, window_ms=256.0).filters
    peaks = filters.argmax(dim=0) * 16000 / 4096
    mel = 2595 * torch.log10(1 + peaks / 700)
    torch.testing.assert_close(mel.diff(), mel.diff().mean().expand(9), atol=3.0, rtol=0)
    assert 0.9 < filters.max() <= 1 and filters.min() == 0
    assert not filters[:5].any(), "nothing below 20 Hz"


def test_the_buffers_of_a_public_checkpoint_are_the_same(shared_parity):
    from safetensors import safe_open

    with safe_open(shared_parity / "wesep_bsrnn_joint_wave.safetensors", framework="pt") as fixture:
        filters, window = (
            fixture.get_tensor(f"weight/spk_encoder.{name}") for name in ("mel_scale.fb", "spectrogram.window")
        )
    torch.testing.assert_close(WesepMel().filters, filters, atol=1e-5, rtol=0)
    assert torch.equal(WesepMel().window, window)


@pytest.mark.parametrize("length", [1, 2, 100, 700, 1280])
def test_padding_changes_nothing(length):
    mel, waveform = WesepMel(), torch.randn(2, length)
    alone = mel(waveform)
    assert alone.shape == (2, length // 128 + 1, 80) and torch.isfinite(alone).all()
    padded = mel(torch.cat([waveform, torch.zeros(2, 500)], dim=1), torch.tensor([length, length]))
    torch.testing.assert_close(padded[:, : alone.shape[1]], alone, atol=1e-5, rtol=1e-4)
    assert not padded[:, alone.shape[1] :].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"window_ms": 0.01}, "window_ms"), ({"num_mel_bins": 0}, "num_mel_bins"), ({"low_hz": 8000.0}, "low_hz")],
)
def test_what_is_not_allowed(arguments, message):
    with pytest.raises(ValueError, match=message):
        WesepMel(**arguments)
