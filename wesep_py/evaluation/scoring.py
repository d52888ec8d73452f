"""Scoring in worker processes, so that slow metrics keep every core busy and a crash costs one trial."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from wesep_py.common.errors import InputError, nearest, reason
from wesep_py.common.processes import worker_processes
from wesep_py.common.textfiles import open_lines
from wesep_py.evaluation.results import TrialRecord
from wesep_py.inference.speech_activity import speech_mask
from wesep_py.metrics import DEFINITIONS, METRICS, MetricError, Scores, score
from wesep_py.metrics.detection import speaker_similarity
from wesep_py.metrics.perception import dnsmos, load_dnsmos, word_errors, words
from wesep_py.metrics.separation import checked_signal, checked_pair, is_silent
from wesep_py.metrics.timing import COLLAR_S, FRAME_S, PAUSE_S, timing

# ----------------------------------------
# Measures that need more than two signals: a speaker encoder, a recogniser that the user names.

Recogniser = Callable[[np.ndarray, int], str]
"""Waveform, float32 `[samples]`, and its rate in Hz → what is said."""
MIN_DURATION_S = 0.1


class MetricBackend(Protocol):
    """Measures one number of a trial, in the process that extracts.

    Attributes:
        name: the compute_metrics, out of `measures.BACKEND_METRICS`.
    """

    name: str

    def describe(self) -> dict[str, Any]:
        """For the protocol: what listens."""
        ...

    def listen(
        self,
        record: TrialRecord,
        estimate: np.ndarray,
        reference: np.ndarray | None,
        enrollment: np.ndarray | None,
        sample_rate: int,
    ) -> tuple[float, float]:
        """The value for a trial, and the weight that it has in the mean.

        Raises:
            MetricError: there is none; the reason.
        """
        ...


class SpeakerSimilarity:
    """Similarity of the estimate to the enrollment, by a speaker encoder.

    Args:
        path: a checkpoint or experiment folder of an encoder, or of an extractor that has one.
        sample_rate: Hz of the waveforms.
        device: where the encoder computes.
    """

    name = "similarity"

    def __init__(self, path: str | Path, sample_rate: int, device: str = "cpu") -> None:
        from wesep_py.network.speaker import load_encoder

        self._path, self._device = str(path), device
        self._encoder = load_encoder(path, sample_rate).to(device)

    def describe(self) -> dict[str, Any]:
        import hashlib

        digest = hashlib.sha256()
        for key, tensor in sorted(self._encoder.state_dict().items()):
            digest.update(key.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return {"encoder": Path(self._path).name, "weights_sha256": digest.hexdigest()}

    def listen(
        self,
        record: TrialRecord,
        estimate: np.ndarray,
        reference: np.ndarray | None,
        enrollment: np.ndarray | None,
        sample_rate: int,
    ) -> tuple[float, float]:
        if enrollment is None:
            raise MetricError("no enrollment was given")
        return speaker_similarity(self._embed(estimate, sample_rate), self._embed(enrollment, sample_rate)), 1.0

    def _embed(self, waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        import torch

        if len(waveform) < MIN_DURATION_S * sample_rate:
            raise MetricError(f"an embedding needs {MIN_DURATION_S} s of signal")
        if not np.any(waveform):
            raise MetricError("the estimate is silent")
        batch = torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32))[None].to(self._device)
        with torch.inference_mode():
            output = self._encoder(batch, torch.tensor([batch.shape[1]], device=self._device))
        return output.embedding[0].float().cpu().numpy()


class WordErrorRate:
    """Word error rate of the estimate, by a recogniser that the user names; none is bundled.

    Args:
        recogniser: `module:function`, found as Python finds modules, the current folder included.
        transcripts: what is said in each utterance, by its id. `None`: what the recogniser hears in the reference
            counts as said, so that the number is what extraction costs, not what recognition costs.

    Raises:
        InputError: there is no such module or function.
    """

    name = "wer"

    def __init__(self, recogniser: str | Recogniser, transcripts: Mapping[str, str] | None = None) -> None:
        self._named = recogniser if isinstance(recogniser, str) else getattr(recogniser, "__name__", "recogniser")
        self._recognise = load_recogniser(recogniser) if isinstance(recogniser, str) else recogniser
        self._transcripts = transcripts

    def describe(self) -> dict[str, Any]:
        against = "what it hears in the reference" if self._transcripts is None else "transcripts"
        return {"recogniser": self._named, "against": against}

    def listen(
        self,
        record: TrialRecord,
        estimate: np.ndarray,
        reference: np.ndarray | None,
        enrollment: np.ndarray | None,
        sample_rate: int,
    ) -> tuple[float, float]:
        if self._transcripts is None:
            if reference is None:
                raise MetricError("there is no reference to hear; give --transcripts")
            said = words(self._heard(reference, sample_rate))
        elif record.target_utterance_id in self._transcripts:
            said = words(self._transcripts[record.target_utterance_id])
        else:
            raise MetricError("there is no transcript of the utterance")
        if not said:
            raise MetricError("no word is said in the reference")
        return word_errors(words(self._heard(estimate, sample_rate)), said) / len(said), float(len(said))

    def _heard(self, waveform: np.ndarray, sample_rate: int) -> str:
        heard = self._recognise(np.ascontiguousarray(waveform, dtype=np.float32), sample_rate)
        if not isinstance(heard, str):
            raise MetricError(f"the recogniser returned {type(heard).__name__}; text is needed")
        return heard


def load_recogniser(named: str) -> Recogniser:
    """The function that `module:function` names.

    Raises:
        InputError: the form is wrong, or there is no such module or function.
    """
    module_name, _, function_name = named.partition(":")
    if not module_name or not function_name:
        raise InputError(f"recogniser {named!r}: the form is module:function, like my_asr:transcribe")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"recogniser {named!r}: cannot be imported ({error})") from error
    if not callable(function):
        raise InputError(f"recogniser {named!r}: is no function; one of (waveform, sample_rate) is needed")
    return function


def read_transcripts(path: str | Path) -> dict[str, str]:
    """Lines `UTTERANCE_ID words …`, as Kaldi's `text` and LibriSpeech's `.trans.txt` have them.

    Raises:
        InputError: the file cannot be read or names no utterance.
    """
    found = {}
    for line in open_lines(path, "transcripts"):
        if fields := line.split(maxsplit=1):
            found[fields[0]] = fields[1].strip() if len(fields) > 1 else ""
    if not found:
        raise InputError(f"{path}: names no utterance; lines 'UTTERANCE_ID words …' are needed")
    return found


def apply_backends(
    listeners: list[MetricBackend],
    record: TrialRecord,
    estimate: np.ndarray,
    reference: np.ndarray | None,
    enrollment: np.ndarray | None,
    sample_rate: int,
) -> None:
    """Let all listen and enter what they compute_metrics, or why not, into the record; none of them stops the run."""
    for listener in listeners:
        try:
            value, weight = listener.listen(record, estimate, reference, enrollment, sample_rate)
        except MetricError as error:
            record.missing[listener.name] = str(error)
        except Exception as error:  # the user's own code; its failure costs one value
            record.missing[listener.name] = reason(error)
        else:
            record.values[listener.name] = value
            if weight != 1.0:
                record.weights[listener.name] = weight


# ----------------------------------------
# What can be measured of a trial: the metrics of two signals, and those that need more than these.

SIGNAL_METRICS: dict[str, tuple[str, ...]] = {
    "timing": ("timing_precision", "timing_recall", "timing_f1"),
    "dnsmos": ("dnsmos_ovrl", "dnsmos_sig", "dnsmos_bak", "dnsmos_p808"),
    "pdnsmos": ("pdnsmos_ovrl", "pdnsmos_sig", "pdnsmos_bak"),
}
"""Measured in the scoring processes, as `METRICS` are."""
BACKEND_METRICS: dict[str, tuple[str, ...]] = {"similarity": ("similarity",), "wer": ("wer",)}
"""Measured by a `listeners.MetricBackend`, which is given by name on the command line."""
ALL_METRICS: dict[str, tuple[str, ...]] = {**METRICS, **SIGNAL_METRICS, **BACKEND_METRICS}
"""All that can be measured, and the numbers that each gives."""
INSTALLED_METRICS = (*METRICS, "timing")
"""Those that need nothing but the installation: what `--metrics all` stands for."""


def _timing_definitions(activities: str, boundary: str) -> dict[str, str]:
    frames = (
        f"frames of {FRAME_S * 1000:g} ms; {activities} (wesep_py.inference.speech_activity.speech_mask), pauses under "
        f"{PAUSE_S:g} s closed; {COLLAR_S:g} s before and after each boundary of the {boundary} not counted"
    )
    return {
        "timing_precision": f"share of the estimate's active frames in which the target speaks, 0 to 1; {frames}",
        "timing_recall": f"share of the frames in which the target speaks that are active in the estimate, 0 to 1; "
        f"{frames}",
        "timing_f1": "harmonic mean of timing_precision and timing_recall of each trial, 0 to 1",
    }


_MOS = "1 to 5 (speechmos)"
METRIC_DEFINITIONS: dict[str, str] = {
    **DEFINITIONS,
    **_timing_definitions("activity of estimate and reference by energy", "reference"),
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
"""What each number means, in the words that results carry with them."""
LABELLED_DEFINITIONS = _timing_definitions(
    "the target speaks where the labels say so; activity of the estimate by energy", "labels"
)
"""Those that mean something else where labels are given."""


def check_metric_names(names: Iterable[str]) -> tuple[str, ...]:
    """The names, each once, if all of them can be measured.

    Raises:
        InputError: an unknown name; the nearest known one is named. No name.
    """
    chosen = tuple(dict.fromkeys(names))
    for name in chosen:
        if name not in ALL_METRICS:
            raise InputError(f"metric {name!r} is not known; {nearest(name, ALL_METRICS)}")
    if not chosen:
        raise InputError(f"no metric was named; {nearest('', ALL_METRICS)}")
    return chosen


def parse_metrics(text: str) -> tuple[str, ...]:
    """The measures of a command line, by commas; `all` stands for `INSTALLED_METRICS`.

    >>> parse_metrics("si_sdr, pesq")
    ('si_sdr', 'pesq')
    """
    named = [name.strip() for name in text.split(",") if name.strip()]
    return check_metric_names(each for name in named for each in (INSTALLED_METRICS if name == "all" else (name,)))


def check_computable(chosen: Sequence[str], referenced: bool, labelled: bool) -> None:
    """Refuse, before anything is extracted, what cannot be measured of any trial.

    Args:
        chosen: from `check_metric_names`.
        referenced: whether any trial has a reference.
        labelled: whether there are labels.

    Raises:
        InputError: a metric that needs references, or labels; one whose package cannot be imported.
    """
    for name in chosen:
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
    names: Sequence[str],
    mixture: np.ndarray | None,
    interferers: Sequence[np.ndarray] | None,
    activity: np.ndarray | None = None,
) -> Scores:
    """As `metrics.score`, with `SIGNAL_METRICS` too; those of listeners are passed over.

    Args:
        estimate, sample_rate, mixture, interferers: as `metrics.score`.
        reference: likewise; without one, what needs it is missing.
        names: out of `ALL_METRICS`.
        activity: when the target speaks, bool in frames of `timing.FRAME_S`; `None`: where the reference does.
    """
    scores = Scores()
    for name in names:
        if name in BACKEND_METRICS:
            continue
        try:
            if name in METRICS and reference is None:
                raise MetricError("there is no reference")
            if name in METRICS and reference is not None:
                found = score(estimate, reference, sample_rate, (name,), mixture, interferers)
                scores.values.update(found.values)
                scores.missing.update(found.missing)
            else:
                numbers = _COMPUTE[name](estimate, reference, sample_rate, activity)
                scores.values.update(zip(SIGNAL_METRICS[name], numbers, strict=False))
        except MetricError as error:
            scores.missing.update(dict.fromkeys(ALL_METRICS[name], str(error)))
        except Exception as error:  # of whatever kind: it costs this metric of this trial, not the run
            scores.missing.update(dict.fromkeys(ALL_METRICS[name], reason(error)))
    return scores


def _timing(
    estimate: np.ndarray, reference: np.ndarray | None, sample_rate: int, activity: np.ndarray | None
) -> tuple[float, float, float]:
    if activity is None:
        if reference is None:
            raise MetricError("there is neither a reference nor a label")
        estimate, reference = checked_pair(estimate, reference)
        activity = _speaks(reference, sample_rate)
    elif not activity.any():
        raise MetricError("the labels say that the target does not speak")
    estimate = checked_signal(estimate, "estimate")
    return timing(_speaks(estimate, sample_rate) & (not is_silent(estimate)), activity)


def _speaks(signal: np.ndarray, sample_rate: int) -> np.ndarray:
    return speech_mask(signal.astype(np.float32), sample_rate)[:: max(1, round(FRAME_S * sample_rate))]


Computed = Callable[[np.ndarray, "np.ndarray | None", int, "np.ndarray | None"], Iterable[float]]
_COMPUTE: dict[str, Computed] = {
    "timing": _timing,
    "dnsmos": lambda estimate, _, sample_rate, __: dnsmos(estimate, sample_rate).values(),
    "pdnsmos": lambda estimate, _, sample_rate, __: dnsmos(estimate, sample_rate, personalised=True).values(),
}


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
        return compute_metrics(
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
                    asked = [metric for metric in job.metrics if metric not in BACKEND_METRICS]
                    names = [name for metric in asked for name in ALL_METRICS[metric]]
                    scores = Scores(missing=dict.fromkeys(names, CRASHED))
            self._done.append((number, scores))

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
