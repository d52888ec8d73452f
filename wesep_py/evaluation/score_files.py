"""Audio made elsewhere, scored as what `evaluate` extracts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wesep_py.errors import AudioError, InputError
from wesep_py.evaluation import protocol
from wesep_py.evaluation.conditions import describe_audio
from wesep_py.evaluation.extraction import Extracted, describe_estimate, failed
from wesep_py.evaluation.labels import Labels
from wesep_py.evaluation.listeners import Listener
from wesep_py.evaluation.measures import check_measures, check_possible
from wesep_py.evaluation.pairs import Pair
from wesep_py.evaluation.record import TrialRecord
from wesep_py.evaluation.run import ahead, checked_jobs, with_labels, with_listeners
from wesep_py.evaluation.session import Session
from wesep_py.evaluation.signals import GivenAudio

SLACK_S = 0.1
"""Signals of one trial whose lengths differ by at most this are cut to the shortest."""
LENGTHS = f"lengths may differ by {SLACK_S:g} s at most; all signals of a trial are cut to the shortest"


def score_files(
    pairs: Sequence[Pair],
    out: str | Path | None = None,
    metrics: Iterable[str] = ("si_sdr",),
    jobs: int | None = None,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    command: str | None = None,
    listeners: Sequence[Listener] = (),
    save_extremes: int = 0,
    sample_rate: int | None = None,
    labels: Labels | None = None,
) -> dict[str, Any]:
    """Score estimates that lie in files; a reference without estimate, or a damaged file, is a trial that failed.

    Args:
        pairs: from `pairs.find_pairs`.
        out: folder for `summary.json` and `per_trial.jsonl`, which goes on if it was killed. None: nothing is written.
        metrics: names out of `measures.MEASURES`.
        jobs: processes that score; as `evaluate`.
        overwrite: replace earlier results in `out`.
        on_progress: called with the number of trials scored so far, and of all.
        command: how this was started; None: the command line of this process.
        listeners: what measures `similarity` or `wer`; made for `sample_rate`.
        save_extremes: of so many of the worst and of the best trials, audio is saved in `out`.
        sample_rate: Hz at which all is scored; `None`: that of the first reference, or estimate.
        labels: when the targets speak, for timing, which need not stand in `metrics` then; `None`: when their
            references do.

    Returns:
        The content of `summary.json`, as that of `evaluate`; a silent reference (an absent target) is counted apart.

    Raises:
        InputError: no pairs; an unknown metric, or one that none of them can have; as `evaluate`.
        OutputExistsError: `out` holds results, and `overwrite` is false.
    """
    if not pairs:
        raise InputError("there is nothing to score; name a folder of references and one of estimates")
    if save_extremes and out is None:
        raise InputError("audio cannot be saved without an output folder; name one")
    chosen = with_labels(with_listeners(check_measures(metrics), [listener.name for listener in listeners]), labels)
    check_possible(chosen, any(pair.reference is not None for pair in pairs), labels is not None)
    rate = sample_rate or rate_of(pairs)
    jobs = checked_jobs(jobs, chosen, len(pairs))
    measured = {
        **protocol.definitions(chosen, listeners, labels),
        "condition": "audio made elsewhere, matched by name",
        "lengths": LENGTHS,
        "sample_rate": rate,
        "trials": {"count": len(pairs), "sha256": _fingerprint(pairs)},
        "files": {"sha256": _state_of(pairs)},
        "model": {"name": "audio made elsewhere", "hash": None},
        "device": None,
        **protocol.circumstances(command),
    }
    folder = None if out is None else Path(out)
    with Session(
        measured, len(pairs), chosen, jobs, folder, overwrite, listeners, 0, save_extremes, on_progress, labels
    ) as session:
        left = [(number, pair) for number, pair in enumerate(pairs) if number not in session.done]
        for extracted in ahead(partial(_read, sample_rate=rate), left):
            session.add(extracted)
        return session.finish()


def rate_of(pairs: Sequence[Pair]) -> int:
    """The sample rate of the first reference that can be read, in Hz; of the first estimate, where there is none."""
    from wesep_py.audio import info

    paths = [path for pair in pairs if (path := pair.reference or pair.estimate) is not None]
    for path in paths:
        try:
            return info(path).sample_rate
        except AudioError:
            continue
    raise InputError(f"{paths[0].parent}: none of its files can be read")


def _read(numbered: tuple[int, Pair], sample_rate: int) -> Extracted:
    number, pair = numbered
    enrollment = pair.enrollment.name if pair.enrollment is not None else ""
    record = TrialRecord(pair.name, pair.target, enrollment, number=number)
    if pair.interferers is not None:
        record.num_speakers = 1 + len(pair.interferers)
    try:
        estimate, audio = _load(pair, sample_rate)
        record.duration_s = len(estimate) / sample_rate
        describe_estimate(record, estimate, audio.reference, audio.mixture)
        describe_audio(record, audio.reference, audio.interferers, audio.enrollment, sample_rate)
    except Exception as error:  # one file's failure, of whatever kind, must not lose the others
        return failed(record, error)
    return Extracted(record, audio, estimate)


def _load(pair: Pair, sample_rate: int) -> tuple[np.ndarray, GivenAudio]:
    """First channels, at one rate and of one length.

    Raises:
        AudioError: a file is missing or damaged, or the lengths differ too much.
    """
    from wesep_py.audio import read_mono

    if pair.estimate is None:
        raise AudioError("there is no estimate of this reference")
    paths = [pair.estimate, *(pair.interferers or ())]
    paths += [path for path in (pair.reference, pair.mixture) if path is not None]
    signals = [read_mono(path, sample_rate) for path in paths]
    shortest = min(len(signal) for signal in signals)
    for path, signal in zip(paths, signals, strict=True):
        if len(signal) - shortest > SLACK_S * sample_rate:
            raise AudioError(
                f"{path}: has {len(signal) / sample_rate:.2f} s, where another signal of the trial has "
                f"{shortest / sample_rate:.2f} s; {LENGTHS}"
            )
    signals = [signal[:shortest] for signal in signals]
    mixture = signals.pop() if pair.mixture is not None else None
    reference = signals.pop() if pair.reference is not None else None
    estimate, *others = signals
    interferers = None if pair.interferers is None else np.array(others).reshape(len(others), shortest)
    enrollment = None if pair.enrollment is None else read_mono(pair.enrollment, sample_rate)
    return estimate, GivenAudio(reference, mixture, interferers, enrollment, sample_rate)


def _fingerprint(pairs: Iterable[Pair]) -> str:
    """SHA-256 over the names of all trials, and which files each has but for its estimate."""
    digest = hashlib.sha256()
    for pair in pairs:
        others = None if pair.interferers is None else len(pair.interferers)
        known = (pair.name, pair.target, pair.mixture is not None, others)
        digest.update(repr(known if pair.reference is not None else (*known, "no reference")).encode() + b"\n")
    return digest.hexdigest()


def _state_of(pairs: Iterable[Pair]) -> str:
    """SHA-256 over path, size and time of every file: a run goes on only with those that it was begun with."""
    digest = hashlib.sha256()
    for pair in pairs:
        for path in (pair.reference, pair.estimate, pair.mixture, pair.enrollment, *(pair.interferers or ())):
            state = None if path is None else path.stat()
            line = None if state is None or path is None else (str(path.resolve()), state.st_size, state.st_mtime_ns)
            digest.update(repr(line).encode() + b"\n")
    return digest.hexdigest()
