"""Measure the conditions of a trial that results are broken down by: SIR, overlap, level, enrollment, speakers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from wesep_py.metrics.timing import FRAME_S

if TYPE_CHECKING:
    from wesep_py.data.trials import Trial
    from wesep_py.evaluation.results import TrialRecord

UNKNOWN = "unknown"
SIR_EDGES_DB = (-10.0, -5.0, 0.0, 5.0, 10.0)
OVERLAP_EDGES = (0.2, 0.4, 0.6, 0.8)
ENROLLMENT_EDGES_S = (2.0, 5.0, 10.0)
LEVEL_EDGES_DB = (-40.0, -35.0, -30.0, -25.0, -20.0)
CONDITION_EDGES: dict[str, tuple[float, ...]] = {
    "sir_db": SIR_EDGES_DB,
    "overlap": OVERLAP_EDGES,
    "enrollment_s": ENROLLMENT_EDGES_S,
    "level_db": LEVEL_EDGES_DB,
}
"""Edges of the bins of each breakdown; a bin includes its lower edge."""
CONDITION_DEFINITIONS = {
    "sir_db": "breakdown by SIR: active level of the target's reference over that of the sum of all interferers, in dB "
    "(wesep_py.audio.active_level_db)",
    "overlap": "breakdown by overlap: share of the frames with speech in which two speakers or more are active, 0 to 1 "
    "(wesep_py.audio.active_mask of each source)",
    "enrollment_s": "breakdown by enrollment: its length in seconds",
    "level_db": "breakdown by level: active level of the target's reference in dB of full scale "
    "(wesep_py.audio.active_level_db)",
}
"""Definition of each breakdown, as every summary carries it."""
SpeakerInfo = Mapping[str, tuple[str | None, float | None]]
"""Gender and age in years of each speaker, by speaker id, from `data.read_speakers`."""


def describe_audio(
    record: TrialRecord,
    reference: np.ndarray | None,
    interferers: np.ndarray | None,
    enrollment: np.ndarray | None,
    sample_rate: int,
) -> None:
    """Enter the conditions into a trial's record; a condition that cannot be known stays `None`.

    Args:
        record: is changed.
        reference: `[samples]`, the target in the mixture; `None` if it is absent or unknown.
        interferers: `[sources, samples]`; `None` if they are unknown.
        enrollment: `[enrollment_samples]`; `None` if it is unknown.
        sample_rate: in Hz.
    """
    from wesep_py.audio import active_level_db

    if enrollment is not None:
        record.enrollment_s = len(enrollment) / sample_rate
    if reference is not None:
        level_db = active_level_db(reference, sample_rate)
        record.level_db = float(level_db) if np.isfinite(level_db) else None
    if interferers is None:
        return
    record.overlap = overlap_ratio([*interferers] if reference is None else [reference, *interferers], sample_rate)
    if reference is not None and len(interferers):
        interferers_db = active_level_db(np.sum(interferers, axis=0), sample_rate)
        if record.level_db is not None and np.isfinite(interferers_db):
            record.sir_db = float(record.level_db - interferers_db)


def overlap_ratio(sources: list[np.ndarray], sample_rate: int) -> float | None:
    """Return the share of the frames with speech in which two or more sources are active; `None` without speech.

    Args:
        sources: `[samples]` each, one per speaker.
        sample_rate: in Hz.
    """
    if not sources:
        return None
    counts = np.sum([speech_frames(source, sample_rate) for source in sources], axis=0)
    num_speech = int((counts > 0).sum())
    return float((counts > 1).sum() / num_speech) if num_speech else None


def speech_frames(signal: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return whether a voice is active, bool `[frames]` of 20 ms: at most 40 dB below its loudest frame."""
    from wesep_py.audio import active_mask

    return active_mask(signal, sample_rate)[:: max(1, round(FRAME_S * sample_rate))]


def gender_pair(trial: Trial, speakers: SpeakerInfo) -> str:
    """Return the genders of all speakers of the mixture, sorted: "f-f", "f-m", "m-m", "f-f-m", …, or "unknown"."""
    genders = [speakers.get(source.speaker_id or "", (None, None))[0] for source in trial.sources]
    known = sorted(gender for gender in genders if gender)
    return "-".join(known) if len(known) == len(genders) else UNKNOWN


def age_group(trial: Trial, speakers: SpeakerInfo) -> str:
    """Return the target's age group: "child" (under 13), "teenager" (under 18), "adult", or "unknown"."""
    if trial.target_index is None:
        return UNKNOWN
    age = speakers.get(trial.sources[trial.target_index].speaker_id or "", (None, None))[1]
    if age is None:
        return UNKNOWN
    return "child" if age < 13 else "teenager" if age < 18 else "adult"


def bin_name(value: float | None, edges: tuple[float, ...]) -> str:
    """Return the name of the bin of a value; a bin includes its lower edge.

    >>> bin_name(-5.0, SIR_EDGES_DB), bin_name(12.0, SIR_EDGES_DB), bin_name(None, SIR_EDGES_DB)
    ('-5 to 0', 'from 10', 'unknown')
    """
    if value is None:
        return UNKNOWN
    above = sum(value >= edge for edge in edges)
    if above == 0:
        return f"under {edges[0]:g}"
    if above == len(edges):
        return f"from {edges[-1]:g}"
    return f"{edges[above - 1]:g} to {edges[above]:g}"
