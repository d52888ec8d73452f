"""What noise there may be under speech: kinds, levels, how many at once, from which folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

from wesep_py.simulation.checks import Range, as_weights, check_positive, check_probability, check_range, check_weights

NOISE_KINDS = ("recording", "coloured", "babble")
MAX_NOISES = 8


@dataclass(frozen=True)
class ModulationConfig:
    """Noise whose level swings, as a sine in dB.

    Args:
        probability: share of the noises that swing.
        depth_db: range of the way from the lowest to the highest level.
        rate_hz: range of the number of swings a second.
    """

    probability: float = 1.0
    depth_db: Range = (3.0, 12.0)
    rate_hz: Range = (0.2, 4.0)

    def __post_init__(self) -> None:
        check_probability("probability", self.probability)
        check_range("depth_db", self.depth_db, low=0.0, high=60.0)
        check_range("rate_hz", self.rate_hz, low=0.01, high=100.0)


@dataclass(frozen=True)
class NoiseGroup:
    """Noise recordings that belong together, told by their folder.

    Args:
        folder: one folder name or several in a row in a recording's path: `musan/music`. A recording belongs to the
            first group that it fits.
        weight: how likely the group is; its recordings are equally likely.
        snr_db: range of the SNR of these; null: the noise's own.
    """

    folder: str
    weight: float = 1.0
    snr_db: Range | None = None

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError(f"folder: is {self.folder!r}; the name of a folder is needed")
        check_positive("weight", self.weight)
        if self.snr_db is not None:
            check_range("snr_db", self.snr_db)

    @property
    def parts(self) -> tuple[str, ...]:
        """The folder's names in their order."""
        return PurePath(self.folder.strip("/")).parts

    def holds(self, path: PurePath) -> bool:
        """Whether a recording lies in such a folder.

        >>> NoiseGroup("musan/music").holds(PurePath("/data/musan/music/fma/a.wav"))
        True
        >>> NoiseGroup("music").holds(PurePath("/data/musan/noise/music.wav"))
        False
        """
        folders = path.parent.parts
        size = len(self.parts)
        return any(folders[start : start + size] == self.parts for start in range(len(folders) - size + 1))


@dataclass(frozen=True)
class NoiseConfig:
    """Noise that is added to speech.

    Args:
        probability: share of the mixtures that have noise.
        snr_db: range of the level of all speech together to that of a noise, both over active samples.
        kinds: weights of `recording` (cut or looped from the noise recordings given), `coloured` (Gaussian
            with a sloping spectrum) and `babble` (several other speakers at once).
        slope_db: range of the spectral slope of coloured noise in dB per octave: 0 white, -3 pink, -6 brown.
        babble_speakers: range of the number of speakers in babble.
        count: number of noises at once, or weights of the numbers 1 to 8; each has a kind and an SNR of its own.
        kind_snr_db: ranges of the SNR by kind, instead of `snr_db`: `{babble: [13, 20]}`.
        groups: folders of recordings with their weights; empty: all recordings are equally likely.
        modulation: noise whose level swings; null: none.
    """

    probability: float = 0.0
    snr_db: Range = (0.0, 20.0)
    kinds: dict[str, float] = field(default_factory=lambda: {"recording": 1.0})
    slope_db: Range = (-6.0, 0.0)
    babble_speakers: tuple[int, int] = (4, 8)
    count: int | dict[int, float] = 1
    kind_snr_db: dict[str, list[float]] = field(default_factory=dict)
    groups: tuple[NoiseGroup, ...] = ()
    modulation: ModulationConfig | None = None

    def __post_init__(self) -> None:
        check_probability("probability", self.probability)
        check_range("snr_db", self.snr_db)
        check_range("slope_db", self.slope_db, low=-12.0, high=12.0)
        check_range("babble_speakers", self.babble_speakers, low=1, high=32)
        object.__setattr__(self, "kinds", check_weights("kinds", self.kinds, NOISE_KINDS))
        counts = check_weights("count", as_weights(self.count), tuple(range(1, MAX_NOISES + 1)))
        object.__setattr__(self, "count", counts)
        object.__setattr__(self, "kind_snr_db", _check_ranges("kind_snr_db", self.kind_snr_db))

    @property
    def count_weights(self) -> dict[int, float]:
        """Weight of each number of noises."""
        assert isinstance(self.count, dict)
        return self.count

    def group_of(self, path: PurePath) -> int | None:
        """The number of the first group that a recording fits, or `None`."""
        return next((number for number, group in enumerate(self.groups) if group.holds(path)), None)

    def snr_range(self, kind: str, path: PurePath | None = None) -> Range:
        """The range of the SNR of a noise: that of its group, its kind, or of all.

        Args:
            kind: the noise's.
            path: of its recording, or `None`.
        """
        number = None if path is None else self.group_of(path)
        of_group = None if number is None else self.groups[number].snr_db
        if of_group is not None:
            return of_group
        low, high = self.kind_snr_db.get(kind, self.snr_db)
        return low, high


def _check_ranges(name: str, ranges: Mapping[str, list[float]]) -> dict[str, list[float]]:
    if ranges:
        check_weights(name, dict.fromkeys(ranges, 1.0), NOISE_KINDS)
    for kind, bounds in ranges.items():
        pair = isinstance(bounds, list | tuple) and len(bounds) == 2
        if not pair or not all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in bounds):
            raise ValueError(f"{name}.{kind}: is {bounds!r}; give [low, high]")
        check_range(f"{name}.{kind}", (float(bounds[0]), float(bounds[1])))
    return {kind: [float(bounds[0]), float(bounds[1])] for kind, bounds in ranges.items()}
