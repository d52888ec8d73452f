"""A corpus as a file: one utterance a line, JSONL or CSV."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from wesep_py.corpus.places import Places, is_file
from wesep_py.corpus.table import Row, read_csv, read_jsonl
from wesep_py.corpus.utterance import Utterance
from wesep_py.errors import InputError
from wesep_py.files import atomic_path

FIELDS = tuple(field.name for field in fields(Utterance))


def read_manifest(
    path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None, check_files: bool = True
) -> list[Utterance]:
    """The utterances of a manifest, in its order.

    Args:
        path: a `.jsonl` or `.csv` file with the fields `utterance_id, speaker_id, path, duration_s` and,
            where known, `start_s, gender, age, text, speed`. Other fields are passed over.
        root: the folder that relative paths are relative to; by default the manifest's own. Files that have moved are
            looked for below it (`Places`).
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
    places = Places(root if root is not None else path.parent, path)
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
    names = [name for name in FIELDS if name != "speed" or not played_as_recorded]
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


def _from_row(row: Row, places: Places) -> Utterance:
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
    return {name: getattr(utterance, name) for name in FIELDS} | {"path": written.as_posix()}


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
