from __future__ import annotations

from dataclasses import replace

import pytest

from wesep_py.evaluation.trial_conditions import age_group, gender_pair

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
