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
from typing import TYPE_CHECKING, NamedTuple

from wesep_py.errors import WesepError
from wesep_py.evaluation.extraction import Extracted, extract, finished

if TYPE_CHECKING:
    from wesep_py.corpus.trials import Trial
    from wesep_py.inference import Extractor, Voice
    from wesep_py.simulation.trials import TrialAudio

log = logging.getLogger(__name__)

LOOK_AHEAD = 4
"""Batches' worth of trials among which those that go together are looked for."""

Listed = tuple[int, "Trial", "TrialAudio | Exception"]


class Enrolled(NamedTuple):
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
) -> Iterator[tuple[Trial, Extracted]]:
    """Extract rendered trials, in the order of the list but for those that wait for others like them.

    Args:
        extractor: the model.
        listed: number, trial and its audio.
        batch_size: most mixtures at a time.

    Yields:
        Every trial, with what was extracted or why it failed.
    """
    if batch_size == 1 or not can_batch(extractor):
        for number, trial, audio in listed:
            yield trial, extract(extractor, trial, audio, number)
        return
    alike: dict[Hashable, list[Enrolled]] = {}
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


def _enroll(extractor: Extractor, number: int, trial: Trial, audio: TrialAudio | Exception) -> Enrolled | None:
    """The trial with its voice; `None` where it has none, so that it is extracted, and fails, by itself."""
    if isinstance(audio, Exception):
        return None
    begin = time.perf_counter()
    try:
        voice = extractor.enroll(*audio.introduction)
    except Exception:  # it costs this trial, whose record will have the reason
        log.debug("enrolling for %s failed", trial.mixture_id, exc_info=True)
        return None
    return Enrolled(number, trial, audio, voice, time.perf_counter() - begin)


def _extract_batch(extractor: Extractor, batch: Sequence[Enrolled]) -> Iterator[tuple[Trial, Extracted]]:
    """A batch; if it fails as a whole (out of memory, a sample that is not finite), its trials one by one."""
    rate = extractor.sample_rate
    if len(batch) > 1:
        begin = time.perf_counter()
        try:
            results = extractor.extract_batch(
                [(one.audio.mixture, rate) for one in batch], [one.voice for one in batch]
            )
        except (WesepError, RuntimeError) as error:  # torch's out of memory is a RuntimeError
            log.warning("a batch of %d failed (%s); its trials are extracted one by one", len(batch), error)
        else:
            spent_s = (time.perf_counter() - begin) / len(batch)
            for one, result in zip(batch, results, strict=True):
                yield one.trial, finished(one.trial, one.audio, result, rate, one.enrolling_s + spent_s, one.number)
            return
    for one in batch:
        yield one.trial, extract(extractor, one.trial, one.audio, one.number, one.voice, one.enrolling_s)
