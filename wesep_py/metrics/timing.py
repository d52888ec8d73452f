"""Precision, recall, F1 and error of speech activity, frame by frame."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wesep_py.metrics.separation import MetricError

FRAME_S = 0.02
"""Seconds from one frame to the next."""
PAUSE_S = 0.2
"""Shorter pauses count as speech."""
COLLAR_S = 0.1
"""Frames this near a boundary of the reference do not count."""


class Timing(NamedTuple):
    """Agreement of two activities, 0 to 1 each."""

    precision: float
    recall: float
    f1: float


def timing(
    estimate: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    frame_s: float = FRAME_S,
    pause_s: float = PAUSE_S,
    collar_s: float = COLLAR_S,
) -> Timing:
    """Return precision, recall and F1 of the frames in which the estimate is active.

    Pauses of both that are shorter than `pause_s` are closed first, as people who label speech do. Frames within
    `collar_s` of an onset or an end of the reference do not count, because boundaries are not known to the frame (the
    forgiveness collar of NIST's diarization scoring, md-eval). If the collar leaves no active frame of the reference,
    there is no collar.

    Args:
        estimate: `[frames]`, whether the estimate is active.
        reference: `[frames]`, whether the target speaks.
        frame_s: seconds from one frame to the next, positive.
        pause_s: shortest pause that counts, in seconds.
        collar_s: seconds before and after each boundary of the reference that do not count.

    Returns:
        Precision (0 where the estimate is never active), recall, and their harmonic mean.

    Raises:
        MetricError: the lengths differ, or the reference is never active.

    >>> reference = np.repeat([False, True, False], 50)
    >>> timing(np.repeat([False, True, True], 50), reference, collar_s=0.0).precision
    0.5
    """
    estimate, reference, counted = _counted_frames(estimate, reference, frame_s, pause_s, collar_s)
    hits = int((estimate & reference & counted).sum())
    num_estimated, num_true = int((estimate & counted).sum()), int((reference & counted).sum())
    precision = hits / num_estimated if num_estimated else 0.0
    recall = hits / num_true
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return Timing(precision, recall, f1)


def frame_error(
    estimate: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    frame_s: float = FRAME_S,
    pause_s: float = PAUSE_S,
    collar_s: float = COLLAR_S,
) -> float:
    """Return the share of the frames in which two activities differ: missed and false ones over all, 0 to 1.

    Pauses and boundaries are those of `timing`, and so are the arguments.

    Raises:
        MetricError: the lengths differ, or the reference is never active.

    >>> reference = np.repeat([False, True, False], 50)
    >>> frame_error(np.repeat([False, True, True], 50), reference, collar_s=0.0)
    0.3333333333333333
    """
    estimate, reference, counted = _counted_frames(estimate, reference, frame_s, pause_s, collar_s)
    return float((estimate != reference)[counted].mean())


def _counted_frames(
    estimate: NDArray[np.bool_], reference: NDArray[np.bool_], frame_s: float, pause_s: float, collar_s: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return both activities without short pauses, and the frames that count."""
    estimate, reference = np.asarray(estimate, dtype=bool), np.asarray(reference, dtype=bool)
    if estimate.shape != reference.shape or reference.ndim != 1:
        raise MetricError(f"activities of {list(estimate.shape)} and {list(reference.shape)} frames cannot be compared")
    if not reference.any():
        raise MetricError("the reference is never active")
    estimate, reference = (close_pauses(mask, round(pause_s / frame_s)) for mask in (estimate, reference))
    counted = ~_near_boundaries(reference, round(collar_s / frame_s))
    if not (counted & reference).any():
        counted = np.ones_like(reference)
    return estimate, reference, counted


def close_pauses(active: NDArray[np.bool_], num_frames: int) -> NDArray[np.bool_]:
    """Return the activity with pauses of fewer than `num_frames` frames between two active frames filled.

    >>> close_pauses(np.array([True, False, True, False, False, True]), 2).astype(int)
    array([1, 1, 1, 0, 0, 1])
    """
    closed = active.copy()
    positions = np.flatnonzero(active)
    for before, after in pairwise(positions):
        if 1 < after - before <= num_frames:
            closed[before:after] = True
    return closed


def _near_boundaries(active: NDArray[np.bool_], num_frames: int) -> NDArray[np.bool_]:
    """Return the frames within `num_frames` of a change of activity; the ends of the recording are no changes."""
    near = np.zeros_like(active)
    for change in np.flatnonzero(active[1:] != active[:-1]) + 1:
        near[max(0, change - num_frames) : change + num_frames] = True
    return near
