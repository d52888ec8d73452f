"""What happens to a waveform on its way: speed, level, equalisation, band, clipping, codec, sample rate, lost packets.

Each effect is data with everything that was drawn, and a pure function of a waveform: `effect.apply(waveform,
sample_rate)` gives float32 `[samples]`, as long as before and in time with it (but for `Speed`), and leaves what it
got as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.codecs import apply_codec
from wesep_py.audio.resample import resample

Waveform = NDArray[np.float32]

BAND_ORDER = 8
# Zeros around a waveform that is filtered in the frequency domain, in seconds.
BAND_PADDING_S = 0.05


@dataclass(frozen=True)
class Speed:
    """Played `factor` times as fast, pitch and all: `[samples]` → `[⌈samples / factor⌉]`, but for rounding of the rate.

    Ko et al., "Audio augmentation for speech recognition" (Interspeech 2015).
    """

    factor: float
    kind: Literal["speed"] = "speed"

    def apply(self, waveform: Waveform, sample_rate: int) -> Waveform:
        """The waveform as if it had been recorded at `factor` times its rate."""
        return resample(waveform, round(self.factor * sample_rate), sample_rate)


@dataclass(frozen=True)
class Level:
    """A level that drifts from `begin_db` to `end_db`, evenly in dB."""

    begin_db: float
    end_db: float
    kind: Literal["level"] = "level"

    def gains(self, num_samples: int) -> Waveform:
        """The linear gain of each sample."""
        nepers_per_db = np.log(10.0) / 20
        return np.exp(
            np.linspace(self.begin_db * nepers_per_db, self.end_db * nepers_per_db, num_samples, dtype=np.float32)
        )

    def apply(self, waveform: Waveform, sample_rate: int) -> Waveform:
        """The waveform times the gains."""
        return waveform * self.gains(waveform.size)


@dataclass(frozen=True)
class Equalise:
    """A gentle random filter and two shelves.

    Args:
        coefficients: r1 to r4 of (1 + r1 z⁻¹ + r2 z⁻²) / (1 + r3 z⁻¹ + r4 z⁻²) (Valin, "A hybrid DSP/deep learning
            approach to real-time full-band speech enhancement", 2018).
        low_hz, low_db: corner and gain of the shelf below.
        high_hz, high_db: corner and gain of the shelf above. The shelves are of second order with slope 1
            (Bristow-Johnson, "Cookbook formulae for audio equalizer biquad filter coefficients").
    """

    coefficients: tuple[float, float, float, float]
    low_hz: float
    low_db: float
    high_hz: float
    high_db: float
    kind: Literal["equalise"] = "equalise"

    def sections(self, sample_rate: int) -> NDArray[np.float64]:
        """The filter as second-order sections, `[3, 6]`."""
        r1, r2, r3, r4 = self.coefficients
        low, high = shelf(self.low_hz, self.low_db, sample_rate), shelf(self.high_hz, self.high_db, sample_rate, True)
        return np.array([[1.0, r1, r2, 1.0, r3, r4], low, high])

    def apply(self, waveform: Waveform, sample_rate: int) -> Waveform:
        """The waveform through the filter."""
        from scipy.signal import sosfilt

        return sosfilt(self.sections(sample_rate), waveform).astype(np.float32)


@dataclass(frozen=True)
class BandLimit:
    """Only what lies between two frequencies, at which the magnitude is -3 dB (Butterworth's, order 8, without phase).

    Args:
        low_hz: 0 for no limit below.
        high_hz: at or above half the sample rate: no limit above.
    """

    low_hz: float
    high_hz: float
    kind: Literal["band_limit"] = "band_limit"

    def apply(self, waveform: Waveform, sample_rate: int) -> Waveform:
        """The waveform in its band; nothing is delayed."""
        from scipy.fft import irfft, next_fast_len, rfft

        size = next_fast_len(waveform.size + round(BAND_PADDING_S * sample_rate), real=True)
        frequencies = np.arange(size // 2 + 1, dtype=np.float32) * np.float32(sample_rate / size)
        power = np.ones_like(frequencies)
        if self.high_hz < sample_rate / 2:
            power /= 1 + (frequencies / np.float32(self.high_hz)) ** (2 * BAND_ORDER)
        if self.low_hz > 0:
            rising = (frequencies / np.float32(self.low_hz)) ** (2 * BAND_ORDER)
            power *= 1 - 1 / (1 + rising)
        return irfft(rfft(waveform, size) * np.sqrt(power), size)[: waveform.size].astype(np.float32)


@dataclass(frozen=True)
class Clip:
    """Everything beyond `fraction` (above 0, up to 1) of the largest absolute sample is cut off."""

    fraction: float
    kind: Literal["clip"] = "clip"

    def apply(self, waveform: Waveform, sample_rate: int) -> Waveform:
        """The waveform, clipped."""
        limit = np.float32(self.fraction) * np.abs(waveform).max(initial=np.float32(0))
        return np.clip(waveform, -limit, limit)


@dataclass(frozen=True)
class Code:
    """Through a codec and back; see `audio.codecs.apply_codec`."""

    codec: str
    compression: float
    rate_hz: int
    kind: Literal["codec"] = "codec"

    def apply(self, waveform: Waveform, sample_rate: int) -> Waveform:
        """The waveform as the codec leaves it, its delay taken out."""
        return apply_codec(waveform, sample_rate, self.codec, self.compression, self.rate_hz)


@dataclass(frozen=True)
class Resample:
    """Down to a lower sample rate and back."""

    rate_hz: int
    kind: Literal["resample"] = "resample"

    def apply(self, waveform: Waveform, sample_rate: int) -> Waveform:
        """The waveform without what the lower rate cannot hold."""
        return resample(resample(waveform, sample_rate, self.rate_hz), self.rate_hz, sample_rate)[: waveform.size]


@dataclass(frozen=True)
class LosePackets:
    """Some packets are silent.

    Args:
        packet_ms: length of a packet.
        share: probability with which each is lost, by itself.
        seed: of the random numbers that say which.
    """

    packet_ms: float
    share: float
    seed: int
    kind: Literal["packet_loss"] = "packet_loss"

    def apply(self, waveform: Waveform, sample_rate: int) -> Waveform:
        """The waveform with its gaps."""
        length = max(1, round(self.packet_ms * sample_rate / 1000))
        kept = np.random.default_rng(self.seed).random(-(-waveform.size // length)) >= self.share
        return waveform * np.repeat(kept, length)[: waveform.size]


Effect = Speed | Level | Equalise | BandLimit | Clip | Code | Resample | LosePackets


def apply_effects(waveform: Waveform, effects: Sequence[Effect], sample_rate: int) -> Waveform:
    """A waveform `[samples]` through one effect after the other; itself where there is none.

    >>> apply_effects(np.array([0.5, -1.0], np.float32), [Clip(0.5)], 16000).tolist()
    [0.5, -0.5]
    """
    for effect in effects:
        waveform = effect.apply(waveform, sample_rate)
    return waveform


def shelf(corner_hz: float, gain_db: float, sample_rate: int, is_high: bool = False) -> tuple[float, ...]:
    """A second-order shelf of slope 1: `b0, b1, b2, 1, a1, a2`; half the dB at its corner, at most 0.45 of the rate."""
    amplitude = 10.0 ** (gain_db / 40)
    omega = 2 * np.pi * min(corner_hz, 0.45 * sample_rate) / sample_rate
    # A high shelf is a low shelf mirrored at a quarter of the sample rate: cos changes its sign.
    cosine = -np.cos(omega) if is_high else np.cos(omega)
    slope = np.sqrt(2 * amplitude) * np.sin(omega)
    more, less = amplitude + 1, amplitude - 1
    b0, b1, b2 = (
        amplitude * (more - less * cosine + slope),
        2 * amplitude * (less - more * cosine),
        amplitude * (more - less * cosine - slope),
    )
    a0, a1, a2 = more + less * cosine + slope, -2 * (less + more * cosine), more + less * cosine - slope
    if is_high:
        b1, a1 = -b1, -a1
    return tuple(float(value) for value in (b0 / a0, b1 / a0, b2 / a0, 1.0, a1 / a0, a2 / a0))
