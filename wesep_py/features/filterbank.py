"""SpecAugment: stripes of time and of frequency taken out of features while training."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# ----------------------------------------
# Kaldi's log-mel filterbank as a module: a batch at a time, differentiable, on any device.

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


# ----------------------------------------
# The features that WeSep's jointly trained speaker encoders hear when they are given waveforms.

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
        filters = _wesep_mel_filters(num_mel_bins, self.window_length // 2 + 1, sample_rate, low_hz)
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


def _wesep_mel_filters(num_bins: int, num_frequencies: int, sample_rate: int, low_hz: float) -> Tensor:
    """Triangles `[num_frequencies, num_bins]` between frequencies that are equally spaced in mel."""
    low, high = (2595 * torch.log10(1 + torch.tensor([low_hz, sample_rate / 2], dtype=torch.float64) / 700)).tolist()
    edges = 700 * (10 ** (torch.linspace(low, high, num_bins + 2, dtype=torch.float64) / 2595) - 1)
    frequencies = torch.linspace(0, sample_rate / 2, num_frequencies, dtype=torch.float64)[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (frequencies - left) / (centre - left), (right - frequencies) / (right - centre)
    return torch.minimum(rising, falling).clamp_min(0.0).float()


class SpecAugment(nn.Module):
    """Mask random stripes of frames and of bins in features `[B, frames, bins]`, in training only.

    Masks of Park et al., "SpecAugment" (2019), section 2: each has a width drawn uniformly from 0 to its
    largest and a place drawn uniformly among those where it fits; every utterance of a batch has its own.
    Masked values become 0, the mean of mean-normalised features. Draws come from torch's generator of the
    features' device.

    Args:
        num_time_masks: stripes of frames.
        max_time_frames: largest width of one, in frames.
        num_freq_masks: stripes of bins.
        max_freq_bins: largest width of one, in bins.

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
        """The features with stripes masked; unchanged outside training.

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
        in_time = _stripes(self.num_time_masks, self.max_time_frames, sizes, frames)
        all_bins = torch.full((batch,), bins, device=features.device)
        in_freq = _stripes(self.num_freq_masks, self.max_freq_bins, all_bins, bins)
        return features.masked_fill(in_time[:, :, None] | in_freq[:, None, :], 0.0)


def _stripes(count: int, widest: int, sizes: Tensor, axis_length: int) -> Tensor:
    """Bool `[B, axis_length]`: true within any of `count` stripes drawn inside each utterance's `sizes`."""
    drawn = torch.rand(2, len(sizes), count, device=sizes.device)
    largest = sizes.clamp(max=widest)[:, None]
    width = (drawn[0] * (largest + 1)).long().clamp(max=largest)
    start = (drawn[1] * (sizes[:, None] - width + 1)).long().clamp(max=sizes[:, None] - width)
    position = torch.arange(axis_length, device=sizes.device)
    inside = (position >= start[..., None]) & (position < (start + width)[..., None])
    return inside.any(dim=1)
