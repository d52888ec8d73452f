"""Spectrograms whose brightest point is known."""

from __future__ import annotations

import numpy as np

from wesep_py.training.run_log import spectrogram_image


def test_a_tone_is_a_bright_line_at_its_frequency():
    time_s = np.arange(16000) / 16000
    image = spectrogram_image(np.sin(2 * np.pi * 2000 * time_s).astype(np.float32), 16000)
    assert image.dtype == np.uint8 and image.shape == (3, 257, 126)
    brightness = image.astype(int).sum(0)[:, 60]
    assert brightness.argmax() == 256 - 64  # 2000 Hz is bin 64 of 31.25 Hz, counted from the bottom
    assert brightness.max() > 750 and np.median(brightness) == 0


def test_quiet_is_darker_than_loud_and_silence_is_black():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(16000).astype(np.float32)
    noise[:8000] *= 0.01
    columns = spectrogram_image(noise, 16000).astype(int).sum((0, 1))
    assert columns[:55].max() < columns[70:].min()
    assert not spectrogram_image(np.zeros(800, np.float32), 8000).any()


def test_a_waveform_shorter_than_a_window():
    assert spectrogram_image(np.ones(10, np.float32), 16000).shape[1] == 257
