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
from wesep_py.evaluation.listeners import Listener
from wesep_py.evaluation.measures import check_measures
from wesep_py.evaluation.pairs import Pair
from wesep_py.evaluation.record import TrialRecord
from wesep_py.evaluation.run import ahead, checked_jobs, with_listeners
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
        sample_rate: Hz at which all is scored; `None`: that of the first reference.

    Returns:
        The content of `summary.json`, as that of `evaluate`; a silent reference (an absent target) is counted apart.

    Raises:
        InputError: no pairs; an unknown metric; as `evaluate`.
        OutputExistsError: `out` holds results, and `overwrite` is false.
    """
    if not pairs:
        raise InputError("there is nothing to score; name a folder of references and one of estimates")
    if save_extremes and out is None:
        raise InputError("audio cannot be saved without an output folder; name one")
    chosen = with_listeners(check_measures(metrics), [listener.name for listener in listeners])
    rate = sample_rate or rate_of(pairs)
    jobs = checked_jobs(jobs, chosen, len(pairs))
    measured = {
        **protocol.definitions(chosen, listeners),
        "condition": "audio made elsewhere, matched by name",
        "lengths": LENGTHS,
        "sample_rate": rate,
        "trials": {"count": len(pairs), "sha256": _fingerprint(pairs)},
        "model": {"name": "audio made elsewhere", "hash": None},
        "device": None,
        **protocol.circumstances(command),
    }
    folder = None if out is None else Path(out)
    session = Session(measured, len(pairs), chosen, jobs, folder, overwrite, listeners, 0, save_extremes, on_progress)
    with session:
        left = [(number, pair) for number, pair in enumerate(pairs) if number not in session.done]
        for extracted in ahead(partial(_read, sample_rate=rate), left):
            session.add(extracted)
        return session.finish()


def rate_of(pairs: Sequence[Pair]) -> int:
    """The sample rate of the first reference that can be read, in Hz."""
    from wesep_py.audio import info

    for pair in pairs:
        try:
            return info(pair.reference).sample_rate
        except AudioError:
            continue
    raise InputError(f"{pairs[0].reference.parent}: none of its files can be read")


def _read(numbered: tuple[int, Pair], sample_rate: int) -> Extracted:
    number, pair = numbered
    enrollment = pair.enrollment.name if pair.enrollment is not None else ""
    record = TrialRecord(pair.name, pair.target, enrollment, number=number)
    if pair.interferers is not None:
        record.num_speakers = 1 + len(pair.interferers)
    try:
        estimate, audio = _load(pair, sample_rate)
        record.duration_s = len(audio.reference) / sample_rate
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
    paths = [pair.reference, pair.estimate, *(pair.interferers or ())]
    if pair.mixture is not None:
        paths.append(pair.mixture)
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
    reference, estimate, *others = signals
    interferers = None if pair.interferers is None else np.array(others).reshape(len(others), shortest)
    enrollment = None if pair.enrollment is None else read_mono(pair.enrollment, sample_rate)
    return estimate, GivenAudio(reference, mixture, interferers, enrollment, sample_rate)


def _fingerprint(pairs: Iterable[Pair]) -> str:
    """SHA-256 over the names of all trials, and which files each has but for its estimate."""
    digest = hashlib.sha256()
    for pair in pairs:
        others = None if pair.interferers is None else len(pair.interferers)
        digest.update(repr((pair.name, pair.target, pair.mixture is not None, others)).encode() + b"\n")
    return digest.hexdigest()
