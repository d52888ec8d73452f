"""Tables with a line number to every row: CSV with a header, or JSONL."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wesep_py.errors import InputError, nearest


@dataclass(frozen=True)
class Row:
    """One line of a table: where it stands, for messages, and its values; empty values are left out."""

    place: str
    values: Mapping[str, Any]

    def text(self, field: str) -> str:
        """The field's value as text.

        Raises:
            InputError: the field is missing, empty or a list or mapping.
        """
        value = self.optional_text(field)
        if value is None:
            raise InputError(f"{self.place}: {field} is missing; {nearest(field, self.values)}")
        return value

    def optional_text(self, field: str) -> str | None:
        """The field's value as text, or `None` where there is none."""
        value = self.values.get(field)
        if isinstance(value, (dict, list)):
            raise InputError(f"{self.place}: {field} is {value!r}; a text is needed")
        return None if value is None else str(value)

    def number(self, field: str) -> float:
        """The field's value as a finite number.

        Raises:
            InputError: the field is missing, or is no finite number.
        """
        self.text(field)
        value = self.optional_number(field)
        assert value is not None
        return value

    def optional_number(self, field: str) -> float | None:
        """The field's value as a finite number, or `None` where there is none."""
        value = self.optional_text(field)
        if value is None:
            return None
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise InputError(f"{self.place}: {field} is {value!r}; a number is needed")
        return number


def open_lines(path: str | Path, what: str) -> list[str]:
    """The lines of a UTF-8 text file, without their ends.

    Args:
        path: the file.
        what: what it should be, for messages: `"a manifest"`.

    Raises:
        InputError: there is no such file, it is a folder, or it is not UTF-8 text.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the path of {what}")
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of {what}")
    try:
        # Not str.splitlines, which also ends a line at characters that may stand inside a text.
        return [line.rstrip("\r") for line in path.read_text(encoding="utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text; give the path of {what}") from error


def read_csv(path: str | Path, what: str, columns: Iterable[str] = ()) -> list[Row]:
    """The rows of a CSV whose first line names its columns.

    Args:
        path: the file.
        what: what it should be, for messages.
        columns: names that the first line must hold.

    Raises:
        InputError: the file is missing or empty, lacks a column, or a line has more values than columns.
    """
    lines = open_lines(path, what)
    reader = csv.reader(lines)
    header = [name.strip() for name in next(reader, [])]
    for name in columns:
        if name not in header:
            raise InputError(f"{path}:1: has no column {name!r}; {nearest(name, header)}")
    rows = []
    for values in reader:
        if not values:
            continue
        place = f"{path}:{reader.line_num}"
        if len(values) > len(header):
            raise InputError(f"{place}: has {len(values)} values for {len(header)} columns; quote a value with commas")
        pairs = zip(header, (value.strip() for value in values), strict=False)
        rows.append(Row(place, {name: value for name, value in pairs if value}))
    return rows


def read_jsonl(path: str | Path, what: str) -> list[Row]:
    """The rows of a file with one JSON object a line; blank lines are passed over.

    Raises:
        InputError: the file is missing, or a line is not a JSON object.
    """
    return list(_parse_jsonl(path, open_lines(path, what)))


def _parse_jsonl(path: str | Path, lines: list[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{place}: is not JSON ({error.msg} at column {error.colno})") from error
        if not isinstance(values, dict):
            raise InputError(f"{place}: is not a JSON object; one object a line is needed")
        yield Row(place, {name: value for name, value in values.items() if value is not None and value != ""})
