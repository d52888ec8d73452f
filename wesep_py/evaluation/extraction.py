"""One trial extracted: through the same functions as a user's recording."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wesep_py.corpus.trials import ABSENT
from wesep_py.errors import reason
from wesep_py.evaluation.conditions import describe_audio
from wesep_py.evaluation.frame_calibration import frame_histogram
from wesep_py.evaluation.record import TrialRecord
from wesep_py.metrics import attenuation_db, is_silent
from wesep_py.names import printable

if TYPE_CHECKING:
    from wesep_py.corpus.embeddings import Embeddings
    from wesep_py.corpus.trials import Trial
    from wesep_py.evaluation.signals import GivenAudio
    from wesep_py.inference import Extractor, Result, Voice
    from wesep_py.simulation.trials import Condition, TrialAudio

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Extracted:
    """A trial after extraction.

    Attributes:
        record: all but the metrics.
        audio: mixture, reference, interferers; None if it could not be rendered.
        estimate: `[samples]`; None if the trial failed.
        speaker_id: of the target, where it is known.
    """

    record: TrialRecord
    audio: TrialAudio | GivenAudio | None = None
    estimate: np.ndarray | None = None
    speaker_id: str | None = None


def render(
    trial: Trial, condition: Condition, sample_rate: int, embeddings: Embeddings | None = None
) -> TrialAudio | Exception:
    """The trial's audio, or what went wrong."""
    from wesep_py.simulation.trials import render_trial

    try:
        if not trial.sources:
            return _recorded(trial, condition, sample_rate, embeddings)
        return render_trial(trial, condition, sample_rate, embeddings)
    except Exception as error:
        log.debug("rendering %s failed", trial.mixture_id, exc_info=True)
        return error


def _recorded(trial: Trial, condition: Condition, sample_rate: int, embeddings: Embeddings | None = None) -> TrialAudio:
    """The audio of a recording whose sources nobody knows apart.

    Raises:
        AudioError: a file is missing or damaged.
    """
    from wesep_py.audio import read_mono
    from wesep_py.simulation.trials import TrialAudio

    mixture = read_mono(trial.rendered[condition], sample_rate)
    return TrialAudio(
        mixture=mixture,
        reference=None,
        interferers=np.zeros((0, len(mixture)), dtype=np.float32),
        noise=np.zeros_like(mixture),
        enrollment=read_mono(trial.enrollment, sample_rate),
        sample_rate=sample_rate,
        embedding=None if embeddings is None else embeddings.of_trial(trial),
    )


def extract(
    extractor: Extractor,
    trial: Trial,
    audio: TrialAudio | Exception,
    number: int | None = None,
    voice: Voice | None = None,
    enrolling_s: float = 0.0,
) -> Extracted:
    """Enroll and extract one trial; a failure is recorded, not raised.

    Args:
        extractor: any sample rate; the trial must have been rendered at it.
        trial: what is wanted.
        audio: from `render`.
        number: position of the trial in its list.
        voice: what is enrolled already.
        enrolling_s: time that it took.
    """
    if isinstance(audio, Exception):
        return failed(_record(trial, number), audio)
    rate = extractor.sample_rate
    begin = time.perf_counter()
    try:
        voice = extractor.enroll(*audio.introduction) if voice is None else voice
        result = extractor.extract((audio.mixture, rate), voice)
        spent_s = enrolling_s + time.perf_counter() - begin
        return finished(trial, audio, result, rate, spent_s, number)
    except Exception as error:  # one trial's failure, of whatever kind, must not lose the others
        log.debug("extracting %s failed", trial.mixture_id, exc_info=True)
        record = _record(trial, number)
        record.duration_s = len(audio.mixture) / rate
        return failed(record, error)


def finished(
    trial: Trial, audio: TrialAudio, result: Result, sample_rate: int, extraction_s: float, number: int | None = None
) -> Extracted:
    """What is known of a trial once its voice has been extracted: all but the metrics.

    Args:
        trial: what was wanted.
        audio: what it was extracted from.
        result: what the model returned.
        sample_rate: Hz.
        extraction_s: time that enrolling and extracting took.
        number: position of the trial in its list.
    """
    record = _record(trial, number)
    record.duration_s, record.extraction_s = len(audio.mixture) / sample_rate, extraction_s
    estimate = np.asarray(result.waveform, dtype=np.float32)
    record.presence = result.presence
    reference = audio.reference if trial.target_index is not None else None
    absent = trial.target_index is None and (bool(trial.sources) or trial.target_utterance_id == ABSENT)
    if result.detection is not None and (absent or reference is not None):
        record.presence_frames = frame_histogram(result.detection, reference, sample_rate)
    describe_estimate(record, estimate, reference, audio.mixture, absent)
    describe_audio(record, reference, audio.interferers, audio.enrollment, sample_rate)
    return Extracted(record, audio, estimate, None if trial.target is None else trial.target.speaker_id)


def describe_estimate(
    record: TrialRecord,
    estimate: np.ndarray,
    reference: np.ndarray | None,
    mixture: np.ndarray | None,
    absent: bool = False,
) -> None:
    """Enter the outcome into a record that has not failed, and how much of the mixture is left.

    Args:
        record: is changed.
        estimate: `[samples]`.
        reference: `[samples]`; `None` if it is not known, or the target is absent.
        mixture: `[samples]`; `None` if it is not known.
        absent: whether the target is known not to be there.
    """
    record.silent_estimate = is_silent(estimate)
    if absent:
        record.outcome = "absent"
    elif reference is not None and is_silent(reference):
        record.outcome = "silent_reference"
    if mixture is not None:
        record.attenuation_db = attenuation_db(estimate, mixture)


def _record(trial: Trial, number: int | None) -> TrialRecord:
    return TrialRecord(
        trial.mixture_id,
        trial.target_utterance_id,
        trial.enrollment.name,
        num_speakers=len(trial.sources),
        number=number,
    )


def failed(record: TrialRecord, error: Exception) -> Extracted:
    """A trial that could not be rendered, extracted or read, with the reason."""
    record.outcome = "failed"
    record.error = printable(reason(error))
    return Extracted(record)
