"""Corpora whose folders say who speaks: one folder a speaker, and LibriSpeech."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from wesep_py.corpus.durations import OnBad, OnProgress, measure_durations
from wesep_py.corpus.manifest import check_unique
from wesep_py.corpus.table import open_lines
from wesep_py.corpus.utterance import Utterance
from wesep_py.errors import InputError
from wesep_py.names import is_hidden

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
