from __future__ import annotations

import numpy as np
import pytest

from wesep_py.metrics import MetricError, pesq
from wesep_py.metrics.perception import PESQ_SAFE_DURATION_S


def bursts(count: int, on_s: float = 0.3, off_s: float = 0.4, sample_rate: int = 16000) -> np.ndarray:
    """Return `count` utterances: noise bursts with pauses between them."""
    rng = np.random.default_rng(0)
    num_on, silence = int(on_s * sample_rate), np.zeros(int(off_s * sample_rate))
    parts = [np.concatenate([0.3 * rng.standard_normal(num_on), silence]) for _ in range(count)]
    return np.concatenate([silence, *parts])


@pytest.mark.parametrize(("sample_rate", "best"), [(16000, 4.64), (8000, 4.55)])
def test_the_reference_itself_has_the_best_score(sample_rate, best):
    speech = bursts(4, sample_rate=sample_rate)
    assert pesq(speech, speech, sample_rate) == pytest.approx(best, abs=0.01)


def test_more_noise_is_worse_and_the_reference_comes_second():
    speech = bursts(4)
    noise = np.random.default_rng(1).standard_normal(len(speech))
    scores = [pesq(speech + gain * noise, speech, 16000) for gain in (1e-4, 1e-2, 1.0)]
    assert scores == sorted(scores, reverse=True)
    assert 1.0 <= scores[-1] < 2 < scores[0]


def test_equals_the_package_in_the_mode_of_the_rate():
    package = pytest.importorskip("pesq")
    speech = bursts(4)
    noisy = speech + 0.03 * np.random.default_rng(1).standard_normal(len(speech))
    assert pesq(noisy, speech, 16000) == pytest.approx(package.pesq(16000, speech, noisy, "wb"), abs=1e-9)
    assert pesq(noisy, speech, 8000) == pytest.approx(package.pesq(8000, speech, noisy, "nb"), abs=1e-9)


def test_a_long_recording_is_scored_in_its_own_process():
    package = pytest.importorskip("pesq")
    speech = bursts(24)
    noisy = speech + 0.03 * np.random.default_rng(1).standard_normal(len(speech))
    assert len(speech) / 16000 > PESQ_SAFE_DURATION_S
    assert pesq(noisy, speech, 16000) == pytest.approx(package.pesq(16000, speech, noisy, "wb"), abs=1e-9)


def test_a_long_recording_that_kills_the_reference_code_fails_alone(tmp_path, monkeypatch):
    """The C code dies on more than 50 utterances (a segmentation fault); here a script dies in its place."""
    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\nkill -SEGV $$\n")
    dying.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(dying))
    with pytest.raises(MetricError, match="more than 50 utterances"):
        pesq(bursts(24), bursts(24), 16000)


def test_a_long_recording_without_utterance_has_a_reason():
    time_s = np.arange(16 * 16000) / 16000
    click = np.where((time_s > 1) & (time_s < 1.05), np.sin(9000 * time_s), 0)
    with pytest.raises(MetricError, match="No utterances detected"):
        pesq(click, click, 16000)


@pytest.mark.slow
def test_more_than_50_utterances_do_not_end_this_process():
    speech = bursts(120)
    with pytest.raises(MetricError, match="more than 50 utterances"):
        pesq(speech, speech, 16000)


@pytest.mark.parametrize(
    ("estimate", "reference", "sample_rate", "reason"),
    [
        (np.ones(16000), np.ones(16000), 44100, "16000 and 8000 Hz, not at 44100"),
        (bursts(1), np.zeros_like(bursts(1)), 16000, "the reference is silent"),
        (np.zeros_like(bursts(1)), bursts(1), 16000, "the estimate is silent"),
        (bursts(1)[6400:8000], bursts(1)[6400:8000], 16000, "at least 1/4 of a second"),
    ],
)
def test_reasons(estimate, reference, sample_rate, reason):
    with pytest.raises(MetricError, match=reason):
        pesq(estimate, reference, sample_rate)
