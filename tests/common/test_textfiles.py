"""Readers of JSON, JSONL, CSV and lists report each fault in one line with file and line number."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from wesep_py.common.errors import CheckpointError, InputError
from wesep_py.common.textfiles import (
    MAX_DEPTH,
    Row,
    open_lines,
    parse_json,
    parse_lines,
    read_csv,
    read_json,
    read_jsonl,
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"f\.json: is not JSON \(it is empty\)"),
        ('{"a": 1, "a": 2}', r"the key 'a' comes twice"),
        ("[NaN]", r"NaN is no number"),
        ("[1, -Infinity]", r"-Infinity is no number"),
        ('{"a": {"b": [0, 1e999]}}', r"f\.json: a\.b\[1\] is a number that is too large"),
        ("[" * 100_000, rf"is nested more than {MAX_DEPTH} deep"),
        ("[" * 65 + "]" * 65, rf"is nested more than {MAX_DEPTH} deep"),
        ('{"a":' * 65 + "1" + "}" * 65, rf"is nested more than {MAX_DEPTH} deep"),
        ('{"a": ' + "9" * 5000 + "}", r"a number has more than 40 digits"),
        ('{"a": -' + "9" * 41 + "}", r"a is a number of more than 40 digits"),
        (r'{"a": {"b": "\ud800"}}', r"a\.b holds a lone surrogate or NUL"),
        (r'{"a": "x\u0000"}', r"a holds a lone surrogate or NUL"),
        (r'{"\udfff": 1}', r"has a key with a lone surrogate or NUL"),
        ('{"a": 1}}', r"Extra data at column 9"),
        ("{\n 1: 2}", r"f\.json:2: is not JSON"),
        (b'{"a": "\xff"}', r"f\.json:1: is not UTF-8 text \(byte 0xff\)"),
        (b'{"a":\n "\0"}', r"f\.json:2: holds a NUL byte"),
        ("{}".encode("utf-16"), r"is UTF-16"),
    ],
)
def test_json_that_parsers_read_differently_is_refused(text: str | bytes, message: str):
    with pytest.raises(InputError, match=message) as caught:
        parse_json(text, "f.json")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "value",
    ["[]", '"[[[[' + "[" * 100 + '"', "[" * 64 + "]" * 64, "1e300", "9" * 40, r'"é\u00e9\ud83d\ude00"', "[[], [], {}]"],
)
def test_other_json_is_accepted(value: str):
    parse_json(value, "f.json")


def test_read_json_needs_an_object(tmp_path: Path):
    (tmp_path / "f.json").write_text("[1, 2]")
    with pytest.raises(CheckpointError, match=r"f\.json: holds \[1, 2\]; an object \{…\} is needed: save it again"):
        read_json(tmp_path / "f.json", "a summary", "save it again", CheckpointError)
    (tmp_path / "f.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "f.json", "a summary").values == {"a": 1}


@pytest.mark.parametrize("name", ["", "missing", "m" * 300, "f.json/below", "nul\0"])
def test_errors_name_a_file_that_cannot_be_opened(tmp_path: Path, name: str):
    (tmp_path / "f.json").touch()
    with pytest.raises(InputError, match="give the path of a list"):
        open_lines(tmp_path / name, "a list")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="a device that never ends is POSIX")
def test_an_endless_device_is_refused():
    with pytest.raises(InputError, match="is no regular file"):
        open_lines("/dev/zero", "a list")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_errors_name_a_file_without_permission(tmp_path: Path):
    (tmp_path / "f").touch(mode=0)
    with pytest.raises(InputError, match="cannot be read"):
        open_lines(tmp_path / "f", "a list")


def test_lines_end_only_at_line_feeds(tmp_path: Path):
    (tmp_path / "f").write_bytes("\ufeffa\x0b b\r\nc\u2028d\n".encode())
    assert open_lines(tmp_path / "f", "a list") == ["a\x0b b", "c\u2028d", ""]


def test_errors_name_the_line_of_a_jsonl():
    with pytest.raises(InputError, match=r"f\.jsonl:3: is not a JSON object but \[1\]"):
        list(parse_lines(["{}", "", "[1]"], "f.jsonl"))


def test_an_incomplete_last_line_is_dropped_if_allowed(tmp_path: Path):
    (tmp_path / "f.jsonl").write_text('{"a": 1}\n{"a": 2}\n{"a": ')
    with pytest.raises(InputError, match=r"f\.jsonl:3: is not JSON"):
        read_jsonl(tmp_path / "f.jsonl", "a log")
    with pytest.warns(UserWarning, match=r"f\.jsonl:3: .* cut short, and is left out"):
        assert [row.values["a"] for row in read_jsonl(tmp_path / "f.jsonl", "a log", may_end_early=True)] == [1, 2]
    (tmp_path / "f.jsonl").write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(InputError, match=r"f\.jsonl:2: is not JSON"):
        read_jsonl(tmp_path / "f.jsonl", "a log", may_end_early=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"t\.csv:1: has no column 'a'"),
        ("a\n", r"t\.csv:1: has no column 'b'"),
        ("a;b\n1;2\n", r"t\.csv:1: is separated by semicolons; separate a, b by commas"),
        ("a\tb\n1\t2\n", r"is separated by tabs"),
        ("a,b,a\n1,2,3\n", r"t\.csv:1: names the column 'a' twice"),
        ("a,b\n1,2\n1\n", r"t\.csv:3: has 1 values for 2 columns; the line is cut short"),
        ("a,b\n1,2,3\n", r"t\.csv:2: has 3 values for 2 columns; quote a value with commas"),
        ('a,b\n1,2\n"3,4\n5,6\n', r"t\.csv:3: is not a row of a CSV \(a quote is not closed\)"),
        ('a,b\n"1"2,3\n', r"t\.csv:2: is not a row of a CSV"),
        ("a,b\n1," + "2" * 200_000 + "\n", r"t\.csv:2: .* over 131,072 characters"),
        ("a,b\n1,2\0\n", r"t\.csv:2: holds a NUL byte"),
    ],
)
def test_an_ambiguous_csv_is_refused(tmp_path: Path, text: str, message: str):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_csv(tmp_path / "t.csv", "a table", columns=("a", "b"))
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_values_may_contain_line_ends(tmp_path: Path, end: str):
    text = end.join(["a, b,", '1, "x', 'y, z",', "", ' , ,"q ""r"""', "3,,"])
    (tmp_path / "t.csv").write_bytes(text.encode("utf-8-sig"))
    rows = read_csv(tmp_path / "t.csv", "a table", columns=("a", "b"))
    assert [row.values for row in rows] == [{"a": "1", "b": f"x{end}y, z"}, {}, {"a": "3"}]
    assert [row.place.rpartition(":")[2] for row in rows] == ["3", "5", "6"]


@pytest.mark.parametrize("value", [True, "1_000", "٣", "nan", math.nan, [1], {}, "0x10", "1 2"])
def test_values_that_only_look_like_numbers_are_refused(value):
    with pytest.raises(InputError, match=r"t:3: gain is .*; a number is needed"):
        Row("t:3", {"gain": value}).number("gain")


@pytest.mark.parametrize(("value", "number"), [("1", 1.0), (" -2.5e-3 ", -0.0025), (".5", 0.5), (3, 3.0), ("+1.", 1.0)])
def test_strings_are_read_as_numbers(value, number: float):
    assert Row("t:3", {"gain": value}).number("gain") == number


def test_numbers_above_the_limit_are_refused():
    for value in ("1e300", "1e999", 10**40, -1e16):
        with pytest.raises(InputError, match=r"t:3: gain is .*; at most 1e\+15 is allowed"):
            Row("t:3", {"gain": value}).number("gain")


def test_fields_have_the_type_that_is_read():
    row = Row("f.json", {"count": 1.5, "minus": -1, "flag": True, "list": [1], "inner": {"list": [{"a": ""}]}, "n": 7})
    assert row.whole("n") == 7 and row.text("n") == "7"
    assert row.row("inner").rows("list")[0].place == "f.json: inner: list[0]"
    for read, message in (
        (lambda: row.whole("count"), "count is 1.5; a whole number of at least 0 is needed"),
        (lambda: row.whole("minus"), "minus is -1; a whole number of at least 0 is needed"),
        (lambda: row.whole("cuont"), "cuont is missing; did you mean 'count'"),
        (lambda: row.text("flag"), "flag is True; a string is needed"),
        (lambda: row.row("list"), r"list is \[1\]; an object \{…\} is needed"),
        (lambda: row.rows("list"), r"list\[0\] is 1; an object \{…\} is needed"),
        (lambda: row.items("inner"), r"inner is \{.*\}; a list \[…\] is needed"),
        (lambda: row.row("inner").rows("list")[0].text("a"), r"f\.json: inner: list\[0\]: a is missing"),
    ):
        with pytest.raises(InputError, match=message):
            read()


def test_long_values_make_short_error_lines():
    for value in ("x" * 10**6, list(range(10**5)), 10**5000, {"a": {"b": ["c" * 1000] * 1000}}):
        with pytest.raises(InputError) as caught:
            Row("f.json", {"a": value}).number("a")
        assert len(str(caught.value)) < 300
