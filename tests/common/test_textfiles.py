"""The one reader of JSON, JSONL, CSV and lists: what is wrong is said in one line, with file and place."""

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
    ("text", "told"),
    [
        ("", r"f\.json: is not JSON \(it is empty\)"),
        ('{"a": 1, "a": 2}', r"the key 'a' comes twice"),
        ("[NaN]", r"NaN is no number"),
        ("[1, -Infinity]", r"-Infinity is no number"),
        ('{"a": {"b": [0, 1e999]}}', r"f\.json: a\.b\[1\] is a number beyond all bounds"),
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
def test_json_that_no_computer_reads_alike_is_refused(text: str | bytes, told: str):
    with pytest.raises(InputError, match=told) as caught:
        parse_json(text, "f.json")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "value",
    ["[]", '"[[[[' + "[" * 100 + '"', "[" * 64 + "]" * 64, "1e300", "9" * 40, r'"é\u00e9\ud83d\ude00"', "[[], [], {}]"],
)
def test_all_other_json_is_taken(value: str):
    parse_json(value, "f.json")


def test_an_object_is_needed_where_fields_are_read(tmp_path: Path):
    (tmp_path / "f.json").write_text("[1, 2]")
    with pytest.raises(CheckpointError, match=r"f\.json: holds \[1, 2\]; an object \{…\} is needed: save it again"):
        read_json(tmp_path / "f.json", "a summary", "save it again", CheckpointError)
    (tmp_path / "f.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "f.json", "a summary").values == {"a": 1}


@pytest.mark.parametrize("name", ["", "missing", "m" * 300, "f.json/below", "nul\0"])
def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path, name: str):
    (tmp_path / "f.json").touch()
    with pytest.raises(InputError, match="give the path of a list"):
        open_lines(tmp_path / name, "a list")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="a device that never ends is POSIX")
def test_a_device_that_never_ends_is_no_file():
    with pytest.raises(InputError, match="is no regular file"):
        open_lines("/dev/zero", "a list")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path: Path):
    (tmp_path / "f").touch(mode=0)
    with pytest.raises(InputError, match="cannot be read"):
        open_lines(tmp_path / "f", "a list")


def test_lines_end_at_line_feeds_only(tmp_path: Path):
    (tmp_path / "f").write_bytes("\ufeffa\x0b b\r\nc\u2028d\n".encode())
    assert open_lines(tmp_path / "f", "a list") == ["a\x0b b", "c\u2028d", ""]


def test_jsonl_names_the_line_of_what_is_no_object():
    with pytest.raises(InputError, match=r"f\.jsonl:3: is not a JSON object but \[1\]"):
        list(parse_lines(["{}", "", "[1]"], "f.jsonl"))


def test_a_last_line_that_was_cut_short_is_left_out_where_files_grow(tmp_path: Path):
    (tmp_path / "f.jsonl").write_text('{"a": 1}\n{"a": 2}\n{"a": ')
    with pytest.raises(InputError, match=r"f\.jsonl:3: is not JSON"):
        read_jsonl(tmp_path / "f.jsonl", "a log")
    with pytest.warns(UserWarning, match=r"f\.jsonl:3: .* cut short, and is left out"):
        assert [row.values["a"] for row in read_jsonl(tmp_path / "f.jsonl", "a log", may_end_early=True)] == [1, 2]
    (tmp_path / "f.jsonl").write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(InputError, match=r"f\.jsonl:2: is not JSON"):
        read_jsonl(tmp_path / "f.jsonl", "a log", may_end_early=True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", r"t\.csv:1: has no column 'a'"),
        ("a\n", r"t\.csv:1: has no column 'b'"),
        ("a;b\n1;2\n", r"t\.csv:1: is parted by semicolons; part the columns a, b by commas"),
        ("a\tb\n1\t2\n", r"is parted by tabs"),
        ("a,b,a\n1,2,3\n", r"t\.csv:1: names the column 'a' twice"),
        ("a,b\n1,2\n1\n", r"t\.csv:3: has 1 values for 2 columns; the line is cut short"),
        ("a,b\n1,2,3\n", r"t\.csv:2: has 3 values for 2 columns; quote a value with commas"),
        ('a,b\n1,2\n"3,4\n5,6\n', r"t\.csv:3: is no row of a CSV \(a quote is left open\)"),
        ('a,b\n"1"2,3\n', r"t\.csv:2: is no row of a CSV"),
        ("a,b\n1," + "2" * 200_000 + "\n", r"t\.csv:2: .* over 131,072 characters"),
        ("a,b\n1,2\0\n", r"t\.csv:2: holds a NUL byte"),
    ],
)
def test_a_csv_that_can_be_read_two_ways_is_refused(tmp_path: Path, text: str, told: str):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=told) as caught:
        read_csv(tmp_path / "t.csv", "a table", columns=("a", "b"))
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_values_may_hold_the_end_of_a_line(tmp_path: Path, end: str):
    text = end.join(["a, b,", '1, "x', 'y, z",', "", ' , ,"q ""r"""', "3,,"])
    (tmp_path / "t.csv").write_bytes(text.encode("utf-8-sig"))
    rows = read_csv(tmp_path / "t.csv", "a table", columns=("a", "b"))
    assert [row.values for row in rows] == [{"a": "1", "b": f"x{end}y, z"}, {}, {"a": "3"}]
    assert [row.place.rpartition(":")[2] for row in rows] == ["3", "5", "6"]


@pytest.mark.parametrize("value", [True, "1_000", "٣", "nan", math.nan, [1], {}, "0x10", "1 2"])
def test_what_only_looks_like_a_number_is_named(value):
    with pytest.raises(InputError, match=r"t:3: gain is .*; a number is needed"):
        Row("t:3", {"gain": value}).number("gain")


@pytest.mark.parametrize(("value", "number"), [("1", 1.0), (" -2.5e-3 ", -0.0025), (".5", 0.5), (3, 3.0), ("+1.", 1.0)])
def test_numbers_may_be_texts(value, number: float):
    assert Row("t:3", {"gain": value}).number("gain") == number


def test_a_number_that_no_recording_has_is_named():
    for value in ("1e300", "1e999", 10**40, -1e16):
        with pytest.raises(InputError, match=r"t:3: gain is .*; at most 1e\+15 is allowed"):
            Row("t:3", {"gain": value}).number("gain")


def test_fields_are_of_their_kinds():
    row = Row("f.json", {"count": 1.5, "minus": -1, "flag": True, "list": [1], "inner": {"list": [{"a": ""}]}, "n": 7})
    assert row.whole("n") == 7 and row.text("n") == "7"
    assert row.row("inner").rows("list")[0].place == "f.json: inner: list[0]"
    for read, told in (
        (lambda: row.whole("count"), "count is 1.5; a whole number of at least 0 is needed"),
        (lambda: row.whole("minus"), "minus is -1; a whole number of at least 0 is needed"),
        (lambda: row.whole("cuont"), "cuont is missing; did you mean 'count'"),
        (lambda: row.text("flag"), "flag is True; a text is needed"),
        (lambda: row.row("list"), r"list is \[1\]; an object \{…\} is needed"),
        (lambda: row.rows("list"), r"list\[0\] is 1; an object \{…\} is needed"),
        (lambda: row.items("inner"), r"inner is \{.*\}; a list \[…\] is needed"),
        (lambda: row.row("inner").rows("list")[0].text("a"), r"f\.json: inner: list\[0\]: a is missing"),
    ):
        with pytest.raises(InputError, match=told):
            read()


def test_a_value_of_any_length_makes_a_short_line():
    for value in ("x" * 10**6, list(range(10**5)), 10**5000, {"a": {"b": ["c" * 1000] * 1000}}):
        with pytest.raises(InputError) as caught:
            Row("f.json", {"a": value}).number("a")
        assert len(str(caught.value)) < 300
