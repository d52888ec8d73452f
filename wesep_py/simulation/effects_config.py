"""Which effects may happen to a waveform, how often and how strongly, and the drawing of them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np

from wesep_py.audio.codecs import CODECS, codec_rate
from wesep_py.simulation.checks import Range, check_positive, check_probability, check_range, check_weights
from wesep_py.simulation.effects import BandLimit, Clip, Code, Effect, Equalise, Level, LosePackets, Resample, Speed
from wesep_py.simulation.weights import choose

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
        return Speed(round(float(rng.uniform(*self.factor)), SPEED_DECIMALS))


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
        return Level(float(rng.uniform(*self.change_db)), float(rng.uniform(*self.change_db)))


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
        return Equalise((r1, r2, r3, r4), low, low_db, high, high_db)


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
        return Clip(float(10.0 ** (-rng.uniform(*self.below_peak_db) / 20)))


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
        return Code(name, compression if CODECS[name].has_compression else 0.0, codec_rate(name, sample_rate))


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
        return Resample(min(self.rates_hz[int(rng.integers(len(self.rates_hz)))], sample_rate))


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
        return LosePackets(self.packet_ms, float(rng.uniform(*self.share)), int(rng.integers(2**31)))


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
    (Clip(fraction=0.5011872336272722, kind='clip'),)
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
