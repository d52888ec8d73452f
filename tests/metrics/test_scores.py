from __future__ import annotations

import numpy as np
import pytest

from wesep_py.common.errors import InputError
from wesep_py.metrics import DEFINITIONS, METRICS, check_metrics, pesq, score, sdr, si_sdr


@pytest.fixture
def signals() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    envelope = np.abs(np.sin(np.arange(32000) / 4000)) + 0.01
    target, other = rng.standard_normal((2, 32000))
    return target * envelope, other * envelope[::-1]


def test_every_number_of_every_metric(signals):
    target, other = signals
    estimate, mixture = target + 0.1 * other, target + other
    scores = score(estimate, target, 16000, tuple(METRICS), mixture, [other])
    assert set(scores.values) == {name for names in METRICS.values() for name in names}
    assert scores.missing == {}
    assert scores.values["si_sdri"] == pytest.approx(si_sdr(estimate, target) - si_sdr(mixture, target))
    assert scores.values["sdri"] == pytest.approx(sdr(estimate, target) - sdr(mixture, target))
    assert scores.values["pesq"] == pytest.approx(pesq(estimate, target, 16000))
    assert 0 < scores.values["estoi"] < scores.values["stoi"] <= 1


@pytest.mark.parametrize(("leak", "accuracy"), [(0.0, 1.0), (0.85, 1.0), (0.95, 0.0), (1.0, 0.0)])
def test_accuracy_asks_for_more_than_one_db(signals, leak, accuracy):
    target, other = signals
    scores = score(target + leak * other, target, 16000, mixture=target + other, interferers=[other])
    assert scores.values["accuracy"] == accuracy
    assert (scores.values["si_sdri"] > 1) == bool(accuracy)


def test_confusion_is_being_nearer_to_any_interferer(signals):
    target, other = signals
    third = np.random.default_rng(9).standard_normal(32000)
    mixture = target + other + third
    right, wrong, wrong_too = target + 0.3 * other, 0.3 * target + other, 0.3 * target + third
    for estimate, confusion in ((right, 0.0), (wrong, 1.0), (wrong_too, 1.0)):
        scores = score(estimate, target, 16000, mixture=mixture, interferers=[other, third])
        assert scores.values["confusion"] == confusion
    assert score(target, target, 16000, mixture=target, interferers=[]).values["confusion"] == 0.0
    silent = score(target, target, 16000, mixture=target, interferers=[np.zeros(32000)])
    assert silent.values["confusion"] == 0.0


def test_missing_numbers_have_reasons(signals):
    target, other = signals
    alone = score(target + other, target, 16000)
    assert set(alone.values) == {"si_sdr"}
    assert alone.missing == {
        "si_sdri": "no mixture was given",
        "accuracy": "no mixture was given",
        "confusion": "no interferers were given",
    }
    silent = score(target, np.zeros(32000), 16000, tuple(METRICS), target + other, [other])
    assert silent.values == {}
    assert set(silent.missing.values()) == {"the reference is silent"}
    assert set(silent.missing) == set(DEFINITIONS) - {"attenuation_db"}
    other_rate = score(target + other, target, 48000, ("pesq", "stoi"))
    assert set(other_rate.values) == {"stoi"}
    assert "not at 48000 Hz" in other_rate.missing["pesq"]


def test_an_estimate_that_is_not_finite_has_no_number(signals):
    target, other = signals
    scores = score(np.full(32000, np.nan), target, 16000, tuple(METRICS), target + other, [other])
    assert scores.values == {}
    assert set(scores.missing.values()) == {"the estimate has samples that are not finite"}


def test_an_estimate_shorter_than_the_reference_has_no_number(signals):
    target, other = signals
    scores = score(target[:-1], target, 16000, mixture=target + other, interferers=[other])
    assert scores.values == {}
    assert scores.missing["si_sdr"] == "the estimate has 31999 samples and the reference 32000"


def test_metric_names_are_checked():
    assert check_metrics(["sdr", "sdr", "stoi"]) == ("sdr", "stoi")
    with pytest.raises(InputError, match="metric 'si-sdr' is not known; did you mean 'si_sdr'"):
        check_metrics(["si-sdr"])
    with pytest.raises(InputError, match="no metric was named"):
        check_metrics([])
