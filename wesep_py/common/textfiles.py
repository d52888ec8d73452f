"""Read text files: JSON, JSONL, CSV and lists. Every command reads such files with these functions.

| file | read the file | parse text that was read elsewhere |
| --- | --- | --- |
| any text | `read_text`, `open_lines` | `decode_text` |
| JSON | `read_json` | `parse_json`, `parse_object` |
| JSONL | `read_jsonl` | `parse_lines` |
| CSV | `read_csv` | |

Objects, lines and rows are `Row`s, whose methods check the type of a field; `check_schema` checks a whole JSON value.
Every fault of a file is reported in one line, `FILE:LINE: what is wrong; what to do`: invalid UTF-8, NUL bytes, JSON
that is nested too deep, numbers that are too large, duplicate keys or columns, unclosed quotes, values of a wrong type.
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
"""Maximum depth of nested lists and objects."""
MAX_DIGITS = 40
"""Maximum number of digits of an integer: a seed of 128 bits has 39."""
MAX_NUMBER = 1e15
"""Maximum of a numeric field, above any length in samples, size in bytes or duration."""
MAX_VALUE = 131_072
"""Maximum length of a CSV value in characters (the limit of Python's `csv`); an unclosed quote exceeds it."""
COUNT = range(10**15)
"""For schemas: an integer of 0 or more, of samples, bytes or trials."""

# JSON that needs a second look, because Python's parser accepts it: huge numbers, lone surrogates, NUL.
_SUSPICIOUS = re.compile(rf"\d{{{MAX_DIGITS + 1}}}|[eE]\+?\d{{3}}|\\u(?:[dD][89a-fA-F]|0000)")
_NO_BRACKET = re.compile(r"[^][{}]+")
_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Row:
    """A row of a CSV, a line of JSONL, or a JSON object.

    Attributes:
        place: file and line, and the field of an inner object, for messages.
        values: values by field. Empty values of a CSV row or JSONL line are absent.
    """

    place: str
    values: Mapping[str, Any]

    def text(self, field: str) -> str:
        """Return a field as a string; a number is converted.

        Raises:
            InputError: the field is missing, empty, a list, an object or a boolean.
        """
        value = self.optional_text(field)
        if value is None:
            self._miss(field)
        return value

    def optional_text(self, field: str) -> str | None:
        """Return a field as a string, or `None` if it is missing or empty; otherwise as `text`."""
        value = self._optional(field)
        if isinstance(value, (dict, list, bool)):
            raise InputError(f"{self.place}: {field} is {quoted(value)}; a string is needed")
        return None if value is None else str(value)

    def number(self, field: str) -> float:
        """Return a field as a finite number; a string that spells a decimal number is converted.

        Raises:
            InputError: the field is missing, or not a number of at most 1e15.
        """
        value = self.optional_number(field)
        if value is None:
            self._miss(field)
        return value

    def optional_number(self, field: str) -> float | None:
        """Return a field as a finite number, or `None` if it is missing or empty; otherwise as `number`."""
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
        """Return a field as an integer of at least `least`.

        Raises:
            InputError: the field is missing, or not such an integer.
        """
        number = self.number(field)
        if number != int(number) or number < least:
            raise InputError(
                f"{self.place}: {field} is {quoted(self.values[field])}; a whole number of at least {least} is needed"
            )
        return int(number)

    def row(self, field: str) -> Row:
        """Return a field that is an object.

        Raises:
            InputError: the field is missing, or not an object.
        """
        value = self._optional(field)
        if value is None:
            self._miss(field)
        if not isinstance(value, dict):
            raise InputError(f"{self.place}: {field} is {quoted(value)}; an object {{…}} is needed")
        return Row(f"{self.place}: {field}", value)

    def rows(self, field: str) -> list[Row]:
        """Return a field that is a list of objects.

        Raises:
            InputError: the field is missing, or not a list of objects.
        """
        rows = []
        for number, item in enumerate(self.items(field)):
            if not isinstance(item, dict):
                raise InputError(f"{self.place}: {field}[{number}] is {quoted(item)}; an object {{…}} is needed")
            rows.append(Row(f"{self.place}: {field}[{number}]", item))
        return rows

    def items(self, field: str) -> list[Any]:
        """Return a field that is a list.

        Raises:
            InputError: the field is missing, or not a list.
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
    """Read a UTF-8 text file, without a byte order mark.

    Args:
        path: the file.
        what: the kind of file, for messages: `"a manifest"`.
        error: class of the exception to raise.
        may_hold_nul: allow NUL bytes, for a file in which one bad line should not affect the others.

    Raises:
        InputError (or `error`): the file does not exist, is a folder, cannot be read, is not UTF-8 text, or holds a
            NUL byte. The message names the line.
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
    return decode_text(data, str(path), what, error, may_hold_nul)


@contextmanager
def naming_text(path: Path, what: str, error: type[InputError] = InputError) -> Iterator[None]:
    """Turn the system's error, when a file cannot be opened, into one line that names the file and its kind."""
    try:
        yield
    except OSError as problem:
        if problem.errno in (errno.ENOENT, errno.ENOTDIR):
            raise error(f"{path}: no such file; give the path of {what}") from problem
        raise error(f"{path}: cannot be read ({problem.strerror or problem}); give the path of {what}") from problem
    except (ValueError, MemoryError) as problem:  # a name with a NUL; a file larger than the memory
        raise error(f"{path}: cannot be read ({reason(problem)}); give the path of {what}") from problem


def decode_text(
    data: bytes, place: str, what: str, error: type[InputError] = InputError, may_hold_nul: bool = False
) -> str:
    """Decode UTF-8 text that was not read from a local file; see `read_text`."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise error(f"{place}: is UTF-16, not UTF-8 text; save {what} as UTF-8")
    position = data.find(b"\0")
    if position >= 0 and not may_hold_nul:
        raise error(f"{place}:{_line_number(data, position)}: holds a NUL byte; give the path of {what}, which is text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error(
            f"{place}:{_line_number(data, problem.start)}: is not UTF-8 text (byte 0x{data[problem.start]:02x}); "
            f"give the path of {what}, as UTF-8"
        ) from problem


def _line_number(data: bytes, position: int) -> int:
    return data.count(b"\n", 0, position) + 1


def open_lines(path: str | Path, what: str) -> list[str]:
    """Read the lines of a UTF-8 text file, without line ends.

    Args:
        path: the file.
        what: the kind of file, for messages: `"a manifest"`.

    Raises:
        InputError: as `read_text`.
    """
    # Not `str.splitlines`, which also splits at characters that may occur inside a string (U+2028, form feed).
    return [line.rstrip("\r") for line in read_text(path, what).split("\n")]


def parse_json(
    text: str | bytes, place: str, remedy: str = "get a whole copy of it", error: type[InputError] = InputError
) -> Any:
    """Parse a JSON text strictly: accepted is only what every JSON parser reads alike.

    Args:
        text: the JSON.
        place: the file, for messages; the line is appended if the text has several.
        remedy: advice for the user, for messages.
        error: class of the exception to raise.

    Raises:
        InputError (or `error`): the text is not JSON; an object has a duplicate key; a number is not finite, or has
            more than 40 digits; the nesting is deeper than 64; a string holds NUL or a lone surrogate.

    >>> parse_json('{"a": [1, NaN]}', "x.json")
    Traceback (most recent call last):
    wesep_py.common.errors.InputError: x.json: is not JSON (NaN is no number); get a whole copy of it
    """
    if isinstance(text, bytes):
        text = decode_text(text, place, "JSON", error)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as problem:
        where = f"{place}:{problem.lineno}" if "\n" in text.strip() else place
        fault = "it is empty" if not text.strip() else f"{problem.msg} at column {problem.colno}"
        raise error(f"{where}: is not JSON ({fault}); {remedy}") from problem
    except RecursionError as problem:
        raise error(f"{place}: is nested more than {MAX_DEPTH} deep; {remedy}") from problem
    except ValueError as problem:  # from the hooks, and from Python itself for an integer of thousands of digits
        fault = str(problem) if isinstance(problem, _HookError) else f"a number has more than {MAX_DIGITS} digits"
        raise error(f"{place}: is not JSON ({fault}); {remedy}") from problem
    if (_SUSPICIOUS.search(text) or _may_be_deep(text)) and (fault := _fault(value)):
        raise error(f"{place}: {fault}; {remedy}")
    return value


def read_json(
    path: str | Path, what: str, remedy: str = "get a whole copy of it", error: type[InputError] = InputError
) -> Row:
    """Read a JSON file that holds an object.

    Args:
        path: the file.
        what: the kind of file, for messages: `"a summary"`.
        remedy: advice for a damaged file, for messages.
        error: class of the exception to raise.

    Raises:
        InputError (or `error`): as `read_text` and `parse_json`, or the value is not an object.
    """
    value = parse_json(read_text(path, what, error), str(path), remedy, error)
    if not isinstance(value, dict):
        raise error(f"{path}: holds {quoted(value, 40)}; an object {{…}} is needed: {remedy}")
    return Row(str(path), value)


def read_jsonl(
    path: str | Path, what: str, remedy: str = "one object a line is needed", may_end_early: bool = False
) -> list[Row]:
    """Read a file with one JSON object per line; blank lines are skipped.

    Args:
        path: the file.
        what: the kind of file, for messages.
        remedy: advice for a damaged file, for messages.
        may_end_early: for a file to which a run appends lines: drop an incomplete last line, which a killed run leaves,
            with a warning.

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
    """Yield the rows of JSONL that was not read from a local file; see `read_jsonl`.

    Args:
        lines: lines without line ends.
        place: the file, for messages.
        remedy: advice for the user, for messages.
    """
    for number, line in enumerate(lines, start=1):
        if line.strip():
            row = parse_object(line, f"{place}:{number}", remedy)
            yield Row(
                row.place, {name: value for name, value in row.values.items() if value is not None and value != ""}
            )


def parse_object(text: str | bytes, place: str, remedy: str = "one object a line is needed") -> Row:
    """Parse a JSON text that holds an object; see `parse_json`."""
    value = parse_json(text, place, remedy)
    if not isinstance(value, dict):
        raise InputError(f"{place}: is not a JSON object but {quoted(value, 40)}; {remedy}")
    return Row(place, value)


_NUL = "\ue000"
"""Private-use character that replaces NUL while a CSV is parsed."""


def read_csv(
    path: str | Path,
    what: str,
    columns: Iterable[str] = (),
    only: Collection[str] = (),
    hint: str = "quote a value with commas",
    may_be_short: bool = False,
    may_hold_nul: bool = False,
) -> list[Row]:
    """Read a CSV whose first line names its columns; blank lines are skipped.

    A value that contains a comma, a quote or a line end is in double quotes.

    Args:
        path: the file.
        what: the kind of file, for messages.
        columns: required columns.
        only: allowed columns; by default any.
        hint: advice for a line with too many values, for messages.
        may_be_short: allow lines without their last values, where these are optional.
        may_hold_nul: allow NUL bytes, for a file in which one bad line should not affect the others.

    Raises:
        InputError: the file is missing or empty, lacks a column or names it twice, a line has more or fewer values than
            there are columns, a value is longer than 131,072 characters, or a quote is not closed.
    """
    text = read_text(path, what, may_hold_nul=may_hold_nul).replace("\0", _NUL)  # Python 3.10's csv refuses NUL
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    table = _rows_of(reader, str(path))
    first, header = next(table, (1, []))
    header = [name.strip() for name in header]
    _check_header(header, f"{path}:{first}", columns, only)
    rows = []
    for line, values in table:
        place = f"{path}:{line}"
        if len(values) > len(header) or (len(values) < len(header) and not may_be_short):
            advice = hint if len(values) > len(header) else "the line is cut short, or lacks commas"
            raise InputError(f"{place}: has {len(values)} values for {len(header)} columns; {advice}")
        pairs = zip(header, (value.strip().replace(_NUL, "\0") for value in values), strict=False)
        rows.append(Row(place, {name: value for name, value in pairs if value and name}))
    return rows


def check_schema(
    value: Any, schema: Any, place: str, remedy: str = "get a whole copy of it", error: type[InputError] = InputError
) -> None:
    """Check that a JSON value has the keys and types of a schema; keys that are not in the schema are ignored.

    Args:
        value: as returned by `parse_json`.
        schema: one of

            - a type: `str`, `bool`, `float` (a finite number), `dict`, `list` or `object` (anything);
            - a range of integers, or `None`;
            - a tuple of schemas, one of which must match;
            - `[schema]`: a list whose items match;
            - a dictionary of schemas by key, where `"key?"` is optional and `...` matches all other keys.
        place: the file, for messages.
        remedy: advice for the user, for messages.
        error: class of the exception to raise.

    Raises:
        InputError (or `error`): the message names the key at fault.

    >>> check_schema({"counts": {"trials": -1}}, {"counts": {"trials": COUNT}}, "summary.json", "evaluate again")
    Traceback (most recent call last):
    wesep_py.common.errors.InputError: summary.json: counts.trials is -1; a whole number is needed: evaluate again
    """
    pending: list[tuple[Any, Any, str]] = [(value, schema, "")]
    while pending:
        item, expected, key = pending.pop()
        choices = expected if isinstance(expected, tuple) else (expected,)
        match = next((choice for choice in choices if _has_type(item, choice)), choices)
        if match is choices:
            types = " or ".join(map(_type_in_words, choices))
            subject = f"{shorten(key, 80)} is" if key else "is"
            raise error(f"{place}: {subject} {quoted(item, 60)}; {types} is needed: {remedy}")
        if isinstance(match, list):
            pending += [(inner, match[0], f"{key}[{number}]") for number, inner in enumerate(item)]
        elif isinstance(match, dict):
            named = {str(name).removesuffix("?"): (name, inner) for name, inner in match.items() if name is not ...}
            for bare, (name, inner) in named.items():
                path = f"{key}.{bare}" if key else bare
                if bare in item:
                    pending.append((item[bare], inner, path))
                elif name == bare:
                    raise error(f"{place}: {shorten(path, 80)} is missing: {remedy}")
            if ... in match:
                pending += [(item[name], match[...], f"{key}.{name}") for name in item if name not in named]


def _has_type(item: Any, schema: Any) -> bool:
    """Return whether a value has the type of a schema, without looking into lists and objects."""
    if schema is object:
        return True
    if schema is float:
        return isinstance(item, (int, float)) and not isinstance(item, bool) and abs(item) <= MAX_NUMBER
    if isinstance(schema, range):
        return isinstance(item, int) and not isinstance(item, bool) and item in schema
    if isinstance(schema, (list, dict)):
        return isinstance(item, type(schema))
    return item is None if schema is None else isinstance(item, schema)


def _type_in_words(schema: Any) -> str:
    """Return the type of a schema in words, for messages."""
    names: dict[Any, str] = {
        str: "a string",
        bool: "true or false",
        float: "a number",
        None: "null",
        list: "a list",
        dict: "an object",
    }
    if isinstance(schema, range):
        return "a whole number"
    return names[type(schema) if isinstance(schema, (list, dict)) else schema]


def _rows_of(reader: Any, place: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank, each with the number of its last line."""
    while True:
        begin = reader.line_num + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as problem:
            fault = str(problem)
            if "end of data" in fault:
                fault = "a quote is not closed"
            elif "field larger" in fault:
                fault = f"a value has over {MAX_VALUE:,} characters"
            raise InputError(
                f"{place}:{begin}: is not a row of a CSV ({fault}); close each quote, and double quotes inside a value"
            ) from problem
        if any(value.strip() for value in values) or len(values) > 1:
            yield reader.line_num, values


def _check_header(header: list[str], place: str, columns: Iterable[str], only: Collection[str]) -> None:
    """Check the column names of a CSV; see `read_csv`."""
    unknown = next((name for name in header if name not in only), None) if only and len(header) > 1 else None
    if unknown is not None:
        raise InputError(f"{place}: has a column {quoted(unknown)}; {nearest(unknown, only)}")
    for name in columns:
        if name not in header:
            separators = {";": "semicolons", "\t": "tabs"} if len(header) == 1 else {}
            other = next((words for mark, words in separators.items() if mark in header[0]), None)
            if other:
                raise InputError(f"{place}: is separated by {other}; separate {', '.join(columns)} by commas")
            raise InputError(f"{place}: has no column {name!r}; {nearest(name, header)}")
    duplicate = next((name for number, name in enumerate(header) if name and name in header[:number]), None)
    if duplicate is not None:
        raise InputError(f"{place}: names the column {quoted(duplicate)} twice; rename or remove one")


# Strictness that Python's JSON parser lacks.


class _HookError(ValueError):
    """Fault that a hook of the JSON parser detects."""


def _no_constant(name: str) -> NoReturn:
    """Refuse `NaN` and `Infinity`."""
    raise _HookError(f"{name} is no number")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object, and refuse duplicate keys."""
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _HookError(f"the key {quoted(name)} comes twice")
            seen.add(name)
    return mapping


_DECODER = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_unique_keys)


def _may_be_deep(text: str) -> bool:
    """Return whether lists and objects may be nested too deep; brackets inside strings can give a false `True`."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    brackets = _NO_BRACKET.sub("", text)
    for _ in range(MAX_DEPTH):  # each pass removes the innermost level
        brackets = brackets.replace("[]", "").replace("{}", "")
        if not brackets:
            return False
    return True


def _fault(value: Any) -> str | None:
    """Return the key of an unusable value and its fault, in words; `None` if there is none."""
    pending: list[tuple[Any, str, int]] = [(value, "", 1)]
    while pending:
        item, key, depth = pending.pop()
        subject = shorten(key, 80) or "it"
        if isinstance(item, (dict, list)) and depth > MAX_DEPTH:
            return f"is nested more than {MAX_DEPTH} deep"
        if isinstance(item, dict):
            for name, inner in item.items():
                if not _is_text(name):
                    return f"{subject} has a key with a lone surrogate or NUL, {quoted(name)}"
                pending.append((inner, f"{key}.{name}" if key else name, depth + 1))
        elif isinstance(item, list):
            pending += [(inner, f"{key}[{number}]", depth + 1) for number, inner in enumerate(item)]
        elif isinstance(item, str) and not _is_text(item):
            return f"{subject} holds a lone surrogate or NUL, {quoted(item)}"
        elif isinstance(item, float) and not math.isfinite(item):
            return f"{subject} is a number that is too large"
        elif isinstance(item, int) and abs(item) >= 10**MAX_DIGITS:
            return f"{subject} is a number of more than {MAX_DIGITS} digits"
    return None


def _is_text(text: str) -> bool:
    """Return whether a string holds neither NUL nor lone surrogates."""
    return "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)
