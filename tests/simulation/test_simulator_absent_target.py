"""Mixtures without the target speaker."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from wesep_py.common.errors import ConfigError, InputError
from wesep_py.data import FileReader, Utterance, read_trials
from wesep_py.simulation import EnrollmentConfig, NoiseConfig, Recipe, SimulationConfig, Simulator, render, render_trial
from wesep_py.simulation.simulated_corpus import render_tree

SHORT = EnrollmentConfig(duration_s=(1.0, 2.0))
BABBLE = NoiseConfig(probability=0.5, kinds={"babble": 1.0}, babble_speakers=(1, 1))


def _config(share: float, **changed: object) -> SimulationConfig:
    return SimulationConfig(duration_s=1.2, absent_probability=share, enrollment=SHORT, noise=BABBLE, **changed)  # type: ignore[arg-type]


def test_absent_speaker_is_not_in_mixture_or_babble(utterances: list[Utterance], reader: FileReader) -> None:
    simulator = Simulator(_config(1.0), utterances, [], reader)
    absent_ids = set()
    for index in range(20):
        recipe = simulator.draw(0, index)
        assert recipe.target is None and recipe.absent is not None
        present_ids = {source.speaker_id for source in recipe.sources}
        present_ids |= {segment.utterance.speaker_id for noise in recipe.noises for segment in noise.stretches}
        assert recipe.absent.speaker_id not in present_ids
        assert {segment.utterance.speaker_id for segment in recipe.absent.enrollments} == {recipe.absent.speaker_id}
        absent_ids.add(recipe.absent.speaker_id)
    assert len(absent_ids) > 2


def test_absent_target_is_silent_and_its_enrollment_speech(utterances: list[Utterance], reader: FileReader) -> None:
    sample = Simulator(_config(1.0), utterances, [], reader).sample(0, 0)
    speaker = sample.speaker(sample.recipe.target)
    assert sample.recipe.absent is not None and speaker.speaker_id == sample.recipe.absent.speaker_id
    assert speaker.target.shape == sample.mixture.shape and not speaker.target.any()
    assert speaker.activity.shape == sample.activity[0].shape and not speaker.activity.any()
    assert speaker.enrollment.size >= 16000 and speaker.enrollment.any()
    assert sample.recipe.sir_db[0] == 0.0
    present = sample.speaker(1)
    assert np.array_equal(present.target, sample.targets[1]) and present.embedding is None
    again = render(Recipe.from_dict(json.loads(json.dumps(sample.recipe.to_dict()))), reader)
    assert again.recipe == sample.recipe and np.array_equal(again.speaker(None).enrollment, speaker.enrollment)


def test_share_of_absent_targets_changes_no_other_draw(utterances: list[Utterance], reader: FileReader) -> None:
    some, none = (Simulator(_config(share), utterances, [], reader) for share in (0.4, 0.0))
    absent = 0
    for index in range(100):
        recipe, without = some.draw(0, index), none.draw(0, index)
        absent += recipe.target is None
        if recipe.attempt == without.attempt:
            assert [source.excerpt.utterance for source in recipe.sources] == [
                source.excerpt.utterance for source in without.sources
            ]
            assert recipe.target is None or recipe == without
    assert absent == pytest.approx(40, abs=14)


def test_absent_targets_need_one_more_speaker(utterances: list[Utterance], reader: FileReader) -> None:
    two = [utterance for utterance in utterances if utterance.speaker_id in ("anna", "bert")]
    with pytest.raises(InputError, match="has 2 speakers with enough audio; 3 are needed"):
        Simulator(SimulationConfig(absent_probability=0.5, enrollment=SHORT), two, [], reader)
    with pytest.raises(ValueError, match=r"absent_probability: is above 0 and enrollment\.count is 0"):
        SimulationConfig(absent_probability=0.5, enrollment=EnrollmentConfig(count=0))


def test_recipe_has_either_target_or_absent_speaker(utterances: list[Utterance], reader: FileReader) -> None:
    sample = Simulator(_config(0.0), utterances, [], reader).sample(0, 0)
    with pytest.raises(InputError, match="no speaker is absent"):
        sample.speaker(None)
    values = sample.recipe.to_dict()
    del values["target"]
    with pytest.raises(ConfigError, match="target: give either the number of a source or an absent speaker"):
        Recipe.from_dict(values)


def test_absent_target_is_written_as_trial_without_target(
    utterances: list[Utterance], reader: FileReader, tmp_path: Path
) -> None:
    simulator = Simulator(_config(0.5), utterances, [], reader)
    recipes = [simulator.draw(0, index) for index in range(4)]
    assert render_tree(recipes, tmp_path / "tree", reader) == []
    trials = read_trials(tmp_path / "tree" / "mixture_mix_both.csv", tmp_path / "tree" / "map_mixture2enrollment")
    absent = [trial for trial in trials if trial.target is None]
    expected = [recipe for recipe in recipes if recipe.absent is not None]
    assert len(absent) == len(expected) > 0 and len(trials) == 8 + len(expected)
    for trial, recipe in zip(absent, expected, strict=True):
        audio = render_trial(trial, "noisy")
        assert audio.reference is None
        assert np.array_equal(audio.enrollment, render(recipe, reader).speaker(None).enrollment)
