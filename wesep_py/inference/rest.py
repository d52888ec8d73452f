"""The rest of a mixture beside an extracted voice: as they are written, the two sum to the mixture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BITS = {"PCM_U8": 8, "PCM_S8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
UNBOUNDED = ("FLOAT", "DOUBLE")
"""Sample formats that hold values beyond full scale."""


def split(
    mixture: NDArray[np.float32], voice: NDArray[np.float32], subtype: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """A voice as its file will hold it, and what of the mixture is left.

    In integer formats the voice is rounded to their steps first, so that the rest of a mixture of the same format is
    exact. Where the rest would pass full scale (which a mixture at full scale makes possible), the voice gives way for
    these samples; floats hold any value.

    Args:
        mixture: `[channels, samples]`.
        voice: of the same shape, in formats with a full scale within it.
        subtype: libsndfile's name of the sample format of both files.

    Returns:
        voice, rest: `[channels, samples]`.
        altered: how many samples gave way.

    >>> voice, rest, altered = split(np.array([[0.5, -1.0]]), np.array([[0.25, 0.5]]), "PCM_16")
    >>> (voice + rest).tolist(), altered
    ([[0.5, -1.0]], 1)
    """
    whole, part = mixture.astype(np.float64), voice.astype(np.float64)
    if subtype in UNBOUNDED:
        part = part if subtype == "DOUBLE" else voice.astype(np.float32).astype(np.float64)
        return part, whole - part, 0
    lowest, highest = -1.0, 1.0
    if (bits := _BITS.get(subtype)) is not None:
        steps = 2.0 ** (bits - 1)
        highest = 1.0 - 1.0 / steps
        part = np.clip(np.rint(part * steps) / steps, lowest, highest)
    rest = whole - part
    beyond = (rest < lowest) | (rest > highest)
    altered = int(beyond.sum())
    if altered:
        rest = np.clip(rest, lowest, highest)
        part = np.clip(np.where(beyond, whole - rest, part), lowest, highest)
    return part, rest, altered
