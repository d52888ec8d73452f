"""A list of trials, extracted and scored."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from wesep_py.errors import InputError, OutputExistsError, WesepError, nearest
from wesep_py.evaluation import protocol
from wesep_py.evaluation.extraction import Extracted, extract, render
from wesep_py.evaluation.record import TrialRecord
from wesep_py.evaluation.scoring import ScoringJob, ScoringPool
from wesep_py.evaluation.speakers import Speakers, age_group, gender_pair
from wesep_py.evaluation.summary import summarise
from wesep_py.files import write_json, write_text
from wesep_py.metrics import check_metrics
from wesep_py.simulation.trials import CONDITIONS, Condition

if TYPE_CHECKING:
    from wesep_py.corpus.trials import Trial
    from wesep_py.inference import Extractor

Item = TypeVar("Item")
Value = TypeVar("Value")

PER_TRIAL, SUMMARY, AUDIO = "per_trial.jsonl", "summary.json", "audio"


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
) -> dict[str, Any]:
    """Extract and score every trial; a trial that fails is recorded and does not stop the rest.

    Args:
        extractor: the model; trials are rendered at its sample rate.
        trials: from `corpus.read_trials`.
        out: a folder, made if it is not there, for `per_trial.jsonl` (a line a trial, in the order of `trials`),
            `summary.json` and `audio/`. None: nothing is written.
        condition: "clean" (speakers only) or "noisy" (with noise).
        metrics: names out of `metrics.METRICS`.
        jobs: processes that score; 0 scores in this one. None: 0 for SI-SDR alone, else one a core.
        speakers: gender and age of speakers, for the breakdown by them.
        overwrite: replace earlier results in `out`.
        save_audio: of so many trials, the first ones, mixture, estimate and reference are saved in `out`.
        on_progress: called with the number of trials scored so far, and of all.
        command: how this was started, for the protocol; None: the command line of this process.

    Returns:
        The content of `summary.json`; see `summary.summarise`.

    Raises:
        InputError: no trials; an unknown metric or condition; audio to be saved but no folder.
        OutputExistsError: `out` holds results, and `overwrite` is false.
        WesepError: the disk is full.

    >>> summary = evaluate(load("exp/mine"), trials, "results")  # doctest: +SKIP
    >>> summary["si_sdri"]["mean"]                               # doctest: +SKIP
    """
    chosen = check_metrics(metrics)
    if condition not in CONDITIONS:
        raise InputError(f"condition {condition!r} is not known; {nearest(condition, CONDITIONS)}")
    if not trials:
        raise InputError("there are no trials to evaluate; check the list of trials, and that limit is not 0")
    if save_audio and out is None:
        raise InputError("audio cannot be saved without an output folder; name one")
    folder = None if out is None else _open_folder(Path(out), overwrite)
    measured = protocol.describe(extractor, trials, condition, chosen, command)
    jobs = _default_jobs(chosen, len(trials)) if jobs is None else jobs
    if jobs < 0:
        raise InputError(f"jobs is {jobs}; give the number of scoring processes, 0 or more")

    records: list[TrialRecord] = []
    num_done = 0
    with ScoringPool(jobs) as pool:

        def step() -> None:
            nonlocal num_done
            num_done += 1
            if on_progress:
                on_progress(num_done, len(trials))

        def collect(wait_for_all: bool = False) -> None:
            for number, scores in pool.finished(wait_for_all):
                records[number].values, records[number].missing = scores.values, scores.missing
                step()

        rendering = partial(render, condition=condition, sample_rate=extractor.sample_rate)
        for number, (trial, audio) in enumerate(zip(trials, _ahead(rendering, trials), strict=True)):
            extracted = extract(extractor, trial, audio)
            if speakers is not None:
                extracted.record.gender_pair = gender_pair(trial, speakers)
                extracted.record.age_group = age_group(trial, speakers)
            records.append(extracted.record)
            if folder is not None and number < save_audio:
                _save_audio(folder / AUDIO, number, extracted, extractor.sample_rate)
            if extracted.record.outcome == "scored":
                pool.submit(number, _job(extracted, extractor.sample_rate, chosen))
            else:
                step()
            collect()
        collect(wait_for_all=True)

    summary = summarise(records, measured)
    if folder is not None:
        lines = [json.dumps(record.to_dict(), ensure_ascii=False, allow_nan=False) for record in records]
        write_text(folder / PER_TRIAL, "\n".join(lines) + "\n")
        write_json(folder / SUMMARY, summary)
    return summary


def check_output(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that cannot take results, before anything is computed.

    Raises:
        OutputExistsError: it holds results, and `overwrite` is false.
        InputError: it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a folder for the results")
    there = [folder / name for name in (PER_TRIAL, SUMMARY, AUDIO) if (folder / name).exists()]
    if there and not overwrite:
        raise OutputExistsError(f"{there[0]}: exists already; name another folder, or pass --overwrite")


def _open_folder(folder: Path, overwrite: bool) -> Path:
    check_output(folder, overwrite)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WesepError(f"{folder}: cannot be made ({error.strerror or error})") from error
    return folder


def _default_jobs(metrics: tuple[str, ...], num_trials: int) -> int:
    """SI-SDR takes a millisecond, less than sending the signals to another process."""
    if metrics == ("si_sdr",):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, num_trials)


def _ahead(function: Callable[[Item], Value], items: Iterable[Item], depth: int = 4) -> Iterator[Value]:
    """`map`, with the next few items computed in a thread meanwhile."""
    with ThreadPoolExecutor(1) as thread:
        waiting: deque[Any] = deque()
        for item in items:
            waiting.append(thread.submit(function, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _job(extracted: Extracted, sample_rate: int, metrics: tuple[str, ...]) -> ScoringJob:
    audio, estimate = extracted.audio, extracted.estimate
    assert audio is not None and audio.reference is not None and estimate is not None
    return ScoringJob(estimate, audio.reference, sample_rate, metrics, audio.mixture, tuple(audio.interferers))


def _save_audio(folder: Path, number: int, extracted: Extracted, sample_rate: int) -> None:
    """`audio/0003_MIXTURE_TARGET/{mixture,enrollment,estimate,reference}.wav`, 32-bit float."""
    from wesep_py.audio import write

    audio, record = extracted.audio, extracted.record
    if audio is None or extracted.estimate is None:
        return
    folder = folder / f"{number:04d}_{record.mixture_id}_{record.target_utterance_id}".replace(os.sep, "_")
    folder.mkdir(parents=True, exist_ok=True)
    signals = {"mixture": audio.mixture, "enrollment": audio.enrollment, "estimate": extracted.estimate}
    if audio.reference is not None:
        signals["reference"] = audio.reference
    for name, signal in signals.items():
        write(folder / f"{name}.wav", signal, sample_rate, overwrite=True)
