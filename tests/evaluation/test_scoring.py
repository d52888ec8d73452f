from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import pytest

from wesep_py.evaluation.scoring import CRASHED, ScoringJob, ScoringPool
from wesep_py.metrics import Scores


def job(seed: int, metrics: tuple[str, ...] = ("si_sdr",)) -> ScoringJob:
    rng = np.random.default_rng(seed)
    target, other = rng.standard_normal((2, 1600))
    return ScoringJob(target + 0.1 * seed * other, target, 16000, metrics, target + other, (other,))


@dataclass(frozen=True)
class DeadlyJob(ScoringJob):
    """Ends the process that scores it, as a segmentation fault in a metric's C code would."""

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
    """A worker starts in a fraction of a second only as long as scoring does not import torch."""
    import subprocess
    import sys

    code = "import sys, wesep_py.evaluation.scoring; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
