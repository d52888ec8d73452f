"""What a simulated mixture may look like: ranges and weights from which every mixture is drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from wesep_py.errors import nearest

OVERLAPS = ("full", "longest", "partial")
NOISE_KINDS = ("recording", "coloured", "babble")
MAX_SPEAKERS = 4

Range = tuple[float, float]


def _check_range(name: str, value: Range, low: float = -math.inf, high: float = math.inf) -> None:
    if not (low <= value[0] <= value[1] <= high):
        limits = f"{low:g} ≤ " if low > -math.inf else ""
        upper = f" ≤ {high:g}" if high < math.inf else ""
        raise ValueError(f"{name}: is {list(value)}; give [low, high] with {limits}low ≤ high{upper}")


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name}: is {value}; a number above 0 is needed")


def _check_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: is {value}; a probability between 0 and 1 is needed")


def _check_weights(name: str, weights: Mapping[Any, Any], allowed: tuple[Any, ...]) -> dict[Any, float]:
    """The weights with keys of the allowed kind, or a ValueError that says which entry is wrong."""
    checked: dict[Any, float] = {}
    for given, weight in weights.items():
        known = {str(key): key for key in allowed}
        if str(given) not in known:
            raise ValueError(f"{name}: no choice is called {given!r}; {nearest(str(given), known)}")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise ValueError(f"{name}.{given}: is {weight!r}; a weight of 0 or more is needed")
        checked[known[str(given)]] = float(weight)
    if sum(checked.values()) <= 0:
        raise ValueError(f"{name}: has no weight above 0; give one to at least one of {', '.join(map(str, allowed))}")
    return checked


@dataclass(frozen=True)
class EnrollmentConfig:
    """The enrollment that each speaker of a mixture comes with.

    Args:
        duration_s: range of the length of one stretch. A speaker without a recording that long gives the
            longest that there is.
        count: number of stretches, each of another utterance where the speaker has so many; they are joined
            in time. 0 for mixtures that need no enrollment.
        level_db: range of the level over active samples, in dB relative to full scale.
        gap_s: least distance between enrollment and mixture excerpt, where both are from one recording.
    """

    duration_s: Range = (3.0, 6.0)
    count: int = 1
    level_db: Range = (-33.0, -20.0)
    gap_s: float = 0.5

    def __post_init__(self) -> None:
        _check_range("duration_s", self.duration_s, low=0.5)
        _check_range("level_db", self.level_db, high=0.0)
        if self.count < 0:
            raise ValueError(f"count: is {self.count}; a whole number of 0 or more is needed")
        if not 0 <= self.gap_s < math.inf:
            raise ValueError(f"gap_s: is {self.gap_s}; 0 or more seconds are needed")


@dataclass(frozen=True)
class NoiseConfig:
    """Noise that is added to the speech.

    Args:
        probability: share of the mixtures that have noise.
        snr_db: range of the level of all speech together to that of the noise, both over active samples.
        kinds: weights of `recording` (cut or looped from the noise recordings given), `coloured` (Gaussian
            with a sloping spectrum) and `babble` (several other speakers at once).
        slope_db: range of the spectral slope of coloured noise in dB per octave: 0 white, -3 pink, -6 brown.
        babble_speakers: range of the number of speakers in babble.
    """

    probability: float = 0.0
    snr_db: Range = (0.0, 20.0)
    kinds: dict[str, float] = field(default_factory=lambda: {"recording": 1.0})
    slope_db: Range = (-6.0, 0.0)
    babble_speakers: tuple[int, int] = (4, 8)

    def __post_init__(self) -> None:
        _check_probability("probability", self.probability)
        _check_range("snr_db", self.snr_db)
        _check_range("slope_db", self.slope_db, low=-12.0, high=12.0)
        _check_range("babble_speakers", self.babble_speakers, low=1, high=32)
        object.__setattr__(self, "kinds", _check_weights("kinds", self.kinds, NOISE_KINDS))


@dataclass(frozen=True)
class RoomConfig:
    """Shoebox rooms in which all sources of a mixture stand together.

    Args:
        probability: share of the mixtures that are in a room; the others are anechoic.
        rt60_s: range of the time in which the reverberation falls by 60 dB.
        length_m, width_m, height_m: ranges of the room's size.
        distance_m: range of the distance from source to microphone; shorter where the room is small.
        early_ms: reflections up to this long after the direct path belong to the early part.
        num_reflections: number of virtual sources of each response.
    """

    probability: float = 1.0
    rt60_s: Range = (0.2, 0.7)
    length_m: Range = (3.0, 9.0)
    width_m: Range = (3.0, 7.0)
    height_m: Range = (2.4, 3.5)
    distance_m: Range = (0.5, 3.0)
    early_ms: float = 50.0
    num_reflections: int = 2048

    def __post_init__(self) -> None:
        _check_probability("probability", self.probability)
        _check_range("rt60_s", self.rt60_s, low=0.05, high=3.0)
        for name in ("length_m", "width_m", "height_m"):
            _check_range(name, getattr(self, name), low=2.0, high=100.0)
        _check_range("distance_m", self.distance_m, low=0.1, high=50.0)
        _check_positive("early_ms", self.early_ms)
        if not 64 <= self.num_reflections <= 65536:
            raise ValueError(f"num_reflections: is {self.num_reflections}; give 64 to 65536")


@dataclass(frozen=True)
class SimulationConfig:
    """How mixtures are drawn.

    Args:
        duration_s: length of every mixture; null: whole utterances, and the mixture is as long as these make
            it.
        num_speakers: a number, or weights of the numbers 1 to 4.
        overlap: a kind, or weights of the kinds. `full`: everybody speaks from start to end (LibriMix's
            "min"); `longest`: one speaks all along, the others part of it ("max"); `partial`: one after the
            other, each starting before the one before ends.
        overlap_ratio: range for `partial`: overlapped length / length of the shorter of two neighbours.
        sir_db: range of the level of the target to each interferer, over active samples; positive: target
            louder.
        level_db: range of the level of the mixture over active samples, in dB relative to full scale.
        peak: largest absolute sample of mixture and parts; all parts are scaled down together where it is
            exceeded.
        min_source_s: shortest excerpt of a source where its length is drawn.
        noise: noise; null: none.
        room: rooms; null: none.
        target: what is to be extracted: `dry` (the source as recorded, in time with the direct path), `early`
            (direct path and early reflections), or `full` (all that arrives: the image).
        enrollment: the enrollments.

    Raises:
        ValueError: a value out of its range; one line that names the key.

    >>> SimulationConfig(num_speakers={1: 1, 2: 3}).num_speakers
    {1: 1.0, 2: 3.0}
    """

    duration_s: float | None = 3.0
    num_speakers: int | dict[int, float] = 2
    overlap: str | dict[str, float] = "full"
    overlap_ratio: Range = (0.2, 0.8)
    sir_db: Range = (-5.0, 5.0)
    level_db: Range = (-33.0, -20.0)
    peak: float = 0.9
    min_source_s: float = 1.0
    noise: NoiseConfig | None = None
    room: RoomConfig | None = None
    target: Literal["dry", "early", "full"] = "full"
    enrollment: EnrollmentConfig = field(default_factory=EnrollmentConfig)

    def __post_init__(self) -> None:
        speakers, overlap = self.num_speakers, self.overlap
        speakers = speakers if isinstance(speakers, Mapping) else {speakers: 1.0}
        overlap = overlap if isinstance(overlap, Mapping) else {overlap: 1.0}
        counts = tuple(range(1, MAX_SPEAKERS + 1))
        object.__setattr__(self, "num_speakers", _check_weights("num_speakers", speakers, counts))
        object.__setattr__(self, "overlap", _check_weights("overlap", overlap, OVERLAPS))
        if self.duration_s is not None:
            _check_positive("duration_s", self.duration_s)
        _check_range("overlap_ratio", self.overlap_ratio, low=0.0, high=1.0)
        _check_range("sir_db", self.sir_db)
        _check_range("level_db", self.level_db, high=0.0)
        _check_positive("min_source_s", self.min_source_s)
        if self.duration_s is not None and self.min_source_s > self.duration_s:
            raise ValueError(f"min_source_s: is {self.min_source_s}; give at most duration_s, {self.duration_s}")
        if not 0 < self.peak <= 1:
            raise ValueError(f"peak: is {self.peak}; a value above 0 and up to 1 is needed")

    @property
    def speaker_weights(self) -> dict[int, float]:
        """Weight of each number of speakers."""
        assert isinstance(self.num_speakers, dict)
        return self.num_speakers

    @property
    def overlap_weights(self) -> dict[str, float]:
        """Weight of each kind of overlap."""
        assert isinstance(self.overlap, dict)
        return self.overlap
