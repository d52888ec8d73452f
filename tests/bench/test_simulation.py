"""Figures of the simulation benchmarks: stages, workers, hashes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import exactness, simulation
from bench.simulation_corpus import BenchCorpus
from wesep_py.audio import write
from wesep_py.data import FileReader, Utterance, read_speaker_folders
from wesep_py.simulation import EnrollmentConfig, NoiseConfig, RoomConfig, SimulationConfig, Simulator

CONFIG = SimulationConfig(
    duration_s=1.0,
    min_source_s=0.5,
    noise=NoiseConfig(probability=1.0),
    room=RoomConfig(num_reflections=128),
    enrollment=EnrollmentConfig(duration_s=(0.5, 1.0)),
)


@pytest.fixture(scope="module")
def corpus(tiny_speech: Path, tmp_path_factory: pytest.TempPathFactory) -> BenchCorpus:
    folder = tmp_path_factory.mktemp("noise")
    write(folder / "noise.wav", 0.1 * np.random.default_rng(0).standard_normal(32000), 16000)
    noise = Utterance("noise", "noise", folder / "noise.wav", 2.0)
    return BenchCorpus(folder, read_speaker_folders(tiny_speech), [noise])


def spin(seconds: float) -> None:
    began = time.process_time()
    while time.process_time() - began < seconds:
        pass


def test_time_counts_for_the_innermost_stage(monkeypatch: pytest.MonkeyPatch):
    class Work:
        def outer(self) -> None:
            spin(0.02)
            self.inner()
            spin(0.02)

        def inner(self) -> None:
            spin(0.03)

    monkeypatch.setattr(simulation, "STAGES", {"a": [(Work, "outer")], "b": [(Work, "inner")]})
    clock = simulation.StageClock()
    with clock.installed():
        Work().outer()
    Work().outer()
    assert clock.seconds["a"] == pytest.approx(0.04, abs=0.01)
    assert clock.seconds["b"] == pytest.approx(0.03, abs=0.01)


def test_all_stages_are_measured_without_changing_the_mixture(corpus: BenchCorpus):
    def sample() -> Any:
        return Simulator(CONFIG, corpus.speech, corpus.noises, FileReader(16000)).sample(0, 1).mixture

    clock = simulation.StageClock()
    with clock.installed():
        timed = sample()
    np.testing.assert_array_equal(timed, sample())
    assert set(clock.seconds) == set(simulation.STAGES)


def test_number_of_workers_for_a_step():
    assert simulation.workers_needed(items=64, step_s=0.1, seconds=0.01) == 7
    assert simulation.workers_needed(items=1, step_s=1.0, seconds=0.01) == 1


def test_hash_depends_on_mixtures_not_on_workers_and_ranks(corpus: BenchCorpus, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(exactness, "CONFIG", CONFIG)
    alone = exactness.hashes(corpus, 40, workers=0)
    assert sorted(alone) == list(range(40)) and len(set(alone.values())) == 40
    expected = exactness.combined(alone)
    assert exactness.combined(exactness.hashes(corpus, 40, workers=2)) == expected
    both = exactness.hashes(corpus, 40, 0, 0, 2) | exactness.hashes(corpus, 40, 0, 1, 2)
    assert exactness.combined(both) == expected
    assert exactness.combined(exactness.hashes(corpus, 32, workers=0)) != expected
