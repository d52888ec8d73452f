"""What drawing shares: the exception for what cannot be used, and the samples of a stretch."""

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

from wesep_py.common.config import construct, to_plain
from wesep_py.common.errors import SHOWN, InputError, naming, shorten
from wesep_py.common.files import atomic_path
from wesep_py.common.textfiles import Row, parse_object
from wesep_py.data.manifest import Utterance
from wesep_py.data.mixture_lists import drawn_mixture_id
from wesep_py.simulation.description.effects import Effect

if TYPE_CHECKING:
    from wesep_py.data import Reader


# ----------------------------------------
# The parts of a mixture as data: stretches of recordings, speakers with what they say, noises, rooms, enrollments.

Point = tuple[float, float, float]


@dataclass(frozen=True)
class BankRoomRecipe:
    """A room of a bank, with one of its responses for every source of the mixture.

    Args:
        path: the bank's folder, or tar.
        fingerprint: of the bank that it was drawn from.
        responses: index of the response of each source, in the order of the mixture's sources.
        channel: which of the room's microphones hears.
        early_ms: the early part reaches from 6 ms before the direct path to this long after it.
    """

    path: str
    fingerprint: str
    responses: tuple[int, ...]
    channel: int
    early_ms: float


@dataclass(frozen=True)
class UtteranceSegment:
    """A piece of an utterance: `num_samples` from sample `start` on, times `gain`."""

    utterance: Utterance
    start: int
    num_samples: int
    gain: float = 1.0

    @property
    def stop(self) -> int:
        """The sample after the last."""
        return self.start + self.num_samples


@dataclass(frozen=True)
class Modulation:
    """A level that swings as a sine in dB: `depth_db` from the lowest to the highest, `rate_hz` times a second."""

    rate_hz: float
    depth_db: float
    phase: float


@dataclass(frozen=True)
class NoiseRecipe:
    """A noise.

    Args:
        kind: `recording` (one stretch, whose utterance is looped where it ends), `babble` (one stretch a
            speaker, likewise looped, each brought to the same level by its own gain), or `coloured`.
        gain: linear factor of the whole noise.
        stretches: the recordings; none for `coloured`. Their `num_samples` is the mixture's.
        slope_db: spectral slope of coloured noise in dB per octave.
        seed: of coloured noise's random numbers.
        modulation: how its level swings, or `None`.
        snr_db: level of all speech to this noise, over active samples; of a mixture's first noise it is the
            recipe's `snr_db`.
    """

    kind: Literal["recording", "coloured", "babble"]
    gain: float = 1.0
    stretches: tuple[UtteranceSegment, ...] = ()
    slope_db: float = 0.0
    seed: int = 0
    modulation: Modulation | None = None
    snr_db: float | None = None


@dataclass(frozen=True)
class RoomRecipe:
    """A shoebox room, one microphone, and a place for every source of the mixture.

    Args:
        size_m: length, width, height.
        rt60_s: time in which the reverberation falls by 60 dB.
        microphone_m: position of the microphone.
        sources_m: position of each source, in the order of the mixture's sources.
        num_reflections: number of virtual sources of each response.
        early_ms: the early part reaches from 6 ms before the direct path to this long after it.
        seed: of the virtual sources' random numbers.
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
        """Distance of each source to the microphone."""
        return tuple(
            sum((s - m) ** 2 for s, m in zip(source, self.microphone_m, strict=True)) ** 0.5
            for source in self.sources_m
        )


@dataclass(frozen=True)
class Augmentation:
    """What happens to an enrollment, in this order, after its stretches are joined.

    Args:
        room: the room it was recorded in, or `None`.
        noises: each with an `snr_db`, from which its gain follows when it is rendered.
        effects: level, equalisation, codec and the like.
        level_db: level that it has at the end, over active samples, unless `peak` is lower.
        peak: its largest absolute sample at most.
    """

    room: RoomRecipe | BankRoomRecipe | None = None
    noises: tuple[NoiseRecipe, ...] = ()
    effects: tuple[Effect, ...] = ()
    level_db: float = -25.0
    peak: float = 0.9


@dataclass(frozen=True)
class Turn:
    """A further utterance of a speaker: `excerpt`, from sample `offset` of the mixture on.

    Its gain is relative to that of the speaker's first excerpt.
    """

    excerpt: UtteranceSegment
    offset: int


@dataclass(frozen=True)
class SourceRecipe:
    """One speaker of a mixture.

    Args:
        excerpt: what the speaker says, and how loud.
        offset: sample of the mixture at which the excerpt begins.
        enrollments: stretches of the same voice that share no sample with what it says; joined in time.
        turns: what the speaker says further on.
        effects: what happens to all that the speaker says, before the room.
        augmentation: what happens to the enrollment, or `None`.
    """

    excerpt: UtteranceSegment
    offset: int
    enrollments: tuple[UtteranceSegment, ...] = ()
    turns: tuple[Turn, ...] = ()
    effects: tuple[Effect, ...] = ()
    augmentation: Augmentation | None = None

    @property
    def speaker_id(self) -> str:
        """Who speaks."""
        return self.excerpt.utterance.speaker_id

    @property
    def placed(self) -> tuple[Turn, ...]:
        """All that the speaker says, with the first excerpt's gain left out."""
        return (Turn(replace(self.excerpt, gain=1.0), self.offset), *self.turns)


@dataclass(frozen=True)
class AbsentSpeaker:
    """Somebody who is asked for and is not in the mixture: enrollments, at least one, and what happens to them."""

    enrollments: tuple[UtteranceSegment, ...]
    augmentation: Augmentation | None = None

    @property
    def speaker_id(self) -> str:
        """Whose voice it is."""
        return self.enrollments[0].utterance.speaker_id


# ----------------------------------------
# What the numbers of a recipe are allowed to be, looked at before anything is allocated for them.

RATES_HZ = (1, 768_000)
LONGEST_S = 24 * 3600.0
ALWAYS_S = 3600.0
"""A mixture may be that long whatever is said in it; a longer one up to `MOST_OF_SPEECH` times what is."""
MOST_OF_SPEECH = 20
LONGEST_RT60_S = 60.0
MOST_REFLECTIONS = 10_000_000


def check_recipe_sizes(
    sample_rate: int,
    num_samples: int,
    sources: Sequence[SourceRecipe],
    noises: Sequence[NoiseRecipe],
    room: RoomRecipe | BankRoomRecipe | None,
) -> None:
    """Refuse a recipe whose sizes no mixture has.

    Raises:
        ValueError: in one line, which begins with the name of the value.
    """
    if not RATES_HZ[0] <= sample_rate <= RATES_HZ[1]:
        raise ValueError(f"sample_rate: is {_short(sample_rate)}; {RATES_HZ[0]} to {RATES_HZ[1]} Hz are allowed")
    if num_samples < 0:
        raise ValueError(f"num_samples: is {_short(num_samples)}; 0 or more are needed")
    turns = [turn for source in sources for turn in source.placed]
    speech = sum(turn.excerpt.num_samples for turn in turns)
    longest = min(LONGEST_S * sample_rate, max(ALWAYS_S * sample_rate, MOST_OF_SPEECH * speech))
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
    for stretch in (stretch for noise in noises for stretch in noise.stretches):
        if stretch.num_samples != num_samples:
            raise ValueError(
                f"noise: a stretch has {_short(stretch.num_samples)} samples; the mixture's {num_samples} are needed"
            )
    if isinstance(room, RoomRecipe):
        _check_room(room)


def _check_room(room: RoomRecipe) -> None:
    if not 0 <= room.rt60_s <= LONGEST_RT60_S:
        raise ValueError(f"room.rt60_s: is {room.rt60_s}; 0 to {LONGEST_RT60_S:g} s are allowed")
    if not 0 <= room.num_reflections <= MOST_REFLECTIONS:
        raise ValueError(
            f"room.num_reflections: is {_short(room.num_reflections)}; 0 to {MOST_REFLECTIONS} are allowed"
        )
    if not all(map(math.isfinite, (*room.size_m, *room.microphone_m, *(x for point in room.sources_m for x in point)))):
        raise ValueError("room: a size or a place is not finite; give metres")


def _short(number: int) -> str:
    """A whole number, also one of thousands of digits, in a few characters."""
    return str(number) if abs(number) < 10**15 else f"a number of {len(str(number))} digits"


# ----------------------------------------
# The recipe of a mixture as data: everything that rendering it needs, and nothing else.
#
# Recipes are frozen and turn into JSON objects and back without loss, so a corpus of mixtures is a JSONL file
# of them. Positions and lengths are in samples at the recipe's sample rate; gains are linear factors.

FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one mixture is made.

    Args:
        seed, epoch, index: what it was drawn from.
        attempt: how many draws before it could not be used.
        sample_rate: in Hz; positions and lengths count samples at this rate.
        num_samples: length of the mixture.
        sources: the speakers, all different.
        target: which source is asked for; every source comes with what a target needs. `None`: `absent` is.
        target_kind: `dry`, `direct`, `early` or `full`: see `SimulationConfig.target`.
        overlap: `full`, `longest`, `partial` or `conversation`.
        overlap_ratio: as drawn for `partial` and `conversation`, else `None`.
        sir_db: level of the reference (the target, or the first source where it is absent) to each source, over
            active samples; 0 for the reference itself.
        snr_db: level of all speech to the noise, over active samples, or `None` without noise.
        noise: the noise, or `None`.
        room: the room, or `None`.
        further_noises: what is added besides `noise`.
        absent: the voice that is asked for, where it is not in the mixture.
        effects: what happens to the mixture; a drifting level to all of its parts together.
        peak: largest absolute sample of the mixture after the effects; all parts are scaled down together where
            it is exceeded. `None`: no limit.
        version: of this format.

    Raises:
        ValueError: neither a target nor an absent voice, or both; a position outside the mixture, or a size that no
            mixture has, which would ask for the whole memory.
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
    effects: tuple[Effect, ...] = ()
    peak: float | None = None
    version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if (self.target is None) == (self.absent is None):
            raise ValueError("target: either a source's number or an absent voice is needed, and not both")
        if self.target is not None and self.sources and not 0 <= self.target < len(self.sources):
            raise ValueError(f"target: is {self.target}; there are {len(self.sources)} sources, counted from 0")
        check_recipe_sizes(self.sample_rate, self.num_samples, self.sources, self.noises, self.room)

    @property
    def noises(self) -> tuple[NoiseRecipe, ...]:
        """All that is added to the speech."""
        return () if self.noise is None else (self.noise, *self.further_noises)

    @property
    def reference(self) -> int:
        """The source to which levels are relative: the target, or the first where it is absent."""
        return 0 if self.target is None else self.target

    @property
    def mixture_id(self) -> str:
        """A name for the mixture that is unique for its seed, epoch and index, without spaces or slashes."""
        return drawn_mixture_id(self.epoch, self.index, self.seed)

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON; what is not known, or empty, is left out."""
        return _without_empty(to_plain(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "recipe") -> Recipe:
        """The recipe that `to_dict` wrote, exactly.

        Args:
            values: the JSON object.
            where: file and line, for messages.

        Raises:
            ConfigError: a key that is missing, unknown, or of a wrong type.
            InputError: another format version.
        """
        version = values.get("version") if isinstance(values, Mapping) else None
        if version != FORMAT_VERSION:
            raise InputError(f"{where}: has format version {version!r}; this program reads {FORMAT_VERSION}")
        return construct(cls, values, where)


def read_recipes(path: str | Path) -> Iterator[Recipe]:
    """The recipes of a JSONL file, one at a time.

    Raises:
        InputError: no such file, or a line that is no recipe; the message names file and line.
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
    """Write recipes as JSONL, whole or not at all; returns how many.

    Raises:
        OutputExistsError: `path` exists and `overwrite` is false.
    """
    count = 0
    with atomic_path(path, overwrite) as temporary, temporary.open("w", encoding="utf-8") as out:
        for recipe in recipes:
            out.write(json.dumps(recipe.to_dict(), ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count


def _without_empty(value: Any) -> Any:
    """Every empty value of a recipe is its default; so recipes without the newer parts stay as they were."""
    if isinstance(value, dict):
        return {key: _without_empty(item) for key, item in value.items() if item is not None and item != []}
    return [_without_empty(item) for item in value] if isinstance(value, list) else value


class UnusableDraw(Exception):
    """What was drawn cannot be used, and why."""


def too_short_message(speaker_id: str) -> str:
    return f"an utterance of {speaker_id!r} is too short to give both excerpt and enrollment"


def read_segment(stretch: UtteranceSegment, reader: Reader) -> NDArray[np.float32]:
    """The samples of a stretch, without its gain."""
    return reader.read(stretch.utterance, stretch.start, stretch.stop)
