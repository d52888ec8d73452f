"""Unreadable recordings: each is named once, and others are drawn, by every path in the same way."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wesep_py.common.errors import AudioError
from wesep_py.data import FileReader, Utterance, pack
from wesep_py.data.mixture_corpus import ListedMixture, ListedSource, MixtureCorpus
from wesep_py.simulation import EffectsConfig, EnrollmentConfig, NoiseConfig, Recipe, SimulationConfig, Simulator
from wesep_py.simulation.description.effects import CodecConfig
from wesep_py.simulation.dry_batch import DrySimulator
from wesep_py.simulation.listed_mixtures import ListedMixtures
from wesep_py.simulation.rendering import render
from wesep_py.simulation.simulated_corpus import draw_recipes

SHORT = EnrollmentConfig(duration_s=(0.5, 1.0))
CONFIG = SimulationConfig(duration_s=1.0, enrollment=SHORT, noise=NoiseConfig(probability=1.0))


@pytest.fixture
def copies(utterances: list[Utterance], tmp_path: Path) -> list[Utterance]:
    """The speech in copies that a test may damage."""
    return [replace(u, path=Path(shutil.copy(u.path, tmp_path / f"{u.utterance_id}.wav"))) for u in utterances]


def damage(*utterances: Utterance) -> set[Path]:
    for utterance in utterances:
        utterance.path.write_bytes(b"no audio")
    return {utterance.path for utterance in utterances}


def paths(recipe: Recipe) -> set[Path]:
    segments = [s for source in recipe.sources for s in (source.excerpt, *source.enrollments)]
    return {segment.utterance.path for segment in (*segments, *(s for n in recipe.noises for s in n.stretches))}


def test_unreadable_files_are_replaced_and_named_once(
    copies: list[Utterance], noises: list[Utterance], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad_noise = replace(noises[0], utterance_id="noise/bad", path=tmp_path / "bad-noise.wav")
    bad_paths = damage(copies[0], copies[5], bad_noise)
    simulator = Simulator(CONFIG, copies, [noises[0], bad_noise], FileReader(16000), seed=1)
    drawn_recipes = [simulator.sample(0, index).recipe for index in range(30)]
    assert not any(paths(recipe) & bad_paths for recipe in drawn_recipes)
    assert any(recipe.attempt > 0 for recipe in drawn_recipes) and any(recipe.attempt == 0 for recipe in drawn_recipes)
    named = [message for message in caplog.messages if "others are drawn" in message]
    assert len(named) == 3 == len(simulator.unreadable_files)
    assert [f"({number} so far)" in text for number, text in enumerate(named, start=1)] == [True] * 3
    assert {path for path in bad_paths for text in named if str(path) in text} == bad_paths
    again = Simulator(CONFIG, copies, [bad_noise, noises[0]], FileReader(16000), seed=1)
    assert [again.draw(0, index) for index in reversed(range(30))] == drawn_recipes[::-1]


def test_mixtures_without_unreadable_files_are_unchanged(copies: list[Utterance], noises: list[Utterance]) -> None:
    before = [Simulator(CONFIG, copies, noises, FileReader(16000)).draw(0, index) for index in range(20)]
    bad_paths = damage(copies[3])
    simulator = Simulator(CONFIG, copies, noises, FileReader(16000))
    after = [simulator.draw(0, index) for index in range(20)]
    same = [first == second for first, second in zip(before, after, strict=True)]
    assert same == [not paths(recipe) & bad_paths for recipe in before] and not all(same) and any(same)


def test_dry_simulator_draws_the_same_replacements(copies: list[Utterance], noises: list[Utterance]) -> None:
    damage(copies[0], copies[5])
    dry = DrySimulator(CONFIG, copies, noises, FileReader(16000))
    for index in range(12):
        plan, recipe = dry.dry(0, index).plan, dry.draw(0, index)
        assert (plan.attempt, paths(plan)) == (recipe.attempt, paths(recipe))
    assert len(dry.unreadable_files) > 0


def test_packed_corpus_gives_the_same_draws_as_files(
    copies: list[Utterance], noises: list[Utterance], tmp_path: Path
) -> None:
    """Also for noise of enrollments, of which drawing reads the length only."""
    noisy_enrollment = EnrollmentConfig(duration_s=(0.5, 1.0), noise=NoiseConfig(probability=1.0))
    config = replace(CONFIG, noise=None, enrollment=noisy_enrollment)
    bad_noise = replace(noises[0], utterance_id="noise/bad", path=tmp_path / "bad-noise.wav")
    damage(copies[0], copies[5], bad_noise)
    all_noises = [noises[0], bad_noise]
    packed = pack([*copies, *all_noises], tmp_path / "pack", 16000)
    from_files, from_pack = (Simulator(config, copies, all_noises, r) for r in (FileReader(16000), packed))
    for index in range(8):
        first, second = from_files.sample(0, index), from_pack.sample(0, index)
        assert first.recipe == second.recipe and np.array_equal(first.mixture, second.mixture)
    assert len(from_pack.unreadable_files) == len(from_files.unreadable_files) > 0


class LateReader(FileReader):
    """Reader that, like a store, knows lengths without decoding: a damaged recording is noticed when it is read."""

    def length(self, utterance: Utterance) -> int:
        return round(utterance.duration_s * 16000)


def test_noise_of_enrollments_is_read_before_draw_is_accepted(
    copies: list[Utterance], noises: list[Utterance], tmp_path: Path
) -> None:
    noisy_enrollment = EnrollmentConfig(duration_s=(0.5, 1.0), noise=NoiseConfig(probability=1.0))
    bad_noise = replace(noises[0], utterance_id="noise/bad", path=tmp_path / "bad-noise.wav")
    damage(bad_noise)
    config = replace(CONFIG, noise=None, enrollment=noisy_enrollment)
    simulator = Simulator(config, copies, [noises[0], bad_noise], LateReader(16000))
    for index in range(6):
        recipe = simulator.draw(0, index)
        assert np.array_equal(render(recipe, FileReader(16000)).mixture, simulator.sample(0, index).mixture)
    assert len(simulator.unreadable_files) == 1


def test_error_if_all_files_are_unreadable(copies: list[Utterance], noises: list[Utterance]) -> None:
    damage(*copies)
    for simulator in (kind(CONFIG, copies, noises, FileReader(16000)) for kind in (Simulator, DrySimulator)):
        with pytest.raises(
            AudioError, match=r"index 3\): 50 draws in a row cannot be used; of the last, .*is not audio"
        ):
            simulator.draw(0, 3)


@pytest.mark.parametrize("jobs", [1, 2])
def test_simulate_names_each_unreadable_file_once(
    copies: list[Utterance], noises: list[Utterance], caplog: pytest.LogCaptureFixture, jobs: int
) -> None:
    bad_paths = damage(copies[0], copies[5])
    simulator = Simulator(CONFIG, copies, noises, FileReader(16000))
    recipes, failures = draw_recipes(simulator, 17, jobs)
    assert (len(recipes), failures) == (17, [])
    named = [message for message in caplog.messages if "others are drawn" in message]
    assert len(named) == 2 and all(any(str(path) in text for text in named) for path in bad_paths)


def test_unreadable_listed_mixture_is_replaced(copies: list[Utterance], caplog: pytest.LogCaptureFixture) -> None:
    anna, bert = ([u for u in copies if u.speaker_id == name] for name in ("anna", "bert"))
    mixtures = tuple(
        ListedMixture(f"m{n}", tuple(ListedSource(u, u.utterance_id, 1.0) for u in pair))
        for n, pair in enumerate(zip(anna, bert, strict=True))
    )
    bad_paths = damage(anna[0])
    corpus = MixtureCorpus(mixtures, (*anna, *bert))
    config = SimulationConfig(duration_s=1.0, enrollment=SHORT)
    listed = ListedMixtures(config, corpus, [], FileReader(16000))
    with caplog.at_level(logging.WARNING):
        drawn_recipes = [listed.draw(0, index) for index in range(4)]
    assert not any(paths(recipe) & bad_paths for recipe in drawn_recipes)
    assert len([text for text in caplog.messages if str(anna[0].path) in text]) == 1


def test_failing_codec_is_not_an_unreadable_file(
    copies: list[Utterance], noises: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*given: object) -> None:
        raise AudioError("codec 'gsm': is not written by this libsndfile")

    monkeypatch.setattr("wesep_py.simulation.description.effects.apply_codec", fails)
    config = replace(CONFIG, source_effects=EffectsConfig(codec=CodecConfig(codecs={"gsm": 1.0})))
    simulator = Simulator(config, copies, noises, FileReader(16000))
    with pytest.raises(AudioError, match=r"^codec 'gsm'"):
        simulator.draw(0, 0)
    assert len(simulator.unreadable_files) == 0
