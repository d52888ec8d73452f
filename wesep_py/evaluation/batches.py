"""Trials extracted several at a time, where the model can: mixtures of one length need no padding.

Padding would change what a network hears (normalisation and recurrence run over it), and with it the numbers. Trials of
one mixture have one length; so do the mixtures of many rendered lists.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from wesep_py.errors import WesepError
from wesep_py.evaluation.extraction import Extracted, extract, finished

if TYPE_CHECKING:
    from wesep_py.corpus.trials import Trial
    from wesep_py.inference import Extractor
    from wesep_py.simulation.trials import TrialAudio

log = logging.getLogger(__name__)

LOOK_AHEAD = 4
"""Batches' worth of trials among which those of one length are looked for."""

Listed = tuple[int, "Trial", "TrialAudio | Exception"]


def extract_all(
    extractor: Extractor, listed: Iterable[Listed], batch_size: int = 1
) -> Iterator[tuple[Trial, Extracted]]:
    """Extract rendered trials, in the order of the list but for those that wait for others of their length.

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
    by_length: dict[int, list[Listed]] = {}
    waiting = 0
    for item in listed:
        audio = item[2]
        if isinstance(audio, Exception):
            yield item[1], extract(extractor, item[1], audio, item[0])
            continue
        same = by_length.setdefault(len(audio.mixture), [])
        same.append(item)
        waiting += 1
        if len(same) == batch_size or waiting >= LOOK_AHEAD * batch_size:
            fullest = max(by_length, key=lambda length: len(by_length[length]))
            batch = by_length.pop(fullest)
            waiting -= len(batch)
            yield from _extract_batch(extractor, batch)
    for batch in by_length.values():
        yield from _extract_batch(extractor, batch)


def can_batch(extractor: Extractor) -> bool:
    """Whether it takes several mixtures at a time; what a user puts in the model's place may not."""
    return hasattr(extractor, "extract_batch")


def _extract_batch(extractor: Extractor, batch: Sequence[Listed]) -> Iterator[tuple[Trial, Extracted]]:
    """A batch; if it fails as a whole (out of memory, voices of different shapes), its trials one by one."""
    rate = extractor.sample_rate
    if len(batch) == 1:
        number, trial, audio = batch[0]
        yield trial, extract(extractor, trial, audio, number)
        return
    try:
        begin = time.perf_counter()
        voices = [extractor.enroll((audio.enrollment, rate)) for _, _, audio in batch]
        results = extractor.extract_batch([(audio.mixture, rate) for _, _, audio in batch], voices)
        spent_s = (time.perf_counter() - begin) / len(batch)
    except (WesepError, RuntimeError) as error:  # torch's out of memory is a RuntimeError
        log.warning("a batch of %d failed (%s); its trials are extracted one by one", len(batch), error)
        for number, trial, audio in batch:
            yield trial, extract(extractor, trial, audio, number)
        return
    for (number, trial, audio), result in zip(batch, results, strict=True):
        yield trial, finished(trial, audio, result, rate, spent_s, number)
