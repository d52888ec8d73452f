"""Readers of speech corpora in their published layout. Each returns a list of utterances.

- `read_speaker_folders`: any folder with one sub-folder per speaker.
- `read_librispeech`: LibriSpeech.
- `read_voxceleb`: VoxCeleb1 and VoxCeleb2.
- `read_kaldi`: Kaldi data folders (`wav.scp`, `utt2spk`, `segments`, …).

`read_wsj0mix` (WSJ0 and WSJ0-mix) is in `wsj0mix`, `read_librimix_metadata` (LibriMix) in `mixture_lists`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from wesep_py.audio.media import AUDIO_SUFFIXES, INSTALL, is_recording_name
from wesep_py.common.errors import InputError, nearest, quoted
from wesep_py.common.names import canonical, is_hidden
from wesep_py.common.textfiles import open_lines
from wesep_py.data.manifest import FileLocator, Utterance, check_unique
from wesep_py.data.reader import OnProgress, OnSkip, measure_durations


def find_audio(folder: Path, suffixes: Collection[str] | None = None) -> Iterator[Path]:
    """Yield the recordings at any depth below a folder, recognised by their suffix, sorted by name.

    Links to folders are followed, each folder once. Hidden files and folders are skipped. Without `suffixes`, all
    recordings that can be read here are found: with PyAV those of `audio.media.MEDIA_SUFFIXES` too.
    """
    visited: set[str] = set()
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        # A link may lead back to a folder above: without this check the walk would not end.
        real_path = os.path.realpath(parent)
        if real_path in visited:
            subfolders.clear()
            continue
        visited.add(real_path)
        subfolders[:] = sorted(name for name in subfolders if not is_hidden(name))
        for name in sorted(names):
            if not is_hidden(name) and (
                is_recording_name(name) if suffixes is None else Path(name).suffix.lower() in suffixes
            ):
                yield Path(parent) / name


# One folder per speaker.


def read_speaker_folders(
    folder: str | os.PathLike[str], on_skip: OnSkip | None = None, on_progress: OnProgress | None = None
) -> list[Utterance]:
    """Return the recordings of a folder that has one sub-folder per speaker, with recordings at any depth.

    `DIR/alice/2024/one.wav` is utterance `alice-2024-one` of speaker `alice`; white space becomes `_`. Hidden files and
    folders are skipped.

    Args:
        folder: the folder with the speakers' folders.
        on_skip: called with each recording that cannot be read or is in no speaker's folder; the recording is skipped.
            Without it, the first such recording is an error.
        on_progress: called with the number of recordings measured and the total number.

    Raises:
        InputError: the folder does not exist, none of its folders holds a recording, or two names give the same id.
        AudioError: a recording cannot be read, and `on_skip` is `None`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; give one that holds a folder for each speaker")
    recordings: list[tuple[Path, str]] = []
    folder_names: dict[str, str] = {}
    for path in find_audio(folder):
        parts = [_without_spaces(part) for part in path.relative_to(folder).with_suffix("").parts]
        if len(parts) == 1:
            reason = f"{path}: is in no speaker's folder; move it into one"
            if on_skip is None:
                raise InputError(reason)
            on_skip(path, reason)
            continue
        name = path.relative_to(folder).parts[0]
        if folder_names.setdefault(parts[0], name) != name:
            raise InputError(f"{folder}: {name!r} and {folder_names[parts[0]]!r} give the same speaker_id; rename one")
        recordings.append((path, "-".join(parts)))
    if not recordings:
        raise InputError(
            f"{folder}: none of its folders holds a recording ({', '.join(AUDIO_SUFFIXES)}); "
            "give a folder that holds a folder for each speaker"
        )
    durations = measure_durations((path for path, _ in recordings), on_skip, on_progress)
    utterances = [
        Utterance(utterance_id, _without_spaces(path.relative_to(folder).parts[0]), path, durations[path])
        for path, utterance_id in recordings
        if path in durations
    ]
    check_unique(utterances)
    return utterances


def _without_spaces(name: str) -> str:
    return "_".join(name.split())


# LibriSpeech.


def read_librispeech(
    folder: str | os.PathLike[str], on_skip: OnSkip | None = None, on_progress: OnProgress | None = None
) -> list[Utterance]:
    """Return the utterances of LibriSpeech (https://www.openslr.org/12), or of a subset of it.

    Speaker and utterance come from the names of the files (`84-121123-0000.flac`), the gender from `SPEAKERS.TXT` in
    the folder or the one above it, the text from the transcripts. `SPEAKERS.TXT` and transcripts may be missing.

    Args:
        folder: the folder `LibriSpeech`, or a subset such as `train-clean-100`.
        on_skip: called with each recording that cannot be read; the recording is skipped.
        on_progress: called with the number of recordings measured and the total number.

    Raises:
        InputError: the folder does not exist, or no file in it is named as LibriSpeech's are.
        AudioError: a recording cannot be read, and `on_skip` is `None`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; give LibriSpeech, or a subset such as train-clean-100")
    paths = [path for path in find_audio(folder) if len(path.stem.split("-")) == 3]
    if not paths:
        raise InputError(f"{folder}: holds no file named like 84-121123-0000.flac; give LibriSpeech or a subset")
    genders = _librispeech_genders(folder)
    texts: dict[str, str] = {}
    for parent in dict.fromkeys(path.parent for path in paths):
        for transcript in sorted(path for path in parent.glob("*.trans.txt") if not is_hidden(path.name)):
            pairs = (line.split(maxsplit=1) for line in open_lines(transcript, "a transcript"))
            texts.update(pair for pair in pairs if len(pair) == 2)
    durations = measure_durations(paths, on_skip, on_progress)
    utterances = []
    for path in paths:
        if path in durations:
            speaker_id = path.stem.split("-")[0]
            gender, text = genders.get(speaker_id), texts.get(path.stem)
            utterances.append(Utterance(path.stem, speaker_id, path, durations[path], gender=gender, text=text))
    check_unique(utterances)
    return utterances


def _librispeech_genders(folder: Path) -> dict[str, str]:
    for table in (folder / "SPEAKERS.TXT", folder.parent / "SPEAKERS.TXT"):
        if table.is_file():
            rows = (line.split("|") for line in open_lines(table, "SPEAKERS.TXT") if not line.startswith(";"))
            return {row[0].strip(): row[1].strip().lower() for row in rows if len(row) >= 2}
    return {}


# VoxCeleb: every path ends in SPEAKER/VIDEO/NUMBER, and a table lists the speakers.

VOXCELEB_TABLES = ("vox1_meta.csv", "vox2_meta.csv")
# A table is searched in the given folder and in this number of folders above it: vox2/dev/aac -> vox2.
_TABLE_LEVELS_ABOVE = 2
_VOXCELEB_SPEAKER = re.compile(r"id\d{5}")
_CONVERT_M4A = (
    "find {folder} -name '*.m4a' -print0 | xargs -0 -P 8 -I {{}} sh -c "
    '\'ffmpeg -nostdin -v error -n -i "$0" -ac 1 -ar 16000 "${{0%.m4a}}.flac"\' {{}}'
)


class VoxCelebSpeaker(NamedTuple):
    """Gender (`m`, `f` or `None`) and set (`dev`, `test` or `None`) of a speaker, from VoxCeleb's table."""

    gender: str | None
    subset: str | None


def read_voxceleb(
    folder: str | os.PathLike[str],
    subset: Literal["all", "dev", "test"] = "all",
    on_skip: OnSkip | None = None,
    on_progress: OnProgress | None = None,
) -> list[Utterance]:
    """Return the utterances of VoxCeleb1, VoxCeleb2 (https://www.robots.ox.ac.uk/~vgg/data/voxceleb/), or both.

    `wav/id10270/x6uYqmx31kE/00001.wav` is utterance `id10270-x6uYqmx31kE-00001` of speaker `id10270`. Gender and set
    come from `vox1_meta.csv` and `vox2_meta.csv`, in the folder or one of the two above it; both may be missing.

    Nagrani, Chung & Zisserman, "VoxCeleb: a large-scale speaker identification dataset" (Interspeech 2017); Chung,
    Nagrani & Zisserman, "VoxCeleb2: deep speaker recognition" (Interspeech 2018).

    Args:
        folder: holds the speakers' folders, at any depth: `vox1/wav`, `vox2/dev/aac`, or a folder above both.
        subset: `dev` or `test` selects the speakers of that set in the table (VoxCeleb1 keeps both in one folder).
        on_skip: called with each recording that cannot be read; the recording is skipped.
        on_progress: called with the number of recordings measured and the total number.

    Raises:
        InputError: the folder does not exist, no file has VoxCeleb's layout, recordings are m4a (not converted) and
            PyAV is not installed, or `subset` is unknown or no table lists it.
        AudioError: a recording cannot be read, and `on_skip` is `None`.
    """
    folder = Path(folder)
    if subset not in ("all", "dev", "test"):
        raise InputError(f"set: is {subset!r}; {nearest(subset, ('all', 'dev', 'test'))}")
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; give VoxCeleb's, such as voxceleb1/wav")
    speakers = read_voxceleb_speakers(folder)
    if subset != "all" and not speakers:
        raise InputError(
            f"{folder}: there is no {' or '.join(VOXCELEB_TABLES)} in it or in the two folders above it, which lists "
            f"the speakers of {subset!r}; put it there, or take the set 'all'"
        )
    paths: dict[str, Path] = {}
    for path in _in_voxceleb_layout(find_audio(folder)):
        if path.suffix.lower() != ".m4a" or _voxceleb_id(path) not in paths:  # a converted copy is faster to read
            paths[_voxceleb_id(path)] = path
    _check_converted(folder, paths)
    if not paths:
        raise InputError(f"{folder}: holds no file such as id10270/x6uYqmx31kE/00001.wav; give VoxCeleb's folder")
    unknown = VoxCelebSpeaker(None, None)
    selected = {
        utterance_id: path
        for utterance_id, path in paths.items()
        if subset in ("all", speakers.get(path.parts[-3], unknown).subset)
    }
    if not selected:
        raise InputError(f"{folder}: none of its {len(paths)} recordings is of a speaker of the set {subset!r}")
    durations = measure_durations(selected.values(), on_skip, on_progress)
    utterances = [
        Utterance(
            utterance_id,
            path.parts[-3],
            path,
            durations[path],
            gender=speakers.get(path.parts[-3], unknown).gender,
        )
        for utterance_id, path in selected.items()
        if path in durations
    ]
    check_unique(utterances)
    return utterances


def read_voxceleb_speakers(folder: str | os.PathLike[str]) -> dict[str, VoxCelebSpeaker]:
    """Read gender and set of VoxCeleb's speakers from `vox1_meta.csv` (tabs) and `vox2_meta.csv` (commas).

    Args:
        folder: the tables are searched here and in the two folders above.

    Returns:
        Gender and set by speaker id; empty if there is no table. Other columns, such as the nationality, are ignored.

    Raises:
        InputError: a table lacks the column of genders or lists no speaker.
    """
    place = Path(folder).absolute()
    speakers: dict[str, VoxCelebSpeaker] = {}
    for name in VOXCELEB_TABLES:
        folders = (place, *place.parents[:_TABLE_LEVELS_ABOVE])
        if tables := [parent / name for parent in folders if (parent / name).is_file()]:
            speakers |= _read_voxceleb_table(tables[0])
    return speakers


def _read_voxceleb_table(path: Path) -> dict[str, VoxCelebSpeaker]:
    rows = [[cell.strip() for cell in re.split(r"[\t,]", line)] for line in open_lines(path, "a table of speakers")]
    header = [cell.lower() for cell in rows[0]]
    if "gender" not in header:
        raise InputError(f"{path}:1: has no column 'Gender'; get VoxCeleb's own table")
    columns = {name: header.index(name) for name in ("gender", "set") if name in header}
    speakers = {}
    for row in rows[1:]:
        if _VOXCELEB_SPEAKER.fullmatch(row[0]):
            values = {name: row[column] for name, column in columns.items() if column < len(row)}
            speakers[row[0]] = VoxCelebSpeaker(values.get("gender") or None, values.get("set") or None)
    if not speakers:
        raise InputError(f"{path}: names no speaker such as id10270; get VoxCeleb's own table")
    return speakers


def _in_voxceleb_layout(paths: Iterable[Path]) -> Iterator[Path]:
    return (path for path in paths if len(path.parts) >= 3 and _VOXCELEB_SPEAKER.fullmatch(path.parts[-3]))


def _voxceleb_id(path: Path) -> str:
    return "-".join((*path.parts[-3:-1], path.stem))


def _check_converted(folder: Path, paths: dict[str, Path]) -> None:
    """Refuse a folder with an m4a file that cannot be read here and has no copy in another format."""
    unconverted = [
        path for path in _in_voxceleb_layout(find_audio(folder, {".m4a"})) if _voxceleb_id(path) not in paths
    ]
    if unconverted:
        raise InputError(
            f"{folder}: {len(unconverted)} recordings are m4a only, such as {unconverted[0]}; "
            f"install what reads them ({INSTALL}), or convert them: " + _CONVERT_M4A.format(folder=folder)
        )


# Kaldi data folders.

# Recording, start and end of an utterance, both in seconds (end `None`: the end of the recording).
_KaldiSegment = tuple[str, float, "float | None"]


def read_kaldi(
    folder: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    on_skip: OnSkip | None = None,
    on_progress: OnProgress | None = None,
) -> list[Utterance]:
    """Return the utterances of a Kaldi data folder (https://kaldi-asr.org/doc/data_prep.html), ordered as `utt2spk`.

    `wav.scp` and `utt2spk` are required. `segments` (an end of -1 is the end of the recording), `utt2dur`, `spk2gender`
    and `text` are used if they exist. Without `segments`, every recording is an utterance. A command in `wav.scp` (a
    line that ends in `|`) is never run.

    Args:
        folder: the data folder.
        root: the folder that relative paths start from; by default the data folder. Kaldi's own paths start from the
            folder that the recipe was run in.
        on_skip: called with each recording that cannot be read; its utterances are skipped.
        on_progress: called with the number of recordings measured and the total number.

    Raises:
        InputError: a file is missing or malformed, or names an entry that another file lacks. The message names file
            and line.
        AudioError: a recording cannot be read, and `on_skip` is `None`.
    """
    folder = Path(folder)
    base = Path(root) if root is not None else folder
    recordings = _kaldi_recordings(folder / "wav.scp", base)
    speakers = read_kaldi_table(folder / "utt2spk")
    has_segments = (folder / "segments").is_file()
    if has_segments:
        segments = _kaldi_segments(folder / "segments", recordings)
    else:
        segments = {recording: (recording, 0.0, None) for recording in recordings}
    genders = _optional_table(folder / "spk2gender")
    texts = _optional_table(folder / "text")
    stated_durations = {} if has_segments else _stated_durations(folder)
    entries = {}
    for utterance_id, (place, speaker_id) in speakers.items():
        if utterance_id not in segments:
            where = "segments" if has_segments else "wav.scp"
            raise InputError(
                f"{place}: utterance {quoted(utterance_id)} is not in {where}; run Kaldi's fix_data_dir.sh"
            )
        entries[utterance_id] = (speaker_id, segments[utterance_id])
    # Only recordings whose length is needed, and not stated in utt2dur, are opened.
    unmeasured = [
        recordings[name]
        for utterance_id, (_, (name, _, end_s)) in entries.items()
        if end_s is None and utterance_id not in stated_durations
    ]
    durations = measure_durations(unmeasured, on_skip, on_progress)
    utterances = []
    for utterance_id, (speaker_id, (name, start_s, end_s)) in entries.items():
        path = recordings[name]
        if end_s is None and utterance_id in stated_durations:
            end_s = stated_durations[utterance_id]
        elif end_s is None:
            end_s = durations.get(path)
        if end_s is None:
            continue  # `on_skip` was called for this recording
        place = speakers[utterance_id][0]
        if end_s <= start_s:
            raise InputError(f"{place}: utterance {quoted(utterance_id)} begins at {start_s} s and ends at {end_s} s")
        try:
            utterances.append(
                Utterance(
                    utterance_id,
                    speaker_id,
                    path,
                    end_s - start_s,
                    start_s,
                    genders[canonical(speaker_id)][1] if canonical(speaker_id) in genders else None,
                    None,
                    (texts[utterance_id][1] or None) if utterance_id in texts else None,
                )
            )
        except InputError as error:
            raise InputError(f"{place}: {error}") from error
    return utterances


def read_kaldi_table(path: Path) -> dict[str, tuple[str, str]]:
    """Return lines `key value…` as a mapping from the key to the place of its line (for messages) and its value.

    Raises:
        InputError: the file is missing or empty, a key comes twice, or a line has no value.
    """
    table: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(open_lines(path, f"a Kaldi data folder with {path.name}"), start=1):
        if not line.strip():
            continue
        key, *value = line.split(maxsplit=1)
        key = canonical(key)
        place = f"{path}:{number}"
        if key in table:
            raise InputError(f"{place}: {quoted(key)} is listed at {table[key][0]} already; it must be unique")
        if not value and path.name != "text":
            raise InputError(f"{place}: has one field; a name and a value are needed")
        table[key] = (place, value[0].strip() if value else "")
    if not table:
        raise InputError(f"{path}: is empty")
    return table


def _optional_table(path: Path) -> dict[str, tuple[str, str]]:
    return read_kaldi_table(path) if path.is_file() else {}


def _kaldi_recordings(scp: Path, base: Path) -> dict[str, Path]:
    recordings, locator = {}, FileLocator(base, scp)
    for name, (place, value) in read_kaldi_table(scp).items():
        if value.endswith("|"):
            raise InputError(
                f"{place}: {quoted(value)} is a command, which is not run; write its output to a file first"
            )
        archive, colon, offset = value.rpartition(":")
        if colon and offset.isdigit() and archive.endswith(".ark"):
            raise InputError(f"{place}: {quoted(value)} is in an archive; copy it to files first (Kaldi's wav-copy)")
        recordings[name] = locator.find(value)
    return recordings


def _kaldi_segments(path: Path, recordings: dict[str, Path]) -> dict[str, _KaldiSegment]:
    segments: dict[str, _KaldiSegment] = {}
    for utterance_id, (place, value) in read_kaldi_table(path).items():
        fields = value.split()
        if len(fields) != 3:
            raise InputError(f"{place}: has {len(fields) + 1} fields; utterance, recording, start and end are needed")
        name = canonical(fields[0])
        if name not in recordings:
            raise InputError(f"{place}: recording {quoted(name)} is not in wav.scp; run Kaldi's fix_data_dir.sh")
        start_s, end_s = _seconds(fields[1], place), _seconds(fields[2], place)
        if start_s < 0 or (end_s != -1 and end_s <= start_s):
            raise InputError(f"{place}: a segment from {start_s} to {end_s} s; it must begin at 0 or later, and last")
        segments[utterance_id] = (name, start_s, None if end_s == -1 else end_s)
    return segments


def _stated_durations(folder: Path) -> dict[str, float]:
    table = _optional_table(folder / "utt2dur")
    return {name: _seconds(value, place) for name, (place, value) in table.items()}


def _seconds(value: str, place: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise InputError(f"{place}: {quoted(value)} is not a time in seconds")
    return seconds
