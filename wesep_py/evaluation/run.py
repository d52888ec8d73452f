"""A list of trials, extracted and scored."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from wesep_py.corpus.trials import ABSENT
from wesep_py.errors import InputError, nearest
from wesep_py.evaluation import protocol
from wesep_py.evaluation.batches import can_batch, extract_all
from wesep_py.evaluation.extraction import render
from wesep_py.evaluation.journal import AUDIO, PER_TRIAL, SUMMARY, check_output
from wesep_py.evaluation.labels import Labels
from wesep_py.evaluation.listeners import Listener
from wesep_py.evaluation.measures import BY_LISTENERS, check_measures, check_possible
from wesep_py.evaluation.record import TrialRecord
from wesep_py.evaluation.session import Session
from wesep_py.evaluation.speakers import Speakers, age_group, gender_pair
from wesep_py.simulation.trials import CONDITIONS, Condition

if TYPE_CHECKING:
    from wesep_py.corpus.embeddings import Embeddings
    from wesep_py.corpus.trials import Trial
    from wesep_py.inference import Extractor

__all__ = ["AUDIO", "PER_TRIAL", "SUMMARY", "check_output", "evaluate"]

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
    listeners: Sequence[Listener] = (),
    save_extremes: int = 0,
    batch_size: int = 1,
    embeddings: Embeddings | None = None,
    labels: Labels | None = None,
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
        metrics: names out of `measures.MEASURES`.
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
            but no folder; embeddings as `introduced_by`; `out` holds an unfinished run with another protocol.
        OutputExistsError: `out` holds results, and `overwrite` is false.
        WesepError: the disk is full.

    >>> summary = evaluate(load("exp/mine"), trials, "results")  # doctest: +SKIP
    >>> summary["si_sdri"]["mean"]                               # doctest: +SKIP
    """
    chosen = with_labels(with_listeners(check_measures(metrics), [listener.name for listener in listeners]), labels)
    if condition not in CONDITIONS:
        raise InputError(f"condition {condition!r} is not known; {nearest(condition, CONDITIONS)}")
    if not trials:
        raise InputError("there are no trials to evaluate; check the list of trials, and that limit is not 0")
    if (save_audio or save_extremes) and out is None:
        raise InputError("audio cannot be saved without an output folder; name one")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; give the number of mixtures extracted at a time, 1 or more")
    absent = all(trial.target_utterance_id == ABSENT for trial in trials)
    check_possible(chosen, absent or any(trial.sources for trial in trials), labels is not None)
    jobs = checked_jobs(jobs, chosen, len(trials))
    measured = protocol.describe(extractor, trials, condition, chosen, command, listeners, labels)
    if batch_size > 1 and can_batch(extractor):
        measured["batch_size"] = batch_size
    measured |= introduced_by(extractor, trials, embeddings)
    folder = None if out is None else Path(out)
    with Session(
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
        rendered = ahead(
            partial(_rendered, condition=condition, sample_rate=extractor.sample_rate, embeddings=embeddings),
            left,
            depth=max(4, batch_size),
        )
        listed = ((number, trial, audio) for (number, trial), audio in zip(left, rendered, strict=True))
        for trial, extracted in extract_all(extractor, listed, batch_size):
            _name_speakers(extracted.record, trial, speakers)
            session.add(extracted)
        return session.finish()


def introduced_by(extractor: Extractor, trials: Sequence[Trial], embeddings: Embeddings | None) -> dict[str, Any]:
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


def with_listeners(chosen: tuple[str, ...], given: Sequence[str]) -> tuple[str, ...]:
    """The measures that were chosen, and those of the listeners that are given, by their names.

    Raises:
        InputError: a measure was chosen that none of the listeners gives.
    """
    for name in chosen:
        if name in BY_LISTENERS and name not in given:
            option = {"similarity": "--speaker-model", "wer": "--recogniser"}[name]
            raise InputError(f"metric {name!r} needs something that measures it; give {option}")
    return (*chosen, *(name for name in given if name not in chosen))


def with_labels(chosen: tuple[str, ...], labels: Labels | None) -> tuple[str, ...]:
    """The measures that were chosen, and timing, where there are labels for it."""
    return chosen if labels is None or "timing" in chosen else (*chosen, "timing")


def checked_jobs(jobs: int | None, chosen: Sequence[str], num_trials: int) -> int:
    """The number of scoring processes, by default none where it would not pay, else one a core.

    Raises:
        InputError: a negative number.
    """
    if jobs is not None:
        if jobs < 0:
            raise InputError(f"jobs is {jobs}; give the number of scoring processes, 0 or more")
        return jobs
    if CHEAP.union(BY_LISTENERS).issuperset(chosen):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, num_trials)


def ahead(function: Callable[[Item], Value], items: Iterable[Item], depth: int = 4) -> Iterator[Value]:
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
