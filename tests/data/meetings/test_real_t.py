from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.recipes.miniature_meetings import make_real_t
from wesep_py.common.errors import InputError
from wesep_py.data.meetings.real_t import read_real_t
from wesep_py.data.trials import ABSENT

RECORDS = "DEV/json/AMI/overlap_records.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_real_t(tmp_path)


def test_its_own_trials_labels_and_transcripts_are_read(folder: Path):
    data = read_real_t(folder)
    assert len(data.mixtures) == 3 and data.unlabelled == 0
    assert data.mixtures[0].activity == {"FEE041": [(0.5, 5.0)], "MEE042": [(4.0, 8.5)]}
    assert data.mixtures[2].groups == {"corpus": "AliMeeting", "language": "zh"}
    present = [trial for trial in data.trials if trial.target != ABSENT]
    assert [(trial.target, trial.transcript) for trial in present[::3]] == [
        ("FEE041", "Well, I'd say (uh) twenty-one."), ("FIE081", "No, it isn't."),
    ]  # fmt: skip
    assert all(Path(trial.enrollment).is_file() and trial.target in trial.enrollment for trial in present)


def test_absent_speakers_are_of_other_sessions_of_the_corpus(folder: Path):
    absent = {t.mixture_id: Path(t.enrollment).name for t in read_real_t(folder).trials if t.target == ABSENT}
    # The only session of AliMeeting has no other session to take a speaker from.
    assert absent == {
        "ES2011a_mixture_100.00_109.00": "IS1008b_MIO018_10.00_15.00.wav",
        "IS1008b_mixture_101.00_110.00": "ES2011a_MEE042_10.00_15.00.wav",
    }
    assert all(trial.target != ABSENT for trial in read_real_t(folder, absent=False).trials)


def test_one_language_can_be_chosen(folder: Path):
    data = read_real_t(folder, "zh")
    assert {mixture.groups["language"] for mixture in data.mixtures} == {"zh"} and len(data.trials) == 2
    with pytest.raises(InputError, match="no trial in the language 'de'"):
        read_real_t(folder, "de")


def test_a_set_without_records_has_no_labels(folder: Path):
    for path in (folder / "DEV/json").rglob("*.json"):
        path.unlink()
    data = read_real_t(folder)
    assert data.unlabelled == 3 and len(data.trials) == 8


def test_a_record_must_match_the_times_of_the_mixture(folder: Path):
    records = json.loads((folder / RECORDS).read_text())
    records["ES2011a"][0]["overlap_info"]["overlap_start_time"] += 0.03
    records["IS1008b"][0]["overlap_segments"][0]["start_time"] = "101.75"
    (folder / RECORDS).write_text(json.dumps(records))
    data = read_real_t(folder)
    assert data.mixtures[0].activity == {} and data.unlabelled == 1
    assert data.mixtures[1].activity["MIO018"] == [(0.75, 5.0)]


def test_trials_without_recordings_are_left_out(folder: Path):
    (folder / "enrolment_speakers/ES2011a_MEE042_10.00_15.00.wav").unlink()
    skipped: list[str] = []
    data = read_real_t(folder, absent=False, on_skip=skipped.append)
    assert len(data.trials) == 5 and "AMI_meta.csv:3" in skipped[0] and "does not exist" in skipped[0]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("DEV/AMI_meta.csv", "speaker,gender", "talker,gender", "speaker"),
        (RECORDS, '"overlap_segments"', '"segments"', "overlap_segments is missing"),
        (RECORDS, '"start_time": 100.5', '"start_time": "soon"', "has the time 'soon'; seconds are needed"),
        (RECORDS, "{", "[", "overlap_records.json"),
    ],
)
def test_damaged_files_are_a_one_line_error(folder: Path, file: str, old: str, new: str, message: str):
    path = folder / file
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        read_real_t(folder)


def test_the_name_of_a_mixture_states_its_times(folder: Path):
    old = "ES2011a_mixture_100.00_109.00"
    (folder / f"mixtures/{old}.wav").rename(folder / "mixtures/ES2011a_mixture.wav")
    path = folder / "DEV/AMI_meta.csv"
    path.write_text(path.read_text().replace(old, "ES2011a_mixture"))
    with pytest.raises(InputError, match=r"AMI_meta\.csv:2: mixture 'ES2011a_mixture' is not named SESSION_mixture"):
        read_real_t(folder)


def test_another_folder_is_refused(folder: Path, tmp_path: Path):
    with pytest.raises(InputError, match="has no folder mixtures"):
        read_real_t(tmp_path)
    (folder / "EVAL1").mkdir()
    (folder / "EVAL1/AMI_meta.csv").write_text("x")
    with pytest.raises(InputError, match="it has DEV, EVAL1"):
        read_real_t(folder)


def test_lists_are_written_by_the_command(folder: Path, tmp_path: Path, wesep):
    ran = wesep("prepare", "real_t", folder, "--language", "en", "-o", tmp_path / "list")
    assert ran.status == 0 and "2 mixtures, 6 trials, 2 of them" in ran.out, ran.err
