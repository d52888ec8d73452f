"""The metrics of a trial: their names, their definitions, and the processes that compute them.

`wesep_py.metrics` computes what needs an estimate and a reference. Here these are joined by speech timing and DNSMOS
(`SIGNAL_METRICS`), and by the names of the metrics that need a model (`BACKEND_METRICS`, measured in
`metric_backends`). `ScoringPool` computes metrics in worker processes: slow metrics keep every core busy, and a crash
in the C code of one costs one trial. Workers start fast because nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from wesep_py.common.errors import InputError, nearest, reason
from wesep_py.common.processes import worker_pool
from wesep_py.evaluation.protocols import find_protocol
from wesep_py.inference.enrolling.speech_activity import speech_mask
from wesep_py.metrics import DEFINITIONS, METRICS, MetricError, Scores, score
from wesep_py.metrics.perception import dnsmos, load_dnsmos
from wesep_py.metrics.separation import checked_pair, checked_signal, is_silent
from wesep_py.metrics.timing import COLLAR_S, FRAME_S, PAUSE_S, frame_error, timing

BASELINE_SUFFIX = "_mixture"
"""Ends the names of the values of the unprocessed mixture."""
SIGNAL_METRICS: dict[str, tuple[str, ...]] = {
    "timing": ("timing_precision", "timing_recall", "timing_f1", "timing_error"),
    "dnsmos": ("dnsmos_ovrl", "dnsmos_sig", "dnsmos_bak", "dnsmos_p808"),
    "pdnsmos": ("pdnsmos_ovrl", "pdnsmos_sig", "pdnsmos_bak"),
}
"""Metrics that need no reference, and the values that each gives; computed in the scoring processes, like `METRICS`."""
BACKEND_METRICS: dict[str, tuple[str, ...]] = {"similarity": ("similarity",), "wer": ("wer",)}
"""Metrics that a `metric_backends.MetricBackend` measures."""
ALL_METRICS: dict[str, tuple[str, ...]] = {**METRICS, **SIGNAL_METRICS, **BACKEND_METRICS}
"""All metrics, and the values that each gives."""
INSTALLED_METRICS = (*METRICS, "timing")
"""Metrics that need no extra package or model: `--metrics all`."""


def _timing_definitions(activities: str, boundary: str) -> dict[str, str]:
    frames = (
        f"frames of {FRAME_S * 1000:g} ms; {activities}, pauses under {PAUSE_S:g} s closed; "
        f"{COLLAR_S:g} s before and after each boundary of the {boundary} not counted"
    )
    return {
        "timing_precision": f"share of the estimate's active frames in which the target speaks, 0 to 1; {frames}",
        "timing_recall": f"share of the frames in which the target speaks that are active in the estimate, 0 to 1; "
        f"{frames}",
        "timing_f1": "harmonic mean of timing_precision and timing_recall of each trial, 0 to 1",
        "timing_error": f"share of all frames in which the activity is missed or false, 0 to 1; {frames}",
    }


# `wesep compare` pairs only results whose definitions are equal: changing a word here makes older results incomparable.
_MOS = "1 to 5 (speechmos)"
_SPEECH_MASK = "(wesep_py.inference.enrolling.speech_activity.speech_mask)"
METRIC_DEFINITIONS: dict[str, str] = {
    **DEFINITIONS,
    **_timing_definitions(f"activity of estimate and reference by energy {_SPEECH_MASK}", "reference"),
    "dnsmos_ovrl": f"DNSMOS P.835 overall opinion, {_MOS}",
    "dnsmos_sig": f"DNSMOS P.835 opinion of the speech, {_MOS}",
    "dnsmos_bak": f"DNSMOS P.835 opinion of the background, {_MOS}",
    "dnsmos_p808": f"DNSMOS P.808 overall opinion, {_MOS}",
    "pdnsmos_ovrl": f"personalised DNSMOS P.835 overall opinion, {_MOS}",
    "pdnsmos_sig": f"personalised DNSMOS P.835 opinion of the speech, {_MOS}",
    "pdnsmos_bak": f"personalised DNSMOS P.835 opinion of the background, {_MOS}",
    "similarity": "cosine of the embeddings of estimate and enrollment, -1 to 1",
    "wer": "word error rate: words to insert, delete or replace over words of the reference, all trials together; "
    "case and punctuation do not count, each ideograph is a word",
}
"""Definition of each value, as every summary carries it."""
LABELLED_DEFINITIONS = _timing_definitions(
    f"the target speaks where the labels say so; activity of the estimate by energy {_SPEECH_MASK}", "labels"
)
"""Definitions that differ where activity labels are given."""


def detected_definitions(detector: str, labelled: bool) -> dict[str, str]:
    """Return the definitions that differ where a detector other than energy finds the speech of the estimates.

    Args:
        detector: its name.
        labelled: whether there are activity labels.
    """
    where = "the target speaks where the labels say so" if labelled else f"activity of the reference by {detector}"
    boundary = "labels" if labelled else "reference"
    return _timing_definitions(f"{where}; activity of the estimate by {detector}", boundary)


BASELINE_DEFINITIONS = {
    f"{name}{BASELINE_SUFFIX}": f"{name} of the unprocessed mixture in place of the estimate"
    for name in BACKEND_METRICS
}
"""Definitions of the values of unprocessed mixtures (`ScoringOptions.baseline`)."""


def check_metric_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of metrics, each once.

    Raises:
        InputError: a name is unknown (the nearest known one is suggested), or there is none.
    """
    metrics = tuple(dict.fromkeys(names))
    for name in metrics:
        if name not in ALL_METRICS:
            raise InputError(f"metric {name!r} is not known; {nearest(name, ALL_METRICS)}")
    if not metrics:
        raise InputError(f"no metric was named; {nearest('', ALL_METRICS)}")
    return metrics


def parse_metrics(text: str) -> tuple[str, ...]:
    """Return the metrics of a comma-separated list; `all` stands for `INSTALLED_METRICS`.

    >>> parse_metrics("si_sdr, pesq")
    ('si_sdr', 'pesq')
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    return check_metric_names(metric for name in names for metric in (INSTALLED_METRICS if name == "all" else (name,)))


def check_computable(metrics: Sequence[str], referenced: bool, labelled: bool) -> None:
    """Refuse metrics that no trial of a run can have, before anything is extracted.

    Args:
        metrics: from `check_metric_names`.
        referenced: whether any trial has a reference.
        labelled: whether there are activity labels.

    Raises:
        InputError: a metric needs references or labels, or its package cannot be imported.
    """
    for name in metrics:
        if name in METRICS and not referenced:
            raise InputError(
                f"metric {name!r} needs references, and there are none; choose of timing (with --labels), dnsmos, "
                "pdnsmos, similarity (with --speaker-model), wer (with --recogniser) with --metrics"
            )
        if name == "timing" and not referenced and not labelled:
            raise InputError("metric 'timing' needs references or labels; give --labels")
        if name in ("dnsmos", "pdnsmos"):
            try:
                load_dnsmos()
            except MetricError as error:
                raise InputError(f"metric {name!r}: {error}") from error


def compute_metrics(
    estimate: np.ndarray,
    reference: np.ndarray | None,
    sample_rate: int,
    metrics: Sequence[str],
    mixture: np.ndarray | None,
    interferers: Sequence[np.ndarray] | None,
    activity: np.ndarray | None = None,
    protocol: str | None = None,
) -> Scores:
    """Compute the metrics of one estimate; those of backends are skipped.

    A metric that fails, for whatever reason, is missing with that reason; nothing is raised.

    Args:
        estimate, sample_rate, mixture, interferers: as `wesep_py.metrics.score`.
        reference: `[samples]`; `None`: metrics that need it are missing.
        metrics: names out of `ALL_METRICS`.
        activity: whether the target speaks, bool `[frames]` of `timing.FRAME_S`; `None`: by energy of the reference.
        protocol: name of the protocol (`protocols.PROTOCOLS`) whose definitions replace ours; `None`: ours.
    """
    scores = Scores()
    for name in metrics:
        if name in BACKEND_METRICS:
            continue
        try:
            if name not in METRICS:
                numbers = _COMPUTE[name](estimate, reference, sample_rate, activity)
                scores.values.update(zip(SIGNAL_METRICS[name], numbers, strict=False))
            elif reference is None:
                raise MetricError("there is no reference")
            else:
                separation = score(estimate, reference, sample_rate, (name,), mixture, interferers)
                scores.values.update(separation.values)
                scores.missing.update(separation.missing)
        except MetricError as error:
            scores.missing.update(dict.fromkeys(ALL_METRICS[name], str(error)))
        except Exception as error:  # of whatever kind: it costs this metric of this trial, not the run
            scores.missing.update(dict.fromkeys(ALL_METRICS[name], reason(error)))
    chosen = find_protocol(protocol)
    if chosen is not None and reference is not None:
        chosen.apply(scores, metrics, estimate, reference, mixture)
    return scores


def _timing(
    estimate: np.ndarray, reference: np.ndarray | None, sample_rate: int, activity: np.ndarray | None
) -> tuple[float, float, float, float]:
    if activity is None:
        if reference is None:
            raise MetricError("there is neither a reference nor a label")
        estimate, reference = checked_pair(estimate, reference)
        activity = _speech_frames(reference, sample_rate)
    elif not activity.any():
        raise MetricError("the labels say that the target does not speak")
    estimate = checked_signal(estimate, "estimate")
    # The mask is relative to the loudest frame, so that numerical noise would count as speech in a silent estimate.
    detected = _speech_frames(estimate, sample_rate) & (not is_silent(estimate))
    return *timing(detected, activity), frame_error(detected, activity)


def _speech_frames(signal: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return whether there is speech at the start of each frame of `FRAME_S`, bool `[frames]`."""
    return speech_mask(signal.astype(np.float32), sample_rate)[:: max(1, round(FRAME_S * sample_rate))]


_COMPUTE: dict[str, Callable[[np.ndarray, np.ndarray | None, int, np.ndarray | None], Iterable[float]]] = {
    "timing": _timing,
    "dnsmos": lambda estimate, _, sample_rate, __: dnsmos(estimate, sample_rate).values(),
    "pdnsmos": lambda estimate, _, sample_rate, __: dnsmos(estimate, sample_rate, personalised=True).values(),
}

CRASHED = "the process that scored it ended unexpectedly"


@dataclass(frozen=True)
class ScoringJob:
    """Arguments of `compute_metrics` for one trial, as they are sent to a scoring process."""

    estimate: np.ndarray
    reference: np.ndarray | None
    sample_rate: int
    metrics: tuple[str, ...]
    mixture: np.ndarray | None
    interferers: tuple[np.ndarray, ...] | None
    activity: np.ndarray | None = None
    protocol: str | None = None

    def run(self) -> Scores:
        """Compute the metrics in this process."""
        return compute_metrics(
            self.estimate,
            self.reference,
            self.sample_rate,
            self.metrics,
            self.mixture,
            self.interferers,
            self.activity,
            self.protocol,
        )


class ScoringPool:
    """Worker processes that score jobs in any order; a context manager.

    Args:
        num_processes: number of worker processes; 0 scores in this process.

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
        """Score a job; `finished` returns its scores with `number`. Wait while the queue is full."""
        if not self._num_processes:
            self._done.append((number, job.run()))
            return
        while len(self._pending) >= 4 * self._num_processes:  # jobs hold waveforms: bounds the memory
            self._collect(wait(self._pending, return_when=FIRST_COMPLETED).done)
        self._send(number, job)

    def finished(self, wait_for_all: bool = False) -> Iterator[tuple[int, Scores]]:
        """Yield number and scores of each job that finished since the last call; of every job if `wait_for_all`."""
        while True:
            self._collect({future for future in self._pending if future.done()})
            while self._done:
                yield self._done.pop(0)
            if not (wait_for_all and self._pending):
                return
            wait(self._pending, return_when=FIRST_COMPLETED)

    def _send(self, number: int, job: ScoringJob) -> None:
        if self._pool is None:
            self._pool = worker_pool(self._num_processes)
        try:
            self._pending[self._pool.submit(job.run)] = (number, job)
        except BrokenProcessPool:
            self._recover()
            self._send(number, job)

    def _collect(self, futures: set[Future[Scores]]) -> None:
        for future in futures:
            if future not in self._pending:  # `_recover` has scored it meanwhile
                continue
            try:
                scores = future.result()
            except BrokenProcessPool:
                self._recover()
                return
            self._done.append((self._pending.pop(future)[0], scores))

    def _recover(self) -> None:
        """Score every pending job in a process of its own.

        When one worker dies, the executor fails all pending jobs and does not say which job killed it. Alone in a
        process, only the job that dies again is lost.
        """
        jobs, self._pending = list(self._pending.values()), {}
        self._close()
        for number, job in jobs:
            with worker_pool(1) as pool:
                try:
                    scores = pool.submit(job.run).result()
                except BrokenProcessPool:
                    metrics = [metric for metric in job.metrics if metric not in BACKEND_METRICS]
                    names = [name for metric in metrics for name in ALL_METRICS[metric]]
                    scores = Scores(missing=dict.fromkeys(names, CRASHED))
            self._done.append((number, scores))

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
