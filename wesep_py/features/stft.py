"""Short-time Fourier transform of waveforms of any length, and its inverse with exactly the same length."""

from __future__ import annotations

from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Count = TypeVar("Count", int, Tensor)
Window = Literal["hann", "sqrt_hann", "asymmetric"]

MIN_OVERLAP = 0.01
"""Lower limit of the sum of the overlapping windows by which the inverse divides.

The sum is about 1 within a recording. Where it is less than this, the division would amplify a network's error by up to
1 / window; with the limit, the samples fade out instead."""


class STFT(nn.Module):
    """Short-time Fourier transform `[..., T] → complex [..., F, frames]`, and back to `[..., T]`.

    F = `window_length` / 2 + 1 bins from 0 to half the sample rate; values are not scaled (as in `torch.stft`). The
    inverse is the least-squares one (Griffin and Lim, 1984, equation 6): windowed overlap-add, divided by the sum of
    the squared windows. It returns every sample to within rounding, with one exception: centred, with a hop of more
    than 0.4 windows, up to 0.11 windows at the very end, which only the edge of the last window reaches, fade out,
    unless the hop divides T.

    With `window="asymmetric"` the inverse uses the last two hops of each frame only, so a sample is finished early
    although the analysis window is long (Mauler and Martin, EUSIPCO 2007). With N = `window_length`, R = `hop_length`:

        analysis    a[n] = √hann_2(N−R)[n]             for n < N − R: a slow rise
                    a[n] = √hann_2R[n − N + 2R]        for n ≥ N − R: a fast fall
        synthesis   s[n] = hann_2R[n − N + 2R] / a[n]  for n ≥ N − 2R, else 0; so a · s overlaps to 1

        analysis window    ╭────────────╮
                      ─────╯             ╲
        synthesis part            |╭───╮ |   two hops; frame k is centred here, on sample k · hop

        samples            −3 −2 −1  0  1  2  3       window 4, hop 1
        centred  frame 0       ├────────┤
                 frame 1          ├────────┤
        causal   frame 0    ├────────┤              `centred=False`
                 frame 1       ├────────┤

    Args:
        window_length: in samples; even, at least 2.
        hop_length: in samples; from 1 to half a window.
        window: `"hann"` or its square root (`"sqrt_hann"`), both periodic; or `"asymmetric"`.
        centred: frame k is centred on sample k · hop, and there are T // hop + 1 frames, as in `torch.stft` with
            `center=True`. If not, frame k ends before sample (k + 1) · hop, so it depends on the past only, and there
            are ⌈(T + window_length - hop) / hop⌉ frames, the last ones for the tail of the overlap.
        pad_mode: padding before and after the waveform when centred: zeros (`"constant"`), or its reflection
            (`"reflect"`; a waveform of half a window or less is extended with zeros first).

    Attributes:
        start, stop: frame k is computed from the samples k · hop + `start` … k · hop + `stop` − 1.
        synthesis_start: frame k contributes to the samples from k · hop + `synthesis_start` on.

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
        window: Window = "hann",
        centred: bool = True,
        pad_mode: Literal["constant", "reflect"] = "constant",
    ) -> None:
        super().__init__()
        if window_length < 2 or window_length % 2:
            raise ValueError(f"window_length: is {window_length}; an even number of samples, at least 2, is needed")
        if not 1 <= hop_length <= window_length // 2:
            raise ValueError(f"hop_length: is {hop_length}; from 1 to half a window ({window_length // 2}) is allowed")
        if window not in ("hann", "sqrt_hann", "asymmetric"):
            raise ValueError(f"window: is {window!r}; 'hann', 'sqrt_hann' and 'asymmetric' are allowed")
        if pad_mode not in ("constant", "reflect"):
            raise ValueError(f"pad_mode: is {pad_mode!r}; 'constant' and 'reflect' are allowed")
        asymmetric = window == "asymmetric"
        if asymmetric and not (centred and pad_mode == "constant"):
            raise ValueError("window: 'asymmetric' needs centred frames and pad_mode 'constant'")
        self.window_length, self.hop_length = window_length, hop_length
        self.centred, self.pad_mode = centred, pad_mode
        self.start = -window_length // 2 if centred and not asymmetric else hop_length - window_length
        self.stop = self.start + window_length
        self.synthesis_start = -hop_length if asymmetric else self.start
        if asymmetric:
            analysis, synthesis = _asymmetric_windows(window_length, hop_length)
        else:
            analysis = torch.hann_window(window_length, periodic=True, dtype=torch.float64)
            analysis = synthesis = analysis if window == "hann" else analysis.sqrt()
        self.register_buffer("window", analysis.float(), persistent=False)
        self.register_buffer("synthesis_window", synthesis.float(), persistent=False)
        self.window: Tensor
        self.synthesis_window: Tensor

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
            window, synthesis_window = self.window.to(frames.dtype), self.synthesis_window.to(frames.dtype)
            overlapped = self._overlap_add(frames * synthesis_window[:, None])
            weights = (window * synthesis_window)[None, :, None].expand(1, -1, num_frames)
            overlap = self._overlap_add(weights).clamp(min=MIN_OVERLAP)
            start = -self.start
            missing = start + length - overlapped.shape[-1]
            waveform = F.pad(overlapped / overlap, (0, max(0, missing)))[:, start : start + length]
        return waveform.reshape(*spectrum.shape[:-2], length)

    def frames(self, segment: Tensor) -> Tensor:
        """Return the spectrum of the frames that lie wholly in a segment: nothing is padded.

        Args:
            segment: real `[..., window_length + (frames − 1) · hop_length]`.

        Returns:
            complex `[..., F, frames]`.
        """
        with torch.autocast(segment.device.type, enabled=False):
            segment = _at_least_float32(segment)
            windows = segment.unfold(-1, self.window_length, self.hop_length) * self.window.to(segment.dtype)
            return torch.fft.rfft(windows).transpose(-1, -2)

    def frame_signals(self, spectrum: Tensor) -> Tensor:
        """Return what each frame adds to the waveform, from sample k · hop + `synthesis_start` to `stop`.

        Their overlap-add, divided by that of `synthesis_weights`, is the inverse.

        Args:
            spectrum: complex `[..., F, frames]`.

        Returns:
            real `[..., stop − synthesis_start, frames]`.
        """
        skipped = self.synthesis_start - self.start
        with torch.autocast(spectrum.device.type, enabled=False):
            signals = torch.fft.irfft(spectrum, n=self.window_length, dim=-2)[..., skipped:, :]
            return signals * self.synthesis_window[skipped:, None].to(signals.dtype)

    def synthesis_weights(self) -> Tensor:
        """Return analysis times synthesis window, `[stop − synthesis_start]`; see `frame_signals`."""
        return (self.window * self.synthesis_window)[self.synthesis_start - self.start :]

    def _pad(self, rows: Tensor) -> Tensor:
        """Pad `rows` `[N, T]` so that they give exactly the number of frames of T."""
        num_samples = rows.shape[-1]
        left = -self.start
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


def _asymmetric_windows(length: int, hop: int) -> tuple[Tensor, Tensor]:
    """Return the analysis and the synthesis window `[length]` of `window="asymmetric"`; their product overlaps to 1."""
    rise = torch.hann_window(2 * (length - hop), periodic=True, dtype=torch.float64)[: length - hop].sqrt()
    short = torch.hann_window(2 * hop, periodic=True, dtype=torch.float64)
    analysis = torch.cat([rise, short[hop:].sqrt()])
    # With a hop of half a window the first sample of both windows is 0, and so is that of their product.
    part = torch.where(analysis[-2 * hop :] > 0, short / analysis[-2 * hop :], 0.0)
    return analysis, torch.cat([torch.zeros(length - 2 * hop, dtype=torch.float64), part])


def _at_least_float32(waveform: Tensor) -> Tensor:
    return waveform if waveform.dtype == torch.float64 else waveform.float()
