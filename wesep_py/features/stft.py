"""Short-time Fourier transform of waveforms of any length, and its inverse with exactly the same length."""

from __future__ import annotations

from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Count = TypeVar("Count", int, Tensor)

# Lower limit of the sum of the squared windows, whose peak is 1, by which the inverse divides. Where the sum is less,
# the division would amplify a network's error by up to 1 / window; with the limit, the samples fade out instead.
_MIN_OVERLAP = 0.01


class STFT(nn.Module):
    """Short-time Fourier transform `[..., T] → complex [..., F, frames]`, and back to `[..., T]`.

    F = `window_length` / 2 + 1 bins from 0 to half the sample rate; values are not scaled (as in `torch.stft`). The
    inverse is the least-squares one (Griffin and Lim, 1984, equation 6): windowed overlap-add, divided by the sum of
    the squared windows. It returns every sample to within rounding, with one exception: centred, with a hop of more
    than 0.4 windows, up to 0.11 windows at the very end, which only the edge of the last window reaches, fade out,
    unless the hop divides T.

        samples            −3 −2 −1  0  1  2  3       window 4, hop 1
        centred  frame 0       ├────────┤
                 frame 1          ├────────┤
        causal   frame 0    ├────────┤              `centred=False`
                 frame 1       ├────────┤

    Args:
        window_length: in samples; even, at least 2.
        hop_length: in samples; from 1 to half a window.
        window: `"hann"` or its square root (`"sqrt_hann"`), both periodic.
        centred: frame k is centred on sample k · hop, and there are T // hop + 1 frames, as in `torch.stft` with
            `center=True`. If not, frame k ends before sample (k + 1) · hop, so it depends on the past only, and there
            are ⌈(T + window_length - hop) / hop⌉ frames, the last ones for the tail of the overlap.
        pad_mode: padding before and after the waveform when centred: zeros (`"constant"`), or its reflection
            (`"reflect"`; a waveform of half a window or less is extended with zeros first).

    Raises:
        ValueError: a length, window or padding that is not allowed.

    >>> stft = STFT(512, 128)
    >>> waveform = torch.randn(2, 16001)
    >>> spectrum = stft(waveform)
    >>> spectrum.shape
    torch.Size([2, 257, 126])
    >>> torch.allclose(stft.inverse(spectrum, 16001), waveform, atol=1e-5)
    True
    """

    def __init__(
        self,
        window_length: int,
        hop_length: int,
        window: Literal["hann", "sqrt_hann"] = "hann",
        centred: bool = True,
        pad_mode: Literal["constant", "reflect"] = "constant",
    ) -> None:
        super().__init__()
        if window_length < 2 or window_length % 2:
            raise ValueError(f"window_length: is {window_length}; an even number of samples, at least 2, is needed")
        if not 1 <= hop_length <= window_length // 2:
            raise ValueError(f"hop_length: is {hop_length}; from 1 to half a window ({window_length // 2}) is allowed")
        if window not in ("hann", "sqrt_hann"):
            raise ValueError(f"window: is {window!r}; 'hann' and 'sqrt_hann' are allowed")
        if pad_mode not in ("constant", "reflect"):
            raise ValueError(f"pad_mode: is {pad_mode!r}; 'constant' and 'reflect' are allowed")
        self.window_length, self.hop_length = window_length, hop_length
        self.centred, self.pad_mode = centred, pad_mode
        values = torch.hann_window(window_length, periodic=True, dtype=torch.float64)
        self.register_buffer("window", (values if window == "hann" else values.sqrt()).float(), persistent=False)
        self.window: Tensor

    @property
    def num_bins(self) -> int:
        """Number of frequency bins of the spectrum: `window_length` / 2 + 1."""
        return self.window_length // 2 + 1

    def num_frames(self, num_samples: Count) -> Count:
        """Return the number of frames of a waveform of `num_samples` samples; an int, or a tensor of ints."""
        if self.centred:
            return num_samples // self.hop_length + 1
        return -(-(num_samples + self.window_length - self.hop_length) // self.hop_length)

    def forward(self, waveform: Tensor) -> Tensor:
        """Return the spectrum of waveforms of at least one sample, computed in float32 also under autocast.

        Args:
            waveform: real `[..., T]`, T ≥ 1.

        Returns:
            complex64 `[..., F, frames]` (complex128 for float64).

        Raises:
            ValueError: no samples.
        """
        num_samples = waveform.shape[-1]
        if num_samples < 1:
            raise ValueError("STFT: the waveform has no samples; at least 1 is needed")
        with torch.autocast(waveform.device.type, enabled=False):
            rows = _at_least_float32(waveform).reshape(-1, num_samples)
            padded = self._pad(rows)
            spectrum = torch.stft(
                padded,
                n_fft=self.window_length,
                hop_length=self.hop_length,
                window=self.window.to(padded.dtype),
                center=False,
                return_complex=True,
            )
        return spectrum.reshape(*waveform.shape[:-1], *spectrum.shape[-2:])

    def inverse(self, spectrum: Tensor, length: int) -> Tensor:
        """Return the waveform of a spectrum.

        Args:
            spectrum: complex `[..., F, frames]`.
            length: samples of the waveform, T; the number of frames has to be that of T.

        Returns:
            float32 `[..., length]` (float64 for complex128).

        Raises:
            ValueError: F or the number of frames does not fit this transform and length.
        """
        num_bins, num_frames = spectrum.shape[-2:]
        if num_bins != self.num_bins or num_frames != self.num_frames(length):
            raise ValueError(
                f"STFT.inverse: a spectrum of {num_bins} bins and {num_frames} frames; {length} samples have "
                f"{self.num_bins} and {self.num_frames(length)}"
            )
        with torch.autocast(spectrum.device.type, enabled=False):
            rows = spectrum.reshape(-1, num_bins, num_frames)
            frames = torch.fft.irfft(rows, n=self.window_length, dim=1)
            window = self.window.to(frames.dtype)
            overlapped = self._overlap_add(frames * window[:, None])
            squares = (window**2)[None, :, None].expand(1, -1, num_frames)
            overlap = self._overlap_add(squares).clamp(min=_MIN_OVERLAP)
            start = self._left_padding
            missing = start + length - overlapped.shape[-1]
            waveform = F.pad(overlapped / overlap, (0, max(0, missing)))[:, start : start + length]
        return waveform.reshape(*spectrum.shape[:-2], length)

    @property
    def _left_padding(self) -> int:
        return self.window_length // 2 if self.centred else self.window_length - self.hop_length

    def _pad(self, rows: Tensor) -> Tensor:
        """Pad `rows` `[N, T]` so that they give exactly the number of frames of T."""
        num_samples = rows.shape[-1]
        left = self._left_padding
        total = (self.num_frames(num_samples) - 1) * self.hop_length + self.window_length
        if self.centred and self.pad_mode == "reflect":
            rows = F.pad(rows, (0, max(0, left + 1 - num_samples)))
            rows = F.pad(rows, (left, left), mode="reflect")
            return F.pad(rows, (0, max(0, total - rows.shape[-1])))[:, :total]
        right = total - left - num_samples
        return F.pad(rows, (left, max(0, right)))[:, :total]

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """Add frame k at sample k · hop: `[N, window_length, frames] → [N, samples]`."""
        total = (frames.shape[-1] - 1) * self.hop_length + self.window_length
        return F.fold(frames, (1, total), kernel_size=(1, self.window_length), stride=(1, self.hop_length))[:, 0, 0]

    def extra_repr(self) -> str:
        """Return the arguments, for printing the module."""
        return f"window_length={self.window_length}, hop_length={self.hop_length}, centred={self.centred}"


def _at_least_float32(waveform: Tensor) -> Tensor:
    return waveform if waveform.dtype == torch.float64 else waveform.float()
