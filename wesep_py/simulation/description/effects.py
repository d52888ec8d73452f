"""Which effects may happen to a waveform, how often and how strongly, and the drawing of them."""

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
    check_positive,
    check_probability,
    check_range,
    check_weights,
    choose,
)

# ----------------------------------------
# What happens to a waveform on its way: speed, level, equalisation, band, clipping, codec, sample rate, lost packets.
#
# Each effect is data with everything that was drawn, and a pure function of a waveform: `effect.apply(waveform,
# sample_rate)` gives float32 `[samples]`, as long as before and in time with it (but for `SpeedChange`), and leaves what it
# got as it was.

Waveform = NDArray[np.float32]
BAND_ORDER = 8
# Zeros around a waveform that is filtered in the frequency domain, in seconds.
BAND_PADDING_S = 0.05


@dataclass(frozen=True)
class SpeedChange:
    """Played `factor` times as fast, pitch and all: `[samples]` → `[⌈samples / factor⌉]`, but for rounding of the rate.

    Ko et al., "Audio augmentation for speech recognition" (Interspeech 2015).
    """

    factor: float
    kind: Literal["speed"] = "speed"

    def apply(self, waveform: Waveform, sample_rate: int) -> Waveform:
        """The waveform as if it had been recorded at `factor` times its rate."""
        return resample(waveform, round(self.factor * sample_rate), sample_rate)


@dataclass(frozen=True)
class LevelDrift:
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
class Equalisation:
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
class Clipping:
    """Everything beyond `fraction` (above 0, up to 1) of the largest absolute sample is cut off."""

    fraction: float
    kind: Literal["clip"] = "clip"

    def apply(self, waveform: Waveform, sample_rate: int) -> Waveform:
        """The waveform, clipped."""
        limit = np.float32(self.fraction) * np.abs(waveform).max(initial=np.float32(0))
        return np.clip(waveform, -limit, limit)


@dataclass(frozen=True)
class CodecRoundTrip:
    """Through a codec and back; see `audio.codecs.apply_codec`."""

    codec: str
    compression: float
    rate_hz: int
    kind: Literal["codec"] = "codec"

    def apply(self, waveform: Waveform, sample_rate: int) -> Waveform:
        """The waveform as the codec leaves it, its delay taken out."""
        return apply_codec(waveform, sample_rate, self.codec, self.compression, self.rate_hz)


@dataclass(frozen=True)
class ResampleRoundTrip:
    """Down to a lower sample rate and back."""

    rate_hz: int
    kind: Literal["resample"] = "resample"

    def apply(self, waveform: Waveform, sample_rate: int) -> Waveform:
        """The waveform without what the lower rate cannot hold."""
        return resample(resample(waveform, sample_rate, self.rate_hz), self.rate_hz, sample_rate)[: waveform.size]


@dataclass(frozen=True)
class PacketLoss:
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


Effect = SpeedChange | LevelDrift | Equalisation | BandLimit | Clipping | CodecRoundTrip | ResampleRoundTrip | PacketLoss


def apply_effects(waveform: Waveform, effects: Sequence[Effect], sample_rate: int) -> Waveform:
    """A waveform `[samples]` through one effect after the other; itself where there is none.

    >>> apply_effects(np.array([0.5, -1.0], np.float32), [Clipping(0.5)], 16000).tolist()
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


# Steps of the compression that is drawn: the delay of a codec is measured once a step.
COMPRESSION_DECIMALS = 1
# Speeds are drawn in steps of a hundredth.
SPEED_DECIMALS = 2
DEFAULT_CODECS = {"opus": 1.0, "vorbis": 1.0, "mp3": 1.0, "ulaw": 1.0, "alaw": 1.0, "gsm": 1.0}


@dataclass(frozen=True)
class SpeedConfig:
    """Another speed, at which pitch and all change with it; of enrollments.

    Args:
        probability: with which this effect happens.
        factor: range of how much faster than recorded it is played, in steps of 0.01.
    """

    probability: float = 1.0
    factor: Range = (0.9, 1.1)

    def __post_init__(self) -> None:
        check_probability("probability", self.probability)
        check_range("factor", self.factor, low=0.5, high=2.0)

    def draw(self, rng: np.random.Generator, sample_rate: int) -> Effect:
        """The effect, drawn."""
        return SpeedChange(round(float(rng.uniform(*self.factor)), SPEED_DECIMALS))


@dataclass(frozen=True)
class LevelConfig:
    """A level that drifts.

    Args:
        probability: with which this effect happens.
        change_db: range from which the gain at the beginning and the one at the end are drawn, each by itself.
    """

    probability: float = 1.0
    change_db: Range = (-3.0, 3.0)

    def __post_init__(self) -> None:
        check_probability("probability", self.probability)
        check_range("change_db", self.change_db, low=-60.0, high=60.0)

    def draw(self, rng: np.random.Generator, sample_rate: int) -> Effect:
        """The effect, drawn."""
        return LevelDrift(float(rng.uniform(*self.change_db)), float(rng.uniform(*self.change_db)))


@dataclass(frozen=True)
class EqualiseConfig:
    """A random filter of second order, and a shelf below and above.

    Args:
        probability: with which this effect happens.
        coefficient: the filter's four coefficients are drawn up to this size, 0 to 0.45; Valin (2018) has 3/8.
        shelf_db: range of the gain of either shelf.
        low_hz, high_hz: ranges of the shelves' corners.
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
            raise ValueError(f"coefficient: is {self.coefficient}; give 0 to 0.45")

    def draw(self, rng: np.random.Generator, sample_rate: int) -> Effect:
        """The effect, drawn."""
        r1, r2, r3, r4 = (float(value) for value in rng.uniform(-self.coefficient, self.coefficient, 4))
        low, high = float(rng.uniform(*self.low_hz)), float(rng.uniform(*self.high_hz))
        low_db, high_db = float(rng.uniform(*self.shelf_db)), float(rng.uniform(*self.shelf_db))
        return Equalisation((r1, r2, r3, r4), low, low_db, high, high_db)


@dataclass(frozen=True)
class BandLimitConfig:
    """A band, as of a telephone.

    Args:
        probability: with which this effect happens.
        low_hz, high_hz: ranges of the band's limits.
    """

    probability: float = 1.0
    low_hz: Range = (50.0, 300.0)
    high_hz: Range = (3000.0, 7500.0)

    def __post_init__(self) -> None:
        check_probability("probability", self.probability)
        check_range("low_hz", self.low_hz, low=0.0)
        check_range("high_hz", self.high_hz, low=max(500.0, self.low_hz[1]))

    def draw(self, rng: np.random.Generator, sample_rate: int) -> Effect:
        """The effect, drawn."""
        return BandLimit(float(rng.uniform(*self.low_hz)), float(rng.uniform(*self.high_hz)))


@dataclass(frozen=True)
class ClipConfig:
    """Hard clipping.

    Args:
        probability: with which this effect happens.
        below_peak_db: range of the clipping level, in dB below the largest absolute sample.
    """

    probability: float = 1.0
    below_peak_db: Range = (1.0, 12.0)

    def __post_init__(self) -> None:
        check_probability("probability", self.probability)
        check_range("below_peak_db", self.below_peak_db, low=0.0, high=40.0)

    def draw(self, rng: np.random.Generator, sample_rate: int) -> Effect:
        """The effect, drawn."""
        return Clipping(float(10.0 ** (-rng.uniform(*self.below_peak_db) / 20)))


@dataclass(frozen=True)
class CodecConfig:
    """A codec, and back.

    Args:
        probability: with which this effect happens.
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
        object.__setattr__(self, "codecs", check_weights("codecs", self.codecs, tuple(CODECS)))

    def draw(self, rng: np.random.Generator, sample_rate: int) -> Effect:
        """The effect, drawn."""
        name = choose(self.codecs, rng)
        compression = round(float(rng.uniform(*self.compression)), COMPRESSION_DECIMALS)
        return CodecRoundTrip(name, compression if CODECS[name].has_compression else 0.0, codec_rate(name, sample_rate))


@dataclass(frozen=True)
class ResampleConfig:
    """A lower sample rate, and back.

    Args:
        probability: with which this effect happens.
        rates_hz: the rates, equally likely; those that are not below the mixture's own change nothing.
    """

    probability: float = 1.0
    rates_hz: tuple[int, ...] = (8000,)

    def __post_init__(self) -> None:
        check_probability("probability", self.probability)
        if not self.rates_hz or min(self.rates_hz) < 1000:
            raise ValueError(f"rates_hz: is {list(self.rates_hz)}; give one rate or more, each 1000 Hz or more")

    def draw(self, rng: np.random.Generator, sample_rate: int) -> Effect:
        """The effect, drawn."""
        return ResampleRoundTrip(min(self.rates_hz[int(rng.integers(len(self.rates_hz)))], sample_rate))


@dataclass(frozen=True)
class PacketLossConfig:
    """Packets that do not arrive, and leave silence.

    Args:
        probability: with which this effect happens.
        packet_ms: length of a packet in milliseconds.
        share: range of the probability with which each packet is lost.
    """

    probability: float = 1.0
    packet_ms: float = 20.0
    share: Range = (0.01, 0.1)

    def __post_init__(self) -> None:
        check_probability("probability", self.probability)
        check_positive("packet_ms", self.packet_ms)
        check_range("share", self.share, low=0.0, high=0.5)

    def draw(self, rng: np.random.Generator, sample_rate: int) -> Effect:
        """The effect, drawn."""
        return PacketLoss(self.packet_ms, float(rng.uniform(*self.share)), int(rng.integers(2**31)))


@dataclass(frozen=True)
class EffectsConfig:
    """The effects that may happen to a waveform, in this order; null: never.

    Args:
        level: a drifting level.
        equalise: a random filter and shelves.
        band_limit: a band.
        clip: hard clipping.
        codec: a codec and back.
        resample: a lower sample rate and back.
        packet_loss: gaps.
        speed: another speed, before everything else; of enrollments alone, whose length it changes.

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
        """The effects that happen, drawn; `draw_speed` has the speed.

        Args:
            rng: what is drawn comes from here.
            sample_rate: of the waveform, in Hz.
        """
        kinds = [getattr(self, kind.name) for kind in fields(self) if kind.name != "speed"]
        happening = [kind for kind in kinds if kind is not None and rng.random() < kind.probability]
        return tuple(kind.draw(rng, sample_rate) for kind in happening)

    def draw_speed(self, rng: np.random.Generator, sample_rate: int) -> tuple[Effect, ...]:
        """The speed, where there is one; from random numbers of its own, so that the other effects stay as they are.

        Args:
            rng, sample_rate: as for `draw`.
        """
        if self.speed is None or rng.random() >= self.speed.probability:
            return ()
        return (self.speed.draw(rng, sample_rate),)
