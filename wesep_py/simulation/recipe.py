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
from wesep_py.corpus.mixtures import drawn_mixture_id
from wesep_py.errors import SHOWN, InputError, naming, shorten
from wesep_py.files import atomic_path
from wesep_py.simulation.effects import Effect
from wesep_py.simulation.recipe_checks import check_sizes
from wesep_py.simulation.recipe_parts import (
    AbsentVoice,
    Augmentation,
    BankRoomRecipe,
    Modulation,
    NoiseRecipe,
    Point,
    RoomRecipe,
    SourceRecipe,
    Stretch,
    Turn,
)
from wesep_py.textfiles import Row, parse_object

__all__ = [
    "FORMAT_VERSION",
    "AbsentVoice",
    "Augmentation",
    "BankRoomRecipe",
    "Modulation",
    "NoiseRecipe",
    "Point",
    "Recipe",
    "RoomRecipe",
    "SourceRecipe",
    "Stretch",
    "Turn",
    "read_recipes",
    "write_recipes",
]

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
    absent: AbsentVoice | None = None
    effects: tuple[Effect, ...] = ()
    peak: float | None = None
    version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if (self.target is None) == (self.absent is None):
            raise ValueError("target: either a source's number or an absent voice is needed, and not both")
        if self.target is not None and self.sources and not 0 <= self.target < len(self.sources):
            raise ValueError(f"target: is {self.target}; there are {len(self.sources)} sources, counted from 0")
        check_sizes(self.sample_rate, self.num_samples, self.sources, self.noises, self.room)

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
