"""The recipe of a mixture as data: everything that rendering it needs, and nothing else.

Recipes are frozen and turn into JSON objects and back without loss, so a corpus of mixtures is a JSONL file
of them. Positions and lengths are in samples at the recipe's sample rate; gains are linear factors.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from wesep_py.config import construct, to_plain
from wesep_py.corpus.utterance import Utterance
from wesep_py.errors import InputError
from wesep_py.files import atomic_path

FORMAT_VERSION = 1

Point = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Stretch:
    """A piece of an utterance: `num_samples` from sample `start` on, times `gain`."""

    utterance: Utterance
    start: int
    num_samples: int
    gain: float = 1.0

    @property
    def stop(self) -> int:
        """The sample after the last."""
        return self.start + self.num_samples


@dataclasses.dataclass(frozen=True)
class SourceRecipe:
    """One speaker of a mixture.

    Args:
        excerpt: what the speaker says, and how loud.
        offset: sample of the mixture at which the excerpt begins.
        enrollments: stretches of the same voice that share no sample with the excerpt; joined in time.
    """

    excerpt: Stretch
    offset: int
    enrollments: tuple[Stretch, ...]

    @property
    def speaker_id(self) -> str:
        """Who speaks."""
        return self.excerpt.utterance.speaker_id


@dataclasses.dataclass(frozen=True)
class NoiseRecipe:
    """The noise of a mixture.

    Args:
        kind: `recording` (one stretch, whose utterance is looped where it ends), `babble` (one stretch a
            speaker, likewise looped, each brought to the same level by its own gain), or `coloured`.
        gain: linear factor of the whole noise.
        stretches: the recordings; none for `coloured`. Their `num_samples` is the mixture's.
        slope_db: spectral slope of coloured noise in dB per octave.
        seed: of coloured noise's random numbers.
    """

    kind: Literal["recording", "coloured", "babble"]
    gain: float = 1.0
    stretches: tuple[Stretch, ...] = ()
    slope_db: float = 0.0
    seed: int = 0


@dataclasses.dataclass(frozen=True)
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


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one mixture is made.

    Args:
        seed, epoch, index: what it was drawn from.
        attempt: how many draws before it could not be used.
        sample_rate: in Hz; positions and lengths count samples at this rate.
        num_samples: length of the mixture.
        sources: the speakers, all different.
        target: which source the drawn levels are relative to. Every source comes with what a target needs.
        target_kind: `dry`, `early` or `full`: see `SimulationConfig.target`.
        overlap: `full`, `longest` or `partial`.
        overlap_ratio: as drawn for `partial`, else `None`.
        sir_db: level of the target to each source, over active samples; 0 for the target itself.
        snr_db: level of all speech to the noise, over active samples, or `None` without noise.
        noise: the noise, or `None`.
        room: the room, or `None`.
        version: of this format.
    """

    seed: int
    epoch: int
    index: int
    attempt: int
    sample_rate: int
    num_samples: int
    sources: tuple[SourceRecipe, ...]
    target: int
    target_kind: Literal["dry", "early", "full"] = "full"
    overlap: Literal["full", "longest", "partial"] = "full"
    overlap_ratio: float | None = None
    sir_db: tuple[float, ...] = ()
    snr_db: float | None = None
    noise: NoiseRecipe | None = None
    room: RoomRecipe | None = None
    version: int = FORMAT_VERSION

    @property
    def mixture_id(self) -> str:
        """A name for the mixture that is unique for its seed, epoch and index, without spaces or slashes."""
        return f"{self.epoch:04d}-{self.index:07d}-seed{self.seed}"

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON; what is not known of an utterance is left out."""
        return _without_none(to_plain(self))

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
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                values = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{where}: is not JSON ({error.msg}); one recipe a line is needed") from error
            yield Recipe.from_dict(values, where)


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


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value
