from __future__ import annotations

from pathlib import Path

import pytest

from tests.recipes.miniature_meetings import MEETING_S, TURNS, make_libricss
from wesep_py.common.errors import InputError
from wesep_py.data.meetings.libricss import read_libricss

INFO = "OV20/overlap_ratio_20.0_sil0.1_1.0_session1_actual20.5/transcription/meeting_info.txt"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_libricss(tmp_path)


def test_sessions_and_their_utterances_are_read(folder: Path):
    meetings = read_libricss(folder.parent)
    assert [meeting.meeting_id for meeting in meetings] == ["0S_session0", "OV20_session1"]
    assert [meeting.groups for meeting in meetings] == [{"condition": "0S"}, {"condition": "OV20"}]
    utterances = [(int(s.speaker_id) - 1000, s.start_s, s.end_s) for s in meetings[1].spoken]
    assert utterances == list(TURNS) and meetings[1].duration_s == MEETING_S
    assert meetings[1].spoken[0].text.startswith("WORD1X5 WORD1X10")
    assert [meeting.meeting_id for meeting in read_libricss(folder, [1])] == ["OV20_session1"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1.0\t2.0\t61\tX", "meeting_info.txt:2: has 4 fields"),
        ("2.0\t1.0\t61\tX\tSO", "is from '2.0' to '1.0'; rising times are needed"),
        ("a\t1.0\t61\tX\tSO", "is from 'a'"),
    ],
)
def test_a_damaged_line_is_named(folder: Path, line: str, message: str):
    (folder / INFO).write_text("start_time\tend_time\tspeaker\tutterance_id\ttranscription\n" + line + "\n")
    with pytest.raises(InputError, match=message):
        read_libricss(folder)


def test_another_folder_is_refused(tmp_path: Path, folder: Path):
    with pytest.raises(InputError, match="give the folder for_release"):
        read_libricss(tmp_path / "for_release/0S")
    (folder / INFO).write_text("start_time\tend_time\tspeaker\tutterance_id\ttranscription\n")
    with pytest.raises(InputError, match="names no utterance"):
        read_libricss(folder)


def test_lists_are_written_by_the_command(folder: Path, tmp_path: Path, wesep):
    ran = wesep(
        "prepare", "libricss", folder, "--unit", "utterance", "--sessions", "1", "--no-absent", "-o", tmp_path / "l"
    )
    # All utterances but that of the third speaker, of whom nothing is left for an enrollment.
    assert ran.status == 0 and "6 mixtures, 6 trials, 0 of them" in ran.out, ran.err
    assert "--sessions one: numbers" in wesep("prepare", "libricss", folder, "--sessions", "one", "-o", "x").message
