"""Damaged files of text and weights, for the tests of all readers: faults by people, editors, disks and attackers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from wesep_py.common.errors import WesepError

hundred = settings(
    max_examples=100,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
"""Settings of a test with a hundred mutations, which are the same in each run."""

VALUES: list[Any] = [
    None, True, False, -1, 0, 10**18, 10**39, -(10**15), 1e300, -1e-300, 2.5, "", " ", "x", "1", "-", "nan", "1e999",
    "a\\b", "../../x", "/etc/passwd", "é" * 300, "x" * 20_000, [], [1], [[1]], {}, {"a": 1}, ["a", None],
]  # fmt: skip
RAW = [
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"9" * 5000, b"[" * 5000, b'{"a":' * 3000, b'"\\ud800"', b'"\\u0000"',
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r\n", b"\n", b'"', b",", b";", b"\t", b"\x1b[31m", b"\xe2\x80\xa8",
    b"0" * 200_000, b"\xed\xa0\x80", b"{}", b"[]", b"null", b"'", b"#", b"\\",
]  # fmt: skip


@st.composite
def damaged_bytes(draw: st.DrawFn, whole: bytes) -> bytes:
    """Draw a copy of a file with one fault: cut short, a changed byte, inserted bytes, a lost or repeated segment."""
    kind = draw(st.sampled_from(["cut", "flip", "put", "replace", "drop", "twice"]))
    begin = draw(st.integers(0, max(0, len(whole) - 1)))
    end = min(len(whole), begin + draw(st.integers(1, 40)))
    if kind == "cut":
        return whole[:begin]
    if kind == "flip":
        return whole[:begin] + bytes([whole[begin] ^ draw(st.integers(1, 255))]) + whole[begin + 1 :]
    if kind == "drop":
        return whole[:begin] + whole[end:]
    if kind == "twice":
        return whole[:end] + whole[begin:]
    raw = draw(st.sampled_from(RAW))
    return whole[:begin] + raw + whole[begin if kind == "put" else end :]


@st.composite
def damaged_object(draw: st.DrawFn, value: Any) -> Any:
    """Draw a copy of a JSON value in which one value, at any depth, is another, missing, or under another key."""
    places = list(_places(value))
    *above, last = draw(st.sampled_from(places))
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in above:
        inner = inner[key]
    kind = draw(st.sampled_from(["other", "other", "other", "missing", "renamed"]))
    if kind == "other":
        inner[last] = draw(st.sampled_from(VALUES))
    else:
        old = inner.pop(last)
        if kind == "renamed" and isinstance(inner, dict):
            inner[draw(st.sampled_from(["x", "", "é", "values", "__class__"]))] = old
    return copy


def _places(value: Any) -> list[list[Any]]:
    """Return the path, as a list of keys and indices, of every value inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    places: list[list[Any]] = []
    for key, inner in items:
        places += [[key], *([key, *below] for below in _places(inner))]
    return places


def value_or_line(read: Callable[[], Any], path: Path) -> Any:
    """Return what is read, or `None` after an error of one line, of bounded length, that names the file."""
    try:
        return read()
    except WesepError as error:
        line = str(error)
        assert path.name in line or str(path.parent) in line, line
        assert len(line) < 800 and "\n" not in line, line
        assert not re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", line), ascii(line)
        return None
