"""Manifests: lists of utterances and their speakers, as JSONL or CSV files.

- `Utterance`: a segment of speech of one speaker in a recording. Every corpus is a list of these.
- `read_manifest`, `write_manifest`: such a list as a file, one utterance per line.
- `read_speakers`, `speaker_of`: what a table of speakers, or the id of an utterance, says about the speaker.
- `FileLocator`: finds the audio files that a list names, also where the data set has moved.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import os
import re
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from wesep_py.audio.reading import FileSegment
from wesep_py.common.errors import InputError, quoted
from wesep_py.common.files import atomic_path
from wesep_py.common.names import canonical, spellings
from wesep_py.common.textfiles import Row, read_csv, read_jsonl

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Utterance:
    """A recording of one speaker, or a segment of a recording.

    Args:
        utterance_id: its name, unique in its corpus, without white space. Ids are stored in one Unicode spelling (NFC),
            so that they match however they were written.
        speaker_id: the speaker; the same text for the same person throughout a corpus, without white space.
        path: the audio file, absolute or relative to the working folder. Of several channels, the first is used.
        duration_s: length in seconds, greater than 0; with a `speed` other than 1, the length after the speed change.
        start_s: start of the utterance in the file, in seconds, at least 0. Greater than 0 for a segment.
        gender: `m`, `f` or any other text; `None` if unknown.
        age: age in years, at least 0; `None` if unknown.
        text: transcript; `None` if unknown.
        speed: playback speed relative to the recording, which changes tempo and pitch together; above 0
            (see `perturb_speed`).

    Raises:
        InputError: an id is empty or has white space, or a value is out of range. The message begins with the field.

    >>> Utterance("alice-1", "alice", Path("alice/1.wav"), 2.5).stop_s
    2.5
    """

    utterance_id: str
    speaker_id: str
    path: Path
    duration_s: float
    start_s: float = 0.0
    gender: str | None = None
    age: float | None = None
    text: str | None = None
    speed: float = 1.0

    def __post_init__(self) -> None:
        for field in ("utterance_id", "speaker_id"):
            value = canonical(getattr(self, field))
            object.__setattr__(self, field, value)
            if not value or value.split() != [value]:
                raise InputError(f"{field}: is {quoted(value)}; a name without white space is needed")
        if not (math.isfinite(self.duration_s) and self.duration_s > 0):
            raise InputError(f"duration_s: is {self.duration_s!r}; seconds greater than 0 are needed")
        if not (math.isfinite(self.start_s) and self.start_s >= 0):
            raise InputError(f"start_s: is {self.start_s!r}; seconds of at least 0 are needed")
        if self.age is not None and not (math.isfinite(self.age) and self.age >= 0):
            raise InputError(f"age: is {self.age!r}; years of at least 0 are needed, or nothing")
        if not (math.isfinite(self.speed) and self.speed > 0):
            raise InputError(f"speed: is {self.speed!r}; a factor above 0 is needed")

    @property
    def stop_s(self) -> float:
        """End of the utterance in its file, in seconds."""
        # The duration counts played seconds. At speed 1.25, one of them covers 1.25 seconds of the file.
        return self.start_s + self.duration_s * self.speed


MANIFEST_FIELDS = tuple(field.name for field in fields(Utterance))


def read_manifest(
    path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None, check_files: bool = True
) -> list[Utterance]:
    """Read the utterances of a manifest, in its order.

    Args:
        path: a `.jsonl` or `.csv` file with the fields `utterance_id, speaker_id, path, duration_s` and, where known,
            `start_s, gender, age, text, speed`. Other fields are ignored.
        root: the folder that relative paths start from; by default the manifest's own. Files of a data set that has
            moved are searched for below it (`FileLocator`).
        check_files: check now that every audio file exists. Otherwise a missing file is reported when it is read.

    Returns:
        The utterances. Their paths are absolute if `root` (or the manifest's folder) is absolute.

    Raises:
        InputError: the manifest is missing, empty or malformed, an id is listed twice, or a line names a file that does
            not exist. The message names the line and the field.

    >>> import tempfile
    >>> manifest = Path(tempfile.mkdtemp()) / "manifest.jsonl"
    >>> line = '{"utterance_id": "a-1", "speaker_id": "a", "path": "1.wav", "duration_s": 2}'
    >>> _ = manifest.write_text(line)
    >>> read_manifest(manifest, root="/data", check_files=False)[0].path.as_posix()
    '/data/1.wav'
    """
    path = Path(path)
    what = "a manifest (.jsonl or .csv)"
    if path.suffix == ".jsonl":
        rows = read_jsonl(path, what)
    elif path.suffix == ".csv":
        rows = read_csv(path, what, columns=("utterance_id", "speaker_id", "path", "duration_s"))
    else:
        raise InputError(f"{path}: the name ends in {path.suffix!r}; give {what}")
    if not rows:
        raise InputError(f"{path}: names no utterance; `wesep prepare` writes a manifest")
    locator = FileLocator(root if root is not None else path.parent, path)
    first_places: dict[str, str] = {}
    utterances = []
    for row in rows:
        utterance = _utterance_from_row(row, locator)
        first_place = first_places.setdefault(utterance.utterance_id, row.place)
        if first_place != row.place:
            raise InputError(
                f"{row.place}: utterance_id {quoted(utterance.utterance_id)} is listed at {first_place} already; "
                "it must be unique"
            )
        utterances.append(utterance)
    if check_files:
        _check_files_exist(utterances, [row.place for row in rows])
    return utterances


def write_manifest(
    utterances: Iterable[Utterance],
    path: str | os.PathLike[str],
    relative_to: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a manifest. The file appears complete or not at all.

    Args:
        utterances: at least one, with ids that differ.
        path: the manifest to write; its name ends in `.jsonl` or `.csv`.
        relative_to: the folder below which audio is written as relative paths; other audio gets absolute paths. By
            default the manifest's own folder, so that a folder and its manifest can be moved together. With another
            folder, reading the manifest needs `root=relative_to`.
        overwrite: replace an existing file.

    Raises:
        InputError: no utterance, an id that is used twice, or another suffix.
        OutputExistsError: `path` exists and `overwrite` is false.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_manifest([Utterance("a-1", "a", folder / "a/1.wav", 2.0)], folder / "manifest.csv")
    >>> (folder / "manifest.csv").read_text().splitlines()[1]
    'a-1,a,a/1.wav,2.0,0.0,,,'
    """
    path = Path(path)
    if path.suffix not in (".jsonl", ".csv"):
        raise InputError(f"{path}: the name ends in {path.suffix!r}; end it in .jsonl or .csv")
    utterances = list(utterances)
    if not utterances:
        raise InputError(f"{path}: there is no utterance to write")
    check_unique(utterances)
    base = Path(relative_to) if relative_to is not None else path.parent
    all_at_recorded_speed = all(utterance.speed == 1 for utterance in utterances)
    names = [name for name in MANIFEST_FIELDS if name != "speed" or not all_at_recorded_speed]
    records = [_record_of(utterance, base) for utterance in utterances]
    with (
        atomic_path(path, overwrite) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        if path.suffix == ".csv":
            writer = csv.DictWriter(file, names, lineterminator="\n", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(records)
        else:
            for record in records:
                known_values = {name: record[name] for name in names if record[name] is not None}
                file.write(json.dumps(known_values, ensure_ascii=False, allow_nan=False) + "\n")


def check_unique(utterances: Iterable[Utterance]) -> None:
    """Check that no two utterances have the same id.

    Raises:
        InputError: two utterances share an id. The message names both files.
    """
    by_id: dict[str, Utterance] = {}
    for utterance in utterances:
        other = by_id.setdefault(utterance.utterance_id, utterance)
        if other is not utterance:
            raise InputError(
                f"{utterance.path}: utterance_id {quoted(utterance.utterance_id)} is that of {other.path} too; "
                "it must be unique"
            )


def _utterance_from_row(row: Row, locator: FileLocator) -> Utterance:
    values: dict[str, Any] = {
        "utterance_id": row.text("utterance_id"),
        "speaker_id": row.text("speaker_id"),
        "path": locator.find(row.text("path")),
        "duration_s": row.number("duration_s"),
        "start_s": row.optional_number("start_s") or 0.0,
        "gender": row.optional_text("gender"),
        "age": row.optional_number("age"),
        "text": row.optional_text("text"),
        "speed": row.optional_number("speed") or 1.0,
    }
    try:
        return Utterance(**values)
    except InputError as error:
        raise InputError(f"{row.place}: {error}") from error


def _record_of(utterance: Utterance, base: Path) -> dict[str, Any]:
    # Not Path.resolve: a symbolic link to a data disk keeps the name that the user gave.
    absolute = Path(os.path.abspath(utterance.path))  # noqa: PTH100
    folder = Path(os.path.abspath(base))  # noqa: PTH100
    written = absolute.relative_to(folder) if absolute.is_relative_to(folder) else absolute
    utterance = replace(utterance, path=written)
    return {name: getattr(utterance, name) for name in MANIFEST_FIELDS} | {"path": written.as_posix()}


def _check_files_exist(utterances: list[Utterance], places: list[str]) -> None:
    missing = [
        (utterance.path, place)
        for utterance, place in zip(utterances, places, strict=True)
        if not is_file(utterance.path)
    ]
    if missing:
        path, place = missing[0]
        others = f" (nor do {len(missing) - 1} others)" if len(missing) > 1 else ""
        raise InputError(
            f"{place}: path {path} does not exist{others}; name the folder that paths start from with --root"
        )


class Speaker(NamedTuple):
    """Gender (`m`, `f` or any other text) and age in years of a speaker; `None` where unknown."""

    gender: str | None
    age: float | None


def read_speakers(path: str | os.PathLike[str]) -> dict[str, Speaker]:
    """Read gender and age of the speakers from a CSV of speakers or of utterances.

    Args:
        path: a CSV with the column `speaker_id` and, where known, `gender` and `age`. A speaker may be on several
            lines; a value that is empty on one line may be given on another.

    Raises:
        InputError: the file is missing or malformed, or two lines contradict each other.
    """
    speakers: dict[str, Speaker] = {}
    for row in read_csv(path, "a CSV of speakers", ("speaker_id",)):
        speaker_id = canonical(row.text("speaker_id"))
        known = speakers.get(speaker_id, Speaker(None, None))
        stated = Speaker(row.optional_text("gender"), row.optional_number("age"))
        for name, old, new in zip(Speaker._fields, known, stated, strict=True):
            if old is not None and new is not None and old != new:
                raise InputError(
                    f"{row.place}: {name} of {quoted(speaker_id)} is {quoted(new)}, and {quoted(old)} in a line before"
                )
        speakers[speaker_id] = Speaker(*(new if old is None else old for old, new in zip(known, stated, strict=True)))
    if not speakers:
        raise InputError(f"{path}: names no speaker")
    return speakers


def speaker_of(utterance_id: str, speakers: Container[str] = ()) -> str | None:
    """Return the speaker that the id of an utterance names, or `None` if it names none.

    Args:
        utterance_id: for example LibriSpeech's `84-121123-0000`.
        speakers: the known speaker ids. The result is the longest of them that the id begins with, up to a `-` or `_`.
            If none matches, or none are given, the result is the text before the first `-`.

    >>> speaker_of("84-121123-0000"), speaker_of("al_ice-x_1", {"al_ice-x"}), speaker_of("0000")
    ('84', 'al_ice-x', None)
    """
    for end in range(len(utterance_id), 0, -1):
        is_whole_id = end == len(utterance_id)
        if (is_whole_id or utterance_id[end] in "-_") and utterance_id[:end] in speakers:
            return utterance_id[:end]
    speaker_id, dash, _ = utterance_id.partition("-")
    return speaker_id if dash and speaker_id else None


# Finding the files of a list: paths as written, in the other Unicode spelling, or of a data set that has moved.

_SEPARATORS = re.compile(r"[\\/]+")
_DRIVE = re.compile(r"[A-Za-z]:")


def is_file(path: Path) -> bool:
    """True if a path is a file; false, without an error, for a name that no file can have (too long, or with a NUL)."""
    return os.path.isfile(path)  # noqa: PTH113


def is_recording(path: Path) -> bool:
    """True if a path is a file, or names a segment `FILE@START-STOP` of one.

    Raises:
        InputError: a segment that ends before it starts.
    """
    return is_file(path) or ((segment := FileSegment.parse(path)) is not None and is_file(Path(segment.path)))


class FileLocator:
    """Finds the files that a list names.

    A path is tried in this order; the first file that exists is used:

    1. as written, relative to the root;
    2. in the other Unicode spelling of its letters (NFC, NFD);
    3. if it is absolute or a Windows path: the longest end of it that exists below the root, since the data set may
       have moved. The log says so once per list.

        list:  /old/disk/speech/anna/1.wav        root: /data
        tried: /data/old/disk/speech/anna/1.wav, /data/disk/speech/anna/1.wav, /data/speech/anna/1.wav, …

    Args:
        root: the folder that relative paths start from.
        what: name of the list, for messages.
        search_moved: search for the ends of paths (step 3).
        log_moved: log when a file is found by step 3.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        what: str | os.PathLike[str],
        search_moved: bool = True,
        log_moved: bool = True,
    ) -> None:
        self.root = Path(root)
        self._what = os.fspath(what)
        self._search_moved, self._log_moved = search_moved, log_moved
        self._moved_files: dict[Path, tuple[str, ...]] = {}
        self._subfolders: dict[tuple[Path, str], Path | None] = {}

    def find(self, text: str, is_there: Callable[[Path], bool] = is_file) -> Path:
        """Return the path of a file that the list names; if it is found nowhere, the path as written.

        Args:
            text: the path in the list.
            is_there: returns whether a path is the wanted one; by default, whether it is a file.

        Raises:
            InputError: two different paths of the list would become the same file below the root.
        """
        written = self.root / text
        is_elsewhere = Path(text).is_absolute() or "\\" in text or bool(_DRIVE.match(text))
        if (text.isascii() and not is_elsewhere) or is_there(written):
            return written
        if not is_elsewhere:
            return self._descend(self.root, Path(text).parts, is_there) or written
        if Path(text).is_absolute() and (respelled := self._descend(Path("/"), Path(text).parts[1:], is_there)):
            return respelled
        parts = tuple(part for part in _SEPARATORS.split(_DRIVE.sub("", text, count=1)) if part not in ("", "."))
        is_relative_windows_path = not (text.startswith(("/", "\\")) or _DRIVE.match(text))
        if is_relative_windows_path and (path := self._descend(self.root, parts, is_there)):
            return path
        if not self._search_moved:
            return written
        for first in range(len(parts)):
            tail = parts[first:]
            # A `..` must not lead from the root to a file that the list does not mean.
            if ".." in tail and (first or Path(text).is_absolute()):
                continue
            if path := self._descend(self.root, tail, is_there):
                self._note_moved(path, parts, text)
                return path
        return written

    def _descend(self, folder: Path, parts: tuple[str, ...], is_there: Callable[[Path], bool]) -> Path | None:
        """Return the path below a folder, each part in the spelling that exists; `None` if there is no such path."""
        for part in parts[:-1]:
            key = folder, part
            if key not in self._subfolders:
                candidates = (folder / form for form in spellings(part))
                self._subfolders[key] = next((path for path in candidates if os.path.isdir(path)), None)  # noqa: PTH112
            if (subfolder := self._subfolders[key]) is None:
                return None
            folder = subfolder
        return next((path for form in spellings(parts[-1]) if is_there(path := folder / form)), None) if parts else None

    def _note_moved(self, path: Path, parts: tuple[str, ...], text: str) -> None:
        if not self._moved_files and self._log_moved:
            logger.warning(
                "%s: %s does not exist; %s is used, and further paths of the moved data set are found in the same way",
                self._what,
                text,
                path,
            )
        other = self._moved_files.setdefault(path, parts)
        if other != parts:
            raise InputError(
                f"{self._what}: {'/'.join(other)} and {'/'.join(parts)} would both be {path}, which has moved; name "
                "with --root the folder that holds both"
            )
