"""Data lists of the recipes of WeSep and ESPnet: mixtures, single utterances, and the enrollments of both.

A data folder of WeSep (https://github.com/wenet-e2e/wesep, `examples/*/local/prepare_data.sh`):

    wav.scp             KEY MIXTURE SOURCE_1 SOURCE_2 …; of single utterances KEY RECORDING
    utt2spk             KEY SPEAKER_1 SPEAKER_2 …; of single utterances KEY SPEAKER
    single.wav.scp      NAME RECORDING: the sources by themselves, as enrollments
    spk1.enroll, …      KEY NAME: the enrollment of the first speaker, a name in single.wav.scp or a path
    spk2enroll.json     {SPEAKER: [[UTTERANCE, RECORDING], …]}: enrollments to choose from in training
    shard.list          a tar file on each line
    raw.list            a JSON object on each line: key, spk, and wav (or mix and src, as newer versions write)

One of ESPnet's tse1 recipes (https://github.com/espnet/espnet, `egs2/librimix/tse1/local/data.sh`) has a file for each
source instead: `wav.scp`, `spk1.scp`, `spk2.scp`, `noise1.scp`, `enroll_spk1.scp`, … with lines `KEY RECORDING`, a
`utt2spk` that repeats the key, and `*UTTERANCE SPEAKER` in place of an enrollment that training chooses.

Relative paths start from the folder that the recipe was run in, which lies above the data folder (`base_of`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from wesep_py.common.errors import InputError, quoted, shorten
from wesep_py.common.names import canonical
from wesep_py.common.textfiles import Row, open_lines, read_json, read_jsonl
from wesep_py.data.corpora import read_kaldi_table
from wesep_py.data.manifest import FileLocator, Utterance, check_unique, is_file
from wesep_py.data.reader import OnProgress, OnSkip, measure_durations
from wesep_py.data.remote import is_url

LIST_SUFFIX = ".list"
MAX_LEVELS_ABOVE = 6
"""Folders above a list in which the working folder of its recipe is searched."""
SOURCE_FOLDER = re.compile(r"s\d+")
DRAWN = "*"
"""First character of an enrollment that training chooses, in ESPnet's lists."""


@dataclass(frozen=True)
class RecipeMixture:
    """One mixture of a list.

    Args:
        mixture_id: its key.
        path: its own recording.
        sources: the recordings of its speakers, as they are in the mixture.
        speakers: who they are, in the same order; `None` if the list does not say.
        noise: its noise alone, if it is known.
        place: file and line, for messages.
    """

    mixture_id: str
    path: Path
    sources: tuple[Path, ...]
    speakers: tuple[str, ...] | None
    noise: Path | None
    place: str


@dataclass(frozen=True)
class RecipeEnrollment:
    """The enrollment of one speaker of a mixture: the number of the source (from 1), and the recording."""

    mixture_id: str
    number: int
    path: Path
    place: str


def base_of(path: Path, text: str, root: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder that the relative paths of a recipe's list start from.

    Args:
        path: the list.
        text: a path that it names.
        root: the folder that the user names; `None` for none.

    Returns:
        The first of these from which `text` leads to a file: the root, the working folder, the folder of the list, the
        folders above it; the root, or else the folder of the list, if there is none.
    """
    folder = path.parent.absolute()
    given = [] if root is None else [Path(root)]
    candidates = [*given, Path.cwd(), folder, *list(folder.parents)[:MAX_LEVELS_ABOVE]]
    default = given[0] if given else folder
    if Path(text).is_absolute():
        return default
    return next((candidate for candidate in candidates if is_file(candidate / text)), default)


def _locator(path: Path, texts: Sequence[str], root: str | os.PathLike[str] | None) -> FileLocator:
    """Return what finds the files of a list; its base is that of the first relative path."""
    first = next((text for text in texts if not Path(text).is_absolute()), texts[0] if texts else "")
    return FileLocator(base_of(path, first, root), path)


# Data folders.


def is_data_folder(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a folder with a `wav.scp`."""
    return is_file(Path(path) / "wav.scp")


def holds_mixtures(folder: str | os.PathLike[str]) -> bool:
    """Return whether a data folder lists mixtures with their sources; otherwise it lists single utterances.

    Raises:
        InputError: `wav.scp` is missing or malformed.
    """
    folder = Path(folder)
    if is_file(folder / "spk1.scp"):
        return True
    value = _first_recordings(folder)
    return not value.endswith("|") and len(value.split()) > 1


def count_mixtures(data: str | os.PathLike[str]) -> int | None:
    """Return the number of mixtures in an epoch of WeSep or ESPnet: those of a data folder, or half its utterances.

    Args:
        data: a data folder, or a list in one.

    Returns:
        The number; `None` if there is no `wav.scp` to count in.

    Raises:
        InputError: `wav.scp` is malformed.
    """
    path = Path(data)
    folder = path if path.is_dir() else path.parent
    if not is_data_folder(folder):
        return None
    count = len(read_kaldi_table(folder / "wav.scp"))
    return count if holds_mixtures(folder) else max(1, count // 2)


def mixtures_have_noise(folder: str | os.PathLike[str]) -> bool:
    """Return whether the mixtures of a data folder have noise: it has `noise1.scp`, or names `…/mix_both/NAME`.

    Raises:
        InputError: `wav.scp` is missing or malformed.
    """
    folder = Path(folder)
    if is_file(folder / "noise1.scp"):
        return True
    return Path(_first_recordings(folder).split()[0]).parent.name == "mix_both"


def _first_recordings(folder: Path) -> str:
    """Return what the first line of a folder's `wav.scp` names: a recording, or a mixture and its sources."""
    _, value = next(iter(read_kaldi_table(folder / "wav.scp").values()))
    return value


def read_recordings(folder: str | os.PathLike[str]) -> list[str]:
    """Return the recordings that the `wav.scp` of single utterances names, as it names them.

    Raises:
        InputError: `wav.scp` is missing or malformed.
    """
    return [value for _, value in read_kaldi_table(Path(folder) / "wav.scp").values()]


def read_folder_mixtures(
    folder: str | os.PathLike[str], root: str | os.PathLike[str] | None = None
) -> list[RecipeMixture]:
    """Return the mixtures of a data folder of WeSep or ESPnet, in the order of `wav.scp`.

    Args:
        folder: the data folder.
        root: the folder that relative paths start from; by default it is searched (`base_of`).

    Raises:
        InputError: a file is missing or malformed, its lists do not match, or it lists single utterances.
    """
    folder = Path(folder)
    if not holds_mixtures(folder):
        raise InputError(
            f"{folder / 'wav.scp'}: lists single utterances, one recording a line, and no mixtures with their sources; "
            "name the folder in data.train"
        )
    recordings = _read_source_columns(folder)
    utt2spk = read_kaldi_table(folder / "utt2spk")
    _check_same_keys(recordings, utt2spk, folder / "wav.scp", folder / "utt2spk")
    noises = read_kaldi_table(folder / "noise1.scp") if is_file(folder / "noise1.scp") else {}
    _, first = next(iter(recordings.values()))
    locator = _locator(folder / "wav.scp", first, root)
    mixtures = []
    for mixture_id, (place, texts) in recordings.items():
        path, *sources = (locator.find(text) for text in texts)
        noise = locator.find(noises[mixture_id][1]) if mixture_id in noises else _noise_beside(path)
        speakers = _speakers_of_line(mixture_id, *utt2spk[mixture_id], len(sources))
        mixtures.append(RecipeMixture(mixture_id, path, tuple(sources), speakers, noise, place))
    return mixtures


def _read_source_columns(folder: Path) -> dict[str, tuple[str, list[str]]]:
    """Return place and paths (mixture, sources) by key, from the columns of `wav.scp` or from `spk1.scp`, ….

    Raises:
        InputError: a line names no source, a command, or the lists have different keys.
    """
    scp = folder / "wav.scp"
    columns = {key: (place, value.split()) for key, (place, value) in read_kaldi_table(scp).items()}
    number = 1
    while is_file(folder / f"spk{number}.scp"):
        sources = read_kaldi_table(folder / f"spk{number}.scp")
        _check_same_keys(columns, sources, scp, folder / f"spk{number}.scp")
        for key, (place, texts) in columns.items():
            columns[key] = (place, [*texts[:number], sources[key][1]])
        number += 1
    for place, texts in columns.values():
        if texts[-1].endswith("|"):
            raise InputError(f"{place}: names a command, which is not run; write its output to a file first")
        if len(texts) < 2:
            raise InputError(
                f"{place}: names one recording, but other lines name mixtures with their sources; every line of a "
                "list of mixtures needs KEY MIXTURE SOURCE_1 SOURCE_2"
            )
    return columns


def _check_same_keys(first: Mapping[str, Any], second: Mapping[str, Any], path: Path, other: Path) -> None:
    """Check that two lists have the same keys.

    Raises:
        InputError: a key is in one of them only.
    """
    for keys, missing_in, others in ((first, other, second), (second, path, first)):
        if missing := [key for key in keys if key not in others]:
            raise InputError(
                f"{missing_in}: has no {quoted(missing[0])} ({len(missing)} of {len(keys)} keys), which "
                f"{path.name if missing_in == other else other.name} lists; make both from the same data"
            )


def _speakers_of_line(mixture_id: str, place: str, value: str, num_sources: int) -> tuple[str, ...] | None:
    """Return the speakers of a line of `utt2spk`; `None` if it repeats the key, as ESPnet's does."""
    speakers = tuple(canonical(name) for name in value.split())
    if speakers == (mixture_id,):
        return None
    if len(speakers) != num_sources:
        raise InputError(
            f"{place}: names {len(speakers)} speakers of {quoted(mixture_id)}, and wav.scp {num_sources} sources; "
            "make both lists from the same data"
        )
    return speakers


def _noise_beside(path: Path) -> Path | None:
    """Return the noise of a rendered mixture of LibriMix, `…/noise/NAME` beside `…/mix_both/NAME`, if it is there."""
    if path.parent.name != "mix_both":
        return None
    noise = path.parent.parent / "noise" / path.name
    return noise if is_file(noise) else None


def read_folder_enrollments(
    folder: str | os.PathLike[str], num_sources: Mapping[str, int], root: str | os.PathLike[str] | None = None
) -> list[RecipeEnrollment]:
    """Return the fixed enrollments of a data folder: each speaker of each mixture, in the order of the mixtures.

    Args:
        folder: the data folder, with `spk1.enroll`, … (WeSep) or `enroll_spk1.scp`, … (ESPnet).
        num_sources: number of sources by mixture.
        root: the folder that relative paths start from; by default it is searched (`base_of`).

    Raises:
        InputError: a list is missing, lacks a mixture, names a recording that `single.wav.scp` lacks, or leaves the
            choice to training.
    """
    folder = Path(folder)
    first = next((name for name in ("spk1.enroll", "enroll_spk1.scp") if is_file(folder / name)), None)
    if first is None:
        raise InputError(
            f"{folder}: has neither spk1.enroll nor enroll_spk1.scp; name a map_mixture2enrollment, or make them "
            "(local/prepare_librimix_enroll.py)"
        )
    names = [first.replace("1", str(k)) for k in range(1, max(num_sources.values(), default=0) + 1)]
    tables = [read_kaldi_table(folder / name) for name in names]
    single = folder / "single.wav.scp"
    recordings = read_kaldi_table(single) if is_file(single) else {}
    texts = [value for _, value in tables[0].values()]
    listed = FileLocator(base_of(folder / first, texts[0], root), folder / first)
    by_name = _locator(single, [value for _, value in recordings.values()], root)
    enrollments = []
    for mixture_id, count in num_sources.items():
        for number in range(1, count + 1):
            if mixture_id not in tables[number - 1]:
                raise InputError(
                    f"{folder / names[number - 1]}: has no enrollment of {quoted(mixture_id)}; make the lists from the "
                    "same data"
                )
            place, name = tables[number - 1][mixture_id]
            if name.startswith(DRAWN):
                raise InputError(
                    f"{place}: leaves the enrollment to training ({quoted(name)}); name the data folder of dev or test"
                )
            if canonical(name) in recordings:
                path = by_name.find(recordings[canonical(name)][1])
            else:
                path = listed.find(name)
                if not is_file(path):
                    where = "single.wav.scp" if recordings else "a file"
                    raise InputError(f"{place}: enrollment {quoted(name)} is not in {where}; make the lists again")
            enrollments.append(RecipeEnrollment(mixture_id, number, path, place))
    return enrollments


def read_spk2enroll(
    path: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    on_skip: OnSkip | None = None,
    on_progress: OnProgress | None = None,
) -> list[Utterance]:
    """Return the recordings of a `spk2enroll.json` as utterances.

    A rendered source, `…/s1/MIX.wav`, gets the id that it has in the list of mixtures, `MIX-s1`; another recording has
    the id that the file gives.

    Args:
        path: the file.
        root: the folder that relative paths start from; by default it is searched (`base_of`).
        on_skip: called with each recording that cannot be read; the recording is skipped.
        on_progress: called with the number of recordings measured and the total number.

    Raises:
        InputError: the file is missing or of another form, or one id stands for two recordings.
        AudioError: a recording cannot be read, and `on_skip` is `None`.
    """
    path = Path(path)
    entries = list(_spk2enroll_entries(path))
    locator = _locator(path, [text for _, _, text in entries], root)
    found = [(speaker_id, utterance_id, locator.find(text)) for speaker_id, utterance_id, text in entries]
    durations = measure_durations((file for _, _, file in found), on_skip, on_progress)
    utterances = {}
    for speaker_id, utterance_id, file in found:
        if file in durations:
            is_source = SOURCE_FOLDER.fullmatch(file.parent.name)
            name = f"{file.stem}-{file.parent.name}" if is_source else "_".join(utterance_id.split())
            utterances[speaker_id, file] = Utterance(name, "_".join(speaker_id.split()), file, durations[file])
    check_unique(list(utterances.values()))
    return list(utterances.values())


def _spk2enroll_entries(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield speaker, utterance and path of each entry.

    Raises:
        InputError: the file is missing, empty, or of another form.
    """
    speakers = read_json(path, "WeSep's spk2enroll.json").values
    if not speakers:
        raise InputError(f"{path}: names no speaker; make it again (local/prepare_spk2enroll_librispeech.py)")
    for speaker_id, entries in speakers.items():
        is_list = isinstance(entries, list)
        if not is_list or not all(isinstance(e, list) and [type(x) for x in e] == [str, str] for e in entries):
            raise InputError(
                f"{path}: speaker {quoted(speaker_id)} has {quoted(entries, 60)}; a list of [utterance, path] is needed"
            )
        for utterance_id, text in entries:
            yield speaker_id, utterance_id, text


# Lists: raw.list, shard.list.


def is_list(name: str | os.PathLike[str]) -> bool:
    """Return whether a name is that of a `raw.list` or `shard.list`.

    >>> is_list("data/train-100/shard.list"), is_list("train.jsonl")
    (True, False)
    """
    return os.fspath(name).endswith(LIST_SUFFIX)


def list_kind(path: str | os.PathLike[str]) -> Literal["raw", "shards"]:
    """Return whether a list holds JSON objects (`raw`), or names tar files (`shards`).

    Raises:
        InputError: it is missing or empty.
    """
    for line in open_lines(path, "WeSep's raw.list or shard.list"):
        if line.strip():
            return "raw" if line.lstrip().startswith("{") else "shards"
    raise InputError(f"{path}: is empty; a tar file, or a JSON object, on each line is needed")


def read_shard_list(path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> list[str]:
    """Return the tar files of a `shard.list`: paths and URLs.

    Args:
        path: the list.
        root: the folder that relative paths start from; by default it is searched (`base_of`).

    Raises:
        InputError: the list is missing or empty, or a line names no tar file.
    """
    path = Path(path)
    texts = [(number, line.strip()) for number, line in enumerate(open_lines(path, "WeSep's shard.list"), start=1)]
    texts = [(number, text) for number, text in texts if text]
    if not texts:
        raise InputError(f"{path}: is empty; a tar file on each line is needed")
    for number, text in texts:
        if not text.endswith((".tar", ".tar.gz", ".tgz")):
            raise InputError(f"{path}:{number}: {quoted(text)} is no tar file; one on each line is needed")
    locator = _locator(path, [text for _, text in texts if not is_url(text)], root)
    return [text if is_url(text) else locator.find(text).as_posix() for _, text in texts]


def raw_list_holds_mixtures(path: str | os.PathLike[str]) -> bool:
    """Return whether a `raw.list` lists mixtures with their sources; otherwise it lists single utterances.

    Raises:
        InputError: the list is missing or malformed.
    """
    return "mix" in _raw_rows(Path(path))[0].values


def read_raw_mixtures(path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> list[RecipeMixture]:
    """Return the mixtures of a `raw.list`: `{"key", "spk": [A, B], "mix": {"default": [PATH]}, "src": {A: [PATH]}}`.

    Args:
        path: the list.
        root: the folder that relative paths start from; by default it is searched (`base_of`).

    Raises:
        InputError: the list is missing or malformed, or lists single utterances.
    """
    path = Path(path)
    rows = _raw_rows(path)
    if "mix" not in rows[0].values:
        raise InputError(
            f"{rows[0].place}: lists single utterances (no key 'mix'), and no mixtures; name the list in data.train"
        )
    parsed = [(row, *_raw_mixture(row)) for row in rows]
    locator = _locator(path, parsed[0][2], root)
    mixtures, places = [], dict[str, str]()
    for row, speakers, texts in parsed:
        mixture_id = canonical(row.text("key"))
        if (first := places.setdefault(mixture_id, row.place)) != row.place:
            raise InputError(f"{row.place}: {quoted(mixture_id)} is listed at {first} already; it must be unique")
        mixture, *sources = (locator.find(text) for text in texts)
        mixtures.append(RecipeMixture(mixture_id, mixture, tuple(sources), speakers, _noise_beside(mixture), row.place))
    return mixtures


def _raw_mixture(row: Row) -> tuple[tuple[str, ...], list[str]]:
    """Return speakers and paths (mixture, sources) of a line with a mixture."""
    speakers, mix, src = row.values.get("spk"), row.values.get("mix"), row.values.get("src")
    mixture = mix.get("default") if isinstance(mix, dict) else None
    if not isinstance(speakers, list) or not isinstance(src, dict) or not _is_paths(mixture):
        raise InputError(
            f"{row.place}: needs key, spk (a list), mix ({{'default': [path]}}) and src ({{speaker: [path]}})"
        )
    assert isinstance(mixture, list)
    for speaker in speakers:
        if not isinstance(speaker, str) or not _is_paths(src.get(speaker)):
            raise InputError(f"{row.place}: src names no recording of speaker {quoted(speaker)}; add it")
    return tuple(canonical(speaker) for speaker in speakers), [mixture[0], *(src[speaker][0] for speaker in speakers)]


def _is_paths(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) and text for text in value)


def read_raw_utterances(
    path: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    on_skip: OnSkip | None = None,
    on_progress: OnProgress | None = None,
) -> list[Utterance]:
    """Return the single utterances of a `raw.list`: `{"key", "spk", "wav"}`, or `{"key", "spk": [A], "src": {A: […]}}`.

    Args:
        path: the list.
        root: the folder that relative paths start from; by default it is searched (`base_of`).
        on_skip: called with each recording that cannot be read; the recording is skipped.
        on_progress: called with the number of recordings measured and the total number.

    Raises:
        InputError: the list is missing or malformed, lists mixtures, or names an utterance twice.
        AudioError: a recording cannot be read, and `on_skip` is `None`.
    """
    path = Path(path)
    parsed = []
    for row in _raw_rows(path):
        if "mix" in row.values:
            raise InputError(
                f"{row.place}: lists mixtures (key 'mix'), and no single utterances; name the list in "
                "data.mixtures.lists"
            )
        parsed.append(("_".join(row.text("key").split()), *_raw_utterance(row)))
    locator = _locator(path, [text for _, _, text in parsed], root)
    found = [(utterance_id, speaker_id, locator.find(text)) for utterance_id, speaker_id, text in parsed]
    durations = measure_durations((file for _, _, file in found), on_skip, on_progress)
    utterances = [
        Utterance(utterance_id, "_".join(speaker_id.split()), file, durations[file])
        for utterance_id, speaker_id, file in found
        if file in durations
    ]
    check_unique(utterances)
    return utterances


def _raw_utterance(row: Row) -> tuple[str, str]:
    """Return speaker and path of a line with a single utterance."""
    speaker, wav, src = row.values.get("spk"), row.values.get("wav"), row.values.get("src")
    if isinstance(speaker, str) and isinstance(wav, str):
        return speaker, wav
    if isinstance(speaker, list) and len(speaker) == 1 and isinstance(src, dict) and _is_paths(src.get(speaker[0])):
        return speaker[0], src[speaker[0]][0]
    raise InputError(
        f"{row.place}: {shorten(quoted(dict(row.values)), 80)} is no utterance; key, spk and wav (texts) are needed, "
        "or spk ([speaker]) and src ({speaker: [path]})"
    )


def _raw_rows(path: Path) -> list[Row]:
    rows = read_jsonl(path, "WeSep's raw.list", "key, spk and wav, as one JSON object a line, are needed")
    if not rows:
        raise InputError(f"{path}: is empty; a JSON object on each line is needed")
    return rows
