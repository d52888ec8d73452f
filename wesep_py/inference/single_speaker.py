"""Segments of a conversation in which one person seems to speak alone, as enrollments for `wesep extract`.

```
recording ─► windows of 1.6 s ─► speaker encoder ─► embeddings
candidates of 2.4 to 4 s: all windows hold speech, and their embeddings are similar (consistency)
each candidate enrolls itself and is extracted from itself: what remains is another voice (residual)
consistency, residual, duration ─► logistic ─► confidence ─► segments that do not overlap ─► clusters of voices
```

Two voices at once give an embedding of neither, which is less stable than that of one voice. An extractor that is given
two voices as the enrollment returns mostly one of them. Figures: docs/enrollment.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wesep_py import audio
from wesep_py.audio.reading import resample_blocks
from wesep_py.common.errors import AudioError, InputError
from wesep_py.inference.enrolling.speech_activity import remove_low_frequencies, speech_mask
from wesep_py.inference.presence_decision.presence import sigmoid

if TYPE_CHECKING:
    from wesep_py.inference.extractor import Extractor
    from wesep_py.network.speaker import SpeakerEncoder

DEFAULT_ENCODER = "dvector"
"""Name of the installed encoder that is used if no other is named."""
WINDOW_S, HOP_S = 1.6, 0.4
"""Length of the windows that are embedded, and the time from one to the next."""
LENGTHS_S = (2.4, 3.2, 4.0)
"""Lengths of segments; single turns in a lively conversation are hardly longer."""
MIN_SPEECH = 0.7
"""Least share of speech in each window of a segment."""
CANDIDATES_PER_MINUTE = 10
"""Candidates of each length that are extracted, those with the highest consistency; at least as for a minute."""
CONSISTENCY_WEIGHT, RESIDUAL_WEIGHT, DURATION_WEIGHT, OFFSET = 22.0, -0.187, 1.146, -27.6
"""Weights of the logistic for the consistency, the residual in dB and the duration in seconds; see `confidence`."""
MIN_CONFIDENCE = 0.6
"""Least confidence of a segment that is listed."""
POSITIVE_SIMILARITY, ORTHOGONAL_SIMILARITY = 0.665, 0.4
"""Least mean cosine of the segments of one voice: of an encoder without negative values (the d-vector), and others."""
_BATCH = 64
_READ_S = 30.0


@dataclass(frozen=True)
class SoloSegment:
    """Segment in which one person seems to speak alone.

    Attributes:
        start_s, end_s: in seconds.
        confidence: probability that at least 95 % of its speech is of one person alone, 0 to 1.
        voice: number of its voice, from 1, in order of the seconds that were found.
        consistency: mean cosine of the embeddings of its windows.
        residual_db: level of what an extraction with the segment itself as the enrollment leaves of it.
    """

    start_s: float
    end_s: float
    confidence: float
    voice: int
    consistency: float
    residual_db: float


def find_solo_segments(
    path: str | PathLike[str],
    extractor: Extractor,
    encoder: SpeakerEncoder,
    min_confidence: float = MIN_CONFIDENCE,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[SoloSegment]:
    """Return segments in which one person seems to speak alone, in order of time.

    The recording is held in memory, one channel at the model's rate: 230 MB per hour.

    Args:
        path: the recording; of several channels, the mean.
        extractor: extracts each candidate from itself.
        encoder: takes waveforms at the extractor's rate (`network.speaker.load_encoder`).
        min_confidence: least confidence of a segment, 0 to 1.
        progress: called with the number of steps that are done, and of all.

    Raises:
        AudioError: the recording cannot be read, or is shorter than the shortest segment.
        InputError: `min_confidence` is not 0 to 1.
    """
    if not 0 <= min_confidence <= 1:
        raise InputError(f"the least confidence is {min_confidence:g}; 0 to 1 is allowed")
    rate = extractor.sample_rate
    waveform = _read_mixed(path, rate)
    if len(waveform) < LENGTHS_S[0] * rate:
        raise AudioError(f"{path}: lasts {len(waveform) / rate:.1f} s; at least {LENGTHS_S[0]:g} s are needed")
    windows = _embed_windows(waveform, rate, encoder, progress)
    candidates = [candidate for length_s in LENGTHS_S for candidate in _consistent(windows, length_s)]
    rated = []
    for number, candidate in enumerate(candidates):
        start, stop = round(candidate.start_s * rate), round(candidate.end_s * rate)
        residual_db = _self_residual_db(waveform[start:stop], extractor)
        value = confidence(candidate.consistency, residual_db, candidate.end_s - candidate.start_s)
        rated.append(replace(candidate, confidence=value, residual_db=residual_db))
        progress(windows.count + number + 1, windows.count + len(candidates))
    chosen = _without_overlap([segment for segment in rated if segment.confidence >= min_confidence])
    return _with_voices(chosen, windows, encoder)


def confidence(consistency: float, residual_db: float, duration_s: float) -> float:
    """Return the probability that a segment is of one person alone.

    The weights were fitted with the bundled model and the d-vector; with others it gives an order, no probability.

    Args:
        consistency: mean cosine of the embeddings of its windows.
        residual_db: level of what an extraction with the segment itself as the enrollment leaves of it.
        duration_s: of the segment.

    >>> confidence(0.9, -35.0, 2.4) > confidence(0.8, -20.0, 2.4)
    True
    """
    # The consistency of longer segments is lower, since their windows are further apart: hence the weight of duration.
    score = CONSISTENCY_WEIGHT * consistency + RESIDUAL_WEIGHT * residual_db + DURATION_WEIGHT * duration_s + OFFSET
    return float(sigmoid(score))


@dataclass(frozen=True)
class _Windows:
    """Windows of a recording: start in seconds, embedding of unit length, share of speech."""

    start_s: NDArray[np.float64]
    embeddings: NDArray[np.float32]
    speech: NDArray[np.float64]

    @property
    def count(self) -> int:
        return len(self.start_s)


def _read_mixed(path: str | PathLike[str], rate: int) -> NDArray[np.float32]:
    """Return the mean of the channels at a rate, read block by block."""
    about = audio.info(path)
    blocks = audio.read_blocks(path, round(_READ_S * about.sample_rate))
    mixed = (block.mean(axis=0, keepdims=True) for block in blocks)
    return np.concatenate([block[0] for block in resample_blocks(mixed, about.sample_rate, rate, 1)])


def _embed_windows(
    waveform: NDArray[np.float32], rate: int, encoder: SpeakerEncoder, progress: Callable[[int, int], None]
) -> _Windows:
    import torch

    mask = speech_mask(waveform, rate)
    clean = remove_low_frequencies(waveform, rate)
    length, hop = round(WINDOW_S * rate), round(HOP_S * rate)
    starts = np.arange(0, len(waveform) - length + 1, hop)
    speech = np.array([mask[start : start + length].mean() for start in starts])
    embeddings = np.zeros((len(starts), encoder.embedding_dim), np.float32)
    sounding = np.flatnonzero(speech >= MIN_SPEECH)
    for begin in range(0, len(sounding), _BATCH):
        indices = sounding[begin : begin + _BATCH]
        batch = torch.from_numpy(np.stack([clean[starts[i] : starts[i] + length] for i in indices]))
        with torch.inference_mode():
            output = encoder(batch, torch.full((len(batch),), length)).embedding
            embeddings[indices] = torch.nn.functional.normalize(output, dim=1).numpy()
        progress(begin + len(indices), 2 * len(starts))
    return _Windows(starts / rate, embeddings, speech)


def _consistent(windows: _Windows, length_s: float) -> list[SoloSegment]:
    """Return the candidates of a length with the highest consistency, without overlap among them."""
    size = round((length_s - WINDOW_S) / HOP_S) + 1
    found = []
    for first in range(windows.count - size + 1):
        if windows.speech[first : first + size].min() >= MIN_SPEECH:
            part = windows.embeddings[first : first + size]
            consistency = float((np.square(part.sum(axis=0)).sum() - size) / (size * (size - 1)))
            start_s = float(windows.start_s[first])
            found.append(SoloSegment(start_s, start_s + length_s, 0.0, 0, consistency, 0.0))
    duration_min = float(windows.start_s[-1] + WINDOW_S) / 60
    limit = round(CANDIDATES_PER_MINUTE * max(1.0, duration_min))
    chosen: list[SoloSegment] = []
    for candidate in sorted(found, key=lambda segment: -segment.consistency):
        if len(chosen) == limit:
            break
        if all(not _overlap(candidate, other) for other in chosen):
            chosen.append(candidate)
    return chosen


def _self_residual_db(segment: NDArray[np.float32], extractor: Extractor) -> float:
    """Return the level in dB, to that of a segment, of what its extraction with itself as the enrollment leaves."""
    source = (segment, extractor.sample_rate)
    estimate = extractor.extract(source, extractor.enroll(source), shifts=1).waveform
    energy = float(np.square(segment, dtype=np.float64).sum())
    residual = float(np.square(segment - estimate, dtype=np.float64).sum())
    return float(10 * np.log10(max(residual, 1e-6 * energy, 1e-20) / max(energy, 1e-20)))


def _without_overlap(segments: Sequence[SoloSegment]) -> list[SoloSegment]:
    """Return the segments with the highest confidence that do not overlap, in order of time."""
    chosen: list[SoloSegment] = []
    for segment in sorted(segments, key=lambda segment: (-segment.confidence, segment.start_s)):
        if all(not _overlap(segment, other) for other in chosen):
            chosen.append(segment)
    return sorted(chosen, key=lambda segment: segment.start_s)


def _overlap(first: SoloSegment, second: SoloSegment) -> bool:
    return first.start_s < second.end_s - 1e-6 and second.start_s < first.end_s - 1e-6


def _with_voices(segments: Sequence[SoloSegment], windows: _Windows, encoder: SpeakerEncoder) -> list[SoloSegment]:
    """Return the segments with the numbers of their voices, by average-linkage clustering of their embeddings."""
    if not segments:
        return []
    embeddings = []
    for segment in segments:
        inside = (windows.start_s >= segment.start_s - 1e-6) & (windows.start_s + WINDOW_S <= segment.end_s + 1e-6)
        mean = windows.embeddings[inside].mean(axis=0)
        embeddings.append(mean / max(1e-12, float(np.linalg.norm(mean))))
    labels = np.ones(len(segments), dtype=int)
    if len(segments) > 1:
        from scipy.cluster.hierarchy import fcluster, linkage
        from scipy.spatial.distance import pdist

        is_positive = encoder.config.network.get("activation") == "relu"
        similarity = POSITIVE_SIMILARITY if is_positive else ORTHOGONAL_SIMILARITY
        tree = linkage(pdist(np.stack(embeddings).astype(np.float64), "cosine"), "average")
        labels = fcluster(tree, 1 - similarity, "distance")
    seconds = dict.fromkeys(labels.tolist(), 0.0)
    for label, segment in zip(labels.tolist(), segments, strict=True):
        seconds[label] += segment.end_s - segment.start_s
    order = sorted(seconds, key=lambda label: (-seconds[label], label))
    return [
        replace(segment, voice=order.index(label) + 1) for label, segment in zip(labels.tolist(), segments, strict=True)
    ]


def find_encoder(name: str | None, sample_rate: int) -> SpeakerEncoder:
    """Return a speaker encoder: an installed one, or a checkpoint folder.

    Args:
        name: of an installed model, or a folder; `None` for the d-vector, or else any encoder that is installed.
        sample_rate: of the waveforms that it will be given, in Hz.

    Raises:
        InputError: none is installed.
        CheckpointError: the checkpoint is damaged, or holds no encoder.
    """
    from wesep_py import checkpoint
    from wesep_py.models import installed_models
    from wesep_py.network.speaker import load_encoder

    if name is None:
        names = [found for found, model in installed_models().items() if model.kind == "speaker encoder"]
        if not names:
            raise InputError(
                "no speaker encoder is installed; install one by `wesep models pull dvector` (15 MiB), or name a "
                "checkpoint folder by --speaker-model"
            )
        name = DEFAULT_ENCODER if DEFAULT_ENCODER in names else names[0]
    return load_encoder(checkpoint.resolve(name), sample_rate)
