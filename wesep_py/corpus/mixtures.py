"""Lists of mixtures in LibriMix's form: metadata CSV, with gains or rendered, and trees of rendered files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wesep_py.corpus.table import Row, read_csv
from wesep_py.errors import InputError

MIXTURE_FOLDERS = {"clean": "mix_clean", "noisy": "mix_both"}


@dataclass(frozen=True)
class TrialSource:
    """One speaker of a mixture: an audio file and the gain (linear) that it is multiplied by."""

    utterance_id: str
    path: Path
    gain: float = 1.0
    speaker_id: str | None = None


@dataclass(frozen=True)
class TrialNoise:
    """The noise of a mixture: a file, its gain (linear), and where to begin in it (s); looped if it ends."""

    path: Path
    gain: float = 1.0
    offset_s: float = 0.0


@dataclass(frozen=True)
class Mixture:
    """One mixture of a list.

    Args:
        mixture_id: its name, unique in its list.
        sources: at least one, but of a recording whose sources nobody knows apart. All are cut to the shortest,
            multiplied by their gains and added.
        noise: added in the noisy condition; `None` where the list names none.
        rendered: the mixture's own file by condition (`"clean"`, `"noisy"`), where it has been rendered.
            Then the sources are its images, with gain 1. A recording without sources stands for both conditions.
        place: file and line it stands at, for messages.
    """

    mixture_id: str
    sources: tuple[TrialSource, ...]
    noise: TrialNoise | None = None
    rendered: Mapping[str, Path] = field(default_factory=dict)
    place: str = ""


def read_mixtures(
    path: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    noise_root: str | os.PathLike[str] | None = None,
    recordings: bool = False,
) -> dict[str, Mixture]:
    """The mixtures of a list, by their ids, in its order.

    Three forms, which LibriMix (Cosentino et al., arXiv 2005.11262) writes:

    - metadata of what to mix: `mixture_ID, source_1_path, source_1_gain, …, noise_path, noise_gain` and
      optionally `noise_offset_s`;
    - metadata of what was rendered: `mixture_ID, mixture_path, source_1_path, …, noise_path, length`;
    - a folder with `s1`, `s2`, … and `mix_clean`, `mix_both` or `noise`, whose files bear the mixtures' ids.

    Args:
        path: the CSV, or the folder.
        root: the folder that relative paths in a CSV start from; by default the CSV's own.
        noise_root: the same for noise; by default `root`.
        recordings: whether a CSV may name recordings alone, `mixture_ID, mixture_path`, without their sources.

    Raises:
        InputError: the list is missing, empty or malformed; the message names file, line and column.
    """
    path = Path(path)
    if path.is_dir():
        return _read_tree(path)
    columns = ("mixture_ID",) if recordings else ("mixture_ID", "source_1_path")
    rows = read_csv(path, "a LibriMix metadata CSV, or of a rendered tree", columns)
    if not rows:
        raise InputError(f"{path}: names no mixture")
    base = Path(root) if root is not None else path.parent
    noise_base = Path(noise_root) if noise_root is not None else base
    mixtures: dict[str, Mixture] = {}
    for row in rows:
        mixture = _from_row(row, base, noise_base, recordings)
        if mixture.mixture_id in mixtures:
            first = mixtures[mixture.mixture_id].place
            raise InputError(f"{row.place}: mixture_ID {mixture.mixture_id!r} stands at {first} already")
        mixtures[mixture.mixture_id] = mixture
    return mixtures


def source_ids(mixture_id: str, paths: list[Path]) -> list[str]:
    """The utterance ids of a mixture's sources.

    LibriMix joins them with `_` into the mixture's id. Where its parts cannot be dealt out evenly to the
    sources, the names of the files are the ids.

    >>> source_ids("84-121-03_61-70-11", [Path("84-121-03.flac"), Path("61-70-11.flac")])
    ['84-121-03', '61-70-11']
    """
    stems = [path.stem for path in paths]
    if "_".join(stems) == mixture_id:
        return stems
    parts = mixture_id.split("_")
    if len(parts) % len(paths):
        return stems
    size = len(parts) // len(paths)
    return ["_".join(parts[k * size : (k + 1) * size]) for k in range(len(paths))]


def _from_row(row: Row, base: Path, noise_base: Path, recordings: bool) -> Mixture:
    mixture_id = row.text("mixture_ID")
    paths = []
    while (source := row.optional_text(f"source_{len(paths) + 1}_path")) is not None:
        paths.append(base / source)
    mixture_path = row.optional_text("mixture_path")
    if not paths and recordings and mixture_path is not None:
        return Mixture(mixture_id, (), rendered=dict.fromkeys(MIXTURE_FOLDERS, base / mixture_path), place=row.place)
    if not paths:
        raise InputError(f"{row.place}: source_1_path is missing" + (", and mixture_path" if recordings else ""))
    ids = source_ids(mixture_id, paths)
    sources = tuple(
        TrialSource(
            row.optional_text(f"source_{k}_utterance_id") or ids[k - 1],
            path,
            gain,
            row.optional_text(f"source_{k}_speaker_id"),
        )
        for k, (path, gain) in enumerate(zip(paths, _source_gains(row, len(paths)), strict=True), start=1)
    )
    noise_path = row.optional_text("noise_path")
    noise = None
    if noise_path is not None:
        offset_s = row.optional_number("noise_offset_s") or 0.0
        if offset_s < 0:
            raise InputError(f"{row.place}: noise_offset_s is {offset_s}; seconds of at least 0 are needed")
        noise = TrialNoise(noise_base / noise_path, _gain(row, "noise_gain"), offset_s)
    rendered: dict[str, Path] = {}
    if mixture_path is not None:
        rendered[_condition(base / mixture_path, noise)] = base / mixture_path
    return Mixture(mixture_id, sources, noise, rendered, row.place)


def _source_gains(row: Row, count: int) -> list[float]:
    """The gains of all sources; 1 where the row has none.

    Raises:
        InputError: some sources have a gain and others have none.
    """
    gains = [row.optional_number(f"source_{k}_gain") for k in range(1, count + 1)]
    given = [gain for gain in gains if gain is not None]
    if given and len(given) < count:
        bare = ", ".join(f"source_{k}_gain" for k, gain in enumerate(gains, start=1) if gain is None)
        raise InputError(f"{row.place}: has no {bare}, but other sources have a gain; give all of them one, or none")
    return given or [1.0] * count


def _gain(row: Row, column: str) -> float:
    gain = row.optional_number(column)
    return 1.0 if gain is None else gain


def _condition(mixture: Path, noise: TrialNoise | None) -> str:
    for condition, folder in MIXTURE_FOLDERS.items():
        if mixture.parent.name == folder:
            return condition
    return "clean" if noise is None else "noisy"


def _read_tree(folder: Path) -> dict[str, Mixture]:
    numbered = sorted(
        (int(match[1]), entry)
        for entry in folder.iterdir()
        if entry.is_dir() and (match := re.fullmatch(r"s(\d+)", entry.name))
    )
    if not numbered or [number for number, _ in numbered] != list(range(1, len(numbered) + 1)):
        raise InputError(f"{folder}: has no folders s1, s2, …; give a rendered LibriMix tree, or a metadata CSV")
    by_name = [{file.stem: file for file in _files(entry)} for _, entry in numbered]
    noises = {file.stem: file for file in _files(folder / "noise")}
    mixed = {c: {file.stem: file for file in _files(folder / name)} for c, name in MIXTURE_FOLDERS.items()}
    mixtures = {}
    for mixture_id in by_name[0]:
        # A mixture of fewer speakers than the tree has folders has no file in the last ones.
        paths = [files[mixture_id] for files in by_name if mixture_id in files]
        if any(mixture_id not in files for files in by_name[: len(paths)]):
            raise InputError(f"{folder}: {mixture_id} is in a later one of s1, s2, … but not in an earlier one")
        ids = source_ids(mixture_id, [Path(mixture_id)] * len(paths))
        mixtures[mixture_id] = Mixture(
            mixture_id,
            tuple(TrialSource(utterance_id, path) for utterance_id, path in zip(ids, paths, strict=True)),
            TrialNoise(noises[mixture_id]) if mixture_id in noises else None,
            {condition: files[mixture_id] for condition, files in mixed.items() if mixture_id in files},
            str(folder),
        )
    if not mixtures:
        raise InputError(f"{folder}: its folder s1 holds no file")
    return mixtures


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file()) if folder.is_dir() else []
