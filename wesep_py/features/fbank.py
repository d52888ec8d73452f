"""Kaldi's log-mel filterbank as a module: a batch at a time, differentiable, on any device."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Kaldi's constants (feature-window.h, mel-computations.h): pre-emphasis, and the smallest energy before the
# logarithm.
_PREEMPHASIS = 0.97
_LEAST_ENERGY = float(torch.finfo(torch.float32).eps)


class KaldiFilterbank(nn.Module):
    """Log-mel filterbank features `[B, T] → [B, frames, bins]` as Kaldi's `compute-fbank-feats` makes them.

    Frame by frame: mean removed, pre-emphasis 0.97, window, power spectrum of the next power of two,
    triangular filters equally spaced on mel(f) = 1127 ln(1 + f / 700), natural logarithm. Frames lie wholly
    inside the waveform (Kaldi's `snip-edges=true`); a waveform shorter than a window is extended with zeros
    to one window.

    Args:
        sample_rate: in Hz.
        num_mel_bins: features of a frame.
        frame_length_ms: length of a window in milliseconds.
        frame_shift_ms: from one frame to the next, in milliseconds.
        window: `"hamming"`, `"hanning"`, `"povey"` (a Hann window to the power 0.85), or `"rectangular"`.
        dither: standard deviation of noise added to the scaled samples, in training only.
        low_hz: lower edge of the first filter.
        high_hz: upper edge of the last filter; 0 or less is counted from half the sample rate.
        mean_norm: subtract each feature's mean over the frames of its utterance.
        scale: by which samples in [-1, 1] are multiplied first; 32768 gives what 16-bit integers give.

    Raises:
        ValueError: an argument that is not allowed.

    >>> KaldiFilterbank()(torch.randn(2, 16000)).shape
    torch.Size([2, 98, 80])
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        num_mel_bins: int = 80,
        frame_length_ms: float = 25.0,
        frame_shift_ms: float = 10.0,
        window: Literal["hamming", "hanning", "povey", "rectangular"] = "hamming",
        dither: float = 0.0,
        low_hz: float = 20.0,
        high_hz: float = 0.0,
        mean_norm: bool = True,
        scale: float = 32768.0,
    ) -> None:
        super().__init__()
        self.window_length = int(sample_rate * frame_length_ms * 0.001)
        self.hop_length = int(sample_rate * frame_shift_ms * 0.001)
        if self.window_length < 2 or self.hop_length < 1:
            raise ValueError(
                f"frame_length_ms {frame_length_ms}, frame_shift_ms {frame_shift_ms}: are {self.window_length} "
                f"and {self.hop_length} samples at {sample_rate} Hz; at least 2 and 1 are needed"
            )
        if dither < 0:
            raise ValueError(f"dither: is {dither}; 0 or more is allowed")
        self.sample_rate, self.num_mel_bins = sample_rate, num_mel_bins
        self.dither, self.mean_norm, self.scale = dither, mean_norm, scale
        self.fft_length = 1 << (self.window_length - 1).bit_length()
        filters = _mel_filters(num_mel_bins, self.fft_length, sample_rate, low_hz, high_hz)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", _window(window, self.window_length), persistent=False)
        self.filters: Tensor
        self.window: Tensor

    def frame_lengths(self, lengths: Tensor) -> Tensor:
        """Frames of waveforms of `lengths` samples: integers `[B]`, each at least 1."""
        return ((lengths - self.window_length) // self.hop_length + 1).clamp(min=1)

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The features, computed in float32 also where autocast is on.

        Args:
            waveform: `[B, T]`, T ≥ 1, samples in [-1, 1].
            lengths: samples of each waveform before it was padded to T, integers `[B]`; `None` if all are T.

        Returns:
            float32 `[B, frames, num_mel_bins]`. With `lengths`, the mean is over each waveform's own frames
            (`frame_lengths`), and frames past them are zero.

        Raises:
            ValueError: not two axes, or no samples.
        """
        if waveform.ndim != 2 or waveform.shape[-1] < 1:
            raise ValueError(
                f"KaldiFilterbank: a waveform of shape {list(waveform.shape)}; [batch, samples], "
                "at least 1 sample, is needed"
            )
        with torch.autocast(waveform.device.type, enabled=False):
            samples = waveform if waveform.dtype == torch.float64 else waveform.float()
            features = self._log_mel(samples * self.scale)
            return self._normalise(features, lengths)

    def _log_mel(self, samples: Tensor) -> Tensor:
        dtype = samples.dtype
        samples = F.pad(samples, (0, max(0, self.window_length - samples.shape[-1])))
        frames = samples.unfold(-1, self.window_length, self.hop_length)
        if self.training and self.dither > 0:
            frames = frames + self.dither * torch.randn_like(frames)
        frames = frames - frames.mean(dim=-1, keepdim=True)
        # The first sample of a frame is its own predecessor.
        previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
        frames = (frames - _PREEMPHASIS * previous) * self.window.to(dtype)
        spectrum = torch.fft.rfft(frames, n=self.fft_length)
        power = spectrum.real.square() + spectrum.imag.square()
        return (power @ self.filters.to(dtype)).clamp(min=_LEAST_ENERGY).log()

    def _normalise(self, features: Tensor, lengths: Tensor | None) -> Tensor:
        if lengths is None:
            return features - features.mean(dim=1, keepdim=True) if self.mean_norm else features
        counts = self.frame_lengths(lengths.to(features.device)).clamp(max=features.shape[1])
        inside = torch.arange(features.shape[1], device=features.device) < counts[:, None]
        features = features.masked_fill(~inside[..., None], 0.0)
        if not self.mean_norm:
            return features
        mean = features.sum(dim=1, keepdim=True) / counts[:, None, None]
        return (features - mean).masked_fill(~inside[..., None], 0.0)

    def extra_repr(self) -> str:
        """The arguments, for printing the module."""
        return f"sample_rate={self.sample_rate}, num_mel_bins={self.num_mel_bins}"


def _window(name: str, length: int) -> Tensor:
    # Kaldi's windows are symmetric: their last sample is as their first.
    phase = 2 * math.pi * torch.arange(length, dtype=torch.float64) / (length - 1)
    windows = {
        "hamming": 0.54 - 0.46 * torch.cos(phase),
        "hanning": 0.5 - 0.5 * torch.cos(phase),
        "povey": (0.5 - 0.5 * torch.cos(phase)).clamp(min=0.0) ** 0.85,
        "rectangular": torch.ones(length, dtype=torch.float64),
    }
    if name not in windows:
        raise ValueError(f"window: is {name!r}; {', '.join(windows)} are allowed")
    return windows[name].float()


def _mel(hz: Tensor) -> Tensor:
    return 1127.0 * torch.log1p(hz / 700.0)


def _mel_filters(num_bins: int, fft_length: int, sample_rate: int, low_hz: float, high_hz: float) -> Tensor:
    """Triangular filters `[fft_length / 2 + 1, num_bins]`, triangles on the mel axis, their peaks 1."""
    nyquist = sample_rate / 2
    high_hz = high_hz if high_hz > 0 else nyquist + high_hz
    if not 0 <= low_hz < high_hz <= nyquist:
        raise ValueError(
            f"low_hz {low_hz}, high_hz {high_hz}: 0 ≤ low_hz < high_hz ≤ {nyquist}, half the sample rate, is needed"
        )
    if num_bins < 1:
        raise ValueError(f"num_mel_bins: is {num_bins}; at least 1 is needed")
    low, high = _mel(torch.tensor([low_hz, high_hz], dtype=torch.float64))
    edges = torch.linspace(0, 1, num_bins + 2, dtype=torch.float64) * (high - low) + low
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    mel = _mel(torch.arange(fft_length // 2 + 1, dtype=torch.float64) * sample_rate / fft_length)[:, None]
    filters = torch.minimum((mel - left) / (centre - left), (right - mel) / (right - centre)).clamp(min=0.0)
    # Kaldi has no filter reach the bin at half the sample rate.
    filters[-1] = 0.0
    return filters.float()
