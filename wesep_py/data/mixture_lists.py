"""The utterances that the mixtures of LibriMix are made of."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from wesep_py.common.errors import InputError
from wesep_py.common.names import canonical, file_name, is_hidden
from wesep_py.common.textfiles import Row, read_csv, read_jsonl
from wesep_py.data.corpora import AUDIO_SUFFIXES
from wesep_py.data.manifest import FileLocator, Utterance, check_unique, is_file, speaker_of
from wesep_py.data.reader import OnProgress, OnSkip, measure_durations

# ----------------------------------------
# The noises of WHAM! as LibriMix's metadata names them: in the training part also at other speeds.

WHAM_SPEEDS = {"sp08": 0.8, "sp12": 1.2}
_MARK = re.compile(rf"({'|'.join(WHAM_SPEEDS)})$")


class NoiseFile(NamedTuple):
    """A recording, and how much faster than recorded it is played."""

    path: Path
    speed: float = 1.0


def find_noise_file(path: Path) -> NoiseFile:
    """The recording that a metadata path names.

    LibriMix's scripts write every training noise at 0.8 and 1.2 times its speed beside it, `<name>sp08.wav` and
    `<name>sp12.wav`. Where such a file is not there, it is its original at that speed.

    >>> find_noise_file(Path("tr/01ga010esp08.wav"))
    NoiseFile(path=PosixPath('tr/01ga010e.wav'), speed=0.8)
    """
    mark = _MARK.search(path.stem)
    if mark is None or path.is_file():
        return NoiseFile(path)
    return NoiseFile(path.with_name(path.stem[: mark.start()] + path.suffix), WHAM_SPEEDS[mark[1]])


# ----------------------------------------
# Lists of mixtures in LibriMix's form: metadata CSV, with gains or rendered, and trees of rendered files.

RECIPES_NAME = "recipes.jsonl"
MIXTURE_FOLDERS = {"clean": "mix_clean", "noisy": "mix_both"}
_DRAWN = re.compile(r"\d{4,}-\d{7,}-seed\d+")


@dataclass(frozen=True)
class MixtureSource:
    """One speaker of a mixture: an audio file and the gain (linear) that it is multiplied by."""

    utterance_id: str
    path: Path
    gain: float = 1.0
    speaker_id: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "utterance_id", canonical(self.utterance_id))
        object.__setattr__(self, "speaker_id", self.speaker_id and canonical(self.speaker_id))


@dataclass(frozen=True)
class MixtureNoise:
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
    sources: tuple[MixtureSource, ...]
    noise: MixtureNoise | None = None
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
    - a folder with `s1`, `s2`, … and `mix_clean`, `mix_both` or `noise`, whose files bear the mixtures' ids. Who speaks
      is told by the metadata or the `recipes.jsonl` that were written with it, where they are there.

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
    places = FileLocator(base, path)
    noise_places = places if noise_root is None else FileLocator(noise_root, path)
    mixtures: dict[str, Mixture] = {}
    seen: dict[str, str] = {}
    for row in rows:
        mixture = _from_row(row, places, noise_places, recordings)
        first = seen.setdefault(canonical(mixture.mixture_id), row.place)
        if first != row.place:
            raise InputError(f"{row.place}: mixture_ID {mixture.mixture_id!r} stands at {first} already")
        mixtures[mixture.mixture_id] = mixture
    return mixtures


def drawn_mixture_id(epoch: int, index: int, seed: int) -> str:
    """Return the name of a mixture that was drawn; it says nothing of who speaks in it.

    >>> drawn_mixture_id(0, 12, 7)
    '0000-0000012-seed7'
    """
    return f"{epoch:04d}-{index:07d}-seed{seed}"


def guess_speaker(mixture_id: str, source: MixtureSource, speakers: Container[str] = ()) -> str | None:
    """Return the speaker of a source whose list does not say: by its utterance's id, if that is one and says so."""
    is_name_of_mixture = source.utterance_id == mixture_id and _DRAWN.fullmatch(mixture_id)
    return None if is_name_of_mixture else speaker_of(source.utterance_id, speakers)


def speakers_of(mixture: Mixture) -> tuple[str, ...]:
    """Return who speaks each source of a mixture: as its list says, or as the ids of its utterances do.

    Raises:
        InputError: neither says so, or two sources would be of one speaker.
    """
    named: dict[str, str] = {}
    for k, source in enumerate(mixture.sources, start=1):
        speaker_id = source.speaker_id or guess_speaker(mixture.mixture_id, source)
        if speaker_id is None:
            raise InputError(
                f"{mixture.place}: utterance {source.utterance_id!r} does not say who speaks; it must begin SPEAKER-, "
                f"or a column source_{k}_speaker_id must say so"
            )
        if speaker_id in named:
            guessed = "" if source.speaker_id else "by their names "
            raise InputError(
                f"{mixture.place}: source {k} of mixture {mixture.mixture_id!r} ({source.utterance_id}) and the one "
                f"before it ({named[speaker_id]}) are {guessed}both of speaker {speaker_id!r}; the speakers of a "
                "mixture have to differ: say who speaks in columns source_1_speaker_id, source_2_speaker_id, … of a CSV"
            )
        named[speaker_id] = source.utterance_id
    return tuple(named)


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


def _from_row(row: Row, places: FileLocator, noise_places: FileLocator, recordings: bool) -> Mixture:
    mixture_id = row.text("mixture_ID")
    paths = []
    while (source := row.optional_text(f"source_{len(paths) + 1}_path")) is not None:
        paths.append(places.find(source))
    named = row.optional_text("mixture_path")
    mixture_path = None if named is None else places.find(named)
    if not paths and recordings and mixture_path is not None:
        return Mixture(mixture_id, (), rendered=dict.fromkeys(MIXTURE_FOLDERS, mixture_path), place=row.place)
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
        place = noise_places.find(noise_path, lambda path: is_file(find_noise_file(path).path))
        noise = MixtureNoise(place, _gain(row, "noise_gain"), offset_s)
    rendered: dict[str, Path] = {}
    if mixture_path is not None:
        rendered[_condition(mixture_path, noise)] = mixture_path
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


def _condition(mixture: Path, noise: MixtureNoise | None) -> str:
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
    by_name = [_files(entry) for _, entry in numbered]
    noises = _files(folder / "noise")
    mixed = {condition: _files(folder / name) for condition, name in MIXTURE_FOLDERS.items()}
    told = _told_sources(folder, by_name[0])
    mixtures = {}
    for name in by_name[0]:
        # A mixture of fewer speakers than the tree has folders has no file in the last ones.
        paths = [files[name] for files in by_name if name in files]
        if any(name not in files for files in by_name[: len(paths)]):
            raise InputError(f"{folder}: {name} is in a later one of s1, s2, … but not in an earlier one")
        told_here = told.get(name) or _Told(name, [(i, None) for i in source_ids(name, [Path(name)] * len(paths))])
        if len(told_here.sources) != len(paths):
            raise InputError(
                f"{told_here.place}: mixture {told_here.mixture_id!r} has {len(told_here.sources)} sources, and the "
                f"tree {len(paths)}; render the tree again"
            )
        mixtures[told_here.mixture_id] = Mixture(
            told_here.mixture_id,
            tuple(MixtureSource(u, path, 1.0, s) for (u, s), path in zip(told_here.sources, paths, strict=True)),
            MixtureNoise(noises[name]) if name in noises else None,
            {condition: files[name] for condition, files in mixed.items() if name in files},
            told_here.place or str(folder),
        )
    if not mixtures:
        raise InputError(f"{folder}: its folder s1 holds no file")
    return mixtures


def _files(folder: Path) -> dict[str, Path]:
    """The audio files of a folder by their names without suffix."""
    if not folder.is_dir():
        return {}
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in AUDIO_SUFFIXES and file.is_file() and not is_hidden(file.name):
            other = found.setdefault(canonical(file.stem), file)
            if other is not file:
                raise InputError(f"{file}: has the name of {other.name}; which of them is meant?")
    return found


class _Told(NamedTuple):
    """What was written with a tree of one of its mixtures: of each source the utterance, and the speaker if known."""

    mixture_id: str
    sources: list[tuple[str, str | None]]
    place: str = ""


def _told_sources(folder: Path, names: Collection[str]) -> dict[str, _Told]:
    """What the lists beside a rendered tree say of its mixtures, by the names of their files.

    `wesep simulate` writes its lists and `recipes.jsonl` into the tree, LibriMix into `metadata` beside it. Of lists
    without columns for utterances or speakers nothing is taken.
    """
    lists = [*folder.glob("mixture_*.csv"), *(folder.parent / "metadata").glob(f"mixture_{folder.name}_*.csv")]
    told: dict[str, _Told] = {}
    for path in sorted(path for path in lists if not is_hidden(path.name)):
        for row in read_csv(path, "the metadata of a rendered tree", ("mixture_ID",)):
            if (name := file_name(row.text("mixture_ID"))) in names and name not in told:
                sources = _told_in_row(row)
                if sources is not None:
                    told[name] = _Told(row.text("mixture_ID"), sources, row.place)
    recipes = folder / RECIPES_NAME
    if len(told) == len(names) or not recipes.is_file():
        return told
    for row in read_jsonl(recipes, "the recipes of a rendered tree"):
        try:
            values = row.values
            mixture_id = drawn_mixture_id(values["epoch"], values["index"], values["seed"])
            utterances = [source["excerpt"]["utterance"] for source in values["sources"]]
            found = [(str(each["utterance_id"]), str(each["speaker_id"])) for each in utterances]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{row.place}: is no recipe of `wesep simulate`; render the tree again") from error
        told.setdefault(file_name(mixture_id), _Told(mixture_id, found, row.place))
    return told


def _told_in_row(row: Row) -> list[tuple[str, str | None]] | None:
    """Utterances and speakers of a row; `None` where it does not name them."""
    sources = []
    while row.optional_text(f"source_{len(sources) + 1}_path") is not None:
        k = len(sources) + 1
        sources.append((row.optional_text(f"source_{k}_utterance_id"), row.optional_text(f"source_{k}_speaker_id")))
    if not sources or not any(speaker_id for _, speaker_id in sources):
        return None
    names = source_ids(row.text("mixture_ID"), [Path(row.text("mixture_ID"))] * len(sources))
    return [(utterance_id or names[k], speaker_id) for k, (utterance_id, speaker_id) in enumerate(sources)]


def read_librimix_metadata(
    path: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    on_skip: OnSkip | None = None,
    on_progress: OnProgress | None = None,
) -> list[Utterance]:
    """The distinct sources of a LibriMix metadata CSV or rendered tree, as a corpus.

    A source of a rendered mixture is an utterance of its own, `<mixture_ID>-s<k>`, since it is cut and scaled for
    its mixture; a source of metadata with gains is the recording itself, once however often it is mixed.

    Args:
        path: the CSV or the tree, in any form that `read_mixtures` takes.
        root: the folder that relative paths in a CSV start from; by default the CSV's own.
        on_skip: called with each recording that cannot be read, which is then left out.
        on_progress: called with the number of recordings looked at and of all.

    Raises:
        InputError: the list is missing or malformed, or an id does not say who speaks, or a mixture would have one
            speaker twice.
        AudioError: a bad recording, and there is no `on_skip`.
    """
    mixtures = read_mixtures(path, root)
    rendered = os.path.isdir(path) or any(mixture.rendered for mixture in mixtures.values())  # noqa: PTH112
    utterances: dict[str, Utterance] = {}
    sources = [
        (f"{mixture.mixture_id}-s{k}" if rendered else source.utterance_id, speaker_id, source)
        for mixture in mixtures.values()
        for k, (source, speaker_id) in enumerate(zip(mixture.sources, speakers_of(mixture), strict=True), start=1)
    ]
    durations = measure_durations((source.path for _, _, source in sources), on_skip, on_progress)
    for utterance_id, speaker_id, source in sources:
        if source.path not in durations:
            continue
        utterance = Utterance(utterance_id, speaker_id, source.path, durations[source.path])
        known = utterances.setdefault(utterance_id, utterance)
        check_unique([known] if known == utterance else [known, utterance])
    return list(utterances.values())
