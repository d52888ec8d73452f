from __future__ import annotations

from pathlib import Path

import pytest

from wesep_py.common.errors import InputError
from wesep_py.common.textfiles import Row, open_lines, read_csv, read_jsonl


def test_rows_know_their_lines_and_leave_out_empty_values(tmp_path: Path):
    (tmp_path / "t.csv").write_text('a, b\n1,\n\n"x, y",2\n')
    rows = read_csv(tmp_path / "t.csv", "a table")
    assert [(Path(row.place).name, row.values) for row in rows] == [
        ("t.csv:2", {"a": "1"}),
        ("t.csv:4", {"a": "x, y", "b": "2"}),
    ]


def test_jsonl_rows_know_their_lines(tmp_path: Path):
    (tmp_path / "t.jsonl").write_text('\n{"a": 1, "b": null}\n')
    (row,) = read_jsonl(tmp_path / "t.jsonl", "a table")
    assert Path(row.place).name == "t.jsonl:2"
    assert row.number("a") == 1.0
    assert row.optional_number("b") is None


@pytest.mark.parametrize("value", ["nan", "inf", "1,5", "x"])
def test_a_value_that_is_no_finite_number_is_named(value: str):
    with pytest.raises(InputError, match=f"t:3: gain is '{value}'; a number is needed"):
        Row("t:3", {"gain": value}).number("gain")


def test_a_missing_field_is_named_with_the_nearest():
    with pytest.raises(InputError, match=r"t:1: duration_s is missing; did you mean 'duration'\?"):
        Row("t:1", {"duration": "1"}).number("duration_s")


def test_a_folder_in_the_place_of_a_list_is_named(tmp_path: Path):
    with pytest.raises(InputError, match="is a folder; give the path of a map_mixture2enrollment"):
        open_lines(tmp_path, "a map_mixture2enrollment")
