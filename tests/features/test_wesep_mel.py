from __future__ import annotations

import math

import torch

from wesep_py.features.wesep_mel import WesepMel


def test_one_frame_by_hand():
    """Frame 5 of a sine: 512 pre-emphasised samples around sample 640, windowed, transformed, squared, filtered."""
    torch.manual_seed(0)
    filters, window = torch.rand(257, 7), torch.hamming_window(512)
    waveform = torch.sin(torch.arange(2000) * 2 * math.pi * 440 / 16000)[None]
    features = WesepMel(torch.tensor([[[-0.97, 1.0]]]), window, filters, 128)(waveform)
    emphasised = waveform[0].clone()
    emphasised[1:] -= 0.97 * waveform[0, :-1]
    powers = [
        torch.fft.rfft(emphasised[t * 128 - 256 : t * 128 + 256] * window).abs().square() @ filters for t in (5, 6, 7)
    ]
    logs = [(power + 1e-8).log() for power in powers]
    # The mean over time is subtracted: differences between frames are what is left of each.
    torch.testing.assert_close(features[0, 6] - features[0, 5], logs[1] - logs[0], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(features[0, 7] - features[0, 5], logs[2] - logs[0], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(features.mean(dim=1), torch.zeros(1, 7), atol=1e-5, rtol=0)
