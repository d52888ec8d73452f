"""Effects on a waveform, and the configurations that they are drawn from.

The first half holds the effects: speed, level, equalisation, band limit, clipping, codec, sample rate, packet loss.
Each is a frozen dataclass with every drawn parameter, and a pure function of a waveform: `effect.apply(waveform,
sample_rate)` returns float32 `[samples]` of the same length and timing (except `SpeedChange`, which changes the
length), and does not modify its input. The second half holds a `…Config` per effect, with its probability and ranges,
and `EffectsConfig`, which draws them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.codecs import CODECS, apply_codec, codec_rate
from wesep_py.audio.resample import resample
from wesep_py.simulation.description.ranges import (
    Range,
    check_choice_weights,
    check_positive,
    check_probability,
    check_range,
    choose,
)

Waveform = NDArray[np.float32]
BAND_ORDER = 8
BAND_PADDING_S = 0.05
"""Zeros appended before filtering in the frequency domain, so that the filter does not wrap around, in seconds."""


@dataclass(frozen=True)
class SpeedChange:
    """Speed and pitch changed by `factor`: `[samples]` → `[⌈samples / factor⌉]`, up to rounding of the rate.

    Ko et al., "Audio augmentation for speech recognition" (Interspeech 2015).
    """

    factor: float
    kind: Literal["speed"] = "speed"

    def apply(self, waveform: Waveform, sample_rate: int) -> Waveform:
        """Resample the waveform as if it had been recorded at `factor` times its rate."""
        return resample(waveform, round(self.factor * sample_rate), sample_rate)


@dataclass(frozen=True)
class LevelDrift:
    """Gain that changes from `begin_db` to `end_db`, linearly in dB."""

    begin_db: float
    end_db: float
    kind: Literal["level"] = "level"

    def gains(self, num_samples: int) -> Waveform:
        """Return the linear gain of each sample, float32 `[num_samples]`."""
        nepers_per_db = np.log(10.0) / 20
        return np.exp(
            np.linspace(self.begin_db * nepers_per_db, self.end_db * nepers_per_db, num_samples, dtype=np.float32)
        )

    def apply(self, waveform: Waveform, sample_rate: int) -> Waveform:
        """Multiply the waveform by the gains."""
        return waveform * self.gains(waveform.size)


@dataclass(frozen=True)
class Equalisation:
    """Mild random second-order filter, a low shelf and a high shelf.

    Args:
        coefficients: r1 to r4 of (1 + r1 z⁻¹ + r2 z⁻²) / (1 + r3 z⁻¹ + r4 z⁻²) (Valin, "A hybrid DSP/deep learning
            approach to real-time full-band speech enhancement", 2018).
        low_hz, low_db: corner frequency and gain of the low shelf.
        high_hz, high_db: corner frequency and gain of the high shelf. Both shelves are of second order with slope 1
            (Bristow-Johnson, "Cookbook formulae for audio equalizer biquad filter coefficients").
    """

    coefficients: tuple[float, float, float, float]
    low_hz: float
    low_db: float
    high_hz: float
    high_db: float
    kind: Literal["equalise"] = "equalise"

    def sections(self, sample_rate: int) -> NDArray[np.float64]:
        """Return the filter as second-order sections, `[3, 6]`."""
        r1, r2, r3, r4 = self.coefficients
        low = shelf_section(self.low_hz, self.low_db, sample_rate)
        high = shelf_section(self.high_hz, self.high_db, sample_rate, True)
        return np.array([[1.0, r1, r2, 1.0, r3, r4], low, high])

    def apply(self, waveform: Waveform, sample_rate: int) -> Waveform:
        """Filter the waveform."""
        from scipy.signal import sosfilt

        return sosfilt(self.sections(sample_rate), waveform).astype(np.float32)


@dataclass(frozen=True)
class BandLimit:
    """Zero-phase band-pass with a Butterworth magnitude of order 8: -3 dB at the two frequencies.

    Args:
        low_hz: lower frequency; 0: no lower limit.
        high_hz: upper frequency; at or above half the sample rate: no upper limit.
    """

    low_hz: float
    high_hz: float
    kind: Literal["band_limit"] = "band_limit"

    def apply(self, waveform: Waveform, sample_rate: int) -> Waveform:
        """Filter the waveform without delay."""
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
class Clipping:
    """Hard clipping at `fraction` (above 0, up to 1) of the largest absolute sample."""

    fraction: float
    kind: Literal["clip"] = "clip"

    def apply(self, waveform: Waveform, sample_rate: int) -> Waveform:
        """Clip the waveform."""
        limit = np.float32(self.fraction) * np.abs(waveform).max(initial=np.float32(0))
        return np.clip(waveform, -limit, limit)


@dataclass(frozen=True)
class CodecRoundTrip:
    """Encoding and decoding with a lossy codec; see `audio.codecs.apply_codec`."""

    codec: str
    compression: float
    rate_hz: int
    kind: Literal["codec"] = "codec"

    def apply(self, waveform: Waveform, sample_rate: int) -> Waveform:
        """Encode and decode the waveform; the codec's delay is removed."""
        return apply_codec(waveform, sample_rate, self.codec, self.compression, self.rate_hz)


@dataclass(frozen=True)
class ResampleRoundTrip:
    """Resampling to a lower rate and back, which removes high frequencies."""

    rate_hz: int
    kind: Literal["resample"] = "resample"

    def apply(self, waveform: Waveform, sample_rate: int) -> Waveform:
        """Resample the waveform to the lower rate and back."""
        return resample(resample(waveform, sample_rate, self.rate_hz), self.rate_hz, sample_rate)[: waveform.size]


@dataclass(frozen=True)
class PacketLoss:
    """Packets replaced by silence.

    Args:
        packet_ms: length of a packet in milliseconds.
        share: probability with which each packet is lost, independently.
        seed: seed of the random numbers that choose the lost packets.
    """

    packet_ms: float
    share: float
    seed: int
    kind: Literal["packet_loss"] = "packet_loss"

    def apply(self, waveform: Waveform, sample_rate: int) -> Waveform:
        """Set the lost packets to zero."""
        length = max(1, round(self.packet_ms * sample_rate / 1000))
        received = np.random.default_rng(self.seed).random(-(-waveform.size // length)) >= self.share
        return waveform * np.repeat(received, length)[: waveform.size]


Effect = (
    SpeedChange | LevelDrift | Equalisation | BandLimit | Clipping | CodecRoundTrip | ResampleRoundTrip | PacketLoss
)


def apply_effects(waveform: Waveform, effects: Sequence[Effect], sample_rate: int) -> Waveform:
    """Apply effects to a waveform `[samples]`, one after the other; without effects return the waveform itself.

    >>> apply_effects(np.array([0.5, -1.0], np.float32), [Clipping(0.5)], 16000).tolist()
    [0.5, -0.5]
    """
    for effect in effects:
        waveform = effect.apply(waveform, sample_rate)
    return waveform


def shelf_section(corner_hz: float, gain_db: float, sample_rate: int, is_high: bool = False) -> tuple[float, ...]:
    """Return a second-order shelf of slope 1 as `b0, b1, b2, 1, a1, a2`.

    The gain at the corner is half of `gain_db`; corners above 0.45 of the sample rate are lowered to that.
    """
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


# The compression is drawn in steps of 0.1, because the delay of a codec is measured once per compression.
COMPRESSION_DECIMALS = 1
SPEED_DECIMALS = 2
DEFAULT_CODECS = {"opus": 1.0, "vorbis": 1.0, "mp3": 1.0, "ulaw": 1.0, "alaw": 1.0, "gsm": 1.0}


@dataclass(frozen=True)
class SpeedConfig:
    """Change of speed and pitch; of enrollments only.

    Args:
        probability: probability of this effect, 0 to 1.
        factor: range of the speed factor, in steps of 0.01; above 1 is faster.
    """

    probability: float = 1.0
    factor: Range = (0.9, 1.1)

    def __post_init__(self) -> None:
        check_probability("probability", self.probability)
        check_range("factor", self.factor, low=0.5, high=2.0)

    def draw(self, rng: np.random.Generator, sample_rate: int) -> Effect:
        """Draw the parameters of this effect."""
        return SpeedChange(round(float(rng.uniform(*self.factor)), SPEED_DECIMALS))


@dataclass(frozen=True)
class LevelConfig:
    """Level that drifts.

    Args:
        probability: probability of this effect, 0 to 1.
        change_db: range from which the gain at the beginning and the gain at the end are drawn, independently.
    """

    probability: float = 1.0
    change_db: Range = (-3.0, 3.0)

    def __post_init__(self) -> None:
        check_probability("probability", self.probability)
        check_range("change_db", self.change_db, low=-60.0, high=60.0)

    def draw(self, rng: np.random.Generator, sample_rate: int) -> Effect:
        """Draw the parameters of this effect."""
        return LevelDrift(float(rng.uniform(*self.change_db)), float(rng.uniform(*self.change_db)))


@dataclass(frozen=True)
class EqualiseConfig:
    """Random second-order filter, with a low and a high shelf.

    Args:
        probability: probability of this effect, 0 to 1.
        coefficient: largest absolute value of the filter's four coefficients, 0 to 0.45; Valin (2018) uses 3/8.
        shelf_db: range of the gain of each shelf.
        low_hz, high_hz: ranges of the corner frequencies of the shelves.
    """

    probability: float = 1.0
    coefficient: float = 0.375
    shelf_db: Range = (-6.0, 6.0)
    low_hz: Range = (100.0, 500.0)
    high_hz: Range = (2000.0, 6000.0)

    def __post_init__(self) -> None:
        check_probability("probability", self.probability)
        check_range("shelf_db", self.shelf_db, low=-40.0, high=40.0)
        check_range("low_hz", self.low_hz, low=10.0)
        check_range("high_hz", self.high_hz, low=10.0)
        if not 0 <= self.coefficient <= 0.45:  # with |r3| + |r4| < 1 the filter is stable
            raise ValueError(f"coefficient: is {self.coefficient}; 0 to 0.45 is allowed")

    def draw(self, rng: np.random.Generator, sample_rate: int) -> Effect:
        """Draw the parameters of this effect."""
        r1, r2, r3, r4 = (float(value) for value in rng.uniform(-self.coefficient, self.coefficient, 4))
        low, high = float(rng.uniform(*self.low_hz)), float(rng.uniform(*self.high_hz))
        low_db, high_db = float(rng.uniform(*self.shelf_db)), float(rng.uniform(*self.shelf_db))
        return Equalisation((r1, r2, r3, r4), low, low_db, high, high_db)


@dataclass(frozen=True)
class BandLimitConfig:
    """Band limit, as of a telephone.

    Args:
        probability: probability of this effect, 0 to 1.
        low_hz, high_hz: ranges of the lower and the upper frequency.
    """

    probability: float = 1.0
    low_hz: Range = (50.0, 300.0)
    high_hz: Range = (3000.0, 7500.0)

    def __post_init__(self) -> None:
        check_probability("probability", self.probability)
        check_range("low_hz", self.low_hz, low=0.0)
        check_range("high_hz", self.high_hz, low=max(500.0, self.low_hz[1]))

    def draw(self, rng: np.random.Generator, sample_rate: int) -> Effect:
        """Draw the parameters of this effect."""
        return BandLimit(float(rng.uniform(*self.low_hz)), float(rng.uniform(*self.high_hz)))


@dataclass(frozen=True)
class ClipConfig:
    """Hard clipping.

    Args:
        probability: probability of this effect, 0 to 1.
        below_peak_db: range of the clipping level, in dB below the largest absolute sample.
    """

    probability: float = 1.0
    below_peak_db: Range = (1.0, 12.0)

    def __post_init__(self) -> None:
        check_probability("probability", self.probability)
        check_range("below_peak_db", self.below_peak_db, low=0.0, high=40.0)

    def draw(self, rng: np.random.Generator, sample_rate: int) -> Effect:
        """Draw the parameters of this effect."""
        return Clipping(float(10.0 ** (-rng.uniform(*self.below_peak_db) / 20)))


@dataclass(frozen=True)
class CodecConfig:
    """Encoding and decoding with a codec.

    Args:
        probability: probability of this effect, 0 to 1.
        codecs: weights of `opus`, `vorbis`, `mp3`, `ulaw`, `alaw`, `gsm`, `g721`, `g723`, `vox`, `ima_adpcm`,
            `ms_adpcm`. Telephone codecs (from `ulaw` to `vox`) run at 8 kHz.
        compression: range for `opus`, `vorbis` and `mp3`: 0 (most bits) to 0.9, drawn in steps of 0.1.
    """

    probability: float = 1.0
    codecs: dict[str, float] = field(default_factory=lambda: dict(DEFAULT_CODECS))
    compression: Range = (0.3, 0.9)

    def __post_init__(self) -> None:
        check_probability("probability", self.probability)
        check_range("compression", self.compression, low=0.0, high=0.9)
        object.__setattr__(self, "codecs", check_choice_weights("codecs", self.codecs, tuple(CODECS)))

    def draw(self, rng: np.random.Generator, sample_rate: int) -> Effect:
        """Draw the parameters of this effect."""
        name = choose(self.codecs, rng)
        compression = round(float(rng.uniform(*self.compression)), COMPRESSION_DECIMALS)
        return CodecRoundTrip(name, compression if CODECS[name].has_compression else 0.0, codec_rate(name, sample_rate))


@dataclass(frozen=True)
class ResampleConfig:
    """Resampling to a lower rate and back.

    Args:
        probability: probability of this effect, 0 to 1.
        rates_hz: the rates, equally likely; a rate that is not below that of the mixture changes nothing.
    """

    probability: float = 1.0
    rates_hz: tuple[int, ...] = (8000,)

    def __post_init__(self) -> None:
        check_probability("probability", self.probability)
        if not self.rates_hz or min(self.rates_hz) < 1000:
            raise ValueError(f"rates_hz: is {list(self.rates_hz)}; give one rate or more, each 1000 Hz or more")

    def draw(self, rng: np.random.Generator, sample_rate: int) -> Effect:
        """Draw the parameters of this effect."""
        return ResampleRoundTrip(min(self.rates_hz[int(rng.integers(len(self.rates_hz)))], sample_rate))


@dataclass(frozen=True)
class PacketLossConfig:
    """Lost packets, which leave silence.

    Args:
        probability: probability of this effect, 0 to 1.
        packet_ms: length of a packet in milliseconds.
        share: range of the probability with which each packet is lost, 0 to 0.5.
    """

    probability: float = 1.0
    packet_ms: float = 20.0
    share: Range = (0.01, 0.1)

    def __post_init__(self) -> None:
        check_probability("probability", self.probability)
        check_positive("packet_ms", self.packet_ms)
        check_range("share", self.share, low=0.0, high=0.5)

    def draw(self, rng: np.random.Generator, sample_rate: int) -> Effect:
        """Draw the parameters of this effect."""
        return PacketLoss(self.packet_ms, float(rng.uniform(*self.share)), int(rng.integers(2**31)))


@dataclass(frozen=True)
class EffectsConfig:
    """Effects that may be applied to a waveform, in this order; null: never.

    Args:
        level: drifting level.
        equalise: random filter and shelves.
        band_limit: band limit.
        clip: hard clipping.
        codec: encoding and decoding.
        resample: lower sample rate and back.
        packet_loss: lost packets.
        speed: change of speed, before all others; of enrollments only, because it changes the length.

    >>> EffectsConfig(clip=ClipConfig(below_peak_db=(6.0, 6.0))).draw(np.random.default_rng(0), 16000)
    (Clipping(fraction=0.5011872336272722, kind='clip'),)
    """

    level: LevelConfig | None = None
    equalise: EqualiseConfig | None = None
    band_limit: BandLimitConfig | None = None
    clip: ClipConfig | None = None
    codec: CodecConfig | None = None
    resample: ResampleConfig | None = None
    packet_loss: PacketLossConfig | None = None
    speed: SpeedConfig | None = None

    def draw(self, rng: np.random.Generator, sample_rate: int) -> tuple[Effect, ...]:
        """Draw which effects are applied, and their parameters; `draw_speed` draws the speed.

        Args:
            rng: random numbers.
            sample_rate: of the waveform, in Hz.
        """
        configs = [getattr(self, field.name) for field in fields(self) if field.name != "speed"]
        chosen = [config for config in configs if config is not None and rng.random() < config.probability]
        return tuple(config.draw(rng, sample_rate) for config in chosen)

    def draw_speed(self, rng: np.random.Generator, sample_rate: int) -> tuple[Effect, ...]:
        """Draw the speed change, if there is one, as a tuple of one effect or none.

        The caller passes a generator of its own, so that the draws of the other effects do not depend on the speed.

        Args:
            rng, sample_rate: as for `draw`.
        """
        if self.speed is None or rng.random() >= self.speed.probability:
            return ()
        return (self.speed.draw(rng, sample_rate),)
