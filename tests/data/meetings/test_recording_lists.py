from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.conftest import VOICES, make_voice
from wesep_py.common.errors import InputError, OutputExistsError
from wesep_py.data import read_trials
from wesep_py.data.meetings.recording_lists import (
    RecordedMixture,
    RecordingTrial,
    file_segment,
    write_recording_lists,
)
from wesep_py.evaluation.activity_labels import read_labels
from wesep_py.evaluation.metric_backends import read_transcripts


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    parts = [make_voice(*VOICES[name], 2.0, 0) for name in ("anna", "bert")]
    soundfile.write(tmp_path / "long, recording.wav", np.concatenate(parts), 16000, subtype="PCM_16")
    return tmp_path / "long, recording.wav"


def test_what_is_written_is_read_by_evaluate(recording: Path, tmp_path: Path):
    mixtures = [
        RecordedMixture("m_0", file_segment(recording, 0.0, 2.5), {"anna": [(0.0, 2.0)]}, {"room": "a", "day": "1"}),
        RecordedMixture("m_1", file_segment(recording, 1.0, 4.0), {"bert": [(1.0, 3.0)]}, {"room": "b"}),
        RecordedMixture("unused", str(recording)),
    ]
    enrollment = file_segment(recording, 2.2, 3.7)
    trials = [
        RecordingTrial("m_0", "anna", enrollment, "so it\n is"),
        RecordingTrial("m_1", "bert", enrollment),
        RecordingTrial("m_1", "-", str(recording)),
    ]
    written = write_recording_lists(tmp_path / "list", mixtures, [*trials, trials[0]])
    assert (written.mixtures, written.trials, written.absent) == (2, 3, 1)
    read = read_trials(tmp_path / "list/recordings.csv", tmp_path / "list/map_mixture2enrollment", recordings=True)
    assert [(trial.mixture_id, trial.target_utterance_id) for trial in read] == [
        ("m_0", "anna"), ("m_1", "bert"), ("m_1", "-"),
    ]  # fmt: skip
    assert read[0].groups == {"room": "a", "day": "1"} and read[1].groups == {"room": "b"}
    assert str(read[0].enrollment) == enrollment and read[2].enrollment == recording
    labels = read_labels(tmp_path / "list/labels.rttm")
    assert labels.target_segments("m_1", ["bert"]) == ((1.0, 3.0),)
    assert read_transcripts(tmp_path / "list/transcripts.txt") == {"m_0/anna": "so it is"}


def test_an_earlier_list_stays_unless_overwriting_is_requested(recording: Path, tmp_path: Path):
    mixtures = [RecordedMixture("m", str(recording), {"anna": [(0.0, 1.0)]})]
    trials = [RecordingTrial("m", "anna", str(recording), "hello")]
    write_recording_lists(tmp_path / "list", mixtures, trials)
    with pytest.raises(OutputExistsError):
        write_recording_lists(tmp_path / "list", mixtures, trials)
    bare = [RecordedMixture("m", str(recording))]
    written = write_recording_lists(tmp_path / "list", bare, [RecordingTrial("m", "anna", str(recording))], True)
    assert sorted(path.name for path in (tmp_path / "list").iterdir()) == ["map_mixture2enrollment", "recordings.csv"]
    assert len(written.files) == 2


@pytest.mark.parametrize(
    ("mixture", "target", "message"),
    [("a b", "anna", "'a b' has white space"), ("m", "an na", "'an na' has white space")],
)
def test_names_that_the_files_cannot_hold_are_refused(mixture: str, target: str, message: str, tmp_path: Path):
    with pytest.raises(InputError, match=message):
        write_recording_lists(tmp_path / "l", [RecordedMixture(mixture, "x")], [RecordingTrial(mixture, target, "y")])
    assert not (tmp_path / "l").exists()


def test_equal_names_and_empty_lists_are_refused(tmp_path: Path):
    twice = [RecordedMixture("m", "x"), RecordedMixture("m", "y")]
    with pytest.raises(InputError, match="2 mixtures are named 'm'"):
        write_recording_lists(tmp_path / "l", twice, [RecordingTrial("m", "anna", "z")])
    with pytest.raises(InputError, match="there is no trial"):
        write_recording_lists(tmp_path / "l", twice, [])
