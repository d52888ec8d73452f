"""The level that the extracted voice has in the mixture."""

from __future__ import annotations

import numpy as np


def gain_onto(estimate: np.ndarray, mixture: np.ndarray) -> float:
    """The gain that brings an estimate to the level (and polarity) its voice has in the mixture.

    Networks trained on scale-invariant losses return a voice at any level, even turned around. The
    least-squares gain `<estimate, mixture> / <estimate, estimate>` over all channels minimises
    `||mixture - gain * estimate||`: it is the exact level where the estimate is the voice and the rest of the
    mixture does not correlate with it. One gain for all channels keeps their differences.

    Args:
        estimate: [channels, samples], any level.
        mixture: [channels, samples].

    Returns:
        The linear gain; 0 for a silent estimate.

    >>> voice = np.array([[1.0, -1.0, 1.0, -1.0]])
    >>> gain_onto(-4 * voice, voice + [[1.0, 1.0, -1.0, -1.0]])
    -0.25
    """
    estimate = estimate.astype(np.float64)
    energy = float((estimate**2).sum())
    if energy <= np.finfo(np.float32).tiny * estimate.size:
        return 0.0
    return float((estimate * mixture).sum()) / energy
