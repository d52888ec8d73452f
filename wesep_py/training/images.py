"""Spectrograms as images, for logs."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from wesep_py.features import STFT

# Anchors of a perceptually ordered scale from black over blue, red and yellow to white: dark is quiet.
_COLOURS = np.array(
    [[0, 0, 0], [40, 20, 110], [130, 30, 130], [215, 70, 75], [250, 160, 40], [250, 240, 150], [255, 255, 255]]
)


def spectrogram_image(waveform: NDArray[np.float32], sample_rate: int, range_db: float = 70.0) -> NDArray[np.uint8]:
    """A spectrogram with windows of 32 ms every 8 ms, low frequencies at the bottom.

    Args:
        waveform: `[samples]`.
        sample_rate: in Hz.
        range_db: from white, the loudest point, down to black.

    Returns:
        An image `[3, height, width]`, 0 to 255; black where the signal is silent throughout.

    >>> spectrogram_image(np.zeros(16000, np.float32), 16000).shape
    (3, 257, 126)
    """
    window = max(2, round(0.032 * sample_rate) // 2 * 2)
    spectrum = STFT(window, window // 4)(torch.as_tensor(np.ascontiguousarray(waveform)))
    power = spectrum.abs().square().numpy()
    peak = float(power.max())
    if peak <= 0.0:
        scaled = np.zeros(power.shape)
    else:
        scaled = np.clip(1.0 + 10.0 * np.log10(np.maximum(power / peak, 1e-12)) / range_db, 0.0, 1.0)
    at = scaled[::-1] * (len(_COLOURS) - 1)
    channels = [np.interp(at, np.arange(len(_COLOURS)), _COLOURS[:, c]) for c in range(3)]
    return np.stack(channels).round().astype(np.uint8)
