"""Agreement with other packages to 1e-3 dB on voices, with one, two and three interferers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.conftest import VOICES, make_voice
from wesep_py.metrics import score, sdr, si_sdr

LEAKS = (0.02, 0.3, 1.0, 3.0)


@pytest.fixture(scope="module")
def voices() -> np.ndarray:
    """Return `[4, samples]`, float64, one per speaker."""
    return np.stack([make_voice(*voice, 1.5, seed) for seed, voice in enumerate(VOICES.values())]).astype(np.float64)


@pytest.fixture(scope="module")
def estimates(voices: np.ndarray) -> list[np.ndarray]:
    """Return the first voice with leaking others, a filtered one, and one with an offset."""
    target, others = voices[0], voices[1:]
    leaking = [target + leak * others[: 1 + i % 3].sum(0) for i, leak in enumerate(LEAKS)]
    return [*leaking, np.convolve(leaking[1], [0.7, 0.2, -0.1])[: len(target)], 0.1 * leaking[2] + 0.05]


def as_rows(*signals: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(signal)[None] for signal in signals]


def test_si_sdr_of_asteroid(voices, estimates):
    loss = pytest.importorskip("asteroid.losses.sdr").SingleSrcNegSDR("sisdr")
    for estimate in estimates:
        assert si_sdr(estimate, voices[0]) == pytest.approx(-loss(*as_rows(estimate, voices[0])).item(), abs=1e-3)


def test_si_sdr_of_torchmetrics(voices, estimates):
    audio = pytest.importorskip("torchmetrics.functional.audio")
    for estimate in estimates:
        theirs = audio.scale_invariant_signal_distortion_ratio(*as_rows(estimate, voices[0]), zero_mean=True)
        assert si_sdr(estimate, voices[0]) == pytest.approx(theirs.item(), abs=1e-3)


def test_si_sdr_of_fast_bss_eval(voices, estimates):
    package = pytest.importorskip("fast_bss_eval")
    for estimate in estimates:
        theirs = -float(package.si_sdr_loss(estimate, voices[0], zero_mean=True))
        assert si_sdr(estimate, voices[0]) == pytest.approx(theirs, abs=1e-3)


def test_without_zero_mean_they_mean_something_else(voices, estimates):
    audio = pytest.importorskip("torchmetrics.functional.audio")
    theirs = audio.scale_invariant_signal_distortion_ratio(*as_rows(estimates[-1], voices[0]))
    assert abs(si_sdr(estimates[-1], voices[0]) - theirs.item()) > 1.0


def test_sdr_of_torchmetrics(voices, estimates):
    audio = pytest.importorskip("torchmetrics.functional.audio")
    for estimate in estimates:
        theirs = audio.signal_distortion_ratio(*as_rows(estimate, voices[0]))
        assert sdr(estimate, voices[0]) == pytest.approx(theirs.item(), abs=1e-3)


def test_sdr_of_mir_eval(voices, estimates):
    separation = pytest.importorskip("mir_eval.separation")
    for estimate in estimates[1:4]:
        theirs, *_ = separation.bss_eval_sources(voices[:1], estimate[None], compute_permutation=False)
        assert sdr(estimate, voices[0]) == pytest.approx(float(theirs[0]), abs=1e-3)


@pytest.mark.parametrize("num_interferers", [1, 2, 3])
def test_improvements_of_asteroid_metrics(voices, num_interferers):
    """Theirs scores all sources of a mixture at once, ours one by one."""
    metrics = pytest.importorskip("asteroid.metrics")
    names = ["si_sdr", "sdr"] if num_interferers == 1 else ["si_sdr"]  # theirs tries every permutation of SDRs
    sources = voices[: 1 + num_interferers, 4000:12000]
    mixture = sources.sum(0)
    written = np.stack([source + 0.2 * (mixture - source) for source in sources])
    theirs = metrics.get_metrics(
        mixture, sources, written, sample_rate=16000, metrics_list=names, average=False, filename=None
    )
    for i, source in enumerate(sources):
        ours = score(written[i], source, 16000, names, mixture, [s for j, s in enumerate(sources) if j != i])
        assert ours.values["si_sdr"] == pytest.approx(theirs["si_sdr"][i], abs=1e-3)
        assert ours.values["si_sdri"] == pytest.approx(theirs["si_sdr"][i] - theirs["input_si_sdr"][i], abs=1e-3)
        if "sdr" in names:
            assert ours.values["sdr"] == pytest.approx(theirs["sdr"][i], abs=1e-3)
            assert ours.values["sdri"] == pytest.approx(theirs["sdr"][i] - theirs["input_sdr"][i], abs=1e-3)
        assert ours.values["confusion"] == 0.0
