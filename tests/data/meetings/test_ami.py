from __future__ import annotations

from pathlib import Path

import pytest

from tests.recipes.miniature_meetings import MEETING_S, TURNS, make_ami
from wesep_py.common.errors import InputError
from wesep_py.data.meetings.ami import MEETINGS, read_ami

WORDS = "ami_public_manual_1.6.2/words/ES2004a.A.words.xml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_ami(tmp_path)


def test_words_are_read_and_other_sounds_are_not(folder: Path):
    skipped: list[str] = []
    (meeting,) = read_ami(folder, on_skip=skipped.append)
    assert (meeting.meeting_id, meeting.duration_s, meeting.groups) == ("ES2004a", MEETING_S, {"site": "ES"})
    assert meeting.path.name == "ES2004a.Mix-Headset.wav" and len(skipped) == len(MEETINGS["test"]) - 1
    names = {1: "MEE001", 2: "FEE002", 3: "MEO003"}
    for number, name in names.items():
        # The laughter from 20 to 24 s is no word.
        assert meeting.speech[name] == [(s, e) for speaker, s, e in TURNS if speaker == number]
    assert [word.text for word in meeting.spoken_by["MEO003"][:2]] == ["word3x260", "word3x265"]


def test_activity_may_come_from_rttm_files(folder: Path):
    path = folder / "rttms/ES2004a.rttm"
    path.write_text(
        "SPEAKER ES2004a 1 2.0 1.5 <NA> <NA> MEE001 <NA> <NA>\nSPEAKER ES2004a 1 5 1 <NA> <NA> B <NA> <NA>\n"
    )
    (meeting,) = read_ami(folder, names=["ES2004a"], microphone="Array1-01", rttm=folder / "rttms")
    assert meeting.speech == {"MEE001": [(2.0, 3.5)], "FEE002": [(5.0, 6.0)]}
    path.write_text("SPEAKER ES2004a 1 2.0 1.5 <NA> <NA> X <NA> <NA>\n")
    with pytest.raises(InputError, match=r"ES2004a.rttm:1: .* a participant of ES2004a are needed \(MEE001, FEE002"):
        read_ami(folder, names=["ES2004a"], rttm=folder / "rttms")


def test_a_word_without_times_is_said_after_the_one_before(folder: Path):
    path = folder / WORDS
    text = path.read_text().replace(' starttime="1.00" endtime="1.50"', "")
    path.write_text(text.replace("ISO-8859-1", "UTF-8"))
    (meeting,) = read_ami(folder, names=["ES2004a"])
    second = meeting.spoken_by["MEE001"][1]
    assert (second.start_s, second.end_s, second.text) == (1.0, 1.0, "word1x10")
    path.write_text(text.replace('endtime="2.00"', 'endtime="1.2"'))
    (meeting,) = read_ami(folder, names=["ES2004a"])
    assert (1.5, 1.5) in [(word.start_s, word.end_s) for word in meeting.spoken_by["MEE001"]]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (WORDS, "</nite:root>", "", "words.xml: is not well-formed XML"),
        (WORDS, 'starttime="1.00"', 'starttime="x"', "word ES2004a.A.words1 is from 'x' to '1.50'"),
        (WORDS, 'starttime="1.00"', 'starttime="-1"', "is from '-1' to '1.50'; seconds are needed"),
        ("ami_public_manual_1.6.2/corpusResources/meetings.xml", "nxt_agent", "agent", "a speaker no nxt_agent"),
        ("ami_public_manual_1.6.2/corpusResources/meetings.xml", "meeting ", "m ", "not well-formed"),
    ],
)
def test_damaged_annotations_are_a_one_line_error(folder: Path, file: str, old: str, new: str, message: str):
    path = folder / file
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        read_ami(folder, names=["ES2004a"])


def test_missing_parts_of_the_corpus_are_named(folder: Path, tmp_path: Path):
    with pytest.raises(InputError, match="holds no meeting such as amicorpus/ES2004a"):
        read_ami(folder, names=["IS1009a"])
    (folder / WORDS).unlink()
    with pytest.raises(InputError, match="cannot be read"):
        read_ami(folder, names=["ES2004a"])
    with pytest.raises(InputError, match=r"meetings\.xml: cannot be read"):
        read_ami(tmp_path / "amicorpus")


def test_lists_are_written_by_the_command(folder: Path, tmp_path: Path, wesep):
    ran = wesep("prepare", "ami", folder, "--meetings", "ES2004a", "--window", 20, "-o", tmp_path / "list")
    assert ran.status == 0 and "2 mixtures, 4 trials, 1 of them with an absent target" in ran.out, ran.err
    ran = wesep("prepare", "ami", folder, "-o", tmp_path / "all", "--json")
    assert ran.status == 1 and "left out: TS3003d: meetings.xml does not name it" in ran.err
