"""A list of trials, extracted and scored."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from wesep_py.common.errors import InputError, nearest
from wesep_py.data.trials import ABSENT
from wesep_py.evaluation import summary as protocol
from wesep_py.evaluation.activity_labels import ActivityLabels
from wesep_py.evaluation.results import AUDIO, AudioSaver, Journal, TrialRecord
from wesep_py.evaluation.scoring import (
    BACKEND_METRICS,
    ALL_METRICS,
    MetricBackend,
    ScoringJob,
    ScoringPool,
    check_metric_names,
    check_computable,
    apply_backends,
)
from wesep_py.evaluation.summary import summarise
from wesep_py.evaluation.trial_conditions import Speakers, age_group, gender_pair
from wesep_py.evaluation.trial_extraction import ExtractedTrial, can_batch, extract_all, render
from wesep_py.metrics import MetricError
from wesep_py.simulation.trial_audio import CONDITIONS, Condition

if TYPE_CHECKING:
    from wesep_py.data.embedding_files import Embeddings
    from wesep_py.data.trials import Trial
    from wesep_py.inference import Extractor


# ----------------------------------------
# The scoring of a run: what has been extracted goes in, records, files and the summary come out.

log = logging.getLogger(__name__)
SAY_EVERY_S = 60.0


class ScoringSession:
    """One run; a context manager.

    Args:
        protocol: how it is measured.
        total: number of trials.
        names: what is measured, out of `measures.ALL_METRICS`.
        jobs: processes that score; 0 scores in this one.
        folder: for the results; None: nothing is written.
        overwrite: begin anew in a folder that holds results.
        listeners: measures that need more than two signals.
        save_audio: of so many trials, the first ones, audio is saved.
        save_extremes: of so many of the worst and of the best trials, audio is saved.
        on_progress: called with the number of trials done, and of all.
        labels: what says when the targets speak; `None`: their references.

    Attributes:
        done: numbers of the trials that an earlier part of the run has done.
        records: all trials that are done, by their number.

    Raises:
        InputError: as `Journal`.
    """

    def __init__(
        self,
        protocol: Mapping[str, Any],
        total: int,
        names: Sequence[str],
        jobs: int,
        folder: Path | None = None,
        overwrite: bool = False,
        listeners: Sequence[MetricBackend] = (),
        save_audio: int = 0,
        save_extremes: int = 0,
        on_progress: Callable[[int, int], None] | None = None,
        labels: ActivityLabels | None = None,
    ) -> None:
        self._protocol, self._total, self._names = protocol, total, tuple(names)
        self._journal = None if folder is None else Journal(folder, protocol, overwrite)
        self.records: dict[int, TrialRecord] = {} if self._journal is None else dict(self._journal.done)
        self.done = frozenset(self.records)
        audio = None if folder is None else folder / AUDIO
        self._keeper = AudioSaver(audio, save_audio, save_extremes, self.records.values())
        self._listeners, self._on_progress, self._labels = list(listeners), on_progress, labels
        self._waiting: dict[int, ExtractedTrial] = {}
        self._pool = ScoringPool(jobs)
        self._begun = self._said = time.monotonic()

    def __enter__(self) -> ScoringSession:
        self._pool.__enter__()
        if self.done:
            log.info("%d of %d trials are done already", len(self.done), self._total)
            self._report()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.__exit__(kind, error, trace)
        if self._journal is not None:
            self._journal.close()

    def add(self, extracted: ExtractedTrial) -> None:
        """Score a trial, and write down those that are done by now. Its record has its number."""
        record, audio, estimate = extracted.record, extracted.audio, extracted.estimate
        if record.number is None:
            raise ValueError("the trial's record has no number")
        if record.outcome != "scored":
            self._finish(extracted)
        else:
            assert audio is not None and estimate is not None
            rate = audio.sample_rate
            apply_backends(self._listeners, record, estimate, audio.reference, audio.enrollment, rate)
            interferers = None if audio.interferers is None else tuple(audio.interferers)
            names, activity = self._labelled(extracted)
            self._waiting[record.number] = extracted
            self._pool.submit(
                record.number,
                ScoringJob(estimate, audio.reference, rate, names, audio.mixture, interferers, activity),
            )
        self._collect()

    def finish(self) -> dict[str, Any]:
        """Wait for what is still being scored; write and return the summary."""
        self._collect(wait_for_all=True)
        records = [self.records[number] for number in sorted(self.records)]
        summary = summarise(records, self._protocol)
        if self._journal is not None:
            self._journal.finish(records, summary)
        return summary

    def _labelled(self, extracted: ExtractedTrial) -> tuple[tuple[str, ...], np.ndarray | None]:
        """What is to be measured, and when the target speaks by the labels; without a label, timing is missing."""
        record, audio, estimate = extracted.record, extracted.audio, extracted.estimate
        assert audio is not None and estimate is not None
        if self._labels is None or "timing" not in self._names:
            return self._names, None
        target, recording = record.target_utterance_id, record.mixture_id
        named = [target, *filter(None, (extracted.speaker_id, Path(record.enrollment).stem))]
        try:
            activity = self._labels.activity(recording, named, len(estimate), audio.sample_rate, target == recording)
        except MetricError as error:
            record.missing.update(dict.fromkeys(ALL_METRICS["timing"], str(error)))
            return tuple(name for name in self._names if name != "timing"), None
        return self._names, activity

    def _collect(self, wait_for_all: bool = False) -> None:
        for number, scores in self._pool.finished(wait_for_all):
            extracted = self._waiting.pop(number)
            extracted.record.values.update(scores.values)
            extracted.record.missing.update(scores.missing)
            self._finish(extracted)

    def _finish(self, extracted: ExtractedTrial) -> None:
        record = extracted.record
        assert record.number is not None
        self.records[record.number] = record
        self._keeper.offer(extracted)
        if self._journal is not None:
            self._journal.append(record)
        self._report()

    def _report(self) -> None:
        done, now = len(self.records), time.monotonic()
        if self._on_progress:
            self._on_progress(done, self._total)
        fresh = done - len(self.done)
        if now - self._said >= SAY_EVERY_S and fresh:
            self._said = now
            left_s = (now - self._begun) / fresh * (self._total - done)
            log.info("%d of %d trials, about %.0f min left", done, self._total, left_s / 60)


Item = TypeVar("Item")
Value = TypeVar("Value")
CHEAP = {"si_sdr", "timing"}
"""What takes a millisecond, less than sending the signals to another process."""


def evaluate(
    extractor: Extractor,
    trials: Sequence[Trial],
    out: str | Path | None = None,
    condition: Condition = "clean",
    metrics: Iterable[str] = ("si_sdr",),
    jobs: int | None = None,
    speakers: Speakers | None = None,
    overwrite: bool = False,
    save_audio: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
    command: str | None = None,
    listeners: Sequence[MetricBackend] = (),
    save_extremes: int = 0,
    batch_size: int = 1,
    embeddings: Embeddings | None = None,
    labels: ActivityLabels | None = None,
) -> dict[str, Any]:
    """Extract and score every trial; a trial that fails is recorded and does not stop the rest.

    A run into a folder that was killed goes on when it is started again with the same protocol: trials that are done
    are not done again.

    Args:
        extractor: the model; trials are rendered at its sample rate.
        trials: from `corpus.read_trials`.
        out: a folder, made if it is not there, for `per_trial.jsonl` (a line a trial, in the order of `trials`),
            `summary.json` and `audio/`. None: nothing is written.
        condition: "clean" (speakers only) or "noisy" (with noise).
        metrics: names out of `measures.ALL_METRICS`.
        jobs: processes that score; 0 scores in this one. None: 0 for SI-SDR alone, else one a core.
        speakers: gender and age of speakers, for the breakdown by them.
        overwrite: replace earlier results in `out`.
        save_audio: of so many trials, the first ones, mixture, estimate and reference are saved in `out`.
        on_progress: called with the number of trials scored so far, and of all.
        command: how this was started, for the protocol; None: the command line of this process.
        listeners: what measures `similarity` or `wer`; their names need not stand in `metrics`.
        save_extremes: of so many of the worst trials and as many of the best, audio is saved in `out`.
        batch_size: mixtures of one length that are extracted at a time; 1 is best on a CPU.
        embeddings: of the trials' enrollments, for a model that takes precomputed ones; `None` for any other.
        labels: when the targets speak, for timing, which need not stand in `metrics` then; `None`: when their
            references do.

    Returns:
        The content of `summary.json`; see `summary.summarise`.

    Raises:
        InputError: no trials; an unknown metric or condition; a metric whose listener is not there; audio to be saved
            but no folder; embeddings as `describe_embeddings`; `out` holds an unfinished run with another protocol.
        OutputExistsError: `out` holds results, and `overwrite` is false.
        WesepError: the disk is full.

    >>> summary = evaluate(load("exp/mine"), trials, "results")  # doctest: +SKIP
    >>> summary["si_sdri"]["mean"]                               # doctest: +SKIP
    """
    chosen = with_timing(with_backends(check_metric_names(metrics), [listener.name for listener in listeners]), labels)
    if condition not in CONDITIONS:
        raise InputError(f"condition {condition!r} is not known; {nearest(condition, CONDITIONS)}")
    if not trials:
        raise InputError("there are no trials to evaluate; check the list of trials, and that limit is not 0")
    if (save_audio or save_extremes) and out is None:
        raise InputError("audio cannot be saved without an output folder; name one")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; give the number of mixtures extracted at a time, 1 or more")
    absent = all(trial.target_utterance_id == ABSENT for trial in trials)
    check_computable(chosen, absent or any(trial.sources for trial in trials), labels is not None)
    jobs = num_scoring_processes(jobs, chosen, len(trials))
    measured = protocol.describe_evaluation(extractor, trials, condition, chosen, command, listeners, labels)
    if batch_size > 1 and can_batch(extractor):
        measured["batch_size"] = batch_size
    measured |= describe_embeddings(extractor, trials, embeddings)
    folder = None if out is None else Path(out)
    with ScoringSession(
        measured,
        len(trials),
        chosen,
        jobs,
        folder,
        overwrite,
        listeners,
        save_audio,
        save_extremes,
        on_progress,
        labels,
    ) as session:
        for number in session.done:
            _name_speakers(session.records[number], trials[number], speakers)
        left = [(number, trial) for number, trial in enumerate(trials) if number not in session.done]
        rendered = map_ahead(
            partial(_rendered, condition=condition, sample_rate=extractor.sample_rate, embeddings=embeddings),
            left,
            depth=max(4, batch_size),
        )
        listed = ((number, trial, audio) for (number, trial), audio in zip(left, rendered, strict=True))
        for trial, extracted in extract_all(extractor, listed, batch_size):
            _name_speakers(extracted.record, trial, speakers)
            session.add(extracted)
        return session.finish()


def describe_embeddings(extractor: Extractor, trials: Sequence[Trial], embeddings: Embeddings | None) -> dict[str, Any]:
    """For the protocol: which embeddings introduce the voices; empty where recordings do.

    Raises:
        InputError: embeddings for a model that takes none, or none for one that takes them; an enrollment without one.
    """
    dim = extractor.embedding_dim
    if embeddings is None:
        if dim is not None:
            raise InputError(
                f"{extractor.name}: takes embeddings of {dim} numbers that are computed elsewhere; give --embeddings"
            )
        return {}
    if dim is None:
        raise InputError(f"{extractor.name}: takes no embeddings that are computed elsewhere; leave out --embeddings")
    digest = hashlib.sha256()
    for trial in trials:
        digest.update(embeddings.of_trial(trial).tobytes())
    return {"embeddings": {"path": str(embeddings.path), "sha256": digest.hexdigest()}}


def with_backends(chosen: tuple[str, ...], given: Sequence[str]) -> tuple[str, ...]:
    """The measures that were chosen, and those of the listeners that are given, by their names.

    Raises:
        InputError: a measure was chosen that none of the listeners gives.
    """
    for name in chosen:
        if name in BACKEND_METRICS and name not in given:
            option = {"similarity": "--speaker-model", "wer": "--recogniser"}[name]
            raise InputError(f"metric {name!r} needs something that measures it; give {option}")
    return (*chosen, *(name for name in given if name not in chosen))


def with_timing(chosen: tuple[str, ...], labels: ActivityLabels | None) -> tuple[str, ...]:
    """The measures that were chosen, and timing, where there are labels for it."""
    return chosen if labels is None or "timing" in chosen else (*chosen, "timing")


def num_scoring_processes(jobs: int | None, chosen: Sequence[str], num_trials: int) -> int:
    """The number of scoring processes, by default none where it would not pay, else one a core.

    Raises:
        InputError: a negative number.
    """
    if jobs is not None:
        if jobs < 0:
            raise InputError(f"jobs is {jobs}; give the number of scoring processes, 0 or more")
        return jobs
    if CHEAP.union(BACKEND_METRICS).issuperset(chosen):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, num_trials)


def map_ahead(function: Callable[[Item], Value], items: Iterable[Item], depth: int = 4) -> Iterator[Value]:
    """`map`, with the next few items computed in a thread meanwhile."""
    with ThreadPoolExecutor(1) as thread:
        waiting: deque[Any] = deque()
        for item in items:
            waiting.append(thread.submit(function, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _name_speakers(record: TrialRecord, trial: Trial, speakers: Speakers | None) -> None:
    record.gender_pair = None if speakers is None or not trial.sources else gender_pair(trial, speakers)
    record.age_group = None if speakers is None else age_group(trial, speakers)


def _rendered(
    numbered: tuple[int, Trial], condition: Condition, sample_rate: int, embeddings: Embeddings | None
) -> Any:
    return render(numbered[1], condition, sample_rate, embeddings)
