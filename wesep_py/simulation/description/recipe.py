"""Recipe of a mixture: everything that rendering needs, as frozen data.

`Recipe` is one mixture; `read_recipes` and `write_recipes` store recipes as JSONL without loss, so a corpus of mixtures
is a file of them. Below are the parts of a recipe (segments of utterances, sources, noises, rooms, enrollments), the
checks of its sizes, and the rounding of its gains. Positions and lengths are in samples at the recipe's sample rate;
gains are linear factors.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.level import db_to_gain
from wesep_py.common.config import construct, to_plain
from wesep_py.common.errors import SHOWN, InputError, naming, shorten
from wesep_py.common.files import atomic_path
from wesep_py.common.textfiles import Row, parse_object
from wesep_py.data.manifest import Utterance
from wesep_py.data.mixture_lists import drawn_mixture_id
from wesep_py.simulation.description.effects import Effect

if TYPE_CHECKING:
    from wesep_py.data import Reader

RECIPE_FORMAT_VERSION = 1

BYSTANDER = -1
"""Stands for `Recipe.bystander` among the numbers of sources in `Recipe.negatives`."""

Point = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Recipe of one mixture.

    Args:
        seed, epoch, index: what the recipe is a function of.
        attempt: number of draws before it that could not be used.
        sample_rate: in Hz; positions and lengths count samples at this rate.
        num_samples: length of the mixture.
        sources: the speakers, all different.
        target: number of the source that is the target, from 0; `None`: the target is `absent`. Every source has an
            enrollment and a target waveform, so any of them can be the target.
        target_kind: `dry`, `direct`, `early` or `full`: see `SimulationConfig.target`.
        overlap: `full`, `longest`, `partial` or `conversation`.
        overlap_ratio: as drawn for `partial` and `conversation`, otherwise `None`.
        sir_db: level of the reference (the target, or the first source if the target is absent) relative to each
            source, over active samples; 0 for the reference itself.
        snr_db: level of all speech relative to the noise, over active samples, or `None` without noise.
        noise: the noise, or `None`.
        room: the room, or `None`.
        further_noises: noises in addition to `noise`.
        absent: the target speaker, if it is not in the mixture.
        negatives: for each source, and then for the absent speaker, the number of the source whose enrollment is the
            negative enrollment, or `BYSTANDER`; empty: nobody has a negative enrollment.
        bystander: a speaker who is neither in the mixture nor its target, for negative enrollments.
        effects: effects on the mixture; a level drift is applied to all parts of the mixture.
        peak: largest allowed absolute sample of the mixture after the effects; if it is exceeded, all parts are scaled
            down together. `None`: no limit.
        version: version of this format.

    Raises:
        ValueError: neither a target nor an absent speaker, or both; a position outside the mixture; or sizes so large
            that rendering would exhaust the memory.
    """

    seed: int
    epoch: int
    index: int
    attempt: int
    sample_rate: int
    num_samples: int
    sources: tuple[SourceRecipe, ...]
    target: int | None = None
    target_kind: Literal["dry", "direct", "early", "full"] = "full"
    overlap: Literal["full", "longest", "partial", "conversation"] = "full"
    overlap_ratio: float | None = None
    sir_db: tuple[float, ...] = ()
    snr_db: float | None = None
    noise: NoiseRecipe | None = None
    room: RoomRecipe | BankRoomRecipe | None = None
    further_noises: tuple[NoiseRecipe, ...] = ()
    absent: AbsentSpeaker | None = None
    negatives: tuple[int, ...] = ()
    bystander: AbsentSpeaker | None = None
    effects: tuple[Effect, ...] = ()
    peak: float | None = None
    version: int = RECIPE_FORMAT_VERSION

    def __post_init__(self) -> None:
        if (self.target is None) == (self.absent is None):
            raise ValueError("target: give either the number of a source or an absent speaker, not both")
        if self.target is not None and self.sources and not 0 <= self.target < len(self.sources):
            raise ValueError(f"target: is {self.target}; there are {len(self.sources)} sources, counted from 0")
        if self.negatives:
            _check_negatives(self.negatives, len(self.sources), self.absent is not None, self.bystander is not None)
        check_recipe_sizes(self.sample_rate, self.num_samples, self.sources, self.noises, self.room)

    @property
    def noises(self) -> tuple[NoiseRecipe, ...]:
        """All noises."""
        return () if self.noise is None else (self.noise, *self.further_noises)

    @property
    def enrolled(self) -> tuple[SourceRecipe | AbsentSpeaker, ...]:
        """All speakers with an enrollment: the sources, the absent speaker, the bystander."""
        return (*self.sources, *(speaker for speaker in (self.absent, self.bystander) if speaker is not None))

    @property
    def reference(self) -> int:
        """Number of the source that levels are relative to: the target, or the first source if it is absent."""
        return 0 if self.target is None else self.target

    @property
    def mixture_id(self) -> str:
        """Name of the mixture, unique for (seed, epoch, index), without spaces or slashes."""
        return drawn_mixture_id(self.epoch, self.index, self.seed)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; what is `None` or empty is left out."""
        return _without_empty(to_plain(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "recipe") -> Recipe:
        """Return the recipe that `to_dict` wrote, without loss.

        Args:
            values: the JSON object.
            where: file and line, for messages.

        Raises:
            ConfigError: a key that is missing, unknown, or of a wrong type.
            InputError: another format version.
        """
        version = values.get("version") if isinstance(values, Mapping) else None
        if version != RECIPE_FORMAT_VERSION:
            raise InputError(f"{where}: has format version {version!r}; this program reads {RECIPE_FORMAT_VERSION}")
        return construct(cls, values, where)


def read_recipes(path: str | Path) -> Iterator[Recipe]:
    """Yield the recipes of a JSONL file.

    Raises:
        InputError: no such file, or a line that is not a recipe; the message names file and line.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the recipes.jsonl that `wesep simulate` wrote")
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _recipe(parse_object(line.rstrip(), f"{path}:{number}", "one recipe a line is needed"))


def _recipe(row: Row) -> Recipe:
    with naming(row.place, "draw the recipes again"):
        try:
            return Recipe.from_dict(row.values, row.place)
        except InputError as error:
            raise type(error)(shorten(error, 3 * SHOWN)) from error


def write_recipes(recipes: Iterable[Recipe], path: str | Path, overwrite: bool = False) -> int:
    """Write recipes as JSONL, atomically, and return their number.

    Raises:
        OutputExistsError: `path` exists and `overwrite` is false.
    """
    count = 0
    with atomic_path(path, overwrite) as temporary, temporary.open("w", encoding="utf-8") as out:
        for recipe in recipes:
            out.write(json.dumps(recipe.to_dict(), ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count


def _check_negatives(negatives: Sequence[int], num_sources: int, has_absent: bool, has_bystander: bool) -> None:
    num_speakers, lowest = num_sources + has_absent, BYSTANDER if has_bystander else 0
    itself = any(number == source for source, number in enumerate(negatives[:num_sources]))
    if len(negatives) != num_speakers or itself or not all(lowest <= number < num_sources for number in negatives):
        raise ValueError(
            f"negatives: are {list(negatives)}; for each of {num_speakers} speakers the number of another source is "
            f"needed, or {BYSTANDER} for a bystander"
        )


def _without_empty(value: Any) -> Any:
    """Remove empty values, which are the defaults: so new fields do not change the recipes that do not use them."""
    if isinstance(value, dict):
        return {key: _without_empty(item) for key, item in value.items() if item is not None and item != []}
    return [_without_empty(item) for item in value] if isinstance(value, list) else value


# The parts of a recipe: speech.


@dataclass(frozen=True)
class UtteranceSegment:
    """Segment of an utterance: `num_samples` from sample `start` on, times `gain`."""

    utterance: Utterance
    start: int
    num_samples: int
    gain: float = 1.0

    @property
    def stop(self) -> int:
        """The sample after the last."""
        return self.start + self.num_samples


def read_segment(segment: UtteranceSegment, reader: Reader) -> NDArray[np.float32]:
    """Read the samples of a segment, without its gain."""
    return reader.read(segment.utterance, segment.start, segment.stop)


@dataclass(frozen=True)
class Turn:
    """Further utterance of a speaker: `excerpt`, placed at sample `offset` of the mixture.

    Its gain is relative to that of the speaker's first excerpt.
    """

    excerpt: UtteranceSegment
    offset: int


@dataclass(frozen=True)
class SourceRecipe:
    """One speaker of a mixture.

    Args:
        excerpt: the speaker's first segment, with its gain.
        offset: sample of the mixture at which the excerpt begins.
        enrollments: segments of the same speaker that share no sample with the mixture; joined in time.
        turns: the speaker's further segments.
        effects: effects on all of the speaker's speech, before the room.
        augmentation: augmentation of the enrollment, or `None`.
    """

    excerpt: UtteranceSegment
    offset: int
    enrollments: tuple[UtteranceSegment, ...] = ()
    turns: tuple[Turn, ...] = ()
    effects: tuple[Effect, ...] = ()
    augmentation: Augmentation | None = None

    @property
    def speaker_id(self) -> str:
        """Id of the speaker."""
        return self.excerpt.utterance.speaker_id

    @property
    def placed(self) -> tuple[Turn, ...]:
        """All turns with their offsets; the first excerpt's gain, which is that of the whole source, is left out."""
        return (Turn(replace(self.excerpt, gain=1.0), self.offset), *self.turns)


@dataclass(frozen=True)
class AbsentSpeaker:
    """Target speaker that is not in the mixture: at least one enrollment segment, and their augmentation."""

    enrollments: tuple[UtteranceSegment, ...]
    augmentation: Augmentation | None = None

    @property
    def speaker_id(self) -> str:
        """Id of the speaker."""
        return self.enrollments[0].utterance.speaker_id


@dataclass(frozen=True)
class Augmentation:
    """Processing of an enrollment after its segments are joined, in this order.

    Args:
        room: the room, or `None`.
        noises: noises, each with an `snr_db`, from which the gain is computed when it is rendered.
        effects: level drift, equalisation, codec and so on.
        level_db: final level over active samples in dB relative to full scale, unless `peak` requires a lower one.
        peak: largest allowed absolute sample.
    """

    room: RoomRecipe | BankRoomRecipe | None = None
    noises: tuple[NoiseRecipe, ...] = ()
    effects: tuple[Effect, ...] = ()
    level_db: float = -25.0
    peak: float = 0.9


# The parts of a recipe: noise.


@dataclass(frozen=True)
class NoiseRecipe:
    """One noise.

    Args:
        kind: `recording` (one segment; the recording is looped where it ends), `babble` (one segment per speaker,
            looped likewise, with gains that bring all speakers to the same level), or `coloured`.
        gain: linear gain of the whole noise.
        stretches: the segments of recordings, each as long as the mixture; none for `coloured`.
        slope_db: spectral slope of coloured noise in dB per octave.
        seed: seed of the random numbers of coloured noise.
        modulation: modulation of its level, or `None`.
        snr_db: level of all speech relative to this noise, over active samples; for the first noise of a mixture it is
            in the recipe's `snr_db`.
    """

    kind: Literal["recording", "coloured", "babble"]
    gain: float = 1.0
    stretches: tuple[UtteranceSegment, ...] = ()
    slope_db: float = 0.0
    seed: int = 0
    modulation: Modulation | None = None
    snr_db: float | None = None


@dataclass(frozen=True)
class Modulation:
    """Sinusoidal modulation of a level in dB.

    Args:
        rate_hz: frequency of the modulation.
        depth_db: difference between the highest and the lowest level.
        phase: phase at the first sample, in radians.
    """

    rate_hz: float
    depth_db: float
    phase: float


# The parts of a recipe: rooms.


@dataclass(frozen=True)
class RoomRecipe:
    """Shoebox room with one microphone and a position for every source of the mixture.

    Args:
        size_m: length, width, height.
        rt60_s: time in which the reverberation decays by 60 dB.
        microphone_m: position of the microphone.
        sources_m: position of each source, in the order of the mixture's sources.
        num_reflections: number of virtual sources of each response.
        early_ms: the early part lasts from 6 ms before the direct path to this long after it.
        seed: seed of the random numbers of the virtual sources.
    """

    size_m: Point
    rt60_s: float
    microphone_m: Point
    sources_m: tuple[Point, ...]
    num_reflections: int
    early_ms: float
    seed: int

    @property
    def volume_m3(self) -> float:
        """Volume in cubic metres."""
        return self.size_m[0] * self.size_m[1] * self.size_m[2]

    @property
    def distances_m(self) -> tuple[float, ...]:
        """Distance of each source from the microphone."""
        return tuple(
            sum((s - m) ** 2 for s, m in zip(source, self.microphone_m, strict=True)) ** 0.5
            for source in self.sources_m
        )


@dataclass(frozen=True)
class BankRoomRecipe:
    """Room of a bank, with one of its responses for every source of the mixture.

    Args:
        path: folder or tar of the bank.
        fingerprint: of the bank that the room was drawn from.
        responses: index of the response of each source, in the order of the mixture's sources.
        channel: which of the room's microphones is used.
        early_ms: the early part lasts from 6 ms before the direct path to this long after it.
    """

    path: str
    fingerprint: str
    responses: tuple[int, ...]
    channel: int
    early_ms: float


# Sizes are checked before anything is allocated for them: a recipe may come from a damaged or hostile file.

RECIPE_RATES_HZ = (1, 768_000)
MAX_MIXTURE_S = 24 * 3600.0
ALWAYS_ALLOWED_S = 3600.0
"""A mixture may be this long whatever its sources; a longer one up to `MAX_LENGTH_TO_SPEECH` times their speech."""
MAX_LENGTH_TO_SPEECH = 20
MAX_RT60_S = 60.0
MAX_REFLECTIONS = 10_000_000


def check_recipe_sizes(
    sample_rate: int,
    num_samples: int,
    sources: Sequence[SourceRecipe],
    noises: Sequence[NoiseRecipe],
    room: RoomRecipe | BankRoomRecipe | None,
) -> None:
    """Raise ValueError if a size is not that of a mixture; the line begins with the name of the value."""
    if not RECIPE_RATES_HZ[0] <= sample_rate <= RECIPE_RATES_HZ[1]:
        raise ValueError(
            f"sample_rate: is {_short(sample_rate)}; {RECIPE_RATES_HZ[0]} to {RECIPE_RATES_HZ[1]} Hz are allowed"
        )
    if num_samples < 0:
        raise ValueError(f"num_samples: is {_short(num_samples)}; 0 or more are needed")
    turns = [turn for source in sources for turn in source.placed]
    speech = sum(turn.excerpt.num_samples for turn in turns)
    longest = min(MAX_MIXTURE_S * sample_rate, max(ALWAYS_ALLOWED_S * sample_rate, MAX_LENGTH_TO_SPEECH * speech))
    if num_samples > longest:
        raise ValueError(
            f"num_samples: is {_short(num_samples)}; its sources say {speech / sample_rate:.1f} s, and at most "
            f"{longest / sample_rate:.0f} s ({longest:.0f} samples) are allowed"
        )
    for turn in turns:
        if not 0 <= turn.offset <= turn.offset + turn.excerpt.num_samples <= num_samples:
            raise ValueError(
                f"offset: {turn.excerpt.utterance.utterance_id!r} is placed from sample {_short(turn.offset)} to "
                f"{_short(turn.offset + turn.excerpt.num_samples)}; the mixture has {num_samples}"
            )
    for segment in (segment for noise in noises for segment in noise.stretches):
        if segment.num_samples != num_samples:
            raise ValueError(
                f"noise: a segment has {_short(segment.num_samples)} samples; the mixture's {num_samples} are needed"
            )
    if isinstance(room, RoomRecipe):
        _check_room(room)


def _check_room(room: RoomRecipe) -> None:
    if not 0 <= room.rt60_s <= MAX_RT60_S:
        raise ValueError(f"room.rt60_s: is {room.rt60_s}; 0 to {MAX_RT60_S:g} s are allowed")
    if not 0 <= room.num_reflections <= MAX_REFLECTIONS:
        raise ValueError(f"room.num_reflections: is {_short(room.num_reflections)}; 0 to {MAX_REFLECTIONS} are allowed")
    if not all(map(math.isfinite, (*room.size_m, *room.microphone_m, *(x for point in room.sources_m for x in point)))):
        raise ValueError("room: a size or a position is not finite; give metres")


def _short(number: int) -> str:
    """Return a whole number in few characters, even if it has thousands of digits."""
    return str(number) if abs(number) < 10**15 else f"a number of {len(str(number))} digits"


# Gains of recipes.


def recipe_gain(level_db: float) -> float:
    """Return the linear gain of a level in dB, rounded to 7 digits.

    Machines differ in the last bits of a measured level; rounding makes their recipes equal.

    >>> recipe_gain(-20.0)
    0.1
    """
    return float(f"{db_to_gain(level_db):.7g}")


def gain_between(from_db: float, to_db: float) -> float:
    """Return the gain that changes one level in dB to another; 1 if the first is silence (-inf).

    >>> gain_between(-20.0, -40.0), gain_between(-np.inf, -40.0)
    (0.1, 1.0)
    """
    return 1.0 if from_db == -np.inf else recipe_gain(to_db - from_db)


class UnusableDraw(Exception):
    """The draw cannot be used, for example because a segment is silent; the message says why."""
