"""Extract trials, one at a time or in batches, and enter into each record what is known before scoring.

A trial is extracted by the same functions as a user's recording (`Extractor.enroll`, `Extractor.extract`).

A batch holds mixtures of equal length and voices of equal shape. Padding would change what a network computes
(normalisation and recurrence run over the padding too), and with it the results. Trials of one mixture have one
length; so do the mixtures of many rendered lists. A voice is an embedding, always of one shape, or, for frame-level
cues, as many frames as its enrollment has: such voices share a batch where enrollments are of one length.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from wesep_py.common.errors import WesepError, reason
from wesep_py.common.names import printable
from wesep_py.data.trials import ABSENT
from wesep_py.evaluation.frame_calibration import frame_histogram
from wesep_py.evaluation.results import TrialRecord
from wesep_py.evaluation.trial_conditions import describe_audio
from wesep_py.metrics import attenuation_db, is_silent

if TYPE_CHECKING:
    from wesep_py.data.embedding_files import Embeddings
    from wesep_py.data.trials import Trial
    from wesep_py.evaluation.score_files import PartialTrialAudio
    from wesep_py.inference import Extractor, Result, Voice
    from wesep_py.simulation.trial_audio import Condition, TrialAudio

log = logging.getLogger(__name__)
LOOK_AHEAD = 4
"""Trials that fit into one batch are searched among this many batches' worth of trials."""
RenderedTrial = tuple[int, "Trial", "TrialAudio | Exception"]
"""Number, trial, and its audio or the error of rendering it."""


@dataclass(frozen=True)
class ExtractedTrial:
    """A trial after extraction.

    Attributes:
        record: everything but the metrics.
        audio: mixture, reference, interferers; `None` if they could not be rendered.
        estimate: `[samples]`; `None` if the trial failed.
        speaker_id: of the target, if it is known.
    """

    record: TrialRecord
    audio: TrialAudio | PartialTrialAudio | None = None
    estimate: np.ndarray | None = None
    speaker_id: str | None = None


def render(
    trial: Trial, condition: Condition, sample_rate: int, embeddings: Embeddings | None = None
) -> TrialAudio | Exception:
    """Return the audio of a trial, or the error of rendering it."""
    from wesep_py.simulation.trial_audio import render_trial

    try:
        if not trial.sources:
            return _read_recording(trial, condition, sample_rate, embeddings)
        return render_trial(trial, condition, sample_rate, embeddings)
    except Exception as error:
        log.debug("rendering %s failed", trial.mixture_id, exc_info=True)
        return error


def _read_recording(
    trial: Trial, condition: Condition, sample_rate: int, embeddings: Embeddings | None = None
) -> TrialAudio:
    """Return the audio of a recording whose sources are not known separately.

    Raises:
        AudioError: a file is missing or damaged.
    """
    from wesep_py.audio.reading import read_mono_segment
    from wesep_py.simulation.trial_audio import TrialAudio

    mixture = read_mono_segment(trial.rendered[condition], sample_rate)
    return TrialAudio(
        mixture=mixture,
        reference=None,
        interferers=np.zeros((0, len(mixture)), dtype=np.float32),
        noise=np.zeros_like(mixture),
        enrollment=read_mono_segment(trial.enrollment, sample_rate),
        sample_rate=sample_rate,
        embedding=None if embeddings is None else embeddings.of_trial(trial),
    )


def extract_all(
    extractor: Extractor, trials: Iterable[RenderedTrial], batch_size: int = 1
) -> Iterator[tuple[Trial, ExtractedTrial]]:
    """Extract rendered trials, in batches if the extractor can.

    The order is that of `trials`, except for trials that wait for others of their shapes.

    Args:
        extractor: the model.
        trials: number, trial and audio of each.
        batch_size: largest number of mixtures in a batch.

    Yields:
        Every trial, with its extraction or the reason why it failed.
    """
    if batch_size == 1 or not can_batch(extractor):
        for number, trial, audio in trials:
            yield trial, extract(extractor, trial, audio, number)
        return
    waiting: dict[Hashable, list[EnrolledTrial]] = {}
    num_waiting = 0
    for number, trial, audio in trials:
        enrolled = _enroll(extractor, number, trial, audio)
        if enrolled is None:
            yield trial, extract(extractor, trial, audio, number)
            continue
        same_shapes = waiting.setdefault(enrolled.shapes, [])
        same_shapes.append(enrolled)
        num_waiting += 1
        # A full batch is extracted at once. Where too many trials wait, none of them in a full batch, the fullest
        # batch goes, so that rare lengths hold back a bounded number of waveforms.
        if len(same_shapes) == batch_size or num_waiting >= LOOK_AHEAD * batch_size:
            fullest = max(waiting, key=lambda shapes: len(waiting[shapes]))
            batch = waiting.pop(fullest)
            num_waiting -= len(batch)
            yield from _extract_batch(extractor, batch)
    for batch in waiting.values():
        yield from _extract_batch(extractor, batch)


def extract(
    extractor: Extractor,
    trial: Trial,
    audio: TrialAudio | Exception,
    number: int | None = None,
    voice: Voice | None = None,
    enrolling_s: float = 0.0,
) -> ExtractedTrial:
    """Enroll and extract one trial; a failure is recorded, not raised.

    Args:
        extractor: the model, at the sample rate that the trial was rendered at.
        trial: names the target.
        audio: from `render`.
        number: position of the trial in its list.
        voice: the enrolled voice, if the trial is enrolled already.
        enrolling_s: time that enrolling took, in seconds.
    """
    if isinstance(audio, Exception):
        return failed_trial(_new_record(trial, number), audio)
    rate = extractor.sample_rate
    start_s = time.perf_counter()
    try:
        voice = enroll_trial(extractor, audio) if voice is None else voice
        result = extractor.extract((audio.mixture, rate), voice)
        extraction_s = enrolling_s + time.perf_counter() - start_s
        return completed_trial(trial, audio, result, rate, extraction_s, number)
    except Exception as error:  # one trial's failure, of whatever kind, must not lose the others
        log.debug("extracting %s failed", trial.mixture_id, exc_info=True)
        record = _new_record(trial, number)
        record.duration_s = len(audio.mixture) / rate
        return failed_trial(record, error)


def enroll_trial(extractor: Extractor, audio: TrialAudio) -> Voice:
    """Return the voice of a trial, with its negative enrollment if it has one."""
    if audio.negative is None:
        return extractor.enroll(*audio.enrollment_sources)
    return extractor.enroll(*audio.enrollment_sources, negative=(audio.negative, audio.sample_rate))


def can_batch(extractor: Extractor) -> bool:
    """Return whether an extractor takes several mixtures at a time; a user's own model may not."""
    return hasattr(extractor, "extract_batch")


class EnrolledTrial(NamedTuple):
    """A trial whose voice is enrolled, and the time that enrolling took, in seconds."""

    number: int
    trial: Trial
    audio: TrialAudio
    voice: Voice
    enrolling_s: float

    @property
    def shapes(self) -> Hashable:
        """Length of the mixture and shapes of the voice's tensors: equal for trials that fit into one batch."""
        tensors = sorted(self.voice.tensors.items())
        return len(self.audio.mixture), tuple((name, tuple(tensor.shape)) for name, tensor in tensors)


def _enroll(extractor: Extractor, number: int, trial: Trial, audio: TrialAudio | Exception) -> EnrolledTrial | None:
    """Return the trial with its voice; `None` if enrolling fails, so that `extract` records the failure."""
    if isinstance(audio, Exception):
        return None
    start_s = time.perf_counter()
    try:
        voice = enroll_trial(extractor, audio)
    except Exception:  # it costs this trial, whose record will have the reason
        log.debug("enrolling for %s failed", trial.mixture_id, exc_info=True)
        return None
    return EnrolledTrial(number, trial, audio, voice, time.perf_counter() - start_s)


def _extract_batch(extractor: Extractor, batch: Sequence[EnrolledTrial]) -> Iterator[tuple[Trial, ExtractedTrial]]:
    """Extract a batch; if it fails as a whole (out of memory, a non-finite sample), extract its trials one by one."""
    rate = extractor.sample_rate
    if len(batch) > 1:
        start_s = time.perf_counter()
        try:
            results = extractor.extract_batch(
                [(item.audio.mixture, rate) for item in batch], [item.voice for item in batch]
            )
        except (WesepError, RuntimeError) as error:  # torch's out of memory is a RuntimeError
            log.warning("a batch of %d failed (%s); its trials are extracted one by one", len(batch), error)
        else:
            each_s = (time.perf_counter() - start_s) / len(batch)
            for item, result in zip(batch, results, strict=True):
                extraction_s = item.enrolling_s + each_s
                yield item.trial, completed_trial(item.trial, item.audio, result, rate, extraction_s, item.number)
            return
    for item in batch:
        yield item.trial, extract(extractor, item.trial, item.audio, item.number, item.voice, item.enrolling_s)


def completed_trial(
    trial: Trial, audio: TrialAudio, result: Result, sample_rate: int, extraction_s: float, number: int | None = None
) -> ExtractedTrial:
    """Return a trial with the record of its extraction: everything but the metrics.

    Args:
        trial: names the target.
        audio: the rendered trial.
        result: from the extractor.
        sample_rate: in Hz.
        extraction_s: time that enrolling and extracting took, in seconds.
        number: position of the trial in its list.
    """
    record = _new_record(trial, number)
    record.duration_s, record.extraction_s = len(audio.mixture) / sample_rate, extraction_s
    estimate = np.asarray(result.waveform, dtype=np.float32)
    if (detection := result.detection) is None:
        record.presence = result.presence
    else:
        record.presence = detection.head_probability
        if detection.verification is not None:
            record.verified, record.evidence = detection.verification.probability, detection.verification.evidence
    record.repaired = True if getattr(result, "repaired", False) else None
    reference = audio.reference if trial.target_index is not None else None
    # Without sources the target's presence is known only where the list says that it is absent.
    absent = trial.target_index is None and (bool(trial.sources) or trial.target_utterance_id == ABSENT)
    if result.detection is not None and (absent or reference is not None):
        record.presence_frames = frame_histogram(result.detection, reference, sample_rate)
    describe_estimate(record, estimate, reference, audio.mixture, absent)
    describe_audio(record, reference, audio.interferers, audio.enrollment, sample_rate)
    return ExtractedTrial(record, audio, estimate, None if trial.target is None else trial.target.speaker_id)


def describe_estimate(
    record: TrialRecord,
    estimate: np.ndarray,
    reference: np.ndarray | None,
    mixture: np.ndarray | None,
    absent: bool = False,
) -> None:
    """Enter outcome and attenuation into the record of a trial that has not failed.

    Args:
        record: is changed.
        estimate: `[samples]`.
        reference: `[samples]`; `None` if it is unknown, or the target is absent.
        mixture: `[samples]`; `None` if it is unknown.
        absent: whether the target is known to be absent.
    """
    record.silent_estimate = is_silent(estimate)
    if absent:
        record.outcome = "absent"
    elif reference is not None and is_silent(reference):
        record.outcome = "silent_reference"
    if mixture is not None:
        record.attenuation_db = attenuation_db(estimate, mixture)


def failed_trial(record: TrialRecord, error: Exception) -> ExtractedTrial:
    """Return a trial that could not be rendered, extracted or read, with the error in its record."""
    record.outcome = "failed"
    record.error = printable(reason(error))
    return ExtractedTrial(record)


def _new_record(trial: Trial, number: int | None) -> TrialRecord:
    return TrialRecord(
        trial.mixture_id,
        trial.target_utterance_id,
        trial.enrollment.name,
        num_speakers=len(trial.sources),
        groups=dict(trial.groups),
        number=number,
    )
