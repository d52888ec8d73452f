"""One trial extracted: through the same functions as a user's recording."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wesep_py.errors import WesepError
from wesep_py.evaluation.record import TrialRecord
from wesep_py.metrics import attenuation_db, is_silent

if TYPE_CHECKING:
    from wesep_py.corpus.trials import Trial
    from wesep_py.inference import Extractor
    from wesep_py.simulation.trials import Condition, TrialAudio

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Extracted:
    """A trial after extraction.

    Attributes:
        record: all but the metrics.
        audio: mixture, reference, interferers; None if it could not be rendered.
        estimate: `[samples]`; None if the trial failed.
    """

    record: TrialRecord
    audio: TrialAudio | None = None
    estimate: np.ndarray | None = None


def render(trial: Trial, condition: Condition, sample_rate: int) -> TrialAudio | Exception:
    """The trial's audio, or what went wrong."""
    from wesep_py.simulation.trials import render_trial

    try:
        return render_trial(trial, condition, sample_rate)
    except Exception as error:
        log.debug("rendering %s failed", trial.mixture_id, exc_info=True)
        return error


def extract(extractor: Extractor, trial: Trial, audio: TrialAudio | Exception) -> Extracted:
    """Enroll and extract one trial; a failure is recorded, not raised.

    Args:
        extractor: any sample rate; the trial must have been rendered at it.
        trial: what is wanted.
        audio: from `render`.
    """
    record = TrialRecord(
        trial.mixture_id, trial.target_utterance_id, trial.enrollment.name, num_speakers=len(trial.sources)
    )
    if isinstance(audio, Exception):
        return _failed(record, audio)
    rate = extractor.sample_rate
    record.duration_s = len(audio.mixture) / rate
    begin = time.perf_counter()
    try:
        voice = extractor.enroll((audio.enrollment, rate))
        result = extractor.extract((audio.mixture, rate), voice)
    except Exception as error:  # one trial's failure, of whatever kind, must not lose the others
        log.debug("extracting %s failed", trial.mixture_id, exc_info=True)
        return _failed(record, error)
    record.extraction_s = time.perf_counter() - begin
    estimate = np.asarray(result.waveform, dtype=np.float32)
    record.presence = result.presence
    record.silent_estimate = is_silent(estimate)
    if trial.target_index is None or audio.reference is None:
        record.outcome = "absent"
    elif is_silent(audio.reference):
        record.outcome = "silent_reference"
    if record.outcome == "scored":
        record.sir_db = _sir_db(audio.reference, audio.interferers, rate)
    else:
        record.attenuation_db = attenuation_db(estimate, audio.mixture)
    return Extracted(record, audio, estimate)


def _failed(record: TrialRecord, error: Exception) -> Extracted:
    record.outcome = "failed"
    kind = "" if isinstance(error, WesepError) else f"{type(error).__name__}: "
    record.error = kind + " ".join(str(error).split())
    return Extracted(record)


def _sir_db(reference: np.ndarray, interferers: np.ndarray, sample_rate: int) -> float | None:
    from wesep_py.audio import active_level_db

    if not len(interferers):
        return None
    level_db = active_level_db(reference, sample_rate)
    others_db = active_level_db(np.sum(interferers, axis=0), sample_rate)
    return float(level_db - others_db) if np.isfinite(level_db) and np.isfinite(others_db) else None
