"""VoxCeleb1 and VoxCeleb2: `SPEAKER/VIDEO/NUMBER` at the end of every path, and a table of the speakers.

Nagrani, Chung & Zisserman, "VoxCeleb: a large-scale speaker identification dataset" (Interspeech 2017); Chung,
Nagrani & Zisserman, "VoxCeleb2: deep speaker recognition" (Interspeech 2018).
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from wesep_py.common.errors import InputError, nearest
from wesep_py.common.names import is_hidden
from wesep_py.common.textfiles import open_lines
from wesep_py.data.manifest import Utterance, check_unique
from wesep_py.data.reader import OnBad, OnProgress, measure_durations

# ----------------------------------------
# Corpora whose folders say who speaks: one folder a speaker, and LibriSpeech.

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif"})


def read_speaker_folders(
    folder: str | os.PathLike[str], on_bad: OnBad | None = None, on_progress: OnProgress | None = None
) -> list[Utterance]:
    """The recordings of a folder with one folder a speaker, at any depth below it.

    `DIR/alice/2024/one.wav` is utterance `alice-2024-one` of speaker `alice`; white space becomes `_`. Hidden
    files and folders are passed over.

    Args:
        folder: the folder of folders.
        on_bad: called with each recording that cannot be read or that stands in no speaker's folder, which is
            then left out.
        on_progress: called with the number of recordings looked at and of all.

    Raises:
        InputError: no such folder, no recording in any folder of it, or two names that give the same id.
        AudioError: a bad recording, and there is no `on_bad`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; give one that holds a folder for each speaker")
    files: list[tuple[Path, str]] = []
    names: dict[str, str] = {}
    for path in find_audio(folder):
        parts = [_joined(part) for part in path.relative_to(folder).with_suffix("").parts]
        if len(parts) == 1:
            reason = f"{path}: stands in no speaker's folder; move it into one"
            if on_bad is None:
                raise InputError(reason)
            on_bad(path, reason)
            continue
        name = path.relative_to(folder).parts[0]
        if names.setdefault(parts[0], name) != name:
            raise InputError(f"{folder}: {name!r} and {names[parts[0]]!r} give the same speaker_id; rename one")
        files.append((path, "-".join(parts)))
    if not files:
        raise InputError(
            f"{folder}: none of its folders holds a recording ({', '.join(sorted(AUDIO_SUFFIXES))}); "
            "give a folder that holds a folder for each speaker"
        )
    durations = measure_durations((path for path, _ in files), on_bad, on_progress)
    utterances = [
        Utterance(utterance_id, _joined(path.relative_to(folder).parts[0]), path, durations[path])
        for path, utterance_id in files
        if path in durations
    ]
    check_unique(utterances)
    return utterances


def read_librispeech(
    folder: str | os.PathLike[str], on_bad: OnBad | None = None, on_progress: OnProgress | None = None
) -> list[Utterance]:
    """The utterances of LibriSpeech (https://www.openslr.org/12), or of a subset of it.

    Speaker and utterance are told by the names of the files (`84-121123-0000.flac`), the gender by `SPEAKERS.TXT`
    in the folder or the one above it, the text by the transcripts; either may be missing.

    Args:
        folder: the folder `LibriSpeech`, or a subset such as `train-clean-100`.
        on_bad: called with each recording that cannot be read, which is then left out.
        on_progress: called with the number of recordings looked at and of all.

    Raises:
        InputError: no such folder, or no file in it is named as LibriSpeech's are.
        AudioError: a bad recording, and there is no `on_bad`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; give LibriSpeech, or a subset such as train-clean-100")
    paths = [path for path in find_audio(folder) if len(path.stem.split("-")) == 3]
    if not paths:
        raise InputError(f"{folder}: holds no file named like 84-121123-0000.flac; give LibriSpeech or a subset")
    genders = _librispeech_genders(folder)
    texts: dict[str, str] = {}
    for parent in dict.fromkeys(path.parent for path in paths):
        for transcript in sorted(path for path in parent.glob("*.trans.txt") if not is_hidden(path.name)):
            pairs = (line.split(maxsplit=1) for line in open_lines(transcript, "a transcript"))
            texts.update(pair for pair in pairs if len(pair) == 2)
    durations = measure_durations(paths, on_bad, on_progress)
    utterances = []
    for path in paths:
        if path in durations:
            speaker_id = path.stem.split("-")[0]
            gender, text = genders.get(speaker_id), texts.get(path.stem)
            utterances.append(Utterance(path.stem, speaker_id, path, durations[path], gender=gender, text=text))
    check_unique(utterances)
    return utterances


def find_audio(folder: Path, suffixes: Collection[str] = AUDIO_SUFFIXES) -> Iterator[Path]:
    """The audio files at any depth below a folder, by their suffix, in the order of their names.

    Links to folders are followed, each folder once; hidden files and folders are passed over.
    """
    seen: set[str] = set()
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not is_hidden(name))
        for name in sorted(names):
            if not is_hidden(name) and Path(name).suffix.lower() in suffixes:
                yield Path(parent) / name


def _joined(name: str) -> str:
    return "_".join(name.split())


def _librispeech_genders(folder: Path) -> dict[str, str]:
    for table in (folder / "SPEAKERS.TXT", folder.parent / "SPEAKERS.TXT"):
        if table.is_file():
            rows = (line.split("|") for line in open_lines(table, "SPEAKERS.TXT") if not line.startswith(";"))
            return {row[0].strip(): row[1].strip().lower() for row in rows if len(row) >= 2}
    return {}


TABLE_NAMES = ("vox1_meta.csv", "vox2_meta.csv")
# A table is looked for in the folder that is given, and in as many above it: vox2/dev/aac -> vox2.
_LEVELS_ABOVE = 2
_SPEAKER = re.compile(r"id\d{5}")
_CONVERT = (
    "find {folder} -name '*.m4a' -print0 | xargs -0 -P 8 -I {{}} sh -c "
    '\'ffmpeg -nostdin -v error -n -i "$0" -ac 1 -ar 16000 "${{0%.m4a}}.flac"\' {{}}'
)


class VoxCelebSpeaker(NamedTuple):
    """What the table says of a speaker: gender (`m`, `f` or `None`) and set (`dev`, `test` or `None`)."""

    gender: str | None
    subset: str | None


def read_voxceleb(
    folder: str | os.PathLike[str],
    subset: Literal["all", "dev", "test"] = "all",
    on_bad: OnBad | None = None,
    on_progress: OnProgress | None = None,
) -> list[Utterance]:
    """The utterances of VoxCeleb1 or VoxCeleb2 (https://www.robots.ox.ac.uk/~vgg/data/voxceleb/), or of both.

    `wav/id10270/x6uYqmx31kE/00001.wav` is utterance `id10270-x6uYqmx31kE-00001` of speaker `id10270`. Gender and set
    come from `vox1_meta.csv` and `vox2_meta.csv`, in the folder or one of the two above it; either may be missing.

    Args:
        folder: holds the speakers' folders, at any depth: `vox1/wav`, `vox2/dev/aac`, or what holds both.
        subset: `dev` or `test`: the speakers of that set, by the table (VoxCeleb1's two sets lie in one folder).
        on_bad: called with each recording that cannot be read, which is then left out.
        on_progress: called with the number of recordings looked at and of all.

    Raises:
        InputError: no such folder, no file in VoxCeleb's layout, recordings that are m4a and not converted, or a
            `subset` that is unknown or that no table tells.
        AudioError: a bad recording, and there is no `on_bad`.
    """
    folder = Path(folder)
    if subset not in ("all", "dev", "test"):
        raise InputError(f"set: is {subset!r}; {nearest(subset, ('all', 'dev', 'test'))}")
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; give VoxCeleb's, such as voxceleb1/wav")
    speakers = read_voxceleb_speakers(folder)
    if subset != "all" and not speakers:
        raise InputError(
            f"{folder}: there is no {' or '.join(TABLE_NAMES)} in it or in the two folders above it, which says who is "
            f"in {subset!r}; put it there, or take the set 'all'"
        )
    files = {_id_of(path): path for path in _in_layout(find_audio(folder))}
    _check_converted(folder, files)
    if not files:
        raise InputError(f"{folder}: holds no file such as id10270/x6uYqmx31kE/00001.wav; give VoxCeleb's folder")
    unknown = VoxCelebSpeaker(None, None)
    chosen = {
        utterance_id: path
        for utterance_id, path in files.items()
        if subset in ("all", speakers.get(path.parts[-3], unknown).subset)
    }
    if not chosen:
        raise InputError(f"{folder}: none of its {len(files)} recordings is of a speaker of the set {subset!r}")
    durations = measure_durations(chosen.values(), on_bad, on_progress)
    utterances = [
        Utterance(
            utterance_id,
            path.parts[-3],
            path,
            durations[path],
            gender=speakers.get(path.parts[-3], unknown).gender,
        )
        for utterance_id, path in chosen.items()
        if path in durations
    ]
    check_unique(utterances)
    return utterances


def read_voxceleb_speakers(folder: str | os.PathLike[str]) -> dict[str, VoxCelebSpeaker]:
    """Gender and set of VoxCeleb's speakers, by `vox1_meta.csv` (tabs) and `vox2_meta.csv` (commas).

    Args:
        folder: the tables are looked for here and in the two folders above.

    Returns:
        By speaker; empty where there is no table. What else a table says, such as the nationality, is passed over.

    Raises:
        InputError: a table without the columns of speakers and genders.
    """
    place = Path(folder).absolute()
    speakers: dict[str, VoxCelebSpeaker] = {}
    for name in TABLE_NAMES:
        found = [parent / name for parent in (place, *place.parents[:_LEVELS_ABOVE]) if (parent / name).is_file()]
        if found:
            speakers |= _read_table(found[0])
    return speakers


def _read_table(path: Path) -> dict[str, VoxCelebSpeaker]:
    rows = [[cell.strip() for cell in re.split(r"[\t,]", line)] for line in open_lines(path, "a table of speakers")]
    header = [cell.lower() for cell in rows[0]]
    if "gender" not in header:
        raise InputError(f"{path}:1: has no column 'Gender'; get VoxCeleb's own table")
    columns = {name: header.index(name) for name in ("gender", "set") if name in header}
    speakers = {}
    for row in rows[1:]:
        if _SPEAKER.fullmatch(row[0]):
            values = {name: row[column] for name, column in columns.items() if column < len(row)}
            speakers[row[0]] = VoxCelebSpeaker(values.get("gender") or None, values.get("set") or None)
    if not speakers:
        raise InputError(f"{path}: names no speaker such as id10270; get VoxCeleb's own table")
    return speakers


def _in_layout(paths: Iterable[Path]) -> Iterator[Path]:
    return (path for path in paths if len(path.parts) >= 3 and _SPEAKER.fullmatch(path.parts[-3]))


def _id_of(path: Path) -> str:
    return "-".join((*path.parts[-3:-1], path.stem))


def _check_converted(folder: Path, files: dict[str, Path]) -> None:
    """Refuse a folder with an m4a that has no copy in a format that can be read."""
    left = [path for path in _in_layout(find_audio(folder, {".m4a"})) if _id_of(path) not in files]
    if left:
        raise InputError(
            f"{folder}: {len(left)} recordings are m4a only, which cannot be read, such as {left[0]}; convert them: "
            + _CONVERT.format(folder=folder)
        )
