"""Drawing of mixtures: levels, distinct speakers, silent draws repeated, errors for a corpus that is too small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.audio import active_level_db
from wesep_py.common.errors import AudioError, InputError
from wesep_py.data import FileReader, Utterance
from wesep_py.simulation import EnrollmentConfig, NoiseConfig, RoomConfig, SimulationConfig, Simulator, render

SHORT = EnrollmentConfig(duration_s=(1.0, 2.0))
FULL = SimulationConfig(duration_s=1.5, enrollment=SHORT)


def _write(path: Path, waveform: np.ndarray) -> Utterance:
    soundfile.write(path, waveform.astype(np.float32), 16000, subtype="FLOAT")
    return Utterance(path.stem, path.stem.partition("-")[0], path, waveform.size / 16000)


def _voice(seed: int, duration_s: float, gain: float = 0.1) -> np.ndarray:
    return gain * np.random.default_rng(seed).standard_normal(round(duration_s * 16000))


@pytest.mark.parametrize("sir_db", [-10.0, 0.0, 7.0])
def test_sir_is_target_over_interferer(utterances: list[Utterance], reader: FileReader, sir_db: float) -> None:
    config = SimulationConfig(duration_s=1.5, sir_db=(sir_db, sir_db), num_speakers=3, enrollment=SHORT)
    simulator = Simulator(config, utterances, [], reader)
    for index in range(5):
        sample = simulator.sample(0, index)
        levels = [active_level_db(image, 16000) for image in sample.images]
        target = sample.recipe.target
        for source, level in enumerate(levels):
            if source != target:
                assert levels[target] - level == pytest.approx(sir_db, abs=0.01)
                assert sample.recipe.sir_db[source] == sir_db


@pytest.mark.parametrize("kind", ["recording", "coloured", "babble"])
def test_snr_is_speech_over_noise(
    utterances: list[Utterance], noises: list[Utterance], reader: FileReader, kind: str
) -> None:
    noise = NoiseConfig(probability=1.0, snr_db=(3.0, 3.0), kinds={kind: 1.0})
    simulator = Simulator(SimulationConfig(duration_s=1.5, noise=noise, enrollment=SHORT), utterances, noises, reader)
    for index in range(4):
        sample = simulator.sample(0, index)
        assert sample.recipe.noise is not None and sample.recipe.noise.kind == kind
        speech_db = active_level_db(sample.images.sum(axis=0), 16000)
        assert speech_db - active_level_db(sample.noise, 16000) == pytest.approx(3.0, abs=0.02)


def test_babble_speakers_are_not_in_the_mixture(utterances: list[Utterance], reader: FileReader) -> None:
    noise = NoiseConfig(probability=1.0, kinds={"babble": 1.0}, babble_speakers=(8, 8))
    simulator = Simulator(SimulationConfig(duration_s=1.5, noise=noise, enrollment=SHORT), utterances, [], reader)
    for index in range(20):
        recipe = simulator.draw(0, index)
        assert recipe.noise is not None
        babblers = {segment.utterance.speaker_id for segment in recipe.noise.stretches}
        assert len(babblers) == 2
        assert not babblers & {source.speaker_id for source in recipe.sources}


def test_mixture_has_the_drawn_level_unless_it_would_clip(utterances: list[Utterance], reader: FileReader) -> None:
    quiet = SimulationConfig(duration_s=1.5, level_db=(-30.0, -30.0), enrollment=SHORT)
    sample = Simulator(quiet, utterances, [], reader).sample(0, 0)
    assert active_level_db(sample.mixture, 16000) == pytest.approx(-30.0, abs=0.01)
    loud = SimulationConfig(duration_s=1.5, level_db=(0.0, 0.0), peak=0.5, enrollment=SHORT)
    for index in range(5):
        sample = Simulator(loud, utterances, [], reader).sample(0, index)
        peak = max(np.abs(sample.mixture).max(), np.abs(sample.images).max())
        assert peak == pytest.approx(0.5, rel=1e-5)


def test_enrollments_have_their_own_level(utterances: list[Utterance], reader: FileReader) -> None:
    config = SimulationConfig(
        duration_s=1.5, enrollment=EnrollmentConfig(duration_s=(1.0, 2.0), level_db=(-27.0, -27.0))
    )
    sample = Simulator(config, utterances, [], reader).sample(0, 0)
    for enrollment in sample.enrollments:
        assert active_level_db(enrollment, 16000) == pytest.approx(-27.0, abs=0.01)


def test_speakers_are_distinct_and_numbers_follow_the_weights(utterances: list[Utterance], reader: FileReader) -> None:
    config = SimulationConfig(duration_s=1.5, num_speakers={1: 1, 2: 2, 4: 1}, enrollment=SHORT)
    simulator = Simulator(config, utterances, [], reader)
    counts, targets = [], set()
    for index in range(200):
        recipe = simulator.draw(0, index)
        speakers = [source.speaker_id for source in recipe.sources]
        assert len(set(speakers)) == len(speakers)
        counts.append(len(speakers))
        targets.add(recipe.target)
    assert set(counts) == {1, 2, 4}
    assert counts.count(2) == pytest.approx(100, abs=25)
    assert targets == {0, 1, 2, 3}


@pytest.mark.parametrize("overlap", ["full", "longest", "partial"])
@pytest.mark.parametrize("duration_s", [2.0, None])
def test_every_overlap_renders(
    utterances: list[Utterance], reader: FileReader, overlap: str, duration_s: float | None
) -> None:
    config = SimulationConfig(duration_s=duration_s, overlap=overlap, num_speakers=3, enrollment=SHORT)
    simulator = Simulator(config, utterances, [], reader)
    for index in range(10):
        sample = simulator.sample(0, index)
        assert duration_s is None or sample.mixture.size == duration_s * 16000
        assert all(image.any() for image in sample.images)
        assert (sample.recipe.overlap_ratio is not None) == (overlap == "partial")


def test_draws_do_not_depend_on_order_or_history(utterances: list[Utterance], reader: FileReader) -> None:
    first = Simulator(FULL, utterances, [], reader, seed=3)
    second = Simulator(FULL, list(reversed(utterances)), [], FileReader(16000), seed=3)
    drawn = [first.draw(0, index) for index in range(6)]
    assert [second.draw(0, index) for index in reversed(range(6))] == drawn[::-1]
    assert first.draw(1, 0) != drawn[0]
    assert Simulator(FULL, utterances, [], reader, seed=4).draw(0, 0) != drawn[0]


def test_silent_segment_is_drawn_again(tmp_path: Path) -> None:
    # In all of these, most of the recording is digital silence, or hiss 60 dB below the voice.
    corpus = []
    for number in range(3):
        for take in range(2):
            pause = np.zeros(48000) if take else 1e-4 * _voice(99, 3.0) / 0.1
            waveform = np.concatenate([_voice(number, 2.0), pause])
            corpus.append(_write(tmp_path / f"s{number}-{take}.wav", waveform))
    reader = FileReader(16000)
    config = SimulationConfig(duration_s=1.0, enrollment=EnrollmentConfig(duration_s=(1.0, 1.0)))
    simulator = Simulator(config, corpus, [], reader)
    for index in range(40):
        sample = simulator.sample(0, index)
        for source, enrollment in zip(sample.recipe.sources, sample.enrollments, strict=True):
            excerpt = source.excerpt
            raw = reader.read(excerpt.utterance, excerpt.start, excerpt.stop)
            assert active_level_db(raw, 16000) > -45  # the voice is at -20 dB, the hiss at -80
            assert np.isfinite(enrollment).all() and enrollment.any()
        assert np.isfinite(sample.mixture).all()


def test_silent_speaker_is_replaced(tmp_path: Path) -> None:
    corpus = [_write(tmp_path / f"s{n}-{take}.wav", _voice(n, 3.0)) for n in range(3) for take in range(2)]
    corpus += [_write(tmp_path / f"mute-{take}.wav", np.zeros(48000)) for take in range(2)]
    simulator = Simulator(FULL, corpus, [], FileReader(16000))
    recipes = [simulator.draw(0, index) for index in range(20)]
    assert all(source.speaker_id != "mute" for recipe in recipes for source in recipe.sources)
    assert any(recipe.attempt > 0 for recipe in recipes)


def test_silent_corpus_is_an_error(tmp_path: Path) -> None:
    corpus = [_write(tmp_path / f"s{n}-{take}.wav", np.zeros(48000)) for n in range(2) for take in range(2)]
    with pytest.raises(InputError, match=r"50 draws in a row.*is silent from"):
        Simulator(FULL, corpus, [], FileReader(16000)).draw(0, 0)


def test_silent_noise_is_an_error(utterances: list[Utterance], reader: FileReader, tmp_path: Path) -> None:
    noise = _write(tmp_path / "noise-1.wav", np.zeros(16000))
    config = SimulationConfig(duration_s=1.5, noise=NoiseConfig(probability=1.0), enrollment=SHORT)
    with pytest.raises(InputError, match="the noise is silent"):
        Simulator(config, utterances, [noise], reader).draw(0, 0)


def test_too_few_speakers_is_an_error(utterances: list[Utterance], reader: FileReader) -> None:
    anna_only = [utterance for utterance in utterances if utterance.speaker_id == "anna"]
    with pytest.raises(InputError, match="has 1 speakers with enough audio; 2 are needed"):
        Simulator(FULL, anna_only, [], reader)
    assert Simulator(SimulationConfig(num_speakers=1, duration_s=1.5, enrollment=SHORT), anna_only, [], reader).draw(
        0, 0
    )


def test_missing_noise_and_other_rate_are_errors(utterances: list[Utterance], reader: FileReader) -> None:
    with pytest.raises(InputError, match="no noise recordings"):
        Simulator(SimulationConfig(noise=NoiseConfig(probability=1.0)), utterances, [], reader)
    with pytest.raises(InputError, match="is 8000 Hz, and the reader gives 16000 Hz"):
        Simulator(FULL, utterances, [], reader, sample_rate=8000)
    with pytest.raises(InputError, match="seed"):
        Simulator(FULL, utterances, [], reader, seed=-1)


def test_damaged_recording_is_named(tmp_path: Path) -> None:
    corpus = [_write(tmp_path / f"s{n}-{take}.wav", _voice(n, 3.0)) for n in range(2) for take in range(2)]
    for utterance in corpus:
        utterance.path.write_text("not audio")
    with pytest.raises(AudioError, match=r"s\d-\d\.wav"):
        Simulator(FULL, corpus, [], FileReader(16000)).draw(0, 0)


def test_other_rates(utterances: list[Utterance]) -> None:
    for rate in (8000, 44100):
        config = SimulationConfig(duration_s=1.5, room=RoomConfig(), target="early", enrollment=SHORT)
        simulator = Simulator(config, utterances, [], FileReader(rate))
        sample = simulator.sample(0, 0)
        assert sample.mixture.size == 1.5 * rate
        assert sample.activity.shape == (2, 150)
        assert np.array_equal(render(simulator.draw(0, 0), FileReader(rate)).mixture, sample.mixture)
