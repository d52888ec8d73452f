"""Samples from listed mixtures: cut, enrolled and ordered anew in every epoch, otherwise as in the list."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.conftest import SAMPLE_RATE, VOICES, make_voice
from wesep_py.common.errors import InputError
from wesep_py.data import FileReader
from wesep_py.data.mixture_corpus import MixtureCorpus, read_mixture_corpus
from wesep_py.simulation import EnrollmentConfig, NoiseConfig, SimulationConfig, render
from wesep_py.simulation.listed_mixtures import ListedMixtures

GAINS = (0.5, 0.25)
CONFIG = SimulationConfig(duration_s=1.0, enrollment=EnrollmentConfig(duration_s=(0.8, 1.2)))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MixtureCorpus:
    """Three mixtures of two speakers; the first words of anna are in two of them."""
    folder = tmp_path_factory.mktemp("listed")
    for number, voice in enumerate(("anna", "bert")):
        for take in range(3):
            samples = make_voice(*VOICES[voice], 2.0 + 0.25 * take, seed=10 * number + take)
            soundfile.write(folder / f"{voice}-{take}.wav", samples, SAMPLE_RATE, subtype="PCM_16")
    hiss = 0.05 * np.random.default_rng(0).standard_normal(SAMPLE_RATE // 2)
    soundfile.write(folder / "hiss.wav", hiss, SAMPLE_RATE, subtype="PCM_16")
    rows = [
        f"anna-{a}_bert-{b},anna-{a}.wav,{GAINS[0]},bert-{b}.wav,{GAINS[1]},hiss.wav,0.5"
        for a, b in ((0, 0), (0, 1), (1, 2))
    ]
    head = "mixture_ID,source_1_path,source_1_gain,source_2_path,source_2_gain,noise_path,noise_gain"
    (folder / "list.csv").write_text("\n".join([head, *rows]) + "\n")
    return read_mixture_corpus([folder / "list.csv"], "noisy")


@pytest.fixture(scope="module")
def mixtures(corpus: MixtureCorpus) -> ListedMixtures:
    return ListedMixtures(CONFIG, corpus, [], FileReader(SAMPLE_RATE), seed=3)


def test_sample_is_a_cut_of_its_mixture(mixtures: ListedMixtures):
    reader = FileReader(SAMPLE_RATE)
    for index in range(6):
        sample = mixtures.sample(0, index)
        excerpts = [source.excerpt for source in sample.recipe.sources]
        assert sample.mixture.size == SAMPLE_RATE and len({excerpt.start for excerpt in excerpts}) == 1
        for image, excerpt, gain in zip(sample.images, excerpts, GAINS, strict=True):
            recorded = reader.read(excerpt.utterance, excerpt.start, excerpt.stop)
            np.testing.assert_allclose(image, gain * recorded, atol=1e-6)
        noise = reader.read(sample.recipe.noise.stretches[0].utterance)
        at = (excerpts[0].start + np.arange(SAMPLE_RATE)) % noise.size
        np.testing.assert_allclose(sample.noise, 0.5 * noise[at], atol=1e-6)
        np.testing.assert_allclose(sample.mixture, sample.images.sum(0) + sample.noise, atol=1e-6)


def test_enrollment_is_never_said_in_the_mixture(mixtures: ListedMixtures):
    seen = set()
    for index in range(30):
        for source in mixtures.draw(1, index).sources:
            (enrollment,) = source.enrollments
            assert enrollment.utterance.speaker_id == source.speaker_id
            assert enrollment.utterance.utterance_id != source.excerpt.utterance.utterance_id
            seen.add((source.excerpt.utterance.utterance_id, enrollment.utterance.utterance_id))
    assert {pair for pair in seen if pair[0] == "bert-0"} == {("bert-0", "bert-1"), ("bert-0", "bert-2")}


def test_words_in_two_rendered_mixtures_do_not_enroll_themselves(tmp_path: Path):
    for mixture in ("anna-0_bert-0", "anna-0_bert-1", "anna-1_bert-2"):
        for k, utterance in enumerate(mixture.split("_"), start=1):
            voice, take = utterance.split("-")
            samples = make_voice(*VOICES[voice], 1.5, seed=int(take))
            (tmp_path / f"s{k}").mkdir(exist_ok=True)
            soundfile.write(tmp_path / f"s{k}/{mixture}.wav", samples, SAMPLE_RATE)
    tree = ListedMixtures(CONFIG, read_mixture_corpus([tmp_path]), [], FileReader(SAMPLE_RATE))
    for index in range(12):
        anna, _ = tree.draw(0, index).sources
        if anna.excerpt.utterance.utterance_id.startswith("anna-0"):
            assert anna.enrollments[0].utterance.utterance_id == "anna-1_bert-2-s1"


def test_epoch_contains_all_mixtures_in_its_own_order(mixtures: ListedMixtures):
    def order(epoch: int) -> list[str]:
        return [mixtures.draw(epoch, i).sources[1].excerpt.utterance.utterance_id for i in range(9)]

    epochs = [order(epoch) for epoch in range(4)]
    for drawn in epochs:
        assert all(sorted(drawn[i : i + 3]) == ["bert-0", "bert-1", "bert-2"] for i in (0, 3, 6))
    assert len({tuple(drawn) for drawn in epochs}) > 1


def test_sample_is_a_function_of_seed_epoch_and_index(mixtures: ListedMixtures, corpus: MixtureCorpus):
    again = pickle.loads(pickle.dumps(ListedMixtures(CONFIG, corpus, [], FileReader(SAMPLE_RATE), seed=3)))
    for epoch, index in ((0, 4), (2, 1)):
        first, second = mixtures.sample(epoch, index), again.sample(epoch, index)
        assert first.recipe == second.recipe
        np.testing.assert_array_equal(first.mixture, second.mixture)
        np.testing.assert_array_equal(first.mixture, render(first.recipe, FileReader(SAMPLE_RATE)).mixture)
    assert mixtures.draw(0, 0) != ListedMixtures(CONFIG, corpus, [], FileReader(SAMPLE_RATE), seed=4).draw(0, 0)


def test_whole_mixtures_end_with_the_shortest_source(corpus: MixtureCorpus):
    config = SimulationConfig(duration_s=None, enrollment=CONFIG.enrollment)
    whole = ListedMixtures(config, corpus, [], FileReader(SAMPLE_RATE))
    lengths = {whole.draw(0, i).num_samples / SAMPLE_RATE for i in range(3)}
    assert lengths == {2.0, 2.25}


def test_enrollments_are_augmented(corpus: MixtureCorpus):
    noise = NoiseConfig(probability=1, kinds={"coloured": 1})
    config = SimulationConfig(duration_s=1.0, enrollment=EnrollmentConfig(duration_s=(0.8, 1.2), noise=noise))
    noisy = ListedMixtures(config, corpus, [], FileReader(SAMPLE_RATE)).draw(0, 0)
    assert all(source.augmentation.noises[0].kind == "coloured" for source in noisy.sources)


def test_keys_that_do_not_apply_are_refused(corpus: MixtureCorpus):
    config = SimulationConfig(duration_s=1.0, sir_db=(0.0, 5.0))
    with pytest.raises(InputError, match=r"simulation\.sir_db: does not apply to the mixtures of data\.mixtures"):
        ListedMixtures(config, corpus, [], FileReader(SAMPLE_RATE))


def test_mixture_without_enrollment_is_left_out(corpus: MixtureCorpus, caplog: pytest.LogCaptureFixture):
    few = MixtureCorpus(
        corpus.mixtures[:2], tuple(u for u in corpus.speech if u.utterance_id != "anna-1"), corpus.recording_ids
    )
    with pytest.raises(InputError, match=r"name more speech of theirs in data\.train"):
        ListedMixtures(CONFIG, few, [], FileReader(SAMPLE_RATE))
    only = MixtureCorpus(
        corpus.mixtures, tuple(u for u in corpus.speech if u.utterance_id != "anna-1"), corpus.recording_ids
    )
    kept = ListedMixtures(CONFIG, only, [], FileReader(SAMPLE_RATE))
    assert kept.left_out == ["anna-0_bert-0", "anna-0_bert-1"] and len(kept.mixtures) == 1
    assert "2 of 3 mixtures are left out" in caplog.text


def test_listed_mixtures_have_negative_enrollments_too(corpus: MixtureCorpus):
    enrollment = EnrollmentConfig(duration_s=(0.8, 1.2), negative_probability=1.0, negative_bystander=0.0)
    simulator = ListedMixtures(
        SimulationConfig(duration_s=1.0, enrollment=enrollment), corpus, [], FileReader(SAMPLE_RATE), seed=3
    )
    sample = simulator.sample(0, 0)
    assert sample.recipe.negatives == (1, 0)
    assert np.array_equal(sample.negative(0), sample.enrollments[1])
