"""Reading text: JSON, JSONL, CSV and lists. Every command reads such files here.

What a person or a fault can do to a file is foreseen, and said in one line, `FILE:LINE: what is wrong; what to do`:
no UTF-8, NUL bytes, JSON that is nested too deep, numbers that no computer holds, keys or columns that come twice,
quotes that are left open, values of the wrong kind.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import re
import stat
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from wesep_py.common.errors import InputError, nearest, quoted, reason, shorten

MAX_DEPTH = 64
"""Lists and objects within each other, at most."""
MAX_DIGITS = 40
"""Digits of a whole number, at most: a seed of 128 bits has 39."""
MAX_NUMBER = 1e15
"""The largest value of a field: no length in samples, size in bytes or duration comes near it."""
MAX_VALUE = 131_072
"""Characters of a value in a CSV, at most; so many follow a quote that was never closed."""

# What JSON may hold that a plain reading would let through: numbers without end, lone surrogates, NUL.
_SUSPICIOUS = re.compile(rf"\d{{{MAX_DIGITS + 1}}}|[eE]\+?\d{{3}}|\\u(?:[dD][89a-fA-F]|0000)")
_NO_BRACKET = re.compile(r"[^][{}]+")
_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Row:
    """A row of a table, a line of JSONL, or an object in JSON: where it stands, for messages, and its values.

    Of a row or a line, empty values are left out.
    """

    place: str
    values: Mapping[str, Any]

    def text(self, field: str) -> str:
        """Return the field's value as text.

        Raises:
            InputError: the field is missing, empty, a list, a mapping, or true or false.
        """
        value = self.optional_text(field)
        if value is None:
            self._miss(field)
        return value

    def optional_text(self, field: str) -> str | None:
        """Return the field's value as text, or `None` where there is none. A number counts as text."""
        value = self._optional(field)
        if isinstance(value, (dict, list, bool)):
            raise InputError(f"{self.place}: {field} is {quoted(value)}; a text is needed")
        return None if value is None else str(value)

    def number(self, field: str) -> float:
        """Return the field's value as a finite number.

        Raises:
            InputError: the field is missing, or is no finite number.
        """
        value = self.optional_number(field)
        if value is None:
            self._miss(field)
        return value

    def optional_number(self, field: str) -> float | None:
        """Return the field's value as a finite number, or `None` where there is none."""
        value = self._optional(field)
        if value is None:
            return None
        if isinstance(value, str) and _DECIMAL.fullmatch(value.strip()):
            value = float(value)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or value != value:
            raise InputError(f"{self.place}: {field} is {quoted(self.values[field])}; a number is needed")
        if abs(value) > MAX_NUMBER:
            raise InputError(
                f"{self.place}: {field} is {quoted(self.values[field])}; at most {MAX_NUMBER:g} is allowed"
            )
        return float(value)

    def whole(self, field: str, least: int = 0) -> int:
        """Return the field's value as a whole number of at least `least`.

        Raises:
            InputError: the field is missing, or is no such number.
        """
        number = self.number(field)
        if number != int(number) or number < least:
            raise InputError(
                f"{self.place}: {field} is {quoted(self.values[field])}; a whole number of at least {least} is needed"
            )
        return int(number)

    def row(self, field: str) -> Row:
        """Return the object under a field.

        Raises:
            InputError: the field is missing, or is no object.
        """
        value = self._optional(field)
        if value is None:
            self._miss(field)
        if not isinstance(value, dict):
            raise InputError(f"{self.place}: {field} is {quoted(value)}; an object {{…}} is needed")
        return Row(f"{self.place}: {field}", value)

    def rows(self, field: str) -> list[Row]:
        """Return the objects of the list under a field.

        Raises:
            InputError: the field is missing, or is no list of objects.
        """
        found = []
        for number, item in enumerate(self.items(field)):
            if not isinstance(item, dict):
                raise InputError(f"{self.place}: {field}[{number}] is {quoted(item)}; an object {{…}} is needed")
            found.append(Row(f"{self.place}: {field}[{number}]", item))
        return found

    def items(self, field: str) -> list[Any]:
        """Return the list under a field.

        Raises:
            InputError: the field is missing, or is no list.
        """
        value = self.values.get(field)
        if value is None:
            self._miss(field)
        if not isinstance(value, list):
            raise InputError(f"{self.place}: {field} is {quoted(value)}; a list […] is needed")
        return value

    def _optional(self, field: str) -> Any:
        value = self.values.get(field)
        return None if isinstance(value, str) and not value else value

    def _miss(self, field: str) -> NoReturn:
        raise InputError(f"{self.place}: {field} is missing; {nearest(field, map(str, self.values))}")


def read_text(path: str | Path, what: str, error: type[InputError] = InputError, may_hold_nul: bool = False) -> str:
    """Read a UTF-8 text file; a byte order mark at its beginning is left out.

    Args:
        path: the file.
        what: what it should be, for messages: `"a manifest"`.
        error: what is raised.
        may_hold_nul: keep NUL bytes, for a file of which one bad line should not cost the others.

    Raises:
        InputError (or `error`): there is no such file, it is a folder, it cannot be read, is not UTF-8 text, or holds
            a NUL byte. The message names the line.
    """
    path = Path(path)
    with naming_text(path, what, error):
        kind, data = path.stat().st_mode, b""
        if stat.S_ISREG(kind):
            data = path.read_bytes()
    if stat.S_ISDIR(kind):
        raise error(f"{path}: is a folder; give the path of {what}")
    if not stat.S_ISREG(kind):
        raise error(f"{path}: is no regular file; give the path of {what}")
    return decode(data, str(path), what, error, may_hold_nul)


@contextmanager
def naming_text(path: Path, what: str, error: type[InputError] = InputError) -> Iterator[None]:
    """Name the file, and say what it should be, where the system cannot open it."""
    try:
        yield
    except OSError as problem:
        if problem.errno in (errno.ENOENT, errno.ENOTDIR):
            raise error(f"{path}: no such file; give the path of {what}") from problem
        raise error(f"{path}: cannot be read ({problem.strerror or problem}); give the path of {what}") from problem
    except (ValueError, MemoryError) as problem:  # a name with a NUL; a file that is larger than the memory
        raise error(f"{path}: cannot be read ({reason(problem)}); give the path of {what}") from problem


def decode(data: bytes, place: str, what: str, error: type[InputError] = InputError, may_hold_nul: bool = False) -> str:
    """Decode UTF-8 text that was read in another way; see `read_text`."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise error(f"{place}: is UTF-16, not UTF-8 text; save {what} as UTF-8")
    at = data.find(b"\0")
    if at >= 0 and not may_hold_nul:
        raise error(f"{place}:{_line(data, at)}: holds a NUL byte; give the path of {what}, which is text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error(
            f"{place}:{_line(data, problem.start)}: is not UTF-8 text (byte 0x{data[problem.start]:02x}); "
            f"give the path of {what}, as UTF-8"
        ) from problem


def _line(data: bytes, at: int) -> int:
    return data.count(b"\n", 0, at) + 1


def open_lines(path: str | Path, what: str) -> list[str]:
    """Read the lines of a UTF-8 text file, without their ends.

    Args:
        path: the file.
        what: what it should be, for messages: `"a manifest"`.

    Raises:
        InputError: as `read_text`.
    """
    return _lines(read_text(path, what))


def _lines(text: str) -> list[str]:
    # Not str.splitlines, which also ends a line at characters that may stand inside a text.
    return [line.rstrip("\r") for line in text.split("\n")]


def parse_json(
    text: str | bytes, place: str, remedy: str = "get a whole copy of it", error: type[InputError] = InputError
) -> Any:
    """Parse a JSON text, strictly: every program reads what is accepted in the same way.

    Args:
        text: the JSON.
        place: where it stands, for messages; the line is added to it where there are several.
        remedy: what is to be done, for messages.
        error: what is raised.

    Raises:
        InputError (or `error`): it is no JSON; a key comes twice in an object; a number is not finite, or has more
            than 40 digits; it is nested more than 64 deep; a text holds NUL or a lone surrogate.

    >>> parse_json('{"a": [1, NaN]}', "x.json")
    Traceback (most recent call last):
    wesep_py.common.errors.InputError: x.json: is not JSON (NaN is no number); get a whole copy of it
    """
    if isinstance(text, bytes):
        text = decode(text, place, "JSON", error)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as problem:
        where = f"{place}:{problem.lineno}" if "\n" in text.strip() else place
        told = "it is empty" if not text.strip() else f"{problem.msg} at column {problem.colno}"
        raise error(f"{where}: is not JSON ({told}); {remedy}") from problem
    except RecursionError as problem:
        raise error(f"{place}: is nested more than {MAX_DEPTH} deep; {remedy}") from problem
    except ValueError as problem:  # of the hooks, and of Python itself for a number of thousands of digits
        told = str(problem) if isinstance(problem, _Refused) else f"a number has more than {MAX_DIGITS} digits"
        raise error(f"{place}: is not JSON ({told}); {remedy}") from problem
    if (_SUSPICIOUS.search(text) or _may_be_deep(text)) and (fault := _fault(value)):
        raise error(f"{place}: {fault}; {remedy}")
    return value


def read_json(
    path: str | Path, what: str, remedy: str = "get a whole copy of it", error: type[InputError] = InputError
) -> Row:
    """Read the object of a JSON file.

    Args:
        path: the file.
        what: what it should be, for messages: `"a summary"`.
        remedy: what is to be done about a damaged one, for messages.
        error: what is raised.

    Raises:
        InputError (or `error`): as `read_text` and `parse_json`; also where it is no object.
    """
    value = parse_json(read_text(path, what, error), str(path), remedy, error)
    if not isinstance(value, dict):
        raise error(f"{path}: holds {quoted(value, 40)}; an object {{…}} is needed: {remedy}")
    return Row(str(path), value)


def read_jsonl(
    path: str | Path, what: str, remedy: str = "one object a line is needed", may_end_early: bool = False
) -> list[Row]:
    """Read a file with one JSON object per line; blank lines are left out.

    Args:
        path: the file.
        what: what it should be, for messages.
        remedy: what is to be done about a damaged one, for messages.
        may_end_early: for a file that grows by a line at a time: a last line without an end, which a run that was
            killed leaves, is dropped with a warning if it is no object.

    Raises:
        InputError: the file is missing, or a line is not a JSON object.
    """
    lines = open_lines(path, what)
    if may_end_early and lines[-1].strip():
        try:
            parse_object(lines[-1], f"{path}:{len(lines)}")
        except InputError as problem:
            warnings.warn(f"{problem}; the line was cut short, and is left out", stacklevel=2)
            lines.pop()
    return list(parse_lines(lines, str(path), remedy))


def parse_lines(lines: Iterable[str | bytes], place: str, remedy: str = "one object a line is needed") -> Iterator[Row]:
    """Yield the rows of JSONL that was read in another way; see `read_jsonl`.

    Args:
        lines: without their ends.
        place: the file, for messages.
        remedy: what is to be done, for messages.
    """
    for number, line in enumerate(lines, start=1):
        if line.strip():
            row = parse_object(line, f"{place}:{number}", remedy)
            yield Row(
                row.place, {name: value for name, value in row.values.items() if value is not None and value != ""}
            )


def parse_object(text: str | bytes, place: str, remedy: str = "one object a line is needed") -> Row:
    """Parse the object of a JSON text; see `parse_json`."""
    value = parse_json(text, place, remedy)
    if not isinstance(value, dict):
        raise InputError(f"{place}: is not a JSON object but {quoted(value, 40)}; {remedy}")
    return Row(place, value)


_NUL = "\ue000"
"""A character for private use, in the place of NUL while a CSV is parsed."""


def read_csv(
    path: str | Path,
    what: str,
    columns: Iterable[str] = (),
    only: Collection[str] = (),
    hint: str = "quote a value with commas",
    may_be_short: bool = False,
    may_hold_nul: bool = False,
) -> list[Row]:
    """Read a CSV whose first line names its columns; blank lines are left out.

    A value that holds a comma, a quote or the end of a line stands in double quotes.

    Args:
        path: the file.
        what: what it should be, for messages.
        columns: names that the first line must hold.
        only: the names that it may hold; by default any.
        hint: what to do about a line with too many values.
        may_be_short: whether the last values of a line may be missing, where none of them is needed.
        may_hold_nul: keep NUL bytes in values, for a file of which one bad line should not cost the others.

    Raises:
        InputError: the file is missing or empty, lacks a column, names one twice, a line has more values than columns
            or fewer, a value is longer than 131,072 characters, or a quote is left open.
    """
    text = read_text(path, what, may_hold_nul=may_hold_nul).replace("\0", _NUL)  # csv of Python 3.10 refuses it
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    table = _rows_of(reader, str(path))
    first, header = next(table, (1, []))
    header = [name.strip() for name in header]
    _check_header(header, f"{path}:{first}", columns, only)
    rows = []
    for line, values in table:
        place = f"{path}:{line}"
        if len(values) > len(header) or (len(values) < len(header) and not may_be_short):
            told = hint if len(values) > len(header) else "the line is cut short, or lacks commas"
            raise InputError(f"{place}: has {len(values)} values for {len(header)} columns; {told}")
        pairs = zip(header, (value.strip().replace(_NUL, "\0") for value in values), strict=False)
        rows.append(Row(place, {name: value for name, value in pairs if value and name}))
    return rows


COUNT = range(10**15)
"""As a shape: a whole number of 0 or more, of samples, bytes or trials."""


def check_shape(
    value: Any, shape: Any, place: str, remedy: str = "get a whole copy of it", error: type[InputError] = InputError
) -> None:
    """Refuse a value of JSON that has not the shape that is read of it; other keys are passed over.

    Args:
        value: as `parse_json` gives it.
        shape: `str`, `bool`, `float` (a finite number), `dict`, `list` or `object` (anything); a range of whole
            numbers; `None`; a tuple of such, any of which will do; `[shape]`, a list of such; a dictionary of shapes by
            key, where `"key?"` may be missing, and `...` stands for all keys that are not named.
        place: where it stands, for messages.
        remedy: what is to be done, for messages.
        error: what is raised.

    Raises:
        InputError (or `error`): naming the place inside the value.

    >>> check_shape({"counts": {"trials": -1}}, {"counts": {"trials": COUNT}}, "summary.json", "evaluate again")
    Traceback (most recent call last):
    wesep_py.common.errors.InputError: summary.json: counts.trials is -1; a whole number is needed: evaluate again
    """
    waiting: list[tuple[Any, Any, str]] = [(value, shape, "")]
    while waiting:
        item, wanted, key = waiting.pop()
        choices = wanted if isinstance(wanted, tuple) else (wanted,)
        chosen = next((choice for choice in choices if _has_kind(item, choice)), choices)
        if chosen is choices:
            kinds = " or ".join(map(_spell, choices))
            told = f"{shorten(key, 80)} is" if key else "is"
            raise error(f"{place}: {told} {quoted(item, 60)}; {kinds} is needed: {remedy}")
        if isinstance(chosen, list):
            waiting += [(inner, chosen[0], f"{key}[{number}]") for number, inner in enumerate(item)]
        elif isinstance(chosen, dict):
            named = {str(name).removesuffix("?"): (name, inner) for name, inner in chosen.items() if name is not ...}
            for bare, (name, inner) in named.items():
                path = f"{key}.{bare}" if key else bare
                if bare in item:
                    waiting.append((item[bare], inner, path))
                elif name == bare:
                    raise error(f"{place}: {shorten(path, 80)} is missing: {remedy}")
            if ... in chosen:
                waiting += [(item[name], chosen[...], f"{key}.{name}") for name in item if name not in named]


def _has_kind(item: Any, shape: Any) -> bool:
    if shape is object:
        return True
    if shape is float:
        return isinstance(item, (int, float)) and not isinstance(item, bool) and abs(item) <= MAX_NUMBER
    if isinstance(shape, range):
        return isinstance(item, int) and not isinstance(item, bool) and item in shape
    if isinstance(shape, (list, dict)):
        return isinstance(item, type(shape))
    return item is None if shape is None else isinstance(item, shape)


def _spell(shape: Any) -> str:
    names: dict[Any, str] = {
        str: "a text",
        bool: "true or false",
        float: "a number",
        None: "null",
        list: "a list",
        dict: "an object",
    }
    if isinstance(shape, range):
        return "a whole number"
    return names[type(shape) if isinstance(shape, (list, dict)) else shape]


def _rows_of(reader: Any, place: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank, each with its last line's number."""
    while True:
        begin = reader.line_num + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as problem:
            told = str(problem)
            if "field larger" in told or "end of data" in told:
                told = "a quote is left open" if "end of data" in told else f"a value has over {MAX_VALUE:,} characters"
            raise InputError(
                f"{place}:{begin}: is no row of a CSV ({told}); close each quote, and double those inside"
            ) from problem
        if any(value.strip() for value in values) or len(values) > 1:
            yield reader.line_num, values


def _check_header(header: list[str], place: str, columns: Iterable[str], only: Collection[str]) -> None:
    unknown = next((name for name in header if name not in only), None) if only and len(header) > 1 else None
    if unknown is not None:
        raise InputError(f"{place}: has a column {quoted(unknown)}; {nearest(unknown, only)}")
    for name in columns:
        if name not in header:
            other = next((mark for mark in (";", "\t") if len(header) == 1 and mark in header[0]), None)
            if other:
                told = "semicolons" if other == ";" else "tabs"
                raise InputError(f"{place}: is parted by {told}; part the columns {', '.join(columns)} by commas")
            raise InputError(f"{place}: has no column {name!r}; {nearest(name, header)}")
    twice = next((name for number, name in enumerate(header) if name and name in header[:number]), None)
    if twice is not None:
        raise InputError(f"{place}: names the column {quoted(twice)} twice; rename or remove one")


class _Refused(ValueError):
    """What a hook of the JSON parser refuses."""


def _no_number(name: str) -> NoReturn:
    raise _Refused(f"{name} is no number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _Refused(f"the key {quoted(name)} comes twice")
            seen.add(name)
    return found


_DECODER = json.JSONDecoder(parse_constant=_no_number, object_pairs_hook=_unique)


def _may_be_deep(text: str) -> bool:
    """Return whether lists and objects may be nested too deep; brackets inside texts can make it say yes wrongly."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    brackets = _NO_BRACKET.sub("", text)
    for _ in range(MAX_DEPTH):  # each time the innermost go
        brackets = brackets.replace("[]", "").replace("{}", "")
        if not brackets:
            return False
    return True


def _fault(value: Any) -> str | None:
    """Return what of a value cannot be used, and its key; `None` if there is no fault."""
    waiting: list[tuple[Any, str, int]] = [(value, "", 1)]
    while waiting:
        item, key, depth = waiting.pop()
        told = shorten(key, 80) or "it"
        if isinstance(item, (dict, list)) and depth > MAX_DEPTH:
            return f"is nested more than {MAX_DEPTH} deep"
        if isinstance(item, dict):
            for name, inner in item.items():
                if not _is_text(name):
                    return f"{told} has a key with a lone surrogate or NUL, {quoted(name)}"
                waiting.append((inner, f"{key}.{name}" if key else name, depth + 1))
        elif isinstance(item, list):
            waiting += [(inner, f"{key}[{number}]", depth + 1) for number, inner in enumerate(item)]
        elif isinstance(item, str) and not _is_text(item):
            return f"{told} holds a lone surrogate or NUL, {quoted(item)}"
        elif isinstance(item, float) and not math.isfinite(item):
            return f"{told} is a number beyond all bounds"
        elif isinstance(item, int) and abs(item) >= 10**MAX_DIGITS:
            return f"{told} is a number of more than {MAX_DIGITS} digits"
    return None


def _is_text(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)
