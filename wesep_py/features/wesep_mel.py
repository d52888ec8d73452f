"""The features that WeSep's jointly trained speaker encoders hear when they are given waveforms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

PREEMPHASIS = 0.97
FLOOR = 1e-8


class WesepMel(nn.Module):
    """Pre-emphasis, power spectrogram, mel filters, logarithm; each filter's mean over time subtracted.

    Frames are centred on multiples of the hop; a recording is mirrored at its ends. Filters are triangles of height
    one, equally spaced on mel(f) = 2595 log₁₀(1 + f / 700).

    Args:
        sample_rate: in Hz.
        num_mel_bins: features of a frame.
        window_ms: length of a (Hamming) window in milliseconds.
        hop_ms: from one frame to the next, in milliseconds.
        low_hz: lower edge of the first filter; the last ends at half the sample rate.

    Raises:
        ValueError: an argument that is not allowed.

    >>> WesepMel()(torch.randn(2, 16000)).shape
    torch.Size([2, 126, 80])
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        num_mel_bins: int = 80,
        window_ms: float = 32.0,
        hop_ms: float = 8.0,
        low_hz: float = 20.0,
    ) -> None:
        super().__init__()
        self.window_length, self.hop_length = round(sample_rate * window_ms / 1000), round(sample_rate * hop_ms / 1000)
        if self.window_length < 2 or self.hop_length < 1:
            raise ValueError(
                f"window_ms {window_ms}, hop_ms {hop_ms}: are {self.window_length} and {self.hop_length} samples "
                f"at {sample_rate} Hz; at least 2 and 1 are needed"
            )
        if num_mel_bins < 1:
            raise ValueError(f"num_mel_bins: is {num_mel_bins}; at least 1 is needed")
        if not 0 <= low_hz < sample_rate / 2:
            raise ValueError(
                f"low_hz: is {low_hz}; from 0 to below {sample_rate / 2}, half the sample rate, is allowed"
            )
        self.sample_rate, self.num_mel_bins = sample_rate, num_mel_bins
        filters = _mel_filters(num_mel_bins, self.window_length // 2 + 1, sample_rate, low_hz)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hamming_window(self.window_length), persistent=False)
        self.filters: Tensor
        self.window: Tensor

    def frame_lengths(self, lengths: Tensor) -> Tensor:
        """Frames of waveforms of `lengths` samples: integers `[B]`."""
        return (lengths - self.window_length % 2) // self.hop_length + 1

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The features.

        Args:
            waveform: `[B, T]`, T ≥ 1.
            lengths: samples of each waveform before it was padded to T, integers `[B]`; `None` if all are T.

        Returns:
            `[B, frames, num_mel_bins]`; the mean is over each waveform's own frames, and frames past them are zero.
        """
        if lengths is None:
            lengths = torch.full((len(waveform),), waveform.shape[1], device=waveform.device)
        reach = self.window_length // 2
        # The first sample's predecessor is the second: the recording is mirrored there too.
        previous = torch.cat([_mirrored(waveform, lengths, 1)[:, :1], waveform[:, :-1]], dim=1)
        frames = _mirrored(waveform - PREEMPHASIS * previous, lengths, reach).unfold(
            1, self.window_length, self.hop_length
        )
        power = torch.fft.rfft(frames * self.window).abs().square()
        log_mel = (power @ self.filters + FLOOR).log()
        counts = self.frame_lengths(lengths)[:, None, None]
        inside = torch.arange(log_mel.shape[1], device=log_mel.device)[None, :, None] < counts
        log_mel = log_mel.masked_fill(~inside, 0.0)
        return (log_mel - log_mel.sum(dim=1, keepdim=True) / counts).masked_fill(~inside, 0.0)


def _mirrored(waveform: Tensor, lengths: Tensor, reach: int) -> Tensor:
    """`[B, T]` with `reach` samples more at either end, mirrored at the first sample and at each one's own last."""
    position = torch.arange(-reach, waveform.shape[1] + reach, device=waveform.device)[None]
    period = (2 * (lengths - 1)).clamp_min(1)[:, None]
    position = position % period
    return waveform.gather(1, torch.minimum(position, period - position).clamp_max(waveform.shape[1] - 1))


def _mel_filters(num_bins: int, num_frequencies: int, sample_rate: int, low_hz: float) -> Tensor:
    """Triangles `[num_frequencies, num_bins]` between frequencies that are equally spaced in mel."""
    low, high = (2595 * torch.log10(1 + torch.tensor([low_hz, sample_rate / 2], dtype=torch.float64) / 700)).tolist()
    edges = 700 * (10 ** (torch.linspace(low, high, num_bins + 2, dtype=torch.float64) / 2595) - 1)
    frequencies = torch.linspace(0, sample_rate / 2, num_frequencies, dtype=torch.float64)[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (frequencies - left) / (centre - left), (right - frequencies) / (right - centre)
    return torch.minimum(rising, falling).clamp_min(0.0).float()
