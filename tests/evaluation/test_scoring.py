from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import pytest

from tests.conftest import VOICES, make_voice
from wesep_py.common.errors import InputError
from wesep_py.evaluation.scoring import (
    ALL_METRICS,
    BACKEND_METRICS,
    CRASHED,
    INSTALLED_METRICS,
    METRIC_DEFINITIONS,
    ScoringJob,
    ScoringPool,
    check_computable,
    check_metric_names,
    compute_metrics,
    parse_metrics,
)
from wesep_py.metrics import Scores

VOICE, OTHER = (make_voice(*VOICES[name], 2.0, 0) for name in ("anna", "bert"))


def test_every_number_has_a_definition():
    assert {name for names in ALL_METRICS.values() for name in names} <= set(METRIC_DEFINITIONS)


def test_all_needs_nothing_but_the_installation():
    assert parse_metrics("all") == INSTALLED_METRICS
    assert parse_metrics("dnsmos,all")[0] == "dnsmos"
    assert not set(INSTALLED_METRICS) & {*BACKEND_METRICS, "dnsmos", "pdnsmos"}
    with pytest.raises(InputError, match="metric 'pesk' is not known; did you mean 'pesq'"):
        parse_metrics("si_sdr,pesk")
    with pytest.raises(InputError, match="no metric was named"):
        check_metric_names([])


def test_timing_of_signals():
    pause = np.zeros(16000, np.float32)
    reference = np.concatenate([pause, VOICE, pause])
    whole = np.concatenate([OTHER, VOICE])
    good = compute_metrics(0.1 * reference, reference, 16000, ("timing",), None, None).values
    assert good["timing_f1"] == 1.0
    late = compute_metrics(
        np.concatenate([pause, pause, VOICE[16000:], pause]), reference, 16000, ("timing",), None, None
    ).values
    assert late["timing_precision"] == 1.0
    assert late["timing_recall"] == pytest.approx(0.5, abs=0.08)
    busy = compute_metrics(whole, np.concatenate([0 * OTHER, VOICE]), 16000, ("timing",), None, None).values
    assert busy["timing_precision"] == pytest.approx(0.5, abs=0.1)
    assert busy["timing_recall"] > 0.98


def test_timing_of_silence_is_zero_or_missing():
    silence = np.zeros_like(VOICE)
    assert compute_metrics(silence, VOICE, 16000, ("timing",), None, None).values["timing_f1"] == 0.0
    scores = compute_metrics(VOICE, silence, 16000, ("timing",), None, None)
    assert scores.missing == dict.fromkeys(ALL_METRICS["timing"], "the reference is silent")


def test_timing_against_labels():
    """Where there are labels, the reference has no influence and is not needed."""
    estimate = np.concatenate([VOICE, np.zeros(16000, np.float32)])
    says = np.repeat([True, False], [100, 50])
    alone = compute_metrics(estimate, None, 16000, ("timing", "si_sdr"), None, None, says)
    assert alone.values["timing_f1"] > 0.9  # the voice has pauses of its own
    assert set(alone.missing.values()) == {"there is no reference"}
    assert compute_metrics(estimate, OTHER, 16000, ("timing",), None, None, says).values == alone.values
    half = compute_metrics(
        estimate, estimate, 16000, ("timing",), None, None, np.repeat([True, False], [50, 100])
    ).values
    assert half["timing_precision"] == pytest.approx(0.5, abs=0.08) and half["timing_recall"] == 1.0
    never = compute_metrics(estimate, None, 16000, ("timing",), None, None, np.zeros(150, bool)).missing
    assert set(never.values()) == {"the labels say that the target does not speak"}
    unknown = compute_metrics(estimate, None, 16000, ("timing",), None, None).missing
    assert set(unknown.values()) == {"there is neither a reference nor a label"}


def test_what_no_trial_can_have_is_refused():
    check_computable(("si_sdr", "timing"), referenced=True, labelled=False)
    check_computable(("timing", "similarity"), referenced=False, labelled=True)
    with pytest.raises(InputError, match="metric 'si_sdr' needs references, and there are none; choose of timing"):
        check_computable(("timing", "si_sdr"), referenced=False, labelled=True)
    with pytest.raises(InputError, match="metric 'timing' needs references or labels; give --labels"):
        check_computable(("timing",), referenced=False, labelled=False)


def test_metrics_of_backends_are_skipped():
    scores = compute_metrics(VOICE, VOICE, 16000, ("similarity", "wer", "si_sdr"), None, None)
    assert set(scores.values) == {"si_sdr"}
    assert not set(scores.missing) & set(BACKEND_METRICS)


def test_without_the_package_dnsmos_is_missing_with_what_to_do(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "speechmos", None)
    scores = compute_metrics(VOICE, VOICE, 16000, ("dnsmos", "pdnsmos", "si_sdr"), None, None)
    assert set(scores.missing) >= {*ALL_METRICS["dnsmos"], *ALL_METRICS["pdnsmos"]}
    assert "pip install 'wesep-py[mos]'" in scores.missing["dnsmos_ovrl"]
    assert "si_sdr" in scores.values
    with pytest.raises(InputError, match="metric 'pdnsmos': speechmos cannot be imported"):
        check_computable(("si_sdr", "pdnsmos"), referenced=True, labelled=False)


def test_personalised_opinions_have_names_of_their_own(monkeypatch):
    import sys
    import types

    package = types.ModuleType("speechmos")
    marks = {"dnsmos": 3.0, "dnsmos_personalized": 2.0}
    package.dnsmos = types.SimpleNamespace(
        run=lambda sample, sr, model_type: {f"{part}_mos": marks[model_type] for part in ("ovrl", "sig", "bak", "p808")}
    )
    monkeypatch.setitem(sys.modules, "speechmos", package)
    values = compute_metrics(VOICE, VOICE, 16000, ("dnsmos", "pdnsmos"), None, None).values
    assert {name: value for name, value in values.items() if value == 2.0}.keys() == set(ALL_METRICS["pdnsmos"])
    assert {name: value for name, value in values.items() if value == 3.0}.keys() == set(ALL_METRICS["dnsmos"])


def job(seed: int, metrics: tuple[str, ...] = ("si_sdr",)) -> ScoringJob:
    rng = np.random.default_rng(seed)
    target, other = rng.standard_normal((2, 1600))
    return ScoringJob(target + 0.1 * seed * other, target, 16000, metrics, target + other, (other,))


@dataclass(frozen=True)
class DeadlyJob(ScoringJob):
    """End the process that scores it, as a segmentation fault in a metric's C code would."""

    def run(self) -> Scores:
        os._exit(11)


@pytest.mark.parametrize("num_processes", [0, 2])
def test_every_job_comes_back_once_with_its_number(num_processes):
    with ScoringPool(num_processes) as pool:
        for number in range(1, 12):
            pool.submit(number, job(number))
        results = dict(pool.finished(wait_for_all=True))
        assert list(pool.finished(wait_for_all=True)) == []
    assert results == {number: job(number).run() for number in range(1, 12)}


def test_a_job_that_kills_its_process_loses_only_itself():
    deadly = DeadlyJob(**vars(job(5, ("si_sdr", "pesq"))))
    with ScoringPool(2) as pool:
        for number in range(1, 8):
            pool.submit(number, deadly if number == 3 else job(number))
        results = dict(pool.finished(wait_for_all=True))
        pool.submit(9, job(9))
        results.update(pool.finished(wait_for_all=True))
    assert results[3].values == {}
    assert results[3].missing == dict.fromkeys(("si_sdr", "si_sdri", "accuracy", "confusion", "pesq"), CRASHED)
    assert {number: scores for number, scores in results.items() if number != 3} == {
        number: job(number).run() for number in (1, 2, 4, 5, 6, 7, 9)
    }


def test_workers_need_no_torch():
    """Without torch, a worker starts in a fraction of a second."""
    import subprocess
    import sys

    code = "import sys, wesep_py.evaluation.scoring; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
