"""Mel filterbanks for speaker encoders, and SpecAugment, which masks their features in training.

| class | features |
| --- | --- |
| `KaldiFilterbank` | those of Kaldi's `compute-fbank-feats` |
| `WesepMel` | those that WeSep's jointly trained speaker encoders compute from waveforms |
| `SlaneyMel` | the power in area-normalised bands, without a logarithm, as GE2E encoders take it |

Both are modules: they take a batch at a time, on any device, and are differentiable.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Kaldi's constants (feature-window.h, mel-computations.h): pre-emphasis, and the lower limit of the energy before the
# logarithm.
KALDI_PREEMPHASIS = 0.97
KALDI_MIN_ENERGY = float(torch.finfo(torch.float32).eps)
# WeSep's: pre-emphasis, and what is added to the energy before the logarithm.
_WESEP_PREEMPHASIS = 0.97
_WESEP_ENERGY_EPS = 1e-8


class KaldiFilterbank(nn.Module):
    """Kaldi-compatible log-mel filterbank, as `compute-fbank-feats`: `[B, T] → [B, frames, bins]`.

    For each frame: mean removed, pre-emphasis 0.97, window, power spectrum of the next power of two, triangular filters
    equally spaced on mel(f) = 1127 ln(1 + f / 700), natural logarithm. Frames lie wholly inside the waveform (Kaldi's
    `snip-edges=true`); a waveform shorter than a window is extended with zeros to one window.

    Args:
        sample_rate: in Hz.
        num_mel_bins: number of features of a frame.
        frame_length_ms: length of a window in milliseconds.
        frame_shift_ms: shift from frame to frame, in milliseconds.
        window: `"hamming"`, `"hanning"`, `"povey"` (a Hann window to the power 0.85), or `"rectangular"`.
        dither: standard deviation of noise added to the scaled samples, in training only.
        low_hz: lower edge of the first filter.
        high_hz: upper edge of the last filter; 0 or less is counted from half the sample rate.
        mean_norm: whether each feature's mean over the frames of its utterance is subtracted.
        scale: factor on the samples, which are in [-1, 1]; 32768 gives the features of 16-bit integers.

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
        filters = _kaldi_mel_filters(num_mel_bins, self.fft_length, sample_rate, low_hz, high_hz)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", _kaldi_window(window, self.window_length), persistent=False)
        self.filters: Tensor
        self.window: Tensor

    def frame_lengths(self, lengths: Tensor) -> Tensor:
        """Return the number of frames of waveforms of `lengths` samples: integers `[B]`, each at least 1."""
        return ((lengths - self.window_length) // self.hop_length + 1).clamp(min=1)

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the features, computed in float32 also under autocast.

        Args:
            waveform: `[B, T]`, T ≥ 1, samples in [-1, 1].
            lengths: samples of each waveform before it was padded to T, integers `[B]`; `None` if none was.

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
        # Kaldi takes the first sample of a frame for its own predecessor.
        previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
        frames = (frames - KALDI_PREEMPHASIS * previous) * self.window.to(dtype)
        spectrum = torch.fft.rfft(frames, n=self.fft_length)
        power = spectrum.real.square() + spectrum.imag.square()
        return (power @ self.filters.to(dtype)).clamp(min=KALDI_MIN_ENERGY).log()

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
        """Return the arguments, for printing the module."""
        return f"sample_rate={self.sample_rate}, num_mel_bins={self.num_mel_bins}"


def _kaldi_window(name: str, length: int) -> Tensor:
    # Kaldi's windows are symmetric: the last sample equals the first.
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


def _kaldi_mel(hz: Tensor) -> Tensor:
    return 1127.0 * torch.log1p(hz / 700.0)


def _kaldi_mel_filters(num_bins: int, fft_length: int, sample_rate: int, low_hz: float, high_hz: float) -> Tensor:
    """Return filters `[fft_length / 2 + 1, num_bins]`: triangles on the mel axis with a peak of 1."""
    nyquist = sample_rate / 2
    high_hz = high_hz if high_hz > 0 else nyquist + high_hz
    if not 0 <= low_hz < high_hz <= nyquist:
        raise ValueError(
            f"low_hz {low_hz}, high_hz {high_hz}: 0 ≤ low_hz < high_hz ≤ {nyquist}, half the sample rate, is needed"
        )
    if num_bins < 1:
        raise ValueError(f"num_mel_bins: is {num_bins}; at least 1 is needed")
    low, high = _kaldi_mel(torch.tensor([low_hz, high_hz], dtype=torch.float64))
    edges = torch.linspace(0, 1, num_bins + 2, dtype=torch.float64) * (high - low) + low
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    mel = _kaldi_mel(torch.arange(fft_length // 2 + 1, dtype=torch.float64) * sample_rate / fft_length)[:, None]
    filters = torch.minimum((mel - left) / (centre - left), (right - mel) / (right - centre)).clamp(min=0.0)
    # In Kaldi no filter reaches the bin at half the sample rate.
    filters[-1] = 0.0
    return filters.float()


class WesepMel(nn.Module):
    """WeSep's log-mel filterbank, the input of its jointly trained speaker encoders: `[B, T] → [B, frames, bins]`.

    Pre-emphasis, power spectrogram, mel filters, logarithm; each filter's mean over time is subtracted. Frames are
    centred on multiples of the hop; a recording is mirrored at its ends. Filters are triangles of height one, equally
    spaced on mel(f) = 2595 log₁₀(1 + f / 700).

    Args:
        sample_rate: in Hz.
        num_mel_bins: number of features of a frame.
        window_ms: length of a (Hamming) window in milliseconds.
        hop_ms: shift from frame to frame, in milliseconds.
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
        self.window_length, self.hop_length = _checked_frames(sample_rate, num_mel_bins, window_ms, hop_ms)
        if not 0 <= low_hz < sample_rate / 2:
            raise ValueError(
                f"low_hz: is {low_hz}; from 0 to below {sample_rate / 2}, half the sample rate, is allowed"
            )
        self.sample_rate, self.num_mel_bins = sample_rate, num_mel_bins
        filters = _wesep_mel_filters(num_mel_bins, self.window_length // 2 + 1, sample_rate, low_hz)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hamming_window(self.window_length), persistent=False)
        self.filters: Tensor
        self.window: Tensor

    def frame_lengths(self, lengths: Tensor) -> Tensor:
        """Return the number of frames of waveforms of `lengths` samples: integers `[B]`."""
        return (lengths - self.window_length % 2) // self.hop_length + 1

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the features.

        Args:
            waveform: `[B, T]`, T ≥ 1.
            lengths: samples of each waveform before it was padded to T, integers `[B]`; `None` if none was.

        Returns:
            `[B, frames, num_mel_bins]`; the mean is over each waveform's own frames, and frames past them are zero.
        """
        if lengths is None:
            lengths = torch.full((len(waveform),), waveform.shape[1], device=waveform.device)
        reach = self.window_length // 2
        # The predecessor of the first sample is the second, because the recording is mirrored there too.
        previous = torch.cat([_mirrored(waveform, lengths, 1)[:, :1], waveform[:, :-1]], dim=1)
        frames = _mirrored(waveform - _WESEP_PREEMPHASIS * previous, lengths, reach).unfold(
            1, self.window_length, self.hop_length
        )
        power = torch.fft.rfft(frames * self.window).abs().square()
        log_mel = (power @ self.filters + _WESEP_ENERGY_EPS).log()
        counts = self.frame_lengths(lengths)[:, None, None]
        inside = torch.arange(log_mel.shape[1], device=log_mel.device)[None, :, None] < counts
        log_mel = log_mel.masked_fill(~inside, 0.0)
        return (log_mel - log_mel.sum(dim=1, keepdim=True) / counts).masked_fill(~inside, 0.0)


def _checked_frames(sample_rate: int, num_mel_bins: int, window_ms: float, hop_ms: float) -> tuple[int, int]:
    """Return the lengths of window and hop in samples.

    Raises:
        ValueError: they, or the number of bins, are too small.
    """
    window_length, hop_length = round(sample_rate * window_ms / 1000), round(sample_rate * hop_ms / 1000)
    if window_length < 2 or hop_length < 1:
        raise ValueError(
            f"window_ms {window_ms}, hop_ms {hop_ms}: are {window_length} and {hop_length} samples "
            f"at {sample_rate} Hz; at least 2 and 1 are needed"
        )
    if num_mel_bins < 1:
        raise ValueError(f"num_mel_bins: is {num_mel_bins}; at least 1 is needed")
    return window_length, hop_length


def _mirrored(waveform: Tensor, lengths: Tensor, reach: int) -> Tensor:
    """Extend `[B, T]` by `reach` samples at either end, mirrored at the first and at each recording's last sample."""
    position = torch.arange(-reach, waveform.shape[1] + reach, device=waveform.device)[None]
    period = (2 * (lengths - 1)).clamp_min(1)[:, None]
    position = position % period
    return waveform.gather(1, torch.minimum(position, period - position).clamp_max(waveform.shape[1] - 1))


def _wesep_mel_filters(num_bins: int, num_frequencies: int, sample_rate: int, low_hz: float) -> Tensor:
    """Return filters `[num_frequencies, num_bins]`: triangles between frequencies equally spaced in mel."""
    low, high = (2595 * torch.log10(1 + torch.tensor([low_hz, sample_rate / 2], dtype=torch.float64) / 700)).tolist()
    edges = 700 * (10 ** (torch.linspace(low, high, num_bins + 2, dtype=torch.float64) / 2595) - 1)
    frequencies = torch.linspace(0, sample_rate / 2, num_frequencies, dtype=torch.float64)[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (frequencies - left) / (centre - left), (right - frequencies) / (right - centre)
    return torch.minimum(rising, falling).clamp_min(0.0).float()


class SlaneyMel(nn.Module):
    """Power in mel bands of equal area, without a logarithm: `[B, T] → [B, frames, bins]`.

    Power spectrum of a periodic Hann window; triangular filters of area one (in Hz) between frequencies that are
    equally spaced on Slaney's mel scale (Auditory Toolbox, 1998): 3 mel for 200 Hz up to 1 kHz, and 27 mel for each
    factor of 6.4 above. Frames are centred on multiples of the hop. The values grow with the square of the level.

    Args:
        sample_rate: in Hz.
        num_mel_bins: number of features of a frame.
        window_ms: length of a window in milliseconds.
        hop_ms: shift from frame to frame, in milliseconds.
        padding: how a recording continues before its first and after its last sample: with `zeros`, or mirrored
            (`reflect`).

    Raises:
        ValueError: an argument that is not allowed.

    >>> SlaneyMel()(torch.randn(2, 16000)).shape
    torch.Size([2, 101, 40])
    """

    first_centre = 0
    """Sample at the middle of the first frame."""

    def __init__(
        self,
        sample_rate: int = 16000,
        num_mel_bins: int = 40,
        window_ms: float = 25.0,
        hop_ms: float = 10.0,
        padding: Literal["zeros", "reflect"] = "zeros",
    ) -> None:
        super().__init__()
        self.window_length, self.hop_length = _checked_frames(sample_rate, num_mel_bins, window_ms, hop_ms)
        self.sample_rate, self.num_mel_bins, self.padding = sample_rate, num_mel_bins, padding
        filters = _slaney_mel_filters(num_mel_bins, self.window_length, sample_rate)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(self.window_length), persistent=False)
        self.filters: Tensor
        self.window: Tensor

    def frame_lengths(self, lengths: Tensor) -> Tensor:
        """Return the number of frames of waveforms of `lengths` samples: integers `[B]`."""
        return (lengths - self.window_length % 2) // self.hop_length + 1

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the features, computed in float32 also under autocast.

        Args:
            waveform: `[B, T]`, T ≥ 1.
            lengths: samples of each waveform before it was padded to T, integers `[B]`; `None` if none was.

        Returns:
            `[B, frames, num_mel_bins]`; frames past each waveform's own are zero.
        """
        if lengths is None:
            lengths = torch.full((len(waveform),), waveform.shape[1], device=waveform.device)
        reach = self.window_length // 2
        with torch.autocast(waveform.device.type, enabled=False):
            waveform = waveform.float()
            if self.padding == "reflect":
                waveform = _mirrored(waveform, lengths, reach)
            else:
                inside = torch.arange(waveform.shape[1], device=waveform.device)[None] < lengths[:, None]
                waveform = F.pad(waveform * inside, (reach, reach))
            frames = waveform.unfold(1, self.window_length, self.hop_length)
            features = torch.fft.rfft(frames * self.window).abs().square() @ self.filters
        counts = self.frame_lengths(lengths)[:, None, None]
        return features * (torch.arange(features.shape[1], device=features.device)[None, :, None] < counts)

    def extra_repr(self) -> str:
        """Return the arguments, for printing the module."""
        return f"sample_rate={self.sample_rate}, num_mel_bins={self.num_mel_bins}, padding={self.padding!r}"


def _slaney_hz(mel: Tensor) -> Tensor:
    """Return frequencies in Hz of values on Slaney's mel scale: linear up to 15 mel (1 kHz), exponential above."""
    return torch.where(mel < 15, mel * 200 / 3, 1000 * torch.exp((mel - 15) * math.log(6.4) / 27))


def _slaney_mel_filters(num_bins: int, fft_length: int, sample_rate: int) -> Tensor:
    """Return filters `[fft_length / 2 + 1, num_bins]`, from 0 Hz to half the sample rate, each of area one in Hz."""
    nyquist = sample_rate / 2
    top = nyquist * 3 / 200 if nyquist < 1000 else 15 + 27 * math.log(nyquist / 1000) / math.log(6.4)
    edges = _slaney_hz(torch.linspace(0, top, num_bins + 2, dtype=torch.float64))
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    frequency = torch.arange(fft_length // 2 + 1, dtype=torch.float64)[:, None] * sample_rate / fft_length
    rising, falling = (frequency - left) / (centre - left), (right - frequency) / (right - centre)
    return (torch.minimum(rising, falling).clamp_min(0.0) * 2 / (right - left)).float()


class SpecAugment(nn.Module):
    """SpecAugment: random masks of frames and of bins in features `[B, frames, bins]`, in training only.

    Masks of Park et al., "SpecAugment" (2019), section 2: each has a width drawn uniformly from 0 to its maximum, and a
    position drawn uniformly from those where it fits; each utterance of a batch has its own. Masked values become 0,
    the mean of mean-normalised features. Draws come from torch's generator of the features' device.

    Args:
        num_time_masks: number of masks of frames.
        max_time_frames: maximum width of a mask, in frames.
        num_freq_masks: number of masks of bins.
        max_freq_bins: maximum width of a mask, in bins.

    Raises:
        ValueError: a negative number.

    >>> augment = SpecAugment(max_time_frames=10, max_freq_bins=8).eval()
    >>> bool((augment(torch.ones(1, 50, 80)) == 1).all())
    True
    """

    def __init__(
        self,
        num_time_masks: int = 1,
        max_time_frames: int = 10,
        num_freq_masks: int = 1,
        max_freq_bins: int = 8,
    ) -> None:
        super().__init__()
        for name, value in (
            ("num_time_masks", num_time_masks),
            ("max_time_frames", max_time_frames),
            ("num_freq_masks", num_freq_masks),
            ("max_freq_bins", max_freq_bins),
        ):
            if value < 0:
                raise ValueError(f"{name}: is {value}; 0 or more is allowed")
        self.num_time_masks, self.max_time_frames = num_time_masks, max_time_frames
        self.num_freq_masks, self.max_freq_bins = num_freq_masks, max_freq_bins

    def forward(self, features: Tensor, frame_lengths: Tensor | None = None) -> Tensor:
        """Mask the features; in evaluation mode, return them unchanged.

        Args:
            features: `[B, frames, bins]`.
            frame_lengths: frames of each utterance before padding, integers `[B]`: masks fall within them.

        Returns:
            `[B, frames, bins]`, a new tensor in training.

        Raises:
            ValueError: not three axes.
        """
        if features.ndim != 3:
            raise ValueError(f"SpecAugment: features of shape {list(features.shape)}; [batch, frames, bins] is needed")
        if not self.training:
            return features
        batch, frames, bins = features.shape
        sizes = torch.full((batch,), frames, device=features.device)
        if frame_lengths is not None:
            sizes = frame_lengths.to(features.device)
        in_time = _masks(self.num_time_masks, self.max_time_frames, sizes, frames)
        all_bins = torch.full((batch,), bins, device=features.device)
        in_freq = _masks(self.num_freq_masks, self.max_freq_bins, all_bins, bins)
        return features.masked_fill(in_time[:, :, None] | in_freq[:, None, :], 0.0)


def _masks(count: int, max_width: int, sizes: Tensor, axis_length: int) -> Tensor:
    """Return bool `[B, axis_length]`: true within any of `count` masks drawn inside each utterance's `sizes`."""
    uniform = torch.rand(2, len(sizes), count, device=sizes.device)
    widest = sizes.clamp(max=max_width)[:, None]
    # ⌊u · n⌋ is uniform on 0 … n − 1; the clamp catches u · n rounded up to n.
    width = (uniform[0] * (widest + 1)).long().clamp(max=widest)
    start = (uniform[1] * (sizes[:, None] - width + 1)).long().clamp(max=sizes[:, None] - width)
    position = torch.arange(axis_length, device=sizes.device)
    inside = (position >= start[..., None]) & (position < (start + width)[..., None])
    return inside.any(dim=1)
