"""Scoring in worker processes, so that slow metrics keep every core busy and a crash costs one trial."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from wesep_py.evaluation.measures import BY_LISTENERS, MEASURES, measure
from wesep_py.metrics import Scores
from wesep_py.worker_processes import worker_processes

CRASHED = "the process that scored it ended unexpectedly"


@dataclass(frozen=True)
class ScoringJob:
    """The arguments of `measures.measure` for one trial; all but the estimate may be unknown."""

    estimate: np.ndarray
    reference: np.ndarray | None
    sample_rate: int
    metrics: tuple[str, ...]
    mixture: np.ndarray | None
    interferers: tuple[np.ndarray, ...] | None
    activity: np.ndarray | None = None

    def run(self) -> Scores:
        """Score it in this process."""
        return measure(
            self.estimate,
            self.reference,
            self.sample_rate,
            self.metrics,
            self.mixture,
            self.interferers,
            self.activity,
        )


class ScoringPool:
    """Worker processes that score jobs, in any order; a context manager.

    Args:
        num_processes: 0 scores in this process.

    >>> noise = np.random.default_rng(0).standard_normal(800)
    >>> with ScoringPool(0) as pool:
    ...     pool.submit(7, ScoringJob(noise, noise, 8000, ("si_sdr",), noise, ()))
    ...     [(number, scores.values["si_sdri"]) for number, scores in pool.finished(wait_for_all=True)]
    [(7, 0.0)]
    """

    def __init__(self, num_processes: int) -> None:
        self._num_processes = num_processes
        self._pool: ProcessPoolExecutor | None = None
        self._pending: dict[Future[Scores], tuple[int, ScoringJob]] = {}
        self._done: list[tuple[int, Scores]] = []

    def __enter__(self) -> ScoringPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def submit(self, number: int, job: ScoringJob) -> None:
        """Score `job`; `finished` gives its scores with `number`. Waits while many jobs are in work."""
        if not self._num_processes:
            self._done.append((number, job.run()))
            return
        while len(self._pending) >= 4 * self._num_processes:
            self._collect(wait(self._pending, return_when=FIRST_COMPLETED).done)
        self._send(number, job)

    def finished(self, wait_for_all: bool = False) -> Iterator[tuple[int, Scores]]:
        """Numbers and scores of the jobs that are done since the last call; of all of them if `wait_for_all`."""
        while True:
            self._collect({future for future in self._pending if future.done()})
            while self._done:
                yield self._done.pop(0)
            if not (wait_for_all and self._pending):
                return
            wait(self._pending, return_when=FIRST_COMPLETED)

    def _send(self, number: int, job: ScoringJob) -> None:
        if self._pool is None:
            self._pool = worker_processes(self._num_processes)
        try:
            self._pending[self._pool.submit(job.run)] = (number, job)
        except BrokenProcessPool:
            self._recover()
            self._send(number, job)

    def _collect(self, futures: set[Future[Scores]]) -> None:
        for future in futures:
            if future not in self._pending:
                continue
            try:
                scores = future.result()
            except BrokenProcessPool:
                self._recover()
                return
            self._done.append((self._pending.pop(future)[0], scores))

    def _recover(self) -> None:
        """A worker died, and every job in work with it: score each of them in a process of its own."""
        jobs, self._pending = list(self._pending.values()), {}
        self._close()
        for number, job in jobs:
            with worker_processes(1) as pool:
                try:
                    scores = pool.submit(job.run).result()
                except BrokenProcessPool:
                    asked = [metric for metric in job.metrics if metric not in BY_LISTENERS]
                    names = [name for metric in asked for name in MEASURES[metric]]
                    scores = Scores(missing=dict.fromkeys(names, CRASHED))
            self._done.append((number, scores))

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
