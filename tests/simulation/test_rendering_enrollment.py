"""Augmentation of enrollments: room, noise at its SNR, effects, level; the mixture does not change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wesep_py.audio import active_level_db
from wesep_py.data import FileReader, Utterance
from wesep_py.data.embedding_files import Embeddings
from wesep_py.simulation import EffectsConfig, EnrollmentConfig, NoiseConfig, RoomConfig, SimulationConfig, Simulator
from wesep_py.simulation.description.effects import ClipConfig, Clipping, CodecConfig
from wesep_py.simulation.description.recipe import Augmentation, NoiseRecipe
from wesep_py.simulation.rendering import augment_enrollment

PLAIN = EnrollmentConfig(duration_s=(1.0, 1.5), count=2)
NOISE = NoiseConfig(probability=1.0, snr_db=(10.0, 10.0), kinds={"recording": 1, "babble": 1, "coloured": 1})
ROOM = RoomConfig(num_reflections=256, rt60_s=(0.2, 0.3))
ALL = replace(
    PLAIN, noise=NOISE, room=ROOM, effects=EffectsConfig(clip=ClipConfig(), codec=CodecConfig(probability=0.5))
)


def _simulator(
    enrollment: EnrollmentConfig, utterances: list[Utterance], noises: list[Utterance], reader: FileReader
) -> Simulator:
    return Simulator(SimulationConfig(duration_s=1.2, enrollment=enrollment), utterances, noises, reader)


def test_augmentation_changes_enrollment_not_mixture(
    utterances: list[Utterance], noises: list[Utterance], reader: FileReader
) -> None:
    plain, changed = (_simulator(config, utterances, noises, reader) for config in (PLAIN, ALL))
    for index in range(5):
        before, after = plain.sample(0, index), changed.sample(0, index)
        assert np.array_equal(before.mixture, after.mixture)
        for first, second, source in zip(before.enrollments, after.enrollments, after.recipe.sources, strict=True):
            assert first.shape == second.shape and second.dtype == np.float32
            assert not np.allclose(first, second, atol=1e-4)
            augmentation = source.augmentation
            assert augmentation is not None and augmentation.room is not None and len(augmentation.noises) == 1
            babblers = {segment.utterance.speaker_id for segment in augmentation.noises[0].stretches}
            assert source.speaker_id not in babblers


def test_each_epoch_has_another_augmentation(
    utterances: list[Utterance], noises: list[Utterance], reader: FileReader
) -> None:
    simulator = _simulator(ALL, utterances, noises, reader)
    augmentations = [simulator.sample(epoch, 0).recipe.sources[0].augmentation for epoch in range(3)]
    assert len({repr(augmentation) for augmentation in augmentations}) == 3


def test_final_level_is_the_drawn_one_unless_it_clips(
    utterances: list[Utterance], noises: list[Utterance], reader: FileReader
) -> None:
    simulator = _simulator(replace(ALL, level_db=(-27.0, -27.0)), utterances, noises, reader)
    for enrollment in simulator.sample(0, 0).enrollments:
        assert active_level_db(enrollment, 16000) == pytest.approx(-27.0, abs=0.01)
    simulator = _simulator(replace(ALL, level_db=(0.0, 0.0)), utterances, noises, reader)
    for enrollment in simulator.sample(0, 0).enrollments:
        assert np.abs(enrollment).max() == pytest.approx(0.9, rel=1e-5)


def test_noise_has_its_snr_and_effects_come_after(reader: FileReader) -> None:
    time_s = np.arange(16000) / 16000
    speech = (0.1 * np.sin(2 * np.pi * 440 * time_s)).astype(np.float32)
    noise = NoiseRecipe("coloured", seed=3, snr_db=6.0)
    level_db = active_level_db(speech, 16000)
    noisy = augment_enrollment(speech, Augmentation(noises=(noise,), level_db=level_db), reader)
    scale = np.dot(noisy, speech) / np.dot(speech, speech)
    snr_db = level_db - active_level_db(noisy / scale - speech, 16000)
    assert snr_db == pytest.approx(6.0, abs=0.1)
    clipped = augment_enrollment(
        speech, Augmentation(noises=(noise,), effects=(Clipping(0.2),), level_db=level_db), reader
    )
    assert np.mean(np.abs(clipped) > 0.999 * np.abs(clipped).max()) > 0.1
    assert np.array_equal(speech, (0.1 * np.sin(2 * np.pi * 440 * time_s)).astype(np.float32))


def test_silence_stays_silence(reader: FileReader) -> None:
    silent = augment_enrollment(np.zeros(8000, np.float32), Augmentation(effects=(Clipping(0.2),)), reader)
    assert silent.shape == (8000,) and not silent.any()


def test_mixtures_without_enrollments(utterances: list[Utterance], noises: list[Utterance], reader: FileReader) -> None:
    sample = _simulator(replace(ALL, count=0), utterances, noises, reader).sample(0, 0)
    assert [enrollment.size for enrollment in sample.enrollments] == [0, 0]


def test_sample_has_precomputed_embeddings(utterances: list[Utterance], reader: FileReader, tmp_path: Path) -> None:
    speakers = sorted({utterance.speaker_id for utterance in utterances})
    for number, speaker in enumerate(speakers):
        np.save(tmp_path / f"{speaker}.npy", np.eye(4)[number])
    config = SimulationConfig(duration_s=1.2, absent_probability=0.5, enrollment=PLAIN)
    simulator = Simulator(config, utterances, [], reader, embeddings=Embeddings(tmp_path))
    absent = 0
    for index in range(6):
        sample = simulator.sample(0, index)
        for number in (*range(len(sample.recipe.sources)), sample.recipe.target):
            enrolled = sample.speaker(number)
            assert enrolled.embedding is not None
            assert enrolled.embedding.argmax() == speakers.index(enrolled.speaker_id)
        absent += sample.recipe.target is None
    assert 0 < absent < 6
