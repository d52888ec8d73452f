"""Trials against the rule of their lists, computed step by step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.common.errors import AudioError, InputError
from wesep_py.data import MixtureNoise, MixtureSource, Trial, read_trials
from wesep_py.simulation import render_trial


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    rng = np.random.default_rng(0)
    for name, size in (("a", 3000), ("b", 2000), ("noise", 700), ("enrollment", 1234)):
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * rng.standard_normal(size), 16000, subtype="FLOAT")
    return Trial(
        "a_b",
        (MixtureSource("a", tmp_path / "a.wav", 0.5), MixtureSource("b", tmp_path / "b.wav", 2.0)),
        MixtureNoise(tmp_path / "noise.wav", 0.25, 100 / 16000),
        1,
        "b",
        tmp_path / "enrollment.wav",
    )


def _read(trial: Trial, name: str) -> np.ndarray:
    return soundfile.read(trial.enrollment.with_name(f"{name}.wav"), dtype="float32")[0]


def test_clean_is_min_mode_gains_and_sum(trial: Trial) -> None:
    audio = render_trial(trial, "clean")
    a, b = 0.5 * _read(trial, "a")[:2000], 2.0 * _read(trial, "b")
    np.testing.assert_allclose(audio.mixture, a + b, atol=1e-7)
    np.testing.assert_allclose(audio.reference, b, atol=1e-7)
    np.testing.assert_allclose(audio.interferers, a[None], atol=1e-7)
    assert not audio.noise.any()
    assert np.array_equal(audio.enrollment, _read(trial, "enrollment"))
    assert audio.mixture.dtype == np.float32 and audio.sample_rate == 16000


def test_noisy_adds_noise_from_its_offset_looped(trial: Trial) -> None:
    audio, clean = render_trial(trial, "noisy"), render_trial(trial, "clean")
    looped = np.tile(_read(trial, "noise"), 4)[100:2100] * 0.25
    np.testing.assert_allclose(audio.noise, looped, atol=1e-7)
    np.testing.assert_allclose(audio.mixture, clean.mixture + looped, atol=1e-6)


def test_trial_with_absent_target(trial: Trial) -> None:
    absent = Trial(trial.mixture_id, trial.sources, trial.noise, None, "-", trial.enrollment)
    audio = render_trial(absent)
    assert audio.reference is None
    assert audio.interferers.shape == (2, 2000)


def test_enrollment_from_a_mixture_is_cut_like_it(trial: Trial) -> None:
    folder = trial.enrollment.parent
    by_source = Trial("a_b", trial.sources, trial.noise, 1, "b", folder / "a.wav", enrollment_sources=trial.sources)
    assert np.array_equal(render_trial(by_source).enrollment, _read(trial, "a")[:2000])


def test_rendered_mixture_is_read(trial: Trial) -> None:
    path = trial.enrollment.with_name("mix.wav")
    soundfile.write(path, np.full(2000, 0.25), 16000, subtype="FLOAT")
    rendered = Trial("a_b", trial.sources, None, 1, "b", trial.enrollment, rendered={"noisy": path})
    assert np.all(render_trial(rendered, "noisy").mixture == 0.25)
    assert not np.all(render_trial(rendered, "clean").mixture == 0.25)
    soundfile.write(path, np.full(100, 0.25), 16000, subtype="FLOAT")
    with pytest.raises(InputError, match="has 100 samples and its sources 2000"):
        render_trial(rendered, "noisy")


def test_impossible_trials_are_errors(trial: Trial) -> None:
    quiet = Trial("a_b", trial.sources, None, 1, "b", trial.enrollment)
    with pytest.raises(InputError, match="has no noise; evaluate it with --condition clean"):
        render_trial(quiet, "noisy")
    with pytest.raises(InputError, match="did you mean 'clean'"):
        render_trial(trial, "cleen")  # type: ignore[arg-type]
    trial.enrollment.unlink()
    with pytest.raises(AudioError, match=r"enrollment\.wav"):
        render_trial(trial)


def test_trial_at_another_rate(trial: Trial) -> None:
    audio = render_trial(trial, "noisy", 8000)
    assert audio.mixture.shape == audio.noise.shape == (1000,)
    np.testing.assert_allclose(audio.mixture, audio.reference + audio.interferers.sum(0) + audio.noise, atol=1e-6)


@pytest.mark.parametrize("name", ["dev_2mix", "dev_3mix", "dev_ls_2mix"])
def test_shared_lists_render(shared_data: Path, name: str) -> None:
    lists = shared_data / "trials"
    trials = read_trials(lists / f"{name}.csv", lists / f"{name}.map_mixture2enrollment", shared_data)
    for trial in trials[:6]:
        audio = render_trial(trial, "noisy")
        assert audio.reference is not None
        total = audio.reference + audio.interferers.sum(axis=0) + audio.noise
        np.testing.assert_allclose(audio.mixture, total, atol=1e-5)
        assert audio.noise.any() and audio.enrollment.size > 8000
