from __future__ import annotations

from pathlib import Path

import pytest

from wesep_py.common.errors import InputError
from wesep_py.data import read_speakers, speaker_of


def test_gender_and_age_are_read_from_a_csv_of_utterances(tmp_path: Path):
    (tmp_path / "s.csv").write_text("utterance_id,speaker_id,gender,age\n1,anna,f,6\n2,anna,f,6\n3,bert,m,\n4,cleo,,\n")
    assert read_speakers(tmp_path / "s.csv") == {"anna": ("f", 6.0), "bert": ("m", None), "cleo": (None, None)}


def test_what_one_line_leaves_empty_another_may_say(tmp_path: Path):
    (tmp_path / "s.csv").write_text("speaker_id,gender,age\nanna,f,\nanna,,6\n")
    speakers = read_speakers(tmp_path / "s.csv")
    assert speakers["anna"].gender == "f"
    assert speakers["anna"].age == 6.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("speaker_id,gender\nanna,f\nanna,m\n", r"s\.csv:3: gender of 'anna' is 'm', and 'f' in a line before"),
        ("speaker_id,age\nanna,young\n", r"s\.csv:2: age is 'young'"),
        ("name,age\nanna,6\n", "has no column 'speaker_id'"),
        ("speaker_id,age\n", "names no speaker"),
    ],
)
def test_a_table_that_makes_no_sense_is_named(tmp_path: Path, content: str, message: str):
    (tmp_path / "s.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        read_speakers(tmp_path / "s.csv")


@pytest.mark.parametrize(
    ("utterance_id", "speakers", "expected"),
    [
        ("84-121123-0000", (), "84"),
        ("84-121123-0000", {"84", "84-121123"}, "84-121123"),
        ("84-121123-0000", {"8", "99"}, "84"),
        ("anna_1", {"anna", "ann"}, "anna"),
        ("anna", {"anna"}, "anna"),
        ("anna_1", (), None),
        ("-1", (), None),
    ],
)
def test_the_speaker_is_told_by_the_id(utterance_id: str, speakers: set[str], expected: str | None):
    assert speaker_of(utterance_id, speakers) == expected


def test_the_speakers_of_the_shared_data(shared_data: Path):
    speakers = read_speakers(shared_data / "speech/dev.csv")
    assert len(speakers) == 25
    assert speakers["so0093"] == ("f", 6.0)
