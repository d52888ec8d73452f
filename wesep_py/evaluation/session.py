"""The scoring of a run: what has been extracted goes in, records, files and the summary come out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from wesep_py.evaluation.extraction import Extracted
from wesep_py.evaluation.journal import AUDIO, Journal
from wesep_py.evaluation.keeping import AudioKeeper
from wesep_py.evaluation.labels import Labels
from wesep_py.evaluation.listeners import Listener, listen_to
from wesep_py.evaluation.measures import MEASURES
from wesep_py.evaluation.record import TrialRecord
from wesep_py.evaluation.scoring import ScoringJob, ScoringPool
from wesep_py.evaluation.summary import summarise
from wesep_py.metrics import MetricError

log = logging.getLogger(__name__)
SAY_EVERY_S = 60.0


class Session:
    """One run; a context manager.

    Args:
        protocol: how it is measured.
        total: number of trials.
        names: what is measured, out of `measures.MEASURES`.
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
        listeners: Sequence[Listener] = (),
        save_audio: int = 0,
        save_extremes: int = 0,
        on_progress: Callable[[int, int], None] | None = None,
        labels: Labels | None = None,
    ) -> None:
        self._protocol, self._total, self._names = protocol, total, tuple(names)
        self._journal = None if folder is None else Journal(folder, protocol, overwrite)
        self.records: dict[int, TrialRecord] = {} if self._journal is None else dict(self._journal.done)
        self.done = frozenset(self.records)
        audio = None if folder is None else folder / AUDIO
        self._keeper = AudioKeeper(audio, save_audio, save_extremes, self.records.values())
        self._listeners, self._on_progress, self._labels = list(listeners), on_progress, labels
        self._waiting: dict[int, Extracted] = {}
        self._pool = ScoringPool(jobs)
        self._begun = self._said = time.monotonic()

    def __enter__(self) -> Session:
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

    def add(self, extracted: Extracted) -> None:
        """Score a trial, and write down those that are done by now. Its record has its number."""
        record, audio, estimate = extracted.record, extracted.audio, extracted.estimate
        if record.number is None:
            raise ValueError("the trial's record has no number")
        if record.outcome != "scored":
            self._finish(extracted)
        else:
            assert audio is not None and estimate is not None
            rate = audio.sample_rate
            listen_to(self._listeners, record, estimate, audio.reference, audio.enrollment, rate)
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

    def _labelled(self, extracted: Extracted) -> tuple[tuple[str, ...], np.ndarray | None]:
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
            record.missing.update(dict.fromkeys(MEASURES["timing"], str(error)))
            return tuple(name for name in self._names if name != "timing"), None
        return self._names, activity

    def _collect(self, wait_for_all: bool = False) -> None:
        for number, scores in self._pool.finished(wait_for_all):
            extracted = self._waiting.pop(number)
            extracted.record.values.update(scores.values)
            extracted.record.missing.update(scores.missing)
            self._finish(extracted)

    def _finish(self, extracted: Extracted) -> None:
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
