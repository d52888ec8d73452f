from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from wesep_py.evaluation import TrialRecord
from wesep_py.evaluation.trial_conditions import (
    CONDITION_EDGES,
    age_group,
    bin_name,
    describe_audio,
    gender_pair,
    overlap_ratio,
    speech_frames,
)

RATE = 8000
TONE = np.sin(np.arange(RATE) / 3).astype(np.float32)
PAUSE = np.zeros(RATE, np.float32)


def test_overlap_is_counted_over_frames_with_speech():
    """One speaker is active in seconds 0 and 1, another in 1 and 2, none in 3."""
    first, second = np.concatenate([TONE, TONE, PAUSE, PAUSE]), np.concatenate([PAUSE, TONE, TONE, PAUSE])
    assert overlap_ratio([first, second], RATE) == pytest.approx(1 / 3)
    assert overlap_ratio([first], RATE) == 0.0
    assert overlap_ratio([PAUSE, PAUSE], RATE) is None
    assert overlap_ratio([], RATE) is None
    assert speech_frames(first, RATE).tolist() == [True] * 100 + [False] * 100


def test_conditions_are_entered_into_the_record():
    record = TrialRecord("m", "t", "e.wav")
    describe_audio(record, np.concatenate([TONE, PAUSE]), np.concatenate([PAUSE, 0.5 * TONE])[None], TONE, RATE)
    assert record.enrollment_s == 1.0
    assert record.overlap == 0.0
    assert record.level_db == pytest.approx(-3.01, abs=0.05)
    assert record.sir_db == pytest.approx(6.02, abs=0.01)


def test_what_is_not_known_stays_unknown():
    record = TrialRecord("m", "-", "e.wav")
    describe_audio(record, None, None, None, RATE)
    assert (record.enrollment_s, record.overlap, record.level_db, record.sir_db) == (None,) * 4
    describe_audio(record, None, np.stack([TONE, TONE]), None, RATE)
    assert record.overlap == 1.0
    assert record.sir_db is None
    silent = TrialRecord("m", "t", "e.wav")
    describe_audio(silent, PAUSE, TONE[None], None, RATE)
    assert silent.level_db is None and silent.sir_db is None
    alone = TrialRecord("m", "t", "e.wav")
    describe_audio(alone, TONE, np.zeros((0, RATE), np.float32), None, RATE)
    assert alone.sir_db is None and alone.overlap == 0.0


def test_bins_hold_their_lower_edge():
    assert [bin_name(value, CONDITION_EDGES["overlap"]) for value in (0.0, 0.2, 0.79, 1.0)] == [
        "under 0.2", "0.2 to 0.4", "0.6 to 0.8", "from 0.8",
    ]  # fmt: skip


SPEAKERS = {"anna": ("f", 30.0), "bert": ("m", 12.0), "carl": ("m", 17.0), "dora": (None, None)}


def test_genders_of_all_speakers_in_one_order(trials):
    by_id = {trial.target_utterance_id: trial for trial in trials}
    assert gender_pair(by_id["anna-0"], SPEAKERS) == "f-m"
    assert gender_pair(by_id["bert-0"], SPEAKERS) == "f-m"
    assert gender_pair(by_id["bert-1"], SPEAKERS) == "m-m"
    assert gender_pair(by_id["dora-2"], SPEAKERS) == "unknown"
    assert gender_pair(by_id["anna-0"], {}) == "unknown"


@pytest.mark.parametrize(
    ("target", "group"),
    [("anna-0", "adult"), ("bert-0", "child"), ("carl-1", "teenager"), ("dora-2", "unknown")],
)
def test_age_group_is_the_targets(trials, target, group):
    trial = next(trial for trial in trials if trial.target_utterance_id == target)
    assert age_group(trial, SPEAKERS) == group


def test_an_absent_target_has_no_age(trials):
    absent = replace(trials[0], target_index=None, target_utterance_id="-")
    assert age_group(absent, SPEAKERS) == "unknown"
    assert gender_pair(absent, SPEAKERS) == "f-m"
