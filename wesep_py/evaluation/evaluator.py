"""Extract and score a list of trials.

`evaluate` renders trials ahead in a thread, extracts them (`trial_extraction`), and gives each to a `ScoringSession`,
which scores it and writes its record at once. `score_files` uses the same session for audio that was made elsewhere.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from wesep_py.common.errors import InputError, nearest, reason
from wesep_py.data.trials import ABSENT
from wesep_py.evaluation.activity_labels import ActivityLabels
from wesep_py.evaluation.metric_backends import MetricBackend, apply_backends
from wesep_py.evaluation.protocols import find_protocol, missing_targets
from wesep_py.evaluation.real_tse_measures import scaled_for_detection
from wesep_py.evaluation.results import AUDIO, AudioSaver, Journal, TrialRecord
from wesep_py.evaluation.scoring import (
    ALL_METRICS,
    BACKEND_METRICS,
    BASELINE_SUFFIX,
    ScoringJob,
    ScoringPool,
    check_computable,
    check_metric_names,
)
from wesep_py.evaluation.speech_detectors import SpeechDetector, detected_timing
from wesep_py.evaluation.summary import describe_evaluation, summarise
from wesep_py.evaluation.trial_conditions import SpeakerInfo, age_group, gender_pair
from wesep_py.evaluation.trial_extraction import ExtractedTrial, can_batch, extract_all, render
from wesep_py.metrics import MetricError
from wesep_py.simulation.trial_audio import CONDITIONS, Condition

if TYPE_CHECKING:
    from wesep_py.data.embedding_files import Embeddings
    from wesep_py.data.trials import Trial
    from wesep_py.inference import Extractor

log = logging.getLogger(__name__)
LOG_INTERVAL_S = 60.0
FAST_METRICS = {"si_sdr", "timing"}
"""Metrics that take a millisecond, less than sending the signals to another process."""
BACKEND_OPTIONS = {"similarity": "--speaker-model", "wer": "--recogniser"}
"""The command-line option that gives the backend of a metric."""


@dataclass(frozen=True)
class ScoringOptions:
    """Options of scoring, shared by `evaluate` and `score_files`.

    Attributes:
        metrics: names out of `scoring.ALL_METRICS`. Those of `backends` are added, and timing where there are labels.
        backends: measure the metrics that need a model: similarity, word error rate.
        labels: when the targets speak, for the timing metric; `None`: when their references are active.
        detector: finds the speech of the estimates, for the timing metric; `None`: by energy.
        baseline: measure the metrics of `backends` of the unprocessed mixtures too (`similarity_mixture`, …).
        jobs: number of scoring processes; 0 scores in this process. `None`: 0 where all metrics are fast, else one per
            core.
        save_audio: number of trials, the first ones, whose audio is saved.
        save_extremes: number of worst and number of best trials whose audio is saved.
        overwrite: replace earlier results in the output folder.
        on_progress: called with the number of finished trials and the number of all trials.
        command: the command line, for the protocol; `None`: that of this process.
        protocol: `wesep`, `speakerbeam`, `espnet` or `real_tse`, whose definitions are used (`protocols`); `None`:
            ours.

    Raises:
        InputError: an unknown metric or protocol, a metric without its backend, a number out of range.
    """

    metrics: Sequence[str] = ("si_sdr",)
    backends: Sequence[MetricBackend] = ()
    labels: ActivityLabels | None = None
    detector: SpeechDetector | None = None
    baseline: bool = False
    jobs: int | None = None
    save_audio: int = 0
    save_extremes: int = 0
    overwrite: bool = False
    on_progress: Callable[[int, int], None] | None = None
    command: str | None = None
    protocol: str | None = None

    def __post_init__(self) -> None:
        find_protocol(self.protocol)
        names = [backend.name for backend in self.backends]
        metrics = complete_metrics(check_metric_names(self.metrics), names, self.labels is not None)
        object.__setattr__(self, "metrics", metrics)
        if self.jobs is not None and self.jobs < 0:
            raise InputError(f"jobs is {self.jobs}; give the number of scoring processes, 0 or more")
        for name in ("save_audio", "save_extremes"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; give a number of trials, 0 or more")

    def check(self, output: Path | None, has_references: bool) -> None:
        """Refuse a run that cannot succeed, before anything is computed.

        Args:
            output: the output folder, if there is one.
            has_references: whether any trial has a reference.

        Raises:
            InputError: audio is to be saved without a folder, or a metric cannot be computed for any trial.
        """
        if (self.save_audio or self.save_extremes) and output is None:
            raise InputError("audio cannot be saved without an output folder; name one")
        check_computable(self.metrics, has_references, self.labels is not None)

    def num_processes(self, num_trials: int) -> int:
        """Return the number of scoring processes for a number of trials; see `jobs`."""
        if self.jobs is not None:
            return self.jobs
        if FAST_METRICS.union(BACKEND_METRICS).issuperset(self.metrics):
            return 0
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(cores, num_trials)


@dataclass(frozen=True)
class EvaluationOptions(ScoringOptions):
    """Options of `evaluate`: those of scoring, and those of extraction.

    Attributes:
        condition: "clean" (speakers only) or "noisy" (with noise).
        speakers: gender and age of each speaker, to break the results down by.
        embeddings: precomputed embeddings of the enrollments, for a model that takes them; `None` for any other.
        batch_size: number of mixtures of one length that are extracted together; 1 is best on a CPU.

    Raises:
        InputError: as `ScoringOptions`; an unknown condition.

    >>> EvaluationOptions(metrics=("si_sdr", "stoi"), condition="noisy").batch_size
    1
    """

    condition: Condition = "clean"
    speakers: SpeakerInfo | None = None
    embeddings: Embeddings | None = None
    batch_size: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.condition not in CONDITIONS:
            raise InputError(f"condition {self.condition!r} is not known; {nearest(self.condition, CONDITIONS)}")
        if self.batch_size < 1:
            raise InputError(
                f"batch_size is {self.batch_size}; give the number of mixtures extracted together, 1 or more"
            )


def complete_metrics(metrics: Sequence[str], backends: Sequence[str] = (), labelled: bool = False) -> tuple[str, ...]:
    """Return the metrics, those of the backends, and timing where there are labels; each once.

    Args:
        metrics: from `check_metric_names`.
        backends: names of the metrics that backends measure.
        labelled: whether there are activity labels.

    Raises:
        InputError: a metric needs a backend that is not there.

    >>> complete_metrics(["si_sdr"], ["wer"], labelled=True)
    ('si_sdr', 'wer', 'timing')
    """
    for name in metrics:
        if name in BACKEND_METRICS and name not in backends:
            raise InputError(f"metric {name!r} needs a model that measures it; give {BACKEND_OPTIONS[name]}")
    return tuple(dict.fromkeys([*metrics, *backends, *(["timing"] if labelled else [])]))


def evaluate(
    extractor: Extractor,
    trials: Sequence[Trial],
    output: str | Path | None = None,
    options: EvaluationOptions | None = None,
) -> dict[str, Any]:
    """Extract and score every trial; a trial that fails is recorded and does not stop the others.

    An interrupted run into a folder resumes when it is started again with the same protocol: finished trials are not
    repeated.

    Args:
        extractor: the model; trials are rendered at its sample rate.
        trials: from `data.read_trials`.
        output: a folder, made if necessary, for `per_trial.jsonl` (one line per trial, in the order of `trials`),
            `summary.json` and `audio/`. `None`: nothing is written.
        options: by default SI-SDR of clean mixtures.

    Returns:
        The content of `summary.json`; see `summary.summarise`.

    Raises:
        InputError: no trials; options that do not fit the trials or the model (`ScoringOptions.check`,
            `describe_embeddings`); `output` holds an unfinished run with another protocol.
        OutputExistsError: `output` holds results, and `options.overwrite` is false.
        WesepError: the disk is full.

    >>> import tempfile
    >>> import numpy as np
    >>> from pathlib import Path
    >>> from wesep_py import audio
    >>> folder, rng = Path(tempfile.mkdtemp()), np.random.default_rng(0)
    >>> for name in ("anna-1", "anna-2", "bert-1"):  # noise stands for speech here
    ...     audio.write(folder / f"{name}.wav", 0.1 * rng.standard_normal(32000, np.float32), 16000)
    >>> mixtures, enrollments = folder / "mixtures.csv", folder / "map_mixture2enrollment"
    >>> head = "mixture_ID,source_1_path,source_1_gain,source_2_path,source_2_gain"
    >>> row = "anna-1_bert-1,anna-1.wav,0.5,bert-1.wav,0.5"
    >>> _ = mixtures.write_text(f"{head}{chr(10)}{row}{chr(10)}")
    >>> _ = enrollments.write_text("anna-1_bert-1 anna-1 anna-2.wav")
    >>> from wesep_py import load, read_trials
    >>> summary = evaluate(load(), read_trials(mixtures, enrollments), folder / "results", EvaluationOptions(jobs=0))
    >>> summary["counts"]["scored"]
    1
    """
    options = options or EvaluationOptions()
    folder = None if output is None else Path(output)
    if not trials:
        raise InputError("there are no trials to evaluate; check the list of trials, and that limit is not 0")
    all_absent = all(trial.target_utterance_id == ABSENT for trial in trials)
    options.check(folder, has_references=all_absent or any(trial.sources for trial in trials))
    if missing := missing_targets(find_protocol(options.protocol), trials):
        log.warning(
            "the protocol %s averages over every speaker of every mixture; speakers that are no targets of these "
            "trials: %d",
            options.protocol,
            missing,
        )
    protocol = describe_evaluation(extractor, trials, options)
    if options.batch_size > 1 and can_batch(extractor):
        protocol["batch_size"] = options.batch_size
    protocol |= describe_embeddings(extractor, trials, options.embeddings)
    if negatives := [trial.negative.name for trial in trials if trial.negative is not None]:
        digest = hashlib.sha256("\n".join(negatives).encode()).hexdigest()
        protocol["negative_enrollments"] = {"trials": len(negatives), "sha256": digest}
    with ScoringSession(protocol, len(trials), folder, options) as session:
        for number in session.done:  # speakers may have been named since
            _enter_speakers(session.records[number], trials[number], options.speakers)
        remaining = [(number, trial) for number, trial in enumerate(trials) if number not in session.done]
        rendered = map_ahead(
            partial(_render, options=options, sample_rate=extractor.sample_rate),
            remaining,
            depth=max(4, options.batch_size),
        )
        items = ((number, trial, audio) for (number, trial), audio in zip(remaining, rendered, strict=True))
        for trial, extracted in extract_all(extractor, items, options.batch_size):
            _enter_speakers(extracted.record, trial, options.speakers)
            session.add(extracted)
        return session.finish()


def describe_embeddings(extractor: Extractor, trials: Sequence[Trial], embeddings: Embeddings | None) -> dict[str, Any]:
    """Return which precomputed embeddings are used, for the protocol; empty where recordings are enrolled.

    Raises:
        InputError: embeddings for a model that takes none, no embeddings for a model that takes them, or an enrollment
            without an embedding.
    """
    dim = extractor.embedding_dim
    if embeddings is None:
        if dim is not None:
            raise InputError(f"{extractor.name}: takes precomputed embeddings of {dim} numbers; give --embeddings")
        return {}
    if dim is None:
        raise InputError(f"{extractor.name}: takes no precomputed embeddings; leave out --embeddings")
    digest = hashlib.sha256()
    for trial in trials:
        digest.update(embeddings.of_trial(trial).tobytes())
    return {"embeddings": {"path": str(embeddings.path), "sha256": digest.hexdigest()}}


def _render(numbered: tuple[int, Trial], options: EvaluationOptions, sample_rate: int) -> Any:
    return render(numbered[1], options.condition, sample_rate, options.embeddings)


def _enter_speakers(record: TrialRecord, trial: Trial, speakers: SpeakerInfo | None) -> None:
    record.gender_pair = None if speakers is None or not trial.sources else gender_pair(trial, speakers)
    record.age_group = None if speakers is None else age_group(trial, speakers)


class ScoringSession:
    """Score extracted trials and write their results; a context manager.

    Trials are scored in any order. Each record is written as soon as it is complete, so that an interrupted run can
    resume.

    Args:
        protocol: how the run is measured.
        total: number of trials.
        folder: for the results; `None`: nothing is written.
        options: how to score.

    Attributes:
        done: numbers of the trials that an earlier, interrupted run has finished.
        records: all finished trials, by number.

    Raises:
        InputError, OutputExistsError, WesepError: as `Journal`.
    """

    def __init__(self, protocol: Mapping[str, Any], total: int, folder: Path | None, options: ScoringOptions) -> None:
        self._protocol, self._total, self._options = protocol, total, options
        self._journal = None if folder is None else Journal(folder, protocol, options.overwrite)
        self.records: dict[int, TrialRecord] = {} if self._journal is None else dict(self._journal.done)
        self.done = frozenset(self.records)
        audio = None if folder is None else folder / AUDIO
        self._audio = AudioSaver(audio, options.save_audio, options.save_extremes, self.records.values())
        self._pending: dict[int, ExtractedTrial] = {}
        self._pool = ScoringPool(options.num_processes(total))
        chosen = find_protocol(options.protocol)
        self._protocol_timing = None if chosen is None else chosen.timing
        self._start_s = self._logged_s = time.monotonic()

    def __enter__(self) -> ScoringSession:
        self._pool.__enter__()
        if self.done:
            log.info("resumed: %d of %d trials are finished", len(self.done), self._total)
            self._report()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.__exit__(kind, error, trace)
        if self._journal is not None:
            self._journal.close()

    def add(self, extracted: ExtractedTrial) -> None:
        """Score a trial, whose record has its number, and write the records of all trials that are scored by now."""
        record, audio, estimate = extracted.record, extracted.audio, extracted.estimate
        if record.number is None:
            raise ValueError("the trial's record has no number")
        if record.outcome != "scored":
            self._finish_trial(extracted)
        else:
            assert audio is not None and estimate is not None
            rate = audio.sample_rate
            backends = self._options.backends
            apply_backends(backends, record, estimate, audio.reference, audio.enrollment, rate)
            if self._options.baseline and audio.mixture is not None:
                signals = (audio.mixture, audio.reference, audio.enrollment)
                apply_backends(backends, record, *signals, rate, suffix=BASELINE_SUFFIX)
            interferers = None if audio.interferers is None else tuple(audio.interferers)
            metrics, activity = self._with_labels(extracted)
            self._pending[record.number] = extracted
            self._pool.submit(
                record.number,
                ScoringJob(
                    estimate,
                    audio.reference,
                    rate,
                    metrics,
                    audio.mixture,
                    interferers,
                    activity,
                    self._options.protocol,
                ),
            )
        self._collect()

    def finish(self) -> dict[str, Any]:
        """Wait for all scores; write and return the summary."""
        self._collect(wait_for_all=True)
        records = [self.records[number] for number in sorted(self.records)]
        summary = summarise(records, self._protocol)
        if self._journal is not None:
            self._journal.finish(records, summary)
        return summary

    def _with_labels(self, extracted: ExtractedTrial) -> tuple[tuple[str, ...], np.ndarray | None]:
        """Return the metrics to compute, and the target's activity by the labels; without a label, timing is missing.

        The target may have the name of its utterance, of its speaker or of its enrollment in the labels.
        """
        record, audio, estimate = extracted.record, extracted.audio, extracted.estimate
        assert audio is not None and estimate is not None
        metrics, labels = tuple(self._options.metrics), self._options.labels
        if "timing" not in metrics:
            return metrics, None
        remaining = tuple(name for name in metrics if name != "timing")
        try:
            if self._options.detector is not None or self._protocol_timing is not None:
                values = zip(ALL_METRICS["timing"], self._timing_by_detector(extracted), strict=True)
                record.values.update(values)
                return remaining, None
            if labels is None:
                return metrics, None
            recording, names, any_sole_speaker = _names_in_labels(extracted)
            activity = labels.activity(recording, names, len(estimate), audio.sample_rate, any_sole_speaker)
        except MetricError as error:
            record.missing.update(dict.fromkeys(ALL_METRICS["timing"], str(error)))
            return remaining, None
        return metrics, activity

    def _timing_by_detector(self, extracted: ExtractedTrial) -> Sequence[float]:
        """Return the values of timing for the segments of speech that the detector finds in the estimate.

        Raises:
            MetricError: there is no label, or the detector fails.
        """
        audio, estimate, labels = extracted.audio, extracted.estimate, self._options.labels
        assert audio is not None and estimate is not None
        rate, protocol_timing = audio.sample_rate, self._protocol_timing
        detector = self._options.detector or SpeechDetector()
        try:
            if labels is not None:
                recording, names, any_sole_speaker = _names_in_labels(extracted)
                labelled = labels.target_segments(recording, names, any_sole_speaker)
                if labelled is None and protocol_timing is None:
                    raise MetricError("the labels do not name the target in its recording")
            elif audio.reference is not None:
                labelled = detector.segments(audio.reference, rate)
            else:
                raise MetricError("there is neither a reference nor a label")
            if protocol_timing is None:
                return detected_timing(detector.segments(estimate, rate), labelled or (), len(estimate), rate)
            detected = detector.segments(scaled_for_detection(estimate), rate)
            return protocol_timing(detected, labelled or (), len(estimate) / rate)
        except MetricError:
            raise
        except Exception as error:  # the user's own code; its failure costs the timing of one trial
            raise MetricError(reason(error)) from error

    def _collect(self, wait_for_all: bool = False) -> None:
        for number, scores in self._pool.finished(wait_for_all):
            extracted = self._pending.pop(number)
            extracted.record.values.update(scores.values)
            extracted.record.missing.update(scores.missing)
            self._finish_trial(extracted)

    def _finish_trial(self, extracted: ExtractedTrial) -> None:
        record = extracted.record
        assert record.number is not None
        self.records[record.number] = record
        self._audio.offer(extracted)
        if self._journal is not None:
            self._journal.append(record)
        self._report()

    def _report(self) -> None:
        done, now = len(self.records), time.monotonic()
        if self._options.on_progress:
            self._options.on_progress(done, self._total)
        scored_here = done - len(self.done)  # an earlier run's trials took no time of this one
        if now - self._logged_s >= LOG_INTERVAL_S and scored_here:
            self._logged_s = now
            remaining_s = (now - self._start_s) / scored_here * (self._total - done)
            log.info("%d of %d trials, about %.0f min remaining", done, self._total, remaining_s / 60)


def _names_in_labels(extracted: ExtractedTrial) -> tuple[str, list[str], bool]:
    """Return recording and possible names of the target in the labels, and whether its sole speaker may be meant."""
    record = extracted.record
    target, recording = record.target_utterance_id, record.mixture_id
    names = [target, *filter(None, (extracted.speaker_id, Path(record.enrollment).stem))]
    return recording, names, target == recording


Item = TypeVar("Item")
Value = TypeVar("Value")


def map_ahead(function: Callable[[Item], Value], items: Iterable[Item], depth: int = 4) -> Iterator[Value]:
    """Map a function over items, computing up to `depth` results ahead in a thread.

    >>> list(map_ahead(str, [1, 2, 3]))
    ['1', '2', '3']
    """
    with ThreadPoolExecutor(1) as thread:
        pending: deque[Any] = deque()
        for item in items:
            pending.append(thread.submit(function, item))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
