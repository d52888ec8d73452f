"""The parts sum to the mixture: `mixture == sum(images of all sources) + noise + distortion`."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.data import FileReader, Utterance, read_speaker_folders, read_trials
from wesep_py.simulation import (
    EnrollmentConfig,
    NoiseConfig,
    RoomConfig,
    SimulationConfig,
    Simulator,
    render,
    render_trial,
)
from wesep_py.simulation.simulated_corpus import draw_recipes, render_tree

SHORT = EnrollmentConfig(duration_s=(1.0, 2.0))
NOISE = NoiseConfig(probability=1.0, snr_db=(-5.0, 5.0), kinds={"recording": 1, "coloured": 1, "babble": 1})


@pytest.fixture(scope="module")
def noises(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    path = tmp_path_factory.mktemp("noise") / "hiss.wav"
    hiss = 0.1 * np.random.default_rng(0).standard_normal(16000)
    soundfile.write(path, hiss, 16000, subtype="PCM_16")
    return [Utterance("noise/hiss", "noise", path, 1.0)]


@pytest.mark.parametrize(
    ("overlap", "noise", "room", "target"),
    [
        *product(["full", "longest", "partial"], [None, NOISE], [None, RoomConfig()], ["full"]),
        ("full", NOISE, RoomConfig(), "dry"),
        ("partial", NOISE, RoomConfig(), "early"),
    ],
)
def test_rendered_parts_sum_to_the_mixture(
    tiny_speech: Path,
    noises: list[Utterance],
    overlap: str,
    noise: NoiseConfig | None,
    room: RoomConfig | None,
    target: str,
) -> None:
    config = SimulationConfig(
        duration_s=1.5,
        num_speakers={1: 1, 2: 1, 3: 1},
        overlap=overlap,
        noise=noise,
        room=room,
        target=target,  # type: ignore[arg-type]
        level_db=(-10.0, 0.0),  # most would clip, so all parts are scaled together
        enrollment=SHORT,
    )
    reader = FileReader(16000)
    simulator = Simulator(config, read_speaker_folders(tiny_speech), noises, reader)
    scaled_down = 0
    for index in range(8):
        sample = render(simulator.draw(0, index), reader)
        total = sample.images.astype(np.float64).sum(axis=0) + sample.noise + sample.distortion
        assert np.abs(sample.mixture - total).max() <= 4 * np.finfo(np.float32).eps
        assert np.abs(sample.mixture).max() <= config.peak * (1 + 1e-6)
        assert not sample.distortion.any()
        assert sample.noise.any() == (noise is not None)
        assert all(image.any() for image in sample.images)
        scaled_down += max(np.abs(part).max() for part in (sample.mixture, sample.images, sample.noise)) > 0.899
    assert scaled_down > 0


def test_written_parts_sum_to_the_mixture(tiny_speech: Path, noises: list[Utterance], tmp_path: Path) -> None:
    config = SimulationConfig(
        duration_s=1.5, num_speakers={2: 1, 3: 1}, noise=NOISE, room=RoomConfig(), target="early", enrollment=SHORT
    )
    simulator = Simulator(config, read_speaker_folders(tiny_speech), noises, FileReader(16000))
    recipes, failures = draw_recipes(simulator, 4)
    assert not failures and not render_tree(recipes, tmp_path / "tree")
    for recipe in recipes:
        parts = {}
        for name in ("mix_both", "mix_clean", "noise", *(f"s{k + 1}" for k in range(len(recipe.sources)))):
            path = tmp_path / "tree" / name / f"{recipe.mixture_id}.wav"
            assert soundfile.info(path).subtype == "FLOAT"
            parts[name] = soundfile.read(path)[0]
        images = sum(parts[f"s{k + 1}"] for k in range(len(recipe.sources)))
        np.testing.assert_allclose(parts["mix_clean"], images, atol=2e-7)
        np.testing.assert_allclose(parts["mix_both"], images + parts["noise"], atol=4e-7)


def test_parts_of_trials_sum_to_the_mixture(shared_data: Path) -> None:
    lists = shared_data / "trials"
    trials = read_trials(lists / "dev_3mix.csv", lists / "dev_3mix.map_mixture2enrollment", shared_data)
    for trial in trials[:5]:
        audio = render_trial(trial, "noisy")
        assert audio.reference is not None
        total = audio.reference.astype(np.float64) + audio.interferers.sum(axis=0) + audio.noise
        assert np.abs(audio.mixture - total).max() <= 1e-6
