"""PESQ of many pairs, computed in other processes while a training goes on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor

import numpy as np
from numpy.typing import NDArray

from wesep_py.metrics.errors import MetricError
from wesep_py.metrics.perceptual import MODES, pesq
from wesep_py.worker_processes import worker_processes

Pair = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Reference and estimate, `[samples]` each."""

BEST = {16000: 4.6439, 8000: 4.5486}
"""PESQ of a signal against itself: raw 4.5 mapped by P.862.2, equation 1, and by P.862.1, equation 1."""


def normalised_pesq(reference: NDArray[np.float32], estimate: NDArray[np.float32], sample_rate: int) -> float:
    """PESQ on a scale from 0 (MOS-LQO 1) to 1 (the best there is); NaN where it cannot be computed.

    MetricGAN and CMGAN divide by the length of the scale too ((PESQ + 0.5) / 5 and (PESQ - 1) / 3.5); with the true
    best, a reference against itself has just the 1 that the discriminator is taught for it.
    """
    if not (np.isfinite(reference).all() and np.isfinite(estimate).all()):
        return math.nan
    try:
        value = pesq(estimate, reference, sample_rate)
    except MetricError:
        return math.nan
    return min(1.0, max(0.0, (value - 1.0) / (BEST[sample_rate] - 1.0)))


class QualityScorer:
    """Scores pairs in the background: hand them in with `submit`, and ask for all of them later with `collect`.

    What it gives depends on the pairs alone, not on how fast the processes are: `collect` waits.

    Args:
        sample_rate: 16000 or 8000 Hz.
        workers: processes; 0: `collect` computes in this one.

    Raises:
        ValueError: another sample rate, or fewer than 0 workers.

    >>> scorer = QualityScorer(16000, workers=0)
    >>> noise = np.random.default_rng(0).standard_normal(16000).astype(np.float32) * np.hanning(16000).astype("f")
    >>> scorer.submit([(noise, noise)])
    >>> round(scorer.collect()[0], 3)
    1.0
    """

    def __init__(self, sample_rate: int, workers: int = 2) -> None:
        if sample_rate not in MODES:
            raise ValueError(f"sample_rate: is {sample_rate}; PESQ is defined at 16000 and 8000 Hz")
        if workers < 0:
            raise ValueError(f"workers: is {workers}; 0 or more is allowed")
        self.sample_rate, self.workers = sample_rate, workers
        self._pool: ProcessPoolExecutor | None = None
        self._waiting: list[tuple[Pair, Future[float] | None]] = []

    @property
    def waiting(self) -> list[Pair]:
        """What was handed in and not collected yet."""
        return [pair for pair, _ in self._waiting]

    def submit(self, pairs: Sequence[Pair]) -> None:
        """Hand in pairs; they must not change until they are collected."""
        self._waiting += [(pair, self._start(pair) if self.workers else None) for pair in pairs]

    def collect(self) -> list[float]:
        """Scores of all that waits, in the order handed in; NaN where there is none.

        Where a process died, what it took along is computed once more; what ends a process twice has no score.
        """
        waiting, self._waiting = self._waiting, []
        if not self.workers:
            return [normalised_pesq(*pair, self.sample_rate) for pair, _ in waiting]
        scores = [_result(future) for _, future in waiting]
        if None in scores:
            self.close()
        for position, score in enumerate(scores):
            if score is None:  # in a process of its own, so that a pair that ends it takes no other along
                with worker_processes(1) as pool:
                    scores[position] = _result(pool.submit(normalised_pesq, *waiting[position][0], self.sample_rate))
        return [math.nan if score is None else score for score in scores]

    def close(self) -> None:
        """End the processes; what waits is dropped."""
        self._waiting = []
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _start(self, pair: Pair) -> Future[float] | None:
        if self._pool is None:
            self._pool = worker_processes(self.workers)
        try:
            return self._pool.submit(normalised_pesq, *pair, self.sample_rate)
        except BrokenExecutor:
            return None


def _result(future: Future[float] | None) -> float | None:
    """What it gave; `None` where its process died."""
    try:
        return None if future is None else future.result()
    except BrokenExecutor:
        return None
