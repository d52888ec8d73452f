"""What is known of the speakers of a corpus, and whose an utterance is by its id."""

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

from wesep_py.common.errors import InputError
from wesep_py.common.files import atomic_path
from wesep_py.common.names import canonical, spellings
from wesep_py.common.textfiles import Row, read_csv, read_jsonl

# ----------------------------------------
# One stretch of one person's speech in a recording: what every corpus is a list of.


@dataclass(frozen=True)
class Utterance:
    """A recording, or a stretch of one, and who speaks in it.

    Args:
        utterance_id: its name, unique in its corpus, without white space. Ids are kept in one spelling (NFC), so that
            they match however they were written.
        speaker_id: who speaks; the same text for the same person throughout a corpus, without white space.
        path: the audio file, absolute or relative to the working folder. Of several channels it is the first.
        duration_s: length in seconds, greater than 0; at another `speed`, of what is heard.
        start_s: where the utterance begins in the file, in seconds, at least 0. More than 0 for a segment.
        gender: `m`, `f` or any other text, or `None` where it is not known.
        age: in years, at least 0, or `None`.
        text: what is said, or `None`.
        speed: how much faster than recorded it is played, pitch and all; above 0 (see `perturb_speed`).

    Raises:
        InputError: an empty or spaced id, or a value out of its range. The message begins with the field.

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
                raise InputError(f"{field}: is {value!r}; a name without white space is needed")
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
        """Where the utterance ends in its file, in seconds."""
        return self.start_s + self.duration_s * self.speed


# ----------------------------------------
# Where the files of a list are: paths as they are written, in another spelling, or of a data set that has moved.

logger = logging.getLogger(__name__)
_SEPARATORS = re.compile(r"[\\/]+")
_DRIVE = re.compile(r"[A-Za-z]:")


def is_file(path: Path) -> bool:
    """True if a path is a file; also of names that no file can have (too long, or with a NUL) it is told."""
    return os.path.isfile(path)  # noqa: PTH113


class FileLocator:
    """Finds the files that a list names.

    A path is taken as it is written, from the root on. Where nothing is there it is tried in the other spelling of its
    letters (NFC, NFD). Of an absolute path, or one of Windows, its end is then looked for under the root, the longest
    that is there: the data set has moved. The log says so, once for a list.

    Args:
        root: the folder that relative paths start from.
        what: the list, for messages.
        moved: whether ends of paths are looked for.
        say: whether the log says so.
    """

    def __init__(
        self, root: str | os.PathLike[str], what: str | os.PathLike[str], moved: bool = True, say: bool = True
    ) -> None:
        self.root = Path(root)
        self._what = os.fspath(what)
        self._moved, self._say = moved, say
        self._taken: dict[Path, tuple[str, ...]] = {}
        self._steps: dict[tuple[Path, str], Path | None] = {}

    def find(self, text: str, is_there: Callable[[Path], bool] = is_file) -> Path:
        """Return the path of a file that the list names; where it is nowhere, as it is written.

        Args:
            text: what the list says.
            is_there: tells whether a path is the one; by default, whether it is a file.

        Raises:
            InputError: two files of the list would be the same one under the root.
        """
        written = self.root / text
        is_elsewhere = Path(text).is_absolute() or "\\" in text or bool(_DRIVE.match(text))
        if (text.isascii() and not is_elsewhere) or is_there(written):
            return written
        if not is_elsewhere:
            return self._descend(self.root, Path(text).parts, is_there) or written
        if Path(text).is_absolute() and (spelled := self._descend(Path("/"), Path(text).parts[1:], is_there)):
            return spelled
        parts = tuple(part for part in _SEPARATORS.split(_DRIVE.sub("", text, count=1)) if part not in ("", "."))
        if not (text.startswith(("/", "\\")) or _DRIVE.match(text)) and (
            found := self._descend(self.root, parts, is_there)
        ):
            return found  # a relative path of Windows
        if not self._moved:
            return written
        for first in range(len(parts)):
            tail = parts[first:]
            if ".." in tail and (first or Path(text).is_absolute()):
                continue
            if found := self._descend(self.root, tail, is_there):
                self._take(found, parts, text)
                return found
        return written

    def _descend(self, folder: Path, parts: tuple[str, ...], is_there: Callable[[Path], bool]) -> Path | None:
        """The path below a folder, each part in whichever spelling is there."""
        for part in parts[:-1]:
            key = folder, part
            if key not in self._steps:
                forms = (folder / form for form in spellings(part))
                self._steps[key] = next((form for form in forms if os.path.isdir(form)), None)  # noqa: PTH112
            if (step := self._steps[key]) is None:
                return None
            folder = step
        return next((path for form in spellings(parts[-1]) if is_there(path := folder / form)), None) if parts else None

    def _take(self, found: Path, parts: tuple[str, ...], text: str) -> None:
        if not self._taken and self._say:
            logger.warning(
                "%s: %s is not there, and is taken from %s; so are further paths of a data set that has moved",
                self._what,
                text,
                found,
            )
        other = self._taken.setdefault(found, parts)
        if other != parts:
            raise InputError(
                f"{self._what}: {'/'.join(other)} and {'/'.join(parts)} would both be {found}, which has moved; name "
                "with --root the folder that holds both"
            )


# ----------------------------------------
# A corpus as a file: one utterance a line, JSONL or CSV.

MANIFEST_FIELDS = tuple(field.name for field in fields(Utterance))


def read_manifest(
    path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None, check_files: bool = True
) -> list[Utterance]:
    """The utterances of a manifest, in its order.

    Args:
        path: a `.jsonl` or `.csv` file with the fields `utterance_id, speaker_id, path, duration_s` and,
            where known, `start_s, gender, age, text, speed`. Other fields are passed over.
        root: the folder that relative paths are relative to; by default the manifest's own. Files that have moved are
            looked for below it (`FileLocator`).
        check_files: whether every audio file must exist now. Without it a missing one shows when it is read.

    Returns:
        The utterances; their paths are absolute if `root` (or the manifest's folder) is.

    Raises:
        InputError: the manifest is missing, empty or malformed, an id stands in it twice, or a line names a
            file that does not exist. The message names the line and the field.

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
    places = FileLocator(root if root is not None else path.parent, path)
    seen: dict[str, str] = {}
    utterances = []
    for row in rows:
        utterance = _from_row(row, places)
        first = seen.setdefault(utterance.utterance_id, row.place)
        if first != row.place:
            raise InputError(
                f"{row.place}: utterance_id {utterance.utterance_id!r} stands at {first} already; it must be unique"
            )
        utterances.append(utterance)
    if check_files:
        _check_files(utterances, [row.place for row in rows])
    return utterances


def write_manifest(
    utterances: Iterable[Utterance],
    path: str | os.PathLike[str],
    relative_to: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a manifest, whole or not at all.

    Args:
        utterances: at least one, with ids that differ.
        path: a name that ends in `.jsonl` or `.csv`.
        relative_to: audio beneath this folder is written relative to it, the rest as absolute paths; by
            default the manifest's own folder, so that a folder with its manifest can be moved. Reading
            back then needs `root=relative_to`.
        overwrite: whether an existing file is replaced.

    Raises:
        InputError: no utterance, an id that comes twice, or another suffix.
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
    played_as_recorded = all(utterance.speed == 1 for utterance in utterances)
    names = [name for name in MANIFEST_FIELDS if name != "speed" or not played_as_recorded]
    records = [_to_record(utterance, base) for utterance in utterances]
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
                kept = {name: record[name] for name in names if record[name] is not None}
                file.write(json.dumps(kept, ensure_ascii=False, allow_nan=False) + "\n")


def check_unique(utterances: Iterable[Utterance]) -> None:
    """Raise an `InputError` that names both files if two utterances share their id."""
    seen: dict[str, Utterance] = {}
    for utterance in utterances:
        other = seen.setdefault(utterance.utterance_id, utterance)
        if other is not utterance:
            raise InputError(
                f"{utterance.path}: utterance_id {utterance.utterance_id!r} is that of {other.path} too; "
                "it must be unique"
            )


def _from_row(row: Row, places: FileLocator) -> Utterance:
    values: dict[str, Any] = {
        "utterance_id": row.text("utterance_id"),
        "speaker_id": row.text("speaker_id"),
        "path": places.find(row.text("path")),
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


def _to_record(utterance: Utterance, base: Path) -> dict[str, Any]:
    # Not Path.resolve: a link to a data disk stays the name that the user gave.
    absolute = Path(os.path.abspath(utterance.path))  # noqa: PTH100
    folder = Path(os.path.abspath(base))  # noqa: PTH100
    written = absolute.relative_to(folder) if absolute.is_relative_to(folder) else absolute
    utterance = replace(utterance, path=written)
    return {name: getattr(utterance, name) for name in MANIFEST_FIELDS} | {"path": written.as_posix()}


def _check_files(utterances: list[Utterance], places: list[str]) -> None:
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
    """A speaker's gender (`m`, `f` or any other text) and age in years; `None` for what is not known."""

    gender: str | None
    age: float | None


def read_speakers(path: str | os.PathLike[str]) -> dict[str, Speaker]:
    """Gender and age of the speakers in a CSV of speakers or of utterances.

    Args:
        path: a CSV with the column `speaker_id` and, where known, `gender` and `age`. A speaker may stand in
            many lines; what one line leaves empty another may say.

    Raises:
        InputError: the file is missing or malformed, or two lines contradict each other.
    """
    known: dict[str, Speaker] = {}
    for row in read_csv(path, "a CSV of speakers", ("speaker_id",)):
        speaker_id = canonical(row.text("speaker_id"))
        before = known.get(speaker_id, Speaker(None, None))
        found = Speaker(row.optional_text("gender"), row.optional_number("age"))
        for name, old, new in zip(Speaker._fields, before, found, strict=True):
            if old is not None and new is not None and old != new:
                raise InputError(f"{row.place}: {name} of {speaker_id!r} is {new!r}, and {old!r} in a line before")
        known[speaker_id] = Speaker(*(new if old is None else old for old, new in zip(before, found, strict=True)))
    if not known:
        raise InputError(f"{path}: names no speaker")
    return known


def speaker_of(utterance_id: str, speakers: Container[str] = ()) -> str | None:
    """The speaker of an utterance by its id, or `None` if the id does not say.

    Args:
        utterance_id: for example LibriSpeech's `84-121123-0000`.
        speakers: the speakers there are: the longest one that the id begins with, up to a `-` or `_`, is it.
            If none is, or none are given, it is what stands before the first `-`.

    >>> speaker_of("84-121123-0000"), speaker_of("al_ice-x_1", {"al_ice-x"}), speaker_of("0000")
    ('84', 'al_ice-x', None)
    """
    for end in range(len(utterance_id), 0, -1):
        whole = end == len(utterance_id)
        if (whole or utterance_id[end] in "-_") and utterance_id[:end] in speakers:
            return utterance_id[:end]
    speaker_id, dash, _ = utterance_id.partition("-")
    return speaker_id if dash and speaker_id else None
