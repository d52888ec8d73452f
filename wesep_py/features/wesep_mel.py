"""The features that WeSep's jointly trained speaker encoders hear when they are given waveforms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FLOOR = 1e-8


class WesepMel(nn.Module):
    """Pre-emphasis, power spectrogram, mel filters, logarithm; each filter's mean over time subtracted.

    Args:
        emphasis: `[1, 1, 2]`, the pre-emphasis as a convolution's kernel.
        window: `[samples]` of a frame.
        filters: `[bins, mel bins]`.
        hop_length: samples from frame to frame.

    >>> mel = WesepMel(torch.tensor([[[-0.97, 1.0]]]), torch.hamming_window(512), torch.rand(257, 80), 128)
    >>> mel(torch.randn(2, 16000)).shape
    torch.Size([2, 126, 80])
    """

    def __init__(self, emphasis: Tensor, window: Tensor, filters: Tensor, hop_length: int) -> None:
        super().__init__()
        self.hop_length = hop_length
        self.register_buffer("emphasis", emphasis, persistent=False)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """`[batch, samples]` → `[batch, frames, mel bins]`."""
        emphasised = nn.functional.conv1d(nn.functional.pad(waveform[:, None], (1, 0), mode="reflect"), self.emphasis)
        spectrum = torch.stft(
            emphasised[:, 0],
            2 * (len(self.filters) - 1),
            self.hop_length,
            len(self.window),
            self.window,
            return_complex=True,
        )
        log_mel = (spectrum.abs().square().transpose(1, 2) @ self.filters + FLOOR).log()
        return log_mel - log_mel.mean(dim=1, keepdim=True)
