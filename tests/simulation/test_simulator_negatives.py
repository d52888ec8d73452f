"""Negative enrollments of simulated mixtures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wesep_py.common.config import construct, load_yaml
from wesep_py.common.errors import ConfigError, InputError
from wesep_py.data import FileReader, Utterance
from wesep_py.simulation import EnrollmentConfig, NoiseConfig, Recipe, SimulationConfig, Simulator, render
from wesep_py.simulation.batched_rendering import render_on_device
from wesep_py.simulation.description.recipe import BYSTANDER
from wesep_py.simulation.dry_batch import DrySimulator, collate_dry

RECIPES = Path(__file__).resolve().parents[2] / "recipes/default"
ENROLLMENT = EnrollmentConfig(duration_s=(0.5, 1.0), negative_probability=1.0, negative_bystander=0.3)
BASE = SimulationConfig(duration_s=1.0, min_source_s=0.5, num_speakers={1: 1, 2: 2, 3: 1}, enrollment=ENROLLMENT)


def test_negatives_are_of_an_interferer_or_of_a_bystander(utterances: list[Utterance], reader: FileReader) -> None:
    simulator, of_bystander, total = Simulator(BASE, utterances, [], reader), 0, 0
    for index in range(60):
        recipe = simulator.draw(0, index)
        assert len(recipe.negatives) == len(recipe.sources)
        assert all(number != source for source, number in enumerate(recipe.negatives))
        if recipe.bystander is not None:
            assert recipe.bystander.speaker_id not in {source.speaker_id for source in recipe.sources}
            assert set(recipe.negatives) == {BYSTANDER}
        if len(recipe.sources) == 1:
            assert recipe.bystander is not None
        else:
            total, of_bystander = total + 1, of_bystander + (recipe.bystander is not None)
    assert of_bystander / total == pytest.approx(0.3, abs=0.2)


def test_the_negative_waveform_is_that_of_its_speaker(utterances: list[Utterance], reader: FileReader) -> None:
    config = replace(BASE, num_speakers=2, absent_probability=0.5)
    simulator, kinds = Simulator(config, utterances, [], reader), set()
    for index in range(20):
        sample = simulator.sample(0, index)
        again = render(Recipe.from_dict(json.loads(json.dumps(sample.recipe.to_dict()))), reader)
        for source in (0, 1, *([None] if sample.recipe.target is None else [])):
            negative, number = sample.negative(source), sample.recipe.negatives[-1 if source is None else source]
            owner = sample.bystander_enrollment if number == BYSTANDER else sample.enrollments[number]
            assert negative is owner and np.array_equal(again.negative(source), owner)
            assert not np.array_equal(negative, sample.speaker(source).enrollment)
            kinds.add((source is None, number == BYSTANDER))
    assert kinds == {(False, False), (False, True), (True, False), (True, True)}


def test_negatives_change_no_other_draw(utterances: list[Utterance], reader: FileReader) -> None:
    noise = NoiseConfig(probability=0.5, kinds={"babble": 1.0}, babble_speakers=(1, 1), snr_db=(0, 10))
    config = replace(BASE, num_speakers=2, enrollment=replace(ENROLLMENT, noise=noise))
    without = replace(config, enrollment=replace(config.enrollment, negative_probability=0.0))
    for index in range(10):
        some, none = (Simulator(each, utterances, [], reader).draw(0, index) for each in (config, without))
        assert replace(some, negatives=(), bystander=None) == none and some.negatives


def test_a_share_of_the_mixtures_has_negatives(utterances: list[Utterance], reader: FileReader) -> None:
    config = replace(BASE, num_speakers=2, enrollment=replace(ENROLLMENT, negative_probability=0.3))
    simulator = Simulator(config, utterances, [], reader)
    count = sum(bool(simulator.draw(0, index).negatives) for index in range(60))
    assert count == pytest.approx(18, abs=9)


def test_a_device_renders_the_same_negatives(utterances: list[Utterance], reader: FileReader) -> None:
    simulator = DrySimulator(replace(BASE, num_speakers={1: 1, 2: 2}, absent_probability=0.4), utterances, [], reader)
    indices = range(8)
    samples = render_on_device(collate_dry([simulator.dry(0, index) for index in indices], 16000))
    for index, sample in zip(indices, samples, strict=True):
        expected = simulator.sample(0, index)
        for source in (*range(len(expected.recipe.sources)), *([] if expected.recipe.absent is None else [None])):
            np.testing.assert_allclose(sample.negative(source).numpy(), expected.negative(source), atol=1e-5)


def test_impossible_negatives_are_refused(utterances: list[Utterance], reader: FileReader) -> None:
    two = [utterance for utterance in utterances if utterance.speaker_id in ("anna", "bert")]
    with pytest.raises(InputError, match="has 2 speakers with enough audio; 3 are needed"):
        Simulator(replace(BASE, num_speakers=2), two, [], reader)
    only_interferers = replace(BASE, num_speakers=2, enrollment=replace(ENROLLMENT, negative_bystander=0.0))
    assert Simulator(only_interferers, two, [], reader).draw(0, 0).negatives == (1, 0)
    values = Simulator(replace(BASE, num_speakers=2), utterances, [], reader).draw(0, 0).to_dict()
    for negatives in ([0, 1], [1], [2, 0], [-2, 0]):
        with pytest.raises(ConfigError, match="negatives: are"):
            Recipe.from_dict({**values, "negatives": negatives})


@pytest.mark.parametrize("recipe", ["train_gpu.yaml", "train_cpu_negative.yaml"])
def test_a_tenth_of_the_enrollments_of_a_recipe_holds_another_voice(
    recipe: str, utterances: list[Utterance], noises: list[Utterance], reader: FileReader
) -> None:
    values = load_yaml(RECIPES / recipe, ["data.root=DATA"])["simulation"]["enrollment"]["noise"]
    enrollment = EnrollmentConfig(duration_s=(0.5, 1.0), noise=construct(NoiseConfig, values))
    simulator = Simulator(replace(BASE, num_speakers=2, enrollment=enrollment), utterances, noises, reader)
    sources = [source for index in range(200) for source in simulator.draw(0, index).sources]
    voices = [
        (source.speaker_id, noise)
        for source in sources
        for noise in (source.augmentation.noises if source.augmentation else ())
        if noise.kind == "babble"
    ]
    assert len(voices) / len(sources) == pytest.approx(0.1, abs=0.04)
    for speaker_id, noise in voices:
        assert [segment.utterance.speaker_id for segment in noise.stretches] != [speaker_id]
        assert len(noise.stretches) == 1 and 0 <= noise.snr_db <= 10
