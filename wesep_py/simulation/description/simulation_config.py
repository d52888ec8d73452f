"""Configuration of the simulation: the ranges and weights that every mixture is drawn from.

`SimulationConfig` is the whole; `NoiseConfig`, `RoomConfig`, `EnrollmentConfig`, `ConversationConfig` and
`LoudnessConfig` are its parts. Their fields are the keys of the YAML file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Literal

from wesep_py.simulation.description.effects import EffectsConfig
from wesep_py.simulation.description.ranges import (
    Range,
    as_weights,
    check_choice_weights,
    check_positive,
    check_probability,
    check_range,
)

NOISE_KINDS = ("recording", "coloured", "babble")
MAX_NOISES = 8


@dataclass(frozen=True)
class ModulationConfig:
    """Sinusoidal modulation of the level of a noise in dB.

    Args:
        probability: share of the noises that are modulated.
        depth_db: range of the difference between the highest and the lowest level.
        rate_hz: range of the frequency of the modulation.
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
    """Noise recordings that belong together, recognised by their folder.

    Args:
        folder: one folder name, or several consecutive ones, in the path of a recording: `musan/music`. A recording
            belongs to the first group that matches.
        weight: weight of the group; its recordings are equally likely.
        snr_db: range of the SNR of these recordings; null: that of the noise.
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
        """The folder names in their order."""
        return PurePath(self.folder.strip("/")).parts

    def holds(self, path: PurePath) -> bool:
        """Return whether a recording lies in such a folder, at any depth.

        >>> NoiseGroup("musan/music").holds(PurePath("/data/musan/music/fma/a.wav"))
        True
        >>> NoiseGroup("music").holds(PurePath("/data/musan/noise/music.wav"))
        False
        """
        folders = path.parent.parts
        count = len(self.parts)
        return any(folders[start : start + count] == self.parts for start in range(len(folders) - count + 1))


@dataclass(frozen=True)
class NoiseConfig:
    """Noise that is added to speech.

    Args:
        probability: share of the mixtures that have noise.
        snr_db: range of the level of all speech together relative to that of a noise, both over active samples.
        kinds: weights of `recording` (cut or looped from the noise recordings), `coloured` (Gaussian noise with a
            sloping spectrum) and `babble` (several other speakers at once).
        slope_db: range of the spectral slope of coloured noise in dB per octave: 0 white, -3 pink, -6 brown.
        babble_speakers: range of the number of speakers in babble.
        count: number of noises at once, or weights of the numbers 1 to 8; each noise has its own kind and SNR.
        kind_snr_db: ranges of the SNR by kind, instead of `snr_db`: `{babble: [13, 20]}`.
        groups: folders of recordings with their weights; empty: all recordings are equally likely.
        modulation: modulation of the level of noises; null: none.
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
        object.__setattr__(self, "kinds", check_choice_weights("kinds", self.kinds, NOISE_KINDS))
        counts = check_choice_weights("count", as_weights(self.count), tuple(range(1, MAX_NOISES + 1)))
        object.__setattr__(self, "count", counts)
        object.__setattr__(self, "kind_snr_db", _check_ranges("kind_snr_db", self.kind_snr_db))

    @property
    def count_weights(self) -> dict[int, float]:
        """Weight of each number of noises."""
        assert isinstance(self.count, dict)
        return self.count

    def group_of(self, path: PurePath) -> int | None:
        """Return the number of the first group that a recording matches, or `None`."""
        return next((number for number, group in enumerate(self.groups) if group.holds(path)), None)

    def snr_range(self, kind: str, path: PurePath | None = None) -> Range:
        """Return the range of the SNR of a noise: that of its group, of its kind, or of all noises.

        Args:
            kind: kind of the noise.
            path: path of its recording, or `None`.
        """
        number = None if path is None else self.group_of(path)
        group_snr_db = None if number is None else self.groups[number].snr_db
        if group_snr_db is not None:
            return group_snr_db
        low, high = self.kind_snr_db.get(kind, self.snr_db)
        return low, high


def _check_ranges(name: str, ranges: Mapping[str, list[float]]) -> dict[str, list[float]]:
    if ranges:
        check_choice_weights(name, dict.fromkeys(ranges, 1.0), NOISE_KINDS)
    for kind, bounds in ranges.items():
        pair = isinstance(bounds, list | tuple) and len(bounds) == 2
        if not pair or not all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in bounds):
            raise ValueError(f"{name}.{kind}: is {bounds!r}; give [low, high]")
        check_range(f"{name}.{kind}", (float(bounds[0]), float(bounds[1])))
    return {kind: [float(bounds[0]), float(bounds[1])] for kind, bounds in ranges.items()}


OVERLAPS = ("full", "longest", "partial", "conversation")
MAX_SPEAKERS = 4
NO_SPEED_OF_SOURCES = (
    "is for enrollments; a source at another speed is another speaker: set data.speeds (training) or speeds (corpus)"
)
NO_SPEED_OF_MIXTURES = "is for enrollments; a mixture at another speed is not aligned with its targets"


@dataclass(frozen=True)
class RoomConfig:
    """Rooms; all sources of a mixture are in the same one.

    Args:
        probability: share of the mixtures that are in a room; the others are anechoic.
        rt60_s: range of the time in which the reverberation decays by 60 dB.
        length_m, width_m, height_m: ranges of the size of a shoebox room.
        distance_m: range of the distance from source to microphone; shorter if the room is too small.
        early_ms: reflections up to this long after the direct path belong to the early part.
        num_reflections: number of virtual sources of each response.
        bank: folder or tar of a room bank (`simulation/make_room_bank.py`), or an LMDB of WeSep with room responses,
            whose rooms are drawn by their measured RT60; null: none.
        bank_share: share of the rooms that come from the bank; the others are computed.
    """

    probability: float = 1.0
    rt60_s: Range = (0.2, 0.7)
    length_m: Range = (3.0, 9.0)
    width_m: Range = (3.0, 7.0)
    height_m: Range = (2.4, 3.5)
    distance_m: Range = (0.5, 3.0)
    early_ms: float = 50.0
    num_reflections: int = 2048
    bank: str | None = None
    bank_share: float = 1.0

    def __post_init__(self) -> None:
        check_probability("probability", self.probability)
        check_probability("bank_share", self.bank_share)
        check_range("rt60_s", self.rt60_s, low=0.05, high=3.0)
        for name in ("length_m", "width_m", "height_m"):
            check_range(name, getattr(self, name), low=2.0, high=100.0)
        check_range("distance_m", self.distance_m, low=0.1, high=50.0)
        check_positive("early_ms", self.early_ms)
        if not 64 <= self.num_reflections <= 65536:
            raise ValueError(f"num_reflections: is {self.num_reflections}; 64 to 65536 are allowed")


@dataclass(frozen=True)
class EnrollmentConfig:
    """Enrollments; every speaker of a mixture has one.

    Args:
        duration_s: range of the length of one segment. If a speaker has no recording that long, the longest is used.
        count: number of segments, each from a different utterance if the speaker has enough of them; they are joined
            in time. 0: no enrollments.
        level_db: range of the level over active samples, in dB relative to full scale.
        gap_s: smallest distance between enrollment and mixture excerpt, if both are from one recording.
        room: rooms of the enrollments; null: none.
        noise: noise in the enrollments; null: none.
        effects: effects on the enrollments after room and noise, `speed` first; null: none.
        negative_probability: share of the mixtures in which every target also has a negative enrollment, of a person
            who is not meant, for models whose cues have `negative: true`. It is the enrollment of an interferer.
        negative_bystander: share of these mixtures whose negative enrollment is of somebody who is not in the mixture;
            so it always is where nobody else speaks.
    """

    duration_s: Range = (3.0, 6.0)
    count: int = 1
    level_db: Range = (-33.0, -20.0)
    gap_s: float = 0.5
    room: RoomConfig | None = None
    noise: NoiseConfig | None = None
    effects: EffectsConfig | None = None
    negative_probability: float = 0.0
    negative_bystander: float = 0.1

    def __post_init__(self) -> None:
        check_range("duration_s", self.duration_s, low=0.5)
        check_range("level_db", self.level_db, high=0.0)
        check_probability("negative_probability", self.negative_probability)
        check_probability("negative_bystander", self.negative_bystander)
        if self.count < 0:
            raise ValueError(f"count: is {self.count}; a whole number of 0 or more is needed")
        if not 0 <= self.gap_s < math.inf:
            raise ValueError(f"gap_s: is {self.gap_s}; 0 or more seconds are needed")

    @property
    def is_augmented(self) -> bool:
        """True if enrollments may be in a room, in noise, or processed by effects."""
        return not (self.room is None and self.noise is None and self.effects is None)


@dataclass(frozen=True)
class ConversationConfig:
    """Turns and pauses of the overlap `conversation`.

    Args:
        turn_s: range of the length of a turn.
        pause_s: range of the silence between two turns that do not overlap.
        max_turns: largest number of turns of a mixture; null: as many as fit. Required if mixtures have no fixed
            length.
    """

    turn_s: Range = (1.0, 4.0)
    pause_s: Range = (0.1, 1.5)
    max_turns: int | None = None

    def __post_init__(self) -> None:
        check_range("turn_s", self.turn_s, low=0.5)
        check_range("pause_s", self.pause_s, low=0.0)
        if self.max_turns is not None and self.max_turns < MAX_SPEAKERS:
            raise ValueError(
                f"max_turns: is {self.max_turns}; give {MAX_SPEAKERS} or more, so that every speaker has one"
            )


@dataclass(frozen=True)
class LoudnessConfig:
    """Levels drawn as in LibriMix: the loudness of each speaker and of the noise, independently.

    Cosentino et al., "LibriMix: an open-source dataset for generalizable speech separation" (2020), section 2.1.

    Args:
        speech_lufs: range of the integrated loudness (ITU-R BS.1770-4) of each speaker in the mixture.
        noise_lufs: range of the integrated loudness of each noise.
    """

    speech_lufs: Range = (-33.0, -25.0)
    noise_lufs: Range = (-38.0, -30.0)

    def __post_init__(self) -> None:
        check_range("speech_lufs", self.speech_lufs, low=-70.0, high=0.0)
        check_range("noise_lufs", self.noise_lufs, low=-70.0, high=0.0)


@dataclass(frozen=True)
class SimulationConfig:
    """Ranges and weights that mixtures are drawn from.

    Args:
        duration_s: length of every mixture; null: whole utterances are used, and they determine the length.
        num_speakers: a number, or weights of the numbers 1 to 4.
        overlap: a kind, or weights of the kinds. `full`: all speak from start to end (LibriMix's "min"); `longest`:
            one speaks all the time, the others part of it ("max"); `partial`: one after the other, each starting
            before the previous one ends; `conversation`: the speakers take turns.
        overlap_ratio: range. For `partial`: overlapped length / length of the shorter of two neighbours. For
            `conversation`: time in which two or more speak / time in which anybody speaks (Chen et al.,
            "Continuous speech separation: dataset and analysis", 2020), over active samples.
        overlap_measure: for `partial`, what a length is: that of the `excerpt`, or of its `activity` (its active
            samples, without pauses). With `activity` and in conversations, the ratio reached is within 0.02 of
            the one drawn; otherwise the mixture is drawn again.
        edge_s: range of the silence before the first speaker and, independently, after the last.
        absent_probability: share of the mixtures that do not contain the target speaker.
        sir_db: range of the level of the target relative to each interferer, over active samples; positive: the target
            is louder.
        level_db: range of the level of the mixture over active samples, in dB relative to full scale.
        peak: largest allowed absolute sample of mixture and parts; if it is exceeded, all parts are scaled down
            together.
        min_source_s: shortest excerpt of a source whose length is drawn.
        noise: noise; null: none.
        room: rooms; null: none.
        target: what is extracted: `dry` (the source as recorded, aligned with the direct path), `direct` (the direct
            path), `early` (direct path and early reflections), or `full` (the image: direct path and all
            reflections).
        enrollment: the enrollments.
        conversation: turns and pauses of conversations.
        source_effects: effects on each speaker before the room; images and targets contain them.
        mixture_effects: effects on the mixture; its `distortion` contains them.
        loudness: levels drawn as in LibriMix, in place of `sir_db`, `level_db` and every SNR of `noise`; null: those
            are used.

    Raises:
        ValueError: a value out of its range; one line that names the key.

    >>> SimulationConfig(num_speakers={1: 1, 2: 3}).num_speakers
    {1: 1.0, 2: 3.0}
    """

    duration_s: float | None = 3.0
    num_speakers: int | dict[int, float] = 2
    overlap: str | dict[str, float] = "full"
    overlap_ratio: Range = (0.2, 0.8)
    overlap_measure: Literal["excerpt", "activity"] = "excerpt"
    edge_s: Range = (0.0, 0.0)
    absent_probability: float = 0.0
    sir_db: Range = (-5.0, 5.0)
    level_db: Range = (-33.0, -20.0)
    peak: float = 0.9
    min_source_s: float = 1.0
    noise: NoiseConfig | None = None
    room: RoomConfig | None = None
    target: Literal["dry", "direct", "early", "full"] = "full"
    enrollment: EnrollmentConfig = field(default_factory=EnrollmentConfig)
    conversation: ConversationConfig = field(default_factory=ConversationConfig)
    source_effects: EffectsConfig | None = None
    mixture_effects: EffectsConfig | None = None
    loudness: LoudnessConfig | None = None

    def __post_init__(self) -> None:
        counts = tuple(range(1, MAX_SPEAKERS + 1))
        speakers = check_choice_weights("num_speakers", as_weights(self.num_speakers), counts)
        object.__setattr__(self, "num_speakers", speakers)
        object.__setattr__(self, "overlap", check_choice_weights("overlap", as_weights(self.overlap), OVERLAPS))
        if self.duration_s is not None:
            check_positive("duration_s", self.duration_s)
        check_range("overlap_ratio", self.overlap_ratio, low=0.0, high=1.0)
        check_range("sir_db", self.sir_db)
        check_range("level_db", self.level_db, high=0.0)
        check_positive("min_source_s", self.min_source_s)
        if self.duration_s is not None and self.min_source_s > self.duration_s:
            raise ValueError(f"min_source_s: is {self.min_source_s}; give at most duration_s, {self.duration_s}")
        if not 0 < self.peak <= 1:
            raise ValueError(f"peak: is {self.peak}; a value above 0 and up to 1 is needed")
        check_range("edge_s", self.edge_s, low=0.0)
        if self.duration_s is not None and self.duration_s < 2 * self.edge_s[1] + self.min_source_s:
            raise ValueError(f"edge_s: is {list(self.edge_s)}; leave min_source_s of duration_s between the edges")
        check_probability("absent_probability", self.absent_probability)
        for name, reason in (("source_effects", NO_SPEED_OF_SOURCES), ("mixture_effects", NO_SPEED_OF_MIXTURES)):
            effects = getattr(self, name)
            if effects is not None and effects.speed is not None:
                raise ValueError(f"{name}.speed: {reason}")
        if self.absent_probability > 0 and self.enrollment.count < 1:
            raise ValueError(
                "absent_probability: is above 0 and enrollment.count is 0; an absent speaker needs one, give 1"
            )
        if self.duration_s is None and self.conversation.max_turns is None and self.overlap_weights.get("conversation"):
            raise ValueError("conversation.max_turns: is null; give a number, or duration_s, so that mixtures end")

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

    @property
    def uses_noise_recordings(self) -> bool:
        """True if mixtures or enrollments may have noise of kind `recording`."""
        noises = [noise for noise in (self.noise, self.enrollment.noise) if noise is not None]
        return any(noise.probability > 0 and noise.kinds.get("recording", 0) > 0 for noise in noises)
