"""Enrollments at other speeds, without other changes; corpora with recordings at several speeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wesep_py.common.errors import InputError
from wesep_py.data import FileReader, Utterance, write_manifest
from wesep_py.simulation import (
    EffectsConfig,
    EnrollmentConfig,
    NoiseConfig,
    Recipe,
    SimulationConfig,
    Simulator,
    render,
)
from wesep_py.simulation.description.effects import ClipConfig, Clipping, CodecConfig, SpeedChange, SpeedConfig
from wesep_py.simulation.dry_batch import DrySimulator
from wesep_py.simulation.simulated_corpus import CorpusConfig, make_simulator

EFFECTS = EffectsConfig(clip=ClipConfig(probability=0.5), codec=CodecConfig(0.5, {"ulaw": 1.0}))
CONFIG = SimulationConfig(
    duration_s=1.0,
    absent_probability=0.3,
    noise=NoiseConfig(probability=0.5, kinds={"coloured": 1}),
    mixture_effects=EffectsConfig(clip=ClipConfig()),
    enrollment=EnrollmentConfig((0.5, 1.0), noise=NoiseConfig(probability=0.5, kinds={"coloured": 1}), effects=EFFECTS),
)


def with_speed(config: SimulationConfig, speed: SpeedConfig) -> SimulationConfig:
    changed = replace(config.enrollment.effects or EffectsConfig(), speed=speed)
    return replace(config, enrollment=replace(config.enrollment, effects=changed))


def speeds(recipe: Recipe) -> list[list[float]]:
    speakers = [*recipe.sources, *([] if recipe.absent is None else [recipe.absent])]
    return [
        [e.factor for e in v.augmentation.effects if isinstance(e, SpeedChange)] if v.augmentation else []
        for v in speakers
    ]


def without_speed(recipe: Recipe) -> Recipe:
    def strip(speaker):
        augmentation = speaker.augmentation
        if augmentation is None:
            return speaker
        effects = tuple(effect for effect in augmentation.effects if not isinstance(effect, SpeedChange))
        is_empty = augmentation.room is None and not augmentation.noises and not effects
        return replace(speaker, augmentation=None if is_empty else replace(augmentation, effects=effects))

    sources = tuple(map(strip, recipe.sources))
    return replace(recipe, sources=sources, absent=recipe.absent and strip(recipe.absent))


def test_speed_of_enrollments_changes_nothing_else(utterances: list[Utterance], reader: FileReader) -> None:
    plain = Simulator(CONFIG, utterances, [], reader, seed=3)
    with_speeds = Simulator(with_speed(CONFIG, SpeedConfig(0.6)), utterances, [], reader, seed=3)
    drawn_speeds = []
    for index in range(20):
        first, second = plain.sample(0, index), with_speeds.sample(0, index)
        assert without_speed(second.recipe) == first.recipe
        assert np.array_equal(first.mixture, second.mixture) and np.array_equal(first.targets, second.targets)
        drawn_speeds += speeds(second.recipe)
    assert {len(augmentation) for augmentation in drawn_speeds} == {0, 1}
    factors = [factor for augmentation in drawn_speeds for factor in augmentation]
    assert min(factors) >= 0.9 and max(factors) <= 1.1 and len(set(factors)) > 5
    assert Recipe.from_dict(second.recipe.to_dict()) == second.recipe


def test_enrollment_is_faster_and_higher(tmp_path: Path, utterances: list[Utterance]) -> None:
    class Tones(FileReader):
        def read(self, utterance: Utterance, start: int = 0, stop: int | None = None) -> np.ndarray:
            frame = np.arange(super().length(utterance))
            return (0.1 * np.sin(2 * np.pi * 500 * frame / 16000)).astype(np.float32)[start:stop]

    config = replace(CONFIG, absent_probability=0.0, enrollment=EnrollmentConfig((1.0, 1.0)))
    reader = Tones(16000)
    plain = Simulator(config, utterances, [], reader).sample(0, 0)
    with_speeds = Simulator(with_speed(config, SpeedConfig(1.0, (1.1, 1.1))), utterances, [], reader).sample(0, 0)
    for first, second in zip(plain.enrollments, with_speeds.enrollments, strict=True):
        assert second.size == -(-first.size * 16000 // 17600)
        spectrum = np.abs(np.fft.rfft(second[2000:-2000], 1 << 16))
        assert spectrum.argmax() * 16000 / (1 << 16) == pytest.approx(550, abs=1)
        assert np.sqrt(np.mean(second**2)) == pytest.approx(np.sqrt(np.mean(first**2)), rel=0.02)
    assert np.array_equal(render(with_speeds.recipe, reader).enrollments[0], with_speeds.enrollments[0])


def test_speed_comes_before_the_other_effects(utterances: list[Utterance], reader: FileReader) -> None:
    config = replace(CONFIG, enrollment=EnrollmentConfig((0.5, 1.0), effects=EffectsConfig(clip=ClipConfig())))
    recipe = Simulator(with_speed(config, SpeedConfig()), utterances, [], reader).draw(0, 0)
    assert [type(effect) for effect in recipe.sources[0].augmentation.effects] == [SpeedChange, Clipping]


def test_device_renders_speed_of_enrollments(utterances: list[Utterance], reader: FileReader) -> None:
    simulator = DrySimulator(with_speed(CONFIG, SpeedConfig()), utterances, [], reader)
    for index in range(4):
        sample, dry = simulator.sample(0, index), simulator.dry(0, index)
        expected = [*sample.enrollments, *([] if sample.absent_enrollment is None else [sample.absent_enrollment])]
        for first, second in zip(expected, dry.enrollments, strict=True):
            np.testing.assert_allclose(second.segments[0], first, atol=1e-6)
            assert second.level_db is None and len(second.segments) == 1


def test_corpus_at_several_speeds(utterances: list[Utterance], tmp_path: Path) -> None:
    write_manifest(utterances, tmp_path / "speech.jsonl")
    config = CorpusConfig(["speech.jsonl"], root=str(tmp_path), speeds=[0.9, 1.0, 1.1])
    simulator = make_simulator(config)
    assert len(simulator.speakers.speaker_ids) == 12 and "anna@1.1" in simulator.speakers.speaker_ids
    drawn = [simulator.draw(0, index) for index in range(8)]
    assert {s.excerpt.utterance.speed for recipe in drawn for s in recipe.sources} == {0.9, 1.0, 1.1}
    for source in (source for recipe in drawn for source in recipe.sources):
        assert {segment.utterance.speed for segment in source.enrollments} == {source.excerpt.utterance.speed}
    with pytest.raises(InputError, match="speeds: is"):
        make_simulator(replace(config, speeds=[0.0]))
