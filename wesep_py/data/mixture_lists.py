"""Lists of mixtures: LibriMix's metadata CSVs (with gains, or of rendered mixtures) and rendered trees; WeSep's lists.

- `read_mixtures`: the mixtures of a list, each a `Mixture` of `MixtureSource`s and a `MixtureNoise`.
- `speakers_of`, `guess_speaker`: the speakers of a mixture's sources.
- `read_librimix_metadata`: the distinct sources of a list, as a corpus of utterances.
- `find_noise_file`: the recording behind WHAM!'s noises at other speeds.

The mixtures as training data are in `mixture_corpus`, those to evaluate in `trials`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from wesep_py.audio.media import is_recording_name
from wesep_py.common.errors import InputError, quoted, shorten
from wesep_py.common.names import canonical, file_name, is_hidden
from wesep_py.common.textfiles import Row, read_csv, read_jsonl
from wesep_py.data.manifest import FileLocator, Utterance, check_unique, is_file, is_recording, speaker_of
from wesep_py.data.reader import OnProgress, OnSkip, measure_durations
from wesep_py.data.recipe_lists import (
    RecipeMixture,
    is_data_folder,
    is_list,
    list_kind,
    read_folder_mixtures,
    read_raw_mixtures,
)

RECIPES_NAME = "recipes.jsonl"
GROUP_COLUMN = "group_"
"""Beginning of the names of columns by which results are broken down."""
MIXTURE_FOLDERS = {"clean": "mix_clean", "noisy": "mix_both"}
_DRAWN_ID = re.compile(r"\d{4,}-\d{7,}-seed\d+")


@dataclass(frozen=True)
class MixtureSource:
    """One speaker of a mixture: an audio file and its gain (linear)."""

    utterance_id: str
    path: Path
    gain: float = 1.0
    speaker_id: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "utterance_id", canonical(self.utterance_id))
        object.__setattr__(self, "speaker_id", self.speaker_id and canonical(self.speaker_id))


@dataclass(frozen=True)
class MixtureNoise:
    """The noise of a mixture: a file, its gain (linear), and its start in the file (s); looped if it ends."""

    path: Path
    gain: float = 1.0
    offset_s: float = 0.0


@dataclass(frozen=True)
class Mixture:
    """One mixture of a list.

    Args:
        mixture_id: its name, unique in its list.
        sources: at least one, except for a recording whose sources are not available separately. All are cut to the
            shortest, multiplied by their gains and added.
        noise: added in the noisy condition; `None` if the list names none.
        rendered: the mixture's own file by condition (`"clean"`, `"noisy"`), if it has been rendered. The sources are
            then its images, with gain 1. A recording without sources is the file of both conditions; it may be a
            segment `FILE@START-STOP` of a longer one.
        place: file and line of the mixture, for messages.
        groups: values of the list's columns `group_…`, by which results are broken down.
    """

    mixture_id: str
    sources: tuple[MixtureSource, ...]
    noise: MixtureNoise | None = None
    rendered: Mapping[str, Path] = field(default_factory=dict)
    place: str = ""
    groups: Mapping[str, str] = field(default_factory=dict)


def read_mixtures(
    path: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    noise_root: str | os.PathLike[str] | None = None,
    recordings: bool = False,
) -> dict[str, Mixture]:
    """Return the mixtures of a list by their ids, in its order.

    A list has one of these forms, the first three of which LibriMix (Cosentino et al., arXiv 2005.11262) writes:

    - metadata of mixtures to render: `mixture_ID, source_1_path, source_1_gain, …, noise_path, noise_gain` and
      optionally `noise_offset_s`;
    - metadata of rendered mixtures: `mixture_ID, mixture_path, source_1_path, …, noise_path, length`;
    - a folder with `s1`, `s2`, … and `mix_clean`, `mix_both` or `noise`, whose files are named by the mixtures' ids.
      The speakers come from the metadata or the `recipes.jsonl` that were written with it, if these exist;
    - a data folder of WeSep or ESPnet, with `wav.scp`, or a `raw.list` of WeSep (`recipe_lists`).

    Args:
        path: the CSV, the folder, or the list.
        root: the folder that relative paths in a CSV start from; by default the CSV's own.
        noise_root: the same for noise; by default `root`.
        recordings: accept a CSV that names recordings without their sources: `mixture_ID, mixture_path`; the path may
            be a segment `FILE@START-STOP` of a recording.

    Raises:
        InputError: the list is missing, empty or malformed. The message names file, line and column.
    """
    path = Path(path)
    if is_data_folder(path):
        return {mixture.mixture_id: _of_recipe(mixture) for mixture in read_folder_mixtures(path, root)}
    if path.is_dir():
        return _read_tree(path)
    if path.name == "wav.scp":
        raise InputError(f"{path}: is read together with the lists beside it; name its folder, {path.parent}")
    if is_list(path):
        return {mixture.mixture_id: _of_recipe(mixture) for mixture in _read_recipe_list(path, root)}
    columns = ("mixture_ID",) if recordings else ("mixture_ID", "source_1_path")
    rows = read_csv(path, "a LibriMix metadata CSV, or of a rendered tree", columns)
    if not rows:
        raise InputError(f"{path}: names no mixture")
    locator = FileLocator(root if root is not None else path.parent, path)
    noise_locator = locator if noise_root is None else FileLocator(noise_root, path)
    mixtures: dict[str, Mixture] = {}
    first_places: dict[str, str] = {}
    for row in rows:
        mixture = _mixture_from_row(row, locator, noise_locator, recordings)
        first_place = first_places.setdefault(canonical(mixture.mixture_id), row.place)
        if first_place != row.place:
            raise InputError(f"{row.place}: mixture_ID {quoted(mixture.mixture_id)} is listed at {first_place} already")
        mixtures[mixture.mixture_id] = mixture
    return mixtures


def _read_recipe_list(path: Path, root: str | os.PathLike[str] | None) -> list[RecipeMixture]:
    if list_kind(path) == "shards":
        raise InputError(
            f"{path}: names tar files, whose mixtures are no files; name the data folder with wav.scp, or unpack them: "
            "wesep prepare wesep"
        )
    return read_raw_mixtures(path, root)


def _of_recipe(listed: RecipeMixture) -> Mixture:
    """Return the mixture of a data list of WeSep or ESPnet."""
    ids = source_ids(listed.mixture_id, list(listed.sources))
    if len(set(ids)) < len(ids):  # the key does not consist of the utterances' ids
        ids = [f"{listed.mixture_id}-s{k}" for k in range(1, len(ids) + 1)]
    speakers = listed.speakers or (None,) * len(ids)
    sources = tuple(
        MixtureSource(utterance_id, path, 1.0, speaker_id)
        for utterance_id, path, speaker_id in zip(ids, listed.sources, speakers, strict=True)
    )
    noise = None if listed.noise is None else MixtureNoise(listed.noise)
    rendered = {_condition(listed.path, noise): listed.path}
    return Mixture(listed.mixture_id, sources, noise, rendered, listed.place)


def _mixture_from_row(row: Row, locator: FileLocator, noise_locator: FileLocator, recordings: bool) -> Mixture:
    mixture_id = row.text("mixture_ID")
    paths = []
    while (source_path := row.optional_text(f"source_{len(paths) + 1}_path")) is not None:
        paths.append(locator.find(source_path))
    stated_path = row.optional_text("mixture_path")
    mixture_path = None if stated_path is None else locator.find(stated_path, is_recording)
    if not paths and recordings and mixture_path is not None:
        rendered = dict.fromkeys(MIXTURE_FOLDERS, mixture_path)
        return Mixture(mixture_id, (), rendered=rendered, place=row.place, groups=_groups(row))
    if not paths:
        raise InputError(f"{row.place}: source_1_path is missing" + (", and mixture_path" if recordings else ""))
    ids = source_ids(mixture_id, paths)
    sources = tuple(
        MixtureSource(
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
        # A noise at another speed is there if its original is.
        noise_file = noise_locator.find(noise_path, lambda path: is_file(find_noise_file(path).path))
        noise_gain = row.optional_number("noise_gain")
        noise = MixtureNoise(noise_file, 1.0 if noise_gain is None else noise_gain, offset_s)
    rendered = {} if mixture_path is None else {_condition(mixture_path, noise): mixture_path}
    return Mixture(mixture_id, sources, noise, rendered, row.place, _groups(row))


def _groups(row: Row) -> dict[str, str]:
    """Return the values of the columns whose names begin with `group_`, by the rest of the name."""
    names = [name for name in row.values if name.startswith(GROUP_COLUMN)]
    return {name.removeprefix(GROUP_COLUMN): text for name in names if (text := row.optional_text(name)) is not None}


def _source_gains(row: Row, count: int) -> list[float]:
    """Return the gains of all sources; 1 for each if the row has none.

    Raises:
        InputError: some sources have a gain and others have none.
    """
    gains = [row.optional_number(f"source_{k}_gain") for k in range(1, count + 1)]
    stated_gains = [gain for gain in gains if gain is not None]
    if stated_gains and len(stated_gains) < count:
        missing = ", ".join(f"source_{k}_gain" for k, gain in enumerate(gains, start=1) if gain is None)
        raise InputError(f"{row.place}: has no {missing}, but other sources have a gain; give all of them one, or none")
    return stated_gains or [1.0] * count


def _condition(mixture: Path, noise: MixtureNoise | None) -> str:
    """Return the condition of a rendered mixture: by its folder, or else by whether the list names noise."""
    for condition, folder in MIXTURE_FOLDERS.items():
        if mixture.parent.name == folder:
            return condition
    return "clean" if noise is None else "noisy"


def source_ids(mixture_id: str, paths: list[Path]) -> list[str]:
    """Return the utterance ids of a mixture's sources.

    LibriMix joins them with `_` into the mixture's id. If the parts of the id cannot be divided evenly among the
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
    # An id may have underscores of its own: `id_1_a_id_2_b` of two sources is `id_1_a` and `id_2_b`.
    size = len(parts) // len(paths)
    return ["_".join(parts[k * size : (k + 1) * size]) for k in range(len(paths))]


# Speakers.


def speakers_of(mixture: Mixture) -> tuple[str, ...]:
    """Return the speaker of each source of a mixture, from its list or else from the ids of its utterances.

    Raises:
        InputError: a speaker is unknown, or two sources have the same speaker.
    """
    utterance_of_speaker: dict[str, str] = {}
    for k, source in enumerate(mixture.sources, start=1):
        speaker_id = source.speaker_id or guess_speaker(mixture.mixture_id, source)
        if speaker_id is None:
            raise InputError(
                f"{mixture.place}: utterance {quoted(source.utterance_id)} does not say who speaks; it must begin "
                f"SPEAKER-, or a column source_{k}_speaker_id must say so"
            )
        if speaker_id in utterance_of_speaker:
            by_names = "" if source.speaker_id else "by their names "
            raise InputError(
                f"{mixture.place}: source {k} of mixture {quoted(mixture.mixture_id)} ({shorten(source.utterance_id)}) "
                f"and the one before it ({shorten(utterance_of_speaker[speaker_id])}) are {by_names}both of speaker "
                f"{quoted(speaker_id)}; the speakers of a mixture must differ: name them in columns "
                "source_1_speaker_id, source_2_speaker_id, … of a CSV"
            )
        utterance_of_speaker[speaker_id] = source.utterance_id
    return tuple(utterance_of_speaker)


def guess_speaker(mixture_id: str, source: MixtureSource, speakers: Container[str] = ()) -> str | None:
    """Return the speaker that the utterance id of a source names (`speaker_of`), or `None` if it names none.

    The id of a mixture that was drawn (`drawn_mixture_id`) names no speaker, although it looks like an utterance's id.
    """
    is_id_of_drawn_mixture = source.utterance_id == mixture_id and _DRAWN_ID.fullmatch(mixture_id)
    return None if is_id_of_drawn_mixture else speaker_of(source.utterance_id, speakers)


def drawn_mixture_id(epoch: int, index: int, seed: int) -> str:
    """Return the id of a mixture that was drawn; it names no speaker.

    >>> drawn_mixture_id(0, 12, 7)
    '0000-0000012-seed7'
    """
    return f"{epoch:04d}-{index:07d}-seed{seed}"


# Rendered trees.


class _ListedSources(NamedTuple):
    """The sources of a mixture of a tree, from a list that was written with it: utterance, and speaker if known."""

    mixture_id: str
    sources: list[tuple[str, str | None]]
    place: str = ""


def _read_tree(folder: Path) -> dict[str, Mixture]:
    source_folders = sorted(
        (int(match[1]), entry)
        for entry in folder.iterdir()
        if entry.is_dir() and (match := re.fullmatch(r"s(\d+)", entry.name))
    )
    numbers = [number for number, _ in source_folders]
    if not numbers or numbers != list(range(1, len(numbers) + 1)):
        raise InputError(
            f"{folder}: has no folders s1, s2, … and no wav.scp; give a rendered LibriMix tree, a metadata CSV, "
            "or a data folder of WeSep or ESPnet"
        )
    source_files = [_files_by_name(entry) for _, entry in source_folders]
    noise_files = _files_by_name(folder / "noise")
    mixture_files = {condition: _files_by_name(folder / name) for condition, name in MIXTURE_FOLDERS.items()}
    listed_sources = _read_listed_sources(folder, source_files[0])
    mixtures = {}
    for name in source_files[0]:
        # A mixture of fewer speakers than the tree has folders has no file in the last ones.
        paths = [files[name] for files in source_files if name in files]
        if any(name not in files for files in source_files[: len(paths)]):
            raise InputError(f"{folder}: {name} is in a later one of s1, s2, … but not in an earlier one")
        listed = listed_sources.get(name)
        if listed is None:
            ids = source_ids(name, [Path(name)] * len(paths))
            listed = _ListedSources(name, [(utterance_id, None) for utterance_id in ids])
        if len(listed.sources) != len(paths):
            raise InputError(
                f"{listed.place}: mixture {quoted(listed.mixture_id)} has {len(listed.sources)} sources, and the tree "
                f"{len(paths)}; render the tree again"
            )
        mixtures[listed.mixture_id] = Mixture(
            listed.mixture_id,
            tuple(
                MixtureSource(utterance_id, path, 1.0, speaker_id)
                for (utterance_id, speaker_id), path in zip(listed.sources, paths, strict=True)
            ),
            MixtureNoise(noise_files[name]) if name in noise_files else None,
            {condition: files[name] for condition, files in mixture_files.items() if name in files},
            listed.place or str(folder),
        )
    if not mixtures:
        raise InputError(f"{folder}: its folder s1 holds no file")
    return mixtures


def _files_by_name(folder: Path) -> dict[str, Path]:
    """Return the audio files of a folder by their names without suffix; empty if there is no such folder."""
    if not folder.is_dir():
        return {}
    files: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if is_recording_name(file) and file.is_file() and not is_hidden(file.name):
            other = files.setdefault(canonical(file.stem), file)
            if other is not file:
                raise InputError(f"{file}: has the name of {other.name}; remove one of the two")
    return files


def _read_listed_sources(folder: Path, names: Collection[str]) -> dict[str, _ListedSources]:
    """Return the sources of a tree's mixtures by file name, from the lists that were written with the tree.

    `wesep simulate` writes its lists and `recipes.jsonl` into the tree, LibriMix into `metadata` next to it. A list
    without columns for utterances or speakers is not used.
    """
    lists = [*folder.glob("mixture_*.csv"), *(folder.parent / "metadata").glob(f"mixture_{folder.name}_*.csv")]
    listed: dict[str, _ListedSources] = {}
    for path in sorted(path for path in lists if not is_hidden(path.name)):
        for row in read_csv(path, "the metadata of a rendered tree", ("mixture_ID",)):
            mixture_id = row.text("mixture_ID")
            if (name := file_name(mixture_id)) in names and name not in listed:
                sources = _sources_in_row(row)
                if sources is not None:
                    listed[name] = _ListedSources(mixture_id, sources, row.place)
    recipes = folder / RECIPES_NAME
    if len(listed) == len(names) or not recipes.is_file():
        return listed
    for row in read_jsonl(recipes, "the recipes of a rendered tree"):
        try:
            values = row.values
            mixture_id = drawn_mixture_id(values["epoch"], values["index"], values["seed"])
            utterances = [source["excerpt"]["utterance"] for source in values["sources"]]
            sources = [(str(utterance["utterance_id"]), str(utterance["speaker_id"])) for utterance in utterances]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{row.place}: is not a recipe of `wesep simulate`; render the tree again") from error
        listed.setdefault(file_name(mixture_id), _ListedSources(mixture_id, sources, row.place))
    return listed


def _sources_in_row(row: Row) -> list[tuple[str, str | None]] | None:
    """Return utterance and speaker of each source of a row, or `None` if it names no speaker."""
    sources = []
    while row.optional_text(f"source_{len(sources) + 1}_path") is not None:
        k = len(sources) + 1
        sources.append((row.optional_text(f"source_{k}_utterance_id"), row.optional_text(f"source_{k}_speaker_id")))
    if not sources or not any(speaker_id for _, speaker_id in sources):
        return None
    mixture_id = row.text("mixture_ID")
    ids = source_ids(mixture_id, [Path(mixture_id)] * len(sources))
    return [(utterance_id or ids[k], speaker_id) for k, (utterance_id, speaker_id) in enumerate(sources)]


# The sources of a list as a corpus.


def read_librimix_metadata(
    path: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    on_skip: OnSkip | None = None,
    on_progress: OnProgress | None = None,
) -> list[Utterance]:
    """Return the distinct sources of a LibriMix metadata CSV or rendered tree, as a corpus.

    A source of a rendered mixture is an utterance of its own, `<mixture_ID>-s<k>`, since it is cut and scaled for its
    mixture. A source of metadata with gains is the recording itself, once however often it is mixed.

    Args:
        path: the CSV or the tree, in any form that `read_mixtures` takes.
        root: the folder that relative paths in a CSV start from; by default the CSV's own.
        on_skip: called with each recording that cannot be read; the recording is skipped.
        on_progress: called with the number of recordings measured and the total number.

    Raises:
        InputError: the list is missing or malformed, a speaker is unknown, or a mixture has one speaker twice.
        AudioError: a recording cannot be read, and `on_skip` is `None`.
    """
    mixtures = read_mixtures(path, root)
    is_rendered = os.path.isdir(path) or any(mixture.rendered for mixture in mixtures.values())  # noqa: PTH112
    sources = [
        (f"{mixture.mixture_id}-s{k}" if is_rendered else source.utterance_id, speaker_id, source)
        for mixture in mixtures.values()
        for k, (source, speaker_id) in enumerate(zip(mixture.sources, speakers_of(mixture), strict=True), start=1)
    ]
    durations = measure_durations((source.path for _, _, source in sources), on_skip, on_progress)
    utterances: dict[str, Utterance] = {}
    for utterance_id, speaker_id, source in sources:
        if source.path not in durations:
            continue
        utterance = Utterance(utterance_id, speaker_id, source.path, durations[source.path])
        known = utterances.setdefault(utterance_id, utterance)
        check_unique([known] if known == utterance else [known, utterance])
    return list(utterances.values())


# The noises of WHAM! as LibriMix's metadata names them: in the training part also at other speeds.

WHAM_SPEEDS = {"sp08": 0.8, "sp12": 1.2}
_SPEED_MARK = re.compile(rf"({'|'.join(WHAM_SPEEDS)})$")


class NoiseFile(NamedTuple):
    """A recording of noise, and its playback speed relative to the recording."""

    path: Path
    speed: float = 1.0


def find_noise_file(path: Path) -> NoiseFile:
    """Return the recording that a path in the metadata stands for.

    LibriMix's scripts write every training noise at 0.8 and 1.2 times its speed next to it, as `<name>sp08.wav` and
    `<name>sp12.wav`. If such a file does not exist, it stands for its original at that speed.

    >>> find_noise_file(Path("tr/01ga010esp08.wav"))
    NoiseFile(path=PosixPath('tr/01ga010e.wav'), speed=0.8)
    """
    mark = _SPEED_MARK.search(path.stem)
    if mark is None or path.is_file():
        return NoiseFile(path)
    return NoiseFile(path.with_name(path.stem[: mark.start()] + path.suffix), WHAM_SPEEDS[mark[1]])
