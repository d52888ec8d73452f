"""Trials extracted several at a time, where the model can: mixtures of one length, and voices of one shape.

Padding would change what a network hears (normalisation and recurrence run over it), and with it the numbers. Trials of
one mixture have one length; so do the mixtures of many rendered lists. A voice is an embedding, always of one shape,
or, for frame-level cues, as many frames as its enrollment has: such voices go together where enrollments are of one
length.
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


# ----------------------------------------
# One trial extracted: through the same functions as a user's recording.

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExtractedTrial:
    """A trial after extraction.

    Attributes:
        record: all but the metrics.
        audio: mixture, reference, interferers; None if it could not be rendered.
        estimate: `[samples]`; None if the trial failed_trial.
        speaker_id: of the target, where it is known.
    """

    record: TrialRecord
    audio: TrialAudio | PartialTrialAudio | None = None
    estimate: np.ndarray | None = None
    speaker_id: str | None = None


def render(
    trial: Trial, condition: Condition, sample_rate: int, embeddings: Embeddings | None = None
) -> TrialAudio | Exception:
    """The trial's audio, or what went wrong."""
    from wesep_py.simulation.trial_audio import render_trial

    try:
        if not trial.sources:
            return _recorded(trial, condition, sample_rate, embeddings)
        return render_trial(trial, condition, sample_rate, embeddings)
    except Exception as error:
        log.debug("rendering %s failed_trial", trial.mixture_id, exc_info=True)
        return error


def _recorded(trial: Trial, condition: Condition, sample_rate: int, embeddings: Embeddings | None = None) -> TrialAudio:
    """The audio of a recording whose sources nobody knows apart.

    Raises:
        AudioError: a file is missing or damaged.
    """
    from wesep_py.audio import read_mono
    from wesep_py.simulation.trial_audio import TrialAudio

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
) -> ExtractedTrial:
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
        return failed_trial(_record(trial, number), audio)
    rate = extractor.sample_rate
    begin = time.perf_counter()
    try:
        voice = extractor.enroll(*audio.enrollment_sources) if voice is None else voice
        result = extractor.extract((audio.mixture, rate), voice)
        spent_s = enrolling_s + time.perf_counter() - begin
        return completed_trial(trial, audio, result, rate, spent_s, number)
    except Exception as error:  # one trial's failure, of whatever kind, must not lose the others
        log.debug("extracting %s failed_trial", trial.mixture_id, exc_info=True)
        record = _record(trial, number)
        record.duration_s = len(audio.mixture) / rate
        return failed_trial(record, error)


def completed_trial(
    trial: Trial, audio: TrialAudio, result: Result, sample_rate: int, extraction_s: float, number: int | None = None
) -> ExtractedTrial:
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
    return ExtractedTrial(record, audio, estimate, None if trial.target is None else trial.target.speaker_id)


def describe_estimate(
    record: TrialRecord,
    estimate: np.ndarray,
    reference: np.ndarray | None,
    mixture: np.ndarray | None,
    absent: bool = False,
) -> None:
    """Enter the outcome into a record that has not failed_trial, and how much of the mixture is left.

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


def failed_trial(record: TrialRecord, error: Exception) -> ExtractedTrial:
    """A trial that could not be rendered, extracted or read, with the reason."""
    record.outcome = "failed"
    record.error = printable(reason(error))
    return ExtractedTrial(record)


LOOK_AHEAD = 4
"""Batches' worth of trials among which those that go together are looked for."""
Listed = tuple[int, "Trial", "TrialAudio | Exception"]


class EnrolledTrial(NamedTuple):
    """A trial whose voice is known, and the seconds that enrolling it took."""

    number: int
    trial: Trial
    audio: TrialAudio
    voice: Voice
    enrolling_s: float

    @property
    def shapes(self) -> Hashable:
        """Equal for those that fit into a batch: the length of the mixture, and the shapes of the voice's tensors."""
        tensors = sorted(self.voice.tensors.items())
        return len(self.audio.mixture), tuple((name, tuple(tensor.shape)) for name, tensor in tensors)


def extract_all(
    extractor: Extractor, listed: Iterable[Listed], batch_size: int = 1
) -> Iterator[tuple[Trial, ExtractedTrial]]:
    """Extract rendered trials, in the order of the list but for those that wait for others like them.

    Args:
        extractor: the model.
        listed: number, trial and its audio.
        batch_size: most mixtures at a time.

    Yields:
        Every trial, with what was extracted or why it failed_trial.
    """
    if batch_size == 1 or not can_batch(extractor):
        for number, trial, audio in listed:
            yield trial, extract(extractor, trial, audio, number)
        return
    alike: dict[Hashable, list[EnrolledTrial]] = {}
    waiting = 0
    for number, trial, audio in listed:
        enrolled = _enroll(extractor, number, trial, audio)
        if enrolled is None:
            yield trial, extract(extractor, trial, audio, number)
            continue
        same = alike.setdefault(enrolled.shapes, [])
        same.append(enrolled)
        waiting += 1
        if len(same) == batch_size or waiting >= LOOK_AHEAD * batch_size:
            fullest = max(alike, key=lambda shapes: len(alike[shapes]))
            batch = alike.pop(fullest)
            waiting -= len(batch)
            yield from _extract_batch(extractor, batch)
    for batch in alike.values():
        yield from _extract_batch(extractor, batch)


def can_batch(extractor: Extractor) -> bool:
    """Whether it takes several mixtures at a time; what a user puts in the model's place may not."""
    return hasattr(extractor, "extract_batch")


def _enroll(extractor: Extractor, number: int, trial: Trial, audio: TrialAudio | Exception) -> EnrolledTrial | None:
    """The trial with its voice; `None` where it has none, so that it is extracted, and fails, by itself."""
    if isinstance(audio, Exception):
        return None
    begin = time.perf_counter()
    try:
        voice = extractor.enroll(*audio.enrollment_sources)
    except Exception:  # it costs this trial, whose record will have the reason
        log.debug("enrolling for %s failed_trial", trial.mixture_id, exc_info=True)
        return None
    return EnrolledTrial(number, trial, audio, voice, time.perf_counter() - begin)


def _extract_batch(extractor: Extractor, batch: Sequence[EnrolledTrial]) -> Iterator[tuple[Trial, ExtractedTrial]]:
    """A batch; if it fails as a whole (out of memory, a sample that is not finite), its trials one by one."""
    rate = extractor.sample_rate
    if len(batch) > 1:
        begin = time.perf_counter()
        try:
            results = extractor.extract_batch(
                [(one.audio.mixture, rate) for one in batch], [one.voice for one in batch]
            )
        except (WesepError, RuntimeError) as error:  # torch's out of memory is a RuntimeError
            log.warning("a batch of %d failed_trial (%s); its trials are extracted one by one", len(batch), error)
        else:
            spent_s = (time.perf_counter() - begin) / len(batch)
            for one, result in zip(batch, results, strict=True):
                yield one.trial, completed_trial(one.trial, one.audio, result, rate, one.enrolling_s + spent_s, one.number)
            return
    for one in batch:
        yield one.trial, extract(extractor, one.trial, one.audio, one.number, one.voice, one.enrolling_s)
